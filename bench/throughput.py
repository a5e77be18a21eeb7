"""Tasks per second, and latency on an idle engine, of the real program.

Three kinds of processes share the machine: `agentorch serve` with its embedded PostgreSQL
(fsync and synchronous_commit on), one agent process over WebSocket, and this one, which
submits through the same client as the command line does. A task counts as done when its
result is stored.

    python -m bench.throughput --tasks 5000 --repeat 3
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop

from agentorch_cli.client import LocalClient
from agentorch_cli.config import load_settings
from agentorch_cli.core.model import TaskSpec
from agentorch_cli.identity import new_id
from agentorch_cli.settings import Settings
from agentorch_cli.wiring import open_client
from bench.machine import describe, percentiles

DONE = "select count(*) from task_distributions where status = 'completed'"
PAYLOAD = {"task": "noop", "args": {"text": "x" * 60}, "n": 12345}


def tasks(number: int) -> list[TaskSpec]:
    """Independent no-op tasks with a small payload."""
    return [
        TaskSpec(str(new_id()), type="noop", required_capabilities=("noop",), data=PAYLOAD)
        for _ in range(number)
    ]


class Fleet:
    """A data directory, `serve` on it, and an agent."""

    def __init__(self, slots: int, single: bool) -> None:
        self.data_dir = Path(tempfile.mkdtemp(prefix="agentorch-bench-"))
        self.slots, self.single = slots, single
        self.settings: Settings = load_settings({"data_dir": str(self.data_dir)}, {}, None, self.data_dir)
        self._serve: subprocess.Popen[bytes] | None = None
        self._agent: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start_serve(self) -> None:
        self._serve = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "agentorch_cli",
                "--json",
                "--data-dir",
                str(self.data_dir),
                "serve",
                "--port",
                "0",
            ],
            stdout=subprocess.PIPE,
            stderr=(self.data_dir / "serve.log").open("ab"),
            env=os.environ | {"AGENTORCH_ENGINE_MAX_CONCURRENT_TASKS": "0"},
        )
        assert self._serve.stdout is not None
        text = b""
        while b"url" not in text:
            line = self._serve.stdout.readline()
            if not line:
                raise SystemExit((self.data_dir / "serve.log").read_text())
            text += line
        self.url = "ws" + text.decode().split('"ws', 1)[1].split('"', 1)[0]

    def start_agent(self) -> None:
        command = [
            sys.executable,
            "-m",
            "bench.noop_agent",
            self.url,
            "bench-agent",
            "--slots",
            str(self.slots),
        ]
        self._agent = subprocess.Popen([*command, "--single"] if self.single else command)

    @property
    def pids(self) -> dict[str, int]:
        return {
            name: process.pid
            for name, process in (("serve", self._serve), ("agent", self._agent))
            if process is not None
        }

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time used so far by each part: what the machine's noise does not change."""
        import psutil

        used = {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in self.pids.items()}
        postmaster = psutil.Process(int((self.data_dir / "postgres/postmaster.pid").read_text().split()[0]))
        # The times of children that ended are in the postmaster's own account.
        used["postgres"] = sum(postmaster.cpu_times()[:4])
        for child in postmaster.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                used["postgres"] += sum(child.cpu_times()[:2])
        used["client"] = sum(psutil.Process().cpu_times()[:2])
        return used

    def stop(self) -> None:
        for process in (self._agent, self._serve):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                process.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)


@contextlib.asynccontextmanager
async def fleet(slots: int, single: bool) -> AsyncIterator[tuple[Fleet, LocalClient]]:
    """A running engine, and a client of it."""
    one = Fleet(slots, single)
    try:
        await asyncio.to_thread(one.start_serve)
        async with open_client(one.settings) as client:
            yield one, client
    finally:
        await asyncio.to_thread(one.stop)


async def agent_is_online(client: LocalClient) -> None:
    while not any(agent.status == "online" for agent in await client.call("agent.list")):
        await asyncio.sleep(0.02)


async def submit(client: LocalClient, specs: list[TaskSpec], chunk: int) -> None:
    for start in range(0, len(specs), chunk):
        await client.call("task.submit", tasks=specs[start : start + chunk])


async def until_done(client: LocalClient, number: int) -> None:
    """Wait until this many tasks in all are completed; looks at the table every 20 ms."""
    while True:
        if await client.context.db.pool.fetchval(DONE) >= number:
            return
        await asyncio.sleep(0.02)


async def measure(number: int, samples: int, slots: int, single: bool) -> dict[str, Any]:
    """One run on a fresh database."""
    async with fleet(slots, single) as (one, client):
        figures: dict[str, Any] = {}
        specs = tasks(number)
        start = time.perf_counter()
        await submit(client, specs, 1000)
        figures["submit_per_s"] = number / (time.perf_counter() - start)

        one.start_agent()
        await agent_is_online(client)
        # From the agent's being known to the last stored result; what was done before that is left out.
        start, before = time.perf_counter(), one.cpu_seconds()
        done = await client.context.db.pool.fetchval(DONE)
        await until_done(client, number)
        figures["drain_per_s"] = (number - done) / (time.perf_counter() - start)
        figures["cpu_us_per_task"] = {
            name: round((after - before[name]) / (number - done) * 1e6, 1)
            for name, after in one.cpu_seconds().items()
        }

        specs = tasks(number)
        start = time.perf_counter()
        await submit(client, specs, 100)
        await until_done(client, 2 * number)
        figures["both_per_s"] = number / (time.perf_counter() - start)

        took = []
        waiting = Waiter(client)
        async with waiting:
            for spec in tasks(samples + 20):
                start = time.perf_counter()
                await client.call("task.submit", tasks=[spec])
                await waiting.until_final(spec.task_id)
                took.append((time.perf_counter() - start) * 1e3)
        figures["latency_ms"] = percentiles(took[20:])
        return figures


class Waiter:
    """Learns of ended tasks as `task wait` does: a hint, then a look at the table."""

    def __init__(self, client: LocalClient) -> None:
        self._db = client.context.db
        self._news = asyncio.Event()
        self._ended: set[str] = set()

    async def __aenter__(self) -> Waiter:
        ready = asyncio.Event()

        async def connected() -> None:
            ready.set()

        def heard(_: str, payload: str) -> None:
            self._ended.update(payload.split("\n"))
            self._news.set()

        self._listening = asyncio.create_task(self._db.listen(["agentorch_done"], heard, connected))
        await ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def until_final(self, task_id: str) -> None:
        while task_id not in self._ended:
            self._news.clear()
            await self._news.wait()
        rows = await self._db.fetch("results", [task_id])
        assert rows[0]["status"] == "completed", rows[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=500, help="tasks of the latency run")
    parser.add_argument("--slots", type=int, default=500)
    parser.add_argument("--single", action="store_true", help="one message a frame")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    runs = []
    for _ in range(args.repeat):
        runs.append(uvloop.run(measure(args.tasks, args.samples, args.slots, args.single)))
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    summary: dict[str, Any] = {"machine": describe(), "tasks": args.tasks, "one_message_a_frame": args.single}
    for key in ("submit_per_s", "drain_per_s", "both_per_s"):
        values = [run[key] for run in runs]
        summary[key] = {
            "median": round(statistics.median(values)),
            "min": round(min(values)),
            "max": round(max(values)),
        }
    summary["latency_ms"] = {
        key: round(statistics.median(run["latency_ms"][key] for run in runs), 2)
        for key in ("p50", "p95", "p99")
    }
    print(json.dumps(summary, indent=None if args.json else 2))


if __name__ == "__main__":
    main()
