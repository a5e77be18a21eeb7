"""Work for agents of another node, with all that is needed to send it: what is told need not be read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.engine.orders import Order, channel_of, read, written
from agentorch_cli.engine.relay import WORK
from agentorch_cli.store.records import Delivery
from agentorch_cli.store.store import MOST_HINTED
from agentorch_cli.wiring import Orchestrator

StartEngine = Callable[..., Awaitable[Orchestrator]]
PLAIN: dict[str, Any] = {"required_capabilities": ["work"]}
COMMON = (
    '{"attempt":1,"type":"general","priority":5,"required_capabilities":["work"],"timeout_seconds":60.0,'
    '"retries":3,"failures":0,"losses":0,"backoff_seconds":1.0,'
    '"max_backoff_seconds":60.0,"is_simple":true,"has_dependents":false,"pool":"default","sent_at":"2026-01-01T00:00:00+00:00","task_deadline":null}'
)


class Follower:
    """A node that does not lead: what it is told, and what it reads."""

    def __init__(self, node: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node, self.engine = node, node.engine
        self.orders: list[str] = []
        self.read: list[str] = []
        self._held_work = self.engine.store.held_work
        self._take_work = self.engine.peers.take_work
        monkeypatch.setattr(self.engine.store, "held_work", self._reads)
        monkeypatch.setattr(self.engine.peers, "take_work", self._takes)

    async def _reads(self, agent_ids: Sequence[str] = (), message_ids: Sequence[str] = ()) -> Any:
        self.read += message_ids
        return await self._held_work(agent_ids, message_ids)

    async def _takes(self, message_ids: Sequence[str], orders: Sequence[str] = ()) -> None:
        self.orders += orders
        await self._take_work(message_ids, orders)

    def deliveries(self) -> list[Delivery]:
        """As they were told."""
        return [one for payload in self.orders for one in read(payload, self.engine.store.node_id)]


async def pair(start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch) -> tuple[Orchestrator, Follower]:
    """The node that leads, and one that follows it."""
    leader = await start_engine()
    follower = Follower(await start_engine(), monkeypatch)
    assert leader.engine.state.is_leader
    assert not follower.engine.state.is_leader
    return leader, follower


async def test_plain_work_is_sent_as_it_is_told(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = await pair(start_engine, monkeypatch)
    crew = Crew(follower.node)
    await crew.join("a", slots=20)

    handles = await leader.submit_all([PLAIN | {"data": {"n": n}} for n in range(100)])

    assert [await handle.result(20) for handle in handles] == [{"n": n} for n in range(100)]
    assert len(follower.deliveries()) == 100
    assert follower.read == []
    await crew.vanish()


async def test_what_is_long_or_special_is_read(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = await pair(start_engine, monkeypatch)
    crew = Crew(follower.node)
    await crew.join("a", slots=20)
    long, special = "x" * 2 * MOST_HINTED, {"result_schema": {"type": "string"}}
    work = [PLAIN | {"data": "short"}, PLAIN | {"data": long}, PLAIN | special | {"data": "checked"}]

    handles = await leader.submit_all(work)

    assert [await handle.result(20) for handle in handles] == ["short", long, "checked"]
    assert [one.task_id for one in follower.deliveries()] == [handles[0].task_id]
    assert len(follower.read) == 2
    await crew.vanish()


async def test_what_is_told_is_what_would_be_read(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = await pair(start_engine, monkeypatch)
    crew, gate = Crew(follower.node), Gate()
    await crew.join("a", "work", "more", slots=5, does=gate)
    first = {
        "name": "ünd \U0001f600",
        "required_capabilities": ["more", "work"],
        "data": {"ä": ["\n\x1e", 1.5]},
    }
    rest = [
        {"name": "second", "required_capabilities": ["work"], "priority": 9, "timeout": 7, "retries": 0},
        PLAIN | {"type": "report", "deadline": 3600, "data": None},
        {"name": "third", "required_capabilities": ["work"], "depends_on": ["second"]},
    ]
    await leader.submit_all([first, *rest])
    for _ in range(3):
        await asyncio.wait_for(gate.begun.get(), 10)

    told = {one.message_id: asdict(one) for one in follower.deliveries()}
    stored = {one.message_id: asdict(one) for one in await follower._held_work(["a"])}

    assert len(told) == 3
    since = {"seconds_since_sent": 0.0, "seconds_since_accepted": None, "is_accepted": False}
    assert told == {message_id: parts | since for message_id, parts in stored.items()}
    gate.is_open.set()
    async with asyncio.timeout(10):
        while len(follower.deliveries()) < 4:
            await asyncio.sleep(0.01)
    assert follower.deliveries()[-1].inputs == '{ "second" : null }'
    await crew.vanish()


@pytest.mark.parametrize("says", ["ended", "called off", "missed"])
async def test_an_order_that_comes_late_begins_nothing(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    """The tables know better what became of it, and are asked."""
    leader, follower = await pair(start_engine, monkeypatch)
    crew, gate = Crew(follower.node), Gate("done")
    await crew.join("a", slots=2, does=gate)
    handle = await leader.submit(PLAIN)
    await asyncio.wait_for(gate.begun.get(), 10)
    gate.is_open.set()
    await handle.result(10)
    async with asyncio.timeout(10):
        while follower.engine.state.deliveries:
            await asyncio.sleep(0.01)
    (order,), (late,) = follower.orders, follower.deliveries()
    if says != "ended":
        follower.engine.state.over.clear()
        hinted = late.message_id if says == "called off" else "*"
        follower.engine._on_notice("agentorch_cancel", hinted)

    node_id = follower.engine.store.node_id
    follower.engine._on_notice(str(channel_of(node_id)), order)
    follower.engine._on_notice(WORK, f"{node_id}\n{late.message_id}")

    async with asyncio.timeout(10):
        while follower.read != [late.message_id]:
            await asyncio.sleep(0.01)
    again = await leader.submit(PLAIN)
    assert await again.result(10) == "done"
    assert gate.begun.qsize() == 1
    await crew.vanish()


async def test_a_node_that_does_not_hear_orders_reads(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an older version listens to no such channel."""
    monkeypatch.setattr("agentorch_cli.engine.engine.channel_of", lambda _: None)
    leader, follower = await pair(start_engine, monkeypatch)
    crew = Crew(follower.node)
    await crew.join("a", slots=20)

    handles = await leader.submit_all([PLAIN | {"data": n} for n in range(20)])

    assert [await handle.result(20) for handle in handles] == list(range(20))
    assert follower.orders == []
    assert len(follower.read) == 20
    await crew.vanish()


