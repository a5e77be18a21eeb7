"""What a batch of results says of slots of other nodes' agents: all of it, or nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from agentorch_cli.core.model import AttemptStatus, TaskSpec, TaskStatus
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.tasks import submit_tasks
from agentorch_cli.identity import new_id_text
from agentorch_cli.store.records import Assignment, Ending
from agentorch_cli.store.store import Store


@pytest.mark.parametrize("has_dependents", [False, True])
@pytest.mark.parametrize("is_refused", [False, True])
async def test_slots_are_told_only_if_every_result_was_taken(
    store: Store, database_url: str, has_dependents: bool, is_refused: bool
) -> None:
    """Of what was refused nobody knows yet what becomes of it."""
    await store.db.pool.execute(
        "insert into agent_registry (agent_id, agent_type, status, node_id, slots)"
        " values ('w', 'worker', 'online', 'tests', 2)"
    )
    ids = [new_id_text(), new_id_text()]
    await submit_tasks(Context(store), [TaskSpec(task_id) for task_id in ids])
    batch = [Assignment(one, 0, new_id_text(), "w", slot, None, 1, "tests") for slot, one in enumerate(ids)]
    await store.assign(batch)
    endings = [
        Ending(one.message_id, one.task_id, "w", AttemptStatus.COMPLETED, TaskStatus.COMPLETED, mark="w")
        for one in batch
    ]
    if is_refused:
        await store.settle([replace(endings[1], mark=None)])
    heard: list[str] = []
    listener = await asyncpg.connect(database_url)
    for channel in ("agentorch_freed", "agentorch_done"):
        await listener.add_listener(channel, lambda *said: heard.append(str(said[-1])))

    settle = store.settle_and_unlock if has_dependents else store.settle
    await settle(endings)

    async with asyncio.timeout(10):
        while "\n".join(ids) not in heard:
            await asyncio.sleep(0.01)
    told = "\n".join(f"{one.message_id} w" for one in batch)
    assert (told in heard) is not is_refused
    await listener.close()
