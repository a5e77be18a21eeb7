"""Several nodes on one database: agents on any of them, one that assigns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.config import Settings
from agentorch_cli.engine.relay import Relay
from agentorch_cli.wiring import Orchestrator, serve

StartEngine = Callable[..., Awaitable[Orchestrator]]


@pytest.fixture
async def nodes(start_engine: StartEngine) -> tuple[Orchestrator, Orchestrator]:
    """The node that leads, and one that does not."""
    first = await start_engine()
    second = await start_engine()
    assert (first.engine.state.is_leader, second.engine.state.is_leader) == (True, False)
    return first, second


@pytest.fixture
async def crews(nodes: tuple[Orchestrator, Orchestrator]) -> Any:
    crews = Crew(nodes[0]), Crew(nodes[1])
    yield crews
    for crew in crews:
        await crew.vanish()


async def settled(node: Orchestrator) -> None:
    """Returns once the leader thinks that nothing runs anywhere."""
    state = node.engine.state
    async with asyncio.timeout(10):
        while state.deliveries or state.elsewhere or any(m.used for m in state.roster.members.values()):
            await asyncio.sleep(0.01)
    assert not state.running


async def test_agents_of_a_node_that_does_not_lead_get_work(nodes: Any, crews: Any) -> None:
    leader, follower = nodes
    await crews[1].join("a", slots=2)

    handles = await leader.submit_all([{"required_capabilities": ["work"], "data": n} for n in range(60)])
    handles += await follower.submit_all(
        [{"required_capabilities": ["work"], "data": n} for n in range(60, 120)]
    )

    assert [await handle.result(20) for handle in handles] == list(range(120))
    await settled(leader)


async def test_work_is_shared_by_agents_of_all_nodes(nodes: Any, crews: Any) -> None:
    leader, follower = nodes
    gates = Gate("done"), Gate("done")
    await crews[0].join("a", does=gates[0], slots=3)
    await crews[1].join("b", does=gates[1], slots=3)

    handles = await follower.submit_all([{"required_capabilities": ["work"]} for _ in range(6)])

    async with asyncio.timeout(10):
        for gate in gates:
            for _ in range(3):
                await gate.begun.get()
    for gate in gates:
        gate.is_open.set()
    assert [await handle.result(10) for handle in handles] == ["done"] * 6
    await settled(leader)


async def test_a_chain_of_tasks_goes_to_and_fro_between_nodes(nodes: Any, crews: Any) -> None:
    leader, follower = nodes
    await crews[0].join("a", "even")
    await crews[1].join("b", "odd")
    tasks = [
        {
            "name": f"step {number}",
            "required_capabilities": ["odd" if number % 2 else "even"],
            "depends_on": [f"step {number - 1}"] if number else [],
            "data": number,
        }
        for number in range(20)
    ]

    handles = await follower.submit_all(tasks)

    assert await handles[-1].result(20) == 19
    await settled(leader)


async def test_failures_retries_and_losses_on_another_node(nodes: Any, crews: Any) -> None:
    leader, _ = nodes
    tries: list[int] = []

    async def fails_twice(work: Any) -> str:
        tries.append(work.attempt)
        if len(tries) < 3:
            raise ValueError("not yet")
        return "at last"

    await crews[1].join("a", does=fails_twice)
    handle = await leader.submit({"required_capabilities": ["work"], "backoff": 0, "retries": 5})
    assert await handle.result(10) == "at last"
    assert tries == [1, 2, 3]

    gate = Gate()
    leaving = await crews[1].join("b", "other", does=gate)
    handle = await leader.submit({"required_capabilities": ["other"], "data": "moved"})
    await gate.work()
    await leaving.leave()
    await crews[1].join("c", "other")
    assert await handle.result(10) == "moved"
    await settled(leader)


async def test_work_on_another_node_is_called_off(nodes: Any, crews: Any) -> None:
    leader, _ = nodes
    gate = Gate()
    await crews[1].join("a", does=gate)
    handle = await leader.submit({"required_capabilities": ["work"]})
    await gate.work()

    await handle.cancel("not wanted any more")

    async with asyncio.timeout(10):
        while not gate.stopped:
            await asyncio.sleep(0.01)
    assert gate.stopped == [handle.task_id]
    await settled(leader)


async def test_several_agents_of_several_nodes_do_one_task(nodes: Any, crews: Any) -> None:
    leader, _ = nodes
    for name in ("a", "b"):
        await crews[0].join(name)
    for name in ("c", "d", "e"):
        await crews[1].join(name)
    vote = {"required_capabilities": ["work"], "data": "yes", "consensus": {"rule": "unanimous", "panel": 5}}

    handle = await leader.submit(vote)

    assert await handle.result(10) == "yes"
    both = {
        "required_capabilities": ["work"],
        "min_agents": 5,
        "max_agents": 5,
        "aggregate": "all",
        "data": 1,
    }
    handle = await leader.submit(both)
    assert await handle.result(10) == dict.fromkeys("abcde", 1)
    await settled(leader)


@pytest.mark.parametrize("quick", [0, 1])
async def test_whoever_is_slower_on_another_node_is_called_off(nodes: Any, crews: Any, quick: int) -> None:
    leader, _ = nodes
    slow = Gate()
    await crews[quick].join("quick")
    await crews[1 - quick].join("slow", does=slow)
    async with asyncio.timeout(10):
        while sum(member.is_free for member in leader.engine.state.roster.members.values()) < 2:
            await asyncio.sleep(0.01)  # whoever joins elsewhere is heard of a moment later

    handle = await leader.submit(
        {"required_capabilities": ["work"], "min_agents": 1, "max_agents": 2, "data": "first"}
    )

    assert await handle.result(10) == "first"
    async with asyncio.timeout(10):
        while slow.begun.empty() or not slow.stopped:
            await asyncio.sleep(0.01)
    await settled(leader)


async def test_a_parent_waits_on_one_node_for_its_child_on_another(nodes: Any, crews: Any) -> None:
    leader, _ = nodes

    async def parent(work: Any) -> Any:
        return [
            await work.submit({"required_capabilities": ["child"], "data": number}, wait=True)
            for number in range(3)
        ]

    await crews[1].join("p", "parent", does=parent)
    await crews[0].join("c", "child")

    handles = [await leader.submit({"required_capabilities": ["parent"], "data": n}) for n in range(4)]

    for handle in handles:
        assert await handle.result(20) == [0, 1, 2]
    await settled(leader)


async def test_an_agent_that_moves_takes_its_work_along(nodes: Any, crews: Any) -> None:
    leader, _ = nodes
    gate = Gate("done")
    hand = await crews[0].join("a", does=gate)
    handle = await leader.submit({"required_capabilities": ["work"]})
    work = await gate.work()
    assert work.message_id in leader.engine.state.deliveries

    await crews[1].join("a", does=gate)
    async with asyncio.timeout(10):
        await asyncio.wait([hand.running])
    again = await gate.work()

    assert again.message_id == work.message_id
    async with asyncio.timeout(10):
        while work.message_id not in leader.engine.state.elsewhere:
            await asyncio.sleep(0.01)
    assert work.message_id not in leader.engine.state.deliveries
    gate.is_open.set()
    assert await handle.result(10) == "done"
    await settled(leader)


async def test_what_a_lost_hint_said_is_found_in_the_tables(
    nodes: Any, crews: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = nodes
    await crews[1].join("a")
    handle = await leader.submit({"required_capabilities": ["work"], "data": 1})
    await handle.result(10)
    await settled(leader)
    monkeypatch.setattr(Relay, "tell", lambda self: asyncio.sleep(0))

    handle = await leader.submit({"required_capabilities": ["work"], "data": 2})
    async with asyncio.timeout(10):
        while not leader.engine.state.elsewhere:
            await asyncio.sleep(0.01)
    await leader.store.db.pool.execute("update task_attempts set sent_at = sent_at - interval '1 minute'")
    await follower.engine.peers.sweep()
    assert await handle.result(10) == 2
    await leader.engine.peers.sweep()

    await settled(leader)


async def test_the_lead_changes_at_once_when_a_node_leaves(nodes: Any, crews: Any) -> None:
    leader, follower = nodes
    await crews[1].join("a")

    await leader.stop()

    async with asyncio.timeout(2):
        while not follower.engine.state.is_leader:
            await asyncio.sleep(0.01)
    handle = await follower.submit({"required_capabilities": ["work"], "data": 1})
    assert await handle.result(10) == 1


async def test_a_new_leader_knows_what_runs_elsewhere(start_engine: StartEngine) -> None:
    first, second, third = [await start_engine() for _ in range(3)]
    crew, gate = Crew(third), Gate("done")
    try:
        await crew.join("a", does=gate, slots=2)
        handles = await first.submit_all([{"required_capabilities": ["work"]} for _ in range(3)])
        await gate.work()
        await gate.work()

        await first.stop()
        async with asyncio.timeout(5):
            while not (leading := [n for n in (second, third) if n.engine.state.is_leader]):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        gate.is_open.set()

        for handle in handles:
            found = await leading[0].call("task.wait", task_ids=[handle.task_id], timeout_seconds=10)
            assert found[0].result == "done"
        await settled(leading[0])
    finally:
        await crew.vanish()


async def test_an_agent_that_serve_runs_is_run_again_when_the_node_that_took_it_over_is_gone(
    start_engine: StartEngine, caplog: pytest.LogCaptureFixture
) -> None:
    first = await start_engine(engine={"poll_interval": 0.05})
    await first.register_agent("x", capabilities=["count"], exec="wc -w")
    async with asyncio.timeout(10):
        while (await first.call("agent.get", agent_id="x")).status != "online":
            await asyncio.sleep(0.01)
    second = await start_engine()
    async with asyncio.timeout(10):
        while "connected anew" not in caplog.text:
            await asyncio.sleep(0.01)
    await second.stop()

    task = await first.submit({"required_capabilities": ["count"], "data": "a b"})

    await task.result(10)


async def test_a_node_listens_on_one_connection(nodes: Any) -> None:
    """Whatever any node says wakes each of them."""
    rows = await nodes[0].engine.store.db.pool.fetch(
        "select application_name from pg_stat_activity"
        " where datname = current_database() and (query ilike 'listen %' or query = 'select 1')"
    )

    assert sorted(row[0] for row in rows) == sorted(f"{node.engine.store.node_id} listen" for node in nodes)


async def test_who_joins_others_is_told_so(
    nodes: tuple[Orchestrator, Orchestrator], start_engine: StartEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="agentorch")
    third = await start_engine()

    for node in (nodes[1], third):
        caplog.clear()
        await node.tell_of_others()

        assert ["2 other serves share this database" in line for line in caplog.messages] == [True]


async def test_who_is_alone_is_not_told_of_others(
    orchestrator: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="agentorch")
    caplog.clear()

    await orchestrator.tell_of_others()

    assert caplog.messages == []


async def test_who_is_stopped_while_it_starts_is_never_ready(settings: Settings) -> None:
    stop, told = asyncio.Event(), list[str]()
    stop.set()

    async with asyncio.timeout(20):
        await serve(settings, on_ready=told.append, stop=stop)

    assert told == []
