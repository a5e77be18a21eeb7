"""`agentorch schedule`, as people type it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agentorch_cli.views import ChangeReply, ScheduleView, SubmitReply, SubmittedTask

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def schedule(**more: Any) -> ScheduleView:
    facts = {
        "name": "census",
        "cron": "30 7 * * *",
        "time_zone": "Europe/Berlin",
        "state": "active",
        "next_at": NOW + timedelta(hours=6, minutes=30),
        "upcoming": [NOW + timedelta(days=n, hours=6, minutes=30) for n in range(5)],
        "tasks": [{"name": "count"}],
        "created_at": NOW,
        "updated_at": NOW,
    }
    return ScheduleView(**{**facts, **more})


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "census.toml"
    path.write_text('[task]\nname = "count"\n[task.data]\nday = 2026-11-23\n')
    return str(path)


def test_add_sends_the_tasks_as_they_were_written(
    agentorch: Callable[..., Any], desk: Any, file: str
) -> None:
    desk.answers["schedule.add"] = schedule()

    outcome = agentorch("schedule", "add", "census", "--cron", "30 7 * * *", "--missed", "all", file)

    assert outcome.code == 0
    assert desk.calls == [
        (
            "schedule.add",
            {
                "name": "census",
                "cron": "30 7 * * *",
                "tasks": [{"name": "count", "data": {"day": "2026-11-23"}}],
                "time_zone": "UTC",
                "missed": "all",
                "overlap": "allow",
                "replace": False,
            },
        )
    ]
    assert "Mon 2026-11-23 07:30:00 CET\t2026-11-23T06:30:00.000Z" in outcome.out


def test_a_file_that_cannot_be_submitted_twice_is_refused_with_its_place(
    agentorch: Callable[..., Any], desk: Any, tmp_path: Path
) -> None:
    (tmp_path / "once.toml").write_text('[task]\nname = "x"\nrunAt = 2030-01-01T00:00:00Z\n')

    outcome = agentorch("schedule", "add", "x", "--cron", "@daily", "once.toml")

    assert (outcome.code, desk.calls) == (2, [])
    assert "error: task.runAt: is a moment, which comes once: say delay" in outcome.err
    assert "  --> once.toml:3:1\n" in outcome.err
    assert "    3 | runAt = 2030" in outcome.err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--missed", "al"), '"al" is no policy for --missed (did you mean "all"?)'),
        (("--overlap", "skipp"), '"skipp" is no policy for --overlap (did you mean "skip"?)'),
    ],
)
def test_a_policy_that_there_is_not_is_explained(
    agentorch: Callable[..., Any], desk: Any, file: str, option: tuple[str, str], said: str
) -> None:
    outcome = agentorch("schedule", "add", "x", "--cron", "@daily", *option, file)

    assert (outcome.code, desk.calls) == (2, [])
    assert said in outcome.err


def test_list_says_why_one_cannot_run(agentorch: Callable[..., Any], desk: Any) -> None:
    desk.answers["schedule.list"] = [
        schedule(),
        schedule(name="sick", state="failing", error="no time zone \x1b[31m", retry_at=NOW),
        schedule(name="rests", state="paused"),
    ]

    outcome = agentorch("schedule", "list")
    rows = [line.split("\t") for line in outcome.out.splitlines()]

    assert [row[:2] for row in rows[1:]] == [["census", "active"], ["sick", "failing"], ["rests", "paused"]]
    assert "no time zone" in rows[2][-1] and "\x1b" not in outcome.out
    assert (rows[1][4], rows[3][4]) == ("2026-11-23T06:30:00.000Z", "")
    assert agentorch("schedule", "list", "-q").out.split() == ["census", "sick", "rests"]


def test_show_tells_the_next_five_times_and_the_reason(agentorch: Callable[..., Any], desk: Any) -> None:
    desk.answers["schedule.get"] = schedule(
        state="failing",
        error="it depends on 'gone'",
        retry_at=NOW,
        time_zone="Not/Here",
        runs=1200,
        skipped=3,
        last_at=NOW,
        last_submission_id="s-1",
    )

    outcome = agentorch("schedule", "show", "census")

    assert outcome.out.count("06:30:00 UTC") == 5
    assert "it depends on 'gone'" in outcome.out
    assert "1,200, and 3 left out" in outcome.out
    assert json.loads(agentorch("schedule", "show", "census", "--json").out)["name"] == "census"


def test_a_change_of_some_is_partial(agentorch: Callable[..., Any], desk: Any) -> None:
    desk.answers["schedule.pause"] = ChangeReply(changed=["a"], unchanged={"b": "it is paused already"})
    desk.answers["schedule.resume"] = ChangeReply(unchanged={"b": "it is not paused"})
    desk.answers["schedule.remove"] = ChangeReply(unchanged={"c": "there is no such schedule"})

    codes = [agentorch("schedule", *line.split()).code for line in ("pause a b", "resume b", "remove c")]

    assert codes == [9, 8, 7]
    assert [call[1] for call in desk.calls] == [{"names": ["a", "b"]}, {"names": ["b"]}, {"names": ["c"]}]


def test_run_shows_what_was_submitted(agentorch: Callable[..., Any], desk: Any) -> None:
    desk.answers["schedule.run"] = SubmitReply(
        submission_id="s-1", tasks=[SubmittedTask(task_id="t-1", name="count", status="pending")]
    )

    outcome = agentorch("-q", "schedule", "run", "census")

    assert (outcome.code, outcome.out) == (0, "t-1\n")


def test_an_empty_list_is_a_kind_sentence(agentorch: Callable[..., Any], desk: Any) -> None:
    desk.answers["schedule.list"] = []

    assert (
        agentorch("schedule", "list").err == "There are no schedules yet; agentorch schedule add makes one.\n"
    )
