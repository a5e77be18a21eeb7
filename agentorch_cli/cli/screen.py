"""The terminal while a live view has it: another screen, keys one by one, and all as it was afterwards.

Given back at the end however that comes, by a key, an error, Ctrl-C, SIGTERM, and also for as long
as the program is stopped (Ctrl-Z).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import ConsoleDimensions, RenderableType

from agentorch_cli.cli.look import Look
from agentorch_cli.cli.tables import Page

TAKE = "\x1b[?1049h\x1b[?25l\x1b[?7l"
"""The other screen, no cursor, and lines that end where the terminal ends."""

GIVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"

BEGIN_FRAME, END_FRAME = "\x1b[?2026h\x1b[H", "\x1b[J\x1b[?2026l"
"""Terminals that know it show the frame when it is whole."""


class Screen:
    """Standard output as a screen, standard input as keys."""

    def __init__(self, press: Callable[[str], None], redraw: Callable[[], None]) -> None:
        """`press` is told of each key; `redraw` of a new size, and of a terminal that came back."""
        self._press = press
        self._redraw = redraw
        self._page = Page(sys.stdout)
        self._before: list[Any] | None = None
        self._shown = ""

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """The terminal is ours for the time of the block."""
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGWINCH: self._resized,
            signal.SIGTSTP: self._stop,
        }
        if sys.stdin.isatty():
            self._before = termios.tcgetattr(sys.stdin.fileno())
        try:
            self._take()
            if self._before is not None:
                loop.add_reader(sys.stdin.fileno(), self._read)
            for number, handler in handlers.items():
                loop.add_signal_handler(number, handler)
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)
            if self._before is not None:
                loop.remove_reader(sys.stdin.fileno())
            self._give()

    @property
    def look(self) -> Look:
        """What the terminal can do, at its size of now."""
        look = Look.of(self._page.stream)
        self._page.console.size = ConsoleDimensions(look.width, look.height)
        return look

    @property
    def page(self) -> Page:
        return self._page

    def draw(self, frame: RenderableType) -> None:
        """Show a frame, unless it is there already."""
        console = self._page.console
        with console.capture() as capture:
            console.print(frame, end="")
        shown = capture.get()
        if shown != self._shown:
            self._shown = shown
            # a line is emptied before it is written: afterwards its last letter could be lost
            self._write(BEGIN_FRAME + "\r\n".join("\x1b[K" + line for line in shown.split("\n")) + END_FRAME)

    def _take(self) -> None:
        if self._before is not None:
            tty.setcbreak(sys.stdin.fileno())  # keeps Ctrl-C and Ctrl-Z signals
        self._shown = ""
        self._write(TAKE)

    def _give(self) -> None:
        with contextlib.suppress(OSError, termios.error):  # it may be gone
            self._write(GIVE)
        if self._before is not None:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)

    def _read(self) -> None:
        try:
            typed = os.read(sys.stdin.fileno(), 64)
        except OSError:
            typed = b""
        if not typed:  # the terminal is gone
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._press("")
            return
        if typed.startswith(b"\x1b"):  # an arrow or the like
            return
        for key in typed.decode("utf-8", "replace"):
            self._press(key)

    def _resized(self) -> None:
        self._shown = ""
        self._redraw()

    def _stop(self) -> None:
        """Ctrl-Z: stop with the terminal as it was, and take it again when we go on."""
        self._give()
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        loop.add_signal_handler(signal.SIGTSTP, self._stop)  # we were told to go on
        self._take()
        self._redraw()

    def _write(self, text: str) -> None:
        self._page.stream.write(text)
        self._page.stream.flush()
