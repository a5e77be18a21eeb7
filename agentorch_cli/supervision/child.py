"""One process that is kept running, through all of its lives.

It is started in a session of its own, so that Ctrl-C reaches it only through the supervisor, and
it is held by the guardian before it does anything, so that it cannot outlive the supervisor. When
it ends, what is left of its group, and whatever bears its mark, ends too; then its policy says
whether it is started again, and each start that does not last makes the next one wait longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from agentorch_cli.agents.guardian import guardian
from agentorch_cli.agents.strays import NAME, new_mark, strays
from agentorch_cli.errors import OrchestratorError
from agentorch_cli.fleetfile import Restart
from agentorch_cli.supervision.record import Record

CRASHES = 3
"""So many short lives in a row are a crash loop."""

LEAVE_SECONDS = 5.0
"""For giving back what it holds, after the second signal."""

_GATE = 'read -r go && exec "$@"'
"""Nothing runs before the guardian knows its group (see `agents.process`)."""

CHUNK_BYTES = 64 * 1024


class State(StrEnum):
    """How a process stands."""

    STARTING = "starting"
    """It runs, and has not said yet that it is there."""
    RUNNING = "running"
    """It is there: an agent is connected, the engine takes agents."""
    LOST = "lost"
    """An agent that runs and has no connection; it dials again by itself."""
    WAITING = "waiting"
    """It ended, and is started again in a moment."""
    CRASHING = "crashing"
    """The same, and it ended soon after its start several times in a row."""
    STOPPING = "stopping"
    """It was told to end."""
    ENDED = "ended"
    """It ended well by itself, and its policy says that it stays so."""
    FAILED = "failed"
    """It ended badly by itself, and its policy says that it stays so."""
    STOPPED = "stopped"
    """It was told to end, and has."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is to be expected at once."""
        return self not in (State.STARTING, State.WAITING, State.STOPPING)


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon it is started again; all in seconds."""

    backoff: float
    max_backoff: float
    steady: float

    def wait(self, short_lives: int) -> float:
        """Before the start that follows so many short lives in a row."""
        return float(min(self.backoff * 2 ** min(max(short_lives - 1, 0), 30), self.max_backoff))


@dataclass(frozen=True, slots=True)
class Program:
    """What is run, and how it talks with us."""

    argv: Callable[[], Sequence[str]]
    env: Mapping[str, str]
    cwd: str
    restart: Restart
    on_word: Callable[[dict[str, Any]], State | None]
    """What it says of itself, a JSON object a line; gives the state that follows."""
    first_words: Callable[[], Awaitable[Mapping[str, Any]]] | None = None
    """What an agent is told on stdin, once that is known. It speaks on the descriptor `tell` of these words.
    A program without them is told nothing, and speaks on stdout."""
    is_gentle: bool = False
    """It has things of its own to put in order, so it is asked before it is killed, even if we die."""


class Child:
    """The process of one name, kept running from here on."""

    def __init__(
        self, name: str, program: Program, record: Record, pace: Pace, on_change: Callable[[Child], None]
    ) -> None:
        self.name = name
        self.record = record
        self.state = State.STOPPED
        self.since = time.time()
        """When the state began."""
        self.pid: int | None = None
        self.starts = 0
        self.next_start: float | None = None
        """When it is started again; seconds of the clock."""
        self.exit_status: int | None = None
        """Of the last life; a negative number is a signal."""
        self.short_lives = 0
        """In a row."""
        self._program = program
        self._pace = pace
        self._on_change = on_change
        self._began = 0.0
        """When this life could begin with anything: the engine may have kept it waiting."""
        self._is_stopping = asyncio.Event()
        self._is_over = asyncio.Event()
        self._running = asyncio.create_task(self._keep(), name=f"child {name}")
        self._running.add_done_callback(self._note_fault)

    async def stop(self, timeout: float, at_once: asyncio.Event) -> str:
        """Tell it to finish, after `timeout` seconds (or `at_once`) to give back what it holds, and kill it
        if it does neither. Gives how it ended: `stopped`, `cut short` or `killed`.
        """
        self._is_stopping.set()
        how = "stopped"
        if self.pid is not None:
            self._become(State.STOPPING)
            self._signal(signal.SIGTERM)
            if not await self._ends_within(timeout, at_once):
                how = "cut short"
                self._signal(signal.SIGTERM)
                if not await self._ends_within(LEAVE_SECONDS):
                    how = "killed"
                    self._signal(signal.SIGKILL)
        await asyncio.wait({self._running})
        self._become(State.STOPPED)
        self.record.close()
        return how

    async def _ends_within(self, seconds: float, at_once: asyncio.Event | None = None) -> bool:
        waits = [asyncio.ensure_future(one.wait()) for one in (self._is_over, at_once) if one is not None]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._is_over.is_set()

    async def _keep(self) -> None:
        """One life after the other, until it is stopped or its policy says that it is enough."""
        while not self._is_stopping.is_set():
            self._began = time.monotonic()
            self.starts += 1
            self.next_start = None
            self.record.begin()
            self._become(State.STARTING)
            self._is_over.clear()
            try:
                self.exit_status = await self._live()
            except OSError as error:
                self.exit_status = 127
                self.record.take(f"error: it cannot be started: {error.strerror or error}\n".encode())
            finally:
                self.pid = None
                self._is_over.set()
            if self._is_stopping.is_set():
                return
            self.record.note(f"ended with {in_words(self.exit_status)}")
            lasted = time.monotonic() - self._began >= self._pace.steady
            self.short_lives = 0 if lasted else self.short_lives + 1
            if not self._is_started_again():
                self._become(State.ENDED if self.exit_status == 0 else State.FAILED)
                return
            await self._rest(self._pace.wait(self.short_lives))

    def _note_fault(self, running: asyncio.Task[None]) -> None:
        """Nobody keeps it running any more, by a fault of ours: that must be seen."""
        error = None if running.cancelled() else running.exception()
        if error is not None:
            self.record.take(f"error: it is not kept running any more: {error!r}\n".encode())
            self._become(State.FAILED)

    def _is_started_again(self) -> bool:
        match self._program.restart:
            case Restart.ALWAYS:
                return True
            case Restart.ON_FAILURE:
                return self.exit_status != 0
            case Restart.NEVER:
                return False

    async def _rest(self, seconds: float) -> None:
        self.next_start = time.time() + seconds
        self._become(State.CRASHING if self.short_lives >= CRASHES else State.WAITING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_stopping.wait()

    async def _live(self) -> int:
        """One life, from the start to the exit status. Raises OSError where it cannot be started."""
        guardian.prepare()
        mark = new_mark()
        with contextlib.ExitStack() as stack:  # undone from the last to the first
            words, output = _Stream(self._hear), _Stream(self.record.take)
            stack.callback(self.record.end)
            stack.callback(output.close)
            stack.callback(words.close)
            process = self._start(mark, words, output)
            stack.callback(strays.ended, mark)
            stack.callback(_reap, process)
            stack.callback(guardian.release, process.pid)
            stack.callback(_kill_group, process)
            guardian.hold(process.pid, gently=self._program.is_gentle)
            assert process.stdin is not None
            stack.callback(process.stdin.close)
            self.pid = process.pid
            telling = asyncio.create_task(self._tell(process, words.writer))
            words.begin()
            output.begin()
            try:
                await _exited(process)
            finally:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)
        return process.returncode if process.returncode is not None else -signal.SIGKILL

    def _start(self, mark: str, words: _Stream, output: _Stream) -> subprocess.Popen[bytes]:
        program = self._program
        is_told = program.first_words is not None
        return subprocess.Popen(
            program.argv() if is_told else ("/bin/sh", "-c", _GATE, "sh", *program.argv()),
            stdin=subprocess.PIPE,
            stdout=output.writer if is_told else words.writer,
            stderr=output.writer,
            # what is ended gently must not be found by its mark, and killed
            env=program.env if program.is_gentle else {**program.env, NAME: mark},
            cwd=program.cwd,
            start_new_session=True,
            pass_fds=(words.writer,) if is_told else (),
            bufsize=0,
        )

    async def _tell(self, process: subprocess.Popen[bytes], tell: int) -> None:
        """What it waits for on stdin: now the guardian knows it, and we know what to say."""
        assert process.stdin is not None
        words = b""
        try:
            if self._program.first_words is not None:
                words = orjson.dumps({**await self._program.first_words(), "tell": tell})
        except OrchestratorError as error:
            self.record.take(f"error: {error}\n".encode())
            process.stdin.close()  # then it ends
            return
        self._began = time.monotonic()
        with contextlib.suppress(OSError):  # it is gone already
            process.stdin.write(words + b"\n")

    def _hear(self, chunk: bytes) -> None:
        for line in chunk.splitlines():
            with contextlib.suppress(orjson.JSONDecodeError):
                word = orjson.loads(line)
                state = self._program.on_word(word) if isinstance(word, dict) else None
                if state is not None and not self._is_stopping.is_set():
                    self._become(state)

    def _become(self, state: State) -> None:
        if state is not self.state:
            self.state, self.since = state, time.time()
            self._on_change(self)

    def _signal(self, number: signal.Signals) -> None:
        """To the process alone: what an agent's code has started may have to live until the work is done."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class _Stream:
    """A pipe that is read as it fills; `writer` is the process's end of it."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._is_open = True

    def begin(self) -> None:
        """The process has its end now, and we give up ours."""
        os.close(self.writer)
        self.writer = -1
        asyncio.get_running_loop().add_reader(self._reader, self._read)

    def _read(self) -> bool:
        """Whether there may be more."""
        try:
            chunk = os.read(self._reader, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if chunk:
            self._take(chunk)
        else:
            self._shut()
        return bool(chunk)

    def close(self) -> None:
        """Take what is left: all that the process wrote is in the pipe by now."""
        for _ in range(16):  # a stranger that got hold of the pipe may write for ever
            if not self._is_open or not self._read():
                break
        self._shut()

    def _shut(self) -> None:
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
            if self.writer >= 0:
                os.close(self.writer)


async def _exited(process: subprocess.Popen[bytes]) -> None:
    """Until it has ended; it is not reaped, so its number stays its own."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, or a restricted kernel
        await asyncio.to_thread(process.wait)
        return
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _reap(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)


def in_words(status: int | None) -> str:
    """An exit status for people."""
    if status is None or status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
