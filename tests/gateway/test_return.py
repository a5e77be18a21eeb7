"""Connections that end: what the agent held, what it gets back, and what others get instead."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import Any

import pytest
from fleet import Fleet

WORK = {"required_capabilities": ["work"], "retries": 3}


async def test_a_result_whose_ack_was_lost_is_sent_again_and_acknowledged(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    agent = await fleet.join()
    task_id = await submit(**WORK)
    work = await agent.expect("execute_task")
    await agent.finish(work, "done")
    await outcome(task_id)
    await agent.vanish()

    again = await fleet.connect()
    welcome = await again.register("work", resume=[work["messageId"]])
    assert (welcome["resumed"], welcome["dropped"]) == ([], [work["messageId"]])
    await again.finish(work, "done")
    await again.expect("ack", messageId=work["messageId"])

    task = await outcome(task_id)
    assert (task.result, len(task.attempts)) == ("done", 1)


async def test_while_it_may_come_back_task_why_says_how_long_it_has(start_engine: Any, fleet_of: Any) -> None:
    orchestrator = await start_engine(gateway={"heartbeat_interval": 20.0})
    agent = await fleet_of(orchestrator).join("one")
    handle = await orchestrator.submit(WORK)
    await agent.expect("execute_task")

    await agent.vanish()

    async with asyncio.timeout(10):
        while (link := (await orchestrator.call("task.why", task_id=handle.task_id)).links[0]).code != "away":
            await asyncio.sleep(0.02)
    assert re.fullmatch(
        r"was given to agent one, which lost its connection: taken back from it in (60|5\d)s"
        " unless it returns",
        link.sentence,
    )


async def test_task_why_tells_what_comes_before_the_end_of_a_grace(start_engine: Any, fleet_of: Any) -> None:
    orchestrator = await start_engine(gateway={"heartbeat_interval": 60.0})
    agent = await fleet_of(orchestrator).join("one")
    handle = await orchestrator.submit({**WORK, "timeout": 40})
    later = await orchestrator.submit({**WORK, "depends_on": [handle.task_id]})
    work = await agent.expect("execute_task")

    async def links(task_id: str) -> list[tuple[str, str]]:
        found = await orchestrator.call("task.why", task_id=task_id)
        return [(link.code, link.sentence) for link in found.links]

    async with asyncio.timeout(10):
        assert (await links(later.task_id))[0][1].startswith(f"waits for task {handle.task_id} (sent to one ")
        await agent.accept(work)
        while (await links(handle.task_id))[0][0] != "running":
            await asyncio.sleep(0.02)
        await agent.vanish()
        while (found := await links(later.task_id))[1][0] != "away":
            await asyncio.sleep(0.02)
    assert found[0][1].endswith("(given to one, which lost its connection)")
    assert re.search(r"taken back from it in (40|3\d)s unless it returns$", found[1][1])

    async with asyncio.timeout(10):
        while (found := await links(handle.task_id))[-1][0] != "no_serve":  # nodes say again that they live
            await orchestrator.store.db.pool.execute(
                "update nodes set expires_at = now() - interval '1 minute'"
            )
    assert found == [
        ("away", "was given to agent one, which lost its connection"),
        ("no_serve", "no serve is running; start one with: agentorch serve"),
    ]


async def test_a_result_that_was_never_received_is_taken_after_the_return(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    agent = await fleet.join()
    task_id = await submit(**WORK)
    work = await agent.expect("execute_task")
    await agent.accept(work)
    await agent.vanish()

    again = await fleet.connect()
    welcome = await again.register("work", resume=[work["messageId"]])
    assert (welcome["resumed"], welcome["dropped"]) == ([work["messageId"]], [])
    await again.quiet(0.2)
    await again.finish(work, "done on the way")
    await again.expect("ack", messageId=work["messageId"])

    task = await outcome(task_id)
    assert (task.result, len(task.attempts)) == ("done on the way", 1)


async def test_resume_sorts_what_is_live_from_what_is_not(
    fleet: Fleet, submit: Any, orchestrator: Any
) -> None:
    agent = await fleet.join("anna", slots=2)
    await submit(**WORK)
    await submit(**WORK)
    live, forgotten = [await agent.expect("execute_task") for _ in range(2)]
    await agent.vanish()

    unknown = str(uuid.uuid4())
    again = await fleet.connect("anna")
    welcome = await again.register(
        "work", slots=2, resume=[unknown, live["messageId"], "no uuid at all", live["messageId"]]
    )

    assert welcome["resumed"] == [live["messageId"]]
    assert welcome["dropped"] == [unknown, "no uuid at all"]
    repeated = await again.expect("execute_task", messageId=forgotten["messageId"])
    assert repeated["data"] == forgotten["data"]
    await again.quiet(0.2)
    for work, told in ((live, "attempt_resumed"), (forgotten, "attempt_resent")):
        task = await orchestrator.call("task.get", task_id=work["data"]["taskId"])
        assert task.events[-1].kind == told


async def test_a_lost_agent_gives_its_task_back_after_its_grace(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    lost = await fleet.join("lost")
    task_id = await submit(**WORK)
    first = await lost.expect("execute_task")
    await lost.accept(first)
    other = await fleet.join("other")
    loop = asyncio.get_running_loop()

    await lost.vanish()
    gone = loop.time()
    second = await other.expect("execute_task")

    assert loop.time() - gone > 1.1, "the grace is three heartbeats of 0.4 s"
    assert second["data"]["taskId"] == task_id
    assert second["messageId"] != first["messageId"]
    await other.finish(second, "done")
    task = await outcome(task_id)
    assert [(a.agent_id, a.status) for a in task.attempts] == [("lost", "lost"), ("other", "completed")]


async def test_a_late_result_is_taken_while_the_task_has_no_outcome_and_ignored_after(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    late = await fleet.join("late")
    task_id = await submit(**WORK)
    first = await late.expect("execute_task")
    await late.accept(first)
    other = await fleet.join("other")
    await late.vanish()
    second = await other.expect("execute_task")

    late = await fleet.connect("late")
    welcome = await late.register("work", resume=[first["messageId"]])
    assert welcome["dropped"] == [first["messageId"]]
    await late.finish(first, "late")
    await late.expect("ack", messageId=first["messageId"])
    cancel = await other.expect("cancel_task")
    assert cancel["data"]["messageId"] == second["messageId"]
    await other.finish(second, "too late")
    await other.expect("ack", messageId=second["messageId"])

    task = await outcome(task_id)
    assert (task.status, task.result) == ("completed", "late")
    assert [event.kind for event in task.events].count("task_completed") == 1


async def test_an_agent_that_unregisters_gives_its_work_to_others_at_once(
    fleet: Fleet, submit: Any, outcome: Any, orchestrator: Any
) -> None:
    leaving = await fleet.join("leaving")
    task_id = await submit(**WORK)
    first = await leaving.expect("execute_task")
    other = await fleet.join("other")
    loop = asyncio.get_running_loop()

    started = loop.time()
    await leaving.send({"type": "unregister", "agentId": "leaving"})
    second = await other.expect("execute_task")
    assert loop.time() - started < 0.6, "it does not wait for the grace"
    assert (await leaving.closed())[0] == 1000
    await other.finish(second, "done")

    task = await outcome(task_id)
    assert (task.result, task.attempts[0].status) == ("done", "cancelled")
    assert first["messageId"] != second["messageId"]
    await asyncio.sleep(0.1)
    assert (await orchestrator.call("agent.get", agent_id="leaving")).status == "offline"


async def test_a_new_connection_of_an_agent_replaces_the_old_one(
    fleet: Fleet, submit: Any, orchestrator: Any
) -> None:
    old = await fleet.join("anna")
    await submit(**WORK)
    work = await old.expect("execute_task")

    new = await fleet.connect("anna")
    welcome = await new.register("work", resume=[work["messageId"]])

    assert welcome["resumed"] == [work["messageId"]]
    code, reason = await old.closed()
    assert (code, reason) == (1008, "this agent connected anew")
    await new.finish(work)
    await new.expect("ack")
    await asyncio.sleep(0.1)
    assert (await orchestrator.call("agent.get", agent_id="anna")).status == "online"


async def test_many_connections_of_one_agent_at_once_leave_one(start_engine: Any, fleet_of: Any) -> None:
    """They race for the registry row: the one that stays must own it, or the agent never goes offline."""

    engine = await start_engine(gateway={"heartbeat_interval": 10.0})
    fleet = fleet_of(engine)

    async def come() -> Any:
        agent = await fleet.connect("anna")
        await agent.send({"type": "register", "agentId": "anna", "capabilities": ["work"]})
        return agent

    agents = await asyncio.gather(*(come() for _ in range(20)))
    ends = await asyncio.gather(*(agent.closed(1.0) for agent in agents), return_exceptions=True)
    [last] = [agent for agent, end in zip(agents, ends, strict=True) if isinstance(end, TimeoutError)]
    handle = await engine.submit(WORK)
    await last.finish(await last.expect("execute_task"), "done")
    assert await handle.result(5) == "done"

    await last.vanish()
    async with asyncio.timeout(3):
        while (await engine.call("agent.get", agent_id="anna")).status != "offline":
            await asyncio.sleep(0.05)


async def test_a_return_while_work_is_being_sent_gets_the_welcome_first_and_the_work_once(
    fleet: Fleet, orchestrator: Any
) -> None:
    """The old connection is a dead one that only its time limit ends, and tasks keep coming."""
    old = await fleet.join("anna", slots=50)
    old.connection.transport.pause_reading()

    async def submit_some() -> None:
        for _ in range(10):
            await orchestrator.submit_all([dict(WORK)] * 3)

    submitting = asyncio.create_task(submit_some())
    await asyncio.sleep(0.02)
    new = await fleet.connect("anna")
    await new.register("work", slots=50)
    await submitting

    works = [await new.expect("execute_task") for _ in range(30)]
    assert len({work["messageId"] for work in works}) == 30
    for work in works:
        await new.finish(work)
    for _ in works:
        await new.expect("ack")


async def test_work_that_is_given_while_a_return_reads_what_is_held_stays_known_and_is_sent_once(
    fleet: Fleet, orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is older than that work by then: its slot is taken all the same."""
    old = await fleet.join("anna", slots=3)
    store = orchestrator.store
    reads, is_read, may_go_on = store.held_work, asyncio.Event(), asyncio.Event()

    async def slow(*asked: Any, **named: Any) -> Any:
        rows = await reads(*asked, **named)
        is_read.set()
        await may_go_on.wait()
        return rows

    monkeypatch.setattr(store, "held_work", slow)
    new = await fleet.connect("anna")
    registering = asyncio.create_task(new.register("work", slots=3))
    await is_read.wait()
    handles = [await orchestrator.submit(dict(WORK, retries=0))]
    async with asyncio.timeout(5):
        while not held_by(orchestrator, "anna"):
            await asyncio.sleep(0.005)
    may_go_on.set()
    await registering
    assert len(held_by(orchestrator, "anna")) == 1
    assert len(orchestrator.engine.state.roster.members["anna"].used) == 1

    handles += await orchestrator.submit_all([dict(WORK, retries=0)] * 2)
    works = [await new.expect("execute_task") for _ in range(3)]
    await new.quiet(0.3)
    assert len({work["messageId"] for work in works}) == 3
    for work in works:
        await new.finish(work)
    for handle in handles:
        assert (await handle.wait(5.0)).attempts_made == 1
    await old.closed()


