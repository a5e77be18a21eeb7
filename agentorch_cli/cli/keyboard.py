"""Where a person's answers come from: a terminal with a line that can be edited, or lines of a pipe.

Both are read without stopping the loop, and both can be told something while somebody types:
the line makes room for it and stands below it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from rich.cells import cell_len

from agentorch_cli.cli.lineedit import MOST_TYPED, Event, Keys, LineEditor
from agentorch_cli.cli.tables import Page
from agentorch_cli.text import one_line

MOST_REMEMBERED = 100
"""Lines that the up key brings back."""


class Interrupted(Exception):
    """Ctrl-C was pressed, which throws away what was typed."""

    def __init__(self, *, had_text: bool) -> None:
        super().__init__()
        self.had_text = had_text


class Ended(Exception):
    """There is no more input: Ctrl-D, or the end of the pipe."""


class Keyboard(Protocol):
    """A way to ask a person for a line."""

    page: Page
    is_terminal: bool
    """Keys are read one by one."""
    is_scripted: bool
    """Lines come from a program, and wait for something that they answer."""

    async def read(self, prompt: str, text: str = "") -> str:
        """The next line. Cancelling leaves no trace of it. Raises Interrupted, Ended."""
        ...

    def show(self, draw: Callable[[Page], None]) -> None:
        """Draw something above the line that is being typed."""
        ...

    def tell(self, sentence: str, style: str) -> None:
        """News, likewise; a program finds them on stderr."""
        ...

    @property
    def typed(self) -> str:
        """What stands in the line at the moment."""
        ...

    def lent(self) -> contextlib.AbstractContextManager[None]:
        """Give the terminal to another program for a while."""
        ...


@contextlib.contextmanager
def keyboard() -> Iterator[Keyboard]:
    """The best that standard input and output allow; the terminal is as it was afterwards."""
    page = Page(sys.stdout)
    if sys.stdin.isatty() and page.look.is_terminal and os.environ.get("TERM", "dumb") != "dumb":
        terminal = Terminal(page)
        with terminal.taken():
            yield terminal
    else:
        yield Lines(page)


class Terminal:
    """A terminal in which keys arrive one by one."""

    is_terminal = True
    is_scripted = False

    def __init__(self, page: Page) -> None:
        self.page = page
        self._fd = sys.stdin.fileno()
        self._keys = Keys()
        self._pressed: list[str] = []
        self._editor: LineEditor | None = None
        self._prompt = ""
        self._line: asyncio.Future[str] | None = None
        self._before: list[Any] = []
        self._history: list[str] = []
        self._held: list[Callable[[Page], None]] = []
        self._is_lent = False
        self._is_over = False

    @property
    def typed(self) -> str:
        return self._editor.text if self._editor is not None else ""

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """The terminal is ours; given back as it was, however this ends."""
        self._before = termios.tcgetattr(self._fd)
        loop = asyncio.get_running_loop()
        self._set_keys()
        loop.add_reader(self._fd, self._read_keys)
        loop.add_signal_handler(signal.SIGWINCH, self._redraw)
        loop.add_signal_handler(signal.SIGCONT, self._continued)
        try:
            yield
        finally:
            loop.remove_reader(self._fd)
            loop.remove_signal_handler(signal.SIGWINCH)
            loop.remove_signal_handler(signal.SIGCONT)
            self._erase()
            self._restore()

    async def read(self, prompt: str, text: str = "") -> str:
        """A line; it can be edited until Enter."""
        self._editor = LineEditor(text, self._history)
        self._prompt = prompt
        self._line = asyncio.get_running_loop().create_future()
        self._redraw()
        pressed, self._pressed = self._pressed, []
        for number, key in enumerate(pressed):  # typed before anybody asked
            self._press(key)
            if self._line.done():
                self._pressed = pressed[number + 1 :]
                break
        if self._is_over and not self._line.done():
            self._line.set_exception(Ended())
        try:
            line = await self._line
        except BaseException:
            self._erase()
            raise
        finally:
            self._editor = self._line = None
        if line.strip() and line not in self._history[-1:]:
            self._history = [*self._history, line][-MOST_REMEMBERED:]
        return line

    def show(self, draw: Callable[[Page], None]) -> None:
        if self._is_lent:
            self._held.append(draw)
            return
        self._erase()
        self.page.look = self.page.look.of(self.page.stream)
        self.page.console.width = self.page.look.width
        draw(self.page)
        self._redraw()

    def tell(self, sentence: str, style: str) -> None:
        self.show(lambda page: page.line(page.look.text(sentence, style)))

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Another program has the terminal: it is as it was before, and what is shown waits."""
        loop = asyncio.get_running_loop()
        self._is_lent = True
        loop.remove_reader(self._fd)
        self._erase()
        self._restore()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in there is not meant for us
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            self._set_keys()
            loop.add_reader(self._fd, self._read_keys)
            self._is_lent = False
            held, self._held = self._held, []
            for draw in held:
                self.show(draw)

    # --- keys -------------------------------------------------------------------------------

    def _read_keys(self) -> None:
        try:
            typed = os.read(self._fd, 65536)
        except OSError:
            typed = b""
        if not typed:  # the terminal is gone
            asyncio.get_running_loop().remove_reader(self._fd)
            self._is_over = True
            if self._line is not None and not self._line.done():
                self._line.set_exception(Ended())
            return
        for key in self._keys.read(typed):
            if self._line is None or self._line.done():
                if len(self._pressed) < 10_000:
                    self._pressed.append(key)
            else:
                self._press(key)
        self._redraw()

    def _press(self, key: str) -> None:
        assert self._editor is not None and self._line is not None
        match self._editor.press(key):
            case Event.ENTER:
                self._redraw(is_done=True)
                self._line.set_result(self._editor.text)
            case Event.INTERRUPT:
                self._line.set_exception(Interrupted(had_text=bool(self._editor.text)))
            case Event.END_OF_INPUT:
                self._line.set_exception(Ended())
            case Event.SUSPEND:
                self._suspend()
            case _:
                pass

    def _suspend(self) -> None:
        self._erase()
        self._restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._continued()

    def _continued(self) -> None:
        if not self._is_lent:
            self._set_keys()
            self._redraw()

    def _set_keys(self) -> None:
        """Keys come one by one and unseen; Ctrl-C, Ctrl-Z and Ctrl-S are keys like others."""
        mode = termios.tcgetattr(self._fd)
        mode[0] &= ~(termios.IXON | termios.ICRNL)
        mode[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)
        self._write("\x1b[?2004h")  # pasted text comes between marks

    def _restore(self) -> None:
        self._write("\x1b[?2004l")
        with contextlib.suppress(termios.error):  # it may be gone
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    # --- the line ---------------------------------------------------------------------------

    def _redraw(self, *, is_done: bool = False) -> None:
        if self._editor is None or self._is_lent or self._line is None or (self._line.done() and not is_done):
            return
        look = self.page.look.of(self.page.stream)
        prompt = one_line(self._prompt)
        if is_done:
            self._editor.at = 0
        room = max(4, look.width - cell_len(prompt) - 1)
        shown, column = self._editor.view(room, look.is_ascii)
        move = f"\x1b[{cell_len(prompt) + column}C" if prompt or column else ""
        self._write(f"\r\x1b[1m{prompt}\x1b[0m{shown}\x1b[K" + ("\r\n" if is_done else f"\r{move}"))

    def _erase(self) -> None:
        if not self._is_lent:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self.page.stream.write(text)
            self.page.stream.flush()


