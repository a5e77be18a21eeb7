"""What a vote decides: thresholds, waves, losses, ties, and the verdict that is stored."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from fractions import Fraction

import pytest

from agentorch_cli.core.consensus import (
    Ballot,
    BallotStatus,
    Basis,
    DecidedBy,
    Policy,
    Rule,
    Verdict,
    Voter,
    VoteStatus,
    decide,
    explain,
    open_vote,
)
from agentorch_cli.core.vote import beta_confidence, beta_lacks, threshold_count
from agentorch_cli.errors import InvalidTask


def electorate(size: int) -> list[Voter]:
    return [Voter(f"v{number}") for number in range(size)]


def answers(text: str) -> list[Ballot]:
    """One letter per voter: a label, `-` for an abstention, `x` for a lost voter."""
    statuses = {"-": BallotStatus.ABSTAINED, "x": BallotStatus.LOST}
    return [
        Ballot(f"v{number}", letter, statuses.get(letter, BallotStatus.ANSWERED))
        for number, letter in enumerate(text)
    ]


def vote(policy: Policy, size: int, text: str, out: int = 0) -> Verdict:
    return decide(policy, electorate(size), answers(text), out)


SUPER = Policy(Rule.SUPERMAJORITY)


def test_four_of_five_are_a_supermajority() -> None:
    verdict = vote(SUPER, 5, "aaaa")

    assert verdict.status is VoteStatus.REACHED
    assert verdict.answer == "a"
    assert verdict.decided_by is DecidedBy.THRESHOLD
    assert (verdict.threshold_count, verdict.electorate) == (4, 5)
    assert (verdict.votes_used, verdict.votes_not_asked, verdict.needed) == (4, 1, 0)


def test_three_to_two_is_none() -> None:
    verdict = vote(SUPER, 5, "aaabb")

    assert verdict.status is VoteStatus.FAILED
    assert verdict.answer is None
    assert verdict.leader == "a"
    assert verdict.counts == {"a": 3, "b": 2}
    assert verdict.dissent == ("v3", "v4")
    assert verdict.confidence == 0.6
    assert verdict.confidence_basis is Basis.SHARE


def test_a_vote_fails_as_soon_as_nobody_can_reach_the_threshold() -> None:
    assert vote(SUPER, 5, "aab").status is VoteStatus.PENDING
    assert vote(SUPER, 5, "aabb").status is VoteStatus.FAILED
    assert vote(SUPER, 5, "abc").status is VoteStatus.FAILED
    assert vote(SUPER, 5, "abc").decided_by is DecidedBy.IMPOSSIBLE


def test_a_loss_lowers_the_electorate_and_the_threshold() -> None:
    verdict = vote(SUPER, 5, "aaxa")

    assert verdict.status is VoteStatus.REACHED
    assert (verdict.electorate, verdict.threshold_count) == (4, 3)


def test_an_abstention_counts_as_a_loss_and_never_as_a_label() -> None:
    assert vote(SUPER, 5, "a--aa").status is VoteStatus.REACHED
    assert vote(SUPER, 5, "-----").decided_by is DecidedBy.TOO_FEW
    assert "-" not in vote(SUPER, 5, "a--aa").counts


def test_losses_never_lower_the_electorate_below_the_floor() -> None:
    policy = Policy(Rule.SUPERMAJORITY, min_votes=3)

    alone = vote(policy, 5, "axxx")

    assert alone.status is VoteStatus.FAILED
    assert alone.decided_by is DecidedBy.TOO_FEW
    assert alone.electorate == 3
    assert vote(policy, 5, "aaaxx").status is VoteStatus.REACHED


def test_all_crashed_is_a_failed_vote_with_no_leader() -> None:
    verdict = vote(SUPER, 3, "xxx")

    assert verdict.status is VoteStatus.FAILED
    assert verdict.leader is None
    assert verdict.counts == {}
    assert verdict.confidence == 0


def test_the_first_wave_is_the_threshold_and_then_what_the_leader_lacks() -> None:
    assert vote(SUPER, 5, "").needed == 4
    assert vote(SUPER, 5, "", out=4).needed == 0
    assert vote(SUPER, 5, "aab", out=1).needed == 1
    assert vote(SUPER, 5, "aaab").needed == 1
    assert vote(Policy(Rule.UNANIMOUS), 5, "").needed == 5
    assert vote(Policy(Rule.MAJORITY), 7, "").needed == 4
    assert vote(Policy(Rule.MAJORITY), 7, "aaab").needed == 1
    assert vote(Policy(Rule.ADAPTIVE), 44, "").needed == 4
    assert vote(Policy(Rule.ADAPTIVE), 44, "aaab").needed == 3
    assert vote(Policy(Rule.QUORUM, quorum=2), 3, "").needed == 2


def test_a_voter_has_one_ballot_and_the_first_stands() -> None:
    tally = open_vote(SUPER, electorate(3))

    assert tally.add(Ballot("v0", "a"))
    assert not tally.add(Ballot("v0", "b"))
    assert not tally.add(Ballot("v0", "a"))
    assert tally.verdict().counts == {"a": 1}


def test_nobody_joins_an_open_vote() -> None:
    tally = open_vote(SUPER, electorate(3))

    assert not tally.add(Ballot("late", "a"))
    assert tally.verdict().votes_used == 0


def test_an_answer_outside_of_the_options_is_an_abstention() -> None:
    policy = Policy(Rule.MAJORITY, options=("a", "b"))

    verdict = vote(policy, 3, "aca")

    assert verdict.counts == {"a": 2}
    assert verdict.electorate == 2


@pytest.mark.parametrize(
    ("rule", "text", "status"),
    [
        (Rule.PLURALITY, "aabcd", VoteStatus.REACHED),
        (Rule.MAJORITY, "aabcd", VoteStatus.FAILED),
        (Rule.MAJORITY, "aaabb", VoteStatus.REACHED),
        (Rule.UNANIMOUS, "aaaaa", VoteStatus.REACHED),
        (Rule.UNANIMOUS, "ab", VoteStatus.FAILED),
        (Rule.UNANIMOUS, "aaxaa", VoteStatus.REACHED),
        (Rule.PLURALITY, "aaa", VoteStatus.REACHED),
        (Rule.PLURALITY, "aab", VoteStatus.PENDING),
    ],
)
def test_rules(rule: Rule, text: str, status: VoteStatus) -> None:
    assert vote(Policy(rule), 5, text).status is status


def test_a_quorum_waits_while_another_answer_may_overtake() -> None:
    policy = Policy(Rule.QUORUM, quorum=2)

    assert vote(policy, 3, "aa").answer == "a"
    assert vote(policy, 5, "aa").status is VoteStatus.PENDING
    assert vote(policy, 5, "aabbb").answer == "b"
    assert vote(policy, 3, "abc").status is VoteStatus.FAILED


def test_a_half_is_no_majority_and_exactly_a_half_may_be_a_threshold() -> None:
    assert vote(Policy(Rule.MAJORITY), 4, "aabb").status is VoteStatus.FAILED
    assert vote(Policy(Rule.SUPERMAJORITY, threshold=0.5), 4, "aabb").answer == "a"


@pytest.mark.parametrize("percent", range(1, 101))
def test_thresholds_are_exact_for_every_hundredth_and_electorate(percent: int) -> None:
    for size in range(1, 101):
        assert threshold_count(percent / 100, size) == max(1, -(-percent * size // 100))


def test_a_threshold_typed_with_few_digits_is_forgiven() -> None:
    for size in range(1, 101):
        assert threshold_count(2 / 3, size) == math.ceil(Fraction(2, 3) * size)
        assert threshold_count(0.66666666667, size) == math.ceil(Fraction(2, 3) * size)
    assert threshold_count(0.67, 3) == 3


def test_the_beta_rule_stops_where_it_should() -> None:
    stops = [(4, 0), (6, 1), (8, 2)]

    assert all(beta_confidence(ahead, behind) >= Fraction("0.95") for ahead, behind in stops)
    assert all(beta_confidence(ahead - 1, behind) < Fraction("0.95") for ahead, behind in stops)
    assert beta_confidence(0, 0) == Fraction(1, 2)
    assert beta_lacks(0, 0, 0.95) == 4
    assert beta_lacks(9, 0, 1.0) is None


def test_the_beta_rule_is_the_integral_of_the_beta_density() -> None:
    for ahead, behind in [(1, 0), (4, 0), (6, 1), (3, 3), (10, 4)]:
        steps = 20_000
        grid = [(0.5 + number + 0.0) / steps for number in range(steps)]
        density = [p**ahead * (1 - p) ** behind for p in grid]
        above = sum(value for p, value in zip(grid, density, strict=True) if p > 0.5) / sum(density)

        assert float(beta_confidence(ahead, behind)) == pytest.approx(above, abs=1e-6)


def test_an_adaptive_vote_stops_when_it_is_sure() -> None:
    policy = Policy(Rule.ADAPTIVE)

    assert vote(policy, 40, "aaa").status is VoteStatus.PENDING
    sure = vote(policy, 40, "aaaa")
    assert sure.decided_by is DecidedBy.CONFIDENCE
    assert sure.confidence == pytest.approx(31 / 32)
    assert sure.confidence_basis is Basis.POSTERIOR
    assert vote(policy, 40, "aaaaab").status is VoteStatus.PENDING
    assert vote(policy, 40, "aaaaaab").status is VoteStatus.REACHED


def test_a_tie_goes_to_weight_then_performance_then_text() -> None:
    policy = Policy(Rule.PLURALITY)
    ballots = [Ballot("x", "b"), Ballot("y", "a")]

    def answer(x: Voter, y: Voter) -> str | None:
        forwards = decide(policy, [x, y], ballots).answer
        assert decide(policy, [y, x], ballots[::-1]).answer == forwards
        return forwards

    assert answer(Voter("x"), Voter("y")) == "a"
    assert answer(Voter("x", performance=0.9), Voter("y")) == "b"
    assert answer(Voter("x", performance=0.9), Voter("y", reliability=0.7)) == "a"


def test_a_level_race_closes_only_if_the_tie_cannot_turn_it() -> None:
    policy = Policy(Rule.PLURALITY, min_votes=1, options=("a", "b"))
    strong, weak = Voter("strong", 0.9), Voter("weak", 0.6)

    assert decide(policy, [strong, weak], [Ballot("strong", "b")]).answer == "b"
    assert decide(policy, [strong, weak], [Ballot("weak", "b")]).status is VoteStatus.PENDING


def test_the_stored_ballots_give_the_stored_verdict() -> None:
    stored = vote(SUPER, 5, "aaxba")
    tally = open_vote(SUPER, electorate(5))
    for ballot in reversed(answers("aaxba")):
        tally.add(ballot)

    assert tally.verdict() == stored
    assert asdict(tally.verdict()) == asdict(stored)


def test_verdicts_explain_themselves() -> None:
    assert explain(vote(SUPER, 5, "aaa")) == "3 of 3 agree, 4 are needed; asks 1 more"
    assert explain(vote(SUPER, 5, "aaa", out=2)).endswith("waits for those who were asked")
    assert explain(vote(SUPER, 5, "")) == "nobody has answered, 4 are needed; asks 4 more"
    assert explain(vote(SUPER, 5, "aaaa")) == "reached: 4 of 4 agree, 4 are needed"
    assert explain(vote(SUPER, 5, "abc")).startswith("not reached: 1 of 3 agree")
    assert explain(vote(SUPER, 3, "xxx")).endswith("fewer voters are left than the vote needs")
    assert "sure enough at 0.969 (posterior)" in explain(vote(Policy(Rule.ADAPTIVE), 40, "aaaa"))
    assert "can change the leader" in explain(vote(Policy(Rule.PLURALITY), 5, "aaa"))
    assert "everybody was heard" in explain(vote(Policy(Rule.PLURALITY), 3, "abc"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0},
        {"threshold": 1.1},
        {"threshold": math.nan},
        {"quorum": 0},
        {"min_votes": 0},
        {"panel": 0},
        {"cap": 0},
        {"confidence": 0.5},
        {"tolerance": -1},
        {"tolerance": math.inf},
        {"relative_tolerance": 1},
        {"trim": 0.5},
        {"options": ("a", "a")},
        {"rule": Rule.SCHULZE},
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidTask, match="consensus: "):
        replace(SUPER, **wrong)


def test_seats_are_the_panel_or_the_cap_and_never_more_than_the_fleet() -> None:
    assert SUPER.seats(3) == 3
    assert SUPER.seats(40) == 5
    assert Policy(Rule.WEIGHTED).seats(40) == 7
    assert Policy(Rule.ADAPTIVE, cap=None).seats(40) == 40


@pytest.mark.parametrize(
    ("rule", "text", "answer"),
    [
        (Rule.MEDIAN, ["10", "12", "100"], "12"),
        (Rule.MEDIAN, ["10", "12"], "11"),
        (Rule.MEDIAN, ["1/3", "1/3", "5"], "1/3"),
        (Rule.TRIMMED_MEAN, ["1", "2", "3", "4", "100"], "3"),
    ],
)
def test_numeric_rules(rule: Rule, text: list[str], answer: str) -> None:
    ballots = [Ballot(f"v{number}", said) for number, said in enumerate(text)]

    assert decide(Policy(rule), electorate(len(text)), ballots).answer == answer


def test_a_median_closes_when_the_rest_cannot_move_it() -> None:
    policy = Policy(Rule.MEDIAN)

    assert decide(policy, electorate(5), answers("777")).answer == "7"
    assert decide(policy, electorate(5), answers("778")).status is VoteStatus.PENDING
    assert decide(policy, electorate(5), answers("778")).needed == 2
    assert decide(policy, electorate(3), answers("7a7")).counts == {"7": 2}


def test_the_confidence_of_a_median_is_the_share_within_its_tolerance() -> None:
    ballots = [Ballot(f"v{number}", said) for number, said in enumerate(["10", "10.4", "50"])]

    strict = decide(Policy(Rule.MEDIAN), electorate(3), ballots)
    loose = decide(Policy(Rule.MEDIAN, tolerance=0.5), electorate(3), ballots)

    assert strict.confidence == pytest.approx(1 / 3)
    assert loose.confidence == pytest.approx(2 / 3)
    assert loose.dissent == ("v2",)


def test_numbers_near_each_other_agree_on_the_median_of_their_group() -> None:
    policy = Policy(Rule.SUPERMAJORITY, tolerance=0.5)
    ballots = [Ballot(f"v{number}", said) for number, said in enumerate(["10", "10.4", "9.8", "10.1", "50"])]

    verdict = decide(policy, electorate(5), ballots)

    assert verdict.answer == "10.05"
    assert verdict.counts == {"10.05": 4, "50": 1}
    assert verdict.dissent == ("v4",)


def test_a_group_closes_early_only_on_equal_numbers() -> None:
    policy = Policy(Rule.MAJORITY, tolerance=0.5)

    assert decide(policy, electorate(5), answers("777")).answer == "7"
    near = [Ballot(f"v{number}", said) for number, said in enumerate(["7", "7.1", "7"])]
    assert decide(policy, electorate(5), near).status is VoteStatus.PENDING
    assert decide(policy, electorate(5), near).needed == 1
