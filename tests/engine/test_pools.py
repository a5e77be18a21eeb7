"""Pools: each is scheduled by a node of its own, and agents of any pool may be on any node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.agents.work import Work
from agentorch_cli.wiring import Orchestrator

StartEngine = Callable[..., Awaitable[Orchestrator]]


@pytest.fixture
async def nodes(start_engine: StartEngine) -> tuple[Orchestrator, Orchestrator]:
    """A node that schedules the default pool, and is the chief; and one that schedules pool gpu."""
    first = await start_engine()
    second = await start_engine(engine={"pool": "gpu"})
    states = first.engine.state, second.engine.state
    assert [(state.is_leader, state.is_chief) for state in states] == [(True, True), (True, False)]
    await first.engine.leader.beat()  # it has heard now that another pool is served
    return first, second


@pytest.fixture
async def crews(nodes: tuple[Orchestrator, Orchestrator]) -> Any:
    crews = Crew(nodes[0]), Crew(nodes[1])
    yield crews
    for crew in crews:
        await crew.vanish()


async def until(condition: Callable[[], bool]) -> None:
    """Returns once it holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def nothing_held(*nodes: Orchestrator) -> Callable[[], bool]:
    """Whether these nodes think that nothing runs anywhere."""

    def held(node: Orchestrator) -> bool:
        state = node.engine.state
        return bool(
            state.deliveries
            or state.elsewhere
            or state.running
            or any(member.used for member in state.roster.members.values())
        )

    return lambda: not any(held(node) for node in nodes)


def task(pool: str | None = None, **fields: Any) -> dict[str, Any]:
    named = {} if pool is None else {"pool": pool}
    return {"required_capabilities": ["work"], **named, **fields}


async def test_agents_of_two_pools_on_each_others_nodes_do_the_work_of_their_own_pools(
    nodes: Any, crews: Any
) -> None:
    default, gpu = nodes
    await crews[0].join("g", pool="gpu", slots=2)
    await crews[1].join("d", slots=2)

    handles = [
        await node.submit(task(pool, data=f"{pool} {number}"))
        for number in range(20)
        for node, pool in ((default, None), (default, "gpu"), (gpu, None), (gpu, "gpu"))
    ]

    done = [await handle.wait(20) for handle in handles]
    assert [one.status for one in done] == ["completed"] * 80
    assert {(one.pool, *one.assigned_agents) for one in done} == {("default", "d"), ("gpu", "g")}
    await until(nothing_held(default, gpu))


async def test_a_pool_goes_on_while_nobody_schedules_another(nodes: Any, crews: Any) -> None:
    default, gpu = nodes
    await crews[0].join("d")
    await crews[0].join("g", pool="gpu")
    await gpu.stop()

    waits = await default.submit(task("gpu", data=1))
    goes = await default.submit(task(data=2))

    assert await goes.result(10) == 2
    why = await default.call("task.why", task_id=waits.task_id)
    assert why.links[0].code == "no_serve"
    assert why.links[0].sentence == "no serve schedules pool gpu: agentorch serve --pool gpu"
    status = await default.call("status.get")
    assert "no serve schedules pool gpu: agentorch serve --pool gpu" in status.alarms


async def test_an_agent_of_another_pool_gets_nothing_and_why_says_so(nodes: Any, crews: Any) -> None:
    default, _ = nodes
    await crews[0].join("d")

    handle = await default.submit(task("gpu"))

    why = await default.call("task.why", task_id=handle.task_id)
    assert [link.agents for link in why.links if link.code == "agents"] == [{"d": "is in pool default"}]
    await crews[0].join("g", pool="gpu")
    assert (await handle.wait(10)).assigned_agents == ["g"]