class Lines:
    """Lines of a pipe, a file, or a terminal that can do nothing else."""

    is_terminal = False

    @property
    def typed(self) -> str:
        return ""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.is_scripted = not sys.stdin.isatty()
        self._wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._is_asked = False
        self._loop = asyncio.get_running_loop()
        self._reader: threading.Thread | None = None

    async def read(self, prompt: str, text: str = "") -> str:
        """A line. It is asked for only when it is wanted; what was asked for in vain is kept."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._read_lines, name="stdin", daemon=True)
            self._reader.start()
        if prompt and self.page.look.is_terminal:
            self._write(one_line(prompt))
        if not self._is_asked:
            self._is_asked = True
            self._wanted.put(None)
        line = await self._lines.get()
        self._is_asked = False
        if line is None:
            raise Ended
        return line

    def show(self, draw: Callable[[Page], None]) -> None:
        draw(self.page)
        self.page.stream.flush()

    def tell(self, sentence: str, style: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(one_line(sentence) + "\n")
            sys.stderr.flush()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        yield

    def _write(self, text: str) -> None:
        self.page.stream.write(text)
        self.page.stream.flush()

    def _read_lines(self) -> None:
        """In a thread, because a file cannot be waited for; by descriptor, because the interpreter's
        own stream is locked by whoever reads it, also at the end."""
        rest = b""
        while True:
            self._wanted.get()
            while b"\n" not in rest and len(rest) < MOST_TYPED:
                try:
                    more = os.read(0, 65536)
                except OSError:
                    more = b""
                if not more:
                    break
                rest += more
            line, found, rest = rest.partition(b"\n")
            is_over = not (line or found)
            text = None if is_over else line.decode("utf-8", "replace").rstrip("\r")
            with contextlib.suppress(RuntimeError):  # the loop is gone, and so is whoever waited
                self._loop.call_soon_threadsafe(self._lines.put_nowait, text)
            if is_over:
                return
