"""Agents come, change, go and come back while the engine runs; and the engine itself is restarted."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli import Orchestrator, Settings, WorkFailed
from agentorch_cli.core.model import AgentSpec, AgentStatus
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.agents import register_agents, remove_agents
from agentorch_cli.store.database import Database
from agentorch_cli.store.store import Store

UPPER = """python3 -c 'import json,sys; print(json.dumps(json.load(sys.stdin)["data"].upper()))'"""
LOWER = """python3 -c 'import json,sys; print(json.dumps(json.load(sys.stdin)["data"].lower()))'"""


async def _until(condition: Any, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


# --- exec agents ------------------------------------------------------------------------------


async def test_an_exec_agent_is_added_changed_and_removed_from_another_process(
    orchestrator: Any, database_url: str
) -> None:
    database = Database(database_url, node_id="elsewhere", pool_size=2)
    await database.open()
    far = Context(Store(database))

    async def ask() -> Any:
        return await (await orchestrator.submit({"required_capabilities": ["case"], "data": "Ab"})).result(10)

    await register_agents(far, [AgentSpec("x", capabilities=("case",), exec=UPPER)])
    first = await ask()
    await register_agents(far, [AgentSpec("x", capabilities=("case",), exec=LOWER)])
    await _until(lambda: orchestrator._hosted.get("x") and orchestrator._hosted["x"][0].exec == LOWER)
    second = await ask()
    await remove_agents(far, ["x"])
    await _until(lambda: not orchestrator._hosted)
    await asyncio.sleep(0.3)
    left = await orchestrator.call("agent.list")
    await database.close()

    assert (first, second) == ("AB", "ab")
    assert left == []


async def test_an_exec_agent_that_is_registered_twice_at_once_runs_once(orchestrator: Any) -> None:
    await asyncio.gather(
        *(orchestrator.register_agent("x", capabilities=["case"], exec=UPPER) for _ in range(5))
    )

    task = await orchestrator.submit({"required_capabilities": ["case"], "data": "Ab"})

    assert await task.result(10) == "AB"
    assert list(orchestrator._hosted) == ["x"]


# --- registrations ----------------------------------------------------------------------------


async def test_an_agent_that_is_removed_while_connected_goes_and_its_work_goes_elsewhere(
    start_engine: Any, crew_of: Any
) -> None:
    orchestrator = await start_engine(gateway={"heartbeat_interval": 60.0})  # nobody waits for it to return
    gate, crew = Gate(), crew_of(orchestrator)
    hand = await crew.join("a", does=gate)
    task = await orchestrator.submit({"required_capabilities": ["work"], "data": 1})
    await gate.work()

    refused = await orchestrator.call("agent.remove", agent_ids=["a", "nobody"])
    assert refused.unchanged["a"].startswith("it holds work")
    assert refused.unchanged["nobody"] == "there is no such agent"
    await orchestrator.call("agent.remove", agent_ids=["a"], force=True)
    await crew.join("b")

    assert await task.result(10) == 1
    await asyncio.wait([hand.running], timeout=5)
    assert "removed" in str(hand.running.exception())
    attempts = (await orchestrator.call("task.get", task_id=task.task_id)).attempts
    assert attempts[0].error == {"code": "returned", "message": "agent a was removed"}
    assert [agent.agent_id for agent in await orchestrator.call("agent.list")] == ["b"]


async def test_slots_that_a_person_takes_from_a_connected_agent_are_not_used(
    orchestrator: Any, crew: Any
) -> None:
    gate = Gate()
    await crew.join("a", does=gate, slots=4)
    await orchestrator.register_agent("a", capabilities=["work"], slots=1)
    await _until(lambda: orchestrator.engine.state.roster.members["a"].slots == 1)

    handles = [await orchestrator.submit({"required_capabilities": ["work"]}) for _ in range(3)]
    await gate.work()
    before = orchestrator.engine.state.counters.get("assigned", 0)
    await asyncio.sleep(0.2)

    assert gate.begun.empty()
    assert orchestrator.engine.state.counters["assigned"] == before, "it asks in a loop"
    gate.is_open.set()
    for handle in handles:
        await handle.result(10)


async def test_a_capability_that_a_person_gives_a_connected_agent_counts(
    orchestrator: Any, crew: Any
) -> None:
    await crew.join("a")
    task = await orchestrator.submit({"required_capabilities": ["more"], "data": 1})

    await orchestrator.register_agent("a", capabilities=["work", "more"])

    assert await task.result(10) == 1


async def test_a_fleet_that_is_read_while_an_agent_connects_does_not_hide_it(
    orchestrator: Any, crew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows were read before it registered, and arrive after."""
    database, fetch = orchestrator.store.db, orchestrator.store.db.fetch
    has_read, go_on = asyncio.Event(), asyncio.Event()

    async def slow(name: str, *args: Any) -> Any:
        rows = await fetch(name, *args)
        if name == "roster":
            has_read.set()
            await go_on.wait()
        return rows

    await orchestrator.register_agent("known", capabilities=["work"])
    monkeypatch.setattr(database, "fetch", slow)
    reading = asyncio.create_task(orchestrator.engine.read_fleet())
    await has_read.wait()
    await crew.join("known", "work")
    hand = await crew.join("new", "work")
    go_on.set()
    await reading

    members = orchestrator.engine.state.roster.members
    assert {agent: member.status for agent, member in members.items()} == {
        "known": AgentStatus.ONLINE,
        "new": AgentStatus.ONLINE,
    }
    assert not hand.running.done()


# --- agents that go ---------------------------------------------------------------------------


