"""SDK agents of one test, in this process, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agentorch_cli import Agent
from agentorch_cli.agents.line import LineState
from agentorch_cli.wiring import Orchestrator

Handler = Callable[..., Any]

WORK = {"required_capabilities": ["work"]}


class Hand:
    """One agent that runs."""

    def __init__(self, agent: Agent, running: asyncio.Task[None], stop: asyncio.Event) -> None:
        self.agent = agent
        self.running = running
        self.stop = stop
        self.states: list[str] = []
        self.is_connected = asyncio.Event()
        self.is_lost = asyncio.Event()

    def heard(self, state: str, _reason: str) -> None:
        self.states.append(state)
        if state == LineState.CONNECTED:
            self.is_connected.set()
        elif state in (LineState.LOST, LineState.UNREACHABLE):
            self.is_lost.set()

    async def leave(self) -> None:
        """Go in good order."""
        self.stop.set()
        await self.running

    async def vanish(self) -> None:
        """Give everything back at once and go."""
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)


class Crew:
    """Agents of one engine; whoever is left at the end of the test goes."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self.orchestrator = orchestrator
        self.hands: list[Hand] = []

    async def join(
        self, agent_id: str, *capabilities: str, does: Handler | None = None, **fields: Any
    ) -> Hand:
        """An agent that is connected; it has the capability `work` where none is named, and echoes."""
        agent = Agent(agent_id, capabilities=capabilities or ("work",), **fields)
        agent.add_handler(does or echo)
        stop = asyncio.Event()
        hand = Hand(agent, asyncio.current_task(), stop)  # type: ignore[arg-type]
        hand.running = asyncio.create_task(
            agent.run(self.orchestrator.url, stop=stop, on_connection=hand.heard, drain_timeout=0.0)
        )
        self.hands.append(hand)
        async with asyncio.timeout(10):
            await hand.is_connected.wait()
        return hand

    async def vanish(self) -> None:
        for hand in self.hands:
            hand.running.cancel()
        await asyncio.gather(*(hand.running for hand in self.hands), return_exceptions=True)


async def echo(work: Any) -> Any:
    """The task's data is its result."""
    return work.data


class Gate:
    """A handler that begins, and ends when it is told to."""

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.begun: asyncio.Queue[Any] = asyncio.Queue()
        self.stopped: list[str] = []
        self.is_open = asyncio.Event()

    async def __call__(self, work: Any) -> Any:
        self.begun.put_nowait(work)
        try:
            await self.is_open.wait()
        except asyncio.CancelledError:
            self.stopped.append(work.task_id)
            raise
        return self.result if self.result is not None else work.data

    async def work(self) -> Any:
        """The next piece of work that began."""
        async with asyncio.timeout(10):
            return await self.begun.get()


class Worker:
    """Does what has the data `quick` at once, and with all else waits at a gate."""

    def __init__(self) -> None:
        self.gate = Gate()

    async def __call__(self, work: Any) -> Any:
        return work.data if work.data == "quick" else await self.gate(work)

    async def begun(self) -> str:
        """The id of the next task that waits at the gate."""
        return str((await self.gate.work()).task_id)

    def open(self) -> None:
        self.gate.is_open.set()


async def is_quick(engine: Orchestrator, agent_id: str) -> None:
    """Give the agent something short to do, so that it may be handed work beyond its slots.

    Again where it took longer than what counts as quick, as on a machine with much else to do.
    """
    member = engine.engine.state.roster.members[agent_id]
    async with asyncio.timeout(20):
        while not member.is_quick:
            handle = await engine.submit(WORK | {"data": "quick"})
            assert await handle.result(10) == "quick"
            while member.used:
                await asyncio.sleep(0.01)


async def quick_worker(orchestrator: Orchestrator, crew: Crew, prefetch: int) -> Worker:
    """That of agent `a`, who takes so much work ahead and is known to be quick."""
    worker = Worker()
    await crew.join("a", does=worker, prefetch=prefetch)
    await is_quick(orchestrator, "a")
    return worker
