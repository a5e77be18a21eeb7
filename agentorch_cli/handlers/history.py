"""Taking old history away."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agentorch_cli import views
from agentorch_cli.errors import InvalidMessage
from agentorch_cli.frames import dumps
from agentorch_cli.handlers.context import Context
from agentorch_cli.store import retention
from agentorch_cli.store.following import read_cursor
from agentorch_cli.store.retention import BATCH, Bounds, Pruned

LONGEST_STEP = 20
"""Batches of one call: whoever asks, asks again, and can show how far it is."""


async def prune_history(
    context: Context,
    older_than_seconds: float,
    keep_last: int = 0,
    dry_run: bool = False,
    place: str | None = None,
) -> views.PruneView:
    """Delete some of what is old, or say how much that would be; `place` is where the last call ended.

    Whoever wants it all calls again until the answer names no further place.
    """
    bounds, part, after = await _begin(context, older_than_seconds, keep_last, place)
    found, following = Pruned(), None
    for _ in range(LONGEST_STEP):
        if part == "tasks":
            step, at = await retention.prune_tasks(
                context.db, bounds, int(after), limit=BATCH, dry_run=dry_run
            )
            found.plus(step)
            part, after = ("tasks", str(at)) if at is not None else ("rest" if dry_run else "events", "0:0")
        elif part == "events":
            events, cursor = await retention.prune_events(context.db, bounds.before, read_cursor(after))
            found.plus(Pruned(events=events))
            part, after = ("events", f"{cursor[0]}:{cursor[1]}") if cursor is not None else ("rest", "")
        else:
            found.plus(await retention.prune_rest(context.db, bounds, dry_run=dry_run))
            if not dry_run:
                await context.db.fetch("note_maintenance", "prune", dumps(_noted(bounds, keep_last)))
            break
    else:
        kept = "-" if bounds.keep_from is None else str(bounds.keep_from)
        following = " ".join((part, after, kept, bounds.before.isoformat()))
    return views.PruneView(
        before=bounds.before,
        is_dry_run=dry_run,
        tasks=found.tasks,
        attempts=found.attempts,
        events=found.events,
        decisions=found.decisions,
        deadlocks=found.deadlocks,
        place=following,
    )


def _noted(bounds: Bounds, keep_last: int) -> dict[str, Any]:
    return {"before": bounds.before.isoformat(), "keep_last": keep_last}


async def _begin(
    context: Context, older_than_seconds: float, keep_last: int, place: str | None
) -> tuple[Bounds, str, str]:
    """What is old, and where to go on: the same for all calls of one pruning."""
    if place is None:
        return await retention.bounds_of(context.db, older_than_seconds, keep_last), "tasks", "0"
    try:
        part, after, keep_from, before = place.split(" ")
        bounds = Bounds(datetime.fromisoformat(before), None if keep_from == "-" else int(keep_from))
        if part == "tasks":
            int(after)
    except ValueError:
        raise InvalidMessage("place is not one that an earlier answer named", field="place") from None
    latest = await retention.bounds_of(context.db, older_than_seconds, keep_last)
    return Bounds(min(bounds.before, latest.before), bounds.keep_from), part, after
