"""Every statement that a workload needs fails once, in each of three ways; nothing comes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from faulty import MODES, Faulty
from inside import Inside, inside, some_of_each
from long import long_only

from agentorch_cli import Orchestrator
from agentorch_cli.errors import DatabaseUnreachable
from tests.conftest import EMPTY, quick_settings

HOT = (
    "insert_tasks",
    "insert_task",
    "ready_tasks_by_id",
    "assign_batch",
    "accept_attempts",
    "settle_batch",
    "settle_and_unlock",
    "unlock_dependents",
    "doom_dependents",
    "skip_dependents",
)
AROUND = {"exec_agents", "leave"}
"""Asked for before the fault is armed, or when all is over."""

SHORT = (
    *((name, "stored") for name in HOT),
    ("settle_batch", "undone"),
    ("cancel_tasks", "stored"),
    ("lock_tasks", "before"),
    ("settle_tasks", "undone"),
    ("close_decision", "stored"),
    ("results", "before"),
    ("end_wait", "stored"),
    ("grant_slots", "stored"),
    ("lineage_up", "before"),
    ("connect_agent", "stored"),
    ("held_work", "before"),
)


async def run_through(url: str, name: str | None = None, mode: str = "") -> tuple[Faulty, Inside]:
    """Tasks of every kind while agents come and go, with one statement that fails once."""
    async with Orchestrator(quick_settings(url)) as orchestrator:
        faulty = Faulty(orchestrator.store.db)
        if name is not None:
            faulty.arm(name, mode)
        async with inside(url, orchestrator.url) as crew:
            disagreement, race = disagreed()
            await crew.submit(orchestrator, [race])  # while all are free
            batch = [*some_of_each(1), disagreement]
            ids = await crew.submit(orchestrator, batch)
            later = some_of_each(2, "chain")
            for task in later:
                task["name"] = task["idempotency_key"] = f"later-{task['name']}"
                task["depends_on"] = [f"later-{one}" for one in task["depends_on"]] or [ids[0]]
            await crew.submit(orchestrator, later)
            await surely(orchestrator, "task.cancel", task_ids=[ids[number_of(batch, "cancel")]])
            await surely(
                orchestrator,
                "consensus.open",
                topic="go?",
                options={"rule": "majority", "options": ["yes", "no"]},
                voters=sorted(crew.agents)[:3],
            )
            for session in list(orchestrator._gateway.sessions.values())[:2]:
                session.connection.transport.abort()
            await crew.until_over()
            await asyncio.sleep(0.05)  # the last acks
            return faulty, crew


def disagreed() -> list[dict[str, Any]]:
    """A vote in which nobody agrees and more are asked, and a race in which the slower are called off."""
    vote, race = some_of_each(3, "vote")[0], some_of_each(4, "team")[0]
    rules = {"rule": "majority", "panel": 2, "cap": 4, "vote_on": "/by", "on_no_consensus": "escalate"}
    some = {"min_agents": 1, "max_agents": 4, "aggregate": "first", "data": {"spread": 500, "salt": 1}}
    return [
        vote | {"name": "escalated", "idempotency_key": "escalated", "consensus": rules},
        race | some | {"name": "race", "idempotency_key": "race"},
    ]


def number_of(batch: list[dict[str, Any]], label: str) -> int:
    return next(number for number, task in enumerate(batch) if label in task.get("labels", {}))


async def surely(orchestrator: Orchestrator, method: str, **parameters: Any) -> None:
    """As a person does: once more where the answer was that the database is away."""
    try:
        await orchestrator.call(method, **parameters)
    except DatabaseUnreachable:
        await orchestrator.call(method, **parameters)


@pytest.mark.parametrize(("name", "mode"), SHORT)
async def test_nothing_comes_of_a_statement_that_fails_once(name: str, mode: str, database_url: str) -> None:
    faulty, crew = await run_through(database_url, name, mode)

    assert faulty.hits == 1, f"{name} was not asked for: {sorted(faulty.seen)}"
    assert await crew.faults() == {}


@long_only
async def test_nothing_comes_of_any_statement_that_fails_once(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that the workload asks for, as it turns out when nothing fails."""
    faulty, crew = await run_through(database_url)
    assert await crew.faults() == {}

    wrong, missed = [], []
    points = [(name, mode) for name in sorted(faulty.seen.keys() - AROUND) for mode in MODES]
    for name, mode in points:
        await emptied(database_url)
        try:
            faulty, crew = await run_through(database_url, name, mode)
            found: object = await crew.faults()
        except TimeoutError as error:
            found = error
        if found:
            wrong.append(f"{name}, {mode}: {found}")
        if not faulty.hits:
            missed.append(f"{name}, {mode}")
    with capsys.disabled():
        print(f"\n{len(points)} points, {len(missed)} not reached: {missed}")

    assert not wrong


async def emptied(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(EMPTY)
    await connection.close()
