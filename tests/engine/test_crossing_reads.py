"""Rows that are on their way while the world moves on: what is newer stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.core.model import AgentStatus
from agentorch_cli.wiring import Orchestrator

TASK = {"required_capabilities": ["work"]}


class Slow:
    """Holds back the answers to one statement, each until it is let go."""

    def __init__(self, node: Orchestrator, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = name
        self.read: asyncio.Queue[asyncio.Event] = asyncio.Queue()
        self._fetch = node.engine.store.db.fetch
        self.is_on = True
        monkeypatch.setattr(node.engine.store.db, "fetch", self._slowly)

    async def _slowly(self, name: str, *args: Any, **more: Any) -> Any:
        rows = await self._fetch(name, *args, **more)
        if name == self.name and self.is_on:
            go_on = asyncio.Event()
            self.read.put_nowait(go_on)
            await go_on.wait()
        return rows

    async def has_read(self) -> asyncio.Event:
        """The next answer is there, and waits for this."""
        async with asyncio.timeout(10):
            return await self.read.get()

    def let_go(self) -> None:
        """All answers go through from now on."""
        self.is_on = False
        while not self.read.empty():
            self.read.get_nowait().set()


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def turns(number: int = 50) -> None:
    """Whoever can go on does."""
    for _ in range(number):
        await asyncio.sleep(0.001)


@pytest.fixture
async def crew_on() -> Any:
    crews: list[Crew] = []

    def crew_on(node: Orchestrator) -> Crew:
        crews.append(Crew(node))
        return crews[-1]

    yield crew_on
    for crew in crews:
        await crew.vanish()


async def test_an_older_answer_about_the_fleet_does_not_undo_a_newer_one(
    orchestrator: Orchestrator, crew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crew.join("a")
    engine = orchestrator.engine
    await orchestrator.call("agent.pause", agent_ids=["a"])
    await until(lambda: engine.state.roster.members["a"].status is AgentStatus.PAUSED)
    slow = Slow(orchestrator, "roster", monkeypatch)
    resync = asyncio.create_task(engine.read_fleet())
    older = await slow.has_read()
    slow.is_on = False
    hints = engine.state.fleet_hints
    await orchestrator.call("agent.resume", agent_ids=["a"])
    await until(lambda: engine.state.fleet_hints > hints)
    await turns()

    older.set()
    await resync

    assert await (await orchestrator.submit({**TASK, "data": 1})).result(10) == 1


async def test_an_agent_that_comes_while_its_old_node_is_read_keeps_its_session(
    start_engine: Callable[..., Awaitable[Orchestrator]], crew_on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await start_engine(), await start_engine()
    there = await crew_on(second).join("a")
    await until(lambda: "a" in first.engine.state.roster.members)
    slow = Slow(first, "roster_of", monkeypatch)
    following = asyncio.create_task(first.engine.peers.follow_agents(["a"]))
    older = await slow.has_read()
    slow.let_go()
    here = await crew_on(first).join("a")

    older.set()
    await following

    assert first.engine.courier.session_of("a") is not None
    assert not here.running.done()
    assert await (await first.submit({**TASK, "data": 1})).result(10) == 1
    await asyncio.wait([there.running], timeout=10)
    assert there.running.done()


async def test_an_agent_that_is_read_while_it_comes_in_keeps_its_session(
    start_engine: Callable[..., Awaitable[Orchestrator]], crew_on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session is there, its seat is not yet, and the row still names the node that it left."""
    first, second = await start_engine(), await start_engine()
    await crew_on(second).join("a")
    await until(lambda: "a" in first.engine.state.roster.members)
    slow = Slow(first, "roster_of", monkeypatch)
    following = asyncio.create_task(first.engine.peers.follow_agents(["a"]))
    older = await slow.has_read()
    slow.let_go()
    held_work, has_come, go_on = first.store.held_work, asyncio.Event(), asyncio.Event()

    async def slowly(*args: Any, **more: Any) -> Any:
        held = await held_work(*args, **more)
        if args == (["a"],):
            has_come.set()
            await go_on.wait()
        return held

    monkeypatch.setattr(first.engine.store, "held_work", slowly)
    joining = asyncio.create_task(crew_on(first).join("a"))
    await has_come.wait()
    older.set()
    await turns()
    go_on.set()
    here = await joining
    await following
    await turns()

    assert first.engine.courier.session_of("a") is not None
    assert not here.is_lost.is_set()
    assert not here.running.done()
    assert await (await first.submit({**TASK, "data": 1})).result(10) == 1


async def test_slots_that_come_free_while_two_read_the_other_nodes_are_free(
    start_engine: Callable[..., Awaitable[Orchestrator]], crew_on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await start_engine(), await start_engine()
    gate = Gate("done")
    await crew_on(second).join("a", does=gate)
    state = first.engine.state
    handle = await first.submit(TASK)
    await gate.work()
    await until(lambda: state.elsewhere)
    slow = Slow(first, "live_elsewhere", monkeypatch)
    one = asyncio.create_task(first.engine.peers.read_elsewhere())
    other = asyncio.create_task(first.engine.peers.read_elsewhere(["a"]))
    go_on = [await slow.has_read()]
    await turns()
    go_on += [slow.read.get_nowait() for _ in range(slow.read.qsize())]
    if len(go_on) > 1:
        go_on.pop(0).set()
        await one
    gate.is_open.set()
    await handle.result(10)
    await until(lambda: not state.elsewhere)

    slow.let_go()
    for event in go_on:
        event.set()
    await asyncio.gather(one, other)

    assert not state.elsewhere
    assert not state.roster.members["a"].used
