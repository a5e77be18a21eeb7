"""How far a long operation is: a line that moves on a terminal, a plain line every ten seconds on a pipe.

All of it goes to stderr; with -q there is none. What is over within a moment shows nothing. A thread
draws, so that the line goes on while the program computes.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from agentorch_cli.cli.session import Session, write
from agentorch_cli.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

MOMENT_SECONDS = 0.7
"""Operations that are quicker show nothing."""

LINE_SECONDS = 10.0
"""Between two lines on a pipe."""

FRAMES_PER_SECOND = 4


class Progress(AbstractContextManager["Progress"]):
    """For the time of the block, shows what is done of how much."""

    def __init__(self, session: Session, title: str, total: int | None = None) -> None:
        """`total`: None while nobody knows."""
        self.title = title
        self.total = total
        self.done = 0
        self._is_counted = False
        """Somebody says how much is done; else there is only how much it is."""
        self._session = session
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._console: Console | None = None
        self._began = time.monotonic()

    def update(self, done: int, *, total: int | None = None, title: str | None = None) -> None:
        """So much is done; from any thread."""
        self.done, self._is_counted = done, True
        self.total = total if total is not None else self.total
        self.title = title if title is not None else self.title

    def begin(self, title: str, total: int | None = None) -> None:
        """The next step of the same operation."""
        self.done, self.total, self.title, self._is_counted = 0, total, title, False

    def say(self, sentence: str) -> None:
        """News, above the line."""
        console = self._console
        if console is not None and not self._session.is_quiet:
            from rich.text import Text

            console.print(Text(one_line(sentence)))
        else:
            self._session.say(sentence)

    def __enter__(self) -> Self:
        if not self._session.is_quiet:
            is_live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
            self._thread = threading.Thread(
                target=self._draw if is_live else self._tell, name="progress", daemon=True
            )
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _draw(self) -> None:
        """On a terminal: one line, which is gone at the end."""
        if self._over.wait(MOMENT_SECONDS):
            return
        from rich import progress

        from agentorch_cli.cli.tables import Page

        page = Page(sys.stderr)
        bar = (
            (progress.BarColumn(bar_width=max(8, min(40, page.look.width - 50))),)
            if not page.look.is_ascii
            else ()
        )
        columns: tuple[Any, ...] = (
            progress.TextColumn("{task.description}", markup=False),
            *bar,
            progress.TextColumn("{task.fields[count]}", style="cyan", markup=False),
            progress.TimeElapsedColumn(),
        )
        with progress.Progress(
            *columns, console=page.console, transient=True, auto_refresh=False, redirect_stdout=False
        ) as line:
            self._console = page.console
            task = line.add_task(one_line(self.title), total=self.total, count="")
            while not self._over.wait(1 / FRAMES_PER_SECOND):
                line.update(
                    task,
                    description=one_line(self.title),
                    completed=self.done,
                    total=self.total,
                    count=self._count(),
                )
                line.refresh()
            self._console = None

    def _tell(self) -> None:
        """On a pipe: a line now and then."""
        while not self._over.wait(LINE_SECONDS):
            write(f"{self.line()}", sys.stderr)

    def line(self) -> str:
        """Where it stands, in words."""
        seconds = time.monotonic() - self._began
        parts = (one_line(self.title), self._count(), f"{seconds:.0f} s")
        return "  ".join(part for part in parts if part)

    def _count(self) -> str:
        if self.total is None:
            return f"{self.done:,}" if self.done else ""
        return f"{self.done:,} of {self.total:,}" if self._is_counted else f"{self.total:,}"


@asynccontextmanager
async def shown_while_opening(
    session: Session, title: str, opening: AbstractAsyncContextManager[T]
) -> AsyncIterator[T]:
    """What this opens, for the time of the block; progress is shown until it is open."""
    async with AsyncExitStack() as stack:
        with Progress(session, title):
            opened = await stack.enter_async_context(opening)
        yield opened
