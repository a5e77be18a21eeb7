"""Closing a vote early gives what asking everybody gives, for every rule.

Each random vote is fed to the running tally ballot by ballot. As soon as the tally closes
it, its answer is held against a dumb twin that sees all the ballots at once, counts with
sorted lists and fractions, and shares no line with the real thing.

AGENTORCH_TALLIES sets the number of votes per rule (60,000 make a million over all rules, in
about five minutes), AGENTORCH_SEED another seed.
"""

from __future__ import annotations

import math
import os
import random
from collections import Counter
from fractions import Fraction
from itertools import pairwise, permutations

import pytest

from agentorch_cli.core.consensus import (
    Ballot,
    BallotStatus,
    Policy,
    Rule,
    Verdict,
    Voter,
    VoteStatus,
    decide,
    open_vote,
)
from agentorch_cli.core.vote import RANKED_RULES

TALLIES = int(os.environ.get("AGENTORCH_TALLIES", "1000"))
SEED = int(os.environ.get("AGENTORCH_SEED", "20030401"))

THRESHOLDS = (0.66, 0.5, 0.34, 0.75, 0.8, 0.9, 1.0, 0.6666666667, 0.1)
RELIABILITIES = (0.1, 0.3, 0.55, 2 / 3, 0.7, 0.9, 0.99)
OPTIONS = ("a", "b", "c", "d")


def random_vote(rng: random.Random, rule: Rule, tolerant: bool) -> tuple[Policy, list[Voter], list[Ballot]]:
    size = rng.randint(1, 9)
    policy = Policy(
        rule,
        threshold=rng.choice(THRESHOLDS),
        quorum=rng.randint(1, 6),
        min_votes=rng.randint(1, 4),
        confidence=1.0,
        options=OPTIONS if rule is Rule.APPROVAL or rule in RANKED_RULES or rng.random() < 0.3 else (),
        tolerance=rng.choice((0.5, 1.0, 1.5)) if tolerant else 0.0,
        relative_tolerance=rng.choice((0.0, 0.25)) if tolerant else 0.0,
        trim=rng.choice((0.0, 0.1, 0.2, 0.25, 0.4)),
    )
    alike = rng.random() < 0.5
    voters = [
        Voter(
            f"v{i}",
            reliability=2 / 3 if alike else rng.choice(RELIABILITIES),
            performance=0.5 if alike else rng.choice((0.2, 0.5, 0.9)),
        )
        for i in range(size)
    ]
    favourite = rng.random()
    numeric = tolerant or rule in (Rule.MEDIAN, Rule.TRIMMED_MEAN)
    if numeric:
        policy = Policy(
            **{f: getattr(policy, f) for f in Policy.__dataclass_fields__ if f != "options"},
        )
    ballots = []
    for voter in voters:
        if rng.random() < 0.15:
            ballots.append(
                Ballot(voter.agent, "a", rng.choice((BallotStatus.ABSTAINED, BallotStatus.LOST)), OPTIONS)
            )
            continue
        if numeric:
            answer = (
                "3"
                if rng.random() < favourite
                else rng.choice(("1", "2", "2.5", "3.25", "4", "6", "-1", "1/3"))
            )
        else:
            answer = "a" if rng.random() < favourite else rng.choice("abcdef")
        options = list(OPTIONS)
        rng.shuffle(options)
        if rng.random() < favourite:
            options.sort()
        choices = tuple(options[: rng.randint(1, 4)])
        ballots.append(Ballot(voter.agent, answer, choices=choices))
    return policy, voters, ballots


# --- the dumb twin -------------------------------------------------------------------------


def dumb_groups(numbers: list[Fraction], policy: Policy) -> list[list[Fraction]]:
    numbers = sorted(numbers)

    def near(a: Fraction, b: Fraction) -> Fraction:
        return max(Fraction(policy.tolerance), Fraction(policy.relative_tolerance) * max(abs(a), abs(b)))

    for at in range(1, len(numbers)):
        if numbers[at] - numbers[at - 1] > near(numbers[at - 1], numbers[at]):
            return dumb_groups(numbers[:at], policy) + dumb_groups(numbers[at:], policy)
    if numbers and numbers[-1] - numbers[0] > 2 * near(numbers[0], numbers[-1]):
        centre = (numbers[0] + numbers[-1]) / 2
        at = max(
            range(1, len(numbers)),
            key=lambda at: (
                numbers[at] - numbers[at - 1],
                -abs((numbers[at] + numbers[at - 1]) / 2 - centre),
                -at,
            ),
        )
        return dumb_groups(numbers[:at], policy) + dumb_groups(numbers[at:], policy)
    return [numbers] if numbers else []


