"""The running count of a vote: one ballot in, O(1), and the verdict of what is in so far.

`Tally` keeps what every rule shares: who was heard, who is lost, how large the
electorate still is. Its subclasses say how a ballot is recorded, who leads, and
whether the ballots that are still out could change that. `LabelTally` counts equal
answers, for plurality, majority, supermajority, unanimous, quorum and adaptive.

Every sum is over whole numbers (votes, 1e-9 nats, 1e-9 of performance), so the same
set of ballots gives the same verdict in every order of arrival.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from agentorch_cli.core.vote import (
    NANO,
    Ballot,
    BallotStatus,
    Basis,
    DecidedBy,
    Policy,
    Rule,
    Verdict,
    Voter,
    VoteStatus,
    beta_confidence,
    beta_lacks,
    evidence,
    threshold_count,
)

Outlook = tuple[VoteStatus, DecidedBy | None, int]
"""Where the vote stands, why, and how many more votes the leader lacks at best."""


@dataclass(slots=True)
class Support:
    """Who stands behind one answer, in sums that decide ties."""

    votes: int = 0
    evidence: int = 0
    performance: int = 0

    def add(self, voter: Voter, votes: int = 1) -> None:
        self.votes += votes
        self.evidence += evidence(voter.reliability)
        self.performance += round(voter.performance * NANO)


def beats(support: Support, text: str, other: Support, other_text: str) -> bool:
    """Whether an answer goes before another one: votes, weight sum, mean performance, canonical text."""
    if support.votes != other.votes:
        return support.votes > other.votes
    if support.evidence != other.evidence:
        return support.evidence > other.evidence
    mine, theirs = support.performance * other.votes, other.performance * support.votes
    if mine != theirs:
        return mine > theirs
    return text < other_text


class Tally(ABC):
    """An open vote. Feed it ballots with `add`, read it with `verdict`."""

    def __init__(self, policy: Policy, electorate: Iterable[Voter]) -> None:
        self.policy = policy
        self.unheard: dict[str, Voter] = {voter.agent: voter for voter in electorate}
        self.opened_with = len(self.unheard)
        self.answered = 0
        self.absent = 0
        self.answers: dict[str, str] = {}
        self._known: Outlook | None = None

    def add(self, ballot: Ballot) -> bool:
        """Count one ballot. False if its agent is no voter or was heard before: the first ballot stands."""
        voter = self.unheard.pop(ballot.agent, None)
        if voter is None:
            return False
        self._known = None
        self._heard(voter)
        if ballot.status is BallotStatus.ANSWERED and self._record(voter, ballot):
            self.answered += 1
        else:
            self.absent += 1
        return True

    def verdict(self, out: int = 0) -> Verdict:
        """What is decided; `out` is the number of voters who were asked and are not heard yet."""
        status, decided_by, lacks = self.outlook()
        leader = self.leader()
        confidence, basis = self._confidence(leader)
        unasked = max(0, len(self.unheard) - out)
        return Verdict(
            status=status,
            answer=leader if status is VoteStatus.REACHED else None,
            leader=leader,
            counts=self._counts(),
            votes_used=self.answered,
            votes_not_asked=unasked,
            needed=min(max(0, lacks - out), unasked),
            threshold_count=self.threshold_count(),
            electorate=self.electorate,
            margin=self._margin(),
            decided_by=decided_by,
            confidence=confidence,
            confidence_basis=basis,
            dissent=self._dissent(leader) if status is not VoteStatus.PENDING else (),
        )

    @property
    def electorate(self) -> int:
        """N: abstentions and losses lower it, never below the floor."""
        return max(self.policy.min_votes, self.opened_with - self.absent)

    def threshold_count(self) -> int | None:
        """T, the votes that a winner needs, or None where the rule has no threshold."""
        match self.policy.rule:
            case Rule.MAJORITY:
                return self.electorate // 2 + 1
            case Rule.SUPERMAJORITY:
                return threshold_count(self.policy.threshold, self.electorate)
            case Rule.UNANIMOUS:
                return self.electorate
            case Rule.QUORUM:
                return self.policy.quorum
            case _:
                return None

    def outlook(self) -> Outlook:
        """The decision itself; `verdict` only dresses it."""
        if self._known is None:
            enough_left = self.answered + len(self.unheard) >= self.policy.min_votes
            self._known = self._outlook() if enough_left else (VoteStatus.FAILED, DecidedBy.TOO_FEW, 0)
        return self._known

    def _heard(self, voter: Voter) -> None:  # noqa: B027  # most rules need not know
        """This voter is out no longer, whatever its ballot says."""

    @abstractmethod
    def leader(self) -> str | None:
        """The best answer so far."""

    @abstractmethod
    def _outlook(self) -> Outlook:
        """The rule's own decision, with enough voters left to satisfy `min_votes`."""

    @abstractmethod
    def _record(self, voter: Voter, ballot: Ballot) -> bool:
        """Take the answer in; False if nothing in it can be counted."""

    @abstractmethod
    def _counts(self) -> dict[str, int]: ...

    @abstractmethod
    def _margin(self) -> float: ...

    def _confidence(self, leader: str | None) -> tuple[float, Basis]:
        share = self._counts().get(leader, 0) / self.answered if leader is not None else 0.0
        return share, Basis.SHARE

    def _dissent(self, leader: str | None) -> tuple[str, ...]:
        return tuple(sorted(agent for agent, answer in self.answers.items() if answer != leader))


