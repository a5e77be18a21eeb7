"""Tasks that are looked at one by one go several at a time, and a failure of one is not another's."""

from __future__ import annotations

from typing import Any

import pytest

from agentorch_cli.engine.settler import LANES
from agentorch_cli.errors import DatabaseUnreachable

NUMBER = 30
VOTE = {
    "required_capabilities": ["work"],
    "data": 1,
    "min_agents": 3,
    "max_agents": 3,
    "consensus": {"rule": "majority"},
}


class Looks:
    """Watches the settler look at tasks, and fails the first look at one of them."""

    def __init__(self, look: Any, fault: Exception | None) -> None:
        self._look = look
        self._fault = fault
        self.at_once: list[str] = []
        self.most_at_once = 0
        self.failed: list[str] = []

    async def __call__(self, task_id: str, *args: Any) -> Any:
        assert task_id not in self.at_once, "by two at once"
        self.at_once.append(task_id)
        self.most_at_once = max(self.most_at_once, len(self.at_once))
        try:
            await self._look(task_id, *args)
            if self._fault is not None and not self.failed:
                self.failed.append(task_id)  # it was stored, and the answer got lost
                raise self._fault
        finally:
            self.at_once.remove(task_id)


@pytest.mark.parametrize("fault", [None, DatabaseUnreachable("gone"), RuntimeError("a fault")])
async def test_votes_end_once_each_whoever_fails_beside_them(
    orchestrator: Any, crew: Any, sql: Any, noise: Any, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    settler = orchestrator.engine.settler
    looks = Looks(settler._settle_task, fault)
    monkeypatch.setattr(settler, "_settle_task", looks)
    for name in "abc":
        await crew.join(name, slots=NUMBER)

    handles = await orchestrator.submit_all([VOTE] * NUMBER)
    await orchestrator.call("task.wait", task_ids=[one.task_id for one in handles], timeout_seconds=30)

    assert (len(looks.failed), 1 < looks.most_at_once <= LANES) == (0 if fault is None else 1, True)
    assert await sql("select status, count(*) from task_distributions group by 1") == [("completed", NUMBER)]
    assert await sql("select status, count(*) from consensus_decisions group by 1") == [("reached", NUMBER)]
    assert (
        await sql(
            "select count(*) from events where kind = 'task_completed' group by task_id having count(*) > 1"
        )
        == []
    )
    assert bool(noise.heard) == (type(fault) is RuntimeError)  # that is told in the log
    noise.heard.clear()
