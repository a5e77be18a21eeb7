"""Schedules: what is submitted again and again, and the one transaction that does it.

A run is one transaction. It locks the schedule's row, works out what the time asks for, inserts the
tasks under idempotency keys that name schedule and time, and moves the row on. So it happens whole or
not at all: whoever dies in between has done nothing, and the next leader finds the row as it was. Two nodes
that both believe to lead meet at the row, which one of them has; and the keys hold even if
somebody turns the times in the table back.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import orjson

from agentorch_cli.core.cron import Missed, Turn, turn
from agentorch_cli.core.hints import did_you_mean, shortened
from agentorch_cli.core.model import TaskSpec
from agentorch_cli.documents import Document
from agentorch_cli.errors import DatabaseUnreachable, NotFound, OrchestratorError
from agentorch_cli.identity import new_id, new_id_text
from agentorch_cli.store.database import Transaction
from agentorch_cli.store.store import Store
from agentorch_cli.store.submission import Stored, insert_within
from agentorch_cli.taskfile import read_template
from agentorch_cli.traces import Traces

RETRY_SECONDS = 60.0
"""A schedule that cannot run is tried again after this."""

MOST_ERROR = 500
"""Characters of the reason why it cannot."""


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a schedule whose time had come."""

    name: str
    at: datetime | None = None
    """The time that it ran for; None where it did not."""
    skipped: int = 0
    submission_id: UUID | None = None
    stored: Sequence[Stored] = field(default_factory=list)
    error: str | None = None
    """Why it could not."""
    is_news: bool = False
    """It could the last time."""


Done = TypeVar("Done", bound=Run | None)


async def traced(traces: Traces | None, run: Callable[[str | None], Awaitable[Done]]) -> Done:
    """What `run` does with a schedule, under a span of its own; that is told where it submitted something."""
    if traces is None:
        return await run(None)
    span, began = traces.begin(None), time.time()
    done = await run(str(span))
    if done is not None and done.stored:
        traces.end(
            "submit",
            span,
            None,
            began,
            submission_id=str(done.submission_id),
            submission_tasks=len(done.stored),
            schedule_name=done.name,
        )
    return done


def zone_of(name: str) -> tzinfo:
    """A time zone by its IANA name. Raises ValueError with a sentence where there is none of that name."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, available_timezones

    try:
        return ZoneInfo(name)
    except (LookupError, OSError, ValueError) as error:
        known = available_timezones()
        why = did_you_mean(name, sorted(known)) if known else ": this system has no time zone database"
        raise ValueError(f'there is no time zone "{shortened(name)}"{why}') from error


def run_key(name: str, at: datetime, index: int | None = None) -> str:
    """The idempotency key of a task: schedule, time, and which of several tasks it is."""
    key = f"schedule:{name}:{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return key if index is None else f"{key}:{index}"


async def seconds_to_next(store: Store) -> float | None:
    """In how many seconds the next schedule is due, negative where one is; None where there is none."""
    row = await store.db.fetch_one("next_schedule")
    assert row is not None  # an aggregate has one row
    return None if row["seconds"] is None else float(row["seconds"])


async def run_due(store: Store, defaults: Mapping[str, Any], span: str | None = None) -> Run | None:
    """Run the schedule that has been due for longest; None where none is, or other nodes are at them.

    `defaults`: TaskSpec fields for tasks that are silent about them; `span`: what these are part of.
    A schedule that cannot run says so in its row and stands back for a while. Raises DatabaseUnreachable.
    """
    row: asyncpg.Record | None = None
    try:
        async with store.db.transaction() as tx:
            row = await tx.fetch_one("due_schedule")
            return None if row is None else await _run(tx, store, row, defaults, span)
    except DatabaseUnreachable:
        raise
    except (OrchestratorError, asyncpg.PostgresError, ValueError, TypeError, LookupError) as error:
        if row is None:
            raise
        reason = str(error)[:MOST_ERROR].replace("\0", "") or type(error).__name__
        await store.db.fetch("note_sick_schedule", row["name"], reason, RETRY_SECONDS)
        return Run(row["name"], error=reason, is_news=row["error"] is None)


async def run_now(store: Store, name: str, defaults: Mapping[str, Any], span: str | None = None) -> Run:
    """Run a schedule once more, besides its times. Raises NotFound, InvalidTask."""
    async with store.db.transaction() as tx:
        row = await tx.fetch_one("lock_schedule", name)
        if row is None:
            raise await unknown_schedule(store, name)
        tasks = _tasks_of(row, defaults, span)
        return await _submit(tx, store, row, Turn(row["now"], 0, row["next_at"]), tasks)


async def unknown_schedule(store: Store, name: str) -> NotFound:
    """The error that says so, with the name that was probably meant."""
    names = [row["name"] for row in await store.db.fetch("show_schedules", None, None)]
    return NotFound(
        f"there is no schedule {name!r}{did_you_mean(name, names)}", fix="agentorch schedule list"
    )


async def _run(
    tx: Transaction, store: Store, row: asyncpg.Record, defaults: Mapping[str, Any], span: str | None
) -> Run:
    name = row["name"]
    now = turn(row["cron"], zone_of(row["time_zone"]), row["next_at"], row["now"], Missed(row["missed"]))
    if now.at is not None and row["overlap"] == "skip" and await tx.fetch("standing", row["last_tasks"]):
        now = Turn(None, now.skipped + 1, now.next_at)
    if now.at is None:
        await tx.fetch("move_schedule", name, None, now.skipped, now.next_at, None, [], False, store.node_id)
        return Run(name, skipped=now.skipped)
    tasks = _tasks_of(row, defaults, span)
    if len(tasks) == 1:
        keyed = [replace(tasks[0], idempotency_key=run_key(name, now.at))]
    else:
        keyed = [replace(one, idempotency_key=run_key(name, now.at, at)) for at, one in enumerate(tasks)]
    return await _submit(tx, store, row, now, keyed)


async def _submit(
    tx: Transaction, store: Store, row: asyncpg.Record, now: Turn, tasks: Sequence[TaskSpec]
) -> Run:
    submission_id = new_id()
    stored = await insert_within(tx, store, submission_id, tasks)
    await tx.fetch(
        "move_schedule",
        row["name"],
        now.at,
        now.skipped,
        now.next_at,
        submission_id,
        [one.task_id for one in stored],
        any(one.is_new for one in stored),
        store.node_id,
    )
    return Run(row["name"], now.at, now.skipped, submission_id, stored)


def _tasks_of(row: asyncpg.Record, defaults: Mapping[str, Any], span: str | None) -> list[TaskSpec]:
    """What a run submits. Raises InvalidTask where what is stored does not hold any more."""
    document = Document({"tasks": orjson.loads(row["tasks"])}, f"schedule {row['name']}")
    file = read_template(document, new_id=new_id_text, defaults=defaults)
    tasks = list(file.plan().tasks)
    return [one if one.traceparent or span is None else replace(one, traceparent=span) for one in tasks]
