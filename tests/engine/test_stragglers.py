"""Work that lasts far longer than other work of its kind is given a backup with another agent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.wiring import Orchestrator

StartEngine = Callable[..., Awaitable[Orchestrator]]
CrewOf = Callable[[Orchestrator], Crew]

EAGER = {"enabled": True, "factor": 2, "min_samples": 5, "min_seconds": 0.2}
WORK = {"required_capabilities": ["work"], "type": "report"}


class Worker:
    """Does most work at once; `slow` tasks wait at a gate of their attempt."""

    def __init__(self, slow: set[int]) -> None:
        self.slow = slow
        self.gates = {1: Gate("first"), 2: Gate("second")}

    async def __call__(self, work: Any) -> Any:
        if work.data != "slow" or work.attempt not in self.slow:
            return "at once"
        return await self.gates[work.attempt](work)


async def with_history(engine: Orchestrator, number: int = 12) -> None:
    """Returns once the ledger knows of so many short tasks."""
    handles = await engine.submit_all([WORK | {"data": n} for n in range(number)])
    for handle in handles:
        await handle.result(10)
    await engine.engine.ledger.write()


async def kinds(engine: Orchestrator, task_id: str) -> list[str]:
    return [event.kind for event in (await engine.call("task.get", task_id=task_id)).events]


async def backed_up(engine: Orchestrator, task_id: str) -> None:
    async with asyncio.timeout(10):
        while "straggler_backed_up" not in await kinds(engine, task_id):
            await asyncio.sleep(0.02)


async def ended(engine: Orchestrator, task_id: str) -> list[str]:
    """How its attempts ended, once it has."""
    await engine.call("task.wait", task_ids=[task_id], timeout_seconds=10)
    task = await engine.call("task.get", task_id=task_id)
    assert task.status == "completed"
    return [one.status for one in task.attempts]


async def test_a_straggler_gets_a_backup_elsewhere_and_is_called_off(
    start_engine: StartEngine, crew_of: CrewOf
) -> None:
    engine = await start_engine(stragglers=EAGER)
    crew, worker = crew_of(engine), Worker({1})
    for name in "ab":
        await crew.join(name, does=worker)
    await with_history(engine)

    handle = await engine.submit(WORK | {"data": "slow"})

    assert await handle.result(10) == "at once"
    assert await ended(engine, handle.task_id) == ["cancelled", "completed"]
    task = await engine.call("task.get", task_id=handle.task_id)
    assert task.attempts[0].agent_id != task.attempts[1].agent_id
    story = next(event for event in task.events if event.kind == "straggler_backed_up")
    assert story.agent_id == story.data["agent"] == task.attempts[0].agent_id
    assert story.data["seconds"] > story.data["limit_seconds"] >= 0.2
    async with asyncio.timeout(5):
        while worker.gates[1].stopped != [handle.task_id]:
            await asyncio.sleep(0.01)
    assert engine.engine.state.counters["straggler_backed_up"] == 1
    assert (task.failures, task.attempts_made) == (0, 2)


async def test_the_first_result_wins_though_it_is_the_stragglers(
    start_engine: StartEngine, crew_of: CrewOf
) -> None:
    engine = await start_engine(stragglers=EAGER)
    crew, worker = crew_of(engine), Worker({1, 2})
    for name in "ab":
        await crew.join(name, does=worker)
    await with_history(engine)
    handle = await engine.submit(WORK | {"data": "slow"})
    await worker.gates[1].work()
    await worker.gates[2].work()

    worker.gates[1].is_open.set()

    assert await handle.result(10) == "first"
    assert await ended(engine, handle.task_id) == ["completed", "cancelled"]
    assert (await kinds(engine, handle.task_id)).count("straggler_backed_up") == 1


@pytest.mark.parametrize("slow", [0, 1])
@pytest.mark.parametrize("winner", [1, 2])
async def test_a_straggler_on_one_node_gets_its_backup_on_another(
    start_engine: StartEngine, crew_of: CrewOf, slow: int, winner: int
) -> None:
    nodes = [await start_engine(stragglers=EAGER), await start_engine(stragglers=EAGER)]
    worker = Worker({1, 2})
    await crew_of(nodes[slow]).join("a", does=worker)
    await with_history(nodes[0])
    await nodes[slow].engine.ledger.write()
    handle = await nodes[0].submit(WORK | {"data": "slow"})
    await worker.gates[1].work()
    await crew_of(nodes[1 - slow]).join("b", does=worker)
    await worker.gates[2].work()

    worker.gates[winner].is_open.set()

    assert await handle.result(10) == ("first" if winner == 1 else "second")
    outcome = {1: ["completed", "cancelled"], 2: ["cancelled", "completed"]}
    assert await ended(nodes[0], handle.task_id) == outcome[winner]
    state = nodes[0].engine.state
    async with asyncio.timeout(10):
        while state.deliveries or state.elsewhere or any(m.used for m in state.roster.members.values()):
            await asyncio.sleep(0.01)


async def test_a_task_whose_straggler_fails_goes_on_with_the_backup(
    start_engine: StartEngine, crew_of: CrewOf
) -> None:
    engine = await start_engine(stragglers=EAGER)
    failing, worker = asyncio.Event(), Worker({2})

    async def does(work: Any) -> Any:
        if work.data == "slow" and work.attempt == 1:
            await failing.wait()
            raise ValueError("no")
        return await worker(work)

    crew = crew_of(engine)
    for name in "ab":
        await crew.join(name, does=does)
    await with_history(engine)
    handle = await engine.submit(WORK | {"data": "slow"})
    await worker.gates[2].work()

    failing.set()
    await asyncio.sleep(0.1)
    worker.gates[2].is_open.set()

    assert await handle.result(10) == "second"
    assert await ended(engine, handle.task_id) == ["failed", "completed"]


async def test_who_has_too_little_to_go_by_gives_no_backup(
    start_engine: StartEngine, crew_of: CrewOf
) -> None:
    engine = await start_engine(stragglers=EAGER | {"min_samples": 50})
    crew, worker = crew_of(engine), Worker({1})
    for name in "ab":
        await crew.join(name, does=worker)
    await with_history(engine)

    handle = await engine.submit(WORK | {"data": "slow"})
    await worker.gates[1].work()
    await asyncio.sleep(0.5)

    assert await engine.engine.stragglers.look() == 0
    worker.gates[1].is_open.set()
    assert await handle.result(10) == "first"


@pytest.mark.parametrize(
    "task",
    [
        {"budget": {"cost_usd": 5}},
        {"min_agents": 1, "max_agents": 2, "aggregate": "all"},
        {"requires_consensus": True},
    ],
)
async def test_votes_several_agents_and_work_on_a_budget_get_no_backup(
    start_engine: StartEngine, crew_of: CrewOf, task: dict[str, Any]
) -> None:
    engine = await start_engine(stragglers=EAGER)
    crew, worker = crew_of(engine), Worker({1, 2, 3})
    worker.gates |= dict.fromkeys((2, 3), worker.gates[1])
    for name in "abc":
        await crew.join(name, does=worker)
    await with_history(engine)

    handle = await engine.submit(WORK | {"data": "slow"} | task)
    await worker.gates[1].work()
    await asyncio.sleep(0.5)

    assert await engine.engine.stragglers.look() == 0
    assert "straggler_backed_up" not in await kinds(engine, handle.task_id)
    worker.gates[1].is_open.set()
    await handle.wait(10)


async def test_a_backup_is_only_for_who_is_free_and_only_where_it_is_turned_on(
    start_engine: StartEngine, crew_of: CrewOf
) -> None:
    engine = await start_engine(stragglers=EAGER)
    worker = Worker({1})
    await crew_of(engine).join("a", does=worker)
    await with_history(engine)
    handle = await engine.submit(WORK | {"data": "slow"})
    await worker.gates[1].work()
    await asyncio.sleep(0.4)
    assert await engine.engine.stragglers.look() == 0

    await crew_of(engine).join("b", does=worker)
    await backed_up(engine, handle.task_id)

    assert await handle.result(10) == "at once"
    assert (await start_engine()).engine.limits.stragglers.is_enabled is False
