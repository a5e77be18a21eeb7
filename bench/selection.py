"""What a choice costs as the fleet grows: assignments a second with 100 and with 10,000 agents.

    python -m bench.selection [--tasks 100000] [--rounds 3] [--postgres]

The same number of slots (10,000) and of ready tasks both times, over 20 capabilities; each agent has five
of them, each task asks for one or two. Goal: at most twice the time per assignment. First in memory: the
backlog walks the roster, with slots given back as they are taken. With --postgres the scheduler does it:
tasks read from the tables, assignments committed, everything but the sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

from agentorch_cli.core.backlog import Backlog, Ready
from agentorch_cli.core.matching import Member, Roster, Want
from agentorch_cli.core.model import AgentStatus, TaskSpec
from agentorch_cli.engine.engine import Engine, Limits
from agentorch_cli.store.database import Database
from agentorch_cli.store.embedded import EmbeddedServer
from agentorch_cli.store.store import Store
from agentorch_cli.store.submission import insert

SLOTS, CAPABILITIES = 10_000, 20
FLEETS = (100, 10_000)


def capabilities(number: int) -> list[str]:
    return [f"c{c}" for c in random.Random(number).sample(range(CAPABILITIES), 5)]


def needs(number: int) -> list[str]:
    draw = random.Random(number)
    return [f"c{c}" for c in draw.sample(range(CAPABILITIES), draw.choice((1, 1, 1, 2)))]


def ready(number: int) -> Ready:
    required = needs(number)
    return Ready(
        task_id=f"t{number}",
        seq=number,
        urgency=number % 10,
        remaining_path=1.0,
        type="task",
        priority=5,
        want=Want(frozenset(required), type="task"),
        min_agents=1,
        max_agents=1,
        attempts_made=0,
        timeout_seconds=300.0,
        retries=2,
        failures=0,
        losses=0,
        has_dependents=False,
        options={},
        status="pending",
        required_capabilities=required,
    )


def in_memory(agents: int, tasks: int) -> float:
    """Microseconds per assignment."""
    roster, backlog = Roster(exploration=0.02), Backlog()
    for number in range(agents):
        roster.put(
            Member(
                f"a{number:05}",
                "worker",
                frozenset(capabilities(number)),
                SLOTS // agents,
                AgentStatus.ONLINE,
                "node",
                performance=random.Random(-number).random(),
            )
        )
    for number in range(tasks):
        backlog.put(ready(number))
    served = 0
    held: list[tuple[str, int]] = []
    started = time.perf_counter()
    while served < tasks:
        before = served
        for _, seats in backlog.match(roster, 500):
            served += 1
            held.append((seats[0].member.agent_id, seats[0].slot))
        if len(held) > SLOTS // 2 or served == before:
            for one in held[: len(held) // 2 or 1]:
                roster.give_back(*one)
            del held[: len(held) // 2 or 1]
    return (time.perf_counter() - started) / tasks * 1e6


class Nobody:
    """A courier without agents: work is committed, and goes nowhere."""

    def deliver(self, _delivery: Any) -> bool:
        return True

    def session_of(self, _agent_id: str) -> None:
        return None

    def connected(self) -> Iterable[str]:
        return ()

    def __getattr__(self, _name: str) -> Any:
        return lambda *args, **rest: None


async def in_tables(dsn: str, agents: int, tasks: int) -> float:
    """Microseconds per assignment of the scheduler, until every slot is taken."""
    database = Database(dsn, node_id="bench")
    await database.open()
    try:
        await database.migrate()
        store = Store(database, aging_seconds=60.0)
        engine = Engine(store, Nobody(), Limits(most_running=0))
        await engine.leader.beat()
        await database.pool.executemany(
            "insert into agent_registry (agent_id, agent_type, capabilities, slots, status, node_id)"
            " values ($1, 'worker', $2, $3, 'online', 'bench')",
            [(f"a{n:05}", capabilities(n), SLOTS // agents) for n in range(agents)],
        )
        for first in range(0, tasks, 10_000):
            specs = [
                TaskSpec(f"t{n}", required_capabilities=tuple(needs(n))) for n in range(first, first + 10_000)
            ]
            await insert(store, uuid4(), specs)
        await engine.resync()
        started = time.perf_counter()
        await engine.scheduler.step()
        seconds = time.perf_counter() - started
        row = await database.pool.fetchrow("select count(*) from task_attempts")
        return seconds / row[0] * 1e6
    finally:
        await database.close()


async def with_postgres(agents: int, tasks: int) -> float:
    folder = Path(tempfile.mkdtemp(prefix="agentorch-bench-"))
    server = EmbeddedServer(folder)
    try:
        return await in_tables(await server.start(), agents, tasks)
    finally:
        await server.release()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    found: dict[int, list[float]] = {fleet: [] for fleet in FLEETS}
    for _ in range(options.rounds):
        for fleet in FLEETS:
            if options.postgres:
                found[fleet].append(asyncio.run(with_postgres(fleet, options.tasks)))
            else:
                found[fleet].append(in_memory(fleet, options.tasks))
    for fleet, times in found.items():
        median = statistics.median(times)
        print(f"{fleet:>7,} agents  {median:7.1f} us an assignment  {1e6 / median:9,.0f} assignments/s")
    ratios = [large / small for small, large in zip(*found.values(), strict=True)]
    print(f"ratio {statistics.median(ratios):.2f} (goal: at most 2)")


if __name__ == "__main__":
    main()
