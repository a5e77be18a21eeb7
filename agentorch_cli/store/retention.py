"""Taking away what is old: ended tasks with their attempts, events and votes, a few at a time.

A task stays, however old it is, while its result may still be asked for: by an open task that
depends on it, by one that could be tried again and is not old itself, by a parent that waits for
it, or by sub-tasks that are open. With a task goes its idempotency key: the same key makes a new
task then. What was summed up of it stays: budgets of submissions and labels, the spend of each
day, the ledgers of agents, and what people said about its result.

Batches are small, and each is a transaction of its own that locks nothing but what it deletes and
passes over what others hold: the hot path never waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from agentorch_cli.store.database import Database, Transaction

BATCH = 500
"""Tasks of one transaction."""

EVENTS_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is old."""

    before: datetime
    keep_from: int | None
    """The place (`seq`) of the first task that is kept because it is among the newest."""


@dataclass(slots=True)
class Pruned:
    """How much was deleted, or would be."""

    tasks: int = 0
    attempts: int = 0
    events: int = 0
    decisions: int = 0
    deadlocks: int = 0

    def plus(self, other: Pruned) -> None:
        """Add what another step deleted."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    @property
    def is_nothing(self) -> bool:
        """Whether there was nothing to delete."""
        return not any(getattr(self, one.name) for one in fields(self))


async def bounds_of(db: Database, older_than_seconds: float, keep_last: int) -> Bounds:
    """What is old at this moment, on the database's clock."""
    row = await db.fetch_one("prune_bounds", older_than_seconds, keep_last)
    assert row is not None  # a select without from has one row
    return Bounds(row["before"], row["keep_from"])


async def prune_tasks(
    db: Database, bounds: Bounds, after: int = 0, *, limit: int = BATCH, dry_run: bool = False
) -> tuple[Pruned, int | None]:
    """One batch: looks at `limit` tasks after a place, deletes the old ones; where the next batch begins.

    That is None at the end: where everything is younger.
    """
    rows = await db.fetch("prune_candidates", bounds.before, bounds.keep_from, after, limit)
    old = [row["task_id"] for row in rows if row["is_old"]]
    pruned = Pruned()
    if old and dry_run:
        pruned = await _count(db, bounds, old, [row["task_id"] for row in rows if row["has_dependents"]])
    elif old:
        pruned = await _delete(db, bounds, old)
    is_over = len(rows) < limit or all(row["created_at"] >= bounds.before for row in rows)
    return pruned, None if is_over else rows[-1]["seq"]


async def _delete(db: Database, bounds: Bounds, old: Sequence[str]) -> Pruned:
    async with db.transaction() as tx:
        held = await tx.fetch("lock_to_prune", old, bounds.before)
        depended_on = [row["task_id"] for row in held if row["has_dependents"]]
        needed = await _needed(tx, bounds, depended_on)
        gone = [row["task_id"] for row in held if row["task_id"] not in needed]
        row = await tx.fetch_one("prune_tasks", gone)
    return Pruned(**dict(row)) if row is not None else Pruned()


async def _count(db: Database, bounds: Bounds, old: Sequence[str], depended_on: Sequence[str]) -> Pruned:
    needed = await _needed(db, bounds, depended_on)
    row = await db.fetch_one("count_prunable", [task_id for task_id in old if task_id not in needed])
    return Pruned(**dict(row)) if row is not None else Pruned()


async def _needed(db: Database | Transaction, bounds: Bounds, depended_on: Sequence[str]) -> set[str]:
    """Those whose results others may still ask for."""
    if not depended_on:
        return set()
    rows = await db.fetch("needed_inputs", depended_on, bounds.before, bounds.keep_from)
    return {row["task_id"] for row in rows}


async def prune_events(
    db: Database, before: datetime, after: tuple[str, int] = ("0", 0), *, limit: int = EVENTS_AT_ONCE
) -> tuple[int, tuple[str, int] | None]:
    """One batch of the log, oldest first: how many events went, and where the next batch begins.

    Events of tasks that are kept are kept with them.
    """
    row = await db.fetch_one("prune_events", before, *after, limit)
    assert row is not None  # its from clause has one row
    is_over = row["looked"] < limit or row["is_young"]
    return row["events"], None if is_over else (row["tx"], row["event_id"])


async def prune_rest(db: Database, bounds: Bounds, *, dry_run: bool = False) -> Pruned:
    """Closed proposals and resolved deadlocks; with `dry_run` also the events that would go by age."""
    if dry_run:
        row = await db.fetch_one("count_rest", bounds.before)
    else:
        row = await db.fetch_one("prune_rest", bounds.before)
    return Pruned(**dict(row)) if row is not None else Pruned()
