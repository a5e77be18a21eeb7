"""Agents that send too much, or read nothing: they slow themselves, never the engine or others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from fleet import Fleet
from plain_client import PlainAgent, result_frame
from websockets.exceptions import ConnectionClosed

from agentorch_cli.core.model import AgentSpec
from agentorch_cli.engine import settler as settler_module
from agentorch_cli.gateway import session as session_module
from agentorch_cli.gateway.session import FRAMES_FOR_WORK, Session
from agentorch_cli.store.records import Delivery

WORK = {"required_capabilities": ["work"], "retries": 0}
OTHER = {"required_capabilities": ["other"], "retries": 0}


def memory() -> int:
    """Bytes of this process, in which the engine runs."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@contextlib.asynccontextmanager
async def flood(agent: PlainAgent, frame: str) -> AsyncIterator[None]:
    """While the block runs, a frame is sent as fast as the engine takes it, and nothing is read."""
    has_begun = asyncio.Event()

    async def send() -> None:
        with contextlib.suppress(ConnectionClosed):
            for sent in itertools.count(1):
                await agent.connection.send(frame)
                has_begun.set()
                if sent % 50 == 0:
                    await asyncio.sleep(0)

    sending = asyncio.create_task(send())
    try:
        await has_begun.wait()
        yield
        assert not sending.done(), "the flood has outlasted what was done meanwhile"
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def work_on(engine: Any, agent: PlainAgent, number: int) -> None:
    """Round trips from submit to ack, one by one, of an agent with `other`."""
    for _ in range(number):
        await engine.submit(OTHER)
        await agent.finish(await agent.expect("execute_task"), 1)
        await agent.expect("ack")


