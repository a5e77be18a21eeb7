"""What is left when all is over: the tables, and the journals of everybody who took part.

The statements are this room's own. Everything is read in one snapshot; what happened is put in order by the
number of its event, which does not depend on any clock.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import asyncpg

from agentorch_cli.chaos.journal import Entry, read_folder

TASKS = """
select task_id, name, status, idempotency_key, parent_id, depends_on, on_dependency_failure, min_agents,
  max_agents, wanted, waiting_on, attempts_made, attempts_before, generation, result, error::text as error,
  options::text as options, completed_at
from task_distributions
"""
ATTEMPTS = """
select message_id::text as message_id, task_id, agent_id, attempt, status, slot, role, sent_at, finished_at,
  result, confidence
from task_attempts order by task_id, attempt
"""
EVENTS = """
select event_id, at, kind, task_id, agent_id, message_id::text as message_id, data
from events order by event_id
"""
DECISIONS = """
select decision_id::text as decision_id, task_id, rule, threshold, electorate, needed, status, stage,
  consensus_reached, final_decision, decided_by, participating_agents, lost_agents, votes, votes_used,
  votes_not_asked, voters, options::text as options
from consensus_decisions
"""
BALLOTS = """
select decision_id::text as decision_id, agent_id, status, vote, answer, message_id::text as message_id
from consensus_ballots
"""
EDGES = "select depends_on, task_id from task_dependencies"
AGENTS = "select agent_id, slots + prefetch as slots from agent_registry"
BUDGETS = """
select b.scope, b.key, b.cost_usd, b.tokens, b.spent_usd, b.spent_tokens, b.reserved_usd, b.reserved_tokens,
  b.period,
  exists (
    select from attempt_funding f where f.scope = b.scope and f.key = b.key and f.lender is not null
  ) as is_lent
from budgets b
"""
HAS_BUDGETS = "select to_regclass('budgets') is not null"

Row = Mapping[str, Any]


@dataclass
class Evidence:
    """Rows as they are stored, and journals as they were written."""

    tasks: dict[str, Row]
    attempts: list[Row]
    events: list[Row]
    decisions: list[Row]
    ballots: list[Row]
    edges: list[Row]
    agents: dict[str, int]
    """Slots by agent."""
    budgets: list[Row] | None
    """None where this schema has none."""
    journals: dict[str, list[Entry]] = field(default_factory=dict)

    @cached_property
    def attempts_of(self) -> dict[str, list[Row]]:
        """By task, oldest first."""
        return grouped(self.attempts, "task_id")

    @cached_property
    def attempt(self) -> dict[str, Row]:
        """By message."""
        return {row["message_id"]: row for row in self.attempts}

    @cached_property
    def story_of(self) -> dict[str, list[Row]]:
        """The events of each task, in order."""
        return grouped((row for row in self.events if row["task_id"] is not None), "task_id")

    @cached_property
    def children_of(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for task_id, task in self.tasks.items():
            if task["parent_id"] is not None:
                found[task["parent_id"]].append(task_id)
        return dict(found)

    @cached_property
    def decisions_of(self) -> dict[str, list[Row]]:
        """By task."""
        return grouped(self.decisions, "task_id")

    def told(self, *kinds: str) -> Iterable[tuple[str, Entry]]:
        """Who wrote which entry of these kinds."""
        for name, entries in self.journals.items():
            for entry in entries:
                if entry["what"] in kinds:
                    yield name, entry

    @cached_property
    def results(self) -> dict[str, list[Entry]]:
        """What agents were about to send, by message."""
        found: dict[str, list[Entry]] = defaultdict(list)
        for name, entry in self.told("result"):
            found[entry["message"]].append({**entry, "agent": name})
        return dict(found)


async def gather(connection: asyncpg.Connection, journals: Path | Mapping[str, list[Entry]]) -> Evidence:
    """Read everything there is."""

    async def rows(statement: str) -> list[Row]:
        return cast("list[Row]", await connection.fetch(statement))

    is_frozen = connection.is_in_transaction()
    async with nullcontext() if is_frozen else connection.transaction(isolation="repeatable_read"):
        has_budgets = await connection.fetchval(HAS_BUDGETS)
        return Evidence(
            tasks={row["task_id"]: row for row in await rows(TASKS)},
            attempts=await rows(ATTEMPTS),
            events=await rows(EVENTS),
            decisions=await rows(DECISIONS),
            ballots=await rows(BALLOTS),
            edges=await rows(EDGES),
            agents={row["agent_id"]: row["slots"] for row in await rows(AGENTS)},
            budgets=await rows(BUDGETS) if has_budgets else None,
            journals=read_folder(journals) if isinstance(journals, Path) else dict(journals),
        )


def grouped(rows: Iterable[Row], key: str) -> dict[str, list[Row]]:
    """Rows by one of their columns, in their order."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[key]].append(row)
    return dict(found)


def options_of(row: Row) -> dict[str, Any]:
    """The `options` column as an object."""
    found = json.loads(row["options"] or "{}")
    return found if isinstance(found, dict) else {}


def seconds(at: datetime) -> float:
    """A moment on the database's clock as a number."""
    return at.timestamp()
