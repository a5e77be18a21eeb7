"""Waiting for tasks to end, any number of waiters over one listening connection.

Hints wake; the table is the truth; a slow look is the safety net. Whoever owns the listening
connection passes what it hears to `hinted`. In a process that has none, `Hearing` makes one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable

from agentorch_cli.core.goal import Goal
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.store.database import Database

LOOK_EVERY = 5.0
"""Seconds after which a waiter looks although no hint came."""

BEGIN_EVERY = 0.25
"""Seconds between looks for tasks that begin: of that nobody hints."""

KEPT_FOR = 10.0
"""Seconds for which a connection listens on after the last wait: who waits for one task after the other
would make one for each, at 5 ms; who does not would be woken by every end of a task for nothing."""

Look = Callable[[Collection[str], bool], Awaitable[set[str]]]
"""Which of these tasks have ended; the second argument says that hints named all of them."""


class _Waiter:
    """One who waits; `wants_all`: who need not know before all have ended."""

    def __init__(self, ids: Iterable[str], *, wants_all: bool = False) -> None:
        self.left = set(ids)
        self._wants_all = wants_all
        self.ended = set(self.left)
        """Ids that are worth a look; all of them at first."""
        self.is_told = False
        """Hints named all of these."""
        self.wake = asyncio.Event()

    def told(self, ended: set[str], *, by_name: bool = True) -> None:
        """These are said to have ended."""
        self.is_told = by_name and (self.is_told or not self.ended)
        self.ended |= ended
        if self.is_worth_a_look:
            self.wake.set()

    @property
    def is_worth_a_look(self) -> bool:
        """All that is left is said to have ended, or some of it where that matters. What is left may have
        become less since it was said."""
        return self.ended >= self.left if self._wants_all else not self.ended.isdisjoint(self.left)


class Waiting:
    """Those who wait on this connection."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiters: set[_Waiter] = set()
        self.begins: Callable[[], Awaitable[None]] | None = None
        """Awaited before somebody looks at the tables and then waits: hints are heard from then on."""

    @property
    def is_awaited(self) -> bool:
        """Somebody waits."""
        return bool(self._waiters)

    def hinted(self, payload: str) -> None:
        """Tasks ended; `*`: some did. Costs nothing while nobody waits."""
        if not self._waiters:
            return
        ids = None if payload == "*" else set(payload.split("\n"))
        for waiter in self._waiters:
            ended = waiter.left if ids is None else waiter.left & ids
            if ended:
                waiter.told(ended, by_name=ids is not None)

    async def until_final(self, task_ids: Iterable[str], look: Look | None = None) -> None:
        """Returns once all of these are final. Raises DatabaseUnreachable, and what `look` does."""
        async for _ in self._ends(task_ids, look, wants_all=True):
            pass

    async def until(self, task_ids: Iterable[str], goal: Goal, *, is_any: bool) -> None:
        """Returns once each of these has reached the goal or can no longer; with `is_any`, once one has
        reached it, or none can any more. Raises DatabaseUnreachable. For the end of all `until_final` looks
        less often.
        """
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
        self, task_ids: Iterable[str], look: Look | None = None, *, wants_all: bool = False
    ) -> AsyncGenerator[set[str], None]:
        """Those that have ended, as they end, or (`wants_all`) as late as that; over when all have."""
        look = look or self._look
        waiter = _Waiter(task_ids, wants_all=wants_all)
        self._waiters.add(waiter)
        try:
            await self._listen()
            while waiter.left:
                ended, waiter.ended = waiter.ended, set()
                waiter.wake.clear()
                if ended:
                    ended = await look(ended, waiter.is_told)
                    waiter.left -= ended
                    if ended:
                        yield ended
                if waiter.left and not waiter.is_worth_a_look:
                    await self._rest(waiter, LOOK_EVERY)
        finally:
            self._waiters.discard(waiter)

    async def _look(self, ids: Collection[str], is_told: bool) -> set[str]:
        return {*ids} - {row["task_id"] for row in await self._db.fetch_by_key("standing", list(ids))}

    async def _looks(self, left: set[str]) -> AsyncGenerator[set[str], None]:
        """All that are left, when one has ended and every now and then, for ever."""
        waiter = _Waiter(left)
        waiter.left = left
        self._waiters.add(waiter)
        clock = asyncio.get_running_loop().time
        try:
            await self._listen()
            while True:
                waiter.wake.clear()
                began = clock()
                yield set(left)
                # looking may take a tenth of the time at most
                await self._rest(waiter, max(BEGIN_EVERY, 9 * (clock() - began)))
        finally:
            self._waiters.discard(waiter)

    async def _listen(self) -> None:
        if self.begins is not None:
            await self.begins()

    async def _rest(self, waiter: _Waiter, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await waiter.wake.wait()
                return
        waiter.ended, waiter.is_told = set(waiter.left), False


class Hearing:
    """One listening connection for all who wait at the same time, and a while longer."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting = Waiting(db)
        self._users = 0
        self._is_heard = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self._end: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def hearing(self) -> AsyncIterator[Waiting]:
        """Where waits hear that tasks ended, for the time of the block. Raises DatabaseUnreachable."""
        self._users += 1
        if self._end is not None:
            self._end.cancel()
            self._end = None
        try:
            if not self._is_heard.is_set():
                await self._db.fetch_one("clock")  # who listens tries for ever; who waits is told
                if self._listening is None:
                    self._listening = asyncio.create_task(self._listen(), name="hearing")
                await self._is_heard.wait()
                if self._listening is None:
                    raise DatabaseUnreachable("the database connection is closed")
            yield self._waiting
        finally:
            self._users -= 1
            if not self._users and self._listening is not None:
                self._end = asyncio.get_running_loop().call_later(KEPT_FOR, self._stop)

    async def close(self) -> None:
        """Hear nothing more."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
        listening = self._listening
        self._stop()
        if listening is not None:
            await asyncio.gather(listening, return_exceptions=True)

    def _stop(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None
        self._is_heard.set()  # nobody waits for what does not come
        self._is_heard.clear()

    async def _listen(self) -> None:
        async def connected() -> None:
            self._is_heard.set()
            self._waiting.hinted("*")

        await self._db.listen(["agentorch_done"], lambda _, payload: self._waiting.hinted(payload), connected)
