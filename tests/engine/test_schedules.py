"""Schedules on a real engine: each time once, what was missed, what overlaps, and what cannot run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from crew import Gate

from agentorch_cli.errors import Conflict, InvalidTask, NotFound, UsageError
from agentorch_cli.store.schedules import run_due, run_key

WORK = {"name": "work", "required_capabilities": ["work"]}
NOBODY = {"name": "work", "required_capabilities": ["nobody"]}


@pytest.fixture
def add(orchestrator: Any) -> Callable[..., Awaitable[Any]]:
    """Adds a schedule of a task that nobody can do; `due` sets back when it is due, in hours."""

    async def add(name: str, cron: str = "@hourly", due: float | None = None, **more: Any) -> Any:
        more.setdefault("tasks", [NOBODY])
        schedule = await orchestrator.call("schedule.add", name=name, cron=cron, **more)
        if due is not None:
            await set_back(orchestrator, name, due)
        return schedule

    return add


async def set_back(orchestrator: Any, name: str, hours: float) -> None:
    """As if the engine had been away: the schedule was due so many hours before the last full one."""
    await orchestrator.store.db.pool.execute(
        "update schedules set next_at = date_trunc('hour', now()) - $2 * interval '1 hour' where name = $1",
        name,
        hours,
    )


async def keys_of(orchestrator: Any) -> list[str]:
    rows = await orchestrator.store.db.pool.fetch(
        "select idempotency_key from task_distributions order by idempotency_key"
    )
    return [row[0] for row in rows]


async def get(orchestrator: Any, name: str) -> Any:
    return await orchestrator.call("schedule.get", name=name)


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 10) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.01)
        return found


# --- runs -------------------------------------------------------------------------------------


async def test_a_schedule_runs_when_its_time_comes(orchestrator: Any, crew: Any, add: Any) -> None:
    await crew.join("a")

    await add("tick", "every 1s", tasks=[WORK])
    await until(lambda: _has_run(orchestrator, "tick", 2))

    schedule = await get(orchestrator, "tick")
    rows = await orchestrator.store.db.pool.fetch(
        "select idempotency_key, created_at, status from task_distributions order by created_at limit 2"
    )
    for row in rows:
        at = datetime.fromisoformat(row["idempotency_key"].removeprefix("schedule:tick:"))
        assert 0 <= (row["created_at"] - at).total_seconds() < 10
    assert schedule.skipped == 0
    assert schedule.next_at - schedule.last_at == timedelta(seconds=1)
    (last,) = schedule.last_tasks
    (task,) = await orchestrator.call("task.wait", task_ids=[last], timeout_seconds=10)
    assert task.status == "completed"


async def _has_run(orchestrator: Any, name: str, times: int) -> bool:
    return bool((await get(orchestrator, name)).runs >= times)


async def test_a_run_is_one_submission_of_all_tasks(orchestrator: Any, crew: Any, add: Any) -> None:
    await crew.join("a")
    stored = await orchestrator.submit(WORK)
    tasks = [
        {**WORK, "name": "first", "data": 1, "delay": "1ms"},
        {**WORK, "name": "second", "dependsOn": ["first", stored.task_id], "deadline": "1h"},
    ]

    await add("both", tasks=tasks)
    reply = await orchestrator.call("schedule.run", name="both")
    ended = await orchestrator.call(
        "task.wait", task_ids=[one.task_id for one in reply.tasks], timeout_seconds=10
    )

    assert [(one.name, one.status) for one in ended] == [("first", "completed"), ("second", "completed")]
    assert {one.submission_id for one in ended} == {reply.submission_id}
    second = await orchestrator.call("task.get", task_id=ended[1].task_id)
    assert second.depends_on == [ended[0].task_id, stored.task_id]
    assert timedelta(minutes=59) < second.deadline - second.created_at <= timedelta(hours=1, seconds=1)
    schedule = await get(orchestrator, "both")
    assert (schedule.runs, schedule.last_tasks) == (1, [one.task_id for one in ended])


async def test_the_keys_name_schedule_time_and_task(orchestrator: Any, add: Any) -> None:
    await add("two", due=0, tasks=[NOBODY, {**NOBODY, "name": "other"}])
    await until(lambda: _has_run(orchestrator, "two", 1))

    at = (await get(orchestrator, "two")).last_at
    assert await keys_of(orchestrator) == [run_key("two", at, 0), run_key("two", at, 1)]
    assert run_key("a", datetime(2026, 11, 23, tzinfo=UTC), 1) == "schedule:a:2026-11-23T00:00:00Z:1"


async def test_a_time_that_is_turned_back_in_the_table_does_not_run_twice(
    orchestrator: Any, add: Any
) -> None:
    await add("once", due=0)
    await until(lambda: _has_run(orchestrator, "once", 1))

    await set_back(orchestrator, "once", 0)
    orchestrator.engine.timetable.wake()
    schedule = await until(lambda: _moved_on(orchestrator, "once"))

    assert schedule.runs == 1
    assert len(await keys_of(orchestrator)) == 1


async def _moved_on(orchestrator: Any, name: str) -> Any:
    schedule = await get(orchestrator, name)
    return schedule if schedule.next_at > datetime.now(UTC) else None


async def test_two_nodes_run_each_time_once(start_engine: Any, add_to: Any) -> None:
    first, second = await start_engine(), await start_engine()
    second.engine.state.is_leader = True  # both believe it
    await add_to(first, "night", due=30, missed="all")

    for one in (first, second):
        one.engine.timetable.wake()
    schedule = await until(lambda: _moved_on(first, "night"))

    hours = [schedule.last_at - timedelta(hours=n) for n in reversed(range(31))]
    assert await keys_of(first) == [run_key("night", at) for at in hours]
    assert schedule.runs == 31


async def test_whoever_dies_in_the_middle_has_done_nothing(
    start_engine: Any, add_to: Any, database_url: str
) -> None:
    orchestrator = await start_engine(engine={"poll_interval": 600})
    await add_to(orchestrator, "due", due=0)
    other = await asyncpg.connect(database_url)
    await other.execute(
        "begin; update schedules set next_at = now() + interval '1 h', runs = 1 where name = 'due'"
    )
    in_its_hands = await run_due(orchestrator.store, {})
    await other.close()

    orchestrator.engine.timetable.wake()
    schedule = await until(lambda: _moved_on(orchestrator, "due"))

    assert in_its_hands is None
    assert schedule.runs == 1
    assert len(await keys_of(orchestrator)) == 1


@pytest.fixture
def add_to() -> Callable[..., Awaitable[None]]:
    async def add_to(orchestrator: Any, name: str, due: float | None, **more: Any) -> None:
        await orchestrator.call("schedule.add", name=name, cron="@hourly", tasks=[NOBODY], **more)
        if due is not None:
            await set_back(orchestrator, name, due)

    return add_to


# --- missed, overlapping, sick ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("missed", "hours_back", "skipped"),
    [("skip", [0], 5), ("once", [0], 5), ("all", [5, 4, 3, 2, 1, 0], 0)],
)
async def test_after_downtime_each_policy_does_its_own(
    start_engine: Any, add_to: Any, missed: str, hours_back: list[int], skipped: int
) -> None:
    first = await start_engine()
    await add_to(first, "night", due=None, missed=missed)
    await first.stop()
    await _downtime(first.settings, 5)

    second = await start_engine()
    schedule = await until(lambda: _moved_on(second, "night"))

    last = schedule.next_at - timedelta(hours=1)
    late = datetime.now(UTC) - last > timedelta(minutes=1)
    if missed == "skip" and late:  # the newest of the hours is missed as well
        hours_back, skipped = [], 6
    assert await keys_of(second) == [run_key("night", last - timedelta(hours=n)) for n in hours_back]
    assert (schedule.runs, schedule.skipped) == (len(hours_back), skipped)


async def _downtime(settings: Any, hours: int) -> None:
    connection = await asyncpg.connect(settings.database.url)
    await connection.execute(
        "update schedules set next_at = date_trunc('hour', now()) - $1 * interval '1 hour'", hours
    )
    await connection.close()


async def test_a_run_that_would_overlap_is_left_out(orchestrator: Any, add: Any) -> None:
    await add("one-at-a-time", due=3, missed="all", overlap="skip")

    schedule = await until(lambda: _moved_on(orchestrator, "one-at-a-time"))
    await orchestrator.call("task.cancel", task_ids=schedule.last_tasks)
    await set_back(orchestrator, "one-at-a-time", -0.25)
    await orchestrator.store.db.pool.execute("update schedules set next_at = now(), cron = 'every 1h'")
    orchestrator.engine.timetable.wake()
    again = await until(lambda: _moved_on(orchestrator, "one-at-a-time"))

    assert (schedule.runs, schedule.skipped) == (1, 3)
    assert (again.runs, again.skipped) == (2, 3)
    events = await orchestrator.store.db.pool.fetch(
        "select kind, count(*) from events where kind like 'schedule%' group by kind order by kind"
    )
    assert [tuple(row) for row in events] == [("schedule_ran", 2), ("schedule_skipped", 3)]


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        ("time_zone = 'Europe/Atlantis'", 'there is no time zone "Europe/Atlantis"'),
        ("cron = 'now and then'", "has fields: 3"),
        ("""tasks = '[{"nmae": "x"}]'""", 'unknown key (did you mean "name"?)'),
        ("tasks = '[]'", "contains no task"),
        ("""tasks = '[{"depends_on": ["gone"]}]'""", "depends on 'gone'"),
    ],
)
async def test_a_schedule_that_cannot_run_says_why_and_disturbs_no_other(
    orchestrator: Any, add: Any, sql: Any, breakage: str, said: str
) -> None:
    await add("sick")
    await add("sound")

    await sql(
        f"update schedules set next_at = '2026-01-01Z', missed = 'once', {breakage} where name = 'sick'"
    )
    await set_back(orchestrator, "sound", 0)
    orchestrator.engine.timetable.wake()
    await until(lambda: _has_run(orchestrator, "sound", 1))
    sick = next(one for one in await orchestrator.call("schedule.list") if one.name == "sick")

    assert sick.state == "failing" and said in sick.error
    assert (sick.runs, sick.next_at) == (0, datetime(2026, 1, 1, tzinfo=UTC))
    assert timedelta(seconds=50) < sick.retry_at - datetime.now(UTC) < timedelta(seconds=61)

    await sql(
        "update schedules set time_zone = 'UTC', cron = '@hourly', tasks = '[{}]', retry_at = now()"
        " where name = 'sick'"
    )
    await until(lambda: _has_run(orchestrator, "sick", 1))  # the sweep finds it

    well = await get(orchestrator, "sick")
    assert (well.state, well.error, well.retry_at) == ("active", None, None)


async def test_what_is_due_although_no_hint_came_is_found_by_the_sweep(orchestrator: Any, add: Any) -> None:
    await add("quiet")
    await asyncio.sleep(0)

    await set_back(orchestrator, "quiet", 0)  # nobody is told

    await until(lambda: _has_run(orchestrator, "quiet", 1), 5)


async def test_without_schedules_nothing_is_asked_for_them(
    orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fetch_one = orchestrator.store.db.fetch_one

    async def heard(name: str, *arguments: Any) -> Any:
        asked.append(name)
        return await fetch_one(name, *arguments)

    monkeypatch.setattr(orchestrator.store.db, "fetch_one", heard)
    async with asyncio.timeout(10):
        while asked.count("sweep") < 3:
            await asyncio.sleep(0.02)

    assert "next_schedule" not in asked


# --- operations -------------------------------------------------------------------------------


async def test_a_paused_schedule_waits_and_makes_up_for_nothing(orchestrator: Any, add: Any) -> None:
    await add("rests", missed="all")

    paused = await orchestrator.call("schedule.pause", names=["rests", "rsets"])
    await set_back(orchestrator, "rests", 5)
    orchestrator.engine.timetable.wake()
    by_hand = await orchestrator.call("schedule.run", name="rests")
    at_rest = await get(orchestrator, "rests")
    resumed = await orchestrator.call("schedule.resume", names=["rests"])
    schedule = await get(orchestrator, "rests")

    assert paused.changed == resumed.changed == ["rests"]
    assert paused.unchanged == {"rsets": 'there is no such schedule (did you mean "rests"?)'}
    assert (at_rest.state, at_rest.runs, len(at_rest.upcoming)) == ("paused", 1, 5)
    assert len(by_hand.tasks) == 1
    assert schedule.state == "active" and schedule.next_at == schedule.upcoming[0] > datetime.now(UTC)
    assert (await orchestrator.call("schedule.resume", names=["rests"])).unchanged == {
        "rests": "it is not paused"
    }


async def test_a_name_is_taken_once_unless_it_is_to_be_replaced(orchestrator: Any, add: Any) -> None:
    await add("name", due=0)
    await until(lambda: _has_run(orchestrator, "name", 1))

    with pytest.raises(Conflict, match="there is a schedule 'name' already"):
        await add("name", "@daily")
    replaced = await add("name", "@daily", replace=True, overlap="skip", time_zone="Europe/Berlin")

    assert (replaced.cron, replaced.overlap, replaced.runs) == ("@daily", "skip", 1)
    assert replaced.next_at.astimezone(UTC).hour in (22, 23)


async def test_removing_leaves_what_was_submitted(orchestrator: Any, add: Any) -> None:
    await add("gone", due=0)
    await until(lambda: _has_run(orchestrator, "gone", 1))

    reply = await orchestrator.call("schedule.remove", names=["gone", "never"])

    assert (reply.changed, reply.unchanged) == (["gone"], {"never": "there is no such schedule"})
    assert len(await keys_of(orchestrator)) == 1
    with pytest.raises(NotFound, match="there is no schedule 'gone'"):
        await get(orchestrator, "gone")


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"cron": "* * *"}, UsageError, 'the expression "\\* \\* \\*" has fields: 3'),
        ({"time_zone": "Europe/Berln"}, UsageError, 'did you mean "Europe/Berlin"'),
        ({"time_zone": "../../etc/passwd"}, UsageError, "there is no time zone"),
        ({"time_zone": "Europe"}, UsageError, "there is no time zone"),
        ({"missed": "oncee"}, UsageError, 'did you mean "once"'),
        ({"overlap": "no"}, UsageError, "is no policy for overlap"),
        ({"name": "x" * 161}, UsageError, "1 to 160 characters"),
        ({"name": "a\nb"}, UsageError, "control character"),
        ({"tasks": []}, InvalidTask, "must not be empty|no task"),
        ({"tasks": [{"id": "x"}]}, InvalidTask, "stands for one task"),
        ({"tasks": [{"runAt": "2030-01-01T00:00:00Z"}]}, InvalidTask, "comes once"),
        ({"tasks": [{"deadline": "2030-01-01T00:00:00Z"}]}, InvalidTask, "comes once"),
        ({"tasks": [{"idempotency_key": "x"}]}, InvalidTask, "is made by the schedule"),
    ],
)
async def test_what_cannot_be_scheduled_is_refused(
    orchestrator: Any, add: Any, more: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await add(**{"name": "x", **more})

    assert await orchestrator.call("schedule.list") == []


# --- limits of waiting ------------------------------------------------------------------------


async def test_what_nobody_starts_in_time_fails_and_says_what_it_waited_for(
    orchestrator: Any, crew: Any, story: Any
) -> None:
    await crew.join("a")
    task = await orchestrator.submit({"required_capabilities": ["paint"], "queue_timeout": 0.1})
    after = await orchestrator.submit({"depends_on": [task.task_id]})

    ended = await task.wait(10)

    assert (ended.status, ended.error["code"], ended.attempts_made) == ("failed", "queue_timeout", 0)
    assert ended.error["message"] == (
        "nobody had started it 0.1 s after it became ready:"
        " wants an agent with paint (a lacks the capability `paint`)"
    )
    assert await story(task.task_id) == ["task_submitted", "task_failed"]
    assert (await after.wait(10)).error["code"] == "dependency_failed"
    assert task.task_id not in orchestrator.engine.state.backlog.tasks


async def test_it_does_not_count_while_a_task_is_blocked_or_delayed_or_runs(
    orchestrator: Any, crew: Any, sql: Any
) -> None:
    gate = Gate(1)
    await crew.join("a", does=gate)
    limit = {"required_capabilities": ["work"], "queue_timeout": 0.4}
    first = await orchestrator.submit(limit)
    await gate.work()
    blocked = await orchestrator.submit({**limit, "depends_on": [first.task_id]})
    delayed = await orchestrator.submit({**limit, "delay": 3600})
    await sql("update task_distributions set created_at = now() - interval '1 day'")
    await sql("update task_distributions set run_at = now() - interval '1 day' where status <> 'pending'")

    await orchestrator.engine.lifeline.sweep_once()
    await orchestrator.engine.settler.idle()
    stand = [
        (await orchestrator.call("task.get", task_id=one.task_id)).status for one in (first, blocked, delayed)
    ]
    gate.is_open.set()

    assert stand == ["running", "blocked", "pending"]
    assert await blocked.result(10) == 1


async def test_it_counts_anew_when_a_task_is_ready_anew(orchestrator: Any, crew: Any, sql: Any) -> None:
    gate = Gate(1)
    hand = await crew.join("a", does=gate)
    task = await orchestrator.submit({"required_capabilities": ["work"], "queue_timeout": 5})
    await gate.work()
    await sql("update task_distributions set created_at = now() - interval '1 h', run_at = created_at")
    await hand.vanish()  # its work is given back, and is ready again

    await until(lambda: _is(orchestrator, task.task_id, "pending"))
    await orchestrator.engine.lifeline.sweep_once()
    is_waiting = await _is(orchestrator, task.task_id, "pending")
    await sql("update task_distributions set run_at = now() - interval '6 s'")

    assert is_waiting
    assert (await task.wait(10)).error["code"] == "queue_timeout"


async def _is(orchestrator: Any, task_id: str, status: str) -> bool:
    return bool((await orchestrator.call("task.get", task_id=task_id)).status == status)


async def test_what_is_taken_at_the_last_moment_goes_on(orchestrator: Any, crew: Any) -> None:
    gate = Gate(1)
    await crew.join("a", does=gate)
    task = await orchestrator.submit({"required_capabilities": ["work"], "queue_timeout": 60})
    await gate.work()

    await orchestrator.engine.settler.settle_task(task.task_id, ended_by={"code": "queue_timeout"})
    gate.is_open.set()

    assert await task.result(10) == 1


async def test_it_survives_a_restart(start_engine: Any) -> None:
    first = await start_engine()
    task = await first.submit({"required_capabilities": ["nobody"], "queue_timeout": 3600})
    await first.stop()
    connection = await asyncpg.connect(first.settings.database.url)
    await connection.execute(
        "update task_distributions set created_at = now() - interval '2 h', run_at = now() - interval '2 h'"
    )
    await connection.close()

    second = await start_engine()
    (ended,) = await second.call("task.wait", task_ids=[task.task_id], timeout_seconds=10)

    assert ended.error["code"] == "queue_timeout"


async def test_a_time_to_run_that_has_passed_is_no_time_of_waiting(orchestrator: Any, crew: Any) -> None:
    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "queue_timeout": 60, "run_at": "2020-01-01T00:00:00Z"}
    )
    await orchestrator.engine.lifeline.sweep_once()
    await crew.join("a")

    assert (await task.wait(10)).status == "completed"
