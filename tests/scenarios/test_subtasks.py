"""Work that submits work: waiting parents give their slot back, and nothing goes on for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentorch_cli import Agent
from agentorch_cli.agents.work import Work, WorkFailed
from agentorch_cli.wiring import Orchestrator

StartEngine = Callable[..., Awaitable[Orchestrator]]


@asynccontextmanager
async def running(orchestrator: Orchestrator, *agents: Agent) -> AsyncIterator[None]:
    """Agents connected to this engine, stopped afterwards."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(agent.run(orchestrator.url, stop=stop)) for agent in agents]
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait(tasks, timeout=3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def nesting(agent_id: str = "one", **options: Any) -> Agent:
    """An agent whose work of depth n submits work of depth n-1 and waits for it."""
    agent = Agent(agent_id, capabilities=["nest"], slots=1, **options)

    async def nest(work: Work) -> int:
        depth = work.data["depth"]
        if not depth:
            return 0
        below = await work.submit(
            {"type": "nest", "required_capabilities": ["nest"], "data": {"depth": depth - 1}}
        )
        return int(below) + 1

    agent.add_handler(nest)
    return agent


def nested(depth: int) -> dict[str, Any]:
    return {"type": "nest", "required_capabilities": ["nest"], "data": {"depth": depth}}


async def test_a_parent_with_one_slot_can_wait_for_a_child_of_the_same_agent(
    orchestrator: Orchestrator,
) -> None:
    async with running(orchestrator, nesting()):
        handle = await orchestrator.submit(nested(1))

        assert await handle.result(timeout=5) == 1


async def test_fifty_nested_parents_share_one_slot(start_engine: StartEngine) -> None:
    orchestrator = await start_engine(engine={"max_subtask_depth": 60, "max_concurrent_tasks": 5})
    async with running(orchestrator, nesting()):
        handle = await orchestrator.submit(nested(50))

        assert await handle.result(timeout=60) == 50


async def test_sub_tasks_are_not_deeper_than_the_limit(start_engine: StartEngine) -> None:
    orchestrator = await start_engine(engine={"retries": 0})
    async with running(orchestrator, nesting()):
        task = await (await orchestrator.submit(nested(40))).wait(timeout=10)

    assert task.status == "failed"
    assert "32 deep at most" in str(task.error)


async def test_a_sub_task_that_repeats_an_ancestor_is_refused(orchestrator: Orchestrator) -> None:
    agent = Agent("one", capabilities=["again"])

    async def again(work: Work) -> Any:
        return await work.submit(
            {"type": "again", "required_capabilities": ["again"], "data": {"b": 1, "a": 2.0}}
        )

    agent.add_handler(again)
    async with running(orchestrator, agent):
        handle = await orchestrator.submit(
            {"type": "again", "required_capabilities": ["again"], "data": {"a": 2, "b": 1}}
        )
        task = await handle.wait(timeout=5)

    assert task.status == "failed"
    assert "same input" in str(task.error)


async def test_the_number_of_sub_tasks_of_one_task_is_limited(start_engine: StartEngine) -> None:
    orchestrator = await start_engine(engine={"max_subtasks": 3})
    agent = Agent("one", capabilities=["spread"])
    refusals: list[str] = []

    async def spread(work: Work) -> int:
        for number in range(5):
            try:
                await work.submit(
                    {"type": "leaf", "required_capabilities": ["x"], "data": number}, wait=False
                )
            except WorkFailed as error:
                refusals.append(error.message)
        return len(refusals)

    agent.add_handler(spread)
    async with running(orchestrator, agent):
        handle = await orchestrator.submit({"type": "spread", "required_capabilities": ["spread"]})
        assert await handle.result(timeout=5) == 2
    assert "has 3 sub-tasks already" in refusals[0]


async def test_a_parent_goes_on_before_new_work(orchestrator: Orchestrator) -> None:
    order: list[str] = []
    child_may_end = asyncio.Event()
    one = Agent("one", capabilities=["parent", "new"], slots=1)
    other = Agent("other", capabilities=["child"], slots=1)

    async def work_of_one(work: Work) -> None:
        if work.type == "parent":
            await work.submit({"type": "child", "required_capabilities": ["child"]})
            order.append("parent goes on")
        else:
            order.append(work.type)
            await asyncio.sleep(0.1)

    async def child(work: Work) -> None:
        await child_may_end.wait()

    one.add_handler(work_of_one)
    other.add_handler(child)
    async with running(orchestrator, one, other):
        parent = await orchestrator.submit({"type": "parent", "required_capabilities": ["parent"]})
        for _ in range(100):
            if await orchestrator.store.db.fetch("count_children", parent.task_id):
                break
        await asyncio.sleep(0.3)
        new = await orchestrator.submit_all(
            [{"type": f"new {n}", "required_capabilities": ["new"]} for n in range(6)]
        )
        child_may_end.set()
        await parent.wait(timeout=5)
        for handle in new:
            await handle.wait(timeout=5)

    assert order.index("parent goes on") <= 4


async def test_cancelling_a_parent_cancels_its_sub_tasks(orchestrator: Orchestrator) -> None:
    async with running(orchestrator, nesting()):
        handle = await orchestrator.submit(
            {"type": "nest", "required_capabilities": ["nest"], "data": {"depth": 3}}
        )
        await handle.wait(timeout=5)
    agent = Agent("stuck", capabilities=["stuck"])

    async def stuck(work: Work) -> Any:
        return await work.submit({"type": "never", "required_capabilities": ["nobody"]})

    agent.add_handler(stuck)
    async with running(orchestrator, agent):
        handle = await orchestrator.submit({"type": "stuck", "required_capabilities": ["stuck"]})
        for _ in range(100):
            children = [t for t in await orchestrator.call("task.list") if t.parent_id == handle.task_id]
            if children:
                break
            await asyncio.sleep(0.02)
        await handle.cancel()
        child = await orchestrator.call("task.get", task_id=children[0].task_id)

    assert child.status == "cancelled"


@pytest.mark.parametrize("number", [5])
async def test_several_sub_tasks_at_once_hand_over_all_results(
    orchestrator: Orchestrator, number: int
) -> None:
    agent = Agent("one", capabilities=["all", "leaf"], slots=1)

    async def work(work: Work) -> Any:
        if work.type == "leaf":
            return work.data
        return await asyncio.gather(
            *(
                work.submit({"type": "leaf", "required_capabilities": ["leaf"], "data": n})
                for n in range(number)
            )
        )

    agent.add_handler(work)
    async with running(orchestrator, agent):
        handle = await orchestrator.submit({"type": "all", "required_capabilities": ["all"]})
        assert await handle.result(timeout=5) == list(range(number))
