"""Locks are taken in one order: tasks by their id, then attempts and edges.

Each test holds what another transaction would hold at that moment (a cancellation, usually),
lets a statement of the hot path run into it, and then takes the next lock of the order. If the
statement has taken that one first, both wait for each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import asyncpg
import pytest

from agentorch_cli.core.model import AttemptStatus, TaskSpec, TaskStatus
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.tasks import cancel_tasks, retry_tasks, submit_tasks
from agentorch_cli.identity import new_id_text
from agentorch_cli.store.queries import statements
from agentorch_cli.store.records import Assignment, Ending
from agentorch_cli.store.store import Store


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Another transaction, which does not wait long."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("set lock_timeout = '300ms'; begin")
    yield connection
    await connection.close()


async def _sent(store: Store, ids: Sequence[str]) -> list[Assignment]:
    """Tasks of these ids, each in the hands of an agent of its own."""
    await submit_tasks(Context(store), [TaskSpec(task_id) for task_id in ids])
    await store.db.pool.execute(
        "insert into agent_registry (agent_id, agent_type, status, node_id)"
        " select unnest($1::text[]), 'worker', 'online', 'tests'",
        list(ids),
    )
    batch = [Assignment(task_id, 0, new_id_text(), task_id, 0, None, 1, "tests") for task_id in ids]
    assert len(await store.assign(batch)) == len(ids)
    return batch


def _ending(one: Assignment, error: str | None = None) -> Ending:
    if error is None:
        return Ending(
            one.message_id, one.task_id, one.agent_id, AttemptStatus.COMPLETED, TaskStatus.COMPLETED, "1"
        )
    return Ending(
        one.message_id,
        one.task_id,
        one.agent_id,
        AttemptStatus.FAILED,
        TaskStatus.FAILED,
        error='{"message": "no"}',
    )


async def _waits(store: Store, statement: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """The statement under way, once it waits for a lock."""
    running = asyncio.ensure_future(statement)
    async with asyncio.timeout(5):
        while not await store.db.pool.fetchval(
            "select exists (select from pg_stat_activity"
            " where wait_event_type = 'Lock' and datname = current_database())"
        ):
            assert not running.done(), "it did not wait"
            await asyncio.sleep(0.005)
    return running


LOCK_TASK = "select from task_distributions where task_id = $1 for no key update"
LOCK_ATTEMPT = "select from task_attempts where message_id = $1 for no key update"
LOCK_EDGE = "select from task_dependencies where task_id = $1 for update"


async def test_settling_takes_the_task_before_its_attempt(store: Store, other: Any) -> None:
    (one,) = await _sent(store, ["a"])
    await other.execute(LOCK_TASK, "a")

    settling = await _waits(store, store.settle([_ending(one)]))
    await other.execute(LOCK_ATTEMPT, one.message_id)
    await other.execute("commit")

    assert (await settling)[one.message_id].status == "completed"


async def test_settling_takes_tasks_in_the_order_of_their_ids(store: Store, other: Any) -> None:
    batch = await _sent(store, ["a", "b", "c"])
    await other.execute(LOCK_TASK, "a")

    settling = await _waits(store, store.settle([_ending(one) for one in reversed(batch)]))
    await other.execute(LOCK_TASK, "b")
    await other.execute(LOCK_TASK, "c")
    await other.execute("commit")

    assert len(await settling) == 3


async def test_assigning_takes_tasks_in_the_order_of_their_ids(store: Store, other: Any) -> None:
    ids = ["c", "b", "a"]
    await submit_tasks(Context(store), [TaskSpec(task_id) for task_id in ids])
    await store.db.pool.execute(
        "insert into agent_registry (agent_id, agent_type, status, node_id, slots)"
        " values ('w', 'worker', 'online', 'tests', 9)"
    )
    await other.execute(LOCK_TASK, "a")

    batch = [
        Assignment(task_id, 0, new_id_text(), "w", slot, None, 1, "tests") for slot, task_id in enumerate(ids)
    ]
    assigning = await _waits(store, store.assign(batch))
    await other.execute(LOCK_TASK, "b")
    await other.execute(LOCK_TASK, "c")
    await other.execute("commit")

    assert set(await assigning) == {"a", "b", "c"}


async def test_noting_acceptance_and_progress_waits_for_nobody(store: Store, other: Any) -> None:
    first, second = await _sent(store, ["a", "b"])
    await other.execute(LOCK_ATTEMPT, first.message_id)

    async with asyncio.timeout(2):
        await store.accept([second.message_id, first.message_id])
        await store.note_progress({first.message_id: (0.5, None), second.message_id: (0.5, "half")})
    await other.execute("commit")

    rows = await store.db.pool.fetch("select task_id, status, progress from task_attempts order by task_id")
    assert [tuple(row) for row in rows] == [("a", "sent", None), ("b", "accepted", 0.5)]


async def test_unlocking_takes_those_who_wait_before_their_edges(store: Store, other: Any) -> None:
    batch = await _sent(store, ["root"])
    await submit_tasks(Context(store), [TaskSpec("next", depends_on=("root",))])
    await store.settle([_ending(batch[0])])
    await other.execute(LOCK_TASK, "next")

    unlocking = await _waits(store, store.unlock([("root", "completed")]))
    await other.execute(LOCK_EDGE, "next")
    await other.execute("commit")

    assert (await unlocking).ready == ["next"]


async def test_settling_takes_those_who_wait_among_those_who_end(store: Store, other: Any) -> None:
    batch = await _sent(store, ["b", "d"])
    waiting = [TaskSpec("a", depends_on=("d",)), TaskSpec("c", depends_on=("b",))]
    await submit_tasks(Context(store), waiting)
    await other.execute(LOCK_TASK, "a")

    settling = await _waits(store, store.settle_and_unlock([_ending(one) for one in batch]))
    for task_id in ("b", "c", "d"):
        await other.execute(LOCK_TASK, task_id)
    await other.execute(LOCK_ATTEMPT, batch[0].message_id)
    await other.execute(LOCK_EDGE, "a")
    await other.execute("commit")

    ended, told = await settling
    assert len(ended) == len(batch)
    assert all(one.status == "completed" and not one.has_dependents for one in ended.values())
    assert sorted(told.ready) == ["a", "c"]
    assert await store.endings_of(["b", "d"]) == []


@pytest.mark.parametrize("name", ["mark_depended_on", "add_edges"])
async def test_who_comes_to_wait_while_its_dependency_is_settled_is_said_to_be_left(
    store: Store, other: Any, name: str
) -> None:
    batch = await _sent(store, ["root"])
    await submit_tasks(Context(store), [TaskSpec("next", depends_on=("root",))])
    await other.execute(LOCK_TASK, "root")

    settling = await _waits(store, store.settle_and_unlock([_ending(batch[0])]))
    await other.execute(
        "insert into task_distributions (task_id, task_type, status, waiting_on, depends_on, submission_id)"
        " values ('late', 'task', 'blocked', 1, '{root}', gen_random_uuid())"
    )
    if name == "mark_depended_on":
        await other.fetch(statements()[name], ["root"])
        await other.execute("insert into task_dependencies values ('root', 'late')")
    else:
        await other.execute(statements()[name], ["root"], ["late"])
    await other.execute("commit")

    ended, told = await settling
    assert told.ready == ["next"]
    assert ended[batch[0].message_id].has_dependents
    assert (await store.unlock([("root", "completed")])).ready == ["late"]


async def test_what_is_submitted_while_its_dependency_is_doomed_fails_with_it(
    store: Store, other: Any
) -> None:
    batch = await _sent(store, ["root"])
    await submit_tasks(Context(store), [TaskSpec("middle", depends_on=("root",))])
    await store.settle([_ending(batch[0], error="no")])
    await other.execute(LOCK_TASK, "middle")

    dooming = await _waits(store, store.unlock([("root", "failed")]))
    await other.execute("update task_distributions set has_dependents = true where task_id = 'middle'")
    await other.execute(
        "insert into task_distributions (task_id, task_type, status, waiting_on, depends_on, submission_id)"
        " values ('late', 'task', 'blocked', 1, '{middle}', gen_random_uuid())"
    )
    await other.execute("insert into task_dependencies values ('middle', 'late')")
    await other.execute("commit")
    await dooming

    assert await store.db.pool.fetchval("select status from task_distributions where task_id = 'late'") == (
        "failed"
    )
    assert await store.db.pool.fetchval("select count(*) from task_dependencies") == 0


async def test_retrying_waits_for_a_dependency_that_is_ending(store: Store, other: Any) -> None:
    context = Context(store)
    await _sent(store, ["root"])
    await submit_tasks(context, [TaskSpec("next", depends_on=("root",))])
    await cancel_tasks(context, ["next"])
    await other.execute(
        "update task_distributions set status = 'completed', completed_at = now() where task_id = 'root'"
    )

    retrying = await _waits(store, retry_tasks(context, ["next"]))
    await other.execute("commit")
    await retrying

    assert await store.db.pool.fetchval("select status from task_distributions where task_id = 'next'") == (
        "pending"
    )
