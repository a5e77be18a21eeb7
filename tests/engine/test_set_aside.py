"""Pause, drain and resume: an agent gets nothing new, whatever happens to its connection or the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.core.model import AgentStatus
from agentorch_cli.errors import UsageError, WaitTimedOut
from agentorch_cli.wiring import Orchestrator

TASK = {"required_capabilities": ["work"]}


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 20.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.01)
        return found


def until_mirrored(orchestrator: Orchestrator, agent_id: str, status: AgentStatus) -> Awaitable[Any]:
    async def is_so() -> bool:
        member = orchestrator.engine.state.roster.members.get(agent_id)
        return member is not None and member.status is status

    return until(is_so)


async def reason_of(orchestrator: Orchestrator, task_id: str, agent_id: str) -> str | None:
    why = await orchestrator.call("task.why", task_id=task_id)
    reasons = [link.agents[agent_id] for link in why.links if agent_id in link.agents]
    return reasons[0] if reasons else None


async def stories(orchestrator: Orchestrator) -> list[str]:
    rows = await orchestrator.store.db.pool.fetch(
        "select kind from events where kind in ('agent_paused', 'agent_draining', 'agent_resumed')"
        " order by event_id"
    )
    return [row["kind"].removeprefix("agent_") for row in rows]


async def test_a_paused_agent_keeps_what_it_holds_and_gets_nothing_new(orchestrator: Any, crew: Any) -> None:
    gate = Gate()
    await crew.join("a", does=gate, slots=2)
    held = await orchestrator.submit({"id": "held", **TASK})
    await gate.work()

    reply = await orchestrator.call("agent.pause", agent_ids=["a", "nobody"], reason="new model")
    await until_mirrored(orchestrator, "a", AgentStatus.PAUSED)
    waiting = await orchestrator.submit({"id": "waiting", **TASK})
    agent = await orchestrator.call("agent.get", agent_id="a")

    assert reply.changed == ["a"]
    assert reply.unchanged == {"nobody": "there is no such agent"}
    assert await reason_of(orchestrator, "waiting", "a") == (
        f"is paused since {agent.status_since:%H:%M:%S} UTC: new model"
    )
    (alarm,) = (await orchestrator.call("status.get")).alarms
    assert alarm == (
        "1 ready task wants an agent with work; those who could are set aside: a (paused)"
        " (agentorch agent resume)"
    )

    gate.is_open.set()
    assert (await held.wait(10)).status == "completed"
    assert gate.begun.empty()
    await orchestrator.call("agent.resume", agent_ids=["a"])
    assert (await waiting.wait(10)).status == "completed"
    assert await stories(orchestrator) == ["paused", "resumed"]


async def test_a_pause_survives_a_reconnect_and_the_engine(start_engine: Any, crew_of: Any) -> None:
    first = await start_engine()
    crew: Crew = crew_of(first)
    hand = await crew.join("a")
    await first.call("agent.pause", agent_ids=["a"], reason="why not")
    await hand.leave()
    assert (await first.call("agent.get", agent_id="a")).status == "paused"
    await crew.join("a")
    await first.stop()

    second = await start_engine()
    task = await second.submit({"id": "t", **TASK})
    assert (await reason_of(second, "t", "a") or "").startswith("is offline for ")
    assert (await reason_of(second, "t", "a") or "").endswith(": why not")
    await crew_of(second).join("a")
    assert second.engine.state.roster.members["a"].status is AgentStatus.PAUSED
    assert (await reason_of(second, "t", "a") or "").startswith("is paused since ")

    await second.call("agent.resume", agent_ids=["a"])
    assert (await task.wait(10)).status == "completed"


async def test_a_pause_with_a_time_ends_by_itself(orchestrator: Any, crew: Any) -> None:
    await crew.join("a")
    await orchestrator.call("agent.pause", agent_ids=["a"], reason="lunch", for_seconds=0.3)
    task = await orchestrator.submit({"id": "t", **TASK})
    told = await reason_of(orchestrator, "t", "a")

    ended = await task.wait(10)
    agent = await orchestrator.call("agent.get", agent_id="a")

    assert told is not None
    assert ", until " in told
    assert ended.status == "completed"
    assert (ended.started_at - agent.created_at).total_seconds() > 0.3
    assert (agent.status, agent.status_since, agent.status_reason, agent.status_until) == (
        "online",
        None,
        None,
        None,
    )
    assert await stories(orchestrator) == ["paused", "resumed"]


async def test_a_pause_that_is_over_while_no_engine_runs_is_over(start_engine: Any, crew_of: Any) -> None:
    first = await start_engine()
    await crew_of(first).join("a")
    await first.call("agent.pause", agent_ids=["a"], for_seconds=3600)
    await first.store.db.pool.execute("update agent_registry set status_until = now() + interval '1 ms'")
    await first.stop()

    second = await start_engine()
    await crew_of(second).join("a")

    assert (await (await second.submit(TASK)).wait(10)).status == "completed"


async def test_an_agent_that_is_resumed_while_it_connects_gets_work(
    orchestrator: Any, crew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row was read while it was paused; the fleet is read before the agent has its seat."""
    store, held_work = orchestrator.store, orchestrator.store.held_work
    has_read, go_on = asyncio.Event(), asyncio.Event()

    async def slow(agent_ids: Any) -> Any:
        held = await held_work(agent_ids)
        has_read.set()
        await go_on.wait()
        return held

    await orchestrator.register_agent("a", capabilities=["work"])
    await orchestrator.call("agent.pause", agent_ids=["a"])
    monkeypatch.setattr(store, "held_work", slow)
    joining = asyncio.create_task(crew.join("a", "work"))
    await has_read.wait()
    hints = orchestrator.engine.state.fleet_hints
    await orchestrator.call("agent.resume", agent_ids=["a"])
    async with asyncio.timeout(5):
        while orchestrator.engine.state.fleet_hints == hints:
            await asyncio.sleep(0.01)
    await orchestrator.engine.read_fleet()
    go_on.set()
    await joining

    assert (await (await orchestrator.submit(TASK)).wait(10)).status == "completed"


