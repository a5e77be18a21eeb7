"""The reliability-weighted vote, against its formulas written out."""

from __future__ import annotations

import random

import pytest
from effort import lines_of

from agentorch_cli.core.consensus import (
    Ballot,
    Basis,
    DecidedBy,
    Policy,
    Rule,
    Voter,
    VoteStatus,
    decide,
    open_vote,
)
from agentorch_cli.core.reliability import (
    CLAMP_UNTIL,
    Record,
    agreement_credit,
    best_first,
    credit_votes,
    outcome_credit,
    reliability,
    verified,
)
from agentorch_cli.core.weighted import WeightedTally, option_count

WEIGHTED = Policy(Rule.WEIGHTED)


def posterior(votes: list[tuple[float, str]], answer: str, options: int) -> float:
    """The definition of 1.: Bayes with K options, one voter after the other."""
    seen = sorted({said for _, said in votes} | {answer})
    chances = dict.fromkeys(seen, 1.0)
    unseen = 1.0
    for p, said in votes:
        for name in chances:
            chances[name] *= p if name == said else (1 - p) / (options - 1)
        unseen *= (1 - p) / (options - 1)
    return chances[answer] / (sum(chances.values()) + unseen * (options - len(seen)))


def test_the_posterior_is_bayes_rule() -> None:
    rng = random.Random(3)
    for _ in range(300):
        votes = [(rng.uniform(0.05, 0.99), rng.choice("abcd")) for _ in range(rng.randint(1, 8))]
        voters = [Voter(f"v{number}", p) for number, (p, _) in enumerate(votes)]
        ballots = [Ballot(f"v{number}", said) for number, (_, said) in enumerate(votes)]
        options = max(3, len({said for _, said in votes}) + 1)

        verdict = decide(WEIGHTED, voters, ballots)

        expected = posterior(votes, str(verdict.leader), options)
        assert verdict.confidence == pytest.approx(expected, rel=1e-6)
        assert verdict.confidence_basis is Basis.POSTERIOR
        assert all(posterior(votes, said, options) <= expected * (1 + 1e-6) for _, said in votes)


def test_k_is_the_options_or_one_more_than_seen_and_at_least_three() -> None:
    assert [option_count(WEIGHTED, distinct) for distinct in (0, 1, 2, 3, 9)] == [3, 3, 3, 4, 10]
    assert option_count(Policy(Rule.WEIGHTED, options=("a", "b")), 2) == 2


def test_two_good_agents_that_agree_are_enough_and_one_never_is() -> None:
    voters = [Voter(f"v{number}", 0.9) for number in range(7)]

    assert decide(WEIGHTED, voters, []).needed == 2
    assert decide(WEIGHTED, voters, [Ballot("v0", "a")]).needed == 1
    sure = decide(WEIGHTED, voters, [Ballot("v0", "a"), Ballot("v1", "a")])
    assert sure.decided_by is DecidedBy.CONFIDENCE
    assert sure.votes_not_asked == 5
    star = [Voter("star", 0.999), *voters]
    lone = Policy(Rule.WEIGHTED, min_votes=1)
    assert decide(lone, star, [Ballot("star", "a")]).confidence > 0.95
    assert decide(lone, star, [Ballot("star", "a")]).status is VoteStatus.PENDING


def test_after_the_first_wave_one_or_two_more_are_asked() -> None:
    good = [Voter(f"v{number}", 0.9) for number in range(7)]
    weak = [Voter(f"v{number}", 0.55) for number in range(7)]
    split = [Ballot("v0", "a"), Ballot("v1", "b")]

    assert decide(WEIGHTED, good, split).needed == 2
    assert decide(WEIGHTED, weak, split).needed == 2
    assert decide(WEIGHTED, good, [*split, Ballot("v2", "a")]).needed == 1
    assert decide(WEIGHTED, good, split, out=1).needed == 1


