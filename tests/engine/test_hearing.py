"""What a node listens to: what it would do nothing about does not wake it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.engine.engine import DONE, LEADERS, Engine
from agentorch_cli.store import waiting
from agentorch_cli.wiring import Orchestrator

StartEngine = Callable[..., Awaitable[Orchestrator]]
CrewOf = Callable[[Orchestrator], Crew]
WORK = {"required_capabilities": ["work"]}


async def listens_anew(node: Orchestrator) -> None:
    """Its connection breaks, and there is another."""
    db = node.engine.store.db
    node.engine._is_listening.clear()
    await db.pool.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1",
        f"{node.engine.store.node_id} listen",
    )
    async with asyncio.timeout(10):
        await node.engine._is_listening.wait()


async def test_a_node_that_does_not_lead_is_not_woken_by_the_results_of_others(
    start_engine: StartEngine, crew_of: CrewOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, set[str]] = {}
    on_notice = Engine._on_notice

    def notices(engine: Engine, channel: str, payload: str) -> None:
        heard.setdefault(engine.store.node_id, set()).add(channel)
        on_notice(engine, channel, payload)

    monkeypatch.setattr(Engine, "_on_notice", notices)
    leader, follower = await start_engine(), await start_engine()
    await crew_of(leader).join("a", slots=5)

    for handle in await leader.submit_all([WORK] * 10):
        await handle.result(10)
    await leader.engine.store.notify("agentorch_limits", "*")

    followed = heard.setdefault(follower.engine.store.node_id, set())
    async with asyncio.timeout(10):
        while "agentorch_limits" not in followed:  # what was said before was heard before, or never
            await asyncio.sleep(0.01)
    assert followed.isdisjoint({*LEADERS, DONE})
    assert "agentorch_tasks" in heard[leader.engine.store.node_id]


@pytest.mark.parametrize("is_broken", [False, True])
async def test_whoever_waits_on_such_a_node_hears_of_the_end(
    start_engine: StartEngine, crew_of: CrewOf, monkeypatch: pytest.MonkeyPatch, is_broken: bool
) -> None:
    monkeypatch.setattr(waiting, "LOOK_EVERY", 1000.0)
    leader, follower = await start_engine(), await start_engine()
    gate = Gate("done")
    await crew_of(leader).join("a", does=gate)
    handle = await follower.submit(WORK)
    result = asyncio.create_task(handle.result(20))
    await asyncio.wait_for(gate.begun.get(), 10)
    if is_broken:
        await listens_anew(follower)
    await follower.engine.leader.beat()  # which listens to nothing that nobody waits for

    gate.is_open.set()

    assert await result == "done"
    await follower.engine.leader.beat()
    assert DONE not in follower.engine.ear._heard
    assert await (await follower.submit(WORK)).result(20) == "done"


async def test_whoever_no_longer_waits_does_not_keep_others_from_hearing(
    start_engine: StartEngine, crew_of: CrewOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that is given up while the node begins to listen breaks nothing."""
    monkeypatch.setattr(waiting, "LOOK_EVERY", 1000.0)
    leader, follower = await start_engine(), await start_engine()
    gate = Gate("done")
    await crew_of(leader).join("a", does=gate)
    handle = await follower.submit(WORK)
    await asyncio.wait_for(gate.begun.get(), 10)
    for turns in range(8):
        await follower.engine.ear.ignore(DONE)
        given_up = asyncio.create_task(handle.result(20))
        for _ in range(turns):
            await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)

    result = asyncio.create_task(handle.result(20))
    async with asyncio.timeout(10):
        while DONE not in follower.engine.ear._heard:
            await asyncio.sleep(0.01)
    gate.is_open.set()

    assert await result == "done"


async def test_a_parent_on_such_a_node_hears_of_its_child(start_engine: StartEngine, crew_of: CrewOf) -> None:
    leader, follower = await start_engine(), await start_engine(engine={"poll_interval": 1000.0})
    await follower.engine.ear.ignore(DONE)

    async def parent(work: Any) -> Any:
        return await work.submit({"required_capabilities": ["child"], "data": "grown"}, wait=True)

    await crew_of(follower).join("p", "parent", does=parent)
    await crew_of(leader).join("c", "child")

    handle = await leader.submit({"required_capabilities": ["parent"]})

    assert await handle.result(20) == "grown"
    assert not follower.engine.subtasks.is_awaited


async def test_a_node_that_takes_the_lead_hears_what_becomes_ready(
    start_engine: StartEngine, crew_of: CrewOf
) -> None:
    leader = await start_engine()
    follower = await start_engine(engine={"poll_interval": 1000.0})
    await crew_of(follower).join("a")
    await leader.stop()
    await follower.engine.leader.beat()
    assert follower.engine.state.is_leader

    for _ in range(3):
        assert await (await follower.submit(WORK | {"data": 1})).result(10) == 1

    assert follower.engine.ear._heard.issuperset(LEADERS)


@pytest.mark.parametrize("is_left", [False, True])
async def test_whoever_schedules_a_pool_hears_when_another_gives_a_key_back(
    start_engine: StartEngine, crew_of: CrewOf, is_left: bool
) -> None:
    seldom: dict[str, Any] = {"poll_interval": 1000.0}
    default = await start_engine(engine=seldom)
    gpu = await start_engine(engine={"pool": "gpu", **seldom})
    await default.engine.leader.beat()  # it has heard now that another pool is served
    gates = Gate("done"), Gate("done")
    await crew_of(default).join("d", does=gates[0])
    await crew_of(gpu).join("g", does=gates[1], pool="gpu")
    first = await default.submit(WORK | {"concurrency_key": "one"})
    await gates[0].work()
    second = await gpu.submit(WORK | {"concurrency_key": "one", "pool": "gpu"})
    async with asyncio.timeout(10):
        while first.task_id not in gpu.engine.state.gates.keys.by_task:
            await asyncio.sleep(0.01)
    if is_left:
        await gpu.engine.ear.ignore(DONE)
        await gpu.engine.leader.beat()
    gates[1].is_open.set()

    gates[0].is_open.set()

    assert await first.result(10) == "done"
    async with asyncio.timeout(10):
        while (await default.call("task.get", task_id=second.task_id)).status != "completed":
            await asyncio.sleep(0.02)
    await gpu.engine.leader.beat()
    assert not gpu.engine.ear.hears(DONE)
