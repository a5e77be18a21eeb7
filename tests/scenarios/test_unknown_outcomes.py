"""A write that reports a failure may have been stored all the same: nothing is lost or done twice by that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agentorch_cli import Agent, Orchestrator, Work
from agentorch_cli.errors import DatabaseUnreachable

Submit = Callable[..., Awaitable[str]]
Outcome = Callable[..., Awaitable[Any]]


@pytest.fixture
async def agent(orchestrator: Orchestrator) -> AsyncIterator[Agent]:
    """One slot; remembers in its metadata what it was given."""
    one = Agent("doer", capabilities=("do",))
    one.metadata["given"] = []

    @one.handler(inline=True)
    def do(work: Work) -> int:
        if work.data == "fail once" and work.attempt == 1:
            raise ValueError("the first time it fails")
        one.metadata["given"].append(work.message_id)
        return work.attempt

    stop = asyncio.Event()
    running = asyncio.create_task(one.run(orchestrator.url, stop=stop))
    while "doer" not in orchestrator.engine.state.roster.members:
        await asyncio.sleep(0.01)
    yield one
    stop.set()
    await running


def store_then_fail(orchestrator: Orchestrator, name: str) -> None:
    """The next call of this method of the store does its work, and then says that it did not."""
    store = orchestrator.engine.store
    method = getattr(store, name)

    async def once(*arguments: Any) -> Any:
        setattr(store, name, method)
        await method(*arguments)
        raise DatabaseUnreachable("the connection was lost after the commit")

    setattr(store, name, once)


async def test_an_assignment_that_was_stored_but_not_confirmed_is_sent(
    orchestrator: Orchestrator, agent: Agent, submit: Submit, outcome: Outcome
) -> None:
    store_then_fail(orchestrator, "assign")

    task = await outcome(await submit(required_capabilities=["do"]), 5.0)

    assert (task.status, task.attempts_made, len(agent.metadata["given"])) == ("completed", 1, 1)


async def test_its_slot_is_free_again_afterwards(
    orchestrator: Orchestrator, agent: Agent, submit: Submit, outcome: Outcome
) -> None:
    store_then_fail(orchestrator, "assign")

    tasks = [await outcome(await submit(required_capabilities=["do"]), 5.0) for _ in range(3)]

    assert [task.attempts_made for task in tasks] == [1, 1, 1]
    assert orchestrator.engine.state.roster.members["doer"].used == set()


async def test_a_result_that_was_stored_but_not_confirmed_counts_once_and_unlocks(
    orchestrator: Orchestrator, agent: Agent, outcome: Outcome
) -> None:
    store_then_fail(orchestrator, "settle")

    handles = await orchestrator.submit_all(
        [
            {"name": "first", "required_capabilities": ["do"]},
            {"name": "second", "required_capabilities": ["do"], "depends_on": ["first"]},
        ]
    )

    tasks = [await outcome(handle.task_id, 5.0) for handle in handles]
    assert [(task.status, task.attempts_made) for task in tasks] == [("completed", 1), ("completed", 1)]


async def test_a_retry_that_was_stored_but_not_confirmed_is_made(
    orchestrator: Orchestrator, agent: Agent, submit: Submit, outcome: Outcome
) -> None:
    store_then_fail(orchestrator, "settle")

    task = await outcome(await submit(required_capabilities=["do"], data="fail once", backoff=0.01), 5.0)

    assert (task.status, task.attempts_made, task.result) == ("completed", 2, 2)


async def test_dependents_are_unlocked_though_the_database_was_away_just_then(
    orchestrator: Orchestrator, agent: Agent, outcome: Outcome
) -> None:
    store_then_fail(orchestrator, "unlock")

    handles = await orchestrator.submit_all(
        [
            {"name": "first", "required_capabilities": ["do"]},
            {"name": "second", "required_capabilities": ["do"], "depends_on": ["first"]},
        ]
    )

    assert (await outcome(handles[1].task_id, 5.0)).status == "completed"
