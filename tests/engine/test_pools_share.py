"""Balancing and backups keep to the agents of a pool, on whatever nodes these are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.engine import scheduler
from agentorch_cli.wiring import Orchestrator

StartEngine = Callable[..., Awaitable[Orchestrator]]
CrewOf = Callable[[Orchestrator], Crew]

EAGER = {"enabled": True, "factor": 2, "min_samples": 5, "min_seconds": 0.2}
WORK = {"required_capabilities": ["work"], "type": "report", "pool": "gpu"}


class Worker:
    """Does the first attempts of what has the data `slow` behind a gate, and all else at once."""

    def __init__(self) -> None:
        self.gate = Gate("late")

    async def __call__(self, work: Any) -> Any:
        return await self.gate(work) if work.data == "slow" and work.attempt == 1 else "at once"


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


async def two_pools(start_engine: StartEngine, **changes: Any) -> tuple[Orchestrator, Orchestrator]:
    """A node that schedules the default pool, and one that schedules pool gpu; both know of the other."""
    default = await start_engine(**changes)
    gpu = await start_engine(engine={"pool": "gpu"}, **changes)
    await default.engine.leader.beat()
    return default, gpu


async def test_a_straggler_of_another_pool_gets_its_backup_from_its_own_pool(
    start_engine: StartEngine, crew_of: CrewOf
) -> None:
    default, gpu = await two_pools(start_engine, stragglers=EAGER)
    worker = Worker()
    await crew_of(default).join("d", does=worker)
    await crew_of(default).join("g1", does=worker, pool="gpu")
    await crew_of(gpu).join("g2", does=worker, pool="gpu")
    await until(lambda: {"g1", "g2"} <= gpu.engine.state.roster.members.keys())
    for handle in await gpu.submit_all([WORK | {"data": number} for number in range(12)]):
        await handle.result(10)
    for node in (default, gpu):
        await node.engine.ledger.write()

    handle = await gpu.submit(WORK | {"data": "slow"})

    assert await handle.result(20) == "at once"
    task = await gpu.call("task.get", task_id=handle.task_id)
    assert {one.agent_id for one in task.attempts} == {"g1", "g2"}
    assert "straggler_backed_up" in [event.kind for event in task.events]
    await until(lambda: worker.gate.stopped == [handle.task_id])


async def test_work_that_has_not_begun_moves_within_its_pool_only(
    start_engine: StartEngine, crew_of: CrewOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", 60.0)
    default, gpu = await two_pools(start_engine)
    busy, idle, other = Worker(), Worker(), Worker()
    await crew_of(default).join("d", does=idle)
    await crew_of(default).join("g1", does=busy, pool="gpu", prefetch=1)
    members = gpu.engine.state.roster.members  # of which each may be replaced by what is read anew
    await until(lambda: "g1" in members)
    async with asyncio.timeout(20):
        while not members["g1"].is_quick:
            await (await gpu.submit(WORK | {"data": "quick"})).result(10)
            await until(lambda: not members["g1"].used)
    handles = await gpu.submit_all([WORK | {"data": "slow"}] * 2)
    first = await busy.gate.work()
    await until(lambda: len(gpu.engine.state.shelf) == 1)

    await crew_of(gpu).join("g2", does=other, pool="gpu")

    async with asyncio.timeout(15):
        while not (attempts := await _moved(gpu, handles[1].task_id)):
            await asyncio.sleep(0.02)
    assert first.task_id == handles[0].task_id
    assert (attempts[0]["from"], attempts[0]["to"], attempts[0]["why"]) == ("g1", "g2", "idle")
    busy.gate.is_open.set()
    assert [await handle.result(10) for handle in handles] == ["late", "at once"]
    assert idle.gate.begun.empty()


async def _moved(node: Orchestrator, task_id: str) -> list[dict[str, Any]]:
    task = await node.call("task.get", task_id=task_id)
    return [event.data for event in task.events if event.kind == "attempt_moved"]


async def test_what_is_ready_in_one_pool_is_read_by_whoever_schedules_that(
    start_engine: StartEngine, crew_of: CrewOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    default, gpu = await two_pools(start_engine)
    await crew_of(default).join("d", slots=20)
    await crew_of(gpu).join("g", slots=20, pool="gpu")
    read: dict[str, set[str]] = {"default": set(), "gpu": set()}
    for node, ids in ((default, read["default"]), (gpu, read["gpu"])):

        async def reads(asked: Any, pool: str, *, ids: Any = ids, store: Any = node.engine.store) -> Any:
            ids.update(asked)
            return await type(store).ready_tasks_by_id(store, asked, pool)

        monkeypatch.setattr(node.engine.store, "ready_tasks_by_id", reads)
    work = {"required_capabilities": ["work"]}

    of = {
        "default": await gpu.submit_all([work | {"pool": "default"}] * 5),
        "gpu": await default.submit_all([work | {"pool": "gpu"}] * 5),
        "both": await default.submit_all([work | {"pool": "gpu"}, work | {"pool": "default"}] * 3),
    }

    for handles in of.values():
        for handle in handles:
            await handle.result(10)
    own = {name: {handle.task_id for handle in handles} for name, handles in of.items()}
    assert read == {"default": own["default"] | own["both"], "gpu": own["gpu"] | own["both"]}
