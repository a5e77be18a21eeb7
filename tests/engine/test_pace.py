"""When agents will have a free slot, by what their tasks say of themselves; the clock is set by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from crew import WORK, Crew, Gate, quick_worker

from agentorch_cli.core.matching import UNKNOWN, Member, Roster, Want
from agentorch_cli.core.model import AgentStatus
from agentorch_cli.engine import pace as pace_room
from agentorch_cli.engine.pace import QUICK_SECONDS, SOON, Pace
from agentorch_cli.wiring import Orchestrator


class Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.is_over = at, call, False

    def cancel(self) -> None:
        self.is_over = True


class Clock:
    """What `Pace` asks of an event loop."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, call: Callable[..., None], *args: Any) -> Timer:
        self.timers.append(Timer(at, lambda: call(*args)))
        return self.timers[-1]

    def until(self, now: float) -> None:
        """Let so much time pass."""
        while due := [one for one in self.timers if not one.is_over and one.at <= now]:
            first = min(due, key=lambda one: one.at)
            self.now, first.is_over = max(self.now, first.at), True
            first.call()
        self.now = now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace_room.asyncio, "get_running_loop", lambda: clock)
    return clock


def busy(*agents: str, slots: int = 1, prefetch: int = 1) -> tuple[Pace, list[float]]:
    """Agents all of whose slots are taken, and the moments at which one of them could be handed more."""
    roster = Roster()
    for agent_id in agents:
        member = Member(agent_id, "worker", frozenset({"work"}), slots, AgentStatus.ONLINE, prefetch=prefetch)
        member.used = set(range(slots))
        roster.put(member)
    pace, told = Pace(roster), []
    pace.on_soon = lambda: told.append(asyncio.get_running_loop().time())
    return pace, told


def test_an_agent_has_room_shortly_before_its_task_is_expected_to_end_and_shortly_after(clock: Clock) -> None:
    pace, told = busy("a")
    member = pace.roster.members["a"]

    pace.began("a", "m", 10.0)
    seen = {}
    for after in (0.0, 10 - 2 * SOON, 10 - SOON / 2, 10.0, 10 + SOON / 2, 10 + 2 * SOON, 100.0):
        clock.until(1000 + after)
        seen[after] = member.has_room

    assert list(seen.values()) == [False, False, True, True, True, False, False]
    assert told == [pytest.approx(1010 - SOON)]
    assert (member.is_quick, member.free_at) == (False, UNKNOWN)


def test_what_ends_at_once_is_not_waited_for(clock: Clock) -> None:
    pace, told = busy("a")
    pace.began("a", "m", SOON / 2)
    assert pace.roster.members["a"].has_room
    assert told == [1000.0]


def test_an_agent_that_failed_is_handed_nothing_until_something_went_well(clock: Clock) -> None:
    pace, told = busy("a")
    member = pace.roster.members["a"]
    for went_well in (False, True):
        pace.last(member, 0.001, went_well=went_well)
        pace.ended("a", "before")
        pace.began("a", "m", 1.0)
        clock.until(clock.now + 1.0)
        assert (member.is_quick, len(told)) == (went_well, went_well)
        pace.ended("a", "m")
    pace.was_slow("a")
    assert not member.is_quick
    pace.began("a", "m", 0.0)
    assert not member.is_quick


def test_where_a_slot_holds_a_task_without_an_estimate_the_last_attempt_tells(clock: Clock) -> None:
    pace, _ = busy("a", slots=2)
    member = pace.roster.members["a"]
    pace.last(member, QUICK_SECONDS, went_well=True)
    pace.began("a", "known", 3600.0)
    assert member.is_quick
    pace.last(member, QUICK_SECONDS * 1.1, went_well=True)
    assert not member.is_quick

    pace.began("a", "known too", 60.0)
    assert not member.is_quick
    clock.until(1060.0)
    assert (member.is_quick, member.free_at) == (True, 1060.0)
    pace.ended("a", "known")  # and something without an estimate takes its slot
    pace.last(member, 0.0, went_well=True)
    assert (member.is_quick, member.free_at) == (True, UNKNOWN)


def test_what_began_before_the_last_that_the_slots_can_hold_is_over_though_its_result_is_not_here(
    clock: Clock,
) -> None:
    """An agent says that it begins what it was handed ahead before the result of the last is stored."""
    pace, told = busy("a")
    member = pace.roster.members["a"]
    pace.began("a", "short", 0.0)
    member.used.add(1)
    pace.began("a", "long", 3600.0)
    assert not member.is_quick

    pace.last(member, 0.001, went_well=True)
    pace.ended("a", "short")
    assert not member.is_quick
    pace.last(member, 0.001, went_well=True)
    pace.ended("a", "what said nothing of itself")
    assert not member.is_quick
    assert told == [1000.0]


def test_what_is_called_off_leaves_no_trace(clock: Clock) -> None:
    """What takes its slot may say nothing of itself: the last that ended tells again."""
    pace, _ = busy("a")
    member = pace.roster.members["a"]
    for last, other in ((QUICK_SECONDS * 2, SOON / 2), (QUICK_SECONDS, 3600.0)):
        pace.last(member, last, went_well=True)
        was_quick = member.is_quick
        pace.began("a", "m", other)
        assert member.is_quick != was_quick
        pace.ended("a", "m")
        clock.until(clock.now + 1)
        assert (member.is_quick, member.free_at) == (was_quick, UNKNOWN)


