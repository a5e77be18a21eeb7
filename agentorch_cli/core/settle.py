"""What a task does next, given its attempts.

Every ended attempt asks this question, and so do timeouts, losses and late results. The
answer is data (`Move`); the engine performs it under the lock of the task.

* A result that suffices completes the task, and calls off attempts that are still out.
* An error is retried, up to `retries` times, after a backoff, elsewhere where there is an
  elsewhere; one that says `retryable: false` is not.
* A loss (the agent vanished, left, or never accepted) is nobody's failure: it is repeated at
  once and does not count as a retry. But work that loses `MOST_LOSSES` agents is taken for
  poison and fails.
* A vote is settled by `core.election`: its ballots are its attempts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentorch_cli.core import consensus
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
