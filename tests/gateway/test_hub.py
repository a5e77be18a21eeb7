"""An engine that joins a hub serves the agents behind it as those at its own door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from plain_client import PlainAgent, call
from small_hub import SmallHub

from agentorch_cli.gateway import hub as hub_module

WORK = {"required_capabilities": ["work"]}


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SmallHub]:
    monkeypatch.setattr(hub_module, "FIRST_DELAY_SECONDS", 0.02)
    monkeypatch.setattr(hub_module, "LONGEST_DELAY_SECONDS", 0.1)
    hub = SmallHub()
    await hub.start()
    yield hub
    await hub.stop()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(8):
        while not condition():
            await asyncio.sleep(0.01)


async def join(hub: SmallHub, agent_id: str) -> PlainAgent:
    agent = await call(hub.url, agent_id)
    await agent.register("work")
    return agent


@pytest.mark.parametrize("names_senders", [True, False])
async def test_agents_behind_a_hub_get_work_and_bring_results(
    hub: SmallHub, start_engine: Any, outcome_of: Any, names_senders: bool
) -> None:
    hub.names_senders = names_senders
    engine = await start_engine(gateway={"hub_url": hub.url})
    await until(lambda: hub.engines)
    agents = [await join(hub, name) for name in ("anna", "bert")]

    handles = [await engine.submit({**WORK, "data": n}) for n in range(2)]
    for agent in agents:
        work = await agent.expect("execute_task")
        await agent.accept(work)
        await agent.finish(work, result=agent.agent_id)
        await agent.expect("ack", messageId=work["messageId"])
    tasks = [await outcome_of(engine, handle.task_id) for handle in handles]

    assert sorted(task.result for task in tasks) == ["anna", "bert"]
    (registration,) = hub.registrations
    assert registration == {
        "type": "register", "engineId": registration["engineId"], "engineType": "orchestrator"
    }  # fmt: skip
    for agent in agents:
        await agent.vanish()


async def test_a_hub_that_goes_away_and_comes_back_costs_no_work(
    hub: SmallHub, start_engine: Any, outcome_of: Any
) -> None:
    engine = await start_engine(gateway={"hub_url": hub.url, "heartbeat_interval": 5.0})
    await until(lambda: hub.engines)
    agent = await join(hub, "anna")
    handle = await engine.submit(WORK)
    work = await agent.expect("execute_task")

    hub.cut_engines()
    await until(lambda: len(hub.registrations) == 2 and hub.engines)
    welcome = await agent.expect("registered")
    await agent.finish(work, result=1)

    await agent.expect("ack", messageId=work["messageId"])
    task = await outcome_of(engine, handle.task_id)
    assert welcome["resumed"] == [work["messageId"]]
    assert (task.result, task.attempts_made) == (1, 1)
    await agent.vanish()


async def test_an_engine_starts_before_its_hub(hub: SmallHub, start_engine: Any) -> None:
    await hub.stop()
    engine = await start_engine(gateway={"hub_url": hub.url})
    await engine.call("status.get")
    await asyncio.sleep(0.1)
    await hub.start()

    await until(lambda: hub.engines)


async def test_an_agent_behind_a_hub_speaks_for_itself_only(hub: SmallHub, start_engine: Any) -> None:
    hub.names_senders = False
    engine = await start_engine(gateway={"hub_url": hub.url})
    await until(lambda: hub.engines)
    agent = await join(hub, "anna")
    await engine.submit(WORK)
    work = await agent.expect("execute_task")
    other = await join(hub, "bert")
    await other.send({"type": "task_result", "agentId": "bert", "messageId": work["messageId"],
                      "taskId": work["data"]["taskId"], "result": 9})  # fmt: skip

    assert (await other.expect("error"))["code"] in ("not_allowed", "not_found")
    await agent.finish(work, result=1)
    await agent.expect("ack")
    for one in (agent, other):
        await one.vanish()
