"""What a task does next, given its attempts.

Every ended attempt asks this question, and so do timeouts, losses and late results. The
answer is data (`Move`); the engine performs it under the lock of the task.

* Results that suffice complete the task, and call off attempts that are still out.
* An error is retried, up to `retries` times, after a backoff, elsewhere where there is an
  elsewhere; one that says `retryable: false` is not.
* A loss (the agent vanished or never accepted) is nobody's failure: it is repeated at once and
  does not count as a retry. But work that loses `MOST_LOSSES` agents is taken for poison and
  fails. Work that an agent gave back in good order does not count at all.
* A vote is settled by `core.election`: its ballots are its attempts.

An agent counts once, however many of its attempts brought something: the first stands.

The members of a team bring parts. The task is complete once each capability that it shares out is covered
by the role of somebody who brought a result; what is nobody's any more is asked for again, and the
results of the others stay.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentorch_cli.core import consensus
from agentorch_cli.core.model import Aggregate, AttemptStatus, TaskStatus
from agentorch_cli.core.team import share_of

MOST_LOSSES = 5
"""Agents that a task may lose, for each that it asks for, before it is taken for the cause."""

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
    role: str | None = None
    """What its agent was told to be."""

    @property
    def is_done(self) -> bool:
        """Brought a result."""
        return self.status is AttemptStatus.COMPLETED

    @property
    def went_wrong(self) -> bool:
        """Counts as a failure of the task."""
        return self.status in (AttemptStatus.FAILED, AttemptStatus.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Case:
    """A task as this room sees it, with all attempts of its generation, oldest first."""

    task_id: str
    tried: Sequence[Tried]
    min_agents: int = 1
    max_agents: int = 1
    retries: int = 2
    failures: int = 0
    losses: int = 0
    backoff_seconds: float = 1.0
    aggregate: Aggregate = Aggregate.FIRST
    team: frozenset[str] = frozenset()
    """The capabilities that a team shares out; none where each agent has all."""

    @property
    def most_losses(self) -> int:
        """Agents that may be lost: so many for each that it asks for."""
        return MOST_LOSSES * max(self.min_agents, min(self.max_agents, len(self.team)))


@dataclass(frozen=True, slots=True)
class Move:
    """What happens to the task."""

    status: TaskStatus
    """COMPLETED, FAILED, RUNNING (agents are out, or have answered) or PENDING (it starts anew)."""
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
    """The same answer as `settle` for the common case: one agent, and its attempt has just ended.

    `failures` and `losses` do not include this attempt. The result is the caller's to keep.
    """
    if status is AttemptStatus.COMPLETED:
        return Move(TaskStatus.COMPLETED)
    if status is AttemptStatus.LOST and losses + 1 >= MOST_LOSSES:
        return Move(TaskStatus.FAILED, error=_poison(losses + 1, error))
    if status in (AttemptStatus.LOST, AttemptStatus.CANCELLED):
        return Move(TaskStatus.PENDING, wanted=1, error=error)
    may_retry = _may_retry(error)
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
    if case.team:
        return _settle_team(case, jitter)
    live = [one for one in case.tried if one.status.is_live]
    done = _once_each((one for one in case.tried if one.is_done), lambda one: one.agent_id)
    out = {one.agent_id for one in live} - {one.agent_id for one in done}
    if len(done) >= case.min_agents and (case.aggregate is Aggregate.FIRST or not out):
        return replace(_aggregated(case.aggregate, done), call_off=_ids(live))
    lacking = case.min_agents - len(done) - len(out)
    if lacking <= 0:
        return Move(TaskStatus.RUNNING)
    return _gone_wrong(case, live) or _asked_again(case, lacking, jitter, live or done)


def _settle_team(case: Case, jitter: Jitter) -> Move:
    """The same for a team: who is live or done does its part, and all other parts are asked for."""
    live = [one for one in case.tried if one.status.is_live]
    done = _once_each((one for one in case.tried if one.is_done), lambda one: (one.agent_id, one.role))
    left = case.team.difference(*(share_of(one.role) for one in done))
    if not left and len(done) >= case.min_agents:
        return replace(_joined(case.aggregate, done), call_off=_ids(live))
    left = left.difference(*(share_of(one.role) for one in live))
    lacking = case.min_agents - len(done) - len(live)
    if not left and lacking <= 0:
        return Move(TaskStatus.RUNNING)
    return _gone_wrong(case, live) or _asked_again(case, max(1, lacking), jitter, live or done)


def _joined(aggregate: Aggregate, done: Sequence[Tried]) -> Move:
    """The result of a team. A role that was given twice stands there twice: `paint`, `paint#2`."""
    if aggregate is not Aggregate.ALL:
        return _aggregated(aggregate, done)
    parts: dict[str, Any] = {}
    given: Counter[str | None] = Counter()
    for one in done:
        given[one.role] += 1
        parts[f"{one.role}#{given[one.role]}" if given[one.role] > 1 else str(one.role)] = one.result
    return Move(TaskStatus.COMPLETED, result=dict(sorted(parts.items())))


def _gone_wrong(case: Case, live: Sequence[Tried]) -> Move | None:
    """The end of a task that lacks results and must not ask for more; None where it may."""
    if case.losses >= case.most_losses:
        lost = [one.error for one in case.tried if one.status is AttemptStatus.LOST]
        error = _poison(case.losses, lost[-1] if lost else None)
        return Move(TaskStatus.FAILED, error=error, call_off=_ids(live))
    wrong = [one.error for one in case.tried if one.went_wrong]
    hopeless = [error for error in wrong if not _may_retry(error)]
    if hopeless or case.failures > case.retries:
        last = (hopeless or wrong or [None])[-1]
        error = _last_word(last, case.failures, may_retry=not hopeless)
        return Move(TaskStatus.FAILED, error=error, call_off=_ids(live))
    return None


def _asked_again(case: Case, lacking: int, jitter: Jitter, counted: Sequence[Tried]) -> Move:
    """More agents, at once for those that were lost or gave the work back, later after a failure."""
    in_vain = [one for one in case.tried if not one.status.is_live and not one.is_done]
    is_failure = any(one.went_wrong for one in in_vain[-lacking:])
    return Move(
        TaskStatus.RUNNING if counted else TaskStatus.PENDING,
        wanted=lacking,
        delay_seconds=backoff(case.backoff_seconds, case.failures, jitter) if is_failure else 0.0,
        error=in_vain[-1].error if in_vain else None,
    )


def _once_each(tried: Iterable[Tried], by: Callable[[Tried], Hashable]) -> list[Tried]:
    """The first of each that are the same by this."""
    found: dict[Hashable, Tried] = {}
    for one in tried:
        found.setdefault(by(one), one)
    return list(found.values())


def _aggregated(aggregate: Aggregate, done: Sequence[Tried]) -> Move:
    in_order = sorted(done, key=lambda one: one.agent_id)
    match aggregate:
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


def _may_retry(error: Mapping[str, Any] | None) -> bool:
    return bool((error or {}).get("retryable", True))


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
