"""Who covers a task together: against a twin that tries every group, and within its time."""

from __future__ import annotations

import os
import random
from itertools import combinations

import pytest
from effort import lines_of

from agentorch_cli.core.team import (
    EXACT,
    Candidate,
    advice,
    can_cover,
    form,
    listed,
    misnamed,
    missing,
    role_of,
    share_of,
    smallest,
    unfit,
)

FLEETS = int(os.environ.get("AGENTORCH_FLEETS", "1500"))


def candidate(agent_id: str, has: str, score: float = 1.0) -> Candidate:
    return Candidate(agent_id, frozenset(has.split()), score)


def team(required: str, *candidates: Candidate, **limits: int) -> dict[str, str] | None:
    """Agent to role."""
    found = form(frozenset(required.split()), candidates, **limits)
    return None if found is None else {part.agent_id: part.role for part in found}


def by_trying_all(required: frozenset[str], candidates: list[Candidate], most: int) -> list[str] | None:
    """The ids of the smallest group of the best total score, then first by id."""
    for size in range(1, min(most, len(candidates)) + 1):
        covering = [
            group
            for group in combinations(candidates, size)
            if required <= frozenset().union(*(one.capabilities for one in group))
        ]
        if covering:
            ranked = [
                (-sum(round(one.score * 10**9) for one in group), sorted(one.agent_id for one in group))
                for group in covering
            ]
            return min(ranked)[1]
    return None


def random_fleet(seed: int, agents: int = 6, capabilities: int = 5) -> tuple[frozenset[str], list[Candidate]]:
    draw = random.Random(seed)
    names = "abcdefghijklmnopqrstuvwxyz"[:capabilities]
    fleet = [
        Candidate(
            f"agent-{number}",
            frozenset(draw.sample(names + "XYZ", draw.randint(0, capabilities))),
            draw.choice([0.25, 0.5, 0.7, 0.7, draw.random()]),
        )
        for number in draw.sample(range(agents * 2), draw.randint(1, agents))
    ]
    return frozenset(draw.sample(names, draw.randint(1, capabilities))), fleet


def test_the_team_is_the_one_that_trying_all_groups_finds() -> None:
    found = 0
    for seed in range(FLEETS):
        required, fleet = random_fleet(seed)
        most = random.Random(-seed).randint(1, 6)

        group = smallest(required, fleet, most)

        ids = None if group is None else sorted(one.agent_id for one in group)
        assert ids == by_trying_all(required, fleet, most), f"seed {seed}"
        found += group is not None
    assert FLEETS / 4 < found < FLEETS * 3 / 4


def test_the_order_in_which_agents_come_makes_no_difference() -> None:
    for seed in range(200):
        required, fleet = random_fleet(seed)
        shuffled = random.Random(seed).sample(fleet, len(fleet))

        assert form(required, fleet, least=2) == form(required, shuffled, least=2), f"seed {seed}"


def test_every_capability_is_one_members_to_contribute() -> None:
    for seed in range(FLEETS):
        required, fleet = random_fleet(seed)
        has = {one.agent_id: one.capabilities for one in fleet}

        parts = form(required, fleet)

        if parts is None:
            continue
        shares = [(part.agent_id, share_of(part.role)) for part in parts]
        assert sorted(one for _, share in shares for one in share) == sorted(required), f"seed {seed}"
        assert all(share and share <= has[agent_id] for agent_id, share in shares), f"seed {seed}"


def test_one_agent_that_has_all_is_the_whole_team() -> None:
    assert team("a b", candidate("x", "a"), candidate("y", "b"), candidate("z", "a b", 0.1)) == {"z": "a+b"}


def test_what_several_have_goes_to_who_has_least_to_do() -> None:
    found = team("a b c d", candidate("x", "a c d", 0.9), candidate("y", "b c d", 0.5))

    assert found == {"x": "a+c", "y": "b+d"}


def test_the_best_come_first_and_their_scores_count_together() -> None:
    fleet = [candidate("a1", "a", 0.2), candidate("a2", "a", 0.9), candidate("b1", "b", 0.95)]

    found = form(frozenset("ab"), fleet)

    assert found is not None
    assert [part.agent_id for part in found] == ["b1", "a2"]


def test_a_team_is_filled_up_with_the_best_of_the_others_who_share_a_role() -> None:
    fleet = [candidate("x", "a b"), candidate("y", "b", 0.4), candidate("z", "a", 0.3), candidate("n", "q")]

    assert team("a b", *fleet, least=2) == {"x": "a+b", "y": "b"}
    assert team("a b", *fleet[1:], least=2) == {"y": "b", "z": "a"}
    assert team("a b", candidate("w", "b", 0.1), *fleet[1:], least=3) == {"y": "b", "z": "a", "w": "b"}
    assert team("a b", *fleet, least=4) is None


