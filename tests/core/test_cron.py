"""When schedules run: expressions, time zones whose clocks change, and what was missed."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from agentorch_cli.core.cron import (
    LATE,
    MOST_CAUGHT_UP,
    MOST_COUNTED,
    Missed,
    Turn,
    check_cron,
    next_after,
    times_after,
    turn,
)

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def upcoming(cron: str, zone: tzinfo, moment: str, number: int) -> list[str]:
    found = islice(times_after(cron, zone, at(moment)), number)
    return [time.strftime("%m-%d %H:%M:%S").removesuffix(":00") for time in found]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("*/5 * * * *", ["11-23 00:05", "11-23 00:10"]),
        ("15,45 * * * * *", ["11-23 00:00:15", "11-23 00:00:45"]),
        ("30 7 * * mon-fri", ["11-23 07:30", "11-24 07:30"]),
        ("0 9 L * *", ["11-30 09:00", "12-31 09:00"]),
        ("0 9 * * mon#1", ["12-07 09:00", "01-04 09:00"]),
        ("0 9 * * 5L", ["11-27 09:00", "12-25 09:00"]),
        ("0 0 13 * 5", ["11-27 00:00", "12-04 00:00"]),
        ("@hourly", ["11-23 01:00", "11-23 02:00"]),
        ("@midnight", ["11-24 00:00", "11-25 00:00"]),
        ("@weekly", ["11-29 00:00", "12-06 00:00"]),
        ("@monthly", ["12-01 00:00", "01-01 00:00"]),
        ("@yearly", ["01-01 00:00", "01-01 00:00"]),
        ("every 90s", ["11-23 00:01:30", "11-23 00:03"]),
        ("every 1d", ["11-24 00:00", "11-25 00:00"]),
    ],
)
def test_an_expression_names_these_times(cron: str, expected: list[str]) -> None:
    assert upcoming(cron, UTC, "2026-11-23T00:00", 2) == expected


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("", "has fields: 0; wanted: five"),
        ("* * * *", "has fields: 4; wanted: five"),
        ("61 * * * *", "is not valid: bad minute"),
        ("é * * * *", "is not valid: bad minute"),
        ("0 0 30 2 *", "is not valid: bad day-of-month"),
        ("@hurly", 'is no word that is known (did you mean "@hourly"?)'),
        ("@every 5s", "is no word that is known"),
        ("every", "what follows `every` must be a duration"),
        ("every soon", "what follows `every` must be a duration"),
        ("every 0s", "takes whole seconds"),
        ("every 1500ms", "takes whole seconds, not 1.5s"),
        ("* " * 101, "has more than 200 characters"),
    ],
)
def test_what_is_no_expression_is_refused_with_a_sentence(cron: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        check_cron(cron)


# --- clocks that change -------------------------------------------------------------------------


def test_a_time_that_the_day_does_not_have_comes_after_the_gap_and_once() -> None:
    # 2026-03-29, 02:00 CET becomes 03:00 CEST, which is 01:00 UTC
    assert upcoming("30 2 * * *", BERLIN, "2026-03-28T12:00", 2) == ["03-29 01:00", "03-30 00:30"]
    assert upcoming("0,30 2 * * *", BERLIN, "2026-03-28T12:00", 2) == ["03-29 01:00", "03-30 00:00"]


def test_a_time_that_comes_twice_runs_the_first_time() -> None:
    # 2026-10-25, 03:00 CEST becomes 02:00 CET, which is 01:00 UTC
    assert upcoming("30 2 * * *", BERLIN, "2026-10-24T12:00", 2) == ["10-25 00:30", "10-26 01:30"]


def test_in_the_hour_that_comes_again_nothing_lies_in_the_past() -> None:
    second_time = at("2026-10-25T01:10")

    assert next_after("30 2 * * *", BERLIN, second_time) == at("2026-10-26T01:30")


def test_a_star_follows_the_clock_through_both_hours() -> None:
    forward = upcoming("*/30 * * * *", BERLIN, "2026-03-29T00:30", 3)
    back = upcoming("*/30 * * * *", BERLIN, "2026-10-25T00:00", 4)

    assert forward == ["03-29 01:00", "03-29 01:30", "03-29 02:00"]
    assert back == ["10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"]


def test_every_counts_in_utc_whatever_the_zone() -> None:
    moment = at("2026-10-25T00:59")

    assert list(islice(times_after("every 7m", BERLIN, moment), 50)) == list(
        islice(times_after("every 7m", UTC, moment), 50)
    )


def test_the_times_are_those_that_a_look_at_each_minute_finds() -> None:
    """The dumb twin: every minute of some days, asked whether its clock shows what the fields say."""
    seed = random.randrange(2**31)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for begin in ("2026-03-28T00:00", "2026-10-24T00:00", "2026-06-01T00:00"):
        step, hours, weekday = dice.choice([1, 7, 20, 30]), dice.sample(range(24), 3), dice.randrange(1, 7)
        cron = f"*/{step} {','.join(map(str, hours))} * * {weekday},0"
        minutes = [at(begin) + timedelta(minutes=n) for n in range(1, 3 * 24 * 60)]

        expected = [
            minute
            for minute in minutes
            if (local := minute.astimezone(BERLIN)).minute % step == 0
            and local.hour in hours
            and local.isoweekday() % 7 in (weekday, 0)
        ]

        found = [time for time in islice(times_after(cron, BERLIN, at(begin)), 9_999) if time <= minutes[-1]]
        assert found == expected, cron


# --- what was missed ----------------------------------------------------------------------------


@pytest.mark.parametrize("missed", Missed)
def test_what_is_due_now_runs_now(missed: Missed) -> None:
    now = MONDAY + timedelta(seconds=3)

    assert turn("@hourly", UTC, MONDAY, now, missed) == Turn(MONDAY, 0, MONDAY + timedelta(hours=1))


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        (Missed.SKIP, Turn(None, 4, at("2026-11-23T04:00"))),
        (Missed.ONCE, Turn(at("2026-11-23T03:00"), 3, at("2026-11-23T04:00"))),
        (Missed.ALL, Turn(at("2026-11-23T00:00"), 0, at("2026-11-23T01:00"))),
    ],
)
def test_after_a_night_each_policy_does_its_own(missed: Missed, expected: Turn) -> None:
    assert turn("@hourly", UTC, MONDAY, at("2026-11-23T03:20"), missed) == expected


def test_a_single_run_is_missed_once_it_is_late() -> None:
    in_time = turn("@daily", UTC, MONDAY, MONDAY + LATE, Missed.SKIP)
    too_late = turn("@daily", UTC, MONDAY, MONDAY + LATE + timedelta(seconds=1), Missed.SKIP)

    assert (in_time.at, too_late.at, too_late.skipped) == (MONDAY, None, 1)
    assert turn("@daily", UTC, MONDAY, MONDAY + timedelta(hours=9), Missed.ONCE).at == MONDAY


def test_what_is_in_time_runs_although_others_were_missed() -> None:
    now = at("2026-11-23T03:00:05")

    assert turn("@hourly", UTC, MONDAY, now, Missed.SKIP) == Turn(
        at("2026-11-23T03:00"), 3, at("2026-11-23T04:00")
    )


def test_all_takes_the_newest_hundred_one_after_the_other() -> None:
    now = MONDAY + timedelta(hours=500)
    ran, skipped, next_at = [], 0, MONDAY
    while next_at <= now:
        one = turn("@hourly", UTC, next_at, now, Missed.ALL)
        assert one.at is not None and one.next_at is not None
        ran.append(one.at)
        skipped, next_at = skipped + one.skipped, one.next_at

    assert ran == [now - timedelta(hours=n) for n in reversed(range(MOST_CAUGHT_UP))]
    assert skipped == 501 - MOST_CAUGHT_UP


@pytest.mark.parametrize("cron", ["* * * * * *", "every 1s", "*/10 8 * * * *"])
def test_a_year_of_missed_seconds_takes_no_time(cron: str) -> None:
    now = at("2026-11-23T08:30:00")

    once = turn(cron, BERLIN if cron[0] == "*" else UTC, now - timedelta(days=365), now, Missed.ONCE)

    assert once.at is not None and once.next_at is not None
    assert next_after(cron, BERLIN, once.at) == once.next_at
    assert once.skipped == MOST_COUNTED
    everything = turn(cron, BERLIN, now - timedelta(days=365), now, Missed.ALL)
    assert everything.at is not None
    following = list(islice(times_after(cron, BERLIN, everything.at), MOST_CAUGHT_UP - 1))
    assert following[-1] == once.at


def test_a_schedule_may_end() -> None:
    last = turn("0 0 1 1 *", UTC, MONDAY, MONDAY, Missed.ONCE)

    assert last.next_at == at("2027-01-01T00:00")
    assert next_after("0 0 29 2 *", UTC, MONDAY) == at("2028-02-29T00:00")
