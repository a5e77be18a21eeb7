"""The nouns of a vote: its policy, who may vote, what was voted, what that decides.

`core/consensus.py` opens with the theory and with the two calls that everybody
else needs; the classes live here so that each counting method can import them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache

from agentorch_cli.errors import InvalidTask


class Rule(StrEnum):
    """How ballots become one answer."""

    PLURALITY = "plurality"
    """Most votes win."""
    MAJORITY = "majority"
    """More than half of the electorate."""
    SUPERMAJORITY = "supermajority"
    """At least `threshold` of the electorate."""
    UNANIMOUS = "unanimous"
    """Everybody."""
    QUORUM = "quorum"
    """The most popular answer, if at least `quorum` voters gave it."""
    ADAPTIVE = "adaptive"
    """Plurality that stops as soon as the Beta rule is `confidence` sure of the leader."""
    WEIGHTED = "weighted"
    """Bayes over the voters' reliabilities; stops at a posterior of `confidence`."""
    MEDIAN = "median"
    """The middle number."""
    TRIMMED_MEAN = "trimmed_mean"
    """The mean without the `trim` share of numbers at each end."""
    SCHULZE = "schulze"
    """Ranked ballots, the Condorcet method of strongest paths."""
    BORDA = "borda"
    """Ranked ballots, points by place."""
    IRV = "irv"
    """Ranked ballots, instant run-off."""
    APPROVAL = "approval"
    """Each ballot approves any number of options."""


RANKED_RULES = frozenset({Rule.SCHULZE, Rule.BORDA, Rule.IRV})
NUMERIC_RULES = frozenset({Rule.MEDIAN, Rule.TRIMMED_MEAN})
OPTION_RULES = RANKED_RULES | {Rule.APPROVAL}
SEQUENTIAL_RULES = frozenset({Rule.ADAPTIVE, Rule.WEIGHTED})


class VoteStatus(StrEnum):
    """Where a vote stands."""

    PENDING = "pending"
    """More ballots are needed."""
    REACHED = "reached"
    """There is an answer, and no ballot that is still out could change it."""
    FAILED = "failed"
    """No answer can satisfy the rule any more."""


class BallotStatus(StrEnum):
    """What became of one voter."""

    ANSWERED = "answered"
    ABSTAINED = "abstained"
    """It answered, but nothing that can be counted."""
    LOST = "lost"
    """It failed, timed out or left."""


class DecidedBy(StrEnum):
    """The argument that closed the vote."""

    THRESHOLD = "threshold"
    """The leader has the votes that the rule asks for."""
    CERTAIN = "certain"
    """Nobody can overtake the leader any more."""
    CONFIDENCE = "confidence"
    """The Beta rule or the posterior is sure enough."""
    EXHAUSTED = "exhausted"
    """Everybody was heard."""
    IMPOSSIBLE = "impossible"
    """No answer can still get the votes that the rule asks for."""
    TOO_FEW = "too_few"
    """Fewer voters are left than `min_votes`."""


class Basis(StrEnum):
    """What a confidence is made of; only `calibrated` is a probability."""

    CALIBRATED = "calibrated"
    POSTERIOR = "posterior"
    SHARE = "share"


@dataclass(frozen=True, slots=True)
class Policy:
    """The consensus options of one task or proposal. Raises InvalidTask if they contradict each other."""

    rule: Rule = Rule.SUPERMAJORITY
    threshold: float = 0.66
    """Share of the electorate that a supermajority needs, in (0, 1]."""
    quorum: int = 1
    """Equal answers that `quorum` needs."""
    min_votes: int = 2
    """Floor of the electorate: losses lower N, never below this; fewer answers decide nothing."""
    panel: int = 5
    """Voters of a counted rule."""
    cap: int | None = 7
    """Most voters of adaptive and weighted votes; None asks everybody eligible if need be."""
    confidence: float = 0.95
    """Where adaptive and weighted votes stop, in (0.5, 1]; 1 never stops before certainty."""
    frugal: bool = False
    """Weighted votes: also stop, less sure than ordered, once the rest can neither change nor settle it."""
    options: tuple[str, ...] = ()
    """Canonical answers to choose from; anything else is an abstention. Empty = open answers."""
    tolerance: float = 0.0
    """Absolute distance up to which two numbers count as the same answer."""
    relative_tolerance: float = 0.0
    """The same as a share of the number's size; the larger of both counts."""
    trim: float = 0.2
    """Share that a trimmed mean drops at each end, in [0, 0.5)."""

    def __post_init__(self) -> None:
        checks = (
            (0 < self.threshold <= 1, "threshold must be above 0 and at most 1"),
            (self.quorum >= 1, "quorum must be at least 1"),
            (self.min_votes >= 1, "min_votes must be at least 1"),
            (self.panel >= 1, "panel must be at least 1"),
            (self.cap is None or self.cap >= 1, "cap must be at least 1"),
            (0.5 < self.confidence <= 1, "confidence must be above 0.5 and at most 1"),
            (0 <= self.tolerance < math.inf, "tolerance must be 0 or more"),
            (0 <= self.relative_tolerance < 1, "relative_tolerance must be at least 0 and below 1"),
            (0 <= self.trim < 0.5, "trim must be at least 0 and below 0.5"),
            (len(set(self.options)) == len(self.options), "options must differ from each other"),
            (
                self.rule not in OPTION_RULES or len(self.options) >= 2,
                f"{self.rule} needs at least two options",
            ),
        )
        for holds, message in checks:
            if not holds:
                raise InvalidTask(f"consensus: {message}")

    @property
    def tolerant(self) -> bool:
        """Whether numbers near each other are one answer."""
        return self.tolerance > 0 or self.relative_tolerance > 0

    def seats(self, eligible: int) -> int:
        """How many of the eligible agents to freeze as the electorate when the vote opens."""
        limit = self.cap if self.rule in SEQUENTIAL_RULES else self.panel
        return eligible if limit is None else min(eligible, limit)


