"""The ledger in the tables: written in sets, read as evidence.

Everything in it fades, by time on the database's clock and, where it is evidence, with each further
outcome; see `core/ledger.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from agentorch_cli.core.ledger import OUTCOME_DECAY, Evidence
from agentorch_cli.core.reliability import Record
from agentorch_cli.store.database import Transaction
from agentorch_cli.store.store import Store

MOST_ROWS = 64
"""Rows that an agent keeps beside the one for everything it did."""

OVERLAP = timedelta(seconds=30)
"""How far a look at what is new reaches back: a row says when it was written, not when it was committed."""

IN_TIME = Record(1.0, 1.0)
"""What a completed attempt says of its agent while nobody knows better."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What an agent finished in one skill and task type, or (both empty) in all of them."""

    agent_id: str
    skill: str
    task_type: str
    completed: int
    failed: int
    lost: int
    cost_usd: float
    tokens: int
    cost_unknown: int
    tokens_unknown: int
    latency: Mapping[int, int]
    """Of the completed ones, by bucket."""
    rights: float
    trials: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Line:
    """What one row of the ledger says of an agent now."""

    agent_id: str
    skill: str
    task_type: str
    evidence: Evidence


async def keep_accounts(store: Store, entries: Sequence[Entry]) -> None:
    """Add what was finished to the ledger and to the present minute, in one statement."""
    await store.db.fetch(
        "keep_accounts",
        [e.agent_id for e in entries],
        [e.skill for e in entries],
        [e.task_type for e in entries],
        [e.completed for e in entries],
        [e.failed for e in entries],
        [e.lost for e in entries],
        [e.cost_usd for e in entries],
        [e.tokens for e in entries],
        [e.cost_unknown for e in entries],
        [e.tokens_unknown for e in entries],
        [_literal(e.latency) for e in entries],
        [e.rights for e in entries],
        [e.trials for e in entries],
        [e.seconds for e in entries],
        store.half_life_seconds,
        1.0 - OUTCOME_DECAY,
    )


async def credit(
    tx: Transaction,
    store: Store,
    task_id: str,
    skill: str,
    earned: Mapping[str, Record],
    *,
    is_outcome: bool,
) -> None:
    """What a vote or a verified outcome says of agents: one more outcome, or the correction of one."""
    agents = sorted(earned)
    if agents:
        await tx.fetch(
            "credit_ledger",
            task_id,
            skill,
            agents,
            [earned[agent].successes for agent in agents],
            [earned[agent].trials for agent in agents],
            OUTCOME_DECAY if is_outcome else 1.0,
            store.half_life_seconds,
        )


async def reckon(store: Store) -> int:
    """Bring the scores in the registry up to date; how many agents finished something in the last hour."""
    row = await store.db.fetch_one("reckon_hour")
    await store.db.fetch("trim_ledger", MOST_ROWS)
    assert row is not None  # a count has one row
    return int(row["active"])


async def evidence_of_all(store: Store) -> tuple[list[Line], datetime | None]:
    """Everything that the ledger says, and the moment from which to ask `evidence_since`."""
    return _lines(await store.db.fetch("ledger", store.half_life_seconds))


async def evidence_since(store: Store, moment: datetime) -> tuple[list[Line], datetime | None]:
    """The rows that were written since; some that were known may be among them. No moment: nothing is new."""
    return _lines(await store.db.fetch("ledger_since", store.half_life_seconds, moment))


def _lines(rows: Sequence[asyncpg.Record]) -> tuple[list[Line], datetime | None]:
    lines = [
        Line(row["agent_id"], row["skill"], row["task_type"], evidence_of(row["rights"], row["trials"]))
        for row in rows
    ]
    return lines, rows[0]["now"] - OVERLAP if rows else None


def evidence_of(rights: float, trials: float) -> Evidence:
    """Evidence from a row, which may have taken back more than it had."""
    trials = max(0.0, trials)
    return Evidence(min(max(0.0, rights), trials), trials)


def _literal(histogram: Mapping[int, int]) -> str:
    """An array literal of a histogram, as far as its last bucket that is not empty."""
    buckets = range(max(histogram, default=-1) + 1)
    return "{" + ",".join([str(histogram.get(bucket, 0)) for bucket in buckets]) + "}"