FLOODS = {
    "garbage": "x",
    "unknown types": '{"type":"x"}',
    "heartbeats": '{"type":"agent_heartbeat"}',
    "results of unknown work": json.dumps(
        {
            "type": "task_result",
            "messageId": "01a2054b-21d6-79fb-a217-9b6419d37952",
            "taskId": "t",
            "result": "x" * 1000,
        }
    ),
    "an array of garbage": json.dumps([0] * 300_000),
    "an array of heartbeats": json.dumps([{"type": "agent_heartbeat"}] * 30_000),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_slows_itself_only(fleet: Fleet, kind: str) -> None:
    calm = await fleet.join("calm", "other")
    loud = await fleet.join("loud", "nothing", batch=True)

    async with flood(loud, FLOODS[kind]):
        await work_on(fleet.orchestrator, calm, 10)


async def test_a_flood_of_progress_and_repeated_results_slows_itself_only(
    fleet: Fleet, submit: Any, orchestrator: Any
) -> None:
    calm, loud = await fleet.join("calm", "other"), await fleet.join("loud", "work", slots=2)
    await submit(**WORK)
    await submit(**WORK)
    done, held = [await loud.expect("execute_task") for _ in range(2)]
    await loud.finish(done, 1)
    await loud.expect("ack")
    progress = {"type": "task_progress", "messageId": held["messageId"], "progress": 0.5, "note": "n" * 9000}

    for frame in (progress, result_frame(done, 1)):
        async with flood(loud, json.dumps(frame)):
            await work_on(fleet.orchestrator, calm, 5)


async def test_an_agent_that_never_reads_is_cut_off_and_nothing_grows(
    fleet: Fleet, orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "MOST_IN_OUTBOX", 4 * 1024 * 1024)
    calm = await fleet.join("calm", "other")
    deaf = await fleet.join("deaf", "work", slots=200)
    deaf.connection.transport.pause_reading()
    before = memory()

    big = [dict(WORK, data="x" * 100_000, retries=5)] * 10
    for _ in range(20):
        await orchestrator.submit_all(big)
    await work_on(fleet.orchestrator, calm, 5)

    async with asyncio.timeout(20):
        while (await orchestrator.call("agent.get", agent_id="deaf")).status != "offline":
            await asyncio.sleep(0.05)
    assert memory() - before < 100e6


async def test_large_results_of_many_agents_wait_outside(
    fleet: Fleet, orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database is slow, what agents send stays in their sockets, not in the engine."""
    monkeypatch.setattr(settler_module, "MOST_BYTES", 8_000_000)
    agents = [await fleet.join(f"agent-{n}", slots=3) for n in range(10)]
    handles = await orchestrator.submit_all([dict(WORK)] * 30)
    held = [[await agent.expect("execute_task") for _ in range(3)] for agent in agents]
    for agent, works in zip(agents, held, strict=True):
        for work in works:
            await agent.accept(work)  # what is not taken goes to whoever is idle
    settler = orchestrator.engine.settler
    is_free, settle = asyncio.Event(), settler.store.settle

    async def slow(batch: Any) -> Any:
        await is_free.wait()
        return await settle(batch)

    monkeypatch.setattr(settler.store, "settle", slow)

    async def bring(agent: PlainAgent, works: list[Any]) -> None:
        for work in works:
            await agent.finish(work, "x" * 1_000_000)

    bringing = [asyncio.create_task(bring(agent, works)) for agent, works in zip(agents, held, strict=True)]
    await asyncio.sleep(0.5)
    assert len(settler._reports) < 20, (
        "each agent may be in the middle of one frame when there is no more room"
    )
    is_free.set()

    await asyncio.gather(*bringing)
    for handle in handles:
        assert len(await handle.result(20)) == 1_000_000
    assert settler._bytes == 0


async def test_agents_that_the_engine_does_not_read_from_are_not_called_silent(
    fleet: Fleet, submit: Any, orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await fleet.join()
    await submit(**WORK)
    work = await agent.expect("execute_task")
    settler = orchestrator.engine.settler
    free = asyncio.Event()
    monkeypatch.setattr(settler, "room", free.wait)

    await agent.finish(work, 1)
    await agent.expect("ack")
    await agent.quiet(1.5)
    free.set()

    await agent.alive()


async def test_acceptances_that_come_during_a_write_are_written_too(
    fleet: Fleet, submit: Any, orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await fleet.join("anna", slots=2)
    ids = [await submit(**WORK) for _ in range(2)]
    first, second = [await agent.expect("execute_task") for _ in range(2)]
    accept = orchestrator.store.accept

    async def slow_accept(message_ids: list[str]) -> None:
        await accept(message_ids)
        await asyncio.sleep(0.2)

    monkeypatch.setattr(orchestrator.store, "accept", slow_accept)
    await agent.accept(first)
    await asyncio.sleep(0.1)
    await agent.accept(second)
    await agent.quiet(0.5)

    for task_id in ids:
        task = await orchestrator.call("task.get", task_id=task_id)
        assert task.attempts[0].status == "accepted"


async def test_a_thousand_idle_agents_cost_little(start_engine: Any, fleet_of: Any) -> None:
    engine = await start_engine(gateway={"heartbeat_interval": 10.0, "register_timeout": 10.0})
    fleet, before = fleet_of(engine), memory()
    for start in range(0, 1000, 50):
        await asyncio.gather(*(fleet.join(f"idle-{n}", "nothing") for n in range(start, start + 50)))
    calm = await fleet.join("calm", "other")
    async with asyncio.timeout(5):
        while len([a for a in await engine.call("agent.list") if a.status == "online"]) < 1001:
            await asyncio.sleep(0.1)

    await work_on(engine, calm, 5)
    assert memory() - before < 150e6  # both ends of every connection are in this process


# --- frames that somebody asked for -------------------------------------------------------------


async def test_frames_that_work_is_good_for_do_not_count_as_a_flood(start_engine: Any, fleet_of: Any) -> None:
    engine = await start_engine(gateway={"max_frames_per_second": 1})
    agent = await fleet_of(engine).join(slots=20)
    await engine.submit_all([WORK] * 20)
    for _ in range(20):
        work = await agent.expect("execute_task")
        await agent.accept(work)
        await agent.finish(work)

    for _ in range(20):  # at one frame a second this test would not wait for the last of them
        await agent.expect("ack")


async def test_an_agent_saves_no_more_frames_than_its_slots_are_good_for() -> None:
    agent = AgentSpec("anna", capabilities=("work",), slots=2, prefetch=1)
    session = Session(SimpleNamespace(), agent, uuid4(), batch=False)  # type: ignore[arg-type]
    for number in range(50):
        session.execute(work_for(agent, str(number)))

    assert [session.was_due() for _ in range(4 * FRAMES_FOR_WORK)] == (
        [True] * 3 * FRAMES_FOR_WORK + [False] * FRAMES_FOR_WORK
    )


def work_for(agent: AgentSpec, message_id: str) -> Delivery:
    return Delivery(
        message_id=message_id,
        task_id="task",
        agent_id=agent.agent_id,
        attempt=1,
        slot=0,
        role=None,
        node_id="node",
        type="work",
        priority=5,
        required_capabilities=["work"],
        timeout_seconds=300.0,
        retries=0,
        failures=0,
        losses=0,
        backoff_seconds=1.0,
        max_backoff_seconds=60.0,
        has_retry_rules=False,
        is_simple=True,
        has_dependents=False,
    )
