"""The fleet, live: the board, again and again, until q or Ctrl-C.

At most four frames a second, and only where something has changed. Not on a terminal, each
change of the fleet is one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from agentorch_cli.cli.changes import Changes
from agentorch_cli.cli.frame import frame
from agentorch_cli.cli.screen import Screen
from agentorch_cli.cli.sparks import History

if TYPE_CHECKING:
    from agentorch_cli.client import Client
    from agentorch_cli.views import StatusView

FRAME_SECONDS = 0.25
"""Least time between two frames."""

IDLE_SECONDS = 1.0
"""Between two looks at a fleet in which nothing has changed from one to the next."""

DUTY = 4
"""A look may take a fifth of the time at most: a slow database is asked less often."""

MOST_ROWS = 60
"""Tasks and votes that are asked for: more rows than most terminals have."""

NOTE_SECONDS = 15.0
"""How long a note stays."""


async def watch(client: Client, emit: Callable[[Any], None], is_page: bool, notes: Notes) -> None:
    """Show the fleet until the person has seen enough.

    `emit` prints a document where there is no terminal, or where JSON was asked for.
    """
    if is_page and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        await _Viewer(client, notes).run()
    else:
        async for status in _changes(client):
            emit(status)


class Notes:
    """What would go to stderr, and where it goes while a screen is shown: for people, for a while."""

    def __init__(self, say: Callable[[str], None], server: str | None = None) -> None:
        self._say = say
        self.server = server
        self.heard: Callable[[], None] | None = None
        self._last = ""
        self._until = 0.0

    def say(self, sentence: str) -> None:
        """For whoever is there to read it."""
        if self.heard is None:
            self._say(sentence)
            return
        self._last, self._until = sentence, asyncio.get_running_loop().time() + NOTE_SECONDS
        self.heard()

    @property
    def shown(self) -> str | None:
        return self._last if asyncio.get_running_loop().time() < self._until else None


class _Viewer:
    """A person at a terminal."""

    def __init__(self, client: Client, notes: Notes) -> None:
        self._client = client
        self._notes = notes
        self._status: StatusView | None = None
        self._history = History()
        self._dirty = asyncio.Event()
        self._done = asyncio.Event()
        self._going = asyncio.Event()
        self._going.set()
        self._screen = Screen(self._press, self._dirty.set)

    async def run(self) -> None:
        """Until q, or an error of the client."""
        self._notes.heard = self._dirty.set
        with self._screen.taken():
            work = [asyncio.ensure_future(one) for one in (self._look(), self._draw(), self._done.wait())]
            try:
                ended, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in work:
                    one.cancel()
                await asyncio.gather(*work, return_exceptions=True)
                self._notes.heard = None
            for one in ended:
                one.result()

    def _press(self, key: str) -> None:
        if key in ("q", "Q", ""):
            self._done.set()
        elif key in ("p", "P", " "):
            if self._going.is_set():
                self._going.clear()
            else:
                self._going.set()
            self._dirty.set()

    async def _look(self) -> None:
        async for status in looks(self._client, self._going):
            if not self._going.is_set():
                continue
            self._status = status
            self._history.add(status.flow)
            self._dirty.set()

    async def _draw(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if self._status is None:
                continue
            look = self._screen.look
            self._screen.draw(
                frame(
                    self._status,
                    self._screen.page.console,
                    look,
                    self._notes.server,
                    history=self._history,
                    is_paused=not self._going.is_set(),
                    note=self._notes.shown,
                )
            )
            await asyncio.sleep(FRAME_SECONDS)


async def looks(client: Client, going: asyncio.Event) -> AsyncGenerator[StatusView]:
    """The state of the fleet, as often as it is worth it; none while `going` is not set."""
    clock = asyncio.get_running_loop().time
    before: object = None
    async with Changes(client) as changes:
        while True:
            await going.wait()
            start = clock()
            status: StatusView = await client.call("status.get", limit=MOST_ROWS)
            took = clock() - start
            yield status
            now = essence(status)
            least = FRAME_SECONDS if now != before or client.is_remote else IDLE_SECONDS
            before = now
            await changes.rest(max(least, took * DUTY))


async def _changes(client: Client) -> AsyncIterator[StatusView]:
    """Only what differs from the one before."""
    before: object = None
    going = asyncio.Event()
    going.set()
    async with contextlib.aclosing(looks(client, going)) as found:
        async for status in found:
            now = essence(status)
            if now != before:
                yield status
            before = now


def essence(status: StatusView) -> object:
    """What counts as a change: not the time, and not that somebody was seen again."""
    return status.model_dump(
        exclude={
            "at": True,
            "oldest_pending_seconds": True,
            "flow": True,
            "nodes": {"__all__": {"heartbeat_at"}},
            "agents": {"__all__": {"last_heartbeat"}},
        }
    )
