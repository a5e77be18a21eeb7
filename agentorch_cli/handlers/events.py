"""The log of what happened."""

from __future__ import annotations

import asyncpg
import orjson

from agentorch_cli import views
from agentorch_cli.errors import NotFound
from agentorch_cli.handlers.context import Context


async def list_events(
    context: Context, task_id: str | None = None, cursor: str | None = None, limit: int = 200
) -> list[views.EventView]:
    """The log after a cursor, oldest first."""
    tx, _, event_id = (cursor or "0:0").partition(":")
    if not (tx.isdecimal() and event_id.isdecimal() and int(tx) < 1 << 63 and int(event_id) < 1 << 63):
        raise NotFound(f"{cursor!r} is no cursor", hint="use the cursor of an event that was shown")
    rows = await context.db.fetch("show_events", task_id, tx, int(event_id), limit)
    return [event_view(row) for row in rows]


def event_view(row: asyncpg.Record) -> views.EventView:
    return views.EventView(
        cursor=f"{row['tx']}:{row['event_id']}",
        at=row["at"],
        kind=row["kind"],
        task_id=row["task_id"],
        agent_id=row["agent_id"],
        message_id=str(row["message_id"]) if row["message_id"] else None,
        node_id=row["node_id"],
        data=orjson.loads(row["data"]) if row["data"] else {},
    )
