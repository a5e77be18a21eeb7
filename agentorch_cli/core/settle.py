"""What a task does next, given its attempts.

Every ended attempt asks this question, and so do timeouts, losses and late results. The
answer is data (`Move`); the engine performs it under the lock of the task.

* A result that suffices completes the task, and calls off attempts that are still out.
* An error is retried, up to `retries` times, after a backoff, elsewhere where there is an
  elsewhere; one that says `retryable: false` is not.
* A loss (the agent vanished, left, or never accepted) is nobody's failure: it is repeated at
  once and does not count as a retry. But work that loses `MOST_LOSSES` agents is taken for
  poison and fails.
* A vote goes by `core.consensus`: the ballots are the attempts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentorch_cli.core import consensus
from agentorch_cli.core.equivalence import Equivalence, canonical_answer, canonical_options
from agentorch_cli.core.model import Aggregate, AttemptStatus, TaskStatus

MOST_LOSSES = 5
"""Agents that one task may lose before it is taken for the cause."""

MOST_BACKOFF = 300.0
"""Longest wait before a retry, in seconds."""


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt as this room sees it."""

    message_id: str
    agent_id: str
    status: AttemptStatus
    result: Any = None
    error: Mapping[str, Any] | None = None
    confidence: float | None = None
    performance: float = 0.5
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A task as this room sees it, with all attempts of its generation."""

    task_id: str
    tried: Sequence[Tried]
    min_agents: int = 1
    max_agents: int = 1
    retries: int = 2
    failures: int = 0
    losses: int = 0
    backoff_seconds: float = 1.0
    aggregate: Aggregate = Aggregate.FIRST
    options: Mapping[str, Any] = field(default_factory=dict)
    electorate: Sequence[str] = ()
    """Frozen voters; empty where the task is no vote."""
    on_no_consensus: str = "fail"


@dataclass(frozen=True, slots=True)
class Move:
    """What happens to the task."""

    status: TaskStatus
    """COMPLETED, FAILED, PENDING (wants agents, none is out) or RUNNING (some are out)."""
    result: Any = None
    error: Mapping[str, Any] | None = None
    wanted: int = 0
    """Agents to ask in addition."""
    delay_seconds: float = 0.0
    call_off: tuple[str, ...] = ()
    """Message ids of attempts that are not needed any more."""
    verdict: consensus.Verdict | None = None


Jitter = Callable[[], float]
"""Gives a number in 0..1."""


def backoff(seconds: float, failures: int, jitter: Jitter) -> float:
    """Exponential, with full spread over the upper half, so that a crowd does not come back at once."""
    longest: float = min(MOST_BACKOFF, seconds * 2.0 ** min(max(0, failures - 1), 30))
    return longest * (0.5 + 0.5 * jitter())


def settle_one(
    status: AttemptStatus,
    error: Mapping[str, Any] | None,
    *,
    retries: int,
    failures: int,
    losses: int,
    backoff_seconds: float,
    jitter: Jitter,
) -> Move:
    """The same answer for the common case: one agent, and its attempt has just ended.

    `failures` and `losses` do not include this attempt.
    """
    if status is AttemptStatus.COMPLETED:
        return Move(TaskStatus.COMPLETED)
    if status in (AttemptStatus.LOST, AttemptStatus.CANCELLED):
        if losses + 1 >= MOST_LOSSES:
            return Move(TaskStatus.FAILED, error=_poison(losses + 1, error))
        return Move(TaskStatus.PENDING, wanted=1, error=error)
    may_retry = bool((error or {}).get("retryable", True))
    if may_retry and failures < retries:
        return Move(
            TaskStatus.PENDING,
            wanted=1,
            error=error,
            delay_seconds=backoff(backoff_seconds, failures + 1, jitter),
        )
    return Move(TaskStatus.FAILED, error=_last_word(error, failures + 1, may_retry))


def settle(case: Case, jitter: Jitter) -> Move:
    """What the task does now; `case.failures` and `case.losses` count all its ended attempts."""
    if case.electorate:
        return _settle_vote(case, jitter)
    live = [one for one in case.tried if one.status.is_live]
    done = [one for one in case.tried if one.status is AttemptStatus.COMPLETED]
    if case.aggregate is Aggregate.FIRST and len(done) >= 1 and case.min_agents <= 1:
        return Move(TaskStatus.COMPLETED, result=done[0].result, call_off=_ids(live))
    if len(done) >= case.min_agents and not live:
        return _aggregated(case, done)
    lacking = case.min_agents - len(done) - len(live)
    if lacking <= 0:
        return Move(TaskStatus.RUNNING)
    if case.losses >= MOST_LOSSES:
        return Move(TaskStatus.FAILED, error=_poison(case.losses, _last_error(case)), call_off=_ids(live))
    error = _last_error(case)
    if case.failures > case.retries or not (error or {}).get("retryable", True):
        return Move(
            TaskStatus.FAILED,
            error=_last_word(error, case.failures, bool((error or {}).get("retryable", True))),
            call_off=_ids(live),
        )
    status = TaskStatus.RUNNING if live or done else TaskStatus.PENDING
    wait = backoff(case.backoff_seconds, case.failures, jitter) if case.failures else 0.0
    return Move(status, wanted=lacking, delay_seconds=wait, error=error)


def policy_of(options: Mapping[str, Any], panel: int) -> consensus.Policy:
    """The counting rules of a task's `consensus` options; `panel` voters sit."""
    known = {
        key: options[key]
        for key in ("threshold", "quorum", "min_votes", "confidence", "trim")
        if options.get(key) is not None
    }
    tolerance = options.get("tolerance") or {}
    return consensus.Policy(
        rule=consensus.Rule(options.get("rule", "supermajority")),
        panel=panel,
        cap=options.get("cap", 7),
        options=canonical_options(options.get("options") or (), sameness_of(options)),
        tolerance=tolerance.get("abs", 0.0),
        relative_tolerance=tolerance.get("rel", 0.0),
        **{"min_votes": min(2, panel), **known},
    )