class LabelTally(Tally):
    """Counts equal answers; knows the two best at every moment."""

    def __init__(self, policy: Policy, electorate: Iterable[Voter]) -> None:
        super().__init__(policy, electorate)
        self.support: dict[str, Support] = {}
        self.first: str | None = None
        self.second: str | None = None

    def leader(self) -> str | None:
        return self.first

    def _record(self, voter: Voter, ballot: Ballot) -> bool:
        answer = ballot.answer
        if answer is None or (self.policy.options and answer not in self.policy.options):
            return False
        self.answers[voter.agent] = answer
        self._support(voter, answer)
        return True

    def _support(self, voter: Voter, answer: str) -> None:
        """One more vote for an answer. It alone moved, so it is all there is to compare with the two best."""
        support = self.support.get(answer)
        if support is None:
            support = self.support[answer] = Support()
        support.add(voter)
        if answer == self.first:
            return
        if self.first is None or beats(support, answer, self.support[self.first], self.first):
            self.first, self.second = answer, self.first
        elif self.second is None or beats(support, answer, self.support[self.second], self.second):
            self.second = answer

    @property
    def votes(self) -> tuple[int, int]:
        """The two best counts, v1 >= v2."""
        return (
            self.support[self.first].votes if self.first is not None else 0,
            self.support[self.second].votes if self.second is not None else 0,
        )

    def _outlook(self) -> Outlook:
        first, second = self.votes
        left = len(self.unheard)
        goal = self.threshold_count()
        if goal is not None and first + left < goal:
            return VoteStatus.FAILED, DecidedBy.IMPOSSIBLE, 0
        enough = self.answered >= self.policy.min_votes
        if enough and first >= (goal or 1) and self._safe(first, second, left):
            if left == 0:
                return VoteStatus.REACHED, DecidedBy.EXHAUSTED if goal is None else DecidedBy.THRESHOLD, 0
            return VoteStatus.REACHED, DecidedBy.CERTAIN if goal is None else DecidedBy.THRESHOLD, 0
        # The fewest votes, all for the leader, that leave nobody able to overtake it.
        lacks = max(1, (left - first + second + 1) // 2)
        if goal is not None:
            lacks = max(lacks, goal - first)
        elif self.policy.rule is Rule.ADAPTIVE:
            more = beta_lacks(first, second, self.policy.confidence)
            if enough and more == 0:
                return VoteStatus.REACHED, DecidedBy.CONFIDENCE, 0
            lacks = lacks if more is None else min(lacks, max(1, more))
        return VoteStatus.PENDING, None, max(lacks, self.policy.min_votes - self.answered)

    def _safe(self, first: int, second: int, left: int) -> bool:
        """Whether no ballot that is still out can change the leader."""
        lead = first - second
        if lead != left or left == 0:
            return lead >= left
        return not any(self._turned_by(rival) for rival in self._rivals(second))

    def _rivals(self, votes: int) -> list[str]:
        """Who could draw level with the leader: any answer may come, known or not, if unseen ones have 0."""
        if votes:
            return [
                text
                for text, support in self.support.items()
                if support.votes == votes and text != self.first
            ]
        return [text for text in self.policy.options if text != self.first] or [""]

    def _turned_by(self, rival: str) -> bool:
        """Whether the rival wins the tie that comes if all who are still out vote for it."""
        assert self.first is not None
        known = self.support.get(rival, Support())
        most = Support(known.votes, known.evidence, known.performance)
        for voter in self.unheard.values():
            most.add(voter)
        return beats(most, rival, self.support[self.first], self.first)

    def _counts(self) -> dict[str, int]:
        return {answer: support.votes for answer, support in self.support.items()}

    def _margin(self) -> float:
        first, second = self.votes
        return float(first - second)

    def _confidence(self, leader: str | None) -> tuple[float, Basis]:
        first, second = self.votes
        if self.policy.rule is Rule.ADAPTIVE:
            return (
                (float(beta_confidence(first, second)), Basis.POSTERIOR) if first else (0.0, Basis.POSTERIOR)
            )
        return (first / self.answered if self.answered else 0.0), Basis.SHARE
