"""An agent as a process of its own, and the signals that end it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from fake_engine import FakeEngine, execute

SCRIPT = """
import asyncio
from agentorch_cli.agents import Agent
from agentorch_cli.agents.worker import run_worker

async def handle(work):
    await asyncio.sleep(work.data)
    return "done"

async def main():
    print(await run_worker(Agent("a1", slots=2), handle, url={url!r}))
    print(asyncio.current_task().cancelling())

asyncio.run(main())
"""

Spawn = Callable[[], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def spawn(engine: FakeEngine) -> AsyncIterator[Spawn]:
    processes: list[asyncio.subprocess.Process] = []

    async def spawn() -> asyncio.subprocess.Process:
        script = SCRIPT.format(url=engine.url)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        processes.append(process)
        return process

    yield spawn
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_one_signal_finishes_the_work(engine: FakeEngine, spawn: Spawn) -> None:
    process = await spawn()
    connection = await engine.registered()
    await connection.send(execute("m1", data=0.2))
    await connection.expect("task_accepted")
    process.send_signal(signal.SIGTERM)
    assert (await connection.expect("task_result"))["result"] == "done"
    await connection.ack("m1")
    await connection.expect("unregister")

    assert await asyncio.wait_for(process.communicate(), 5) == (b"15\n0\n", b"")


async def test_two_signals_give_it_back_at_once(engine: FakeEngine, spawn: Spawn) -> None:
    process = await spawn()
    connection = await engine.registered()
    await connection.send(execute("m1", data=60))
    await connection.expect("task_accepted")
    process.send_signal(signal.SIGINT)
    await asyncio.sleep(0.1)
    process.send_signal(signal.SIGINT)
    await connection.expect("unregister")

    assert await asyncio.wait_for(process.communicate(), 5) == (b"2\n0\n", b"")