async def test_a_draining_agent_is_told_and_stays_draining_until_it_is_resumed(
    orchestrator: Any, crew: Any
) -> None:
    gate = Gate()
    hand = await crew.join("a", does=gate)
    held = await orchestrator.submit({"id": "held", **TASK})
    await gate.work()

    await orchestrator.call("agent.drain", agent_ids=["a"], reason="upgrade")
    await until_mirrored(orchestrator, "a", AgentStatus.DRAINING)
    waiting = await orchestrator.submit({"id": "waiting", **TASK})

    async def told() -> bool:
        return "draining" in hand.states

    await until(told)
    assert (await reason_of(orchestrator, "waiting", "a") or "").endswith("UTC: upgrade")
    gate.is_open.set()
    assert (await held.wait(10)).status == "completed"
    await hand.leave()
    again = await crew.join("a")

    async def told_again() -> bool:
        return again.states == ["connected", "draining"]

    await until(told_again)
    assert (await orchestrator.call("agent.get", agent_id="a")).status == "draining"
    assert (await orchestrator.call("task.get", task_id="waiting")).status == "pending"
    await orchestrator.call("agent.resume", agent_ids=["a"])
    assert (await waiting.wait(10)).assigned_agents == ["a"]
    assert await stories(orchestrator) == ["draining", "resumed"]


async def test_a_drain_that_waits_returns_when_nothing_is_held(orchestrator: Any, crew: Any) -> None:
    gate = Gate()
    await crew.join("a", does=gate, slots=2)
    handles = [await orchestrator.submit(TASK) for _ in range(2)]
    for _ in handles:
        await gate.work()

    with pytest.raises(WaitTimedOut, match="2 tasks are still held after"):
        await orchestrator.call("agent.drain", agent_ids=["a"], wait=True, timeout_seconds=0.05)
    drain = asyncio.create_task(orchestrator.call("agent.drain", agent_ids=["a"], wait=True))
    await until_mirrored(orchestrator, "a", AgentStatus.DRAINING)
    assert not drain.done()
    gate.is_open.set()

    async with asyncio.timeout(5):
        assert (await drain).changed == ["a"]
    assert (
        await orchestrator.store.db.pool.fetchval(
            "select count(*) from task_attempts where status in ('sent', 'accepted')"
        )
        == 0
    )


