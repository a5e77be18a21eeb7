"""What is moved between agents: examples, and properties over random fleets."""

from __future__ import annotations

import copy
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch_cli.core.balance import Bounds, Movable, Transfer, load_of, out_of_balance, plan_transfers
from agentorch_cli.core.matching import Member, Want, lasting_obstacle
from agentorch_cli.core.model import AgentStatus

BOUNDS = Bounds(1.5, 0.5)


def agent(agent_id: str, held: int = 0, slots: int = 1, *capabilities: str) -> Member:
    return Member(
        agent_id,
        "worker",
        frozenset(capabilities or {"work"}),
        slots,
        AgentStatus.ONLINE,
        used=set(range(held)),
    )


def attempts(agent_id: str, number: int, want: Want | None = None) -> list[Movable]:
    wanted = want or Want(frozenset({"work"}))
    return [Movable(f"{agent_id}-{n}", agent_id, wanted, (0, 0.0, n)) for n in range(number)]


def moves(transfers: list[Transfer]) -> list[tuple[str, str, str]]:
    return [(one.message_id, one.giver, one.taker) for one in transfers]


def test_who_has_too_much_gives_to_who_has_too_little() -> None:
    fleet = [agent("a", 4, 4), agent("b", 0, 4)]

    plan = plan_transfers(fleet, attempts("a", 3), BOUNDS)

    assert moves(plan) == [("a-0", "a", "b")]
    assert (plan[0].before, plan[0].after) == ((1.0, 0.0), (0.75, 0.25))


def test_work_beyond_the_slots_goes_first_to_the_least_loaded() -> None:
    fleet = [agent("a", 3), agent("b", 1, 4), agent("c")]

    assert moves(plan_transfers(fleet, attempts("a", 2), BOUNDS))[0] == ("a-0", "a", "c")


def test_nothing_moves_between_loads_that_are_alike() -> None:
    fleet = [agent("a", 3, 4), agent("b", 2, 4), agent("c", 2, 4)]

    assert out_of_balance(fleet, BOUNDS) == ([], [])
    assert plan_transfers(fleet, attempts("a", 3), BOUNDS) == []


@pytest.mark.parametrize(
    "want",
    [
        Want(frozenset({"other"})),
        Want(frozenset({"work"}), closed_to=frozenset({"b"})),
        Want(frozenset({"work"}), rather_not=frozenset({"b"})),
    ],
)
def test_nobody_is_given_what_it_may_not_take(want: Want) -> None:
    assert plan_transfers([agent("a", 4, 4), agent("b", 0, 4)], attempts("a", 3, want), BOUNDS) == []


def test_who_is_away_or_excluded_neither_takes_nor_counts() -> None:
    away, excluded = agent("b", 0, 4), agent("c", 0, 4)
    away.status = AgentStatus.OFFLINE
    excluded.exclusions["breaker"] = "it fails"

    assert out_of_balance([agent("a", 4, 4), away, excluded], BOUNDS) == ([], [])


def test_no_more_is_planned_than_was_asked_for() -> None:
    fleet = [agent("a", 40, 50), *(agent(f"b{n}", 0, 4) for n in range(9))]

    assert len(plan_transfers(fleet, attempts("a", 40), BOUNDS, most=3)) == 3


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[Member], list[Movable]]:
    seed = draw(st.integers(0, 10**6))
    rng = random.Random(seed)
    members = []
    for number in range(draw(st.integers(1, 8))):
        slots = rng.randint(1, 5)
        capabilities = rng.sample(["x", "y", "z"], rng.randint(1, 3))
        members.append(agent(f"a{number}", rng.randint(0, slots + 2), slots, *capabilities))
        if rng.random() < 0.15:
            members[-1].status = rng.choice([AgentStatus.OFFLINE, AgentStatus.PAUSED])
    movable = []
    for member in members:
        for number in range(rng.randint(0, len(member.used))):
            want = Want(
                frozenset(rng.sample(sorted(member.capabilities), 1)),
                rather_not=frozenset({rng.choice(members).agent_id}) if rng.random() < 0.2 else frozenset(),
            )
            movable.append(Movable(f"{member.agent_id}-{number}", member.agent_id, want, (0, 0.0, number)))
    return members, movable


