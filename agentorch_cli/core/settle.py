"""What a task does next, given its attempts.

Every ended attempt asks this question, and so do timeouts, losses and late results. The
answer is data (`Move`); the engine performs it under the lock of the task.

* Results that suffice complete the task, and call off attempts that are still out.
* An error is retried, up to `retries` times, after a backoff, elsewhere where there is an
  elsewhere; one that says `retryable: false` is not.
* A loss (the agent vanished or never accepted) is nobody's failure: it is repeated at once and
  does not count as a retry. But work that loses `MOST_LOSSES` agents is taken for poison and
  fails. Work that an agent gave back in good order does not count at all.
* Where the task has a rule for the code of an error (`retry`), that code is counted by itself, by
  its own rule, and does not use up what the others have. What the rule says of retries goes before
  `retryable: false`, and a rule for the code of a loss goes before what holds for losses.
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
from dataclasses import dataclass, field, replace
from typing import Any

from agentorch_cli.core import consensus
from agentorch_cli.core.model import Aggregate, AttemptStatus, TaskStatus
from agentorch_cli.core.team import share_of

MOST_LOSSES = 5
"""Agents that a task may lose, for each that it asks for, before it is taken for the cause."""

MOST_BACKOFF = 300.0
"""Longest wait before a retry where nothing else is said, in seconds."""

NO_CODE = "failed"
"""The code of an error that names none."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What a task says about one error code; None: what it says about all."""

    retries: int | None = None
    backoff_seconds: float | None = None
    max_backoff_seconds: float | None = None


def retry_rules(options: Mapping[str, Any] | None) -> dict[str, Retry]:
    """The rules by code, from a task's options. Raises TypeError where they are none."""
    return {code: Retry(**rule) for code, rule in (options or {}).items()}


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

    @property
    def code(self) -> str:
        """The code of its error."""
        return str((self.error or {}).get("code") or NO_CODE)


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
    max_backoff_seconds: float = MOST_BACKOFF
    retry: Mapping[str, Retry] = field(default_factory=dict)
    """Rules by error code."""
    aggregate: Aggregate = Aggregate.FIRST
    team: frozenset[str] = frozenset()
    """The capabilities that a team shares out; none where each agent has all."""

    @property
    def most_losses(self) -> int:
        """Agents that may be lost: so many for each that it asks for."""
        return MOST_LOSSES * max(self.min_agents, min(self.max_agents, len(self.team)))

    def rule_of(self, one: Tried) -> Retry | None:
        """The rule for what went wrong with an attempt, if there is one."""
        if one.went_wrong or one.status is AttemptStatus.LOST:
            return self.retry.get(one.code)
        return None


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


_COMPLETED = Move(TaskStatus.COMPLETED)

Jitter = Callable[[], float]
"""Gives a number in 0..1."""


def backoff(seconds: float, failures: int, jitter: Jitter, most: float = MOST_BACKOFF) -> float:
    """Exponential, with full spread over the upper half, so that a crowd does not come back at once."""
    return _longest(seconds, failures, most) * (0.5 + 0.5 * jitter())


def _longest(seconds: float, failures: int, most: float) -> float:
    doubled: float = seconds * 2.0 ** min(max(0, failures - 1), 30)
    return min(most, doubled)


def settle_one(
    status: AttemptStatus,
    error: Mapping[str, Any] | None,
    *,
    retries: int,
    failures: int,
    losses: int,
    backoff_seconds: float,
    jitter: Jitter,
    max_backoff_seconds: float = MOST_BACKOFF,
) -> Move:
    """The same answer as `settle` for the common case: one agent, no rule for its error's code, and its
    attempt has just ended.

    `failures` and `losses` do not include this attempt. The result is the caller's to keep.
    """
    if status is AttemptStatus.COMPLETED:
        return _COMPLETED
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
            delay_seconds=backoff(backoff_seconds, failures + 1, jitter, max_backoff_seconds),
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
    ruled = _ruled(case)
    losses = case.losses - sum(one.status is AttemptStatus.LOST for one in ruled)
    if losses >= case.most_losses:
        lost = [one.error for one in case.tried if one.status is AttemptStatus.LOST]
        error = _poison(losses, lost[-1] if lost else None)
        return Move(TaskStatus.FAILED, error=error, call_off=_ids(live))
    if (spent := _spent(case, ruled)) is not None:
        return Move(TaskStatus.FAILED, error=spent, call_off=_ids(live))
    wrong = [one.error for one in case.tried if one.went_wrong and case.rule_of(one) is None]
    hopeless = [error for error in wrong if not _may_retry(error)]
    failures = case.failures - sum(one.went_wrong for one in ruled)
    if hopeless or failures > case.retries:
        last = (hopeless or wrong or [None])[-1]
        error = _last_word(last, case.failures, may_retry=not hopeless)
        return Move(TaskStatus.FAILED, error=error, call_off=_ids(live))
    return None


def _ruled(case: Case) -> list[Tried]:
    """The attempts whose errors have a rule of their own."""
    return [one for one in case.tried if case.rule_of(one) is not None] if case.retry else []


def _spent(case: Case, ruled: Sequence[Tried]) -> dict[str, Any] | None:
    """The reason for the end where a code that has a rule came once too often; else None."""
    times = Counter(one.code for one in ruled)
    for one in reversed(ruled):
        rule = case.retry[one.code]
        is_final = rule.retries is None and not _may_retry(one.error)
        if is_final or times[one.code] > (case.retries if rule.retries is None else rule.retries):
            return _last_word(one.error, times.total(), may_retry=not is_final)
    return None


def _asked_again(case: Case, lacking: int, jitter: Jitter, counted: Sequence[Tried]) -> Move:
    """More agents, at once for those that were lost or gave the work back, later after a failure."""
    in_vain = [one for one in case.tried if not one.status.is_live and not one.is_done]
    longest = max((_wait_after(case, one) for one in in_vain[-lacking:]), default=0.0)
    return Move(
        TaskStatus.RUNNING if counted else TaskStatus.PENDING,
        wanted=lacking,
        delay_seconds=longest * (0.5 + 0.5 * jitter()) if longest else 0.0,
        error=in_vain[-1].error if in_vain else None,
    )


def _wait_after(case: Case, one: Tried) -> float:
    """The longest wait before what went wrong is tried again, in seconds."""
    rule, ruled = case.rule_of(one), _ruled(case)
    if not one.went_wrong and (rule is None or rule.backoff_seconds is None):
        return 0.0  # a loss is repeated at once, unless its rule asks for a wait
    if rule is None:
        failures = case.failures - sum(other.went_wrong for other in ruled)
        return _longest(case.backoff_seconds, failures, case.max_backoff_seconds)
    return _longest(
        case.backoff_seconds if rule.backoff_seconds is None else rule.backoff_seconds,
        sum(other.code == one.code for other in ruled),
        case.max_backoff_seconds if rule.max_backoff_seconds is None else rule.max_backoff_seconds,
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
