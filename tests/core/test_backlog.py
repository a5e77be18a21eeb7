"""Which ready task is served next: the backlog against a twin that sorts everything and walks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from effort import lines_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_matching import AGENTS, CAPABILITIES, agent, roster_of, twin_are_enough, twin_chooses, want

from agentorch_cli.core import backlog as backlog_room
from agentorch_cli.core.backlog import MOST_OVERTAKES, Backlog, Ready
from agentorch_cli.core.gates import Gates
from agentorch_cli.core.matching import Member, Roster, Seat, Want, lasting_obstacle
from agentorch_cli.core.model import AgentStatus
from agentorch_cli.core.team import Candidate, form

FOR_EVER = 10**9


def task(seq: int, wanted: Want | None = None, *, priority: int = 5, path: float = 1.0) -> Ready:
    wanted = wanted or want()
    return Ready(
        task_id=f"task-{seq}",
        seq=seq,
        urgency=-priority,
        remaining_path=path,
        type="task",
        priority=priority,
        want=wanted,
        min_agents=wanted.number,
        max_agents=wanted.most,
        attempts_made=0,
        timeout_seconds=60.0,
        retries=2,
        failures=0,
        losses=0,
        has_dependents=False,
        options={},
        status="pending",
        required_capabilities=sorted(wanted.required),
    )


def backlog_of(*tasks: Ready) -> Backlog:
    backlog = Backlog()
    for one in tasks:
        backlog.put(one)
    return backlog


def served(backlog: Backlog, roster: Roster, limit: int = FOR_EVER) -> list[tuple[str, list[str]]]:
    return [
        (found.task_id, [seat.member.agent_id for seat in seats])
        for found, seats in backlog.match(roster, limit)
    ]


def gang(number: int, *required: str) -> Want:
    return want(*required, number=number, most=number)


# --- the order of service -----------------------------------------------------------------------


def test_urgency_goes_first_then_the_longest_path_then_age() -> None:
    backlog = backlog_of(task(1), task(2), task(3, path=4.0), task(4, priority=9), task(5, path=4.0))

    assert served(backlog, roster_of(agent("a", slots=9))) == [
        (f"task-{number}", ["a"]) for number in (4, 3, 5, 1, 2)
    ]
    assert len(backlog) == 0


def test_at_most_so_many_are_served_and_the_rest_is_served_next() -> None:
    backlog, roster = backlog_of(*(task(number) for number in range(5))), roster_of(agent("a", slots=9))

    assert served(backlog, roster, 0) == served(backlog, roster, -3) == []
    assert [found for found, _ in served(backlog, roster, 2)] == ["task-0", "task-1"]
    assert [found for found, _ in served(backlog, roster)] == ["task-2", "task-3", "task-4"]


def test_a_walk_that_is_left_early_loses_nothing() -> None:
    backlog, roster = backlog_of(*(task(number) for number in range(4))), roster_of(agent("a", slots=9))

    for found, _ in backlog.match(roster, FOR_EVER):
        if found.task_id == "task-1":
            break

    assert [found for found, _ in served(backlog, roster)] == ["task-2", "task-3"]


def test_what_is_put_during_a_walk_is_not_forgotten() -> None:
    backlog, roster = backlog_of(task(5), task(6, want("other"))), roster_of(agent("a", slots=9))

    for found, _ in backlog.match(roster, FOR_EVER):
        if found.seq == 5:
            backlog.put(task(1, want("other"), priority=9))
            roster.put(agent("b", "other", slots=9))

    assert {found for found, _ in served(backlog, roster)} <= {"task-1", "task-6"}
    assert len(backlog) == 0


def test_a_sleeping_task_that_is_passed_by_during_a_walk_is_woken_by_the_next() -> None:
    roster = roster_of(agent("a"))
    backlog = backlog_of(task(9, want("other")))
    assert served(backlog, roster) == []
    roster.put(agent("b", "other", slots=2))
    backlog.put(task(1, want("missing"), priority=6))
    backlog.put(task(2))

    for _ in backlog.match(roster, FOR_EVER):
        if len(backlog) == 2:  # the task that waits for "other" comes to stand before the walker
            backlog.put(task(3, want("other"), priority=9))

    assert [found for found, _ in served(backlog, roster)] == ["task-3", "task-9"]


def test_a_task_that_is_put_again_takes_its_new_place() -> None:
    backlog, roster = backlog_of(task(1), task(2), task(3)), roster_of(agent("a", slots=9))

    backlog.put(replace(task(3), urgency=-9))
    backlog.put(replace(task(1), urgency=0))

    assert [found for found, _ in served(backlog, roster)] == ["task-3", "task-2", "task-1"]


def test_a_task_that_is_put_again_with_another_want_is_served_by_that() -> None:
    backlog = backlog_of(task(1, want("gpu")))
    roster = roster_of(agent("a"))
    assert served(backlog, roster) == []

    backlog.put(task(1, want("work")))

    assert served(backlog, roster) == [("task-1", ["a"])]
    assert served(backlog, roster) == []


def test_a_task_that_was_dropped_is_not_served() -> None:
    backlog = backlog_of(task(1), task(2))
    backlog.drop("task-1")
    backlog.drop("task-9")

    assert served(backlog, roster_of(agent("a", slots=2))) == [("task-2", ["a"])]


def test_another_roster_is_looked_at_from_the_beginning() -> None:
    backlog = backlog_of(task(1))
    assert served(backlog, roster_of(agent("a", "other"))) == []

    assert served(backlog, roster_of(agent("b"))) == [("task-1", ["b"])]


# --- nobody idle beside work --------------------------------------------------------------------


def test_a_task_behind_a_thousand_that_the_free_agent_may_not_take_is_served() -> None:
    not_a = frozenset({"a"})
    backlog = backlog_of(
        *(task(number, want(closed_to=not_a)) for number in range(500)),
        *(task(500 + number, want(only=(f"v{number}",))) for number in range(500)),
        task(1_000),
    )

    assert served(backlog, roster_of(agent("a"))) == [("task-1000", ["a"])]


@pytest.mark.parametrize("change", ["comes", "returns", "gives back", "gives all back", "resumes"])
def test_a_task_that_slept_is_woken_by_whoever_can_take_it(change: str) -> None:
    roster = roster_of(agent("a"), agent("b", "other"))
    roster.take(roster.members["a"], 0)
    if change == "resumes":
        roster.members["a"].status = AgentStatus.PAUSED
        roster.touch(roster.members["a"])
        roster.give_back("a", 0)
    backlog = backlog_of(task(1))
    assert served(backlog, roster) == served(backlog, roster) == []

    match change:
        case "comes":
            roster.put(agent("a", "work", "more"))
        case "returns":
            roster.drop("a")
            roster.put(agent("a"))
        case "gives back":
            roster.give_back("a", 0)
        case "gives all back":
            roster.give_back_all("a", [0, 7])  # of what it does not own nothing is given back
        case "resumes":
            roster.members["a"].status = AgentStatus.ONLINE
            roster.touch(roster.members["a"])

    assert served(backlog, roster) == [("task-1", ["a"])]


@pytest.mark.parametrize("how", ["drop", "offline"])
def test_a_task_is_woken_when_the_last_one_leaves_who_had_not_failed_it(how: str) -> None:
    roster = roster_of(agent("failed"), agent("busy", "work", "more"))
    roster.take(roster.members["busy"], 0)
    backlog = backlog_of(task(1, want(rather_not=frozenset({"failed"}))))
    assert served(backlog, roster) == []

    if how == "drop":
        roster.drop("busy")
    else:
        roster.members["busy"].status = AgentStatus.OFFLINE
        roster.touch(roster.members["busy"])

    assert served(backlog, roster) == [("task-1", ["failed"])]


# --- gangs --------------------------------------------------------------------------------------


def singles_until_the_gang(roster: Roster, backlog: Backlog, most: int = 200) -> int:
    """Two agents, one of them always busy: single tasks come without end. How many overtook the gang?"""
    (first,) = roster.choose(want()) or ()
    roster.take(first.member, first.slot)
    held = [(first.member.agent_id, first.slot)]
    seq, overtakes = 1_000, 0
    while overtakes < most:
        backlog.put(task(seq))
        seq += 1
        for found, seats in backlog.match(roster, FOR_EVER):
            held += [(seat.member.agent_id, seat.slot) for seat in seats]
            if found.want.number > 1:
                return overtakes
            overtakes += 1
        if held:
            roster.give_back(*held.pop(0))
    return overtakes


def test_a_gang_is_overtaken_a_bounded_number_of_times() -> None:
    roster = roster_of(agent("a"), agent("b"))

    assert singles_until_the_gang(roster, backlog_of(task(1, gang(2)))) == MOST_OVERTAKES


def test_one_batch_does_not_overtake_more_often_than_many() -> None:
    roster = roster_of(agent("a", slots=500), agent("b"))
    roster.take(roster.members["b"], 0)
    backlog = backlog_of(task(0, gang(2)), *(task(number) for number in range(1, 101)))

    assert len(served(backlog, roster)) == MOST_OVERTAKES
    assert served(backlog, roster) == []
    roster.give_back("b", 0)
    assert served(backlog, roster)[0] == ("task-0", ["b", "a"])


def test_a_gang_that_is_put_again_remembers_how_often_it_was_overtaken() -> None:
    roster = roster_of(agent("a", slots=500), agent("b"))
    roster.take(roster.members["b"], 0)
    backlog = backlog_of(task(0, gang(2)), *(task(number) for number in range(1, MOST_OVERTAKES)))
    assert len(served(backlog, roster)) == MOST_OVERTAKES - 1

    backlog.put(task(0, gang(2), path=2.0))
    backlog.put(task(50))
    backlog.put(task(51))

    assert served(backlog, roster) == [("task-50", ["a"])]


def test_agents_are_kept_for_a_gang_that_comes_with_its_count() -> None:
    roster = roster_of(agent("a", slots=500), agent("b"))
    roster.take(roster.members["b"], 0)
    backlog = backlog_of(task(0, gang(2)))
    assert served(backlog, roster) == []

    backlog.put(replace(task(1, gang(2)), overtaken=MOST_OVERTAKES))
    backlog.put(task(2))

    assert served(backlog, roster) == []


def test_agents_are_not_kept_for_a_gang_that_can_never_be_whole() -> None:
    roster = roster_of(agent("a", slots=500), agent("b"), agent("c", "other"))
    backlog = backlog_of(task(0, gang(3)), *(task(number) for number in range(1, 101)))
    assert len(served(backlog, roster)) == 100

    backlog.put(task(200))
    assert served(backlog, roster) == [("task-200", ["a"])]


def test_agents_kept_for_a_gang_are_free_again_when_it_can_not_be_whole_any_more() -> None:
    roster = roster_of(agent("a", slots=500), agent("b"))
    roster.take(roster.members["b"], 0)
    backlog = backlog_of(task(0, gang(2)), *(task(number) for number in range(1, 31)))
    assert len(served(backlog, roster)) == MOST_OVERTAKES

    roster.drop("b")

    assert len(served(backlog, roster)) == 30 - MOST_OVERTAKES


def test_agents_kept_for_a_gang_are_free_again_when_it_is_dropped() -> None:
    roster = roster_of(agent("a", slots=500), agent("b"))
    roster.take(roster.members["b"], 0)
    backlog = backlog_of(task(0, gang(2)), *(task(number) for number in range(1, 31)))
    served(backlog, roster)

    backlog.drop("task-0")

    assert len(served(backlog, roster)) == 30 - MOST_OVERTAKES


def test_a_task_before_the_gang_takes_its_agents_all_the_same() -> None:
    roster = roster_of(agent("a", slots=500), agent("b"))
    roster.take(roster.members["b"], 0)
    backlog = backlog_of(task(0, gang(2)), *(task(number) for number in range(1, 31)))
    served(backlog, roster)

    backlog.put(task(99, priority=9))

    assert [found for found, _ in served(backlog, roster)] == ["task-99"]


def test_a_task_that_a_kept_agent_could_take_says_for_whom_it_is_kept() -> None:
    roster = roster_of(agent("a", slots=500), agent("b"))
    roster.take(roster.members["b"], 0)
    last = task(30)
    backlog = backlog_of(task(0, gang(2)), *(task(number) for number in range(1, 30)), last)
    served(backlog, roster)

    assert backlog.explain(roster, last) == {
        "a": "is kept for task task-0, which wants 2",
        "b": "is busy",
    }
    assert [kept.task_id for kept in backlog.kept_ahead(last)] == ["task-0"]
    assert backlog.explain(roster, task(99, priority=9))["a"] is None


def test_an_agent_that_comes_but_can_take_nothing_hides_nobody_who_came_before_it() -> None:
    roster, backlog = roster_of(), backlog_of(task(0, want("read")))
    assert served(backlog, roster) == []
    roster.put(agent("free", "read"))
    absent = agent("absent", "write")
    absent.status = AgentStatus.OFFLINE

    roster.put(absent)

    assert served(backlog, roster) == [("task-0", ["free"])]


# --- teams --------------------------------------------------------------------------------------


def team(*required: str) -> Want:
    return want(*required, most=len(required), is_team=True)


@pytest.mark.parametrize("change", ["comes", "gives back", "leaves"])
def test_a_team_that_slept_is_woken_by_whoever_has_a_part_of_it(change: str) -> None:
    roster = roster_of(agent("a", "read"), agent("b", "write"), agent("failed", "write"))
    roster.take(roster.members["b"], 0)
    wanted = replace(team("read", "write"), rather_not=frozenset({"failed"}))
    backlog = backlog_of(task(1, wanted))
    assert served(backlog, roster) == served(backlog, roster) == []

    match change:
        case "comes":
            roster.put(agent("c", "write", "paint"))
        case "gives back":
            roster.give_back("b", 0)
        case "leaves":  # then nobody is left but the one who failed it
            roster.drop("b")

    chosen = {"comes": "c", "gives back": "b", "leaves": "failed"}[change]
    assert served(backlog, roster) == [("task-1", ["a", chosen])]


def test_a_team_is_overtaken_a_bounded_number_of_times() -> None:
    roster = roster_of(agent("a", "read", slots=500), agent("b", "write"))
    roster.take(roster.members["b"], 0)
    backlog = backlog_of(
        task(0, team("read", "write")), *(task(number, want("read")) for number in range(1, 101))
    )

    assert len(served(backlog, roster)) == MOST_OVERTAKES
    assert served(backlog, roster) == []
    assert (
        backlog.explain(roster, task(101, want("read")))["a"] == "is kept for task task-0, which wants a team"
    )
    roster.give_back("b", 0)
    assert served(backlog, roster)[0] == ("task-0", ["b", "a"])


def test_nobody_is_kept_for_a_team_who_is_not_needed_to_make_it() -> None:
    roster = roster_of(agent("a1", "read", slots=500), agent("a2", "read", slots=500), agent("b", "write"))
    roster.take(roster.members["b"], 0)
    backlog = backlog_of(
        task(0, team("read", "write")), *(task(number, want("read")) for number in range(1, 101))
    )

    assert len(served(backlog, roster)) == 100
    assert roster.members["a1"].busy <= MOST_OVERTAKES
    roster.give_back("b", 0)
    assert [found for found, _ in served(backlog, roster)] == ["task-0"]


class OneGate(Gates):
    """So many attempts may start."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def closed(self, task: Ready, number: int) -> tuple[str, str] | None:
        return None if number <= self.left else ("rate:x", "is used up")

    def enter(self, task: Ready, seats: Sequence[Seat]) -> None:
        self.left -= len(seats)


