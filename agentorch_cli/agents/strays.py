"""Processes that left their task's group (`setsid`, a daemon) end with the task all the same.

A group is killed with its task; whoever made a session of its own is not in it any more. Each run
therefore carries a mark in its environment, which everything that it starts inherits. When the
run is over, whatever still bears the mark is killed. One look at all processes serves all runs
that ended meanwhile, in a thread of its own, so that nobody waits for it.

This needs /proc, and finds nothing that has emptied its own environment: docs/security.md says
what to do where commands are not to be trusted that far.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import secrets
import signal
import threading
import time
from pathlib import Path

NAME = "AGENTORCH_RUN"

RUNNER = secrets.token_hex(8)
"""This process; the guardian ends everything that bears it."""

GATHER_SECONDS = 0.05
"""Runs that end within this are looked for together."""

MOST_LOOKS = 5
"""A process may start another while it is being looked for."""

_numbers = itertools.count(1)


def new_mark() -> str:
    """The mark of one run."""
    return f"{RUNNER}.{next(_numbers)}"


class Strays:
    """Started with the first run that ended."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._lock = threading.Lock()
        self._over: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def ended(self, mark: str) -> None:
        """The run is over: nothing of it may live on."""
        if not (self._proc / "self" / "environ").exists():
            return
        self._over.put(mark)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._hunt_for_ever, name="strays", daemon=True)
                self._thread.start()

    def _hunt_for_ever(self) -> None:
        while True:
            marks = {self._over.get()}
            time.sleep(GATHER_SECONDS)
            with contextlib.suppress(queue.Empty):
                while True:
                    marks.add(self._over.get_nowait())
            self.hunt(marks)

    def hunt(self, marks: set[str]) -> int:
        """Kill what bears these marks; how many there were."""
        words = {f"{NAME}={mark}".encode() for mark in marks}
        killed = 0
        for _ in range(MOST_LOOKS):
            found = sum(self._kill(entry, words) for entry in self._proc.glob("[0-9]*"))
            killed += found
            if not found:
                break
        return killed

    def _kill(self, entry: Path, words: set[bytes]) -> bool:
        """Kill the process if it bears a mark. The descriptor names it even if its number is used again."""
        try:
            descriptor = os.pidfd_open(int(entry.name))
        except (AttributeError, OSError):
            return False
        try:
            borne = (entry / "environ").read_bytes().split(b"\0")
            if words.isdisjoint(borne):
                return False
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except OSError:  # it is gone, or another account's
            return False
        else:
            return True
        finally:
            os.close(descriptor)


strays = Strays()
