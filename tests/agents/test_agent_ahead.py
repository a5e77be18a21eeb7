"""Work that an agent holds until it has a slot for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_engine import Connection, FakeEngine, Start, envelope, execute

from agentorch_cli.agents import Agent, Work
from agentorch_cli.errors import UsageError


def ahead(message_id: str, **more: Any) -> dict[str, Any]:
    frame = execute(message_id, **more)
    frame["data"]["ahead"] = True
    return frame


class Held:
    """An agent with one slot whose work ends when it is told to, in the order in which it began."""

    def __init__(self, agent: Agent) -> None:
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

        @agent.handler("work")
        async def handle(work: Work) -> str:
            self.begun.append(work.message_id)
            await self.gates.setdefault(work.message_id, asyncio.Event()).wait()
            return work.message_id

        @agent.handler("parent")
        async def parent(work: Work) -> Any:
            self.begun.append(work.message_id)
            return await work.submit({"type": "work"}, wait=True)

    def end(self, message_id: str) -> None:
        self.gates[message_id].set()


@pytest.fixture
def agent() -> Agent:
    return Agent("a1")


@pytest.fixture
async def held(engine: FakeEngine, start: Start, agent: Agent) -> tuple[Held, Connection]:
    held = Held(agent)
    start(agent, stop=asyncio.Event())
    return held, await engine.registered()


def accepted(connection: Connection) -> list[str]:
    return [message["messageId"] for message in connection.of("task_accepted")]


async def test_it_begins_with_what_it_was_handed_ahead_once_a_slot_is_free(held: Any) -> None:
    held, connection = held
    await connection.send(execute("m1"), ahead("m2"), ahead("m3"))
    await connection.settled()
    assert (held.begun, accepted(connection)) == (["m1"], ["m1"])

    for message_id in ("m1", "m2", "m3"):
        held.end(message_id)
        assert (await connection.expect("task_result"))["messageId"] == message_id
        await connection.settled()

    assert (held.begun, accepted(connection)) == (["m1", "m2", "m3"], ["m1", "m2", "m3"])


async def test_with_a_free_slot_it_begins_at_once(held: Any) -> None:
    held, connection = held

    await connection.send(ahead("m1"))

    assert (await connection.expect("task_accepted"))["messageId"] == "m1"


async def test_what_is_taken_back_is_forgotten_without_a_word(held: Any) -> None:
    held, connection = held
    await connection.send(execute("m1"), ahead("m2"), ahead("m3"))
    await connection.send(envelope("cancel_task", "c1", taskId="t", messageId="m2", reason="moved"))
    await connection.settled()

    held.end("m1")
    await connection.expect("task_result")
    await connection.settled()

    assert held.begun == ["m1", "m3"]
    assert len(connection.of("task_result")) == 1


async def test_a_reconnect_names_it_and_what_was_dropped_is_not_begun(held: Any, engine: FakeEngine) -> None:
    held, connection = held
    await connection.send(execute("m1"), ahead("m2"), ahead("m3"))
    await connection.settled()

    connection.cut()
    again = await engine.connection()
    register = await again.welcome(dropped=("m2",))
    await again.settled()
    held.end("m1")
    await again.expect("task_result")
    await again.settled()

    assert register["resume"] == ["m1", "m2", "m3"]
    assert held.begun == ["m1", "m3"]


async def test_work_that_waits_for_a_sub_task_leaves_its_slot_to_what_is_ahead(held: Any) -> None:
    held, connection = held
    await connection.send(ahead("m1"), ahead("m2"))
    await connection.settled()
    held.end("m1")
    await connection.send(execute("m3", task_type="parent"), ahead("m4"))
    await connection.settled()
    assert held.begun == ["m1", "m2", "m3"]

    held.end("m2")
    await connection.settled()

    assert held.begun == ["m1", "m2", "m3", "m4"]


async def test_many_that_end_at_once_are_begun_one_after_the_other(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1", prefetch=900)
    gate = asyncio.Event()

    @agent.handler("slow")
    async def slow(work: Work) -> None:
        await gate.wait()

    @agent.handler("work", inline=True)
    def quick(work: Work) -> str:
        return work.message_id

    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m0", task_type="slow"), *(ahead(f"m{n}") for n in range(1, 900)))
    await connection.settled()

    gate.set()

    async with asyncio.timeout(10):
        while len(connection.of("task_result")) < 900:
            await asyncio.sleep(0.01)
    assert [message["messageId"] for message in connection.of("task_result")] == [f"m{n}" for n in range(900)]


async def test_an_agent_that_stops_does_not_begin_with_it(engine: FakeEngine, start: Start) -> None:
    agent, stop = Agent("a1"), asyncio.Event()
    held = Held(agent)
    running = start(agent, stop=stop)
    connection = await engine.registered()
    await connection.send(execute("m1"), ahead("m2"))
    await connection.settled()

    stop.set()
    await asyncio.sleep(0.05)
    held.end("m1")
    await connection.expect("task_result")
    await connection.ack("m1")
    await connection.expect("unregister")
    await running

    assert held.begun == ["m1"]


@pytest.mark.parametrize("prefetch", [-1, 1001])
def test_an_impossible_prefetch_is_refused(prefetch: int) -> None:
    with pytest.raises(UsageError, match="prefetch"):
        Agent("a1", prefetch=prefetch)
