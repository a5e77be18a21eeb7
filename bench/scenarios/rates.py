"""Tasks per second: stored ones that are drained, and such that are submitted while others are done."""

from __future__ import annotations

from bench.figures import Findings
from bench.fleet.engine import engine
from bench.scenarios import Scenario, Sizes
from bench.throughput import both_seconds, drain_seconds, submit_seconds


async def drain(sizes: Sizes, *, single: bool = False) -> Findings:
    """Tasks are stored, then the agent comes."""
    found = Findings()
    async with engine(single=single) as one:
        await submit_seconds(one, sizes.tasks)
        wal, commits = await one.wal_bytes(), await _commits(one.db)
        done, seconds, cpu = await drain_seconds(one, sizes.tasks)
        found.rate("rate", done, seconds)
        for process, microseconds in cpu.items():
            found.add(f"cpu {process}", microseconds, "us/task", "less")
        found.add("log written", (await one.wal_bytes() - wal) / done, "B/task", "less")
        found.add("commits", (await _commits(one.db) - commits) / done, "/task", "less")
    return found


async def both(sizes: Sizes, *, single: bool = False) -> Findings:
    """The agent is there, then tasks are submitted, 100 a call."""
    found = Findings()
    async with engine(single=single) as one:
        one.start_agent()
        await one.until_online(1)
        await both_seconds(one, sizes.tasks // 5)
        seconds, cpu = await both_seconds(one, sizes.tasks)
        found.rate("rate", sizes.tasks, seconds)
        for process, microseconds in cpu.items():
            found.add(f"cpu {process}", microseconds, "us/task", "less")
    return found


async def drain_single(sizes: Sizes) -> Findings:
    return await drain(sizes, single=True)


async def both_single(sizes: Sizes) -> Findings:
    return await both(sizes, single=True)


async def _commits(db: object) -> int:
    await db.execute("select pg_stat_clear_snapshot()")  # type: ignore[attr-defined]
    value = await db.fetchval(  # type: ignore[attr-defined]
        "select xact_commit from pg_stat_database where datname = current_database()"
    )
    return int(value)


SCENARIOS = (
    Scenario("drain", "tasks/s of stored no-op tasks, arrays in frames", drain),
    Scenario("drain-single", "the same with one message a frame", drain_single),
    Scenario("both", "tasks/s from submit to stored result, 100 a call, arrays in frames", both),
    Scenario("both-single", "the same with one message a frame", both_single),
)
