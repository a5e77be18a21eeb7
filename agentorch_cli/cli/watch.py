"""The fleet, live: the page of `status`, again and again, until q or Ctrl-C.

At most four frames a second, and never more rows than the terminal has: a table of 2,000
rows would take longer to draw than to be wanted. Not on a terminal, each change of the
fleet is one line of JSON.
"""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from agentorch_cli.cli import board
from agentorch_cli.cli.changes import Changes
from agentorch_cli.cli.look import Look
from agentorch_cli.cli.tables import Page, table

if TYPE_CHECKING:
    from agentorch_cli.client import Client
    from agentorch_cli.views import StatusView

FRAME_SECONDS = 0.25
"""Least time between two frames."""

DUTY = 4
"""A frame may take a fifth of the time at most: a slow database is asked less often."""

HEAD_LINES = 3
"""Of each part: an empty line, its title, the names of its columns."""


async def watch(
    client: Client, emit: Callable[[Any], None], is_page: bool, server: str | None = None
) -> None:
    """Show the fleet until the person has seen enough.

    `server`: where it is, for the last line; None where it is here.

    `emit` prints a document where there is no terminal, or where JSON was asked for.
    """
    if not (is_page and sys.stdout.isatty()):
        await _emit_changes(client, emit)
        return
    page = Page(sys.stdout)
    with (
        _keys() as pressed,
        Live(console=page.console, screen=True, auto_refresh=False, redirect_stderr=False) as live,
    ):
        async for status in _looks(client, pressed):
            look = Look.of(page.stream)
            page.console.size = ConsoleDimensions(look.width, look.height)
            live.update(frame(status, page.console, look, server), refresh=True)


def frame(status: StatusView, console: Console, look: Look, server: str | None = None) -> RenderableType:
    """One frame, exactly as high as the terminal, with the keys on its last line."""
    options = console.options.update(width=look.width)

    def height(renderable: RenderableType) -> int:
        return len(console.render_lines(renderable, options, pad=False))

    lines = console.render_lines(Group(*_body(status, look, height)), options, pad=False)
    lines = [*lines[: look.height - 1], *[[Segment("")]] * (look.height - 1 - len(lines))]
    at = status.at.astimezone().strftime("%H:%M:%S")
    where = f"   {look.text(server).plain}" if server else ""
    keys = [Segment(f"{at}   q quits{where}"[: look.width], Style(dim=True))]
    return Segments([segment for line in lines for segment in (*line, Segment.line())] + keys)


def _body(status: StatusView, look: Look, height: Callable[[RenderableType], int]) -> list[RenderableType]:
    """The lines on top, and as much of each table as has room."""
    lines: list[RenderableType] = [*board.head(status, look)]
    room = look.height - height(Group(*lines)) - 1
    parts = board.parts(status)
    for index, (title, columns, rows) in enumerate(parts):
        share = _share(room, [len(rows) for _, _, rows in parts[index:]])
        shown = rows[: max(share - HEAD_LINES, 0)]
        grid = table(columns, shown, look)
        while shown and (excess := height(grid) + HEAD_LINES - 1 - share) > 0:  # ids have folded
            shown = shown[:-excess]
            grid = table(columns, shown, look)
        if shown:
            more = f" ({len(shown)} of {len(rows)})" if len(shown) < len(rows) else f" ({len(rows)})"
            lines += [Text(""), Text(title + more, "bold"), grid]
            room -= height(grid) + HEAD_LINES - 1
    return lines


def _share(room: int, sizes: list[int]) -> int:
    """Lines for the first of the parts that follow: what it needs, or a fair share."""
    needs = [size + HEAD_LINES for size in sizes]
    fair = room // len(needs)
    return min(needs[0], max(room - sum(min(need, fair) for need in needs[1:]), 0))


async def _looks(client: Client, pressed: asyncio.Event) -> AsyncIterator[StatusView]:
    clock = asyncio.get_running_loop().time
    async with Changes(client) as changes:
        while not pressed.is_set():
            start = clock()
            status = asyncio.ensure_future(client.call("status.get", limit=50))
            if not await _before(pressed, status):
                return
            yield await status
            pause = max(FRAME_SECONDS, (clock() - start) * DUTY)
            await _before(pressed, asyncio.ensure_future(changes.rest(pause)))


async def _before(pressed: asyncio.Event, work: asyncio.Future[Any]) -> bool:
    """Whether the work was done before a key was pressed; else it is left."""
    key = asyncio.ensure_future(pressed.wait())
    try:
        await asyncio.wait({key, work}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            return True
        return False
    finally:
        key.cancel()
        work.cancel()
        await asyncio.gather(key, work, return_exceptions=True)


async def _emit_changes(client: Client, emit: Callable[[Any], None]) -> None:
    before: object = None
    async for status in _looks(client, asyncio.Event()):
        now = _essence(status)
        if now != before:
            emit(status)
        before = now


def _essence(status: StatusView) -> object:
    """What counts as a change: not the time, and not that somebody was seen again."""
    return status.model_dump(
        exclude={
            "at": True,
            "oldest_pending_seconds": True,
            "nodes": {"__all__": {"heartbeat_at"}},
            "agents": {"__all__": {"last_heartbeat"}},
        }
    )


@contextmanager
def _keys() -> Iterator[asyncio.Event]:
    """Listens for q while the screen is ours, and gives the terminal back as it was."""
    pressed = asyncio.Event()
    if not sys.stdin.isatty():
        yield pressed
        return
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    loop = asyncio.get_running_loop()

    def read() -> None:
        typed = os.read(stdin, 64)
        if not typed:  # the terminal is gone
            loop.remove_reader(stdin)
        if not typed or b"q" in typed.lower():
            pressed.set()

    try:
        tty.setcbreak(stdin)  # keeps Ctrl-C a signal
        loop.add_reader(stdin, read)
        yield pressed
    finally:
        loop.remove_reader(stdin)
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
