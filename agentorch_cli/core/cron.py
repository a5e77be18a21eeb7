"""When a schedule runs: the times that an expression names, and which of those that have passed still count.

An expression has five fields (minute, hour, day of the month, month, day of the week), or six with
the seconds in front; or it is a word such as `@hourly`, or `every 30s`. Its fields are read on
the clock of a time zone, by the rules of Debian's cron (`cronsim`): where clocks go forward, a time
that does not exist that day runs right after the gap; where they go back, a time that comes twice
runs the first time. Expressions whose minute or hour is a star, and those with seconds, just follow
the clock.

`every` counts from the beginning of 1970 in UTC, whatever the zone: so its times depend on nothing
but the expression, on whichever node they are worked out.

A time counts as missed when a later one is due as well, or when it is more than `LATE` ago: a leader that is
taken over from within seconds has missed nothing of an hourly schedule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from itertools import islice, takewhile
from typing import Final

from agentorch_cli.core.durations import parse_duration, show_duration
from agentorch_cli.core.hints import did_you_mean

LONGEST: Final = 200
"""Characters of an expression."""

LATE: Final = timedelta(minutes=1)
"""A run that is later than this was missed."""

MOST_CAUGHT_UP: Final = 100
"""Missed runs that `all` makes up for, the newest of them."""

MOST_COUNTED: Final = 1_000
"""Missed runs that are counted in one go: a year of seconds is not worth the time."""

WORDS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_EVERY: Final = "every"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Missed(StrEnum):
    """What becomes of runs whose time passed while nobody could start them."""

    SKIP = "skip"
    """They are left out."""
    ONCE = "once"
    """One run stands for all of them."""
    ALL = "all"
    """Each is made up for, oldest first; at most `MOST_CAUGHT_UP`."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a schedule whose time has come does now."""

    at: datetime | None
    """The time that it runs for; None: it does not run."""
    skipped: int
    """Runs that are left out; counted up to `MOST_COUNTED`."""
    next_at: datetime | None
    """Its next time, which may be due already; None: it has none any more."""


def check_cron(text: str) -> None:
    """Raises ValueError with a sentence where the expression is none, or names no time at all."""
    if next_after(text, UTC, _EPOCH + timedelta(days=20_000)) is None:
        raise ValueError("names a time that never comes")


def next_after(cron: str, zone: tzinfo, moment: datetime) -> datetime | None:
    """The first time after a moment, in UTC; None where there is none within 50 years.

    Raises ValueError with a sentence where the expression is none.
    """
    return next(times_after(cron, zone, moment), None)


def times_after(cron: str, zone: tzinfo, moment: datetime) -> Iterator[datetime]:
    """The times after a moment, in UTC, each once and in order. Raises ValueError."""
    if len(cron) > LONGEST:
        raise ValueError(f"has more than {LONGEST} characters")
    if cron.split()[:1] == [_EVERY]:
        yield from _steps(_interval(cron), moment)
        return
    last = moment
    for local in _simulated(cron, zone, moment):
        at = local.astimezone(UTC)
        if at > last:  # two times in one gap run as one, and an hour that comes twice is passed once
            yield at
            last = at


def turn(cron: str, zone: tzinfo, next_at: datetime, now: datetime, missed: Missed) -> Turn:
    """What a schedule does whose `next_at` has come. Raises ValueError."""
    after = takewhile(lambda at: at <= now, times_after(cron, zone, next_at))
    due = [next_at, *islice(after, MOST_COUNTED)]
    if missed is Missed.ALL and len(due) <= MOST_CAUGHT_UP:
        return Turn(next_at, 0, next_after(cron, zone, next_at))
    newest = _newest(cron, zone, next_at, now) if len(due) > MOST_COUNTED else due
    if missed is Missed.ALL:
        at = newest[-MOST_CAUGHT_UP]
        return Turn(at, len(due) - MOST_CAUGHT_UP, next_after(cron, zone, at))
    is_left_out = missed is Missed.SKIP and now - newest[-1] > LATE
    return Turn(
        None if is_left_out else newest[-1],
        len(due) - (not is_left_out),
        next_after(cron, zone, now),
    )


def _newest(cron: str, zone: tzinfo, first: datetime, now: datetime) -> list[datetime]:
    """The last of very many times up to now, without going through all of them."""
    span = LATE
    while True:
        begin = max(first, now - span)
        due = takewhile(lambda at: at <= now, times_after(cron, zone, begin))
        found = deque(due, maxlen=MOST_CAUGHT_UP)
        if len(found) == MOST_CAUGHT_UP or begin == first:
            return list(found)
        span *= 4


def _steps(interval: timedelta, moment: datetime) -> Iterator[datetime]:
    number = (moment - _EPOCH) // interval
    while True:
        number += 1
        yield _EPOCH + number * interval


def _interval(text: str) -> timedelta:
    try:
        seconds = parse_duration(text.partition(_EVERY)[2])
    except ValueError as error:
        raise ValueError(f"what follows `every` {error}") from None
    if seconds < 1 or seconds % 1:
        raise ValueError(f"`every` takes whole seconds, not {show_duration(seconds)}")
    return timedelta(seconds=seconds)


def _simulated(cron: str, zone: tzinfo, moment: datetime) -> Iterator[datetime]:
    from cronsim import CronSim, CronSimError  # only those who have schedules pay for it

    fields = WORDS.get(cron.strip().lower(), cron)
    if fields.lstrip().startswith("@"):
        raise ValueError(f"is no word that is known{did_you_mean(cron, WORDS)}")
    found = len(fields.split())
    if found not in (5, 6):
        raise ValueError(f"has fields: {found}; wanted: five, or six with the seconds in front")
    try:
        return CronSim(fields, moment.astimezone(zone))
    except CronSimError as error:
        raise ValueError(f"is not valid: {str(error)[:1].lower()}{str(error)[1:]}") from None