class Answering:
    """Assignments are stored at once; whoever stored them hears of it when they may."""

    def __init__(self, store: Any) -> None:
        self.is_stored, self.may_go_on = asyncio.Event(), asyncio.Event()
        self._assign = store.assign

    async def __call__(self, batch: Any) -> Any:
        claimed = await self._assign(batch)
        self.is_stored.set()
        await self.may_go_on.wait()
        return claimed


@pytest.fixture
def answering(orchestrator: Any, monkeypatch: pytest.MonkeyPatch) -> Answering:
    answering = Answering(orchestrator.store)
    monkeypatch.setattr(orchestrator.store, "assign", answering)
    return answering


async def test_work_whose_assignment_is_answered_after_the_return_that_brought_it_is_sent_once(
    fleet: Fleet, orchestrator: Any, answering: Answering
) -> None:
    """It is in the tables before whoever stored it knows that."""
    await fleet.join("anna", slots=3)
    handle = await orchestrator.submit(dict(WORK, retries=0))
    await answering.is_stored.wait()
    new = await fleet.connect("anna")
    await new.register("work", slots=3)
    work = await new.expect("execute_task")
    answering.may_go_on.set()
    await new.quiet(0.3)
    await new.finish(work)
    assert (await handle.wait(5.0)).attempts_made == 1
    async with asyncio.timeout(5):
        while orchestrator.engine.state.roster.members["anna"].used:
            await asyncio.sleep(0.005)