def test_a_team_that_does_not_pass_its_gate_as_a_whole_waits_there() -> None:
    roster = roster_of(agent("a", "read"), agent("b", "write"))
    backlog = backlog_of(task(0, replace(team("read", "write"), gates=("rate:x",))), task(1, want("read")))

    found = [(one.task_id, len(seats)) for one, seats in backlog.match(roster, FOR_EVER, OneGate(1))]

    assert found == [("task-1", 1)]
    roster.give_back("a", 0)
    assert backlog.open_gate("rate:x")
    assert [len(seats) for _, seats in backlog.match(roster, FOR_EVER, OneGate(2))] == [2]


# --- against a twin -----------------------------------------------------------------------------


class Twin:
    """The same promises without any index: sort all, walk once."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.tasks: dict[str, Ready] = {}
        self.weights = Roster().weights

    def could(self, wanted: Want) -> list[str]:
        """Who could serve it, by the definition of a reservation."""
        free_to = [m.agent_id for m in self.members.values() if lasting_obstacle(m, wanted) is None]
        others = [agent_id for agent_id in free_to if agent_id not in wanted.rather_not]
        are_enough = twin_are_enough([self.members[agent_id] for agent_id in others], wanted)
        return others if are_enough else free_to

    def keep(self, wanted: Want) -> list[Want]:
        could = self.could(wanted)
        if wanted.is_team:
            candidates = [Candidate(one, self.members[one].capabilities) for one in could]
            team = form(wanted.required, candidates, least=wanted.number, most=wanted.most)
            return [Want(frozenset(), only=tuple(part.agent_id for part in team))] if team else []
        return [Want(frozenset(), only=tuple(could))] if len(could) >= wanted.number else []

    def uses(self, wanted: Want) -> list[str]:
        """Whose work for others counts: of a team that is kept only that of its members to be."""
        kept = self.keep(wanted) if wanted.is_team and self.is_kept(wanted) else []
        return sorted(kept[0].only or ()) if kept else self.could(wanted)

    def is_kept(self, wanted: Want) -> bool:
        return (wanted.number > 1 or wanted.is_team) and any(
            one.overtaken >= backlog_room.MOST_OVERTAKES for one in self.tasks.values() if one.want == wanted
        )

    def match(self, limit: int) -> list[tuple[str, list[str]]]:
        found: list[tuple[str, list[str]]] = []
        kept: list[Want] = []
        for one in sorted(self.tasks.values(), key=lambda t: t.order):
            if len(found) >= limit:
                break
            chosen = twin_chooses(self.weights, self.members.values(), one.want, kept)
            if chosen is None:
                if self.is_kept(one.want):
                    kept += self.keep(one.want)
                continue
            for agent_id in chosen:
                member = self.members[agent_id]
                slot = member.free_slot()
                member.used.add(slot)
                if member.is_probing:
                    member.probe_slot = slot
            del self.tasks[one.task_id]
            found.append((one.task_id, chosen))
            for other in self.tasks.values():
                is_passed = (other.want.number > 1 or other.want.is_team) and other.order < one.order
                if is_passed and other.want != one.want and set(self.uses(other.want)) & set(chosen):
                    other.overtaken += 1
                    if other.overtaken == backlog_room.MOST_OVERTAKES:
                        kept += self.keep(other.want)
        return found


free_wants = st.builds(
    lambda required, number, more, closed_to, rather_not, only, is_team: Want(
        required,
        number,
        number + more,
        closed_to,
        rather_not,
        None if is_team and required else only,
        is_team=bool(is_team and required),
    ),
    st.frozensets(st.sampled_from(CAPABILITIES), max_size=2),
    st.sampled_from([1, 1, 1, 2, 3]),
    st.sampled_from([0, 0, 1]),
    st.sampled_from([frozenset[str](), frozenset(AGENTS[:2])]),
    st.sampled_from([frozenset[str](), frozenset(AGENTS[:1]), frozenset(AGENTS[1:3])]),
    st.sampled_from([None, None, None, tuple(AGENTS[:3]), (AGENTS[2], AGENTS[0])]),
    st.booleans(),
)
steps = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, 30), free_wants, st.integers(0, 4)),
    st.tuples(st.just("submit"), st.integers(0, 30), free_wants, st.integers(0, 4)),
    st.tuples(st.just("flood"), st.integers(40, 60), st.integers(1, 6)),
    st.tuples(st.just("drop"), st.integers(0, 30)),
    st.tuples(
        st.just("put"),
        st.sampled_from(AGENTS),
        st.frozensets(st.sampled_from(CAPABILITIES), min_size=1),
        st.integers(1, 3),
    ),
    st.tuples(st.just("leave"), st.sampled_from(AGENTS)),
    st.tuples(st.just("status"), st.sampled_from(AGENTS), st.sampled_from(list(AgentStatus))),
    st.tuples(st.just("exclude"), st.sampled_from(AGENTS), st.sampled_from(["one", "two"]), st.booleans()),
    st.tuples(st.just("probe"), st.sampled_from(AGENTS), st.booleans()),
    st.tuples(st.just("finish"), st.sampled_from(AGENTS)),
    st.tuples(st.just("finish"), st.sampled_from(AGENTS)),
    st.tuples(st.just("match"), st.sampled_from([1, 2, FOR_EVER, FOR_EVER])),
    st.tuples(st.just("match"), st.sampled_from([1, 2, FOR_EVER, FOR_EVER])),
)


def run(roster: Roster, backlog: Backlog, twin: Twin, step: tuple) -> None:
    """The same step for both; what they serve must be the same."""
    match step:
        case ("submit", seq, wanted, priority):
            for tasks in (backlog, twin):
                put(tasks, task(seq, wanted, priority=priority))
        case ("flood", seq, number):
            for tasks in (backlog, twin):
                for one in range(seq * 10, seq * 10 + number):
                    put(tasks, task(one, want(CAPABILITIES[one % 2]), priority=0))
        case ("drop", seq):
            backlog.drop(f"task-{seq}")
            twin.tasks.pop(f"task-{seq}", None)
        case ("put", agent_id, capabilities, slots):
            roster.put(agent(agent_id, *capabilities, slots=slots))
            before = twin.members.get(agent_id)
            now = twin.members[agent_id] = agent(agent_id, *capabilities, slots=slots)
            if before is not None:
                now.exclusions, now.is_probing = before.exclusions, before.is_probing
        case ("leave", agent_id):
            roster.drop(agent_id)
            twin.members.pop(agent_id, None)
        case ("status", agent_id, status) if agent_id in roster.members:
            twin.members[agent_id].status = roster.members[agent_id].status = status
            roster.touch(roster.members[agent_id])
        case ("exclude", agent_id, by, is_excluded) if agent_id in roster.members:
            roster.exclude(agent_id, by, f"is excluded by {by}" if is_excluded else None)
            twin.members[agent_id].exclusions.pop(by, None)
            if is_excluded:
                twin.members[agent_id].exclusions[by] = "is excluded"
        case ("probe", agent_id, is_probing) if agent_id in roster.members:
            roster.set_probing(roster.members[agent_id], is_probing=is_probing)
            if not is_probing:
                twin.members[agent_id].probe_slot = None
            twin.members[agent_id].is_probing = is_probing
        case ("finish", agent_id) if agent_id in roster.members and twin.members[agent_id].used:
            slot = min(twin.members[agent_id].used)
            roster.give_back(agent_id, slot)
            twin.members[agent_id].used.remove(slot)
            if twin.members[agent_id].probe_slot == slot:
                twin.members[agent_id].probe_slot = None
        case ("match", limit):
            assert served(backlog, roster, limit) == twin.match(limit)
            assert {one.task_id: one.overtaken for one in backlog.tasks.values()} == {
                one.task_id: one.overtaken for one in twin.tasks.values()
            }
            if limit == FOR_EVER:
                check_nobody_is_idle(roster, backlog)


def put(tasks: Backlog | Twin, one: Ready) -> None:
    if isinstance(tasks, Backlog):
        tasks.put(one)
        return
    known = tasks.tasks.get(one.task_id)
    one.overtaken = known.overtaken if known is not None else 0
    tasks.tasks[one.task_id] = one


def check_nobody_is_idle(roster: Roster, backlog: Backlog) -> None:
    """No agent is free beside a task that it could take, but those that are kept for a gang before it."""
    for one in backlog.tasks.values():
        ready = [agent_id for agent_id, reason in backlog.explain(roster, one).items() if reason is None]
        if one.want.is_team:
            free = [Candidate(agent_id, roster.members[agent_id].capabilities) for agent_id in ready]
            assert form(one.want.required, free, least=one.want.number, most=one.want.most) is None, (
                one,
                ready,
            )
            continue
        assert len(ready) < one.want.number, (one, ready)


def check_books(backlog: Backlog) -> None:
    """What the backlog keeps beside its tasks agrees with them, and its heaps hold little garbage."""
    assert backlog._queued.keys() == backlog.tasks.keys()
    for task_id, (queue, order) in backlog._queued.items():
        assert backlog._queues[queue.want] is queue
        assert (order, task_id) in queue.run or (order, task_id) in queue.heap
        assert queue.place <= order
    assert all(len(queue) or not queue.is_asleep for queue in backlog._queues.values())
    assert backlog._line == sorted((q.place, q.number, q) for q in backlog._queues.values())
    assert backlog._awake == sum(not queue.is_asleep for queue in backlog._queues.values())
    assert backlog._entries == sum(len(queue) for queue in backlog._queues.values())
    assert backlog._entries <= 64 + 4 * len(backlog.tasks) + 1 or not backlog.tasks
    gangs = {want: queue for want, queue in backlog._queues.items() if want.is_gang}
    assert backlog._gangs == gangs


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.lists(steps, min_size=15, max_size=80))
def test_what_is_served_is_what_a_walk_over_everything_serves(history: list[tuple]) -> None:
    most, backlog_room.MOST_OVERTAKES = backlog_room.MOST_OVERTAKES, 2
    try:
        roster, backlog, twin = Roster(), Backlog(), Twin()
        for step in [*history, ("match", FOR_EVER)]:
            run(roster, backlog, twin, step)
            check_books(backlog)
    finally:
        backlog_room.MOST_OVERTAKES = most


@pytest.mark.parametrize("seed", range(4))
def test_a_long_stream_is_served_like_by_the_twin_and_nobody_starves(seed: int) -> None:
    rng = random.Random(seed)
    roster, backlog, twin = Roster(), Backlog(), Twin()
    for number, agent_id in enumerate(AGENTS):
        run(roster, backlog, twin, ("put", agent_id, frozenset(CAPABILITIES[: 1 + number % 3]), 1 + seed % 2))
    overtaken: Counter[str] = Counter()
    for seq in range(400):
        number = rng.choice([1, 1, 1, 1, 2, 3])
        required = frozenset(rng.sample(CAPABILITIES[:2], rng.choice([0, 1])))
        is_team = bool(required) and rng.random() < 0.3
        required |= frozenset(CAPABILITIES[:2]) if is_team else frozenset()
        wanted = Want(required, number, max(number, len(required)), is_team=is_team)
        run(roster, backlog, twin, ("submit", seq, wanted, 3))
        run(roster, backlog, twin, ("match", FOR_EVER))
        overtaken |= Counter({one.task_id: one.overtaken for one in backlog.tasks.values()})
        for _ in range(rng.choice([1, 2, 2])):
            run(roster, backlog, twin, ("finish", rng.choice(AGENTS)))
    while backlog.tasks:
        for agent_id in AGENTS:
            run(roster, backlog, twin, ("finish", agent_id))
        run(roster, backlog, twin, ("match", FOR_EVER))

    assert max(overtaken.values()) <= MOST_OVERTAKES


# --- bounds -------------------------------------------------------------------------------------


def test_entries_of_tasks_that_were_dropped_do_not_pile_up() -> None:
    backlog = Backlog()
    for number in range(5_000):
        backlog.put(task(number, want(f"c{number % 7}")))
        backlog.drop(f"task-{number}")

    assert backlog._entries <= 65
    assert len(backlog._queues) <= 7


def lines_per_task(roster: Roster, tasks: list[Ready], step: int) -> float:
    """A full fleet: `step` slots come free, are filled, and so on; counted in lines of Python."""
    backlog = backlog_of(*tasks)
    held = [(seat.member.agent_id, seat.slot) for _, seats in backlog.match(roster, 2_000) for seat in seats]
    number = 300

    def serve() -> None:
        for _ in range(0, number, step):
            for one in held[:step]:
                roster.give_back(*one)
            del held[:step]
            found = backlog.match(roster, FOR_EVER)
            held.extend((seat.member.agent_id, seat.slot) for _, seats in found for seat in seats)

    return lines_of(serve) / number


def test_ten_thousand_agents_and_a_hundred_thousand_tasks_stay_cheap() -> None:
    cost = {}
    for agents, waiting in ((100, 5_000), (10_000, 100_000)):
        rng = random.Random(1)
        fleet = roster_of(
            *(agent(f"a{n}", *(f"c{c}" for c in rng.sample(range(10), 5))) for n in range(agents))
        )
        tasks = [task(seq, want(f"c{seq % 10}"), priority=rng.randrange(10)) for seq in range(waiting)]
        for one in list(backlog_of(*tasks[: 2 * agents]).match(fleet, FOR_EVER)):
            assert one[1]
        for member in list(fleet.members.values()):
            if not member.used:
                fleet.take(member, 0)
        for member in list(fleet.members.values())[:50]:
            fleet.give_back(member.agent_id, 0)
        cost[agents] = lines_per_task(fleet, tasks, step=10)

    assert cost[10_000] < 1.5 * cost[100], cost


def test_ten_thousand_different_sets_of_capabilities_stay_cheap() -> None:
    capabilities = [f"c{number}" for number in range(14)]
    rng = random.Random(2)
    tasks = [task(seq, want(*rng.sample(capabilities, rng.randrange(4, 10)))) for seq in range(12_000)]
    assert len({one.want for one in tasks}) > 7_000
    fleet = roster_of(*(agent(f"a{number}", *capabilities) for number in range(100)))

    cost = lines_per_task(fleet, tasks, step=1)

    # A walk over all sets would be more than 7,000 lines for each task.
    assert cost < 5_000
