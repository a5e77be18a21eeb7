"""What the scheduler learns from outcomes, in memory and from one choice to the next."""

from __future__ import annotations

import random

import pytest

from agentorch_cli.core.ledger import Evidence, estimate
from agentorch_cli.core.matching import Member, Roster
from agentorch_cli.core.model import AgentStatus
from agentorch_cli.engine.reputation import Reputation


def fleet(*names: str) -> Roster:
    roster = Roster()
    for name in names:
        roster.put(Member(name, "worker", frozenset({"x", "y"}), 4, AgentStatus.ONLINE, "node"))
    return roster


def test_a_new_agent_is_taken_for_good_until_something_is_known() -> None:
    roster = fleet("a")
    reputation = Reputation(roster)

    assert roster.members["a"].performance == 1.0
    reputation.outcome("a", "x", "task", went_well=False)
    assert roster.members["a"].performance == pytest.approx(1 / 3)


def test_what_is_learned_one_by_one_is_what_the_whole_says() -> None:
    seed = 11
    rng = random.Random(seed)
    roster = fleet("a")
    reputation = Reputation(roster)
    twin: dict[tuple[str, str], tuple[float, float]] = {}
    everything = Evidence()
    for _ in range(500):
        key = (rng.choice("xy"), rng.choice(["s", "t"]))
        went_well = rng.random() < 0.7
        reputation.outcome("a", *key, went_well=went_well)
        right, trials = twin.get(key, (0.0, 0.0))
        twin[key] = right * 0.97 + went_well, trials * 0.97 + 1
        everything = Evidence(everything.right * 0.97 + went_well, everything.trials * 0.97 + 1)
    member = roster.members["a"]

    assert member.performance == pytest.approx(estimate(everything)), seed
    last = ("x", "s")
    reputation.outcome("a", *last, went_well=True)
    twin[last] = twin[last][0] * 0.97 + 1, twin[last][1] * 0.97 + 1
    overall = Evidence(everything.right * 0.97 + 1, everything.trials * 0.97 + 1)
    of_x = Evidence(
        sum(r for (k, _), (r, _) in twin.items() if k == "x"),
        sum(t for (k, _), (_, t) in twin.items() if k == "x"),
    )
    assert member.estimates["x", ""] == pytest.approx(estimate(overall, of_x))
    assert member.estimates["x", "s"] == pytest.approx(estimate(overall, of_x, Evidence(*twin[last])))
    rows = [("a", *key, Evidence(*known)) for key, known in twin.items()]
    reputation.load([("a", "", "", overall), *rows])
    assert member.estimates["x", "s"] == pytest.approx(estimate(overall, of_x, Evidence(*twin[last])))


def test_a_sudden_loss_of_quality_shows_within_some_25_outcomes() -> None:
    roster = fleet("a", "b")
    reputation = Reputation(roster)
    for number in range(200):
        reputation.outcome("a", "x", "task", went_well=True)
        reputation.outcome("b", "x", "task", went_well=number % 10 != 9)
    noticed = 0
    while roster.members["a"].estimate("x", "task") > 0.6:
        reputation.outcome("a", "x", "task", went_well=False)
        noticed += 1

    assert 5 <= noticed <= 25


def test_an_agent_that_comes_back_is_known() -> None:
    roster = fleet("a")
    reputation = Reputation(roster)
    for _ in range(10):
        reputation.outcome("a", "x", "task", went_well=False)
    known = roster.members["a"].estimate("x", "task")
    roster.drop("a")
    roster.put(Member("a", "worker", frozenset({"x"}), 1, AgentStatus.ONLINE, "node"))
    reputation.tell("a")

    assert roster.members["a"].estimate("x", "task") == pytest.approx(known)


def test_what_the_table_does_not_say_yet_is_added_to_what_it_says() -> None:
    roster = fleet("a", "b")
    reputation = Reputation(roster)
    for name in ("a", "b"):
        reputation.outcome(name, "x", "task", went_well=False)
    rows = [("a", "", "", Evidence(10, 10)), ("a", "x", "task", Evidence(10, 10))]
    pending = [(name, *key, 0.0, 1) for name in ("a", "b") for key in (("", ""), ("x", "task"))]

    before = roster.members["b"].performance
    reputation.load(rows, pending=pending, all_of_them=False)

    after = Evidence(10 * 0.97, 10 * 0.97 + 1)
    assert roster.members["a"].performance == pytest.approx(estimate(after))
    assert roster.members["a"].estimate("x", "task") == pytest.approx(estimate(after, after, after))
    assert roster.members["b"].performance == before  # it was in there already
    reputation.load(rows, pending=pending)
    assert roster.members["b"].performance == pytest.approx(1 / 3)