def carried_out(
    members: list[Member], movable: list[Movable], plan: list[Transfer]
) -> tuple[list[Member], list[Movable]]:
    """The fleet after the moves, and what can still be moved: all of it, for nobody took anything."""
    after = {member.agent_id: copy.copy(member) for member in members}
    held = {agent_id: len(member.used) for agent_id, member in after.items()}
    holder = {one.message_id: one.agent_id for one in movable}
    for one in plan:
        assert holder[one.message_id] == one.giver
        holder[one.message_id] = one.taker
        held[one.giver] -= 1
        held[one.taker] += 1
    for agent_id, member in after.items():
        member.used = set(range(held[agent_id]))
    return list(after.values()), [
        Movable(one.message_id, holder[one.message_id], one.want, one.order) for one in movable
    ]


@settings(max_examples=300, deadline=None)
@given(fleets())
def test_plans_keep_what_there_is_and_never_widen_the_spread(
    case: tuple[list[Member], list[Movable]],
) -> None:
    members, movable = case
    wants = {one.message_id: one.want for one in movable}
    counted = [m for m in members if m.status is AgentStatus.ONLINE]

    plan = plan_transfers(members, movable, BOUNDS)

    after, _ = carried_out(members, movable, plan)
    loads = [load_of(member) for member in counted]
    then = [load_of(member) for member in after if member.status is AgentStatus.ONLINE]
    assert plan == plan_transfers(members, list(reversed(movable)), BOUNDS)
    assert sum(len(m.used) for m in after) == sum(len(m.used) for m in members)
    assert len({one.message_id for one in plan}) == len(plan)
    if plan:
        assert max(then) <= max(loads)
        assert min(then) >= min(loads)
        assert max(then) - min(then) <= max(loads) - min(loads)
    takers = {member.agent_id: member for member in members}
    for one in plan:
        assert lasting_obstacle(takers[one.taker], wants[one.message_id]) is None
        assert one.taker not in wants[one.message_id].rather_not
        assert one.after[1] <= 1.0
        assert one.after[1] <= one.after[0] + 1e-9
        assert one.before[0] > one.before[1]


@settings(max_examples=300, deadline=None)
@given(fleets())
def test_a_second_look_finds_nothing_to_do(case: tuple[list[Member], list[Movable]]) -> None:
    members, movable = case
    plan = plan_transfers(members, movable, BOUNDS)

    assert plan_transfers(*carried_out(members, movable, plan), BOUNDS) == []


@settings(max_examples=200, deadline=None)
@given(fleets())
def test_a_plan_goes_on_until_nothing_fits(case: tuple[list[Member], list[Movable]]) -> None:
    """The dumb twin: after the plan no single move is left that the rule would allow."""
    members, movable = case
    plan = plan_transfers(members, movable, BOUNDS)
    after, left = carried_out(members, movable, plan)
    moved = {one.message_id for one in plan}
    online = {m.agent_id: m for m in after if m.status is AgentStatus.ONLINE}
    if not online:
        return
    mean = sum(map(load_of, online.values())) / len(online)

    for one in left:
        giver = online.get(one.agent_id)
        if giver is None or one.message_id in moved or not load_of(giver) > BOUNDS.high * mean:
            continue
        for taker in online.values():
            fits = (
                load_of(taker) < BOUNDS.low * mean
                and len(taker.used) < taker.slots
                and lasting_obstacle(taker, one.want) is None
                and taker.agent_id not in one.want.rather_not
                and (len(taker.used) + 1) / taker.slots <= (len(giver.used) - 1) / giver.slots + 1e-9
            )
            assert not fits, (one, taker.agent_id)
