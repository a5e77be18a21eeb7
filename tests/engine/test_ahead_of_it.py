"""What `task why` says of the tasks ahead."""

from __future__ import annotations

from typing import Any

from crew import Gate


async def test_tasks_that_nobody_can_do_are_not_ahead_of_anything(orchestrator: Any, crew: Any) -> None:
    gate = Gate("done")
    await crew.join("a", does=gate)
    running = await orchestrator.submit({"required_capabilities": ["work"]})
    await gate.work()
    fields = {"priority": 9}
    for capability in ("fly", "swim", "work"):
        await orchestrator.submit({**fields, "required_capabilities": [capability]})
    last = await orchestrator.submit({"id": "last", "required_capabilities": ["work"]})

    why = await orchestrator.call("task.why", task_id="last")

    told = [link.sentence for link in why.links if link.code == "ahead"]
    assert told == ["1 ready task is ahead of it, 1 of them of higher priority"]
    gate.is_open.set()
    assert [(await one.wait(10)).status for one in (running, last)] == ["completed"] * 2
