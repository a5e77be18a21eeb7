"""The nouns of the fleet: agents, tasks, attempts. Everything else talks about these.

Frozen values; a change is `dataclasses.replace`. Times are `datetime` in UTC as the
database's clock told them; durations are seconds as float.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from agentorch_cli.core.hints import shortened
from agentorch_cli.errors import UsageError

MAX_NAME = 200
"""Longest id, name, type, capability or key, in characters (PostgreSQL index entries end at 2,704 bytes)."""

NAME_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x1f\x7f-\x9f\s][^\x00-\x1f\x7f-\x9f]*$"
"""Of all these, in files and in frames: something can be seen, and nothing is a control character."""

DEFAULT_POOL = "default"
"""Where agents and tasks are that name no pool."""

MAX_PANEL = 100
"""Most agents that one task may ask for at once."""


def check_name(what: str, text: str) -> None:
    """Refuse what may be no id, type, capability or pool of an agent, by the rule of files and frames.

    Raises UsageError.
    """
    if len(text) > MAX_NAME or re.fullmatch(NAME_PATTERN, text) is None:
        raise UsageError(
            f"{shortened(text)!r} is no {what} of an agent",
            hint=f"It has 1 to {MAX_NAME} characters, is not blank, and has no control characters.",
        )


def lease_of(pool: str) -> str:
    """The name of the lease that whoever schedules this pool holds."""
    return "scheduler" if pool == DEFAULT_POOL else f"scheduler:{pool}"


class TaskStatus(StrEnum):
    """Where a task stands; the table of moves is in `core.lifecycle`."""

    BLOCKED = "blocked"
    """Waits for other tasks."""
    PENDING = "pending"
    """Ready, or waiting for its `run_at`: wants agents."""
    RUNNING = "running"
    """Agents hold it, or some of those that it wants have answered."""
    COMPLETED = "completed"
    """Has its result."""
    FAILED = "failed"
    """Has its reason."""
    CANCELLED = "cancelled"
    """Was called off by a person, a parent or a program."""
    SKIPPED = "skipped"
    """Left out, because a dependency failed and it said `on_dependency_failure = "skip"`."""

    @property
    def is_final(self) -> bool:
        """Nothing more happens by itself."""
        return self in FINAL


FINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.SKIPPED})


class AttemptStatus(StrEnum):
    """Where one delivery of a task to one agent stands."""

    SENT = "sent"
    """Committed for the agent; it has not said that it took it."""
    ACCEPTED = "accepted"
    """The agent works on it."""
    COMPLETED = "completed"
    """Brought a result."""
    FAILED = "failed"
    """Brought an error."""
    LOST = "lost"
    """The agent vanished or never accepted. A late result may still count."""
    TIMED_OUT = "timed_out"
    """Ran longer than the task's timeout. A late result may still count."""
    CANCELLED = "cancelled"
    """Called off (the task was cancelled, or decided without it), or given back by who left or declined."""

    @property
    def is_live(self) -> bool:
        """Holds a slot of its agent."""
        return self in LIVE


LIVE = frozenset({AttemptStatus.SENT, AttemptStatus.ACCEPTED})


class AgentStatus(StrEnum):
    """Whether an agent can be given work."""

    ONLINE = "online"
    """Connected to a node."""
    OFFLINE = "offline"
    """Known, not connected."""
    DRAINING = "draining"
    """Finishes what it holds; gets nothing new."""
    PAUSED = "paused"
    """Set aside by a person."""


class Coverage(StrEnum):
    """How several agents cover the required capabilities."""

    EACH = "each"
    """Every chosen agent has all of them."""
    TEAM = "team"
    """Together they have all of them; each is told its role."""


class OnDependencyFailure(StrEnum):
    """What a task does when one that it depends on does not complete."""

    FAIL = "fail"
    RUN = "run"
    SKIP = "skip"


