"""Operations on schedules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from functools import partial
from itertools import islice
from typing import Any

import asyncpg
import orjson

from agentorch_cli import views
from agentorch_cli.core.cron import Missed, check_cron, next_after, times_after
from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.documents import Document
from agentorch_cli.errors import Conflict, UsageError, command
from agentorch_cli.handlers.context import Context
from agentorch_cli.handlers.lists import within_time
from agentorch_cli.identity import new_id_text
from agentorch_cli.store.listing import Clauses, among, both, cursor_from
from agentorch_cli.store.listings import SCHEDULES
from agentorch_cli.store.schedules import run_now, traced, unknown_schedule, zone_of
from agentorch_cli.taskfile import plain_items, read_template

LONGEST_NAME = 160
"""Characters: the name is part of idempotency keys."""

UPCOMING = 5
"""Next times that one schedule shows."""

OVERLAPS = ("allow", "skip")


async def add_schedule(
    context: Context,
    name: str,
    cron: str,
    tasks: Sequence[Any],
    time_zone: str = "UTC",
    missed: str = "once",
    overlap: str = "allow",
    replace: bool = False,
) -> views.ScheduleView:
    """Store a schedule of these tasks, written as in a task file. Raises UsageError, InvalidTask, Conflict.

    `replace`: one of that name is changed, and keeps what it counted; else it is a conflict.
    """
    zone = _checked(name, cron, time_zone, missed, overlap)
    items = plain_items(tasks)
    document = Document({"tasks": items}, f"schedule {name}")
    read_template(document, new_id=new_id_text, defaults=context.task_defaults).plan()
    clock = await context.db.fetch_one("clock")
    assert clock is not None
    stored = await context.db.fetch(
        "put_schedule",
        name,
        cron,
        time_zone,
        orjson.dumps(items).decode(),
        missed,
        overlap,
        next_after(cron, zone, clock["now"]),
        replace,
    )
    if not stored:
        raise Conflict(
            f"there is a schedule {name!r} already",
            hint="--replace changes it",
            fix=command("schedule", "show", name),
        )
    return await get_schedule(context, name)


async def list_schedules(
    context: Context,
    status: str | Sequence[str] | None = None,
    since: str | None = None,
    until: str | None = None,
    sort: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> list[views.ScheduleView]:
    """Schedules, by name, or in the order of `sort`; each with the cursor of what comes after it.

    Raises UsageError, NotFound (a bad cursor).
    """
    wanted = both(among("status", status), *within_time(since, until))
    within = Clauses(SCHEDULES, wanted, sort, cursor)
    rows = await context.db.fetch("show_schedules", None, limit, within=within)
    return [_schedule_view(row) for row in rows]


async def get_schedule(context: Context, name: str) -> views.ScheduleView:
    """One schedule with its next times and its tasks. Raises NotFound."""
    rows = await context.db.fetch("show_schedules", [name], 1)
    if not rows:
        raise await unknown_schedule(context.store, name)
    schedule = _schedule_view(rows[0])
    schedule.tasks = orjson.loads(rows[0]["tasks"])
    schedule.upcoming = _upcoming(schedule, rows[0]["now"])
    return schedule


async def pause_schedules(context: Context, names: Sequence[str]) -> views.ChangeReply:
    """Let schedules run no more until they are resumed."""
    rows = await context.db.fetch("pause_schedules", list(names))
    return await _changed(context, names, [row["name"] for row in rows], "it is paused already")


async def resume_schedules(context: Context, names: Sequence[str]) -> views.ChangeReply:
    """Let paused schedules run again, from their next time on: what passed meanwhile is not made up for."""
    next_at: dict[str, datetime | None] = {}
    wrong: dict[str, str] = {}
    async with context.db.transaction() as tx:
        for row in await tx.fetch("lock_paused_schedules", list(names)):
            try:
                next_at[row["name"]] = next_after(row["cron"], zone_of(row["time_zone"]), row["now"])
            except ValueError as error:
                wrong[row["name"]] = str(error)
        await tx.fetch("resume_schedules", list(next_at), list(next_at.values()))
    reply = await _changed(context, names, list(next_at), "it is not paused")
    reply.unchanged |= wrong
    return reply


async def remove_schedules(context: Context, names: Sequence[str]) -> views.ChangeReply:
    """Remove schedules; the tasks that they submitted stay."""
    known = await _names(context)
    rows = await context.db.fetch("remove_schedules", list(names))
    return await _changed(context, names, [row["name"] for row in rows], "it is gone", known)


async def run_schedule(context: Context, name: str) -> views.SubmitReply:
    """Run a schedule once, now, besides its times, paused or not. Raises NotFound, InvalidTask."""
    run = await traced(context.traces, partial(run_now, context.store, name, context.task_defaults))
    return views.SubmitReply(
        submission_id=str(run.submission_id),
        tasks=[
            views.SubmittedTask(task_id=one.task_id, name=one.name, status=one.status, is_new=one.is_new)
            for one in run.stored
        ],
    )


def _checked(name: str, cron: str, time_zone: str, missed: str, overlap: str) -> tzinfo:
    """The zone of a schedule that can be stored. Raises UsageError."""
    if not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
        raise UsageError(
            f"a schedule's name has 1 to {LONGEST_NAME} characters, none of them a control character"
        )
    for word, value, known in (("missed", missed, list(Missed)), ("overlap", overlap, OVERLAPS)):
        if value not in known:
            names = [str(one) for one in known]
            raise UsageError(
                f'"{value}" is no policy for {word}{did_you_mean(value, names)}',
                hint=f"One of {', '.join(names)}.",
            )
    try:
        check_cron(cron)
    except ValueError as error:
        raise UsageError(
            f'the expression "{cron[:80]}" {error}', hint='for instance "*/5 * * * *", @hourly or "every 30s"'
        ) from error
    try:
        return zone_of(time_zone)
    except ValueError as error:
        raise UsageError(str(error), hint='an IANA name such as "Europe/Berlin", or UTC') from error


def _schedule_view(row: asyncpg.Record) -> views.ScheduleView:
    if row["is_paused"]:
        state = "paused"
    elif row["error"] is not None:
        state = "failing"
    else:
        state = "active" if row["next_at"] is not None else "ended"
    cursor = cursor_from(row["place"]) if row["place"] is not None else None
    return views.ScheduleView(**{**dict(row), "tasks": [], "state": state, "cursor": cursor})


def _upcoming(schedule: views.ScheduleView, now: datetime) -> list[datetime]:
    """Its next times, as they would be if it ran; none where its expression or zone is not understood."""
    try:
        times = times_after(schedule.cron, zone_of(schedule.time_zone), now)
        return list(islice(times, UPCOMING))
    except ValueError:
        return []


async def _names(context: Context) -> list[str]:
    return [row["name"] for row in await context.db.fetch("show_schedules", None, None)]


async def _changed(
    context: Context,
    names: Sequence[str],
    changed: Sequence[str],
    otherwise: str,
    known: Sequence[str] | None = None,
) -> views.ChangeReply:
    """What was changed, and why the others were not."""
    reply = views.ChangeReply(changed=[name for name in dict.fromkeys(names) if name in changed])
    left = [name for name in dict.fromkeys(names) if name not in changed]
    if left:
        known = await _names(context) if known is None else known
        for name in left:
            reply.unchanged[name] = (
                otherwise if name in known else f"there is no such schedule{did_you_mean(name, known)}"
            )
    return reply
