"""A task that ends well is written in place, and the indexes know the few tasks that they have to know."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from agentorch_cli.core.model import AttemptStatus, TaskSpec, TaskStatus
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.tasks import submit_tasks
from agentorch_cli.identity import new_id_text
from agentorch_cli.store.records import Assignment, Ending
from agentorch_cli.store.store import Store

BEFORE = 16
"""The schema that this column came after."""

FINAL = ("completed", "failed", "cancelled", "skipped")

INSERT = """
insert into task_distributions (
  task_id, task_type, status, waiting_on, submission_id, deadline, concurrency_slot, depends_on, completed_at)
select $1, 'task', $2, ($2 = 'blocked')::integer, gen_random_uuid(), case when $3 then now() end,
  case when $4 then $6::integer end, case when $5 then array['x'] else '{}' end,
  case when $2 in ('completed', 'failed', 'cancelled', 'skipped') then now() end"""

KINDS = list(itertools.product(TaskStatus, (False, True), (False, True), (False, True)))
"""Status, and whether it has a deadline, a concurrency slot and dependencies."""


def indexed(status: str, deadline: bool, slot: bool, dependencies: bool) -> str | None:
    """The twin: what an index has to know of such a task."""
    if status == "completed":
        return None
    return str(status) if status in FINAL or deadline or slot or dependencies else None


async def _insert_all(connection: Any) -> None:
    for number, (status, *has) in enumerate(KINDS):
        await connection.execute(INSERT, f"task-{number}", str(status), *has, number)


async def _rows(connection: Any) -> dict[str, str | None]:
    rows = await connection.fetch("select task_id, indexed_status from task_distributions")
    return {row["task_id"]: row["indexed_status"] for row in rows}


EXPECTED = {f"task-{number}": indexed(*kind) for number, kind in enumerate(KINDS)}


async def test_a_task_that_ends_well_is_not_entered_into_any_index_again(store: Store) -> None:
    await store.db.pool.execute(
        "insert into agent_registry (agent_id, agent_type, status, node_id, slots)"
        " values ('w', 'worker', 'online', 'tests', 1)"
    )
    await submit_tasks(Context(store), [TaskSpec(new_id_text(), data={"text": "x" * 200})])
    [task] = await store.ready_tasks(1)
    batch = [Assignment(task.task_id, 0, new_id_text(), "w", 0, None, 1, "tests")]
    ending = Ending(
        batch[0].message_id, task.task_id, "w", AttemptStatus.COMPLETED, TaskStatus.COMPLETED, '"done"'
    )

    async with store.db.transaction() as tx:
        assert await store.assign_within(tx, batch)
        await tx.fetch("settle_batch", *store._endings([ending]))
        row = (
            await tx._connection.fetch(
                "select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables"
                " where relname = 'task_distributions'"
            )
        )[0]

    assert (row["n_tup_upd"], row["n_tup_hot_upd"]) == (2, 1)


async def test_the_status_for_indexes_is_right_whatever_is_written(store: Store) -> None:
    async with store.db.pool.acquire() as connection:
        await _insert_all(connection)

        assert await _rows(connection) == EXPECTED

        for status, *_ in KINDS[:: len(KINDS) // len(TaskStatus)]:
            await connection.execute(
                "update task_distributions set status = $1, generation = generation + 1, waiting_on = 1,"
                " completed_at = case when $1 = any($2::text[]) then now() end, indexed_status = 'odd',"
                " concurrency_key = task_id",
                str(status),
                list(FINAL),
            )

            assert await _rows(connection) == {
                f"task-{number}": indexed(status, *kind[1:]) for number, kind in enumerate(KINDS)
            }


WRITTEN = (None, "null", "'odd'", "status", "'{status}'", "'{other}'")
"""What a statement says of the status for indexes: nothing, as an older one does, or what may be wrong."""

FLAGS = {
    "": lambda has: has,
    "deadline = null": lambda has: (False, has[1], has[2]),
    "deadline = now()": lambda has: (True, has[1], has[2]),
    "concurrency_slot = null": lambda has: (has[0], False, has[2]),
    "concurrency_slot = 1": lambda has: (has[0], True, has[2]),
    "depends_on = '{}'": lambda has: (has[0], has[1], False),
    "depends_on = '{x}'": lambda has: (has[0], has[1], True),
}
"""What else it may write, and what a task has then of deadline, concurrency slot and dependencies."""


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag or "nothing else")
async def test_the_status_for_indexes_is_right_after_every_step(
    store: Store, written: str | None, flag: str
) -> None:
    async with store.db.pool.acquire() as connection:
        await _insert_all(connection)
        for status, other in [(None, "pending"), *zip(TaskStatus, reversed(TaskStatus), strict=True)]:
            said = [flag] if flag else []
            if status is not None:
                completed_at = "now()" if status in FINAL else "null"
                said += [f"status = '{status}'", f"completed_at = {completed_at}", "waiting_on = 1"]
                said += ["generation = generation + 1"]
            if written is not None:
                said += [f"indexed_status = {written.format(status=status or 'pending', other=other)}"]
            if not said:
                continue
            step = connection.transaction()
            await step.start()

            await connection.execute(f"update task_distributions set {', '.join(said)}")

            assert await _rows(connection) == {
                f"task-{number}": indexed(status or kind[0], *FLAGS[flag](kind[1:]))
                for number, kind in enumerate(KINDS)
            }, said
            await step.rollback()


async def test_tasks_of_an_older_database_are_known_to_the_indexes(store: Store) -> None:
    async with store.db.pool.acquire() as connection, connection.transaction():
        await connection.execute("create schema older")
        await connection.execute("set local search_path = older")
        await store.db.apply(connection, up_to=BEFORE)
        await _insert_all(connection)

        await store.db.apply(connection)

        assert await _rows(connection) == EXPECTED


@pytest.mark.parametrize("column", ["status", "completed_at", "result", "assigned_agents"])
async def test_no_index_of_tasks_depends_on_what_changes_at_the_end(store: Store, column: str) -> None:
    found = await store.db.pool.fetch(
        "select distinct i.indexrelid::regclass::text as name"
        " from pg_index i join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = i.indexrelid"
        " join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid"
        " where i.indrelid = 'task_distributions'::regclass and d.refobjid = i.indrelid and a.attname = $1",
        column,
    )

    assert [row["name"] for row in found] == []


async def test_every_task_of_a_long_queue_finds_room_beside_itself_for_its_end(store: Store) -> None:
    number = 400
    await store.db.pool.execute(
        "insert into agent_registry (agent_id, agent_type, status, node_id, slots)"
        " values ('w', 'worker', 'online', 'tests', $1)",
        number,
    )
    await submit_tasks(Context(store), [TaskSpec(new_id_text(), data={"text": "x"}) for _ in range(number)])
    batch = [
        Assignment(task.task_id, 0, new_id_text(), "w", slot, None, 1, "tests")
        for slot, task in enumerate(await store.ready_tasks(number))
    ]
    endings = [
        Ending(one.message_id, one.task_id, "w", AttemptStatus.COMPLETED, TaskStatus.COMPLETED, '"done"')
        for one in batch
    ]

    assert len(await store.assign(batch)) == number
    async with store.db.transaction() as tx:
        assert len(await tx.fetch("settle_batch", *store._endings(endings))) == number
        in_place = await tx._connection.fetchval(
            "select n_tup_hot_upd from pg_stat_xact_user_tables where relname = 'task_distributions'"
        )

    assert in_place == number
