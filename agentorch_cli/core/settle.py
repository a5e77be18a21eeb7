"""What a task does next, given its attempts.

Every ended attempt asks this question, and so do timeouts, losses and late results. The
answer is data (`Move`); the engine performs it under the lock of the task.

* Results that suffice complete the task, and call off attempts that are still out.
* An error is retried, up to `retries` times, after a backoff, elsewhere where there is an
  elsewhere; one that says `retryable: false` is not.
* A loss (the agent vanished or never accepted) is nobody's failure: it is repeated at once and
  does not count as a retry. But work that loses `MOST_LOSSES` agents is taken for poison and
  fails. Work that an agent gave back in good order does not count at all.
* A vote goes by `core.consensus`: the ballots are the attempts, one for each voter that was
  asked. Whoever failed, was lost or gave it back is a lost voter, and is not asked again.

An agent counts once, however many of its attempts brought something: the first stands.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentorch_cli.core import consensus
from agentorch_cli.core.equivalence import Equivalence, canonical_answer, canonical_options, point
from agentorch_cli.core.model import Aggregate, AttemptStatus, TaskStatus
from agentorch_cli.core.vote import NUMERIC_RULES, OPTION_RULES

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
    options: Mapping[str, Any] = field(default_factory=dict)
    electorate: Sequence[str] = ()
    """Frozen voters; empty where the task is no vote."""
    on_no_consensus: str = "fail"


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
    if case.electorate:
        return _settle_vote(case)
    live = [one for one in case.tried if one.status.is_live]
    done = _one_per_agent(one for one in case.tried if one.is_done)
    out = {one.agent_id for one in live} - {one.agent_id for one in done}
    if len(done) >= case.min_agents and (case.aggregate is Aggregate.FIRST or not out):
        return replace(_aggregated(case.aggregate, done), call_off=_ids(live))
    lacking = case.min_agents - len(done) - len(out)
    if lacking <= 0:
        return Move(TaskStatus.RUNNING)
    return _gone_wrong(case, live) or _asked_again(case, lacking, jitter, live or done)


def _gone_wrong(case: Case, live: Sequence[Tried]) -> Move | None:
    """The end of a task that lacks results and must not ask for more; None where it may."""
    if case.losses >= MOST_LOSSES * case.min_agents:
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


def _one_per_agent(tried: Iterable[Tried]) -> list[Tried]:
    found: dict[str, Tried] = {}
    for one in tried:
        found.setdefault(one.agent_id, one)
    return list(found.values())


def policy_of(options: Mapping[str, Any], panel: int) -> consensus.Policy:
    """The counting rules of a task's `consensus` options; `panel` voters sit."""
    known = {
        key: options[key]
        for key in ("threshold", "quorum", "min_votes", "confidence", "trim")
        if options.get(key) is not None
    }
    return consensus.Policy(
        rule=consensus.Rule(options.get("rule", "supermajority")),
        panel=panel,
        cap=options.get("cap", 7),
        options=canonical_options(options.get("options") or (), sameness_of(options)),
        tolerance=options.get("tolerance", 0.0),
        relative_tolerance=options.get("relative_tolerance", 0.0),
        **{"min_votes": min(2, panel), **known},
    )


def sameness_of(options: Mapping[str, Any]) -> Equivalence:
    """What makes two answers the same, from a task's `consensus` options."""
    is_tolerant = bool(options.get("tolerance") or options.get("relative_tolerance"))
    return Equivalence(
        vote_on=options.get("vote_on", ""),
        normalize=options.get("normalize", False),
        number=options.get("number", False) or is_tolerant or options.get("rule") in NUMERIC_RULES,
    )


def first_wave(options: Mapping[str, Any] | None, min_agents: int, max_agents: int) -> int:
    """How many agents a task wants when it becomes ready."""
    if options is None:
        return min_agents
    policy = policy_of(options, max_agents)
    voters = [consensus.Voter(f"voter-{number}") for number in range(max_agents)]
    return max(1, consensus.decide(policy, voters, ()).needed)


def _settle_vote(case: Case) -> Move:
    policy = policy_of(case.options, len(case.electorate))
    sameness = sameness_of(case.options)
    live = [one for one in case.tried if one.status.is_live]
    heard = _heard(case)
    performance = {one.agent_id: one.performance for one in case.tried}
    electorate = [
        consensus.Voter(agent, performance=performance.get(agent, 0.5)) for agent in case.electorate
    ]
    ballots = [_ballot(one, policy, sameness) for one in heard]
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


def _heard(case: Case) -> list[Tried]:
    """One ended attempt for each voter: the one that answered, if any did; then the oldest."""
    ended = [one for one in case.tried if not one.status.is_live]
    return _one_per_agent(sorted(ended, key=lambda one: not one.is_done))


def _ballot(one: Tried, policy: consensus.Policy, sameness: Equivalence) -> consensus.Ballot:
    if not one.is_done:
        return consensus.Ballot(one.agent_id, status=consensus.BallotStatus.LOST)
    if policy.rule in OPTION_RULES:
        return consensus.Ballot(one.agent_id, choices=_choices(one.result, sameness))
    answer = canonical_answer(one.result, sameness)
    if answer is None:
        return consensus.Ballot(one.agent_id, status=consensus.BallotStatus.ABSTAINED)
    return consensus.Ballot(one.agent_id, answer=answer)


def _choices(result: Any, sameness: Equivalence) -> tuple[str, ...]:
    """The options that a ballot names, in its order; a single one may stand without a list."""
    named = point(result, sameness.vote_on) if sameness.vote_on else result
    each = replace(sameness, vote_on="")
    answers = [canonical_answer(one, each) for one in (named if isinstance(named, list) else [named])]
    return tuple(answer for answer in answers if answer is not None)


def _told(case: Case, answer: str | None, sameness: Equivalence) -> Any:
    """The result as a voter wrote it: the first by agent id among those who gave the answer.

    Of options that were ranked or approved it is the option; a number that nobody wrote is itself.
    """
    if case.options.get("rule") in OPTION_RULES:
        each = replace(sameness, vote_on="")
        return next((one for one in case.options["options"] if canonical_answer(one, each) == answer), answer)
    for one in sorted(_heard(case), key=lambda t: t.agent_id):
        if one.is_done and canonical_answer(one.result, sameness) == answer:
            return one.result
    try:
        return json.loads(answer or "null")
    except ValueError:
        return answer  # a fraction, as 1/3


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
