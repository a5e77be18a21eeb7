"""Ranked and approval ballots, on the examples of the literature."""

from __future__ import annotations

import random

import pytest

from agentorch_cli.core.consensus import Ballot, DecidedBy, Policy, Rule, Voter, VoteStatus, decide
from agentorch_cli.core.ranked import Profile, pairwise_wins, schulze

SCHULZE_2011 = {
    "ACBED": 5,
    "ADECB": 5,
    "BEDAC": 8,
    "CABED": 3,
    "CAEBD": 7,
    "CBADE": 2,
    "DCEBA": 7,
    "EBADC": 8,
}
TENNESSEE = {"MNCK": 42, "NCKM": 26, "CKNM": 15, "KCNM": 17}


def elect(rule: Rule, profile: dict[str, int]) -> str | None:
    options = tuple(sorted(set("".join(profile))))
    ballots = []
    for ranking, count in profile.items():
        ballots += [Ballot(f"{ranking}{number}", choices=tuple(ranking)) for number in range(count)]
    voters = [Voter(ballot.agent) for ballot in ballots]
    return decide(Policy(rule, options=options), voters, ballots).answer


def test_schulze_elects_e_in_his_own_example() -> None:
    assert elect(Rule.SCHULZE, SCHULZE_2011) == "E"


@pytest.mark.parametrize(
    ("rule", "winner"),
    [(Rule.SCHULZE, "N"), (Rule.BORDA, "N"), (Rule.IRV, "K")],
    ids=lambda value: str(value),
)
def test_the_capital_of_tennessee(rule: Rule, winner: str) -> None:
    assert elect(rule, TENNESSEE) == winner


def test_pairwise_wins_count_what_is_left_out_as_last() -> None:
    profile = Profile(("a", "b", "c"), ((("b",), 2), (("a", "c"), 1)), lambda one, other: one < other)

    wins = pairwise_wins(profile)

    assert wins["b"] == {"a": 2, "b": 0, "c": 2}
    assert wins["a"] == {"a": 0, "b": 1, "c": 1}
    assert wins["c"] == {"a": 0, "b": 1, "c": 0}


def test_a_clone_does_not_spoil_a_schulze_election() -> None:
    rng = random.Random(5)
    checked = 0
    for _ in range(300):
        rankings = [tuple(rng.sample("abcd", 4)) for _ in range(rng.choice((7, 9, 15)))]
        clones = []
        for ranking in rankings:
            at = ranking.index("b")
            pair = ("b", "B") if rng.random() < 0.5 else ("B", "b")
            clones.append(ranking[:at] + pair + ranking[at + 1 :])

        def winner(options: str, rankings: list[tuple[str, ...]]) -> tuple[str, int]:
            counted = tuple((ranking, 1) for ranking in rankings)
            return schulze(Profile(tuple(options), counted, lambda one, other: one < other))

        before, lead = winner("abcd", rankings)
        after, _ = winner("abcdB", clones)
        if lead > 0:  # a Condorcet winner: no tie-break is involved
            checked += 1
            assert after.lower() == before

    assert checked > 100


def test_a_condorcet_winner_is_known_before_all_ballots_are_in() -> None:
    policy = Policy(Rule.SCHULZE, options=("a", "b", "c"))
    voters = [Voter(f"v{number}") for number in range(5)]
    ballots = [Ballot(f"v{number}", choices=("b", "a")) for number in range(3)]

    verdict = decide(policy, voters, ballots)

    assert decide(policy, voters, ballots[:2]).status is VoteStatus.PENDING
    assert decide(policy, voters, []).needed == 3
    assert verdict.answer == "b"
    assert verdict.decided_by is DecidedBy.CERTAIN
    assert verdict.votes_not_asked == 2


@pytest.mark.parametrize("choices", [(), ("a", "a"), ("a", "unknown")])
def test_a_spoilt_ranking_is_an_abstention(choices: tuple[str, ...]) -> None:
    policy = Policy(Rule.BORDA, options=("a", "b"), min_votes=1)
    voters = [Voter("v0"), Voter("v1")]

    verdict = decide(policy, voters, [Ballot("v0", choices=choices), Ballot("v1", choices=("b",))])

    assert verdict.answer == "b"
    assert verdict.votes_used == 1


def test_left_out_options_share_the_points_that_are_left() -> None:
    policy = Policy(Rule.BORDA, options=("a", "b", "c"), min_votes=1)
    voters = [Voter("v0"), Voter("v1")]

    verdict = decide(policy, voters, [Ballot("v0", choices=("a",)), Ballot("v1", choices=("b", "a", "c"))])

    assert verdict.answer == "a"
    assert verdict.margin == 0.5


def test_approval_counts_everybody_who_approves() -> None:
    policy = Policy(Rule.APPROVAL, options=("a", "b", "c"))
    voters = [Voter(f"v{number}") for number in range(4)]
    ballots = [
        Ballot("v0", choices=("a", "b")),
        Ballot("v1", choices=("b",)),
        Ballot("v2", choices=("b", "c")),
        Ballot("v3", choices=("a",)),
    ]

    verdict = decide(policy, voters, ballots)

    assert verdict.answer == "b"
    assert verdict.counts == {"a": 2, "b": 3, "c": 1}
    assert verdict.dissent == ("v3",)
    assert decide(policy, voters, ballots[:3]).status is VoteStatus.REACHED
