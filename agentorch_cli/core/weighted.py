"""The reliability-weighted sequential vote: Bayes over who said what.

A voter with reliability p is right with chance p, and else gives each of the K - 1 wrong
answers with equal chance. So a ballot multiplies the odds of its answer by p (K-1) / (1-p):

    score(l)     = sum over the voters of l of  ln p/(1-p) + ln(K-1)
    posterior(l) = softmax over the seen answers, and K - seen unseen ones with score 0

K is the number of options, or max(3, distinct answers + 1) when answers are open. (Nitzan and
Paroush 1982 for the weights; Demartini et al., ZenCrowd, WWW 2012 for the use.)

The vote stops when the best posterior is at least `confidence` and two ballots are in, or when
everybody was heard: then the best answer wins, and the confidence tells how little that may
mean. A vote that can no longer turn still goes on until it is as sure as was ordered, since its
ballots are also what reliabilities are learned from: on simulated crowds of 3 to 20 ballots a
task, stopping there saved 0.6 votes and cost 0.2 points of accuracy. A `frugal` vote does stop
there, if all the rest together could not make it sure enough either; and so does a vote with
confidence 1, which is never sure enough and waits for certainty like every other rule.

Why the certainty test is sound: K may still grow, so with x = ln(K-1) the leader's gap to a
rival is S + n x, linear in x, and what a voter with log odds e can still turn is at most
|e + x|, convex in x. Gap minus the sum of those is concave, so it is positive on the whole
range of x if it is positive at both ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from agentorch_cli.core.tally import LabelTally, Outlook, Support
from agentorch_cli.core.vote import NANO, Basis, DecidedBy, Policy, Voter, VoteStatus, evidence

MIN_BALLOTS = 2
"""One agent is never enough to be sure, whatever its history."""

WAVE = 2
"""Most voters asked at once."""

ROUNDING = 1e-9
"""A lead that only rounding makes is a draw, and a draw is not certain."""


def option_count(policy: Policy, distinct: int) -> int:
    """K, the answers that are taken to be possible."""
    return max(2, len(policy.options)) if policy.options else max(3, distinct + 1)


def posterior_of(scores: Sequence[float], score: float, options: int) -> float:
    """The chance of the answer with this score, one of `scores`, among the seen ones and the unseen."""
    top = max(0.0, *scores)
    total = math.fsum([math.exp(other - top) for other in scores])
    return math.exp(score - top) / (total + max(0, options - len(scores)) * math.exp(-top))


class WeightedTally(LabelTally):
    """Support per answer as log odds. A ballot costs one pass over the different answers."""

    def __init__(self, policy: Policy, electorate: Iterable[Voter]) -> None:
        super().__init__(policy, electorate)
        self.scores: dict[str, float] = {}
        self.voters: dict[str, Voter] = {}
        self.options = option_count(policy, 0)
        self.spread = math.log(self.options - 1)
        weights = [evidence(voter.reliability) for voter in self.unheard.values()]
        self.strongest = max(weights, default=0)
        self.still_out = sum(weights)

    def weight(self, voter: Voter) -> float:
        """What a ballot of this voter adds to its answer's score, in nats."""
        return evidence(voter.reliability) / NANO + self.spread

    def posterior(self, answer: str | None) -> float:
        """The chance that this answer is right, if the reliabilities are."""
        if answer is None:
            return 1 / self.options
        return posterior_of(list(self.scores.values()), self.scores[answer], self.options)

    def _heard(self, voter: Voter) -> None:
        self.still_out -= evidence(voter.reliability)

    def _support(self, voter: Voter, answer: str) -> None:
        self.voters[voter.agent] = voter
        support = self.support.get(answer)
        if support is None:
            support = self.support[answer] = Support()
            self._widen(option_count(self.policy, len(self.support)))
        support.add(voter)
        self.scores[answer] = self._score(support)
        self._rank()

    def _widen(self, options: int) -> None:
        """More answers are possible than before: agreement is stronger evidence, for all of them."""
        if options != self.options:
            self.options, self.spread = options, math.log(options - 1)
            self.scores = {answer: self._score(support) for answer, support in self.support.items()}

    def _score(self, support: Support) -> float:
        return support.evidence / NANO + support.votes * self.spread

    def _rank(self) -> None:
        """The two best answers. All scores may have moved with K, and a weight may be negative."""
        self.first = self.second = None
        top = runner_up = -math.inf
        for answer, score in self.scores.items():
            if score < runner_up:
                continue
            if self.first is None or score > top or (score == top and self._goes_before(answer, self.first)):
                self.second, runner_up = self.first, top
                self.first, top = answer, score
            elif self.second is None or score > runner_up or self._goes_before(answer, self.second):
                self.second, runner_up = answer, score

    def _goes_before(self, answer: str, other: str) -> bool:
        """Of equal scores: higher mean performance, then text."""
        mine, theirs = self.support[answer], self.support[other]
        left, right = mine.performance * theirs.votes, theirs.performance * mine.votes
        return left > right if left != right else answer < other

    def _outlook(self) -> Outlook:
        chance = self.posterior(self.first)
        enough = self.answered >= self.policy.min_votes
        if enough and self.answered >= MIN_BALLOTS and chance >= self.policy.confidence:
            return VoteStatus.REACHED, DecidedBy.CONFIDENCE, 0
        if enough and not self.unheard:
            return VoteStatus.REACHED, DecidedBy.EXHAUSTED, 0
        stops_when_certain = self.policy.frugal or self.policy.confidence >= 1
        if enough and stops_when_certain and self._settled(chance):
            return VoteStatus.REACHED, DecidedBy.CERTAIN, 0
        floor = max(MIN_BALLOTS, self.policy.min_votes) - self.answered
        return VoteStatus.PENDING, None, floor if floor > 0 else self._lacks(chance)

    def _lacks(self, chance: float) -> int:
        """1 if a voter like the most reliable one could settle it by agreeing with the leader, else 2."""
        return 1 if self._sure_with(chance, self.strongest / NANO + self.spread) else WAVE

    def _sure_with(self, chance: float, more: float) -> bool:
        """Whether the leader, at this chance now, would be sure enough with that many nats more."""
        return 1 / (1 + (1 - chance) / chance * math.exp(-more)) >= self.policy.confidence

    def _settled(self, chance: float) -> bool:
        """Whether no ballot that is still out can change the leader, nor all of them make it sure enough."""
        at_least = abs(self.still_out / NANO + len(self.unheard) * self.spread)
        if self._margin() <= at_least or not self._beyond_reach():
            return False
        return not self._sure_with(
            chance, math.fsum(max(0.0, self.weight(one)) for one in self.unheard.values())
        )

    def _beyond_reach(self) -> bool:
        """Whether no ballot that is still out can change the leader."""
        assert self.first is not None
        most = option_count(self.policy, len(self.support) + len(self.unheard))
        weights = [evidence(voter.reliability) / NANO for voter in self.unheard.values()]
        for options in {self.options, most}:
            spread = math.log(options - 1)
            scores = {
                answer: support.evidence / NANO + support.votes * spread
                for answer, support in self.support.items()
            }
            own = scores.pop(self.first)
            rival = max(scores.values(), default=0.0)
            if len(scores) + 1 < options:
                rival = max(rival, 0.0)  # an answer that nobody gave yet
            turn = math.fsum(abs(weight + spread) for weight in weights)
            if own - rival <= turn + ROUNDING * (1 + turn):
                return False
        return True

    def _margin(self) -> float:
        """The leader's score over the runner-up's, in nats."""
        if self.first is None:
            return 0.0
        return self.scores[self.first] - (self.scores[self.second] if self.second is not None else 0.0)

    def _confidence(self, leader: str | None) -> tuple[float, Basis]:
        return (self.posterior(leader) if leader is not None else 0.0), Basis.POSTERIOR