async def test_an_agent_that_names_no_pool_stays_where_it_was_registered(nodes: Any, crews: Any) -> None:
    default, gpu = nodes
    await default.register_agent("g", capabilities=["work"], pool="gpu")
    hand = await crews[0].join("g")

    handle = await gpu.submit(task("gpu", data=1))

    assert await handle.result(10) == 1
    assert hand.agent.pool is None
    assert (await default.register_agent("g", capabilities=["work"])).pool == "gpu"
    assert [one.agent_id for one in await default.call("agent.list", pool="gpu")] == ["g"]


async def test_an_agent_that_is_moved_while_it_works_works_for_its_new_pool_afterwards(
    nodes: Any, crews: Any
) -> None:
    default, gpu = nodes
    gate = Gate("done")
    await crews[0].join("a", does=gate)
    old = await default.submit(task())
    await gate.work()

    await default.register_agent("a", capabilities=["work"], pool="gpu")
    new = await default.submit(task("gpu"))
    late = await default.submit(task())
    await until(lambda: gpu.engine.state.roster.members["a"].used == {0})  # held for its old pool, it counts
    gate.is_open.set()

    assert await old.result(10) == await new.result(10) == "done"
    assert (await default.call("task.get", task_id=late.task_id)).status == "pending"
    await until(nothing_held(default, gpu))


async def test_sub_tasks_are_in_the_pool_of_their_parent_unless_they_say_otherwise(
    nodes: Any, crews: Any
) -> None:
    async def parent(work: Work) -> Any:
        own = await work.submit({"required_capabilities": ["part"], "data": 1}, wait=True)
        other = await work.submit(
            {"required_capabilities": ["part"], "pool": "default", "data": 2}, wait=True
        )
        return [own, other]

    default, _ = nodes
    await crews[0].join("p", pool="gpu", does=parent)
    await crews[1].join("g", "part", pool="gpu")
    await crews[1].join("d", "part")

    handle = await default.submit(task("gpu"))

    await handle.result(10)
    children = [one for one in await default.call("task.list") if one.task_id != handle.task_id]
    assert {(one.pool, *one.assigned_agents) for one in children} == {("gpu", "g"), ("default", "d")}


async def test_the_limit_on_running_work_counts_the_own_pool_only(start_engine: StartEngine) -> None:
    limited = {"max_concurrent_tasks": 1}
    default = await start_engine(engine=limited)
    await start_engine(engine={"pool": "gpu", **limited})
    crew, gates = Crew(default), (Gate("done"), Gate("done"))
    try:
        await crew.join("d", does=gates[0], slots=2)
        await crew.join("g", does=gates[1], slots=2, pool="gpu")
        handles = [await default.submit(task(pool)) for pool in ("default", "default", "gpu", "gpu")]

        for gate in gates:
            await gate.work()

        assert all(gate.begun.empty() for gate in gates)
        why = await default.call("task.why", task_id=handles[3].task_id)
        assert "engine.max_concurrent_tasks is reached: 1 running" in [link.sentence for link in why.links]
        for gate in gates:
            gate.is_open.set()
        assert [await handle.result(10) for handle in handles] == ["done"] * 4
    finally:
        await crew.vanish()


async def test_a_concurrency_key_holds_over_pools(nodes: Any, crews: Any) -> None:
    default, _ = nodes
    gates = Gate("done"), Gate("done")
    await crews[0].join("d", does=gates[0])
    await crews[0].join("g", does=gates[1], pool="gpu")

    first = await default.submit(task(concurrency_key="one"))
    await gates[0].work()
    second = await default.submit(task("gpu", concurrency_key="one"))
    sentinel = await default.submit(task("gpu", priority=0))
    await gates[1].work()  # the sentinel was passed on, the task before it was not
    assert (await default.call("task.get", task_id=second.task_id)).status == "pending"
    for gate in gates:
        gate.is_open.set()

    assert [await one.result(10) for one in (first, sentinel, second)] == ["done"] * 3


