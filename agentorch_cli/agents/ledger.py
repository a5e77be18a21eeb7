"""What an agent holds: work that runs, results that nobody has confirmed, and what is over.

Delivery is at least once on both sides, so three memories are needed. `running` and `unacked`
are what `resume` names after a reconnect. `is_over` keeps the same attempt from being done twice
when the engine sends it again after its result was confirmed; it is bounded, because an agent
lives for months: two sets that take turns, so that forgetting costs nothing per entry.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

Running = TypeVar("Running")

REMEMBERED = 20_000
"""Attempts that are remembered as over, at least half of them at any time."""


class Ledger(Generic[Running]):
    """Keyed by message id, which is the attempt and never used twice."""

    __slots__ = ("_emptied", "_limit", "_older", "_recent", "running", "unacked")

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self.running: dict[str, Running] = {}
        self.unacked: dict[str, bytes] = {}
        self._recent: set[str] = set()
        self._older: set[str] = set()
        self._limit = max(1, remembered // 2)
        self._emptied: asyncio.Event | None = None

    @property
    def is_empty(self) -> bool:
        return not self.running and not self.unacked

    def held(self) -> list[str]:
        """What `resume` names: oldest first, running work before results."""
        return [*self.running, *self.unacked]

    def is_over(self, message_id: str) -> bool:
        return message_id in self._recent or message_id in self._older

    def finish(self, message_id: str, frame: bytes) -> None:
        """The attempt has a result, encoded once; it is kept until `forget`."""
        self.running.pop(message_id, None)
        self.unacked[message_id] = frame

    def forget(self, message_id: str) -> Running | None:
        """The attempt is over: confirmed, cancelled or no longer ours. Returns it if it still ran."""
        self.unacked.pop(message_id, None)
        work = self.running.pop(message_id, None) if self.running else None
        recent = self._recent
        recent.add(message_id)
        if len(recent) >= self._limit:
            self._older, self._recent = recent, set()
        if self._emptied is not None and self.is_empty:
            self._emptied.set()
        return work

    async def emptied(self) -> None:
        """Returns when nothing runs and every result is confirmed."""
        if not self.is_empty:
            self._emptied = asyncio.Event()
            await self._emptied.wait()
