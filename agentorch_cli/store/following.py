"""Following the log of what happened: nothing missed, nothing twice.

A cursor is `transaction:event`. The log is read up to the oldest transaction that is still open,
so a row of a slow transaction is never behind a cursor that was given out. Whoever lost the
connection goes on from the last cursor that it saw.

`Pulse` looks whether the log has moved, once for all who follow on this node, and not at all
while nobody does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import asyncpg

from agentorch_cli.errors import DatabaseUnreachable, NotFound
from agentorch_cli.store.database import Database
from agentorch_cli.store.listing import like

log = logging.getLogger("agentorch.store")

LOOK_EVERY = 0.25
"""Seconds between two looks while somebody follows."""

AWAY_PAUSE = 1.0
"""Seconds before a follower asks again what could not be read."""

MOST_AT_ONCE = 500
"""Events that are read at once for one follower."""

LAST = (1 << 63) - 1


LONGEST_TRANSACTION = timedelta(minutes=10)
"""By so much the times of events may be out of the order of their transactions."""


class Filter(NamedTuple):
    """Which events are wanted; None: all. Kinds may be patterns, such as `task_*`."""

    task_id: str | None = None
    kinds: Sequence[str] | None = None
    agent_id: str | None = None


def read_cursor(cursor: str | None) -> tuple[str, int]:
    """The parts of a cursor; the beginning of the log where there is none. Raises NotFound."""
    tx, _, event_id = (cursor or "0:0").partition(":")
    if not (tx.isascii() and tx.isdecimal() and event_id.isascii() and event_id.isdecimal()):
        raise _no_cursor(cursor)
    if int(tx) > LAST or int(event_id) > LAST:
        raise _no_cursor(cursor)
    return tx, int(event_id)


def _no_cursor(cursor: str | None) -> NotFound:
    return NotFound(f"{str(cursor)[:100]!r} is no cursor", hint="use the cursor of an event that was shown")


def cursor_of(row: asyncpg.Record) -> str:
    """Where to go on after this event."""
    return f"{row['tx']}:{row['event_id']}"


async def now_cursor(db: Database) -> str:
    """Where the log ends now: everything after it is news."""
    row = await db.fetch_one("event_horizon")
    assert row is not None
    return f"{int(row['tx']) - 1}:{LAST}"


async def place_before(db: Database, moment: datetime) -> tuple[str, int]:
    """A place in the log that lies before everything since this moment, and not long before it.

    There is no index on times: the place is found by halving, since transactions are numbered in
    the order in which they begin.
    """
    ends = await db.fetch_one("ends_of_events")
    assert ends is not None
    if ends["first"] is None:
        return "0", 0
    before, after = int(ends["first"]) - 1, int(ends["last"])
    while after - before > 1:
        middle = (before + after) // 2
        row = await db.fetch_one("event_near", str(middle))
        if row is not None and row["at"] < moment - LONGEST_TRANSACTION:
            before = middle
        else:
            after = middle
    return str(before), 0


def patterns(kinds: Sequence[str] | None) -> list[str] | None:
    """Kinds as the statements take them."""
    return [like(kind) for kind in kinds] if kinds else None


class Pulse:
    """Tells followers when the log has moved."""

    def __init__(self, db: Database, *, look_every: float = LOOK_EVERY) -> None:
        self._db = db
        self._look_every = look_every
        self._followers = 0
        self._moved = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._is_away = False
        self.newest: tuple[int, int] | None = None
        """The end of the log when it was last looked at."""

    async def next(self) -> None:
        """Returns when the log has moved since this was called."""
        await self._moved.wait()

    def is_away(self, error: DatabaseUnreachable) -> None:
        """The log cannot be read: said once until it can, by all who follow together."""
        if not self._is_away:
            self._is_away = True
            log.warning("cannot look at the log of events: %s", error)

    def _is_back(self) -> None:
        if self._is_away:
            self._is_away = False
            log.warning("the log of events can be read again")

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """For the time of the block, look."""
        self._followers += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="pulse")
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers and self._looking is not None:
                looking, self._looking = self._looking, None  # who comes while it ends has one of its own
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)

    async def _look(self) -> None:
        is_first = True
        while True:
            try:
                row = await self._db.fetch_one("newest_event")
            except DatabaseUnreachable as error:
                self.is_away(error)
            else:
                self._is_back()
                newest = (int(row["tx"]), int(row["event_id"])) if row is not None else None
                if is_first or newest != self.newest:
                    is_first, self.newest = False, newest
                    moved, self._moved = self._moved, asyncio.Event()
                    moved.set()
            await asyncio.sleep(self._look_every)


async def follow(
    db: Database, pulse: Pulse, cursor: str, wanted: Filter
) -> AsyncIterator[list[asyncpg.Record]]:
    """The events after a cursor, in order, as they come; for ever. Raises NotFound for a bad cursor.

    Nothing is read ahead: the next events are asked for when these have been taken.
    """
    tx, event_id = read_cursor(cursor)
    at = (int(tx), event_id)
    kinds = patterns(wanted.kinds)
    async with pulse.following():
        while True:
            moved = asyncio.ensure_future(pulse.next())
            seen = pulse.newest
            try:
                rows = await db.fetch(
                    "show_events",
                    wanted.task_id,
                    str(at[0]),
                    at[1],
                    MOST_AT_ONCE,
                    kinds,
                    wanted.agent_id,
                    None,
                    None,
                )
                if rows:
                    at = (int(rows[-1]["tx"]), int(rows[-1]["event_id"]))
                    yield rows
                if len(rows) < MOST_AT_ONCE:
                    at = max(at, seen or at)  # what lies before and is not wanted is not read again
                    await moved
            except DatabaseUnreachable as error:
                pulse.is_away(error)
                await asyncio.sleep(AWAY_PAUSE)
            finally:
                moved.cancel()
