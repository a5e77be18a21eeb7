"""Textual's terminal, but one that goes away is no reason to stand still.

Textual writes in a thread, which ends when the terminal is gone; whoever writes then waits for it for ever,
and no signal is heard any more. Here what cannot be written is dropped, and the program ends: by the signal
that comes with the end of a terminal, or, where that is ignored (`nohup`), because nothing can be written.

With that signal comes another, SIGCONT, after which Textual would start a second reader beside the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import IO, Any

from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message


class Gone(Message):
    """There is no terminal any more."""


class Terminal(LinuxDriver):
    """A terminal that may go away."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._loop = asyncio.get_running_loop()
        self._is_gone = False
        self._file: Any = _Patient(self._file, self._lost)

    def _lost(self) -> None:
        """Called in the thread that writes."""
        if not self._is_gone:
            self._is_gone = True
            with contextlib.suppress(RuntimeError):  # the program ends already
                self._loop.call_soon_threadsafe(self._app.post_message, Gone())

    def _sigcont_application(self, *_: Any) -> None:
        """Go on; who was stopped without having been asked to (SIGSTOP) lets go of the terminal first."""
        if self._must_signal_resume:
            super()._sigcont_application()
        elif self._auto_restart and os.isatty(self.fileno):
            self.suspend_application_mode()
            self._must_signal_resume = True
            super()._sigcont_application()


class _Patient:
    """A stream that takes what it is given, whether somebody reads it or not, and tells when nobody does."""

    def __init__(self, stream: IO[str], on_gone: Callable[[], None]) -> None:
        self._stream = stream
        self._on_gone = on_gone

    def write(self, text: str) -> None:
        with self._trying():
            self._stream.write(text)

    def flush(self) -> None:
        with self._trying():
            self._stream.flush()

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._on_gone()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
