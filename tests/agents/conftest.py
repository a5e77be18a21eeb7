from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fake_engine import FakeEngine, Start, listening

from agentorch_cli.agents import Agent


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with listening() as engine:
        yield engine


@pytest.fixture
async def start(engine: FakeEngine) -> AsyncIterator[Start]:
    """Runs an agent against the fake engine for the time of the test."""
    running: list[asyncio.Task[None]] = []

    def start(agent: Agent, **options: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(agent.run(options.pop("url", engine.url), **options))
        running.append(task)
        return task

    yield start
    for task in running:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