def sameness_of(options: Mapping[str, Any]) -> Equivalence:
    """What makes two answers the same, from a task's `consensus` options."""
    return Equivalence(
        vote_on=options.get("vote_on", ""),
        normalize=options.get("normalize", False),
        number=options.get("number", False),
    )


def first_wave(options: Mapping[str, Any] | None, min_agents: int, max_agents: int) -> int:
    """How many agents a task wants when it becomes ready."""
    if options is None:
        return min_agents
    policy = policy_of(options, max_agents)
    voters = [consensus.Voter(f"voter-{number}") for number in range(max_agents)]
    return max(1, consensus.decide(policy, voters, ()).needed)


def _settle_vote(case: Case, jitter: Jitter) -> Move:
    policy = policy_of(case.options, len(case.electorate))
    sameness = sameness_of(case.options)
    performance = {one.agent_id: one.performance for one in case.tried}
    electorate = [
        consensus.Voter(agent, performance=performance.get(agent, 0.5)) for agent in case.electorate
    ]
    ballots = [_ballot(one, sameness) for one in case.tried if not one.status.is_live]
    live = [one for one in case.tried if one.status.is_live]
    verdict = consensus.decide(policy, electorate, ballots, out=len(live))
    match verdict.status:
        case consensus.VoteStatus.REACHED:
            return Move(
                TaskStatus.COMPLETED,
                result=_told(case, verdict.answer, sameness),
                call_off=_ids(live),
                verdict=verdict,
            )
        case consensus.VoteStatus.FAILED if (
            case.on_no_consensus == "plurality" and verdict.leader is not None
        ):
            return Move(
                TaskStatus.COMPLETED,
                result=_told(case, verdict.leader, sameness),
                call_off=_ids(live),
                verdict=verdict,
            )
        case consensus.VoteStatus.FAILED:
            return Move(TaskStatus.FAILED, error=_disagreement(verdict), call_off=_ids(live), verdict=verdict)
        case consensus.VoteStatus.PENDING:
            status = TaskStatus.RUNNING if case.tried else TaskStatus.PENDING
            return Move(status, wanted=verdict.needed, verdict=verdict)


