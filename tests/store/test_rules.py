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
    {"status": "failed"},
    {"status": "cancelled"},
    {"status": "skipped"},
    {"status": "running", "completed_at": "now"},
    {"status": "blocked", "waiting_on": 1, "completed_at": "now"},
    {"status": "blocked", "waiting_on": 1, "wanted": 1},
    {"status": "completed", "completed_at": "now", "wanted": 1},
    {"status": "failed", "completed_at": "now", "wanted": 1},
)
WRONG_ATTEMPTS = (
    {"status": "done"},
    {"status": "completed"},
    {"status": "failed"},
    {"status": "lost"},
    {"status": "timed_out"},
    {"status": "cancelled"},
    {"finished_at": "now"},
    {"status": "accepted", "finished_at": "now"},
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
    ("table", "wrong", "rule"),
    [
        ("task_distributions", {"task_id": ""}, "task_distributions_task_id_check"),
        ("task_distributions", {"status": "done"}, "task_distributions_status_check"),
        ("task_distributions", {"completed_at": "now"}, "task_final_has_time"),
        ("task_distributions", {"status": "blocked"}, "task_blocked_waits"),
        (
            "task_distributions",
            {"status": "blocked", "waiting_on": 1, "wanted": 1},
            "task_wants_only_while_open",
        ),
        ("task_distributions", {"min_agents": 2}, "task_agents_in_order"),
        ("task_attempts", {"status": "done", "finished_at": "now"}, "task_attempts_status_check"),
        ("task_attempts", {"finished_at": "now"}, "attempt_live_is_open"),
    ],
)
async def test_who_breaks_a_rule_is_told_its_name(
    store: Store, table: str, wrong: dict[str, Any], rule: str
) -> None:
    right = {
        "task_distributions": TASK | {"submission_id": uuid4()},
        "task_attempts": ATTEMPT | {"message_id": uuid4(), "node_id": "node"},
    }

    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await put(store, table, right[table] | wrong)

    assert refused.value.constraint_name == rule


FINAL = ("completed", "failed", "cancelled", "skipped")
OTHER_OUTCOMES: tuple[dict[str, Any], ...] = (
    *({"status": status} for status in FINAL),
    *({"status": status, "completed_at": "2020-01-01"} for status in FINAL),
    {"completed_at": "2020-01-01"},
    {"status": "pending", "completed_at": None},
    {"status": "running", "completed_at": None, "wanted": 1},
    {"status": "blocked", "completed_at": None, "waiting_on": 1},
)


def settings_of(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{column} = " + ("null" if value is None else f"'{value}'") for column, value in row.items()
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [(first, second) for first in FINAL for second in OTHER_OUTCOMES if second != {"status": first}],
)
async def test_a_task_has_one_outcome_until_it_is_opened_anew(
    store: Store, first: str, second: dict[str, Any]
) -> None:
    over = TASK | {"submission_id": uuid4(), "status": first, "completed_at": "now"}
    await put(store, "task_distributions", over)
    changes = settings_of(second)

    with pytest.raises(asyncpg.PostgresError, match="already has its outcome") as refused:
        await store.db.pool.execute(f"update task_distributions set {changes}")

    assert refused.value.sqlstate == "AO001"
    await store.db.pool.execute(f"update task_distributions set generation = generation + 1, {changes}")


@pytest.mark.parametrize("status", FINAL)
async def test_what_has_its_outcome_may_change_beside_it(store: Store, status: str) -> None:
    over = TASK | {"submission_id": uuid4(), "status": status, "completed_at": "now"}
    await put(store, "task_distributions", over)

    await store.db.pool.execute(
        "update task_distributions set has_dependents = true, status = status, completed_at = completed_at"
    )

    assert await store.db.pool.fetchval("select has_dependents from task_distributions")
