"""What is stored about time makes sense, however long a decision waited for its lock."""

from __future__ import annotations

from typing import Any

import pytest

from agentorch_cli.core.model import TaskSpec
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.tasks import submit_tasks
from agentorch_cli.identity import new_id_text
from agentorch_cli.store.records import Assignment
from agentorch_cli.store.store import Store

ENDINGS: dict[str, Any] = {
    "give_up_attempts": lambda message, task: ([message], "cancelled", None),
    "finish_attempts": lambda message, task: ([message], ["failed"], [None], [None], [None], [None], True),
    "cancel_tasks": lambda message, task: ([task], "called off", "tests"),
}


@pytest.mark.parametrize("statement", ENDINGS)
async def test_an_attempt_ends_no_earlier_than_it_began(statement: str, store: Store) -> None:
    """The decision's transaction began first, and waited while the assignment was stored."""
    await store.db.pool.execute(
        "insert into agent_registry (agent_id, agent_type, status, node_id)"
        " values ('w', 'worker', 'online', 'tests')"
    )
    task, message = new_id_text(), new_id_text()
    await submit_tasks(Context(store), [TaskSpec(task)])

    async with store.db.transaction() as tx:
        await tx.fetch("lock_tasks", [])  # from here on its `now()` stands
        await store.assign([Assignment(task, 0, message, "w", 0, None, 1, "tests")])
        await tx.fetch(statement, *ENDINGS[statement](message, task))

    row = await store.db.pool.fetchrow(
        "select a.finished_at >= a.sent_at as attempt, coalesce(t.completed_at >= t.started_at, true) as task"
        " from task_attempts a join task_distributions t using (task_id)"
    )
    assert tuple(row) == (True, True)
