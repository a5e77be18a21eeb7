"""A restart of the engine is not the death of its agents, and what was put off is not forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agentorch_cli import Agent, Orchestrator, Work

StartEngine = Callable[..., Awaitable[Orchestrator]]


class Doer:
    """An agent that does "wait" when it is let, and fails what is "unlucky" the first time."""

    def __init__(self) -> None:
        self.may_finish = asyncio.Event()
        self.has_begun = asyncio.Event()
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._agent = Agent("doer", capabilities=("do",))

        @self._agent.handler("wait")
        async def wait(work: Work) -> int:
            self.has_begun.set()
            await self.may_finish.wait()
            return work.attempt

        @self._agent.handler("unlucky")
        async def fail_once(work: Work) -> int:
            if work.attempt == 1:
                raise ValueError("the first time it fails")
            return work.attempt

    def start(self, url: str) -> None:
        self._running = asyncio.create_task(self._agent.run(url, stop=self._stop, drain_timeout=0))

    async def stop(self) -> None:
        self._stop.set()
        if self._running is not None:
            await self._running


@pytest.fixture
async def doer() -> AsyncIterator[Doer]:
    one = Doer()
    yield one
    await one.stop()


def port_of(orchestrator: Orchestrator) -> int:
    return int(orchestrator.url.rsplit(":", 1)[1].split("/")[0])


async def task_of(orchestrator: Orchestrator, task_id: str, seconds: float = 10.0) -> Any:
    await orchestrator.call("task.wait", task_ids=[task_id], timeout_seconds=seconds)
    return await orchestrator.call("task.get", task_id=task_id)


async def test_a_retry_that_was_put_off_is_made_by_the_next_engine(
    start_engine: StartEngine, doer: Doer
) -> None:
    first = await start_engine(engine={"backoff": 0.6, "poll_interval": 60.0})
    doer.start(first.url)
    task = await first.submit({"type": "unlucky", "required_capabilities": ["do"], "backoff": 0.6})
    while not await first.store.db.pool.fetchval("select is_delayed from task_distributions"):
        await asyncio.sleep(0.01)

    await first.stop()
    second = await start_engine(engine={"poll_interval": 60.0}, gateway={"port": port_of(first)})

    found = await task_of(second, task.task_id)
    assert (found.status, found.result, found.attempts_made) == ("completed", 2, 2)


async def test_agents_have_their_grace_to_come_back_however_long_no_engine_ran(
    start_engine: StartEngine, doer: Doer
) -> None:
    first = await start_engine()
    doer.start(first.url)
    task = await first.submit({"type": "wait", "required_capabilities": ["do"]})
    await asyncio.wait_for(doer.has_begun.wait(), 5)
    port = port_of(first)
    await first.stop()
    await doer.stop()  # it would come back at once: here it takes a while

    late = Doer()
    second = await start_engine(engine={"poll_interval": 0.05}, gateway={"port": port})
    await second.store.db.pool.execute(
        "update agent_registry set disconnected_at = now() - interval '1 hour'"
    )
    await asyncio.sleep(0.3)  # several sweeps
    late.may_finish.set()
    late.start(second.url)

    found = await task_of(second, task.task_id)
    await late.stop()
    assert (found.status, found.attempts_made) == ("completed", 1)