def test_a_frugal_vote_stops_once_the_rest_can_neither_change_nor_settle_it() -> None:
    voters = [Voter("s1", 0.9), Voter("s2", 0.9), *[Voter(f"w{number}", 0.55) for number in range(2)]]
    split = [Ballot("s1", "a"), Ballot("w0", "b")]
    patient = Policy(Rule.WEIGHTED, options=("a", "b"), confidence=0.999)
    frugal = Policy(Rule.WEIGHTED, options=("a", "b"), confidence=0.999, frugal=True)

    assert decide(frugal, voters, split).status is VoteStatus.PENDING
    assert decide(patient, voters, [*split, Ballot("s2", "a")]).status is VoteStatus.PENDING
    assert decide(frugal, voters, [*split, Ballot("s2", "a")]).decided_by is DecidedBy.CERTAIN


def test_two_reliable_agents_outvote_three_weak_ones() -> None:
    voters = [Voter("s1", 0.9), Voter("s2", 0.9), *[Voter(f"w{number}", 0.55) for number in range(3)]]
    ballots = [Ballot("s1", "a"), Ballot("s2", "a"), *[Ballot(f"w{number}", "b") for number in range(3)]]

    assert decide(WEIGHTED, voters, ballots).answer == "a"


def test_an_agent_known_to_be_wrong_speaks_against_its_answer() -> None:
    policy = Policy(Rule.WEIGHTED, options=("a", "b"), min_votes=1)
    voters = [Voter("liar", 0.05), Voter("fair", 0.6)]

    assert decide(policy, voters, [Ballot("liar", "a"), Ballot("fair", "b")]).answer == "b"


def test_certainty_holds_for_every_number_of_answers_that_may_come() -> None:
    """Four weak voters lead a strong one: sure if a fourth answer comes, not if three stay possible."""
    policy = Policy(Rule.WEIGHTED, confidence=1.0)
    voters = [*[Voter(f"w{number}", 0.45) for number in range(4)], Voter("strong", 0.726), Voter("last", 0.5)]
    ballots = [*[Ballot(f"w{number}", "a") for number in range(4)], Ballot("strong", "b")]

    assert decide(policy, voters, ballots).status is VoteStatus.PENDING
    assert decide(policy, voters, [*ballots, Ballot("last", "b")]).answer == "b"
    assert decide(policy, voters, [*ballots, Ballot("last", "c")]).answer == "a"


def test_a_lead_that_the_rest_could_level_is_not_certain() -> None:
    """The lead of two equal votes and the two votes left are the same sum, but not the same float."""
    policy = Policy(Rule.WEIGHTED, confidence=1.0)
    voters = [Voter(f"v{number}", 2 / 3) for number in range(6)]
    ballots = [Ballot("v0", "b"), *[Ballot(f"v{number}", "c") for number in range(1, 4)]]

    assert decide(policy, voters, ballots).status is VoteStatus.PENDING


def test_new_agents_start_at_two_thirds() -> None:
    assert Record().estimate == pytest.approx(2 / 3)
    assert Record(10, 10).estimate == pytest.approx(14 / 16)


def test_the_clamp_holds_until_thirty_outcomes_are_verified() -> None:
    perfect, hopeless = Record(1_000, 1_000), Record(0, 1_000)

    assert reliability(perfect, CLAMP_UNTIL - 1) == 0.90
    assert reliability(hopeless, CLAMP_UNTIL - 1) == 0.55
    assert reliability(perfect, CLAMP_UNTIL) == pytest.approx(1004 / 1006)
    assert reliability(hopeless, CLAMP_UNTIL) == pytest.approx(4 / 1006)


def closed(votes: list[tuple[str, float, str]]) -> WeightedTally:
    tally = open_vote(WEIGHTED, [Voter(agent, p) for agent, p, _ in votes])
    for agent, _, said in votes:
        tally.add(Ballot(agent, said))
    assert isinstance(tally, WeightedTally)
    return tally


