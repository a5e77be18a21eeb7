"""Work that agents hold and have not begun: handed over ahead of a slot, and given to others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from crew import WORK, Crew, Worker, is_quick, quick_worker
from silent_agent import silent_agent

from agentorch_cli.engine import scheduler
from agentorch_cli.wiring import Orchestrator

StartEngine = Callable[..., Awaitable[Orchestrator]]


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def submit_in_turn(engine: Orchestrator, number: int) -> list[str]:
    """Tasks that are assigned one after the other; their ids."""
    return [handle.task_id for handle in await engine.submit_all([WORK | {"data": "slow"}] * number)]


async def moved(engine: Orchestrator, task_id: str) -> list[dict[str, Any]]:
    """What the events of its moves say."""
    task = await engine.call("task.get", task_id=task_id)
    return [event.data for event in task.events if event.kind == "attempt_moved"]


async def status(engine: Orchestrator, task_id: str) -> str:
    return str((await engine.call("task.get", task_id=task_id)).status)


@pytest.fixture
async def quick_one(orchestrator: Orchestrator, crew: Crew) -> Worker:
    """The agent a: one slot, at most two attempts beyond it, and known to be quick."""
    return await quick_worker(orchestrator, crew, prefetch=2)


# --- ahead of a slot ----------------------------------------------------------------------------


async def test_a_quick_agent_is_handed_work_beyond_its_slots_and_begins_it_by_itself(
    orchestrator: Orchestrator, quick_one: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", 60.0)
    ids = await submit_in_turn(orchestrator, 4)
    first = await quick_one.begun()

    await until(lambda: len(orchestrator.engine.state.deliveries) == 3)
    agent = await orchestrator.call("agent.get", agent_id="a")
    why = await orchestrator.call("task.why", task_id=ids[1])
    stands = [await status(orchestrator, task_id) for task_id in ids]
    quick_one.open()

    assert first == ids[0]
    assert stands == ["running", "running", "running", "pending"]
    assert (agent.busy, agent.queued, agent.load) == (1, 2, 1.0)
    assert [link.sentence for link in why.links] == [f"is queued behind task {ids[0]} on agent a"]
    done = await orchestrator.call("task.wait", task_ids=ids, timeout_seconds=10)
    assert [task.status for task in done] == ["completed"] * 4
    for task_id in ids:
        task = await orchestrator.call("task.get", task_id=task_id)
        assert [(one.agent_id, one.status) for one in task.attempts] == [("a", "completed")]
    assert not orchestrator.engine.state.shelf


async def test_an_agent_that_was_never_quick_is_handed_nothing_beyond_its_slots(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    worker = Worker()
    await crew.join("a", does=worker, prefetch=2)

    ids = await submit_in_turn(orchestrator, 2)
    await worker.begun()
    await asyncio.sleep(0.1)

    assert await status(orchestrator, ids[1]) == "pending"
    worker.open()


@pytest.mark.parametrize("settings", [{"balancing": {"enabled": False}}, {"balancing": {"prefetch": 0}}])
async def test_nothing_is_handed_over_ahead_where_it_is_turned_off(
    start_engine: StartEngine, crew_of: Callable[[Orchestrator], Crew], settings: dict[str, Any]
) -> None:
    engine = await start_engine(**settings)
    worker = Worker()
    await crew_of(engine).join("a", does=worker, prefetch=2)
    await engine.call("task.wait", task_ids=[(await engine.submit(WORK | {"data": "quick"})).task_id])

    ids = await submit_in_turn(engine, 2)
    await worker.begun()
    await asyncio.sleep(0.1)

    assert await status(engine, ids[1]) == "pending"
    worker.open()


async def test_a_client_that_does_not_ask_for_it_never_holds_more_than_its_slots(
    orchestrator: Orchestrator,
) -> None:
    async with silent_agent(orchestrator.url, "raw", slots=2) as raw:
        for _ in range(3):
            await orchestrator.submit(WORK)
        first, second = await raw.work(), await raw.work()
        for work in (first, second):
            await raw.accept(work)
        await raw.finish(first, 1)
        third = await raw.work()

        assert not any(work["data"].get("ahead") for work in (first, second, third))
        assert raw.works.empty()
        ids = {work["data"]["taskId"] for work in (second, third)}
        await until(lambda: {d.task_id for d in orchestrator.engine.state.deliveries.values()} == ids)


async def test_no_task_waits_for_a_busy_agent_while_another_is_free(
    orchestrator: Orchestrator, crew: Crew, quick_one: Worker
) -> None:
    other = Worker()
    await crew.join("b", does=other, slots=2)

    ids = await submit_in_turn(orchestrator, 3)

    begun = {await quick_one.begun(), await other.begun(), await other.begun()}
    assert begun == set(ids)
    assert not orchestrator.engine.state.shelf
    quick_one.open()
    other.open()


async def test_what_is_handed_over_ahead_counts_for_the_most_that_may_run(
    start_engine: StartEngine, crew_of: Callable[[Orchestrator], Crew]
) -> None:
    engine = await start_engine(engine={"max_concurrent_tasks": 2})
    worker = await quick_worker(engine, crew_of(engine), prefetch=2)

    ids = await submit_in_turn(engine, 3)
    await until(lambda: len(engine.engine.state.deliveries) == 2)
    await asyncio.sleep(0.05)

    assert [await status(engine, one) for one in ids] == ["running", "running", "pending"]
    worker.open()


@pytest.mark.parametrize(
    "more", [{"concurrency_key": "k", "concurrency_limit": 5}, {"min_agents": 1, "max_agents": 2}]
)
async def test_what_needs_more_than_a_slot_is_not_handed_over_ahead(
    orchestrator: Orchestrator, quick_one: Worker, more: dict[str, Any]
) -> None:
    await submit_in_turn(orchestrator, 1)
    await quick_one.begun()

    handle = await orchestrator.submit(WORK | more)
    await asyncio.sleep(0.1)

    assert await status(orchestrator, handle.task_id) == "pending"
    quick_one.open()


async def test_work_that_waits_behind_long_work_goes_back_to_all_in_its_place(
    orchestrator: Orchestrator, quick_one: Worker, sql: Any
) -> None:
    ids = await submit_in_turn(orchestrator, 2)
    await quick_one.begun()
    await until(lambda: len(orchestrator.engine.state.shelf) == 1)

    await until(lambda: not orchestrator.engine.state.shelf)

    async with asyncio.timeout(5):
        while await status(orchestrator, ids[1]) != "pending":
            await asyncio.sleep(0.01)
    rows = await sql("select * from task_distributions where task_id = $1", ids[1])
    assert (rows[0]["failures"], rows[0]["losses"], rows[0]["tried_agents"]) == (0, 0, [])
    assert rows[0]["wanted"] == 1
    assert await moved(orchestrator, ids[1]) == [
        {"why": "waited", "from": "a", "to": None, "before": {"a": 2.0}, "after": {"a": 1.0}}
    ]
    await asyncio.sleep(0.1)  # it is not handed to the same agent ahead once more
    assert await status(orchestrator, ids[1]) == "pending"
    quick_one.open()
    done = await orchestrator.call("task.wait", task_ids=ids, timeout_seconds=10)
    assert [task.status for task in done] == ["completed"] * 2


async def test_an_agent_whose_work_waits_for_sub_tasks_is_handed_nothing_ahead(
    orchestrator: Orchestrator, crew: Crew, sql: Any
) -> None:
    async def does(work: Any) -> Any:
        if work.data == "parent":
            return await work.submit(WORK | {"data": "child"}, wait=True)
        return work.data

    await crew.join("a", does=does, prefetch=2)
    handles = await orchestrator.submit_all([WORK | {"data": "parent"} for _ in range(12)])

    assert [await handle.result(20) for handle in handles] == ["child"] * 12
    assert (await sql("select max(slot) from task_attempts"))[0][0] == 0


async def test_work_ahead_survives_a_lost_connection(
    orchestrator: Orchestrator, crew: Crew, quick_one: Worker
) -> None:
    ids = await submit_in_turn(orchestrator, 3)
    await quick_one.begun()
    await until(lambda: len(orchestrator.engine.state.shelf) == 2)
    hand = next(one for one in crew.hands if one.agent.agent_id == "a")
    hand.is_connected.clear()

    orchestrator._gateway.session_of("a").abort()  # type: ignore[union-attr]
    async with asyncio.timeout(5):
        await hand.is_connected.wait()
    quick_one.open()

    done = await orchestrator.call("task.wait", task_ids=ids, timeout_seconds=10)
    assert [task.status for task in done] == ["completed"] * 3
    assert [task.failures for task in done] == [0, 0, 0]


# --- work for the idle --------------------------------------------------------------------------


async def test_an_agent_that_comes_online_is_given_at_once_what_others_hold_ahead(
    orchestrator: Orchestrator, crew: Crew, quick_one: Worker
) -> None:
    ids = await submit_in_turn(orchestrator, 3)
    await quick_one.begun()
    await until(lambda: len(orchestrator.engine.state.shelf) == 2)
    other = Worker()
    start = asyncio.get_running_loop().time()

    await crew.join("b", does=other)
    begun = await other.begun()

    assert asyncio.get_running_loop().time() - start < 0.9
    assert begun == ids[1]
    assert await moved(orchestrator, begun) == [
        {
            "why": "idle",
            "from": "a",
            "to": "b",
            "before": {"a": 3.0, "b": 0.0},
            "after": {"a": 2.0, "b": 1.0},
        }
    ]
    quick_one.open()
    other.open()
    done = await orchestrator.call("task.wait", task_ids=ids, timeout_seconds=10)
    assert [(task.status, task.failures, task.attempts_made) for task in done[1:2]] == [("completed", 0, 2)]
    assert quick_one.gate.stopped == []  # it had not begun it
    assert orchestrator.engine.state.counters["attempt_moved"] >= 1


async def test_an_agent_that_ends_its_work_takes_what_another_holds_ahead(
    orchestrator: Orchestrator, crew: Crew, quick_one: Worker
) -> None:
    other = Worker()
    await crew.join("b", does=other, prefetch=0)
    ids = await submit_in_turn(orchestrator, 3)
    await quick_one.begun(), await other.begun()
    await until(lambda: len(orchestrator.engine.state.shelf) == 1)

    other.open()

    async with asyncio.timeout(0.9):
        assert await other.begun() == ids[2]
    assert (await moved(orchestrator, ids[2]))[0]["why"] == "idle"
    quick_one.open()


async def test_what_an_agent_does_not_take_is_given_to_an_idle_one(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    async with silent_agent(orchestrator.url, "raw", slots=3) as raw:
        ids = await submit_in_turn(orchestrator, 2)
        works = {work["data"]["taskId"]: work for work in (await raw.work(), await raw.work())}
        await raw.accept(works[ids[0]])
        other = Worker()
        await crew.join("b", "other", "work", does=other)

        begun = await other.begun()

        assert begun == ids[1]
        assert await raw.cancel() == works[ids[1]]["messageId"]
        assert (await moved(orchestrator, ids[1]))[0] | {"before": 0, "after": 0} == {
            "why": "idle",
            "from": "raw",
            "to": "b",
            "before": 0,
            "after": 0,
        }
        assert await status(orchestrator, ids[0]) == "running"
        other.open()
        done = await orchestrator.call("task.wait", task_ids=[ids[1]], timeout_seconds=10)
        assert (done[0].status, done[0].failures) == ("completed", 0)


async def test_nobody_is_given_what_it_cannot_do(
    orchestrator: Orchestrator, crew: Crew, quick_one: Worker
) -> None:
    await submit_in_turn(orchestrator, 2)
    await quick_one.begun()
    await until(lambda: len(orchestrator.engine.state.shelf) == 1)

    await crew.join("b", "other")
    await asyncio.sleep(0.1)

    assert orchestrator.engine.state.counters.get("attempt_moved", 0) == 0
    assert len(orchestrator.engine.state.shelf) == 1
    quick_one.open()


async def test_what_was_accepted_is_not_moved(
    orchestrator: Orchestrator, quick_one: Worker, sql: Any
) -> None:
    ids = await submit_in_turn(orchestrator, 2)
    await quick_one.begun()
    await until(lambda: len(orchestrator.engine.state.shelf) == 1)
    delivery = next(d for d in orchestrator.engine.state.deliveries.values() if d.task_id == ids[1])

    await sql("update task_attempts set status = 'accepted', accepted_at = now() where task_id = $1", ids[1])
    given = await orchestrator.engine.balancer.give_back([delivery])

    assert given == 0
    assert delivery.message_id in orchestrator.engine.state.deliveries
    assert await moved(orchestrator, ids[1]) == []
    quick_one.open()
    done = await orchestrator.call("task.wait", task_ids=ids, timeout_seconds=10)
    assert [task.status for task in done] == ["completed"] * 2


# --- loads --------------------------------------------------------------------------------------


async def test_loads_are_compared_every_interval(
    start_engine: StartEngine, crew_of: Callable[[Orchestrator], Crew]
) -> None:
    engine = await start_engine(balancing={"interval": 0.3})
    crew, other = crew_of(engine), Worker()
    async with silent_agent(engine.url, "raw", slots=4) as raw:
        ids = await submit_in_turn(engine, 4)
        for _ in ids:
            await raw.work()
        busy = await engine.submit({"required_capabilities": ["own"], "data": "slow"})
        await crew.join("b", "work", "own", does=other, slots=10)  # it is never idle
        assert await other.begun() == busy.task_id

        given = [await other.begun()]

        stories = await moved(engine, given[0])
        assert stories[0]["why"] == "balance"
        assert (stories[0]["from"], stories[0]["to"]) == ("raw", "b")
        assert stories[0]["before"] == {"raw": 1.0, "b": 0.1}
        assert stories[0]["after"] == {"raw": 0.75, "b": 0.2}
        await asyncio.sleep(0.7)
        total = [one for task_id in ids for one in await moved(engine, task_id)]
        assert len(total) == len(
            {one["after"]["raw"] for one in total}
        )  # each moved once: nothing goes to and fro
        other.open()


async def test_nothing_is_moved_where_balancing_is_off(
    start_engine: StartEngine, crew_of: Callable[[Orchestrator], Crew]
) -> None:
    engine = await start_engine(balancing={"interval": 0.2, "enabled": False})
    async with silent_agent(engine.url, "raw", slots=2) as raw:
        ids = await submit_in_turn(engine, 2)
        await raw.work(), await raw.work()
        await crew_of(engine).join("b", does=Worker())

        await asyncio.sleep(1.6)

        assert [await moved(engine, one) for one in ids] == [[], []]
        assert raw.cancelled.empty()


# --- several nodes ------------------------------------------------------------------------------


@pytest.mark.parametrize("giver", [0, 1])
async def test_work_moves_from_an_agent_of_one_node_to_an_agent_of_another(
    start_engine: StartEngine, crew_of: Callable[[Orchestrator], Crew], giver: int
) -> None:
    nodes = [await start_engine(), await start_engine()]
    leader = nodes[0]
    assert leader.engine.state.is_leader
    busy, other = Worker(), Worker()
    await crew_of(nodes[giver]).join("a", does=busy, prefetch=2)
    await until(lambda: "a" in leader.engine.state.roster.members)
    await is_quick(leader, "a")
    ids = await submit_in_turn(leader, 3)
    await busy.begun()
    await until(lambda: len(leader.engine.state.shelf) == 2)

    await crew_of(nodes[1 - giver]).join("b", does=other)

    assert await other.begun() == ids[1]
    story = (await moved(leader, ids[1]))[0]
    assert (story["from"], story["to"], story["why"]) == ("a", "b", "idle")
    held = nodes[giver].engine.state.deliveries
    await until(lambda: ids[1] not in [delivery.task_id for delivery in held.values()])
    busy.open()
    other.open()
    done = await leader.call("task.wait", task_ids=ids, timeout_seconds=10)
    assert [(task.status, task.failures) for task in done] == [("completed", 0)] * 3
    state = leader.engine.state
    await until(
        lambda: (
            not (state.deliveries or state.elsewhere or any(m.used for m in state.roster.members.values()))
        )
    )
    assert not state.running
    assert not state.shelf


async def test_what_waits_behind_long_work_on_another_node_goes_back_to_all(
    start_engine: StartEngine, crew_of: Callable[[Orchestrator], Crew]
) -> None:
    leader, follower = await start_engine(), await start_engine()
    busy = Worker()
    await crew_of(follower).join("a", does=busy, prefetch=1)
    await until(lambda: "a" in leader.engine.state.roster.members)
    await is_quick(leader, "a")
    ids = await submit_in_turn(leader, 2)
    await busy.begun()

    async with asyncio.timeout(10):
        while not await moved(leader, ids[1]):
            await asyncio.sleep(0.02)

    assert (await moved(leader, ids[1]))[0]["why"] == "waited"
    async with asyncio.timeout(10):  # the table may be looked at before it is heard that the agent is slow
        while await status(leader, ids[1]) != "pending" or leader.engine.state.roster.members["a"].is_quick:
            await asyncio.sleep(0.02)
    busy.open()
    done = await leader.call("task.wait", task_ids=ids, timeout_seconds=10)
    assert [task.status for task in done] == ["completed"] * 2


async def test_what_an_agent_of_another_node_does_not_take_is_given_to_an_idle_one(
    start_engine: StartEngine, crew_of: Callable[[Orchestrator], Crew]
) -> None:
    leader, follower = await start_engine(), await start_engine()
    async with silent_agent(follower.url, "raw", slots=2) as raw:
        await until(lambda: "raw" in leader.engine.state.roster.members)
        ids = await submit_in_turn(leader, 1)
        work = await raw.work()
        other = Worker()
        await crew_of(leader).join("b", does=other)

        assert await other.begun() == ids[0]
        assert await raw.cancel() == work["messageId"]
        other.open()
        done = await leader.call("task.wait", task_ids=ids, timeout_seconds=10)
        assert (done[0].status, done[0].failures) == ("completed", 0)
