"""Waiting for tasks to end, any number of waiters over one listening connection.

Hints wake; the table is the truth; a slow look is the safety net. Whoever owns the listening
connection passes what it hears to `hinted`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from agentorch_cli.store.database import Database

LOOK_EVERY = 5.0
"""Seconds after which a waiter looks although no hint came."""


class _Waiter:
    """One call of `until_final`."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.left = set(ids)
        self.ended = set(self.left)
        """Ids that are worth a look; all of them at first."""
        self.wake = asyncio.Event()


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
                waiter.ended |= ended
                waiter.wake.set()

    async def until_final(self, task_ids: Iterable[str]) -> None:
        """Returns once all of these are final. Raises DatabaseUnreachable."""
        waiter = _Waiter(task_ids)
        self._waiters.add(waiter)
        try:
            while waiter.left:
                ended, waiter.ended = waiter.ended, set()
                waiter.wake.clear()
                if ended:
                    still = {row["task_id"] for row in await self._db.fetch("standing", list(ended))}
                    waiter.left -= ended - still
                if waiter.left and not waiter.ended:
                    await self._rest(waiter)
        finally:
            self._waiters.discard(waiter)

    async def _rest(self, waiter: _Waiter) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY):
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
