"""Ballots that say more than one answer: ranked, approving, numbers, numbers within a tolerance.

Each tally closes early only on an argument that holds for every way the rest may vote, be
lost or abstain, with r ballots out:

* approval: as plurality, since a ballot adds at most one to each option.
* Schulze: the leader beats each rival by more than r ballots. It is then the Condorcet winner
  whatever comes, and Schulze elects a Condorcet winner.
* Borda: the leader's lead is above r times the most that one ballot can turn.
* instant run-off: more than half of all ballots, out or in, have the leader first.
* median, trimmed mean: the result is the same if all who are out say minus infinity and if
  all say plus infinity; everything between lies between.
* tolerance: groups may still merge, move and split, so only an exact number that more than
  half of all ballots already name is certain. Equal numbers are never cut apart, and the
  median of any group in which they are the majority is that number.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

from agentorch_cli.core.numbers import groups, median, number_answer, parse_number, trimmed_mean
from agentorch_cli.core.ranked import Profile, borda, instant_runoff, schulze
from agentorch_cli.core.tally import LabelTally, Outlook, Support, Tally, beats
from agentorch_cli.core.vote import Ballot, BallotStatus, Basis, DecidedBy, Policy, Rule, Voter, VoteStatus

PENDING: VoteStatus = VoteStatus.PENDING
REACHED: VoteStatus = VoteStatus.REACHED


class ApprovalTally(LabelTally):
    """Each ballot adds one to every option that it approves."""

    def __init__(self, policy: Policy, electorate: Sequence[Voter]) -> None:
        super().__init__(policy, electorate)
        self.approved: dict[str, frozenset[str]] = {}

    def _record(self, voter: Voter, ballot: Ballot) -> bool:
        approved = frozenset(ballot.choices)
        if not approved or not approved <= set(self.policy.options):
            return False
        self.approved[voter.agent] = approved
        for option in sorted(approved):
            self._support(voter, option)
        return True

    def _dissent(self, leader: str | None) -> tuple[str, ...]:
        return tuple(sorted(agent for agent, approved in self.approved.items() if leader not in approved))


class RankedTally(Tally):
    """Options in order of preference; options left out are below all others."""

    def __init__(self, policy: Policy, electorate: Sequence[Voter]) -> None:
        super().__init__(policy, electorate)
        self.rankings: Counter[tuple[str, ...]] = Counter()
        self.places = {option: Support() for option in policy.options}
        self._won: tuple[int, str | None, int] = (0, None, 0)

    def _record(self, voter: Voter, ballot: Ballot) -> bool:
        choices = ballot.choices
        if not choices or len(set(choices)) < len(choices) or not set(choices) <= self.places.keys():
            return False
        self.rankings[choices] += 1
        self.places[choices[0]].add(voter)
        self.answers[voter.agent] = choices[0]
        return True

    def leader(self) -> str | None:
        return self._winner()[0]

    def _outlook(self) -> Outlook:
        left = len(self.unheard)
        leader, lead = self._winner()
        turn = 2 * (len(self.places) - 1) if self.policy.rule is Rule.BORDA else 1
        if self.policy.rule is Rule.IRV:
            first = self.places[leader].votes if leader is not None else 0
            lead = 2 * first - self.answered
        if self.answered >= self.policy.min_votes and left == 0:
            return REACHED, DecidedBy.EXHAUSTED, 0
        if self.answered >= self.policy.min_votes and lead > left * turn:
            return REACHED, DecidedBy.CERTAIN, 0
        lacks = (left * turn - lead) // (2 * turn) + 1
        return PENDING, None, max(1, lacks, self.policy.min_votes - self.answered)

    def _winner(self) -> tuple[str | None, int]:
        """The winner so far and its lead: over the closest rival, in ballots; Borda: in half points."""
        if self._won[0] != self.answered:
            count: Callable[[Profile], tuple[str, int]]
            match self.policy.rule:
                case Rule.BORDA:
                    count = borda
                case Rule.IRV:
                    count = instant_runoff
                case _:
                    count = schulze
            profile = Profile(self.policy.options, tuple(self.rankings.items()), self._before)
            self._won = (self.answered, *count(profile))
        return self._won[1:]

    def _before(self, option: str, other: str) -> bool:
        """Ties: first places, weight sum, mean performance, text."""
        return beats(self.places[option], option, self.places[other], other)

    def _counts(self) -> dict[str, int]:
        return {option: support.votes for option, support in self.places.items() if support.votes}

    def _margin(self) -> float:
        lead = self._winner()[1]
        return lead / 2 if self.policy.rule is Rule.BORDA else float(lead)


class NumberTally(Tally):
    """Numbers in order, for the median and the trimmed mean."""

    def __init__(self, policy: Policy, electorate: Sequence[Voter]) -> None:
        super().__init__(policy, electorate)
        self.numbers: list[Fraction] = []
        self.texts: Counter[str] = Counter()
        self.trim = Fraction(str(policy.trim))

    def _record(self, voter: Voter, ballot: Ballot) -> bool:
        number = parse_number(ballot.answer)
        if number is None:
            return False
        insort(self.numbers, number)
        self.answers[voter.agent] = text = number_answer(number)
        self.texts[text] += 1
        return True

    def leader(self) -> str | None:
        return number_answer(self._middle(self.numbers)) if self.numbers else None

    def _middle(self, ordered: Sequence[Fraction]) -> Fraction:
        return median(ordered) if self.policy.rule is Rule.MEDIAN else trimmed_mean(ordered, self.trim)

    def _outlook(self) -> Outlook:
        left = len(self.unheard)
        half = (self.answered + left) // 2 + 1
        if self.answered >= self.policy.min_votes:
            if left == 0:
                return REACHED, DecidedBy.EXHAUSTED, 0
            if self._settled(left):
                return REACHED, DecidedBy.CERTAIN, 0
        lacks = half - self.answered if self.answered < half else left
        return PENDING, None, max(lacks, self.policy.min_votes - self.answered)

    def _settled(self, left: int) -> bool:
        """Whether the numbers that count stay the same if all who are out go to either end."""
        size = self.answered + left
        drop = (size - 1) // 2 if self.policy.rule is Rule.MEDIAN else int(self.trim * size)
        return drop >= left and self.numbers[drop - left] == self.numbers[size - drop - 1]

    def _near(self, number: Fraction) -> tuple[Fraction, Fraction]:
        reach = max(
            Fraction(str(self.policy.tolerance)), Fraction(str(self.policy.relative_tolerance)) * abs(number)
        )
        return number - reach, number + reach

    def _counts(self) -> dict[str, int]:
        return dict(self.texts)

    def _margin(self) -> float:
        """The spread of the numbers."""
        return float(self.numbers[-1] - self.numbers[0]) if self.numbers else 0.0

    def _confidence(self, leader: str | None) -> tuple[float, Basis]:
        """The share of numbers that equal the result, within the tolerance."""
        if not self.numbers:
            return 0.0, Basis.SHARE
        low, high = self._near(self._middle(self.numbers))
        agreeing = bisect_right(self.numbers, high) - bisect_left(self.numbers, low)
        return agreeing / self.answered, Basis.SHARE

    def _dissent(self, leader: str | None) -> tuple[str, ...]:
        if leader is None:
            return ()
        low, high = self._near(Fraction(leader))
        return tuple(
            sorted(agent for agent, text in self.answers.items() if not low <= Fraction(text) <= high)
        )


class GroupedTally(Tally):
    """Numbers that count as equal within a tolerance, under any rule that counts equal answers."""

    def __init__(
        self,
        policy: Policy,
        electorate: Sequence[Voter],
        inner: Callable[[Policy, Sequence[Voter]], LabelTally],
    ) -> None:
        super().__init__(policy, electorate)
        self.voters = dict(self.unheard)
        self.inner = inner
        self.absolute = Fraction(str(policy.tolerance))
        self.relative = Fraction(str(policy.relative_tolerance))
        self.given: dict[str, Fraction] = {}
        self._grouped: tuple[tuple[int, int], LabelTally] | None = None

    def _record(self, voter: Voter, ballot: Ballot) -> bool:
        number = parse_number(ballot.answer)
        if number is None:
            return False
        self.given[voter.agent] = number
        return True

    def labels(self) -> LabelTally:
        """The vote as it stands, each ballot under the name of its group."""
        seen = (self.answered, self.absent)
        if self._grouped is None or self._grouped[0] != seen:
            names = {
                number: number_answer(median(group))
                for group in groups(sorted(self.given.values()), self.absolute, self.relative)
                for number in group
            }
            tally = self.inner(self.policy, list(self.voters.values()))
            for agent in self.voters.keys() - self.unheard.keys():
                number = self.given.get(agent)
                status = BallotStatus.ABSTAINED if number is None else BallotStatus.ANSWERED
                tally.add(Ballot(agent, None if number is None else names[number], status))
            self._grouped = (seen, tally)
        return self._grouped[1]

    def leader(self) -> str | None:
        return self.labels().leader()

    def _outlook(self) -> Outlook:
        status, decided_by, lacks = self.labels().outlook()
        left = len(self.unheard)
        if left == 0 or decided_by is DecidedBy.CONFIDENCE:
            return status, decided_by, lacks
        most = max(Counter(self.given.values()).values(), default=0)
        goal = self.threshold_count() or 0
        if goal and self._widest() + left < goal:
            return VoteStatus.FAILED, DecidedBy.IMPOSSIBLE, 0
        half = (self.answered + left) // 2 + 1
        needed = max(half, goal)
        if (
            self.policy.rule is not Rule.WEIGHTED
            and most >= needed
            and self.answered >= self.policy.min_votes
        ):
            return REACHED, DecidedBy.THRESHOLD if goal else DecidedBy.CERTAIN, 0
        return PENDING, None, lacks if status is PENDING else max(1, min(left, needed - most))

    def _widest(self) -> int:
        """The most numbers that any one group may come to hold of those given: all within two tolerances."""
        ordered = sorted(self.given.values())
        most = end = 0
        for start, low in enumerate(ordered):
            while end < len(ordered) and self._within(low, ordered[end]):
                end += 1
            most = max(most, end - start)
        return most

    def _within(self, low: Fraction, high: Fraction) -> bool:
        return high - low <= 2 * max(self.absolute, self.relative * max(abs(low), abs(high)))

    def _counts(self) -> dict[str, int]:
        return self.labels()._counts()

    def _margin(self) -> float:
        return self.labels()._margin()

    def _confidence(self, leader: str | None) -> tuple[float, Basis]:
        return self.labels()._confidence(leader)

    def _dissent(self, leader: str | None) -> tuple[str, ...]:
        return self.labels()._dissent(leader)