def dumb_median(numbers: list[Fraction]) -> Fraction:
    numbers = sorted(numbers)
    return (numbers[(len(numbers) - 1) // 2] + numbers[len(numbers) // 2]) / 2


def dumb_best(names: list[str], votes: dict[str, Fraction], voters: dict[str, list[Voter]]) -> str:
    def key(name: str) -> tuple[Fraction, int, Fraction]:
        weight = sum(round(math.log(v.reliability / (1 - v.reliability)) * 10**9) for v in voters[name])
        skill = sum(Fraction(str(v.performance)) for v in voters[name])
        return votes[name], weight, skill / max(1, len(voters[name]))

    return max(sorted(names), key=key)


def dumb_schulze(rankings: list[tuple[str, ...]]) -> list[str]:
    def prefers(ranking: tuple[str, ...], a: str, b: str) -> bool:
        return a in ranking and (b not in ranking or ranking.index(a) < ranking.index(b))

    def wins(a: str, b: str) -> int:
        return sum(prefers(ranking, a, b) for ranking in rankings)

    def strength(a: str, b: str) -> int:
        best = 0
        for length in range(len(OPTIONS) - 1):
            for middle in permutations([o for o in OPTIONS if o not in (a, b)], length):
                path = (a, *middle, b)
                steps = list(pairwise(path))
                if all(wins(x, y) > wins(y, x) for x, y in steps):
                    best = max(best, min(wins(x, y) for x, y in steps))
        return best

    return [a for a in OPTIONS if all(strength(a, b) >= strength(b, a) for b in OPTIONS if b != a)]


def dumb_runoff(rankings: list[tuple[str, ...]], worst_first: list[str]) -> str:
    standing = list(OPTIONS)
    while len(standing) > 1:
        tops = Counter(next((o for o in r if o in standing), None) for r in rankings)
        fewest = min(tops[o] for o in standing)
        standing.remove(next(o for o in worst_first if o in standing and tops[o] == fewest))
    return standing[0]


def dumb_answer(policy: Policy, voters: list[Voter], ballots: list[Ballot]) -> str | None:
    """The answer when everybody was heard, or None."""
    by_agent = {voter.agent: voter for voter in voters}
    cast = [ballot for ballot in ballots if ballot.status is BallotStatus.ANSWERED]
    rule = policy.rule
    if policy.options and rule is not Rule.APPROVAL and rule not in RANKED_RULES:
        cast = [ballot for ballot in cast if ballot.answer in policy.options]
    if len(cast) < policy.min_votes:
        return None
    if rule is Rule.MEDIAN:
        return text_of(dumb_median([Fraction(b.answer) for b in cast]))
    if rule is Rule.TRIMMED_MEAN:
        numbers = sorted(Fraction(b.answer) for b in cast)
        drop = Fraction(str(policy.trim)) * len(numbers) // 1
        kept = [n for at, n in enumerate(numbers) if drop <= at < len(numbers) - drop]
        return text_of(sum(kept) / Fraction(len(kept)))
    if rule is Rule.APPROVAL or rule in RANKED_RULES:
        backers = {o: [by_agent[b.agent] for b in cast if o == b.choices[0]] for o in OPTIONS}
        firsts = {o: Fraction(len(backers[o])) for o in OPTIONS}
        rankings = [ballot.choices for ballot in cast]
        if rule is Rule.APPROVAL:
            backers = {o: [by_agent[b.agent] for b in cast if o in b.choices] for o in OPTIONS}
            return dumb_best(list(OPTIONS), {o: Fraction(len(backers[o])) for o in OPTIONS}, backers)
        if rule is Rule.SCHULZE:
            return dumb_best(dumb_schulze(rankings), firsts, backers)
        if rule is Rule.BORDA:
            points = {
                o: sum(Fraction(3 - r.index(o)) if o in r else Fraction(4 - len(r) - 1, 2) for r in rankings)
                for o in OPTIONS
            }
            top = max(points.values())
            return dumb_best([o for o in OPTIONS if points[o] == top], firsts, backers)
        best_first: list[str] = []
        while len(best_first) < len(OPTIONS):
            best_first.append(dumb_best([o for o in OPTIONS if o not in best_first], firsts, backers))
        return dumb_runoff(rankings, best_first[::-1])

    names = {ballot.agent: ballot.answer for ballot in cast}
    if policy.tolerant:
        found = dumb_groups([Fraction(b.answer) for b in cast], policy)
        names = {
            b.agent: text_of(dumb_median(next(g for g in found if Fraction(b.answer) in g))) for b in cast
        }
    backing: dict[str, list[Voter]] = {}
    for agent, name in names.items():
        backing.setdefault(name, []).append(by_agent[agent])
    if rule is Rule.WEIGHTED:
        k = len(policy.options) or max(3, len(backing) + 1)
        weights = {
            name: sum(round(math.log(v.reliability / (1 - v.reliability)) * 10**9) for v in backers) / 10**9
            + len(backers) * math.log(k - 1)
            for name, backers in backing.items()
        }
        return max(
            sorted(backing),
            key=lambda n: (
                weights[n],
                sum(Fraction(str(v.performance)) for v in backing[n]) / len(backing[n]),
            ),
        )
    winner = dumb_best(list(backing), {n: Fraction(len(b)) for n, b in backing.items()}, backing)
    live = max(policy.min_votes, len(cast))
    goal = {
        Rule.PLURALITY: 1,
        Rule.ADAPTIVE: 1,
        Rule.MAJORITY: live // 2 + 1,
        Rule.UNANIMOUS: live,
        Rule.QUORUM: policy.quorum,
        Rule.SUPERMAJORITY: max(1, math.ceil(Fraction(str(policy.threshold)) * live - Fraction(1, 10**9))),
    }[rule]
    return winner if len(backing[winner]) >= goal else None


def text_of(number: Fraction) -> str:
    """A number the way the ballots write it, for the denominators that occur here."""
    for places in range(12):
        if (number * 10**places).denominator == 1:
            whole = str(abs(int(number * 10**places))).rjust(places + 1, "0")
            text = f"{whole[:-places]}.{whole[-places:]}" if places else whole
            return f"-{text}" if number < 0 else text
    return f"{number.numerator}/{number.denominator}"


# --- the property --------------------------------------------------------------------------


def close_one_by_one(policy: Policy, voters: list[Voter], ballots: list[Ballot]) -> tuple[Verdict, int]:
    tally = open_vote(policy, voters)
    heard = 0
    for ballot in ballots:
        if tally.verdict().decided:
            break
        tally.add(ballot)
        heard += 1
    return tally.verdict(), heard


CASES = [(rule, False) for rule in Rule] + [
    (rule, True)
    for rule in (
        Rule.PLURALITY,
        Rule.MAJORITY,
        Rule.SUPERMAJORITY,
        Rule.UNANIMOUS,
        Rule.QUORUM,
        Rule.WEIGHTED,
    )
]


@pytest.mark.parametrize(("rule", "tolerant"), CASES, ids=lambda value: str(value))
def test_closing_early_gives_what_asking_everybody_gives(rule: Rule, tolerant: bool) -> None:
    rng = random.Random(f"{SEED} {rule} {tolerant}")
    closed_early = 0
    for number in range(TALLIES // 4 if tolerant else TALLIES):
        policy, voters, ballots = random_vote(rng, rule, tolerant)
        rng.shuffle(ballots)
        expected = dumb_answer(policy, voters, ballots)

        verdict, heard = close_one_by_one(policy, voters, ballots)

        story = f"vote {number} of seed {SEED}: {policy} {voters} {ballots} {verdict}"
        assert verdict.decided, story
        assert verdict.answer == expected, story
        closed_early += heard < len(ballots)
    assert closed_early > 0, "no vote closed early: the property was not tested"


@pytest.mark.parametrize(("rule", "tolerant"), CASES, ids=lambda value: str(value))
def test_the_order_of_ballots_never_matters(rule: Rule, tolerant: bool) -> None:
    rng = random.Random(f"order {SEED} {rule} {tolerant}")
    for _ in range(TALLIES // 10):
        policy, voters, ballots = random_vote(rng, rule, tolerant)
        some = ballots[: rng.randint(0, len(ballots))]
        expected = decide(policy, voters, some)

        rng.shuffle(some)
        rng.shuffle(voters)

        assert decide(policy, voters, some) == expected, f"seed {SEED}: {policy} {voters} {some}"


@pytest.mark.parametrize("rule", list(Rule))
def test_asking_what_is_needed_wave_by_wave_always_ends(rule: Rule) -> None:
    rng = random.Random(f"waves {SEED} {rule}")
    for _ in range(TALLIES // 10):
        policy, voters, ballots = random_vote(rng, rule, False)
        tally = open_vote(policy, voters)
        waiting = list(ballots)
        while not (verdict := tally.verdict()).decided:
            assert 1 <= verdict.needed <= len(waiting), f"seed {SEED}: {policy} {verdict}"
            for ballot in waiting[: verdict.needed]:
                tally.add(ballot)
            del waiting[: verdict.needed]

        assert verdict.needed == 0
        assert verdict.status in (VoteStatus.REACHED, VoteStatus.FAILED)
        assert verdict.votes_not_asked == len(waiting)
        assert verdict.answer == dumb_answer(policy, voters, ballots)