async def test_another_node_follows_at_once(start_engine: Any, crew_of: Any) -> None:
    leader = await start_engine(engine={"poll_interval": 60.0})
    other = await start_engine(engine={"poll_interval": 60.0})
    hand = await crew_of(other).join("far")

    await leader.call("agent.pause", agent_ids=["far"])
    await until_mirrored(other, "far", AgentStatus.PAUSED)
    await leader.call("agent.drain", agent_ids=["far"])
    await until_mirrored(other, "far", AgentStatus.DRAINING)

    async def told() -> bool:
        return "draining" in hand.states

    await until(told)
    await leader.call("agent.resume", agent_ids=["far"])
    await until_mirrored(other, "far", AgentStatus.ONLINE)


async def test_an_agent_that_is_neither_is_left_as_it_is(orchestrator: Any, crew: Any) -> None:
    await crew.join("a")

    reply = await orchestrator.call("agent.resume", agent_ids=["a", "nobody"])

    assert reply.changed == []
    assert reply.unchanged == {
        "a": "it is neither paused nor draining nor excluded",
        "nobody": "there is no such agent",
    }


@pytest.mark.parametrize("reason", ["x" * 1001, "nul \0", "half a \ud800"])
async def test_a_reason_that_cannot_be_kept_is_refused(orchestrator: Any, reason: str) -> None:
    with pytest.raises(UsageError, match="reason"):
        await orchestrator.call("agent.pause", agent_ids=["a"], reason=reason)


async def test_a_paused_agent_still_goes_on_with_a_parent_that_waited(orchestrator: Any, crew: Any) -> None:
    """Its sub-task ended meanwhile: neither does it stay parked, nor is that taken for a deadlock."""
    gate = Gate(result="child")

    async def parent(work: Any) -> Any:
        return await work.submit({"required_capabilities": ["child"]}, wait=True)

    await crew.join("a", does=parent)
    await crew.join("b", "child", does=gate)
    task = await orchestrator.submit({"id": "parent", **TASK})
    await gate.work()
    await orchestrator.call("agent.pause", agent_ids=["a"])
    await until_mirrored(orchestrator, "a", AgentStatus.PAUSED)

    found = await orchestrator.call("deadlock.check")
    gate.is_open.set()

    assert found.stuck == []
    assert (await task.wait(10)).result == "child"


async def test_what_waits_for_agents_that_people_set_aside_is_no_deadlock(
    orchestrator: Any, crew: Any
) -> None:
    await crew.join("a")
    await crew.join("b", "draw")
    await orchestrator.call("agent.pause", agent_ids=["a"])
    await orchestrator.call("agent.drain", agent_ids=["b"])
    for capability in ("work", "draw", "fly"):
        await orchestrator.submit({"id": capability, "required_capabilities": [capability]})

    found = await orchestrator.call("deadlock.check")

    assert found.stuck == ["fly"]


async def test_status_tells_who_is_set_aside_of_a_team_that_is_wanted(orchestrator: Any, crew: Any) -> None:
    await crew.join("a", "saw")
    await crew.join("b", "drill")
    await crew.join("c", "sweep")
    await orchestrator.call("agent.pause", agent_ids=["a", "c"], reason="lunch")
    await until_mirrored(orchestrator, "a", AgentStatus.PAUSED)

    await orchestrator.submit({"required_capabilities": ["saw", "drill"], "coverage": "team"})

    (alarm,) = (await orchestrator.call("status.get")).alarms
    assert alarm == (
        "1 ready task wants a team with drill and saw; of those who could, some are set aside: a (paused)"
    )
