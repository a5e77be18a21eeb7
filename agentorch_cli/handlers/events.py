"""The log of what happened."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import orjson

from agentorch_cli import views
from agentorch_cli.handlers.context import Context
from agentorch_cli.handlers.lists import find_moments
from agentorch_cli.store.following import cursor_of, patterns, place_before, read_cursor


async def list_events(
    context: Context,
    task_id: str | None = None,
    cursor: str | None = None,
    limit: int = 200,
    kinds: Sequence[str] | None = None,
    agent_id: str | None = None,
    newest: bool = False,
    since: str | None = None,
    until: str | None = None,
) -> list[views.EventView]:
    """The log after a cursor, oldest first; with `newest` its end instead.

    `kinds` may be patterns, such as `task_*`. `since` and `until` are moments, or how long ago. Raises
    NotFound (a bad cursor), UsageError.
    """
    tx, event_id = read_cursor(cursor)
    wanted = patterns(kinds)
    begin, end = await find_moments(context, since, until)
    if newest:
        rows = await context.db.fetch("newest_events", task_id, wanted, agent_id, limit, begin, end)
        return [event_view(row) for row in reversed(rows)]
    if begin is not None:
        tx, event_id = max((tx, event_id), await place_before(context.db, begin), key=_place)
    rows = await context.db.fetch("show_events", task_id, tx, event_id, limit, wanted, agent_id, begin, end)
    return [event_view(row) for row in rows]


def _place(cursor: tuple[str, int]) -> tuple[int, int]:
    return int(cursor[0]), cursor[1]


def event_view(row: asyncpg.Record) -> views.EventView:
    return views.EventView(
        cursor=cursor_of(row),
        at=row["at"],
        kind=row["kind"],
        task_id=row["task_id"],
        agent_id=row["agent_id"],
        message_id=str(row["message_id"]) if row["message_id"] else None,
        node_id=row["node_id"],
        data=orjson.loads(row["data"]) if row["data"] else {},
    )