async def test_work_that_is_done_before_its_assignment_is_answered_is_not_sent_again(
    fleet: Fleet, orchestrator: Any, answering: Answering
) -> None:
    """A return brought it, and the agent was quick."""
    await fleet.join("anna", slots=3)
    handle = await orchestrator.submit(dict(WORK, retries=0))
    await answering.is_stored.wait()
    new = await fleet.connect("anna")
    await new.register("work", slots=3)
    await new.finish(await new.expect("execute_task"))
    await new.expect("ack")
    assert (await handle.wait(5.0)).attempts_made == 1
    answering.may_go_on.set()

    await new.quiet(0.3)
    assert not held_by(orchestrator, "anna")
    assert orchestrator.engine.state.roster.members["anna"].used == set()


async def test_what_ended_while_a_return_reads_what_is_held_is_not_sent_again(
    fleet: Fleet, orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read says that it is live still."""
    old = await fleet.join("anna", slots=3)
    handle = await orchestrator.submit(dict(WORK, retries=0))
    work = await old.expect("execute_task")
    store = orchestrator.store
    reads = store.held_work

    async def slow(*asked: Any, **named: Any) -> Any:
        rows = await reads(*asked, **named)
        await handle.cancel()
        async with asyncio.timeout(5):
            while held_by(orchestrator, "anna"):
                await asyncio.sleep(0.005)
        return rows

    monkeypatch.setattr(store, "held_work", slow)
    new = await fleet.connect("anna")
    welcome = await new.register("work", slots=3, resume=[work["messageId"]])

    assert (welcome["resumed"], welcome["dropped"]) == ([], [work["messageId"]])
    await new.expect("cancel_task")
    await new.quiet(0.3)
    assert orchestrator.engine.state.roster.members["anna"].used == set()


async def test_what_is_given_and_ends_while_a_return_reads_what_is_held_is_not_sent_again(
    fleet: Fleet, orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.join("anna", slots=3)
    store = orchestrator.store
    reads = store.held_work

    async def slow(*asked: Any, **named: Any) -> Any:
        handle = await orchestrator.submit(dict(WORK, retries=0))
        async with asyncio.timeout(5):
            while not held_by(orchestrator, "anna"):
                await asyncio.sleep(0.005)
        rows = await reads(*asked, **named)
        await handle.cancel()
        async with asyncio.timeout(5):
            while held_by(orchestrator, "anna"):
                await asyncio.sleep(0.005)
        return rows

    monkeypatch.setattr(store, "held_work", slow)
    new = await fleet.connect("anna")
    await new.register("work", slots=3)
    await new.expect("execute_task")
    await new.expect("cancel_task")
    await new.quiet(0.3)
    assert not held_by(orchestrator, "anna")
    assert orchestrator.engine.state.roster.members["anna"].used == set()


async def test_a_slot_that_is_given_back_while_a_return_reads_what_is_held_stays_free(
    fleet: Fleet, orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await fleet.join("anna")
    await orchestrator.submit(dict(WORK, retries=0))
    work = await old.expect("execute_task")
    store, state = orchestrator.store, orchestrator.engine.state
    reads = store.held_work

    async def slow(*asked: Any, **named: Any) -> Any:
        rows = await reads(*asked, **named)
        await store.db.pool.execute("update task_attempts set is_parked = true")
        state.park(work["messageId"])
        return rows

    monkeypatch.setattr(store, "held_work", slow)
    new = await fleet.connect("anna")
    await new.register("work", resume=[work["messageId"]])

    assert state.roster.members["anna"].used == set()
    assert state.deliveries[work["messageId"]].is_parked


def held_by(orchestrator: Any, agent_id: str) -> list[str]:
    """The message ids that the engine thinks this agent has."""
    deliveries = orchestrator.engine.state.deliveries.values()
    return [delivery.message_id for delivery in deliveries if delivery.agent_id == agent_id]


async def test_slots_are_counted_right_across_returns_under_load(fleet: Fleet, orchestrator: Any) -> None:
    """An agent that returns while assignments to it are being committed is never given a slot twice."""
    handles = await orchestrator.submit_all([dict(WORK, retries=0)] * 60)

    async def work_for(seconds: float) -> None:
        agent = await fleet.join("anna", slots=5)
        held = 0
        try:
            async with asyncio.timeout(seconds):
                while True:
                    frame = await agent.receive(10)
                    if frame["type"] == "agent_message":
                        held += 1
                        assert held <= 5
                        await agent.finish(frame)
                    elif frame["type"] == "ack":
                        held -= 1
        except TimeoutError:
            return

    for _ in range(8):
        await work_for(0.04)
    finishing = asyncio.create_task(work_for(8.0))
    for handle in handles:
        task = await handle.wait(8.0)
        assert (task.status, task.attempts_made) == ("completed", 1)
    finishing.cancel()
    await asyncio.gather(finishing, return_exceptions=True)


async def test_silence_is_answered_with_pings_and_then_with_the_end(fleet: Fleet) -> None:
    """The library answers pings while it reads; one that stops reading is silent."""
    alive, frozen = await fleet.join("alive"), await fleet.join("frozen")
    frozen.connection.transport.pause_reading()

    await alive.quiet(2.0)

    frozen.connection.transport.resume_reading()
    code, reason = await frozen.closed()
    assert (code, reason) == (1011, "silent for too long")
    await alive.alive()
