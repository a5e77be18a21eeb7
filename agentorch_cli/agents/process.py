"""One subprocess for one task: started, fed, read, and ended with everything that it started.

The pipes are read as they fill and never into more memory than the limit. The exit is seen through
a process descriptor, which leaves the process unreaped: until it is reaped its number cannot be
used again, so killing its group cannot hit a stranger. That order (see the exit, kill the group,
release it from the guardian, reap) is why the standard asyncio subprocess is not used here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from agentorch_cli.agents.guardian import guardian
from agentorch_cli.agents.strays import NAME, new_mark, strays

_GATE = 'read -r go && exec "$@"'
"""Nothing runs before the guardian knows its group: the shell waits for a line, and then becomes the command.

`read` takes one byte at a time from a pipe, so the rest of stdin is left for the command. When the
runner dies first, the line never comes and the shell ends.
"""

CHUNK_BYTES = 64 * 1024
STDERR_TAIL_BYTES = 8 * 1024


class End(StrEnum):
    """How a subprocess came to its end."""

    EXIT = "exit"
    """By itself, or by a signal that somebody else sent."""
    TIMEOUT = "timeout"
    """It ran too long and was killed."""
    FLOOD = "flood"
    """It wrote more than the limit to stdout or stderr and was killed."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A subprocess that is gone, and what it left."""

    end: End
    status: int
    """The exit status; a negative number is the signal that ended it."""
    stdout: bytes
    stderr_tail: bytes


async def run_process(
    argv: Sequence[str],
    *,
    stdin: bytes,
    env: dict[str, str],
    cwd: str | None,
    timeout: float | None,
    output_limit: int,
    kill_grace: float,
) -> Finished:
    """Run it to its end. Cancelling sends SIGTERM to its group, and SIGKILL `kill_grace` seconds later.

    Raises OSError or ValueError when it cannot be started.
    """
    guardian.prepare()
    mark = new_mark()
    process = _start(argv, {**env, NAME: mark}, cwd)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    ended = _Ended()
    with contextlib.ExitStack() as stack:
        # Undone from the last to the first: take what is left in the pipes, kill, release, reap.
        stack.callback(strays.ended, mark)
        stack.callback(_reap, process)
        stack.callback(guardian.release, process.pid)
        stack.callback(_kill_group, process)
        guardian.hold(process.pid)
        stack.callback(_Watch(process, ended).close)
        stdout = _Intake(process.stdout, output_limit, output_limit, ended)
        stack.callback(stdout.close)
        stderr = _Intake(process.stderr, output_limit, STDERR_TAIL_BYTES, ended)
        stack.callback(stderr.close)
        stack.callback(_Feed(process.stdin, b"\n" + stdin).close)
        try:
            await _until(ended, timeout)
        finally:
            await _end_group(process, ended, kill_grace)
    return Finished(ended.how or End.EXIT, process.returncode, stdout.content(), stderr.content())


def _start(argv: Sequence[str], env: dict[str, str], cwd: str | None) -> subprocess.Popen[bytes]:
    program = str(Path(cwd) / argv[0]) if cwd is not None and os.sep in argv[0] else argv[0]
    if shutil.which(program, path=env.get("PATH")) is None:
        raise FileNotFoundError(errno.ENOENT, "not found, or not executable")
    return subprocess.Popen(
        ("/bin/sh", "-c", _GATE, "sh", *argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd=cwd,
        start_new_session=True,
        bufsize=0,
    )


class _Ended:
    """Why there is nothing more to wait for, and whether the process itself has gone."""

    def __init__(self) -> None:
        self.how: End | None = None
        self.any = asyncio.Event()
        self.exit = asyncio.Event()

    def by(self, how: End) -> None:
        """The first reason stands, but a flood that is found after the exit makes the output worthless."""
        if self.how is None or how is End.FLOOD:
            self.how = how
        self.any.set()

    def by_exit(self) -> None:
        self.by(End.EXIT)
        self.exit.set()


async def _until(ended: _Ended, timeout: float | None) -> None:
    try:
        async with asyncio.timeout(timeout):
            await ended.any.wait()
    except TimeoutError:
        ended.by(End.TIMEOUT)


async def _end_group(process: subprocess.Popen[bytes], ended: _Ended, kill_grace: float) -> None:
    """Ask it to go; the grace ends with the process that leads the group, or with the time."""
    if ended.exit.is_set():
        return
    ended.by(End.EXIT)
    _signal_group(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(kill_grace):
            await ended.exit.wait()
            return
    _kill_group(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(kill_grace):
            await ended.exit.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _reap(process: subprocess.Popen[bytes]) -> None:
    """It was killed, so this takes no time, unless the kernel itself is stuck in it."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)


class _Watch:
    """Tells when the process has exited, without reaping it where the system allows."""

    def __init__(self, process: subprocess.Popen[bytes], ended: _Ended) -> None:
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._descriptor: int | None = None
        try:
            self._descriptor = os.pidfd_open(process.pid)
        except (AttributeError, OSError):  # not Linux, or an old or a restricted kernel
            self._loop.run_in_executor(None, self._wait, process)
        else:
            self._loop.add_reader(self._descriptor, self._exited)

    def _exited(self) -> None:
        self._ended.by_exit()
        self.close()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._ended.by_exit)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)


class _Intake:
    """Reads a pipe as it fills, and keeps the last `kept` bytes of it."""

    def __init__(self, pipe: IO[bytes], limit: int, kept: int, ended: _Ended) -> None:
        self._pipe = pipe
        self._limit = limit
        self._kept = kept
        self._ended = ended
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._held = 0
        self._loop = asyncio.get_running_loop()
        os.set_blocking(pipe.fileno(), False)
        self._loop.add_reader(pipe.fileno(), self._read)

    def content(self) -> bytes:
        return b"".join(self._chunks)[-self._kept :] if self._kept else b""

    def close(self) -> None:
        """Take what is left: everything the process wrote is in the pipe by now."""
        while not self._pipe.closed and self._read():
            pass
        self._stop()

    def _read(self) -> bool:
        """True when there may be more."""
        try:
            chunk = os.read(self._pipe.fileno(), CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            self._stop()
            return False
        self._size += len(chunk)
        if self._size > self._limit:
            self._ended.by(End.FLOOD)
            self._stop()
            return False
        self._keep(chunk)
        return True

    def _keep(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._held += len(chunk)
        while self._held - len(self._chunks[0]) >= self._kept:
            self._held -= len(self._chunks.popleft())

    def _stop(self) -> None:
        if not self._pipe.closed:
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()


class _Feed:
    """Writes the task to the process as it reads. One that does not want it may close the pipe."""

    def __init__(self, pipe: IO[bytes], content: bytes) -> None:
        self._pipe = pipe
        self._rest = memoryview(content)
        self._loop = asyncio.get_running_loop()
        os.set_blocking(pipe.fileno(), False)
        self._loop.add_writer(pipe.fileno(), self._write)
        self._write()

    def close(self) -> None:
        if not self._pipe.closed:
            self._loop.remove_writer(self._pipe.fileno())
            self._pipe.close()

    def _write(self) -> None:
        try:
            self._rest = self._rest[os.write(self._pipe.fileno(), self._rest) :]
        except BlockingIOError:
            return
        except OSError:  # a broken pipe
            self._rest = self._rest[:0]
        if not self._rest:
            self.close()
