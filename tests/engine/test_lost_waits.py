"""Work that waits for its sub-tasks goes on, whatever is lost between the engine and its database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.agents.work import Work
from agentorch_cli.errors import DatabaseUnreachable

PARENT = {"type": "parent", "required_capabilities": ["parent"], "retries": 0}
CHILD = {"type": "child", "required_capabilities": ["child"]}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def waiting(work: Work) -> Any:
    """A parent: its sub-task's result is its own."""
    return await work.submit(CHILD)


class Failing:
    """A statement of the engine's database that fails as often as it is told to."""

    def __init__(self, db: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = name
        self.faults: list[BaseException] = []
        self.is_stored = False
        """It was done, and only its answer is lost."""
        for method in ("fetch", "fetch_one"):
            monkeypatch.setattr(db, method, self._of(getattr(db, method)))

    def _of(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(name: str, *args: Any, **options: Any) -> Any:
            if name != self.name or not self.faults:
                return await method(name, *args, **options)
            fault = self.faults.pop(0)
            if self.is_stored:
                await method(name, *args, **options)
            raise fault

        return call


@pytest.fixture
def failing(orchestrator: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Failing]:
    return lambda name: Failing(orchestrator.store.db, name, monkeypatch)


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize(
    "name", ["lineage_up", "begin_wait", "results", "end_wait", "continuations", "grant_slots"]
)
async def test_a_parent_goes_on_although_the_database_was_away_for_a_statement(
    orchestrator: Any, crew: Crew, failing: Any, name: str, is_stored: bool
) -> None:
    fault = failing(name)
    fault.faults, fault.is_stored = [DatabaseUnreachable("gone")], is_stored
    await crew.join("a", "parent", does=waiting, slots=1)
    child = Gate("done")
    await crew.join("b", "child", does=child, slots=1)
    handle = await orchestrator.submit(PARENT)
    await child.work()
    child.is_open.set()

    task = await handle.wait(timeout=10)

    assert (task.status, task.result) == ("completed", "done")
    assert not fault.faults
    await until(lambda: not orchestrator.engine.state.roster.members["a"].used)


async def test_a_parent_whose_sub_tasks_end_cannot_be_read_is_told_so(
    orchestrator: Any, crew: Crew, failing: Any, noise: Any
) -> None:
    """Not by silence: nobody would look again."""
    await crew.join("a", "parent", does=waiting, slots=1)
    child = Gate("done")
    await crew.join("b", "child", does=child, slots=1)
    handle = await orchestrator.submit(PARENT)
    await child.work()
    await until(lambda: orchestrator.engine.state.waiting)
    failing("results").faults = [RuntimeError("a fault")]
    child.is_open.set()

    task = await handle.wait(timeout=10)

    assert task.status == "failed"
    assert "a fault" in noise.take()[0]