class Aggregate(StrEnum):
    """How the results of several agents become the result of the task."""

    FIRST = "first"
    """The first result stands; agents beyond `min_agents` that are still at it are called off."""
    ALL = "all"
    """Object of agent id to result, of every agent; of a team, of role to result."""
    BEST = "best"
    """The result with the highest confidence, then of the best-scored agent."""
    MERGE = "merge"
    """Objects joined key by key and lists end to end, in order of agent id."""
    MEDIAN = "median"
    """The median of numeric results."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as it was asked for: validated, with ids in place of names."""

    task_id: str
    type: str = "task"
    name: str | None = None
    pool: str = DEFAULT_POOL
    """Only agents of this pool get it, from whoever schedules that."""
    required_capabilities: tuple[str, ...] = ()
    coverage: Coverage = Coverage.EACH
    min_agents: int = 1
    max_agents: int = 1
    priority: int = 5
    depends_on: tuple[str, ...] = ()
    """Ids of tasks: of the same submission, or already stored."""
    dependency_names: dict[str, str] = field(default_factory=dict)
    """Id of a dependency to the name that the file used: the key in `inputs`."""
    on_dependency_failure: OnDependencyFailure = OnDependencyFailure.FAIL
    on_deadlock: str = "resolve"
    """`report`: a deadlock that it takes part in is reported, and left to a person."""
    timeout_seconds: float = 300.0
    queue_timeout_seconds: float | None = None
    """Longest time that it may be ready without being started; None: as long as it takes."""
    estimate_seconds: float | None = None
    """How long an attempt is expected to take; None: as long as those of its type take, if that is known."""
    deadline: datetime | None = None
    deadline_seconds: float | None = None
    """Relative form: counted from acceptance by the database."""
    retries: int = 2
    """How many times a failed or timed-out attempt may be followed by another."""
    backoff_seconds: float = 1.0
    """Wait before the first retry; doubles each time, with jitter, up to `max_backoff_seconds`."""
    max_backoff_seconds: float = 300.0
    retry: dict[str, dict[str, Any]] | None = None
    """By error code, the fields of `core.settle.Retry` as plain JSON."""
    run_at: datetime | None = None
    delay_seconds: float | None = None
    """Relative form of `run_at`: counted from acceptance by the database."""
    idempotency_key: str | None = None
    concurrency_key: str | None = None
    """Tasks with the same key run at most `concurrency_limit` at once."""
    concurrency_limit: int = 1
    aggregate: Aggregate = Aggregate.FIRST
    consensus: dict[str, Any] | None = None
    """Options of `core.consensus`, as plain JSON; None where agents need not agree."""
    budget: dict[str, float] | None = None
    """`cost_usd`, `tokens`: what all attempts may use; `attempt_usd`, `attempt_tokens`: what one may."""
    funded_by: str | None = None
    """The submission whose budget it is charged to: its own, or for a sub-task that of its parent."""
    borrows: str | None = None
    """The parent of a sub-task that spends from the same budgets: what is reserved for that may be used."""
    labels: dict[str, str] = field(default_factory=dict)
    data: Any = None
    result_schema: dict[str, Any] | bool | None = None
    """JSON Schema that every result has to fit; None where any JSON will do."""
    parent_id: str | None = None
    verifies: str | None = None
    """The dependency (by the name that the file used, or its id) whose result this task checks."""
    compares: dict[str, Any] | None = None
    """The two answers of a vote that this task holds against each other."""
    traceparent: str | None = None
    """The span that it is a part of (`core.tracing`)."""
    remaining_path: float = 1.0
    """Length of the longest chain from this task to the end of its graph, itself included."""


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """An agent as it was registered."""

    agent_id: str
    type: str = "worker"
    capabilities: tuple[str, ...] = ()
    slots: int = 1
    metadata: dict[str, Any] = field(default_factory=dict)
    exec: str | None = None
    """Command that `serve` runs for each task of this agent; None for agents that connect by themselves."""
    pool: str | None = None
    """None: the one that it is in already, or the default."""
    prefetch: int = 0
    """Attempts beyond its slots that it is willing to hold until it can begin them."""
