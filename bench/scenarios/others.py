"""Measurements that are programs of their own: work ahead, the deadlock detector, the choice of agents."""

from __future__ import annotations

import asyncio

from agentorch_cli.core.deadlock import detect
from agentorch_cli.core.system import System
from bench import deadlock as deadlock_room
from bench import matching as matching_room
from bench import prefetch as prefetch_room
from bench.figures import Findings
from bench.scenarios import Scenario, Sizes


async def deadlock(sizes: Sizes) -> Findings:
    """The detector on 100,000 tasks with 1,000,000 edges, in memory."""
    found = Findings()
    for make in deadlock_room.GRAPHS:
        system = System({}, make(100_000, 10))
        wall, cpu = await asyncio.to_thread(deadlock_room.best_of, 1, lambda system=system: detect(system))
        found.add(make.__name__, wall, "s", "less")
        found.add(f"{make.__name__}, CPU", cpu, "s", "less")
    return found


async def prefetch(sizes: Sizes) -> Findings:
    """Eight agents of one slot that are handed 0, 1, 2 or 4 tasks ahead."""
    found = Findings()
    for ahead in prefetch_room.PREFETCH:
        for seconds, (rate, moved) in (await prefetch_room.measure(8, ahead, sizes.tasks)).items():
            found.add(f"{ahead} ahead, {seconds * 1e3:.0f} ms a task", rate, "tasks/s", "more")
            found.add(f"{ahead} ahead, {seconds * 1e3:.0f} ms a task, moved", moved, "share")
    return found


async def matching(sizes: Sizes) -> Findings:
    """The choice of agents on a simulated stream, beside random, round robin and least loaded."""
    found = Findings()
    for row in await asyncio.to_thread(matching_room.compare, [1], [0.1, 0.3, 0.6]):
        name = f"load {row['load']}, {row['choice']}"
        found.add(f"{name}: mean", row["mean_s"], "s", "less")
        found.add(f"{name}: right first", row["right_first_percent"], "%", "more")
    return found


SCENARIOS = (
    Scenario("deadlock", "the deadlock detector on a million edges", deadlock, repeat=1),
    Scenario("prefetch", "work ahead of a slot", prefetch, repeat=1, is_default=False),
    Scenario("matching", "who is chosen, on a simulated stream", matching, repeat=1, is_default=False),
)
