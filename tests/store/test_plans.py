"""Statements that are told keys find their rows by those keys, whatever the statistics say.

Statistics that were taken while nothing was ready or live say that the partial indexes of what is ready or
live hold one row. A plan that trusts them walks through all that has become ready since, for each row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from agentorch_cli.core.where import All
from agentorch_cli.store.database import _BY_KEY
from agentorch_cli.store.listing import Clauses, among
from agentorch_cli.store.listings import TASKS
from agentorch_cli.store.queries import statements
from agentorch_cli.store.store import Store

BY_KEY = (
    "insert_tasks",
    "insert_task",
    "ready_tasks_by_id",
    "assign_batch",
    "settle_batch",
    "settle_and_unlock",
    "unlock_dependents",
    "doom_dependents",
    "skip_dependents",
    "accept_attempts",
    "note_progress",
)

FINISHED = """
with tasks as (
  insert into task_distributions (task_id, task_type, status, submission_id, wanted, completed_at)
  select '{prefix}-' || n, 'task', 'completed', gen_random_uuid(), 0, now()
  from generate_series(1, {number}) as n
  returning task_id
)
insert into task_attempts (message_id, task_id, agent_id, attempt, status, slot, node_id, finished_at)
select gen_random_uuid(), task_id, 'agent', 1, 'completed', 0, 'node', now() from tasks"""


def scans(plan: dict[str, Any], table: str = "") -> Iterator[tuple[str, str, str]]:
    """How each table is read: table, index (or the kind of scan), and by which condition."""
    table = plan.get("Relation Name", table)
    if "Scan" in plan["Node Type"] and table and plan["Node Type"] != "Bitmap Heap Scan":
        yield table, plan.get("Index Name", plan["Node Type"]), plan.get("Index Cond", "everything")
    for part in plan.get("Plans", ()):
        yield from scans(part, table if plan["Node Type"] == "Bitmap Heap Scan" else "")


async def ways(store: Store) -> list[str]:
    """How the statements of the hot path find tasks and attempts, where not by their keys."""
    wrong = []
    async with store.db.pool.acquire() as connection, connection.transaction():
        for setting, value in _BY_KEY.items():
            await connection.execute(f"set local {setting} = {value}")
        for name in BY_KEY:
            sql = statements()[name]
            await connection.execute(f"prepare one as {sql}")
            nothing = ", ".join(["null"] * max(map(int, re.findall(r"\$(\d+)", sql))))
            told = await connection.fetchval(f"explain (format json) execute one({nothing})")
            await connection.execute("deallocate one")
            wrong += [
                f"{name} reads {table} by {index} where {condition}"
                for table, index, condition in scans(json.loads(told)[0]["Plan"])
                if table in ("task_distributions", "task_attempts", "task_dependencies")
                and (not index.endswith("_pkey") or condition == "everything")
            ]
    return wrong


async def test_rows_are_found_by_their_keys_after_a_quiet_moment(store: Store) -> None:
    await store.db.pool.execute(
        "insert into agent_registry (agent_id, agent_type) values ('agent', 'worker')"
    )
    await store.db.pool.execute(FINISHED.format(number=5000, prefix="task"))
    await store.db.pool.execute("analyze")

    assert await ways(store) == []


@pytest.mark.parametrize("number", [0, 9, 50, 500])
@pytest.mark.parametrize("is_analyzed", [False, True])
async def test_rows_are_found_by_their_keys_where_the_plans_were_made_while_there_were_few(
    store: Store, number: int, *, is_analyzed: bool
) -> None:
    """A plan is kept until the next statistics, a minute or more, however much has come since."""
    await store.db.pool.execute(FINISHED.format(number=number, prefix="old"))
    if is_analyzed:
        await store.db.pool.execute("vacuum analyze")
    await store.db.pool.execute(FINISHED.format(number=1, prefix="new"))  # there is something to settle

    assert await ways(store) == []


async def test_what_ended_badly_is_listed_without_reading_what_went_well(store: Store) -> None:
    await store.db.pool.execute(FINISHED.format(number=5000, prefix="task"))
    await store.db.pool.execute(
        "update task_distributions set status = 'failed', generation = 1 where task_id = 'task-7'"
    )
    await store.db.pool.execute("vacuum analyze task_distributions")
    wanted = Clauses(TASKS, among("status", ["failed", "skipped"]) or All(()))
    sql = wanted.put_into(statements()["show_tasks"], 1)

    async with store.db.pool.acquire() as connection:
        told = await connection.fetchval(f"explain (format json) {sql}", 50, *wanted.values)

    assert "task_ended_badly" in {index for _, index, _ in scans(json.loads(told)[0]["Plan"])}


async def test_what_is_ready_is_read_in_the_order_of_service_and_not_sorted(store: Store) -> None:
    """Also before the first statistics of a large backlog."""
    await store.db.pool.execute(
        "insert into task_distributions (task_id, task_type, status, submission_id, wanted, task_data)"
        " select 'task-' || n, 'task', 'pending', gen_random_uuid(), 1, to_json(repeat('x', 300))"
        " from generate_series(1, 5000) as n"
    )
    async with store.db.pool.acquire() as connection, connection.transaction():
        for setting, value in _BY_KEY.items():
            await connection.execute(f"set local {setting} = {value}")
        await connection.execute(f"prepare one as {statements()['ready_tasks']}")
        told = await connection.fetchval("explain (format json) execute one(100, 'default', -1000000, 0, 0)")
        await connection.execute("deallocate one")

    assert "Sort Key" not in told
    assert [index for _, index, _ in scans(json.loads(told)[0]["Plan"])] == ["task_ready_in_pool"]