def test_credit_is_the_posterior_of_ones_answer_without_oneself() -> None:
    votes = [("x", 0.9, "a"), ("y", 0.7, "a"), ("z", 0.6, "b"), ("u", 0.8, "c"), ("w", 0.7, "a")]

    credit = agreement_credit(closed(votes))

    for agent, _, said in votes:
        others = [(p, answer) for other, p, answer in votes if other != agent]
        assert credit[agent].successes == pytest.approx(posterior(others, said, 4), rel=1e-6)
        assert credit[agent].trials == 1


@pytest.mark.parametrize("rule", [Rule.SUPERMAJORITY, Rule.WEIGHTED, Rule.MEDIAN])
def test_every_rule_that_counts_answers_gives_credit(rule: Rule) -> None:
    voters = [Voter(name, 0.7) for name in "xyz"]
    ballots = [Ballot("x", "10"), Ballot("y", "10.2"), Ballot("z", "50")]

    strict = credit_votes(Policy(rule), voters, ballots)
    loose = credit_votes(Policy(rule, tolerance=0.5), voters, ballots)

    assert strict["x"] == strict["y"] == strict["z"]
    assert loose["x"].successes > 4 * loose["z"].successes
    options = Policy(Rule.BORDA, options=("a", "b"))
    assert credit_votes(options, voters, [Ballot("x", choices=("a", "b"))]) == {}


def test_a_single_voter_earns_nothing() -> None:
    assert agreement_credit(closed([("x", 0.9, "a")])) == {}


def test_an_agent_that_stands_alone_cannot_confirm_itself() -> None:
    credit = agreement_credit(closed([("star", 0.99, "a"), ("one", 0.6, "b"), ("two", 0.6, "b")]))

    assert credit["star"].successes < 0.2


def test_a_known_truth_judges_every_ballot() -> None:
    answers = {"x": "a", "y": "b", "z": "c"}

    assert outcome_credit(answers, truth="b") == {
        "x": verified(False),
        "y": verified(True),
        "z": verified(False),
    }
    assert outcome_credit(answers, decided="a", right=True) == outcome_credit(answers, truth="a")


def test_a_wrong_decision_judges_only_those_who_agreed_with_it() -> None:
    answers = {"x": "a", "y": "a", "z": "c"}

    assert outcome_credit(answers, decided="a", right=False) == {"x": verified(False), "y": verified(False)}


def test_an_outcome_replaces_the_credit_of_the_vote() -> None:
    before = Record(5, 7)
    given = Record(0.25, 1)

    after = before.plus(given).minus(given).plus(verified(True))

    assert after == Record(8, 10)


def test_the_best_is_asked_first_and_equals_by_id() -> None:
    assert best_first({"b": 0.9, "a": 0.9, "c": 0.95, "d": 0.1}) == ["c", "a", "b", "d"]


@pytest.mark.parametrize("confidence", [0.95, 1.0])
@pytest.mark.parametrize("rule", [Rule.SUPERMAJORITY, Rule.PLURALITY, Rule.ADAPTIVE, Rule.WEIGHTED])
def test_a_ballot_costs_little_with_fifty_labels(rule: Rule, confidence: float) -> None:
    """A ballot and its outlook: some lines for each label, and not for each ballot that came before."""
    size = 200
    policy = Policy(rule, confidence=confidence)
    voters = [Voter(f"v{number}", 0.6) for number in range(size)]
    ballots = [Ballot(f"v{number}", f"label {number % 50}") for number in range(size)]
    tally = open_vote(policy, voters)

    def cast(first: int, last: int) -> None:
        for ballot in ballots[first:last]:
            tally.add(ballot)
            tally.outlook()

    cast(0, 50)
    early, late = lines_of(lambda: cast(50, 100)), lines_of(lambda: cast(150, 200))
    print(f"{rule} at {confidence}: {early / 50:.0f} lines a ballot, then {late / 50:.0f}")

    assert late < 1.2 * early
    assert early / 50 < 2_000
