"""Waiting for what tasks are to come to: that they begin, that one of several is there, that none can be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agentorch_cli.core.goal import Goal
from agentorch_cli.core.model import TaskStatus
from agentorch_cli.errors import WaitTimedOut
from agentorch_cli.wiring import Orchestrator

Submit = Callable[..., Awaitable[str]]


@pytest.mark.parametrize("goal", Goal)
def test_every_ended_task_is_decided_for_every_goal(goal: Goal) -> None:
    for status in TaskStatus:
        decided = goal.decided(status)
        assert decided is not None or not status.is_final
        assert decided is not False or status.is_final
    assert {status for status in TaskStatus if goal.decided(status)} == {
        Goal.RUNNING: {TaskStatus.RUNNING, TaskStatus.COMPLETED},
        Goal.FINAL: {status for status in TaskStatus if status.is_final},
    }.get(goal, {TaskStatus(goal)} if goal in set(TaskStatus) else set())


async def test_a_wait_for_the_beginning_ends_before_the_work_does(
    orchestrator: Orchestrator, submit: Submit
) -> None:
    task_id = await submit(required_capabilities=["slow"])
    begins = asyncio.ensure_future(orchestrator.call("task.wait", task_ids=[task_id], until=Goal.RUNNING))
    with pytest.raises(WaitTimedOut, match="have not begun"):
        await orchestrator.call("task.wait", task_ids=[task_id], until=Goal.RUNNING, timeout_seconds=0.05)
    assert not begins.done()

    await orchestrator.register_agent("slow", capabilities=["slow"], exec="sleep 60; echo 1")

    [task] = await asyncio.wait_for(begins, 20)
    assert task.status == "running"
    await orchestrator.call("task.cancel", task_ids=[task_id])


async def test_any_ends_with_the_first_and_tells_only_of_those_that_are_there(
    orchestrator: Orchestrator, submit: Submit
) -> None:
    never, lost, soon = [await submit(required_capabilities=[name]) for name in ("a", "b", "c")]
    first = asyncio.ensure_future(orchestrator.call("task.wait", task_ids=[never, lost, soon], any=True))

    await orchestrator.call("task.cancel", task_ids=[lost])
    await orchestrator.register_agent("c", capabilities=["c"], exec="echo 1")

    found: list[Any] = await asyncio.wait_for(first, 20)
    assert [(one.task_id, one.status) for one in found] == [(soon, "completed")]
    assert [one.task_id for one in await _wait(orchestrator, [never, lost], until=Goal.CANCELLED)] == [lost]


async def test_any_ends_when_none_can_be_there_any_more(orchestrator: Orchestrator, submit: Submit) -> None:
    tasks = [await submit(required_capabilities=["nobody"]) for _ in range(2)]
    waiting = asyncio.ensure_future(_wait(orchestrator, tasks))

    await orchestrator.call("task.cancel", task_ids=tasks)

    assert [one.status for one in await asyncio.wait_for(waiting, 20)] == ["cancelled"] * 2


async def _wait(orchestrator: Orchestrator, tasks: list[str], **options: Any) -> list[Any]:
    found: list[Any] = await orchestrator.call("task.wait", task_ids=tasks, any=True, **options)
    return found
