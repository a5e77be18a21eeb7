"""When it is time to look again: a live view of a server follows its events, and asks when there are any."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from agentorch_cli.client import Client

LOOK_EVERY = 5.0
"""Seconds after which a view looks although nothing was told: loads and heartbeats are no events."""


class Changes:
    """For the time of the block, hears what happens on the server. A database here is cheap to ask,
    and is asked as often as frames are drawn."""

    def __init__(self, client: Client, *, task_id: str | None = None) -> None:
        self._client = client
        self._task_id = task_id
        self._changed = asyncio.Event()
        self._hearing: asyncio.Task[None] | None = None

    async def rest(self, seconds: float) -> None:
        """Wait at least so long, and, on a server, until something has happened."""
        await asyncio.sleep(seconds)
        if self._hearing is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY):
                await self._changed.wait()
        self._changed.clear()
        if self._hearing.done():
            self._hearing.result()  # the server refuses: that is the view's end too

    async def __aenter__(self) -> Self:
        if self._client.is_remote:
            self._hearing = asyncio.create_task(self._hear(), name="changes")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)

    async def _hear(self) -> None:
        try:
            async for _ in self._client.events(task_id=self._task_id):
                self._changed.set()
        finally:
            self._changed.set()
