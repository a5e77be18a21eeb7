"""An agent as a program: what `agentorch agent run` and `Agent.serve` call."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from agentorch_cli.agents.agent import DEFAULT_URL, Agent
from agentorch_cli.agents.line import Find, LineState, OnConnection


@dataclass(slots=True)
class Stop:
    """Set by the first SIGINT or SIGTERM; `number` says which it was."""

    event: asyncio.Event = field(default_factory=asyncio.Event)
    number: int | None = None


async def run_worker(
    agent: Agent,
    handler: Callable[..., Any],
    *,
    url: str = DEFAULT_URL,
    token: str | None = None,
    stop: Stop | None = None,
    on_connection: OnConnection | None = None,
    drain_timeout: float = 30.0,
    inline: bool = False,
    tls: ssl.SSLContext | None = None,
    find: Find | None = None,
) -> int | None:
    """Serve with one handler for every type until a signal comes; returns the signal's number.

    The first SIGINT or SIGTERM finishes what runs, for `drain_timeout` seconds at most. The second
    gives it back at once. Raises Unauthorized or NotAllowed.
    """
    agent.add_handler(handler, inline=inline)
    return await run_until_signal(
        agent,
        url=url,
        token=token,
        stop=stop,
        on_connection=on_connection,
        drain_timeout=drain_timeout,
        tls=tls,
        find=find,
    )


async def run_until_signal(
    agent: Agent,
    *,
    url: str = DEFAULT_URL,
    token: str | None = None,
    stop: Stop | None = None,
    on_connection: OnConnection | None = None,
    drain_timeout: float = 30.0,
    tls: ssl.SSLContext | None = None,
    find: Find | None = None,
) -> int | None:
    """The same with the handlers that the agent has."""
    with stopping_on_signals(stop or Stop()) as stopping:
        try:
            await agent.run(
                url,
                token,
                stopping.event,
                on_connection=on_connection,
                drain_timeout=drain_timeout,
                tls=tls,
                find=find,
            )
        except asyncio.CancelledError:
            if stopping.number is None:
                raise
            _uncancel()
    return stopping.number


def telling(agent_id: str, url: Callable[[], str], say: Callable[[str], None]) -> OnConnection:
    """Says how the connection is, each state once: an agent dials again and again, in vain for one reason.

    `url` answers what it dials now.
    """
    last = ("", "")

    def tell(state: str, reason: str) -> None:
        nonlocal last
        before, last = last, (str(state), reason)
        if last == before:
            return
        said = f"{state} ({reason})" if reason else str(state)
        if state == LineState.UNREACHABLE:
            said += f": trying {url()} again and again; does agentorch serve, or up, run there?"
        say(f"{agent_id}: {said}")

    return tell


def _uncancel() -> None:
    """The second signal's own cancellation is answered here, and must not end whoever called."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


@contextlib.contextmanager
def stopping_on_signals(stop: Stop) -> Iterator[Stop]:
    """For the time of the block, the first signal sets the event and the next one cancels this task."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def on_signal(number: int) -> None:
        if stop.event.is_set() and task is not None:
            task.cancel()
        stop.number = number
        stop.event.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
