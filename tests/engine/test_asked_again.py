"""Who comes again finds what it had, and leaves nothing behind: sub-tasks after a reconnect, followers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.store.following import Filter, Pulse, follow
from agentorch_cli.wiring import Orchestrator


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_sub_task_is_waited_for_once_however_often_its_agent_reconnects(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    async def parent(work: Any) -> Any:
        return await work.submit({"required_capabilities": ["child"]}, wait=True)

    gate = Gate("child")
    hand = await crew.join("a", does=parent)
    await crew.join("b", "child", does=gate)
    task = await orchestrator.submit({"required_capabilities": ["work"]})
    await gate.work()
    courier, subtasks = orchestrator.engine.courier, orchestrator.engine.subtasks
    for _ in range(3):
        hand.is_connected.clear()
        before = courier.session_of("a")
        before.abort()
        await hand.is_connected.wait()
        await until(lambda: any(asked is courier.session_of("a") for asked, _ in subtasks._asked.values()))

    # it has been stored again, and one waits
    await until(lambda: len(subtasks._running) == 1 and sum(map(len, subtasks._waiting.values())) == 1)
    assert subtasks._per_agent == {"a": 1}
    gate.is_open.set()
    assert await task.result(30) == "child"
    await until(lambda: not subtasks._running and not subtasks._asked)


class SlowToStop:
    """A log whose reader takes a moment to be stopped, as a query under way does."""

    def __init__(self) -> None:
        self.newest = 0
        self.go_on = asyncio.Event()

    async def fetch_one(self, _name: str) -> dict[str, int]:
        self.newest += 1
        try:
            await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            await self.go_on.wait()
            raise
        return {"tx": self.newest, "event_id": 1}


async def test_who_follows_while_the_last_one_leaves_hears_of_what_happens() -> None:
    log = SlowToStop()
    pulse = Pulse(log, look_every=0.0)  # type: ignore[arg-type]

    async def follow(left: asyncio.Event) -> None:
        async with pulse.following():
            await left.wait()

    first, second = asyncio.Event(), asyncio.Event()
    leaving = asyncio.create_task(follow(first))
    await until(lambda: log.newest)
    first.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    coming = asyncio.create_task(follow(second))
    await asyncio.sleep(0)
    log.go_on.set()
    await leaving

    async with asyncio.timeout(5):
        await pulse.next()

    second.set()
    await coming


class Away:
    """A log that cannot be read until it is told to be there."""

    def __init__(self) -> None:
        self.asked = self.read = 0
        self.is_there = False

    async def fetch(self, _name: str, *_values: Any) -> list[Any]:
        self.read += 1
        raise DatabaseUnreachable("gone")

    async def fetch_one(self, _name: str) -> dict[str, int]:
        self.asked += 1
        if not self.is_there:
            raise DatabaseUnreachable("gone")
        return {"tx": self.asked, "event_id": 1}


async def test_a_database_that_is_away_is_told_once_and_not_at_each_look(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = Away()
    pulse = Pulse(log, look_every=0.0)  # type: ignore[arg-type]

    async with pulse.following(), asyncio.timeout(5):
        await until(lambda: log.asked > 5)
        log.is_there = True
        await pulse.next()
        log.is_there, before = False, log.asked
        await until(lambda: log.asked > before + 5)

    gone, back = "cannot look at the log of events: gone", "the log of events can be read again"
    assert [record.message for record in caplog.records] == [gone, back, gone]


async def test_many_who_follow_tell_together_and_once_that_the_database_is_away(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Away()
    pulse = Pulse(log, look_every=0.0)  # type: ignore[arg-type]
    monkeypatch.setattr("agentorch_cli.store.following.AWAY_PAUSE", 0.0)

    async def tell() -> None:
        async for rows in follow(log, pulse, "0:0", Filter()):  # type: ignore[arg-type]
            assert rows == [], rows

    followers = [asyncio.create_task(tell()) for _ in range(5)]
    await until(lambda: log.read > 50 and log.asked > 5)
    for follower in followers:
        follower.cancel()
    await asyncio.gather(*followers, return_exceptions=True)

    assert [record.message for record in caplog.records] == ["cannot look at the log of events: gone"]
