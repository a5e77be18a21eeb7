"""Rows that are on their way while the world moves on: what is newer stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.core.model import AgentStatus, AttemptStatus
from agentorch_cli.engine.leader import MONITOR
from agentorch_cli.engine.relay import Relay
from agentorch_cli.engine.state import Report
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.wiring import Orchestrator

TASK = {"required_capabilities": ["work"]}


class Slow:
    """Holds back the answers to one statement, each until it is let go."""

    def __init__(self, node: Orchestrator, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = name
        self.read: asyncio.Queue[asyncio.Event] = asyncio.Queue()
        self._fetch = node.engine.store.db.fetch
        self.is_on = True
        monkeypatch.setattr(node.engine.store.db, "fetch", self._slowly)

    async def _slowly(self, name: str, *args: Any, **more: Any) -> Any:
        rows = await self._fetch(name, *args, **more)
        if name == self.name and self.is_on:
            go_on = asyncio.Event()
            self.read.put_nowait(go_on)
            await go_on.wait()
        return rows

    async def has_read(self) -> asyncio.Event:
        """The next answer is there, and waits for this."""
        async with asyncio.timeout(10):
            return await self.read.get()

    def let_go(self) -> None:
        """All answers go through from now on."""
        self.is_on = False
        while not self.read.empty():
            self.read.get_nowait().set()


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def turns(number: int = 50) -> None:
    """Whoever can go on does."""
    for _ in range(number):
        await asyncio.sleep(0.001)


@pytest.fixture
async def crew_on() -> Any:
    crews: list[Crew] = []

    def crew_on(node: Orchestrator) -> Crew:
        crews.append(Crew(node))
        return crews[-1]

    yield crew_on
    for crew in crews:
        await crew.vanish()


async def test_an_older_answer_about_the_fleet_does_not_undo_a_newer_one(
    orchestrator: Orchestrator, crew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crew.join("a")
    engine = orchestrator.engine
    await orchestrator.call("agent.pause", agent_ids=["a"])
    await until(lambda: engine.state.roster.members["a"].status is AgentStatus.PAUSED)
    slow = Slow(orchestrator, "roster", monkeypatch)
    resync = asyncio.create_task(engine.read_fleet())
    older = await slow.has_read()
    slow.is_on = False
    hints = engine.state.fleet_hints
    await orchestrator.call("agent.resume", agent_ids=["a"])
    await until(lambda: engine.state.fleet_hints > hints)
    await turns()

    older.set()
    await resync

    assert await (await orchestrator.submit({**TASK, "data": 1})).result(10) == 1


async def test_an_agent_that_comes_while_its_old_node_is_read_keeps_its_session(
    start_engine: Callable[..., Awaitable[Orchestrator]], crew_on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await start_engine(), await start_engine()
    there = await crew_on(second).join("a")
    await until(lambda: "a" in first.engine.state.roster.members)
    slow = Slow(first, "roster_of", monkeypatch)
    following = asyncio.create_task(first.engine.peers.follow_agents(["a"]))
    older = await slow.has_read()
    slow.let_go()
    here = await crew_on(first).join("a")

    older.set()
    await following

    assert first.engine.courier.session_of("a") is not None
    assert not here.running.done()
    assert await (await first.submit({**TASK, "data": 1})).result(10) == 1
    await asyncio.wait([there.running], timeout=10)
    assert there.running.done()


async def test_an_agent_that_is_read_while_it_comes_in_keeps_its_session(
    start_engine: Callable[..., Awaitable[Orchestrator]], crew_on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session is there, its seat is not yet, and the row still names the node that it left."""
    first, second = await start_engine(), await start_engine()
    await crew_on(second).join("a")
    await until(lambda: "a" in first.engine.state.roster.members)
    slow = Slow(first, "roster_of", monkeypatch)
    following = asyncio.create_task(first.engine.peers.follow_agents(["a"]))
    older = await slow.has_read()
    slow.let_go()
    held_work, has_come, go_on = first.store.held_work, asyncio.Event(), asyncio.Event()

    async def slowly(*args: Any, **more: Any) -> Any:
        held = await held_work(*args, **more)
        if args == (["a"],):
            has_come.set()
            await go_on.wait()
        return held

    monkeypatch.setattr(first.engine.store, "held_work", slowly)
    joining = asyncio.create_task(crew_on(first).join("a"))
    await has_come.wait()
    older.set()
    await turns()
    go_on.set()
    here = await joining
    await following
    await turns()

    assert first.engine.courier.session_of("a") is not None
    assert not here.is_lost.is_set()
    assert not here.running.done()
    assert await (await first.submit({**TASK, "data": 1})).result(10) == 1


