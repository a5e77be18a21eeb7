"""The smallest loop of the program's own shape: what Python, PostgreSQL and WebSocket allow on this machine.

    submitter -> WebSocket -> hub -> commit -> WebSocket -> worker
    submitter <- WebSocket <- hub <- commit <- WebSocket <- worker

Three processes with uvloop, orjson and asyncpg, on an embedded PostgreSQL with fsync on. A task is
acknowledged after its commit, and its result is told after the commit of that. What arrives while a
commit is under way is gathered for the next one, without any timer. There are no leases, retries, events
or dependencies: it bounds what is reachable, it is no engine.

    python -m bench.smallest_loop --tasks 20000 --samples 500

* arrays      the submitter sends 100 tasks a frame, and one task a frame ("single"); the other hops carry
              whatever has gathered
* dispatch    with `--dispatch` the hub also commits who gets a task before it is sent
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import psutil
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from agentorch_cli.identity import new_id
from agentorch_cli.store.embedded import EmbeddedServer
from bench.fleet.engine import ROOT, SURROUNDINGS
from bench.machine import percentiles
from bench.throughput import PAYLOAD

WARM_UP = 20
MOST = 1_000
"""Rows of one commit."""
WINDOW = 500
"""Tasks that the worker holds at most: the slots of the agent in the other scenarios."""

SCHEMA = """
create table if not exists loop_tasks (
  id uuid primary key, state smallint not null default 0, body jsonb not null, result jsonb,
  created_at timestamptz not null default now());
create index if not exists loop_open on loop_tasks (id) where state = 0;
"""
INSERT = "insert into loop_tasks (id, body) select * from unnest($1::uuid[], $2::text[]::jsonb[])"
CLAIM = "update loop_tasks set state = 1 where id = any($1::uuid[]) and state = 0"
FINISH = """
update loop_tasks t set state = 2, result = i.result::jsonb
from unnest($1::uuid[], $2::text[]) as i (id, result) where t.id = i.id and t.state < 2"""


class Gather:
    """What comes while the last batch is worked on is the next batch."""

    def __init__(self, work: Callable[[list[Any]], Awaitable[None]]) -> None:
        self._work = work
        self._items: list[Any] = []
        self._has_items = asyncio.Event()

    def put(self, items: list[Any]) -> None:
        self._items += items
        self._has_items.set()

    async def run(self) -> None:
        while True:
            await self._has_items.wait()
            batch = self._items[:MOST]
            del self._items[:MOST]
            if not self._items:
                self._has_items.clear()
            await self._work(batch)


class Hub:
    """In the middle: takes tasks in, hands them out, takes results in, tells them."""

    def __init__(self, connections: list[asyncpg.Connection], *, claims: bool) -> None:
        self.taking, self.claiming, self.finishing = connections
        self.claims = claims
        self.ready: list[tuple[UUID, Any]] = []
        self.owners: dict[UUID, tuple[ServerConnection, Any]] = {}
        self.held = 0
        self.worker: ServerConnection | None = None
        self.news = asyncio.Event()
        self.tasks = Gather(self.take)
        self.results = Gather(self.finish)

    async def connected(self, socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            if await socket.recv() == "worker":
                self.worker = socket
                self.news.set()
                async for frame in socket:
                    self.results.put(orjson.loads(frame))
            else:
                async for frame in socket:
                    self.tasks.put([(socket, *one) for one in orjson.loads(frame)])

    async def take(self, batch: list[tuple[ServerConnection, Any, Any]]) -> None:
        ids = [new_id() for _ in batch]
        await self.taking.execute(INSERT, ids, [orjson.dumps(body).decode() for _, _, body in batch])
        taken: dict[ServerConnection, list[Any]] = {}
        for task_id, (socket, mark, body) in zip(ids, batch, strict=True):
            self.owners[task_id] = (socket, mark)
            self.ready.append((task_id, body))
            taken.setdefault(socket, []).append(mark)
        self.news.set()
        for socket, marks in taken.items():
            await socket.send(orjson.dumps({"taken": marks}), text=True)

    async def hand_out(self) -> None:
        while True:
            await self.news.wait()
            self.news.clear()
            while self.ready and self.worker is not None and self.held < WINDOW:
                room = WINDOW - self.held
                batch = self.ready[:room]
                del self.ready[:room]
                self.held += len(batch)
                if self.claims:
                    await self.claiming.execute(CLAIM, [task_id for task_id, _ in batch])
                await self.worker.send(orjson.dumps(batch), text=True)

    async def finish(self, batch: list[tuple[str, Any]]) -> None:
        ids = [UUID(task_id) for task_id, _ in batch]
        self.held -= len(batch)
        self.news.set()
        await self.finishing.execute(FINISH, ids, [orjson.dumps(result).decode() for _, result in batch])
        over: dict[ServerConnection, list[Any]] = {}
        for task_id, (_, result) in zip(ids, batch, strict=True):
            socket, mark = self.owners.pop(task_id)
            over.setdefault(socket, []).append((mark, result))
        for socket, results in over.items():
            await socket.send(orjson.dumps({"over": results}), text=True)


async def run_hub(dsn: str, claims: bool) -> None:
    connections = [await asyncpg.connect(dsn) for _ in range(3)]
    await connections[0].execute(SCHEMA)
    hub = Hub(connections, claims=claims)
    async with serve(hub.connected, "127.0.0.1", 0, compression=None, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.gather(hub.tasks.run(), hub.results.run(), hub.hand_out())


async def run_worker(port: int) -> None:
    async with talk(port) as socket:
        await socket.send("worker")
        async for frame in socket:
            await socket.send(
                orjson.dumps([(task_id, {"ok": 1}) for task_id, _ in orjson.loads(frame)]), text=True
            )


async def run_submitter(port: int, number: int, samples: int) -> None:
    """Prints what it saw: latency one by one, then rates."""
    async with talk(port) as socket:
        await socket.send("submitter")
        took = [await _one(socket) for _ in range(samples + WARM_UP)][WARM_UP:]
        seen: dict[str, Any] = {"latency_ms": percentiles(took)}
        for name, size in (("arrays", 100), ("single", 1)):
            seen[name] = await _many(socket, number, size)
    print(json.dumps(seen), flush=True)


async def _one(socket: ClientConnection) -> float:
    """Milliseconds from sending a task to its result."""
    start = time.perf_counter()
    await socket.send(orjson.dumps([(0, PAYLOAD)]), text=True)
    while "over" not in orjson.loads(await socket.recv()):
        pass
    return (time.perf_counter() - start) * 1e3


async def _many(socket: ClientConnection, number: int, size: int) -> float:
    """Tasks a second, from the first frame to the last result."""

    async def send() -> None:
        for first in range(0, number, size):
            batch = [(mark, PAYLOAD) for mark in range(first, min(number, first + size))]
            await socket.send(orjson.dumps(batch), text=True)

    start, over = time.perf_counter(), 0
    sending = asyncio.create_task(send())
    while over < number:
        over += len(orjson.loads(await socket.recv()).get("over", ()))
    await sending
    return number / (time.perf_counter() - start)


def talk(port: int) -> connect:
    return connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None)


# --- all of it ---------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def database() -> AsyncIterator[str]:
    """A fresh one, with fsync on: its address. What its processes used counts as ours."""
    folder = Path(tempfile.mkdtemp(prefix="agentorch-bench-"))
    folder.chmod(0o711)
    server = EmbeddedServer(folder / "data")
    dsn = await server.start()
    try:
        yield dsn
    finally:
        with contextlib.suppress(psutil.Error, OSError):
            SURROUNDINGS.postgres_seconds += _postgres_seconds(folder / "data")
        await server.release()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def running(*, claims: bool) -> AsyncIterator[tuple[str, int]]:
    """The loop without a submitter, on a fresh database: its address, and the hub's port."""
    async with database() as dsn:
        processes: list[subprocess.Popen[bytes]] = []
        try:
            hub = _start("hub", "--dsn", dsn, *(["--dispatch"] if claims else []))
            processes.append(hub)
            assert hub.stdout is not None
            port = int((await asyncio.to_thread(hub.stdout.readline)).decode())
            processes.append(_start("worker", "--port", str(port)))
            yield dsn, port
        finally:
            for process in reversed(processes):  # the hub last, so that nobody loses it
                process.kill()
                process.wait()


