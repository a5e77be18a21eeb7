"""A row that a unique index refuses for ever, and that the mirror cannot know of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crew import Gate

from agentorch_cli.engine import scheduler

IN_THE_WAY = """
insert into task_attempts (message_id, task_id, agent_id, attempt, status, slot, node_id, finished_at)
values (gen_random_uuid(), 'poison', 'nobody', 1, 'cancelled', 0, 'nowhere', now())"""


@pytest.mark.parametrize("fields", [{}, {"concurrency_key": "one", "concurrency_limit": 9}])
async def test_it_fails_with_the_reason_and_keeps_nobody_else_back(
    orchestrator: Any, crew: Any, noise: Any, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    monkeypatch.setattr(scheduler, "GIVEN_UP_AFTER", 1.0)
    orchestrator.engine.scheduler._collisions["gone"] = (9, 0.0)
    await orchestrator.store.db.pool.execute(IN_THE_WAY)
    task = {"required_capabilities": ["work"], **fields}
    handles = await orchestrator.submit_all([{"id": name, **task} for name in ("a", "poison", "b")])

    gate = Gate("done")
    await crew.join("agent", slots=3, does=gate)
    others = {(await gate.work()).task_id for _ in range(2)}
    ended = await handles[1].wait(20)

    assert others == {"a", "b"}
    assert ended.status == "failed"
    assert ended.error["code"] == "unreadable"
    assert "the database refused to assign it" in ended.error["message"]
    assert "(attempt_is_made_once)" in ended.error["message"]
    async with asyncio.timeout(10):
        while not noise.heard:
            await asyncio.sleep(0.01)
    assert "the database refused to assign it" in noise.take()[0]
    gate.is_open.set()
    assert [await handles[at].result(10) for at in (0, 2)] == ["done"] * 2
    assert orchestrator.engine.scheduler._collisions.keys() == {"gone"}
