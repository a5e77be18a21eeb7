"""Subprocesses die with their runner, even when it is killed with SIGKILL.

A process that is killed cleans nothing up, so somebody else must. The guardian is one small shell
in a session of its own. It reads the process groups that are alive from a pipe; when the pipe ends,
because whoever held its other end is gone, it kills the groups that are left, and, where there is
/proc, whatever else bears the mark of a run (see `strays`). Unlike PR_SET_PDEATHSIG this needs no
code between fork and exec (which threads make unsafe), works on every POSIX system, and reaches
grandchildren.

A process that has something of its own to put in order (an engine with its PostgreSQL) is held
gently: it is asked to end, asked again to end at once, and killed only after 10 s.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import threading
from typing import IO

from agentorch_cli.agents.strays import NAME, RUNNER

_SCRIPT = """
trap '' HUP INT TERM
held= gentle=
while read -r sign group; do
  case $sign in
    +) held="$held $group" ;;
    '~') gentle="$gentle $group" ;;
    -) rest=
       for other in $held; do [ "$other" = "$group" ] || rest="$rest $other"; done
       held=$rest rest=
       for other in $gentle; do [ "$other" = "$group" ] || rest="$rest $other"; done
       gentle=$rest ;;
  esac
done
for group in $gentle; do kill -s TERM -- "-$group" 2>/dev/null; done
for group in $held; do kill -s KILL -- "-$group" 2>/dev/null; done
for file in $(grep -ls "$1" /proc/[0-9]*/environ 2>/dev/null); do
  pid=${file#/proc/}
  kill -s KILL "${pid%/environ}" 2>/dev/null
done
looks=0
while [ -n "$gentle" ] && [ $looks -lt 100 ]; do
  rest=
  for group in $gentle; do kill -s 0 -- "-$group" 2>/dev/null && rest="$rest $group"; done
  gentle=$rest looks=$((looks + 1))
  [ $looks -eq 3 ] && for group in $gentle; do kill -s TERM -- "-$group" 2>/dev/null; done
  [ -n "$gentle" ] && sleep 0.1
done
for group in $gentle; do kill -s KILL -- "-$group" 2>/dev/null; done
"""


class Guardian:
    """Started with the first process that it is given, and again if somebody killed it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[int, str] = {}
        self._shell: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._shell.pid if self._shell is not None else None

    def prepare(self) -> None:
        """Start it now, where a failure leaves no process without a guardian. Raises OSError."""
        with self._lock:
            self._pipe()

    def hold(self, group: int, *, gently: bool = False) -> None:
        """The group lives from now on; call it before the process does anything. Raises OSError."""
        with self._lock:
            self._groups[group] = sign = "~" if gently else "+"
            self._tell(f"{sign} {group}\n")

    def release(self, group: int) -> None:
        """The group is over; call it before its number can be used again."""
        with self._lock:
            self._groups.pop(group, None)
            with contextlib.suppress(OSError):  # it cannot be started again: nothing is held either
                self._tell(f"- {group}\n")

    def close(self) -> None:
        """Ends the shell, which kills what is still held."""
        with self._lock:
            self._end()

    def _tell(self, line: str) -> None:
        try:
            os.write(self._pipe().fileno(), line.encode())
        except BrokenPipeError:
            self._end()
            self._pipe()

    def _pipe(self) -> IO[bytes]:
        if self._shell is None:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "guardian", f"{NAME}={RUNNER}[.]"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.defpath},
                cwd="/",
                start_new_session=True,
                bufsize=0,
            )
            self._greet(self._shell)
        assert self._shell.stdin is not None
        return self._shell.stdin

    def _greet(self, shell: subprocess.Popen[bytes]) -> None:
        assert shell.stdin is not None
        for group, sign in self._groups.items():
            os.write(shell.stdin.fileno(), f"{sign} {group}\n".encode())

    def _end(self) -> None:
        shell, self._shell = self._shell, None
        if shell is None:
            return
        assert shell.stdin is not None
        with contextlib.suppress(OSError):
            shell.stdin.close()
        try:
            shell.wait(timeout=2 if "~" not in self._groups.values() else 15)
        except subprocess.TimeoutExpired:
            shell.kill()
            shell.wait()


guardian = Guardian()
"""One for the whole process: what it does does not depend on which handler started what."""

atexit.register(guardian.close)
