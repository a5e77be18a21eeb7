"""The smallest loop with a graph: how near to the list schedule anything of this shape comes on this machine.

    hub -> commit -> WebSocket -> one of the workers, which sleeps for as long as the task takes
    hub <- commit <- WebSocket <- worker

A hub, workers in processes of their own, and an embedded PostgreSQL with fsync on, as in `smallest_loop`.
All tasks are stored before the clock runs. Who gets a task is committed before it is sent, and a result
before its dependents may begin. A worker that has brought a result is free before that is stored. The hub
knows all runtimes, and keeps graph and ranks in memory; a worker's sleep holds its event loop. There are
no leases, retries, events or inputs: it bounds what is reachable, it is no engine.

    python -m bench.smallest_graph --repeat 3
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from agentorch_cli.identity import new_id
from bench.fleet.engine import ROOT
from bench.fleet.workflow import FOLDER, Workflow, load
from bench.smallest_loop import CLAIM, FINISH, INSERT, SCHEMA, Gather, database, talk


@dataclass(frozen=True, slots=True)
class Figures:
    """One graph's run; seconds."""

    name: str
    makespan: float
    cp: float

    @property
    def ratio(self) -> float:
        return self.makespan / self.cp


class Hub:
    """Hands a graph out: the longest remaining path first, to whoever is free."""

    def __init__(self, connections: list[asyncpg.Connection], workers: int) -> None:
        self._storing, self._claiming, self._finishing = connections
        self._number = workers
        self._free: list[ServerConnection] = []
        self.are_here = asyncio.Event()
        self._holders: dict[UUID, ServerConnection] = {}
        self._news = asyncio.Event()
        self._ready: list[tuple[float, int, str]] = []
        self._results = Gather(self._finish)

    async def connected(self, socket: ServerConnection) -> None:
        """A worker, until it goes."""
        self._free.append(socket)
        if len(self._free) == self._number:
            self.are_here.set()
        with contextlib.suppress(ConnectionClosed):
            async for frame in socket:
                self._results.put([orjson.loads(frame)])

    async def run(self, graph: Workflow) -> float:
        """Seconds from the first dispatch's begin to the last result's commit."""
        self._graph, self._rank = graph, graph.by_runtime()
        self._position = {job.name: number for number, job in enumerate(graph.jobs)}
        self._waiting = {job.name: len(job.depends_on) for job in graph.jobs}
        self._ids = {job.name: new_id() for job in graph.jobs}
        self._names = {task_id: name for name, task_id in self._ids.items()}
        self._left, self._is_over = len(graph.jobs), asyncio.Event()
        bodies = [orjson.dumps({"seconds": job.seconds}).decode() for job in graph.jobs]
        await self._storing.execute(INSERT, list(self._ids.values()), bodies)
        loops = [asyncio.create_task(self._results.run()), asyncio.create_task(self._hand_out())]
        start = time.perf_counter()
        self._add(name for name, number in self._waiting.items() if not number)
        await self._is_over.wait()
        seconds = time.perf_counter() - start
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        return seconds

    def _add(self, names: Any) -> None:
        for name in names:
            heapq.heappush(self._ready, (-self._rank[name], self._position[name], name))
        self._news.set()

    async def _hand_out(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            pairs = []
            while self._ready and self._free:
                name = heapq.heappop(self._ready)[2]
                pairs.append((self._ids[name], self._graph.by_name[name].seconds, self._free.pop()))
            if pairs:
                await self._claiming.execute(CLAIM, [task_id for task_id, _, _ in pairs])
                for task_id, seconds, socket in pairs:
                    self._holders[task_id] = socket
                    await socket.send(orjson.dumps((task_id, seconds)), text=True)
                self._news.set()

    async def _finish(self, batch: list[tuple[str, Any]]) -> None:
        ids = [UUID(task_id) for task_id, _ in batch]
        self._free += [self._holders.pop(task_id) for task_id in ids]
        self._news.set()
        await self._finishing.execute(FINISH, ids, [orjson.dumps(result).decode() for _, result in batch])
        for task_id in ids:
            freed = []
            for dependent in self._graph.dependents[self._names[task_id]]:
                self._waiting[dependent] -= 1
                if not self._waiting[dependent]:
                    freed.append(dependent)
            self._add(freed)
        self._left -= len(batch)
        if not self._left:
            self._is_over.set()


async def run_worker(port: int) -> None:
    async with talk(port) as socket:
        async for frame in socket:
            task_id, seconds = orjson.loads(frame)
            time.sleep(seconds)
            await socket.send(orjson.dumps((task_id, {"ok": 1})), text=True)


async def measure(graphs: list[Workflow], workers: int) -> list[Figures]:
    """All of them, one after the other, on a fresh database."""
    async with database() as dsn:
        processes: list[subprocess.Popen[bytes]] = []
        connections = [await asyncpg.connect(dsn) for _ in range(3)]
        try:
            await connections[0].execute(SCHEMA)
            hub = Hub(connections, workers)
            async with serve(hub.connected, "127.0.0.1", 0, compression=None, max_size=None) as listening:
                port = str(listening.sockets[0].getsockname()[1])
                command = [sys.executable, "-m", "bench.smallest_graph", "--worker", port]
                processes += [subprocess.Popen(command, cwd=ROOT) for _ in range(workers)]
                async with asyncio.timeout(60):
                    await hub.are_here.wait()
                return [
                    Figures(graph.name, await hub.run(graph), graph.schedule(workers, graph.by_runtime()))
                    for graph in graphs
                ]
        finally:
            for process in processes:
                process.kill()
                process.wait()
            for connection in connections:
                await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graphs", nargs="*", help="names of graphs in tests/data/dags; all if not said")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--median", type=float, default=0.02, help="seconds of the median task")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        uvloop.run(run_worker(args.worker))
        return
    names = args.graphs or sorted(path.stem for path in FOLDER.glob("*.json"))
    graphs = [load(name).with_median(args.median) for name in names]
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(args.repeat):
        for one in uvloop.run(measure(graphs, args.workers)):
            found[one.name].append(one.ratio)
    if args.json:
        print(json.dumps(found))
    else:
        for name, ratios in found.items():
            print(f"{name:22} {statistics.median(ratios):.3f} x ({min(ratios):.3f}-{max(ratios):.3f})")


if __name__ == "__main__":
    main()