async def test_slots_that_come_free_while_two_read_the_other_nodes_are_free(
    start_engine: Callable[..., Awaitable[Orchestrator]], crew_on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await start_engine(), await start_engine()
    gate = Gate("done")
    await crew_on(second).join("a", does=gate)
    state = first.engine.state
    handle = await first.submit(TASK)
    await gate.work()
    await until(lambda: state.elsewhere)
    slow = Slow(first, "live_elsewhere", monkeypatch)
    one = asyncio.create_task(first.engine.peers.read_elsewhere())
    other = asyncio.create_task(first.engine.peers.read_elsewhere(["a"]))
    go_on = [await slow.has_read()]
    await turns()
    go_on += [slow.read.get_nowait() for _ in range(slow.read.qsize())]
    if len(go_on) > 1:
        go_on.pop(0).set()
        await one
    gate.is_open.set()
    await handle.result(10)
    await until(lambda: not state.elsewhere)

    slow.let_go()
    for event in go_on:
        event.set()
    await asyncio.gather(one, other)

    assert not state.elsewhere
    assert not state.roster.members["a"].used


async def test_what_ends_while_the_mirror_is_compared_is_not_sent_again(
    orchestrator: Orchestrator, crew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate("done")
    await crew.join("a", does=gate)
    handle = await orchestrator.submit(TASK)
    await gate.work()
    slow = Slow(orchestrator, "held_work", monkeypatch)
    comparing = asyncio.create_task(orchestrator.engine.resync())
    older = await slow.has_read()
    slow.is_on = False
    gate.is_open.set()
    await handle.result(10)
    await until(lambda: not orchestrator.engine.state.deliveries)

    older.set()
    await comparing

    assert not orchestrator.engine.state.deliveries
    assert gate.begun.empty()


async def test_nodes_that_speak_all_the_time_do_not_keep_lost_hints_from_being_found(
    start_engine: Callable[..., Awaitable[Orchestrator]], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_engine(engine={"poll_interval": 0.05})
    swept = asyncio.Event()

    async def sweep() -> None:
        swept.set()

    async def speak() -> None:
        while True:
            node.engine._peers_spoke.set()
            await asyncio.sleep(0)

    monkeypatch.setattr(node.engine.peers, "sweep", sweep)
    speaking = asyncio.create_task(speak())
    try:
        async with asyncio.timeout(10):
            await swept.wait()
    finally:
        speaking.cancel()


class Failing:
    """Fails once as if the database were away; then it goes on as it was."""

    def __init__(self, step: Callable[..., Awaitable[Any]]) -> None:
        self.step = step
        self.calls = 0

    async def __call__(self, *args: Any, **more: Any) -> Any:
        self.calls += 1
        if self.calls == 1:
            raise DatabaseUnreachable("away")
        return await self.step(*args, **more)


async def test_what_a_new_leader_does_first_is_done_however_often_it_fails(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = orchestrator.engine.leader
    epochs = dict(leader.epochs)
    await leader._follow({})
    chosen = Failing(leader.on_chosen)
    elected = Failing(leader.on_elected)
    monkeypatch.setattr(leader, "on_elected", elected)
    monkeypatch.setattr(leader, "on_chosen", chosen)
    for _ in range(2):
        with pytest.raises(DatabaseUnreachable):
            await leader._follow(epochs)

    await leader._follow(epochs)
    await leader._follow(epochs)

    assert MONITOR in epochs
    assert (elected.calls, chosen.calls) == (2, 2)


async def test_what_other_nodes_could_not_be_told_is_told_later() -> None:
    told: list[list[tuple[str, str]]] = []

    async def fetch(name: str, channels: list[str], payloads: list[str]) -> None:
        told.append(list(zip(channels, payloads, strict=True)))

    relay = Relay(SimpleNamespace(db=SimpleNamespace(fetch=Failing(fetch))))  # type: ignore[arg-type]
    relay.has_peers = True
    relay.freed("m1")
    with pytest.raises(DatabaseUnreachable):
        await relay.tell()
    relay.freed("m2")
    await relay.tell()
    await relay.tell()

    assert told == [[("agentorch_freed", "m1 -"), ("agentorch_freed", "m2 -")]]


async def test_an_agent_that_fell_silent_while_the_database_was_away_is_told_of_later(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = orchestrator.engine.monitor
    monkeypatch.setattr(monitor, "look_soon", lambda seconds=None: None)
    note_ended = Failing(monitor.deadlocks.note_ended)
    monkeypatch.setattr(monitor.deadlocks, "note_ended", note_ended)
    monitor.went_silent("a", ["t"], 3.0)
    with pytest.raises(DatabaseUnreachable):
        await monitor.step()

    await monitor.step()

    found = await orchestrator.call("deadlock.list")
    assert [one.kind for one in found] == ["timeout"]


async def test_a_row_from_before_an_exclusion_was_stored_does_not_end_it(
    orchestrator: Orchestrator, crew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crew.join("a")
    exclusions = orchestrator.engine.exclusions
    slow = Slow(orchestrator, "roster", monkeypatch)
    reading = asyncio.create_task(orchestrator.engine.read_fleet())
    older = await slow.has_read()
    slow.is_on = False
    error = {"message": "broken"}
    for number in range(20):
        report = Report(f"m{number}", "a", AttemptStatus.FAILED, error=error)
        exclusions.ended(report, f"t{number}", is_probe=False)
    member = orchestrator.engine.state.roster.members["a"]
    assert member.excluded is not None
    await exclusions.write()

    older.set()
    await reading

    assert member.excluded is not None


async def test_failures_that_are_counted_while_others_are_stored_are_not_forgotten(
    orchestrator: Orchestrator, crew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crew.join("a")
    exclusions = orchestrator.engine.exclusions

    def fail(number: int) -> None:
        report = Report(f"m{number}", "a", AttemptStatus.FAILED, error={"message": "broken"})
        exclusions.ended(report, f"t{number}", is_probe=False)

    fail(1)
    slow = Slow(orchestrator, "count_failures", monkeypatch)
    roster = Slow(orchestrator, "roster", monkeypatch)
    reading = asyncio.create_task(orchestrator.engine.read_fleet())
    older = await roster.has_read()
    roster.is_on = False
    writing = asyncio.create_task(exclusions.write(everything=True))
    stored = await slow.has_read()
    slow.is_on = False
    older.set()
    await reading
    fail(2)
    stored.set()
    await writing
    await exclusions.write(everything=True)

    assert (await orchestrator.call("agent.get", agent_id="a")).consecutive_failures == 2
