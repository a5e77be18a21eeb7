"""What the store hands to the engine, and what it takes from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from agentorch_cli.core.model import DEFAULT_POOL, AttemptStatus, Coverage, TaskStatus

Row = asyncpg.Record | dict[str, Any]
"""A ready task as a statement answers it, or as a hint holds it."""


@dataclass(slots=True, eq=False)
class Delivery:
    """One attempt on its way to an agent, with what is needed to send and to settle it."""

    message_id: str
    task_id: str
    agent_id: str
    attempt: int
    slot: int
    role: str | None
    node_id: str
    type: str
    priority: int
    required_capabilities: list[str]
    timeout_seconds: float
    retries: int
    failures: int
    losses: int
    backoff_seconds: float
    max_backoff_seconds: float
    has_retry_rules: bool
    """Some error codes have rules of their own: failures are settled with all attempts in sight."""
    is_simple: bool
    """One agent, no vote, first attempt result stands: settled without reading the task again."""
    has_dependents: bool
    pool: str = DEFAULT_POOL
    """Its task's: whoever leads that is told when the slot comes free."""
    data: str | None = None
    """The task's data as JSON text."""
    inputs: str | None = None
    """The results of its dependencies, as JSON text of an object."""
    name: str | None = None
    result_schema: str | None = None
    """What its result has to fit, as JSON text; None where any JSON will do."""
    vote: dict[str, Any] | None = None
    """Where the result is a ballot: what the wire says about it."""
    budget: dict[str, Any] | None = None
    """What it may use, as its agent is told: `costUsd`, `tokens`."""
    traceparent: str | None = None
    """The span that its task is a part of."""
    traceparent_told: str | None = None
    """What its agent is told: the attempt's own span where there are traces, else that of the task."""
    deadline: datetime | None = None
    """When the attempt is taken away, on the database's clock: its timeout, or the task's deadline."""
    is_accepted: bool = False
    is_ahead: bool = False
    """Beyond the slots of its agent, which has not begun it."""
    is_parked: bool = False
    """It waits for its sub-tasks and owns no slot meanwhile."""
    is_waiting: bool = False
    """It waits for its sub-tasks, with or without a slot."""
    is_probe: bool = False
    """It shows how its agent is, which was excluded for its failures."""
    estimate: float | None = None
    """Seconds that it is expected to take, if its task says so."""
    seconds_since_sent: float = 0.0
    seconds_since_accepted: float | None = None
    begun: float = 0.0
    """When it was accepted, or else sent, on the loop's clock."""
    due: float = 0.0
    """When it is overdue, on the loop's clock: without a slot for too long, not accepted in time, or running
    too long."""

    @property
    def is_ballot(self) -> bool:
        """Its result counts in a vote; a judge's stands for itself."""
        return self.vote is not None and self.role != "judge"


@dataclass(slots=True)
class Assignment:
    """One seat of a task, to be committed."""

    task_id: str
    seen_attempts: int
    message_id: str
    agent_id: str
    slot: int
    role: str | None
    attempt: int
    node_id: str
    is_ahead: bool = False
    """Its agent has no slot for it yet."""
    is_funded: bool = False
    """Something is reserved for it on a budget."""
    budget: dict[str, Any] | None = None
    """What its agent is told that it may use: `costUsd`, `tokens`."""


@dataclass(slots=True)
class Claimed:
    """What came back for a task that was assigned."""

    data: str | None
    inputs: str | None
    deadline: datetime | None
    now: datetime
    name: str | None
    waited: float
    """Seconds since it became ready."""


@dataclass(slots=True)
class Ending:
    """The end of a simple attempt and what it means for its task."""

    message_id: str
    task_id: str
    agent_id: str
    attempt_status: AttemptStatus
    verdict: TaskStatus
    result: str | None = None
    error: str | None = None
    confidence: float | None = None
    usage: str | None = None
    delay_seconds: float = 0.0
    mark: str | None = None
    """How it went, for another node that counts on its slot; None where none does."""


@dataclass(slots=True)
class Ended:
    """What the database made of an ending."""

    status: str
    """The task's new status."""
    has_dependents: bool
    """Somebody waits for the task, and has not been told."""


@dataclass(slots=True)
class Unlocked:
    """What became of the dependents of tasks that ended."""

    rows: list[asyncpg.Record] = field(default_factory=list)
    """Those that are ready, as the scheduler reads them."""
    delayed: bool = False
    ended: list[tuple[str, str]] = field(default_factory=list)
    """Dependents that failed or were skipped in turn, each with that status."""

    def take(self, rows: Iterable[asyncpg.Record]) -> None:
        """What a statement answered: some are ready now, some will be later."""
        for row in rows:
            if row["is_delayed"]:
                self.delayed = True
            else:
                self.rows.append(row)

    @property
    def ready(self) -> list[str]:
        """The ids of those that are ready."""
        return [row["task_id"] for row in self.rows]


@dataclass(slots=True)
class LockedTask:
    """A task under lock, as `core.settle` needs it."""

    task_id: str
    type: str
    status: TaskStatus
    generation: int
    min_agents: int
    max_agents: int
    retries: int
    failures: int
    losses: int
    attempts_made: int
    tried_agents: list[str]
    assigned_agents: list[str]
    has_dependents: bool
    options: dict[str, Any]
    required_capabilities: list[str] = field(default_factory=list)
    is_starved: bool = False
    """It has been ready for longer than its `queue_timeout`."""
    coverage: Coverage = Coverage.EACH
    pool: str = DEFAULT_POOL

    @property
    def shared_out(self) -> frozenset[str]:
        """The capabilities that a team shares out; none where each agent has all."""
        return frozenset(self.required_capabilities) if self.coverage is Coverage.TEAM else frozenset()


@dataclass(slots=True)
class AttemptRow:
    """One attempt as it is stored."""

    message_id: str
    task_id: str
    agent_id: str
    attempt: int
    status: AttemptStatus
    slot: int
    node_id: str
    result: str | None
    error: dict[str, Any] | None
    confidence: float | None
    seconds: float | None
    role: str | None = None
