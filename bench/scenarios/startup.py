"""How soon the program is there: help pages, `serve` to its first assignment, `status`."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench import startup as startup_room
from bench.figures import Findings
from bench.fleet.engine import Engine, engine, run_program
from bench.scenarios import Scenario, Sizes
from bench.throughput import submit_seconds

ROUNDS = 5


async def pages(sizes: Sizes) -> Findings:
    """Help pages beside an empty Typer application of two commands, in turn."""
    found = Findings()
    with tempfile.TemporaryDirectory() as folder:
        programs = startup_room.programs(Path(folder))
        times = await asyncio.to_thread(startup_room.measure, programs, ROUNDS)
    base = statistics.median(times["empty Typer application"])
    for name, seconds in times.items():
        if name.startswith("agentorch"):
            found.add(name.removeprefix("agentorch "), statistics.median(seconds) * 1e3, "ms", "less")
            found.add(
                f"{name.removeprefix('agentorch ')} / empty", statistics.median(seconds) / base, "x", "less"
            )
    return found


async def serve(sizes: Sizes) -> Findings:
    """`serve` on an empty folder and on one that is there, with tasks waiting and an agent that knocks."""
    found = Findings()
    start = time.perf_counter()
    async with engine() as one:
        found.add("first start, new database, to ready", (time.perf_counter() - start) * 1e3, "ms", "less")
        found.add("status", await asyncio.to_thread(_command, one, "status") * 1e3, "ms", "less")
        found.add("task list", await asyncio.to_thread(_command, one, "task", "list") * 1e3, "ms", "less")
        node = one.nodes[0]
        one.start_agent()
        await one.until_online(1)
        await asyncio.to_thread(node.stop)
        await submit_seconds(one, 100)
        start = time.perf_counter()
        await asyncio.to_thread(node.start)
        found.add("start again to ready", (time.perf_counter() - start) * 1e3, "ms", "less")
        while not await one.db.fetchval("select exists (select from task_attempts)"):
            await asyncio.sleep(0.005)
        found.add("start again to first assignment", (time.perf_counter() - start) * 1e3, "ms", "less")
    return found


def _command(one: Engine, *arguments: str) -> float:
    """Median seconds of a command."""
    took = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        process = run_program(one, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if process.wait(60):
            raise RuntimeError(f"agentorch {' '.join(arguments)} ended with {process.returncode}")
        took.append(time.perf_counter() - start)
    return statistics.median(took)


SCENARIOS = (
    Scenario("pages", "help pages beside an empty Typer application", pages, repeat=1),
    Scenario("start", "serve to ready and to its first assignment, status", serve),
)