async def test_what_cannot_be_understood_is_read(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentorch_cli.engine.relay.written", lambda orders: ["nonsense" for _ in orders])
    leader, follower = await pair(start_engine, monkeypatch)
    crew = Crew(follower.node)
    await crew.join("a")

    handle = await leader.submit(PLAIN | {"data": 1})

    assert await handle.result(10) == 1
    assert len(follower.read) == 1
    await crew.vanish()


@pytest.mark.parametrize("number", [1, 2, 90, 91, 1000])
@pytest.mark.parametrize("kinds", [1, 2, 1000])
def test_orders_come_in_their_order_in_pieces_that_fit(number: int, kinds: int) -> None:
    orders = []
    for n in range(number):
        own = f'message-{n}\x1fa\x1f{n}\x1ftask\x1f\x1f"{"ä" * (n % 40)}"\x1f'
        common = COMMON.replace('"priority":5', f'"priority":{n % kinds}')
        orders.append(Order(common, own, len(own.encode()) + 1))

    payloads = list(written(orders))

    assert all(len(payload.encode()) <= MOST_HINTED for payload in payloads)
    found = [one for payload in payloads for one in read(payload, "here")]
    assert [(one.message_id, one.slot, one.priority) for one in found] == [
        (f"message-{n}", n, n % kinds) for n in range(number)
    ]
