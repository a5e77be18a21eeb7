"""The agent SDK: name what the agent can do, decorate what does it, and run.

agent = Agent("counter-1", capabilities=("count",), slots=4)

@agent.handler("count_words")
async def count_words(work: Work) -> int:
    return len(work.data["text"].split())

agent.serve("ws://127.0.0.1:3001/agents")
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from agentorch_cli.agents.desk import Desk
from agentorch_cli.agents.handler import Handler, mode_of
from agentorch_cli.agents.line import Find, Line, LineState, OnConnection
from agentorch_cli.core.model import check_name
from agentorch_cli.errors import Conflict, UsageError
from agentorch_cli.text import one_line

DEFAULT_URL = "ws://127.0.0.1:3001/agents"
PROTOCOL = 1

PREFETCH = 0
"""Short tasks beyond its slots that an agent holds at most where it is not told; see bench/prefetch.py."""

MOST_PREFETCH = 1000

GRACE_SECONDS = 5.0
"""For cancelled handlers to clean up; an exec handler needs some to end its processes."""

LEAVE_SECONDS = 2.0
"""For `unregister` to get onto the wire."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Agent:
    """A member of the fleet. Handlers are added first; then `run` is awaited once, or once again."""

    def __init__(
        self,
        agent_id: str,
        *,
        type: str = "worker",
        capabilities: Sequence[str] = (),
        slots: int = 1,
        pool: str | None = None,
        prefetch: int = PREFETCH,
        metadata: dict[str, Any] | None = None,
        batch: bool = True,
    ) -> None:
        """`prefetch` says how much work beyond its slots it may be handed; it begins with that once a slot is
        free, so that no time passes between two short tasks. `batch` lets the engine and this agent put many
        messages into one frame.

        Without a `pool` it stays in the one that it was registered in, or comes into the default one.
        """
        check_name("id", agent_id)
        if slots < 1:
            raise UsageError(f"agent {agent_id} has {slots} slots", hint="An agent needs at least one.")
        if not 0 <= prefetch <= MOST_PREFETCH:
            raise UsageError(f"agent {agent_id}: prefetch is 0 to {MOST_PREFETCH:,}, not {prefetch}")
        if isinstance(capabilities, str):
            raise UsageError(f'capabilities="{capabilities}" is one string', hint="Give a list of strings.")
        self.agent_id = agent_id
        self.type = type
        self.capabilities = tuple(capabilities)
        self.slots = slots
        self.pool = pool
        self.prefetch = prefetch
        self.metadata = metadata or {}
        self.batch = batch
        self._handlers: dict[str | None, Handler] = {}
        self._voter: Handler | None = None
        self._is_running = False
        self.undelivered = 0
        """Results that the engine had not confirmed when `run` ended."""

    def handler(
        self, task_type: str | None = None, *, inline: bool = False
    ) -> Callable[[Function], Function]:
        """Decorate what does tasks of this type; without a type, of every type that has no other.

        It is given a `Work`, and returns the result (any JSON) or raises. An async function runs on
        the loop and is cancelled with its task; a plain one runs in a thread and may look at
        `work.cancelled`. A plain one with `inline=True` is called by the reader itself: the fastest
        way, for work that takes microseconds and waits for nothing.
        """

        def decorate(function: Function) -> Function:
            self.add_handler(function, task_type, inline=inline)
            return function

        return decorate

    def add_handler(
        self, function: Callable[..., Any], task_type: str | None = None, *, inline: bool = False
    ) -> None:
        """The same as `handler`, for a function that exists already."""
        if task_type in self._handlers:
            raise Conflict(f"agent {self.agent_id} has two handlers for {task_type or 'every type'}")
        self._handlers[task_type] = _handler_of(function, inline)

    def voter(self, function: Function) -> Function:
        """Decorate what answers a `Question` with any JSON or a `Vote`. Without it the agent abstains."""
        self._voter = _handler_of(function)
        return function

    async def run(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        stop: asyncio.Event | None = None,
        *,
        on_connection: OnConnection | None = None,
        drain_timeout: float = 30.0,
        tls: ssl.SSLContext | None = None,
        find: Find | None = None,
    ) -> None:
        """Serve until `stop` is set or the call is cancelled, whatever happens to the connection.

        After `stop`, nothing new is begun; what runs is finished and confirmed, or given back after
        `drain_timeout` seconds. Cancelling gives everything back at once.
        `on_connection(state, reason)` hears of every change (`LineState`).
        `tls`: how a wss:// server is checked, where the system's authorities do not know it.
        `find` answers where the engine is now, if it may be elsewhere when the connection was lost.
        Raises Unauthorized or NotAllowed when the engine refuses this agent, and what `find` raises.
        """
        if self._is_running:
            raise Conflict(f"agent {self.agent_id} runs already")
        self._is_running = True
        desk = Desk(
            self.agent_id,
            self.slots,
            self._handlers,
            self._voter,
            parks=self.metadata.get("park") is not False,
        )
        line = Line(desk, url, self._register_frame(), token, on_connection, tls, find)
        holding = asyncio.create_task(line.hold())
        try:
            await _first_of(holding, stop)
            if not holding.done():
                await _finish(desk, holding, drain_timeout)
        finally:
            self.undelivered = desk.undelivered
            await _leave(desk, line, holding)
            self._is_running = False
            line.tell(LineState.STOPPED, "")
        if not holding.cancelled():
            holding.result()

    def serve(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        drain_timeout: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Be a program of its own: `run` until Ctrl-C or SIGTERM; stderr says how the connection is.

        The first signal finishes what runs, for `drain_timeout` seconds at most; the second gives it back
        at once. Raises Unauthorized or NotAllowed.
        """
        from agentorch_cli.agents.worker import run_until_signal, telling

        told = telling(self.agent_id, lambda: url, _say)
        work = run_until_signal(
            self, url=url, token=token, on_connection=told, drain_timeout=drain_timeout, tls=tls
        )
        asyncio.run(work)

    def _register_frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = {
            "type": "register",
            "agentId": self.agent_id,
            "agentType": self.type,
            "capabilities": list(self.capabilities),
            "slots": self.slots,
            "prefetch": self.prefetch,
            "metadata": self.metadata,
            "protocol": PROTOCOL,
            "batch": self.batch,
        }
        if self.pool is not None:
            frame["pool"] = self.pool
        return frame


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens
        sys.stderr.write(f"{one_line(sentence)}\n")


def _handler_of(function: Callable[..., Any], inline: bool = False) -> Handler:
    try:
        return Handler(function, mode_of(function, inline))
    except TypeError as error:
        raise UsageError(f"{getattr(function, '__name__', function)}: {error}") from error


async def _first_of(holding: asyncio.Task[None], stop: asyncio.Event | None) -> None:
    """Until the line fails for good or `stop` is set."""
    stopped = asyncio.create_task((stop or asyncio.Event()).wait())
    try:
        await asyncio.wait({holding, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()


async def _finish(desk: Desk, holding: asyncio.Task[None], drain_timeout: float) -> None:
    finished = asyncio.create_task(desk.finish())
    try:
        await asyncio.wait({holding, finished}, timeout=drain_timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        finished.cancel()


async def _leave(desk: Desk, line: Line, holding: asyncio.Task[None]) -> None:
    """Give back what is left, say so, and close; all of it within a bounded time."""
    try:
        await desk.give_back(GRACE_SECONDS)
        await line.leave(LEAVE_SECONDS)
    finally:
        desk.close()
        holding.cancel()
        await asyncio.wait({holding})
        if not holding.cancelled():
            holding.exception()  # seen: `run` raises it, unless it is being cancelled itself