async def test_delayed_tasks_and_retries_of_another_pool_are_started_by_its_leader(
    nodes: Any, crews: Any
) -> None:
    default, gpu = nodes
    tries: list[int] = []

    async def fails_once(work: Work) -> Any:
        tries.append(work.attempt)
        if len(tries) == 1:
            raise ValueError("not yet")
        return "at last"

    await crews[0].join("g", does=fails_once, pool="gpu")
    await default.engine.leader.beat()

    handles = await default.submit_all(
        [task("gpu", name="first"), task("gpu", depends_on=["first"], delay=0.05)]
    )

    assert [await handle.result(10) for handle in handles] == ["at last", "at last"]
    await until(nothing_held(default, gpu))


async def test_an_electorate_is_of_the_tasks_pool_wherever_the_ballots_are_counted(
    nodes: Any, crews: Any
) -> None:
    default, _ = nodes
    answers = {"g1": "yes", "g2": "no", "g3": "yes"}

    def says(answer: str) -> Any:
        async def vote(_work: Work) -> str:
            return answer

        return vote

    for agent_id, answer in answers.items():
        await crews[0].join(agent_id, does=says(answer), pool="gpu")
    for number in range(3):
        await crews[0].join(f"d{number}", does=says("no"))

    vote = {"threshold": 0.6, "panel": 2, "on_no_consensus": "escalate", "cap": 3}
    handle = await default.submit(task("gpu", min_agents=2, consensus=vote))

    done = await handle.wait(15)
    assert (done.status, done.result) == ("completed", "yes")
    assert set(done.assigned_agents) == {"g1", "g2", "g3"}


async def test_what_no_agent_of_the_pool_can_do_is_found_unsatisfiable(nodes: Any, crews: Any) -> None:
    default, _ = nodes
    await crews[0].join("d", "paint")

    reply = await default.call("task.submit", tasks=[await _spec("painted", "gpu", "paint")])

    assert reply.warnings == ["no registered agent in pool gpu has paint; the task waits until one comes"]
    found: list[Any] = []

    async with asyncio.timeout(10):
        while not found:
            await default.engine.monitor.deadlocks.pass_once()
            found = await default.call("deadlock.list", only_open=True)
    assert (found[0].kind, found[0].members) == ("unsatisfiable", ["painted"])
    assert "needs 1 agent with paint in pool gpu: there are 0" in found[0].reason


async def _spec(task_id: str, pool: str, capability: str) -> Any:
    from agentorch_cli.core.model import TaskSpec

    return TaskSpec(task_id, pool=pool, required_capabilities=(capability,))


async def test_another_node_becomes_the_chief_and_finds_what_is_overdue(nodes: Any, crews: Any) -> None:
    default, gpu = nodes
    await default.stop()

    await until(lambda: gpu.engine.state.is_chief)

    assert gpu.engine.state.is_leader
    handle = await gpu.submit(task(deadline=0.05))
    done = await handle.wait(10)
    assert (done.status, done.error["code"]) == ("failed", "deadline_exceeded")
    found = await gpu.call("node.list")
    assert [(one.pool, one.is_leader, one.is_chief) for one in found if one.is_live] == [("gpu", True, True)]


async def test_two_nodes_of_one_pool_have_one_leader(start_engine: StartEngine) -> None:
    states = [(await start_engine(engine={"pool": pool})).engine.state for pool in "abab"]

    assert [state.is_leader for state in states] == [True, True, False, False]
    assert [state.is_chief for state in states] == [True, False, False, False]


async def test_a_beat_takes_the_lease_that_has_ended_and_leaves_the_other(
    nodes: Any, start_engine: StartEngine, sql_of: Any
) -> None:
    await sql_of(
        nodes[0],
        "insert into leases (name, node_id, expires_at)"
        " values ('scheduler:x', 'somebody else', now() + interval '1 hour')",
    )
    third = await start_engine(engine={"pool": "x"})
    assert third.engine.leader.epochs == {}

    await sql_of(nodes[0], "update leases set expires_at = now() - interval '1 s' where name = 'scheduler:x'")
    await third.engine.leader.beat()

    assert third.engine.leader.epochs == {"scheduler:x": 2}
