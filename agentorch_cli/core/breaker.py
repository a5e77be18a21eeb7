"""When an agent that keeps failing gets nothing more for a while, and how it comes back.

    closed --trip--> open --expire--> probing --succeed--> closed
                      ^                  |
                      +----- relapse ----+          resume (a person): closed, from anywhere

Closed is the ordinary state. An agent trips once it has failed `failures` times in a row, with at
least `tasks` different tasks: one poisoned task that is tried again and again excludes nobody. Open
has an expiry, always: `backoff` seconds, twice as long with each trip that had no success since the
one before, at most `max_backoff`. Then it is probed: it is given one task at a time, until one of
these probes says how it is.

What counts: a result is a success; an error, a time-out and a loss are failures. An error that
says `retryable: false` is about the task, and a cancelled attempt about neither: both count for
nothing. While open or probing, work from before the exclusion counts for nothing either: it
began when the agent was what it was then (so do Michael Nygard's circuit breakers, "Release It!",
2007, and their successors Hystrix and resilience4j).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from agentorch_cli.core.model import AttemptStatus


@dataclass(frozen=True, slots=True)
class Rules:
    """When it trips, and for how long; durations in seconds."""

    enabled: bool = True
    failures: int = 10
    tasks: int = 3
    backoff: float = 5.0
    max_backoff: float = 300.0


class Phase(StrEnum):
    """How an agent stands."""

    CLOSED = "closed"
    """Gets work like everybody."""
    OPEN = "open"
    """Gets nothing before its exclusion expires."""
    PROBING = "probing"
    """Gets one task at a time."""


class Event(StrEnum):
    """What moves it."""

    TRIP = "trip"
    EXPIRE = "expire"
    SUCCEED = "succeed"
    RELAPSE = "relapse"
    RESUME = "resume"


MOVES: dict[tuple[Phase, Event], Phase] = {
    (Phase.CLOSED, Event.TRIP): Phase.OPEN,
    (Phase.OPEN, Event.EXPIRE): Phase.PROBING,
    (Phase.PROBING, Event.SUCCEED): Phase.CLOSED,
    (Phase.PROBING, Event.RELAPSE): Phase.OPEN,
    (Phase.CLOSED, Event.RESUME): Phase.CLOSED,
    (Phase.OPEN, Event.RESUME): Phase.CLOSED,
    (Phase.PROBING, Event.RESUME): Phase.CLOSED,
}


class Outcome(StrEnum):
    """What the end of an attempt says about its agent."""

    WELL = "well"
    BADLY = "badly"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Breaker:
    """How one agent stands. Until when it is excluded is kept beside it, on the database's clock."""

    phase: Phase = Phase.CLOSED
    failures: int = 0
    """In a row."""
    tasks: tuple[str, ...] = ()
    """Different tasks among these, no more than are asked for."""
    trips: int = 0
    """Exclusions without a success in between."""


CLOSED = Breaker()


def outcome_of(status: AttemptStatus, error: Mapping[str, Any] | None) -> Outcome:
    """What the end of an attempt says about its agent."""
    match status:
        case AttemptStatus.COMPLETED:
            return Outcome.WELL
        case AttemptStatus.TIMED_OUT | AttemptStatus.LOST:
            return Outcome.BADLY
        case AttemptStatus.FAILED:
            is_the_tasks = error is not None and error.get("retryable") is False
            return Outcome.NOTHING if is_the_tasks else Outcome.BADLY
        case _:
            return Outcome.NOTHING


def after(breaker: Breaker, outcome: Outcome, task_id: str, rules: Rules, *, is_probe: bool) -> Breaker:
    """How an agent stands after one of its attempts ended. `is_probe`: it was given while probing."""
    if outcome is Outcome.NOTHING:
        return breaker
    if not rules.enabled:
        return CLOSED
    if breaker.phase is Phase.CLOSED:
        return CLOSED if outcome is Outcome.WELL else _failed(breaker, task_id, rules)
    if breaker.phase is not Phase.PROBING or not is_probe:
        return breaker
    if outcome is Outcome.WELL:
        return moved(breaker, Event.SUCCEED)
    return moved(_counted(breaker, task_id, rules), Event.RELAPSE)


def moved(breaker: Breaker, event: Event) -> Breaker:
    """The same agent after an event. Raises KeyError where the event has no place in its phase."""
    phase = MOVES[breaker.phase, event]
    if phase is Phase.CLOSED:
        return CLOSED
    trips = breaker.trips + (phase is Phase.OPEN)
    return replace(breaker, phase=phase, trips=trips)


def exclusion_seconds(trips: int, rules: Rules) -> float:
    """How long the exclusion of this trip (1, 2, ...) lasts."""
    return float(min(rules.max_backoff, rules.backoff * 2.0 ** min(trips - 1, 60)))


def _failed(breaker: Breaker, task_id: str, rules: Rules) -> Breaker:
    counted = _counted(breaker, task_id, rules)
    if counted.failures >= rules.failures and len(counted.tasks) >= rules.tasks:
        return moved(counted, Event.TRIP)
    return counted


def _counted(breaker: Breaker, task_id: str, rules: Rules) -> Breaker:
    is_new = task_id not in breaker.tasks and len(breaker.tasks) < rules.tasks
    tasks = (*breaker.tasks, task_id) if is_new else breaker.tasks
    return replace(breaker, failures=breaker.failures + 1, tasks=tasks)
