"""What the tables refuse, whoever writes: the rules of tasks and attempts."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from agentorch_cli.store.store import Store

TASK: dict[str, Any] = {"task_id": "task", "task_type": "work", "status": "pending"}
ATTEMPT: dict[str, Any] = {"task_id": "task", "agent_id": "a", "attempt": 1, "slot": 0, "status": "sent"}

WRONG_TASKS = (
    {"task_id": ""},
    {"task_id": "x" * 201},
    {"status": "done"},
    {"pool": ""},
    {"pool": "x" * 201},
    {"idempotency_key": ""},
    {"idempotency_key": "x" * 201},
    {"priority": -1},
    {"priority": 11},
    {"min_agents": 0},
    {"min_agents": 2},
    {"first_wave": 0},
    {"wanted": -1},
    {"waiting_on": -1},
    {"retries": -1},
    {"concurrency_slot": -1},
    {"timeout_seconds": 0},
    {"timeout_seconds": "infinity"},
    {"timeout_seconds": "nan"},
    {"coverage": "some"},
    {"on_dependency_failure": "wait"},
    {"status": "completed"},
    {"completed_at": "now"},
    {"status": "blocked"},
    {"status": "completed", "completed_at": "now", "wanted": 1},
)
WRONG_ATTEMPTS = (
    {"status": "done"},
    {"status": "completed"},
    {"finished_at": "now"},
    {"slot": -1},
    {"attempt": 0},
)


def told(row: dict[str, Any]) -> str:
    return ", ".join(f"{column} = {value}" for column, value in row.items())[:60]


async def put(store: Store, table: str, row: dict[str, Any]) -> None:
    """Insert a row of texts."""
    columns = ", ".join(row)
    values = ", ".join("null" if value is None else f"'{value}'" for value in row.values())
    await store.db.pool.execute(f"insert into {table} ({columns}) values ({values})")


async def change(store: Store, table: str, row: dict[str, Any]) -> None:
    await store.db.pool.execute(
        f"update {table} set " + ", ".join(f"{column} = '{value}'" for column, value in row.items())
    )


@pytest.mark.parametrize("wrong", WRONG_TASKS, ids=told)
async def test_no_such_task_is_stored(store: Store, wrong: dict[str, Any]) -> None:
    right = TASK | {"submission_id": uuid4()}
    with pytest.raises(asyncpg.CheckViolationError):
        await put(store, "task_distributions", right | wrong)
    await put(store, "task_distributions", right)
    with pytest.raises(asyncpg.CheckViolationError):
        await change(store, "task_distributions", wrong)


@pytest.mark.parametrize("wrong", WRONG_ATTEMPTS, ids=told)
async def test_no_such_attempt_is_stored(store: Store, wrong: dict[str, Any]) -> None:
    right = ATTEMPT | {"message_id": uuid4(), "node_id": "node"}
    with pytest.raises(asyncpg.CheckViolationError):
        await put(store, "task_attempts", right | wrong)
    await put(store, "task_attempts", right)
    with pytest.raises(asyncpg.CheckViolationError):
        await change(store, "task_attempts", wrong)


@pytest.mark.parametrize(
    "second",
    [{"status": "failed"}, {"completed_at": "2020-01-01"}, {"status": "pending", "completed_at": None}],
)
async def test_a_task_has_one_outcome_until_it_is_opened_anew(store: Store, second: dict[str, Any]) -> None:
    over = TASK | {"submission_id": uuid4(), "status": "completed", "completed_at": "now"}
    await put(store, "task_distributions", over)
    changes = ", ".join(
        f"{column} = " + ("null" if value is None else f"'{value}'") for column, value in second.items()
    )
    with pytest.raises(asyncpg.PostgresError, match="already has its outcome"):
        await store.db.pool.execute(f"update task_distributions set {changes}")
    await store.db.pool.execute(f"update task_distributions set generation = generation + 1, {changes}")
