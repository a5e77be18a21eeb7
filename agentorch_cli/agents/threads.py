"""Threads for plain handlers: made when needed, kept, and never waited for at exit.

The standard pool joins its threads when the interpreter ends, so one handler that does not look at
`work.cancelled` would keep a stopped agent alive. These are daemons.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

Job = tuple["asyncio.Future[Any]", Callable[[], Any]]


class Threads:
    """Grows to as many threads as there were jobs at once; the engine's slots bound that."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._started = 0

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it in a thread. Cancelling stops the waiting, not the thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()
        with self._lock:
            is_thread_needed = self._idle == 0
            if not is_thread_needed:
                self._idle -= 1
        self._jobs.put((future, lambda: context.run(function, *arguments)))
        if is_thread_needed:
            self._started += 1
            threading.Thread(target=self._serve, name=f"{self._name}-{self._started}", daemon=True).start()
        return await future

    def close(self) -> None:
        """Ends the idle threads; a busy one ends with its job."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._do(*job)
            del job

    def _do(self, future: asyncio.Future[Any], call: Callable[[], Any]) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = call()
        except BaseException as caught:
            # SystemExit too: sys.exit() in a handler ends its task, not its agent.
            error = caught
        with self._lock:
            self._idle += 1  # before the loop hears of it: its next job may take this thread
        with contextlib.suppress(RuntimeError):  # the loop is gone, and so is whoever waited
            future.get_loop().call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        # A future refuses StopIteration, and the handler would wait for ever.
        future.set_exception(RuntimeError("the handler raised StopIteration"))
    else:
        future.set_exception(error)
