"""The hot path costs a constant number of statements, however large the batch."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from agentorch_cli.core.model import AttemptStatus, TaskSpec, TaskStatus
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.tasks import submit_tasks
from agentorch_cli.identity import new_id_text
from agentorch_cli.store.records import Assignment, Ending
from agentorch_cli.store.store import Store


class Meter:
    """Counts what is sent to the server, on every connection."""

    def __init__(self) -> None:
        self.queries = 0

    async def of(self, statement: Any) -> int:
        before = self.queries
        await statement
        return self.queries - before


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    meter = Meter()
    original = asyncpg.Connection._do_execute

    async def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        meter.queries += 1
        return await original(self, *args, **kwargs)

    monkeypatch.setattr(asyncpg.Connection, "_do_execute", counted)
    return meter


def _chain(number: int) -> list[TaskSpec]:
    """Tasks, each with a dependent."""
    roots = [TaskSpec(new_id_text()) for _ in range(number)]
    return [*roots, *(TaskSpec(new_id_text(), depends_on=(root.task_id,)) for root in roots)]


async def _cost(store: Store, meter: Meter, number: int) -> list[int]:
    tasks = _chain(number)
    roots = [task.task_id for task in tasks[:number]]
    more = [TaskSpec(new_id_text(), depends_on=(root,)) for root in roots]
    batch = [
        Assignment(task_id, 0, new_id_text(), "w", slot, None, 1, "tests")
        for slot, task_id in enumerate(roots)
    ]
    endings = [
        Ending(one.message_id, one.task_id, "w", AttemptStatus.COMPLETED, TaskStatus.COMPLETED, "1")
        for one in batch
    ]
    messages = [one.message_id for one in batch]
    return [
        await meter.of(submit_tasks(Context(store), tasks)),
        await meter.of(submit_tasks(Context(store), more)),
        await meter.of(store.ready_tasks(1000)),
        await meter.of(store.ready_tasks_by_id(roots)),
        await meter.of(store.assign(batch)),
        await meter.of(store.accept(messages)),
        await meter.of(store.settle(endings)),
        await meter.of(store.unlock([(root, "completed") for root in roots])),
    ]


async def test_a_batch_of_five_hundred_costs_as_many_statements_as_one(store: Store, meter: Meter) -> None:
    await store.db.pool.execute(
        "insert into agent_registry (agent_id, agent_type, status, node_id, slots)"
        " values ('w', 'worker', 'online', 'tests', 500)"
    )

    await _cost(store, meter, 1)  # the first use of a connection looks up types
    one, many = await _cost(store, meter, 1), await _cost(store, meter, 500)

    assert one == many
    assert max(one) <= 4
    assert await store.db.pool.fetchval("select count(*) from task_distributions where wanted > 0") == 1004


async def test_a_failure_that_fells_hundreds_costs_as_much_as_one_that_fells_one(
    store: Store, meter: Meter
) -> None:
    async def fell(number: int) -> int:
        root = TaskSpec(new_id_text())
        chain = [root]
        for _ in range(number):
            chain.append(TaskSpec(new_id_text(), depends_on=(chain[-1].task_id,)))
        await submit_tasks(Context(store), chain)
        await store.db.pool.execute(
            "update task_distributions set status = 'failed', wanted = 0, completed_at = now()"
            " where task_id = $1",
            root.task_id,
        )
        return await meter.of(store.unlock([(root.task_id, "failed")]))

    await fell(1)
    assert await fell(1) == await fell(300)
