"""Textual's terminal, but one that goes away is no reason to stand still.

Textual writes in a thread, which ends when the terminal is gone; whoever writes then waits for it for ever,
and no signal is heard any more. Here what cannot be written is dropped, and the signal that comes with
the end of a terminal ends the program.
"""

from __future__ import annotations

import contextlib
from typing import IO, Any

from textual.drivers.linux_driver import LinuxDriver


class Terminal(LinuxDriver):
    """A terminal that may go away."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._file: Any = _Patient(self._file)


class _Patient:
    """A stream that takes what it is given, whether somebody reads it or not."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