async def test_an_agent_that_leaves_gives_its_work_to_another_at_once(orchestrator: Any, crew: Any) -> None:
    gate = Gate()
    hand = await crew.join("a", does=gate)
    task = await orchestrator.submit({"required_capabilities": ["work"], "data": 1})
    await gate.work()
    await crew.join("b")

    await hand.leave()

    ended = await task.wait(10)
    assert (ended.status, ended.failures) == ("completed", 0)
    assert ended.assigned_agents == ["b"]


async def test_the_engine_is_restarted_and_the_agents_go_on_with_what_they_hold(
    start_engine: Any, crew_of: Any
) -> None:
    gate = Gate(result="kept")
    first = await start_engine()
    port = int(first.url.rpartition(":")[2].partition("/")[0])
    crew: Crew = crew_of(first)
    await crew.join("a", does=gate, slots=3)
    handles = [await first.submit({"required_capabilities": ["work"]}) for _ in range(5)]
    for _ in range(3):
        await gate.work()
    await first.stop()

    second = await start_engine(gateway={"port": port})
    gate.is_open.set()
    ended = await second.call(
        "task.wait", task_ids=[handle.task_id for handle in handles], timeout_seconds=10
    )

    assert [(task.result, task.attempts_made) for task in ended] == [("kept", 1)] * 5
    assert gate.stopped == []


# --- under a random load ----------------------------------------------------------------------


async def test_after_a_random_load_the_mirror_is_what_the_tables_say(
    start_engine: Any, crew_of: Any, sql_of: Any
) -> None:
    """Cancellations, retries, failures, timeouts and agents that vanish, all at once."""
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    orchestrator = await start_engine(engine={"response_timeout": 1.0})
    crew: Crew = crew_of(orchestrator)

    async def play(work: Any) -> Any:
        fate = dice.random()
        await asyncio.sleep(dice.uniform(0, 0.03))
        if fate < 0.15:
            raise WorkFailed("unlucky")
        if fate < 0.2:
            await asyncio.sleep(60)
        return sorted(work.inputs)

    for number in range(4):
        await crew.join(f"agent {number}", does=play, slots=dice.randint(1, 6))
    ids: list[str] = []

    async def submit() -> None:
        for _ in range(25):
            names = [f"n{n}" for n in range(dice.randint(1, 12))]
            tasks = [
                {
                    "name": name,
                    "required_capabilities": ["work"],
                    "depends_on": dice.sample(names[:number], min(number, dice.randint(0, 2))),
                    "on_dependency_failure": dice.choice(["fail", "run", "skip"]),
                    "timeout": 0.15,
                    "retries": dice.randint(0, 2),
                    "backoff": 0.01,
                    "min_agents": dice.choice([1, 1, 1, 2]),
                    "priority": dice.randint(0, 10),
                }
                for number, name in enumerate(names)
            ]
            ids.extend(handle.task_id for handle in await orchestrator.submit_all(tasks))
            await asyncio.sleep(dice.uniform(0, 0.08))

    async def disturb() -> None:
        number = 0
        while not submitting.done():
            await asyncio.sleep(dice.uniform(0, 0.05))
            some = dice.sample(ids, min(len(ids), 8))
            match dice.randrange(4):
                case 0:
                    await orchestrator.call("task.cancel", task_ids=some)
                case 1:
                    await orchestrator.call("task.retry", task_ids=some)
                case 2:
                    session = dice.choice([None, *orchestrator._gateway.sessions.values()])
                    if session is not None:
                        session.abort()
                case _:
                    number += 1
                    await (await crew.join(f"guest {number}", does=play, slots=3)).leave()

    submitting = asyncio.create_task(submit())
    async with asyncio.TaskGroup() as group:
        group.create_task(disturb())
        await submitting
    await orchestrator.call("task.wait", task_ids=ids, timeout_seconds=30)

    state = orchestrator.engine.state
    await _until(lambda: not state.deliveries)
    live = await sql_of(orchestrator, "select * from task_attempts where status in ('sent', 'accepted')")
    odd = await sql_of(
        orchestrator,
        "select task_id, status, wanted from task_distributions"
        " where wanted > 0 or status in ('running', 'blocked')",
    )
    edges = await sql_of(orchestrator, "select * from task_dependencies")
    assert (live, odd, edges) == ([], [], [])
    assert {name: member.used for name, member in state.roster.members.items() if member.used} == {}
    assert (state.held_by, dict(state.running)) == ({}, {})


# --- idling -----------------------------------------------------------------------------------


async def test_an_idle_fleet_asks_the_database_about_once_a_second(
    database_url: str, crew_of: Any, sql_of: Any
) -> None:
    """Default settings, but for the port."""
    settings = Settings.model_validate(
        {"database": {"url": database_url, "pool_size": 4}, "gateway": {"port": 0, "heartbeat_interval": 0.5}}
    )
    async with Orchestrator(settings) as orchestrator:
        crew: Crew = crew_of(orchestrator)
        for number in range(20):
            await crew.join(f"a{number}")
        await asyncio.sleep(1.6)  # those who came may be what somebody waited for: that is looked at once
        asked: list[str] = []
        for pool_call in ("fetch", "fetch_one", "hot"):
            original = getattr(orchestrator.store.db, pool_call)

            async def counted(*args: Any, original: Any = original) -> Any:
                asked.append(args[0])
                return await original(*args)

            setattr(orchestrator.store.db, pool_call, counted)
        await asyncio.sleep(5)
        idle = list(asked)  # what follows is the end of the test, not of the rest
        await crew.vanish()

    assert len(idle) <= 5, idle
