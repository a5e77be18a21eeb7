"""What holds for every test of the gateway, whatever an agent does to it.

* Every frame that the engine sent fits the published JSON Schema.
* Nothing was logged with a traceback or as an error: what agents do wrong is their news, not ours.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import plain_client
import pytest
from fleet import Fleet
from frame_schema import SCHEMA, faults

from agentorch_cli.wiring import Orchestrator


class Ears(logging.Handler):
    """Remembers what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record)


@pytest.fixture(autouse=True)
def ears() -> Iterator[Ears]:
    """Hears the logs of the test; none may hold a traceback or be an error."""
    ears, root = Ears(), logging.getLogger()
    root.addHandler(ears)
    yield ears
    root.removeHandler(ears)
    loud = [r for r in ears.heard if r.levelno >= logging.ERROR or r.exc_info]
    assert not loud, "\n".join(logging.Formatter().format(record) for record in loud)


@pytest.fixture(autouse=True)
def every_frame_fits_the_schema() -> Iterator[None]:
    plain_client.seen.clear()
    yield
    for raw in plain_client.seen:
        message = json.loads(raw)
        for frame in message if isinstance(message, list) else [message]:
            wrong = faults({"$ref": "#/$defs/fromEngine"}, frame, SCHEMA)
            assert not wrong, f"{wrong} in {frame}"


@pytest.fixture
async def fleet(orchestrator: Orchestrator) -> AsyncIterator[Fleet]:
    fleet = Fleet(orchestrator)
    yield fleet
    await fleet.vanish()


@pytest.fixture
async def fleet_of() -> AsyncIterator[Callable[[Orchestrator], Fleet]]:
    """Fleets for engines that a test starts by itself."""
    fleets: list[Fleet] = []

    def fleet_of(orchestrator: Orchestrator) -> Fleet:
        fleets.append(Fleet(orchestrator))
        return fleets[-1]

    yield fleet_of
    for fleet in fleets:
        await fleet.vanish()


@pytest.fixture
def outcome_of() -> Callable[..., Awaitable[Any]]:
    """The outcome of a task of an engine that a test started by itself."""

    async def outcome_of(orchestrator: Orchestrator, task_id: str, seconds: float = 10.0) -> Any:
        await orchestrator.call("task.wait", task_ids=[task_id], timeout_seconds=seconds)
        return await orchestrator.call("task.get", task_id=task_id)

    return outcome_of