def test_a_group_that_is_too_large_is_none() -> None:
    fleet = [candidate("x", "a"), candidate("y", "b"), candidate("z", "c")]

    assert team("a b c", *fleet, most=2) is None
    assert team("a b c", *fleet, most=3) == {"x": "a", "y": "b", "z": "c"}
    assert team("a b q", *fleet) is None
    assert missing(frozenset("abq"), [one.capabilities for one in fleet]) == ["q"]


def test_many_capabilities_are_covered_by_few_although_not_surely_the_fewest() -> None:
    for seed in range(60):
        required, fleet = random_fleet(seed, agents=40, capabilities=20)
        if len(required) <= EXACT:
            continue

        group = smallest(required, fleet)

        assert (group is None) == bool(missing(required, [one.capabilities for one in fleet])), f"seed {seed}"
        for one in group or ():
            others = [other.capabilities for other in group or () if other is not one]
            assert missing(required, others), f"seed {seed}: {one.agent_id} is superfluous"


def test_capabilities_that_the_same_agents_have_count_as_one() -> None:
    names = [f"c{number:02}" for number in range(100)]
    fleet = [Candidate("one", frozenset(names[:70])), Candidate("two", frozenset(names[60:]))]

    parts = form(frozenset(names), fleet)

    assert parts is not None
    assert sorted(len(share_of(part.role)) for part in parts) == [40, 60]


def test_a_thousand_agents_with_twelve_capabilities_are_some_lines_of_work_each() -> None:
    """In time: 4 to 13 ms."""
    names = [f"c{number}" for number in range(12)]
    draw = random.Random(12)
    for size in (1, 2, 3, 4, 6, 12):
        fleet = [
            Candidate(f"agent-{n}", frozenset(draw.sample(names, draw.randint(1, size))), draw.random())
            for n in range(1000)
        ]

        cost = lines_of(lambda fleet=fleet: form(frozenset(names), fleet))

        assert cost < 500_000, f"agents with up to {size} capabilities"


@pytest.mark.parametrize(
    ("role", "share"),
    [
        ("a", {"a"}),
        ("a+b", {"a", "b"}),
        ("c++", {"c++"}),
        ("c+++python", {"c++", "python"}),
        ("c+c++", {"c", "c++"}),
        ("", set()),
        (None, set()),
    ],
)
def test_a_role_says_which_capabilities_it_stands_for(role: str | None, share: set[str]) -> None:
    assert share_of(role) == share
    assert role_of(share) == (role or "")


def test_a_plus_inside_of_a_name_does_not_fit_into_a_role() -> None:
    assert unfit(["a", "c++", "g+", "x y"]) == []
    assert unfit(["a+b", "+a", "++", "a"]) == ["++", "+a", "a+b"]


def test_a_capability_that_is_mistyped_is_told_as_it_was_probably_meant() -> None:
    fleet = {"a": ["count", "read"], "b": ["paint"]}

    assert misnamed(["coutn"], fleet) == ' (did you mean "count"?)'
    assert misnamed(["read", "pain"], fleet) == ' (did you mean "paint"?)'
    assert misnamed(["count", "paint"], fleet) == misnamed(["publish"], fleet) == ""


def test_who_asks_one_agent_for_what_only_several_have_is_told_how_to_ask() -> None:
    fleet = {"estimator": ["cost_estimation"], "optimiser": ["optimization"], "other": ["count"]}

    assert advice(frozenset({"optimization", "cost_estimation"}), fleet) == (
        "no single agent has cost_estimation and optimization; estimator and optimiser together do:"
        ' say coverage = "team", and each gets the task with its part of it as its role'
    )
    many = advice(frozenset("abcdefgh"), {f"agent-{one}": [one] for one in "abcdefgh"})
    assert "agent-a, agent-b, agent-c, agent-d, agent-e and 3 more together do" in str(many)
    assert advice(frozenset({"optimization"}), fleet) is None
    assert advice(frozenset({"optimization", "paint"}), fleet) is None
    assert advice(frozenset({"optimization", "count"}), {**fleet, "all": ["optimization", "count"]}) is None


def test_lists_read_as_sentences_do() -> None:
    assert [listed("a"), listed("ba"), listed("cab")] == ["a", "a and b", "a, b and c"]
    assert can_cover(frozenset("ab"), [frozenset("a"), frozenset("b")], most=2)
    assert not can_cover(frozenset("ab"), [frozenset("a"), frozenset("b")], most=1)
