"""Waiting for tasks to end, any number of waiters over one listening connection.

Hints wake; the table is the truth; a slow look is the safety net. Whoever owns the listening
connection passes what it hears to `hinted`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

from agentorch_cli.core.goal import Goal
from agentorch_cli.store.database import Database

LOOK_EVERY = 5.0
"""Seconds after which a waiter looks although no hint came."""

BEGIN_EVERY = 0.25
"""Seconds between looks for tasks that begin: of that nobody hints."""


class _Waiter:
    """One who waits; `wants_all`: who need not know before all have ended."""

    def __init__(self, ids: Iterable[str], *, wants_all: bool = False) -> None:
        self.left = set(ids)
        self._wants_all = wants_all
        self.ended = set(self.left)
        """Ids that are worth a look; all of them at first."""
        self.wake = asyncio.Event()

    def told(self, ended: set[str]) -> None:
        """These are said to have ended."""
        self.ended |= ended
        if not self._wants_all or self.ended >= self.left:
            self.wake.set()


class Waiting:
    """Those who wait on this connection."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiters: set[_Waiter] = set()

    def hinted(self, payload: str) -> None:
        """Tasks ended; `*`: some did. Costs nothing while nobody waits."""
        if not self._waiters:
            return
        ids = None if payload == "*" else set(payload.split("\n"))
        for waiter in self._waiters:
            ended = waiter.left if ids is None else waiter.left & ids
            if ended:
                waiter.told(ended)

    async def until_final(self, task_ids: Iterable[str]) -> None:
        """Returns once all of these are final. Raises DatabaseUnreachable."""
        async for _ in self._ends(task_ids, wants_all=True):
            pass

    async def until(self, task_ids: Iterable[str], goal: Goal, *, is_any: bool) -> None:
        """Returns once each of these has reached the goal or can no longer; with `is_any`, once one has
        reached it, or none can any more. Raises DatabaseUnreachable.
        """
        if not (is_any or goal.begins):
            await self.until_final(task_ids)
            return
        left = set(task_ids)
        looks = self._looks(left) if goal.begins else self._ends(left)
        async with contextlib.aclosing(looks):
            async for some in looks:
                rows = await self._db.fetch("statuses", sorted(some))
                decided = {row["task_id"]: goal.decided(row["status"]) for row in rows}
                left -= {task_id for task_id in some if decided.get(task_id, False) is not None}
                if not left or (is_any and True in decided.values()):
                    return

    async def _ends(
        self, task_ids: Iterable[str], *, wants_all: bool = False
    ) -> AsyncGenerator[set[str], None]:
        """Those that have ended, as they end, or (`wants_all`) as late as that; over when all have."""
        waiter = _Waiter(task_ids, wants_all=wants_all)
        self._waiters.add(waiter)
        try:
            while waiter.left:
                ended, waiter.ended = waiter.ended, set()
                waiter.wake.clear()
                if ended:
                    ended -= {row["task_id"] for row in await self._db.fetch_by_key("standing", list(ended))}
                    waiter.left -= ended
                    if ended:
                        yield ended
                if waiter.left and not waiter.wake.is_set():
                    await self._rest(waiter, LOOK_EVERY)
        finally:
            self._waiters.discard(waiter)

    async def _looks(self, left: set[str]) -> AsyncGenerator[set[str], None]:
        """All that are left, when one has ended and every now and then, for ever."""
        waiter = _Waiter(left)
        waiter.left = left
        self._waiters.add(waiter)
        clock = asyncio.get_running_loop().time
        try:
            while True:
                waiter.wake.clear()
                began = clock()
                yield set(left)
                # looking may take a tenth of the time at most
                await self._rest(waiter, max(BEGIN_EVERY, 9 * (clock() - began)))
        finally:
            self._waiters.discard(waiter)

    async def _rest(self, waiter: _Waiter, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await waiter.wake.wait()
                return
        waiter.ended = set(waiter.left)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """For the time of the block, hear hints over a connection of its own."""
        is_heard = asyncio.Event()

        async def connected() -> None:
            is_heard.set()
            self.hinted("*")

        task = asyncio.create_task(
            self._db.listen(["agentorch_done"], lambda _, payload: self.hinted(payload), connected)
        )
        try:
            await is_heard.wait()
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