@dataclass(frozen=True, slots=True)
class Voter:
    """One member of the frozen electorate, with what was known of it when the vote opened."""

    agent: str
    reliability: float = 2 / 3
    """p_w: the chance that its answer is right, inside (0, 1), clamped by `core/reliability.py`."""
    performance: float = 0.5
    """0..1, for ties only."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """What one voter said. `answer` is the canonical text of `core/equivalence.py`."""

    agent: str
    answer: str | None = None
    status: BallotStatus = BallotStatus.ANSWERED
    choices: tuple[str, ...] = ()
    """Ranked rules: options, best first. Approval: the approved options."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the ballots so far decide, with the counts that made it."""

    status: VoteStatus
    answer: str | None
    """The canonical answer of a reached vote, else None."""
    leader: str | None
    """The most popular answer so far, also when the vote failed."""
    counts: Mapping[str, int]
    """Votes per canonical answer (approval: approvals; ranked: first places)."""
    votes_used: int
    """Ballots that answered."""
    votes_not_asked: int
    """Members of the electorate who were never asked."""
    needed: int
    """How many more voters to ask now; 0 while those asked may be enough, and after the decision."""
    threshold_count: int | None
    """T, or None where the rule has none."""
    electorate: int
    """N, after abstentions and losses."""
    margin: float
    """Leader minus runner-up in the rule's unit: votes; weighted: nats; Borda: points; numbers: spread."""
    decided_by: DecidedBy | None
    confidence: float
    confidence_basis: Basis
    dissent: tuple[str, ...]
    """Agents that gave another answer than the leader, in order of their ids."""

    @property
    def decided(self) -> bool:
        return self.status is not VoteStatus.PENDING


NANO = 10**9


@lru_cache(maxsize=4096)
def evidence(reliability: float) -> int:
    """Log odds of one voter in 1e-9 nats: whole numbers, so that sums do not depend on the order."""
    inside = min(max(reliability, 1e-6), 1 - 1e-6)
    return round(math.log(inside / (1 - inside)) * NANO)


@lru_cache(maxsize=4096)
def threshold_count(threshold: float, electorate: int) -> int:
    """T = ceil(threshold * N - 1e-9), exactly: 0.66 is 33/50 here, not the nearest binary float.

    The 1e-9 forgives two thirds typed as 0.66666666667.
    """
    return max(1, math.ceil(Fraction(str(threshold)) * electorate - Fraction(1, NANO)))


@lru_cache(maxsize=16384)
def beta_confidence(ahead: int, behind: int) -> Fraction:
    """P(p > 1/2) for p ~ Beta(ahead + 1, behind + 1), as an exact sum of binomials.

    Adaptive-Consistency, Aggarwal et al., EMNLP 2023, arXiv 2305.11860.
    """
    n = ahead + behind + 1
    return Fraction(sum(math.comb(n, k) for k in range(ahead + 1)), 2**n)


@lru_cache(maxsize=16384)
def beta_lacks(ahead: int, behind: int, confidence: float) -> int | None:
    """Votes that the leader lacks until the Beta rule stops; None if it never does (confidence 1)."""
    if confidence >= 1:
        return None
    goal = Fraction(str(confidence))
    more = 0
    while beta_confidence(ahead + more, behind) < goal:
        more += 1
    return more
