"""What holds for every test of the engine: nothing is logged as an error that the test did not ask for."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from crew import Crew

from agentorch_cli.engine import balancer, lifeline
from agentorch_cli.wiring import Orchestrator


class Noise(logging.Handler):
    """Remembers what was logged as an error, or with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.heard.append(logging.Formatter().format(record))

    def take(self) -> list[str]:
        """What was heard so far; it is expected, and forgotten."""
        heard, self.heard = self.heard, []
        return heard


@pytest.fixture(autouse=True)
def soon_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that nobody takes is late after a second."""
    monkeypatch.setattr(lifeline, "LATE_AFTER", 1.0)
    monkeypatch.setattr(balancer, "LATE_AFTER", 1.0)


@pytest.fixture(autouse=True)
def noise() -> Iterator[Noise]:
    noise, root = Noise(), logging.getLogger()
    root.addHandler(noise)
    yield noise
    root.removeHandler(noise)
    assert not noise.heard, "\n".join(noise.heard)


@pytest.fixture
async def crew(orchestrator: Orchestrator) -> AsyncIterator[Crew]:
    crew = Crew(orchestrator)
    yield crew
    await crew.vanish()


@pytest.fixture
async def crew_of() -> AsyncIterator[Callable[[Orchestrator], Crew]]:
    """Crews for engines that a test starts by itself."""
    crews: list[Crew] = []

    def crew_of(orchestrator: Orchestrator) -> Crew:
        crews.append(Crew(orchestrator))
        return crews[-1]

    yield crew_of
    for crew in crews:
        await crew.vanish()


@pytest.fixture
def story(orchestrator: Orchestrator) -> Callable[[str], Awaitable[list[str]]]:
    """The kinds of a task's events, in order."""

    async def story(task_id: str) -> list[str]:
        task = await orchestrator.call("task.get", task_id=task_id)
        return [event.kind for event in task.events]

    return story


@pytest.fixture
def sql_of() -> Callable[..., Awaitable[list[Any]]]:
    """A statement of the test's own, on an engine's database."""

    async def sql_of(orchestrator: Orchestrator, statement: str, *args: Any) -> list[Any]:
        found: list[Any] = await orchestrator.store.db.pool.fetch(statement, *args)
        return found

    return sql_of


@pytest.fixture
def sql(
    orchestrator: Orchestrator, sql_of: Callable[..., Awaitable[list[Any]]]
) -> Callable[..., Awaitable[list[Any]]]:
    """The same, for looking into the engine of the test, and for breaking things."""
    return functools.partial(sql_of, orchestrator)
