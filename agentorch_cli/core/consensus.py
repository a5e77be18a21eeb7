"""Consensus: when do ballots make an answer, and how many more are worth asking for?

**The call.** Freeze the electorate when the vote opens (`policy.seats(eligible)` says how
many voters), ask `verdict.needed` of them, and look again whenever a ballot comes in:

    verdict = decide(policy, electorate, ballots, out=2)

`electorate` are the frozen `Voter`s, `ballots` every ballot so far in any order (an agent
that abstained, failed or timed out has one too, by its status), `out` the number of voters
who were asked and are not heard yet. The verdict is `pending` (ask `needed` more now; 0
means wait for those who are out), `reached` (with its `answer`) or `failed` (with the
`leader`, for a policy that takes the most popular answer anyway). `open_vote` gives the
same as a running tally for one ballot at a time: `tally.add(ballot)`, `tally.verdict(out)`.
The verdict depends on the set of ballots alone: not on their order, nor on who asks.

**The counting.** N is the electorate, r the ballots that are not in, v1 >= v2 the two best
counts. An abstention or loss lowers N, and T with it, never below `min_votes`.

* supermajority: T = ceil(threshold * N - 1e-9), majority: T = N // 2 + 1, unanimous: T = N,
  quorum: T = k. Failed when v1 + r < T. Reached when v1 >= T and nobody can overtake the
  leader; the second half follows from the first whenever T > N / 2.
* plurality: reached when v1 - v2 > r; at v1 - v2 = r only if the tie would not turn it.
* adaptive: plurality that also stops when P(p > 1/2) >= confidence for p ~ Beta(v1+1, v2+1).
* weighted: `core/weighted.py`; ranked, approval and numbers: `core/ballots.py`.

Why a failure is final although later losses lower T: each loss takes one from r and at most
one from T, so v1 + r < T stays true. Why a success is final: v1 never falls and T never rises.

The share that a threshold asks for moves in jumps with N: 0.66 is 2 of 3, 3 of 4, 4 of 5, 6 of
9. On recorded answers of language models about code, 2 of 3 decided 74 % of the questions and
was right in 86 % of them; 4 of 5 decided 52 % and was right in 96 %. Hence a panel of 5.

**Ties** go by higher weight sum, then higher mean performance of the voters, then canonical
text: all known from stored ballots, none from the clock.

**Waves.** `needed` is the fewest votes that could end the vote if all went to the leader,
less those already out. Asking one by one could not end it sooner, so waves save rounds and
cost no votes, except where a vote fails early.

Early decisions equal asking everybody, for every rule but the two that stop on purpose when
they are sure enough (adaptive, weighted); with confidence = 1 they too wait for certainty.

An agent votes once. Several samples of one agent are exchangeable, so weights mean nothing among
them: give each sample a voter of its own and use the adaptive rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from agentorch_cli.core.ballots import ApprovalTally, GroupedTally, NumberTally, RankedTally
from agentorch_cli.core.tally import LabelTally, Tally
from agentorch_cli.core.vote import (
    Ballot,
    BallotStatus,
    Basis,
    DecidedBy,
    Policy,
    Rule,
    Verdict,
    Voter,
    VoteStatus,
)
from agentorch_cli.core.weighted import WeightedTally

__all__ = [
    "Ballot",
    "BallotStatus",
    "Basis",
    "DecidedBy",
    "Policy",
    "Rule",
    "Tally",
    "Verdict",
    "VoteStatus",
    "Voter",
    "decide",
    "explain",
    "open_vote",
]


def open_vote(policy: Policy, electorate: Sequence[Voter]) -> Tally:
    """A running tally for one vote."""
    match policy.rule:
        case Rule.MEDIAN | Rule.TRIMMED_MEAN:
            return NumberTally(policy, electorate)
        case Rule.SCHULZE | Rule.BORDA | Rule.IRV:
            return RankedTally(policy, electorate)
        case Rule.APPROVAL:
            return ApprovalTally(policy, electorate)
        case Rule.WEIGHTED:
            label_tally: type[LabelTally] = WeightedTally
        case (
            Rule.PLURALITY | Rule.MAJORITY | Rule.SUPERMAJORITY | Rule.UNANIMOUS | Rule.QUORUM | Rule.ADAPTIVE
        ):
            label_tally = LabelTally
        case _:
            assert_never(policy.rule)
    if policy.tolerant:
        return GroupedTally(policy, electorate, label_tally)
    return label_tally(policy, electorate)


def decide(policy: Policy, electorate: Sequence[Voter], ballots: Iterable[Ballot], out: int = 0) -> Verdict:
    """What these ballots decide; equal to feeding them one by one to `open_vote`."""
    tally = open_vote(policy, electorate)
    for ballot in ballots:
        tally.add(ballot)
    return tally.verdict(out)


def explain(verdict: Verdict) -> str:
    """Where the vote stands and why, in one sentence for people."""
    most = verdict.counts.get(verdict.leader, 0) if verdict.leader is not None else 0
    agree = f"{most} of {verdict.votes_used} agree" if verdict.votes_used else "nobody has answered"
    wanted = f", {verdict.threshold_count} are needed" if verdict.threshold_count is not None else ""
    match verdict.decided_by:
        case None:
            waits = f"asks {verdict.needed} more" if verdict.needed else "waits for those who were asked"
            return f"{agree}{wanted}; {waits}"
        case DecidedBy.THRESHOLD:
            return f"reached: {agree}{wanted}"
        case DecidedBy.CERTAIN:
            return f"reached: {agree}, and no ballot that is out can change the leader"
        case DecidedBy.CONFIDENCE:
            return f"reached: {agree}, sure enough at {verdict.confidence:.3f} ({verdict.confidence_basis})"
        case DecidedBy.EXHAUSTED:
            return f"reached: {agree}, and everybody was heard"
        case DecidedBy.IMPOSSIBLE:
            return f"not reached: {agree}{wanted}, and too few ballots are out"
        case DecidedBy.TOO_FEW:
            return f"not reached: {agree}, and fewer voters are left than the vote needs"
        case _:
            assert_never(verdict.decided_by)