def _ballot(one: Tried, sameness: Equivalence) -> consensus.Ballot:
    if one.status is not AttemptStatus.COMPLETED:
        return consensus.Ballot(one.agent_id, status=consensus.BallotStatus.LOST)
    answer = canonical_answer(one.result, sameness)
    if answer is None:
        return consensus.Ballot(one.agent_id, status=consensus.BallotStatus.ABSTAINED)
    return consensus.Ballot(one.agent_id, answer=answer)


def _told(case: Case, answer: str | None, sameness: Equivalence) -> Any:
    """The result as a voter wrote it: the first by agent id among those who gave the answer."""
    for one in sorted(case.tried, key=lambda t: t.agent_id):
        if one.status is AttemptStatus.COMPLETED and canonical_answer(one.result, sameness) == answer:
            return one.result
    return answer


def _aggregated(case: Case, done: Sequence[Tried]) -> Move:
    in_order = sorted(done, key=lambda one: one.agent_id)
    match case.aggregate:
        case Aggregate.FIRST:
            return Move(TaskStatus.COMPLETED, result=done[0].result)
        case Aggregate.ALL:
            return Move(TaskStatus.COMPLETED, result={one.agent_id: one.result for one in in_order})
        case Aggregate.BEST:
            best = max(in_order, key=lambda one: (one.confidence or 0.0, one.performance))
            return Move(TaskStatus.COMPLETED, result=best.result)
        case Aggregate.MERGE:
            return _merged([one.result for one in in_order])
        case Aggregate.MEDIAN:
            return _median([one.result for one in in_order])


def _merged(results: Sequence[Any]) -> Move:
    if all(isinstance(result, dict) for result in results):
        return Move(TaskStatus.COMPLETED, result={k: v for result in results for k, v in result.items()})
    if all(isinstance(result, list) for result in results):
        return Move(TaskStatus.COMPLETED, result=[item for result in results for item in result])
    return Move(
        TaskStatus.FAILED,
        error={
            "code": "cannot_merge",
            "message": "the results are neither all objects nor all lists",
            "retryable": False,
        },
    )


def _median(results: Sequence[Any]) -> Move:
    if all(isinstance(result, int | float) and not isinstance(result, bool) for result in results):
        return Move(TaskStatus.COMPLETED, result=statistics.median(results))
    return Move(
        TaskStatus.FAILED,
        error={"code": "no_median", "message": "the results are not all numbers", "retryable": False},
    )


def _ids(attempts: Sequence[Tried]) -> tuple[str, ...]:
    return tuple(one.message_id for one in attempts)


def _last_error(case: Case) -> Mapping[str, Any] | None:
    return next((one.error for one in reversed(case.tried) if one.error), None)


def _last_word(error: Mapping[str, Any] | None, failures: int, may_retry: bool) -> dict[str, Any]:
    told = dict(error or {"code": "failed", "message": "the agent gave no reason"})
    told["attempts_failed"] = failures
    if not may_retry:
        told["retryable"] = False
    return told


def _poison(losses: int, error: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "code": "agents_lost",
        "message": f"{losses} agents were lost while they held this task; it is not given to another",
        "last": dict(error or {}),
    }


def _disagreement(verdict: consensus.Verdict) -> dict[str, Any]:
    return {
        "code": "consensus_not_reached",
        "message": (
            f"no answer can reach {verdict.threshold_count} of {verdict.electorate} votes"
            if verdict.threshold_count is not None
            else f"{verdict.votes_used} votes made no decision"
        ),
        "counts": dict(verdict.counts),
    }