def test_an_agent_that_comes_back_is_known_and_one_that_was_removed_is_not(clock: Clock) -> None:
    pace, _ = busy("a")
    pace.was_slow("a")
    for expected in (False, True):
        again = Member("a", "worker", frozenset({"work"}), 1, AgentStatus.ONLINE, used={0}, prefetch=1)
        pace.roster.put(again)
        pace.began("a", "m", 0.0)
        assert again.has_room == expected
        pace.ended("a", "m")
        pace.roster.drop("a")


def test_who_is_chosen_for_something_long_is_not_free_soon_before_it_has_begun(clock: Clock) -> None:
    """Its assignment is being stored, and more is matched meanwhile."""
    pace, _ = busy("a")
    member = pace.roster.members["a"]
    for seconds, expected in ((SOON / 2, True), (3600.0, False)):
        pace.last(member, 0.001, went_well=True)
        pace.chosen(member, seconds)
        assert member.is_quick == expected


def test_an_agent_that_takes_nothing_ahead_costs_nothing(clock: Clock) -> None:
    pace, _ = busy("a", prefetch=0)
    pace.began("a", "m", 1.0)
    pace.began("nobody", "m", 1.0)
    pace.ended("nobody", "m")
    assert (pace.ends, clock.timers) == ({}, [])


def test_of_several_whoever_is_free_first_is_asked_and_of_those_who_hold_less_ahead(clock: Clock) -> None:
    pace, _ = busy("early", "late", "unknown", prefetch=2)
    pace.last(pace.roster.members["unknown"], 0.0, went_well=True)
    pace.roster.touch(pace.roster.members["unknown"])
    pace.began("late", "1", SOON * 0.9)
    pace.began("early", "2", SOON * 0.5)
    want = Want(frozenset({"work"}), may_wait=True)

    given = []
    while seats := pace.roster.choose(want):
        given.append(seats[0].member.agent_id)
        pace.roster.take(seats[0].member, seats[0].slot)

    assert given == ["early", "late", "unknown"] * 2


async def test_nothing_is_handed_over_behind_a_long_task_in_the_batch_that_assigns_it(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    worker = await quick_worker(orchestrator, crew, prefetch=1)

    both = await orchestrator.submit_all([WORK | {"estimate": "1h"}] * 2)
    await worker.begun()
    await asyncio.sleep(0.1)

    tasks = [await orchestrator.call("task.get", task_id=one.task_id) for one in both]
    assert [task.status for task in tasks] == ["running", "pending"]
    worker.open()


async def test_nothing_waits_behind_a_task_that_says_that_it_takes_long(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    """Not even at an agent that has been quick until now; what ends soon it may wait for."""
    worker = await quick_worker(orchestrator, crew, prefetch=1)
    member = orchestrator.engine.state.roster.members["a"]
    long = await orchestrator.submit(WORK | {"estimate": "1h"})
    await worker.begun()
    behind = await orchestrator.submit(WORK | {"data": "quick"})
    await asyncio.sleep(0.1)
    assert (await orchestrator.call("task.get", task_id=behind.task_id)).status == "pending"
    assert not member.is_quick

    (long_id,) = orchestrator.engine.state.deliveries
    async with asyncio.timeout(5):
        while (await orchestrator.call("task.get", task_id=behind.task_id)).status == "pending":
            orchestrator.engine.state.pace.began("a", long_id, 0.0)
            await asyncio.sleep(0.005)
    worker.open()
    assert (await long.wait(10)).attempts_made == 1
    await behind.result(10)


async def test_what_a_task_says_of_itself_is_known_of_who_returns(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    """And counts from when it began."""
    gate = Gate()
    await crew.join("a", does=gate, prefetch=1)
    await orchestrator.submit(WORK | {"estimate": "1h"})
    work = await gate.work()
    await _accepted(orchestrator)
    ends = orchestrator.engine.state.pace.ends
    before = ends["a"][work.message_id]
    await orchestrator.store.db.pool.execute(
        "update task_attempts set accepted_at = now() - interval '10 min'"
    )

    await crew.join("a", does=gate, prefetch=1)
    await gate.work()

    assert ends["a"][work.message_id] == pytest.approx(before - 600, abs=10)


async def test_what_a_task_says_of_itself_is_known_of_who_is_on_another_node(
    start_engine: Callable[..., Any], crew_of: Callable[[Orchestrator], Crew]
) -> None:
    """However often the leader looks at what runs there."""
    gate, leader, other = Gate(), await start_engine(), await start_engine()
    await crew_of(other).join("a", does=gate, prefetch=1)
    await leader.submit(WORK | {"estimate": "1h"})
    work = await gate.work()
    await _accepted(other)
    state = leader.engine.state
    async with asyncio.timeout(5):
        while work.message_id not in state.elsewhere:
            await asyncio.sleep(0.01)
    before = state.pace.ends["a"][work.message_id]
    await asyncio.sleep(0.05)

    await leader.engine.peers.read_elsewhere()
    assert state.pace.ends["a"][work.message_id] == pytest.approx(before, abs=0.001)

    state.free_elsewhere(work.message_id)
    assert not state.pace.ends
    await leader.engine.peers.read_elsewhere()
    assert state.pace.ends["a"][work.message_id] == pytest.approx(before, abs=5)


async def _accepted(orchestrator: Orchestrator) -> None:
    """Returns once the tables say that all work was accepted."""
    async with asyncio.timeout(5):
        while await orchestrator.store.db.pool.fetchval(
            "select count(*) from task_attempts where status = 'sent'"
        ):
            await asyncio.sleep(0.01)
