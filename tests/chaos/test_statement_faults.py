"""Every statement that a workload needs fails once, in each of three ways; nothing comes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from faulty import MODES, Faulty
from inside import Inside, inside, some_of_each
from long import IS_LONG

from agentorch_cli import Orchestrator
from agentorch_cli.errors import DatabaseUnreachable
from tests.conftest import quick_settings

HOT = (
    "insert_tasks",
    "ready_tasks_by_id",
    "assign_batch",
    "accept_attempts",
    "settle_batch",
    "unlock_dependents",
    "doom_dependents",
    "skip_dependents",
)
CAREFUL = (
    "attempts_of_tasks",
    "beat",
    "begin_wait",
    "calibration",
    "cancel_tasks",
    "capability_sets",
    "cast_ballots",
    "close_decision",
    "connect_agent",
    "continuations",
    "count_children",
    "credit_agents",
    "disconnect_agents",
    "electorates",
    "end_wait",
    "finish_attempts",
    "give_up_attempts",
    "grant_slots",
    "held_work",
    "known_keys",
    "lineage_down",
    "lineage_up",
    "lock_decision",
    "lock_election",
    "lock_tasks",
    "log_events",
    "mark_depended_on",
    "notify",
    "open_decision",
    "open_proposal",
    "open_proposals",
    "ready_tasks",
    "release_delayed",
    "reliabilities",
    "results",
    "settle_tasks",
    "show_ballots",
    "sweep",
    "tasks_of_messages",
    "tell_done",
    "weigh_ballots",
    "widen_electorate",
)
AROUND = {
    "absent_voters", "decision_of", "endings_of", "exec_agents", "idle_votes", "leave", "missed_endings",
    "overdue_attempts", "overdue_proposals", "roster", "show_decisions",
}  # fmt: skip
"""Asked for before the fault is armed, when all is over, or only where something takes long."""

SHORT = (
    *((name, "stored") for name in HOT),
    ("settle_batch", "undone"),
    ("cancel_tasks", "stored"),
    ("lock_tasks", "before"),
    ("settle_tasks", "undone"),
    ("close_decision", "stored"),
    ("end_wait", "stored"),
    ("lineage_up", "before"),
    ("connect_agent", "stored"),
    ("held_work", "before"),
)
POINTS = [(name, mode) for name in (*HOT, *CAREFUL) for mode in MODES] if IS_LONG else SHORT


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


@pytest.mark.parametrize(("name", "mode"), POINTS)
async def test_nothing_comes_of_a_statement_that_fails_once(name: str, mode: str, database_url: str) -> None:
    faulty, crew = await run_through(database_url, name, mode)

    assert faulty.hits == 1, f"{name} was not asked for: {sorted(faulty.seen)}"
    assert await crew.faults() == {}


async def test_the_sweep_knows_every_statement_of_its_workload(database_url: str) -> None:
    """But for what is asked before the fault is armed, and when all is over."""
    faulty, crew = await run_through(database_url)

    assert set(faulty.seen) - {*HOT, *CAREFUL} <= AROUND
    assert await crew.faults() == {}
