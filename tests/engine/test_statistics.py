"""What the planner knows of a table keeps up with its growth."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

ROWS = """
insert into task_distributions (task_id, task_type, status, submission_id, wanted, completed_at)
select 'task-' || n, 'task', 'completed', gen_random_uuid(), 0, now()
from generate_series($1::int, $2::int) as n"""


async def known(sql: Any) -> int:
    """How many tasks the planner knows of."""
    [row] = await sql("select reltuples::int from pg_class where oid = 'task_distributions'::regclass")
    number: int = row[0]
    return number


async def grown(lifeline: Any, sql: Any, number: int) -> None:
    """Sweeps until so many are known: one that meets another at the table passes it over."""
    async with asyncio.timeout(20):
        while await known(sql) != number:
            await lifeline.sweep_once()


async def test_a_table_that_has_outgrown_its_statistics_gets_new_ones(start_engine: Any, sql_of: Any) -> None:
    orchestrator = await start_engine(engine={"poll_interval": 60.0})  # only the sweeps of this test
    lifeline, sql = orchestrator.engine.lifeline, partial(sql_of, orchestrator)
    await sql("analyze task_distributions")
    await sql("alter table task_distributions set (autovacuum_enabled = off)")
    await sql(ROWS, 1, 2_000)

    await grown(lifeline, sql, 2_000)

    await sql(ROWS, 2_001, 3_000)
    await lifeline.sweep_once()

    assert await known(sql) == 2_000  # it has not doubled

    await sql(ROWS, 3_001, 7_000)
    lifeline.state.is_chief = False
    await lifeline.sweep_once()

    assert await known(sql) == 2_000  # one node does it for all

    lifeline.state.is_chief = True
    await grown(lifeline, sql, 7_000)