async def measure(number: int, samples: int, *, claims: bool) -> dict[str, Any]:
    """Rates and latency on a fresh database; checks that every result is stored."""
    async with running(claims=claims) as (dsn, port):
        submitter = _start(
            "submitter", "--port", str(port), "--tasks", str(number), "--samples", str(samples)
        )
        try:
            said, _ = await asyncio.to_thread(submitter.communicate, timeout=300)
        finally:
            submitter.kill()
            submitter.wait()
        connection = await asyncpg.connect(dsn)
        stored = await connection.fetchval(
            "select count(*) from loop_tasks where state = 2 and result is not null"
        )
        await connection.close()
        assert stored == 2 * number + samples + WARM_UP, stored
        return dict(json.loads(said))


@contextlib.asynccontextmanager
async def submitting(port: int) -> AsyncIterator[Callable[[], Awaitable[float]]]:
    """A submitter in this process: each call answers the milliseconds from sending a task to its result."""
    async with talk(port) as socket:
        await socket.send("submitter")
        yield lambda: _one(socket)


def _postgres_seconds(data_dir: Path) -> float:
    postmaster = psutil.Process(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]))
    return float(
        sum(sum(one.cpu_times()[:2]) for one in postmaster.children()) + sum(postmaster.cpu_times()[:4])
    )


def _start(role: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.smallest_loop", "--role", role, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--dispatch", action="store_true", help="commit each dispatch as well")
    parser.add_argument("--role", choices=["hub", "worker", "submitter"], help=argparse.SUPPRESS)
    parser.add_argument("--dsn", default="", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    match args.role:
        case "hub":
            uvloop.run(run_hub(args.dsn, args.dispatch))
        case "worker":
            uvloop.run(run_worker(args.port))
        case "submitter":
            uvloop.run(run_submitter(args.port, args.tasks, args.samples))
        case _:
            print(json.dumps(uvloop.run(measure(args.tasks, args.samples, claims=args.dispatch)), indent=2))


if __name__ == "__main__":
    main()
