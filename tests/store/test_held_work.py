"""What an agent holds, in the order in which it was meant to begin it."""

from __future__ import annotations

import pytest

from agentorch_cli.core.model import TaskSpec
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.tasks import submit_tasks
from agentorch_cli.identity import new_id_text
from agentorch_cli.store.records import Assignment
from agentorch_cli.store.store import Store


@pytest.mark.parametrize("is_turned", [False, True])
async def test_work_of_one_moment_comes_in_the_order_of_service(store: Store, is_turned: bool) -> None:
    """The first has the slot and the second waits for it; else the agent would begin the second."""
    await store.db.pool.execute(
        "insert into agent_registry (agent_id, agent_type, status, node_id, slots, prefetch)"
        " values ('w', 'worker', 'online', 'tests', 1, 1)"
    )
    ids = [new_id_text(), new_id_text()]
    await submit_tasks(Context(store), [TaskSpec(ids[0]), TaskSpec(ids[1])])
    batch = [
        Assignment(task_id, 0, new_id_text(), "w", slot, None, 1, "tests", is_ahead=slot == 1)
        for slot, task_id in enumerate(ids)
    ]
    assert len(await store.assign(batch[::-1] if is_turned else batch)) == 2

    assert [one.task_id for one in await store.held_work(["w"])] == ids
    assert [one.task_id for one in await store.held_work((), [a.message_id for a in batch[::-1]])] == ids
