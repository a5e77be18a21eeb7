"""A process that checks what could take long, and may be killed for it.

The library that checks holds the interpreter's lock, so a thread would not help: a schema that
refers to itself in two ways needs as many steps as there are paths. The process is started when
it is first needed, does one check at a time, and ends when nobody has asked for a while.

One line each way: `[schema, result]` as JSON texts; then `true`, or `false` and `[pointer, reason]`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import IO

import orjson

from agentorch_cli.schemas import Fault, Fits

CHECK_SECONDS = 5.0
"""Longest check."""

TELL_SECONDS = 2.0
"""Longest search for what is wrong, once it is known that something is."""

REST_SECONDS = 60.0
"""After so long without a question the process is ended."""

LONGEST_ANSWER = 64 * 1024


class Undecided(Exception):
    """Whether it fits could not be found out; the message says why."""


class Inspector:
    """The engine's side."""

    def __init__(self, check_seconds: float = CHECK_SECONDS, tell_seconds: float = TELL_SECONDS) -> None:
        self.check_seconds = check_seconds
        self.tell_seconds = tell_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._rest: asyncio.TimerHandle | None = None

    async def fault(self, schema: str, result: str) -> Fault | None:
        """What is wrong with a result; None where it fits. Raises Undecided."""
        async with self._turn:
            try:
                return await self._ask(schema, result)
            except (OSError, EOFError, ValueError) as error:
                self._kill()
                raise Undecided("the check ended without an answer") from error
            except Undecided:
                raise
            except BaseException:
                self._kill()  # whatever it answers now would be taken for the answer to the next question
                raise
            finally:
                self._rest_later()

    async def close(self) -> None:
        """End the process."""
        if self._rest is not None:
            self._rest.cancel()
        process = self._process
        self._kill()
        if process is not None:
            await process.wait()

    async def _ask(self, schema: str, result: str) -> Fault | None:
        process = await self._started()
        assert process.stdin is not None and process.stdout is not None
        try:
            async with asyncio.timeout(self.check_seconds):
                process.stdin.write(orjson.dumps([schema, result]) + b"\n")
                await process.stdin.drain()
                fits = orjson.loads(await _line(process.stdout))
        except TimeoutError:
            self._kill()
            raise Undecided(f"it takes longer than {self.check_seconds:g} s") from None
        if fits is True:
            return None
        if isinstance(fits, str):
            raise Undecided(fits)
        try:
            async with asyncio.timeout(self.tell_seconds):
                return Fault(*orjson.loads(await _line(process.stdout)))
        except TimeoutError:
            self._kill()
            return Fault("", "it could not be told in time where")

    async def _started(self) -> asyncio.subprocess.Process:
        if self._rest is not None:
            self._rest.cancel()
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                __name__,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=LONGEST_ANSWER,
                env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONUTF8": "1"},
                start_new_session=True,
            )
        return self._process

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def _rest_later(self) -> None:
        self._rest = asyncio.get_running_loop().call_later(REST_SECONDS, self._kill)


async def _line(stream: asyncio.StreamReader) -> bytes:
    line = await stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return line


def serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """The process's side: answers until the engine is gone, and does not outlive a check that hangs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fits = Fits(most=16)
    for line in questions:
        signal.alarm(int(CHECK_SECONDS + TELL_SECONDS) + 1)
        for answer in _answers(fits, line):
            answers.write(orjson.dumps(answer) + b"\n")
            answers.flush()
        signal.alarm(0)


def _answers(fits: Fits, line: bytes) -> Iterator[object]:
    schema, result = orjson.loads(line)
    try:
        fit = fits.of(schema)
    except ValueError as error:
        yield f"its schema cannot be used: {str(error)[:500]}"
        return
    value = orjson.loads(result)
    if fit.takes(value):
        yield True
        return
    yield False
    fault = fit.fault(value)
    yield [fault.pointer, fault.reason] if fault is not None else ["", "it could not be told where"]


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
