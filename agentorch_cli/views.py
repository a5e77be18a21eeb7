"""What the operations answer: the documents that `--json` prints and `/control` sends.

One model per noun that a user sees. Field names are those of the database and of the
help. Times are ISO 8601 in UTC, durations seconds, scores 0..100, loads 0..1.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1
"""Goes up when a field changes its meaning or goes away; new fields do not count."""


class View(BaseModel):
    """A document that is shown."""

    model_config = ConfigDict(extra="ignore")


class AgentView(View):
    """One agent of the fleet."""

    agent_id: str
    type: str
    capabilities: list[str] = Field(default_factory=list)
    status: str
    """`online`, `offline`, `draining` or `paused`."""
    slots: int = 1
    busy: int = 0
    """Slots that hold work now."""
    load: float = 0.0
    """busy / slots."""
    performance_score: float = 100.0
    completed: int = 0
    failed: int = 0
    success_rate: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    node_id: str | None = None
    exec: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    last_heartbeat: datetime | None = None
    created_at: datetime | None = None
    working_on: list[str] = Field(default_factory=list)
    """Ids of the tasks that it holds; filled by `agent show`."""


class LimitView(View):
    """How many attempts of a type, of a capability or by an agent may start in a while."""

    scope: str
    """`agent`, `capability` or `type`."""
    name: str
    rate: str
    """As it is written: `10/m`."""
    number: int
    per_seconds: float
    burst: int
    """How many may start at once after a pause."""
    level: float
    """How many could start now; below 0 after a start of several at once."""
    created_at: datetime


class AttemptView(View):
    """One delivery of a task to one agent."""

    message_id: str
    agent_id: str
    attempt: int
    status: str
    role: str | None = None
    node_id: str | None = None
    progress: float | None = None
    note: str | None = None
    sent_at: datetime | None = None
    accepted_at: datetime | None = None
    finished_at: datetime | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    confidence: float | None = None
    usage: dict[str, Any] | None = None


class EventView(View):
    """One transition, as the log keeps it."""

    cursor: str
    at: datetime
    kind: str
    task_id: str | None = None
    agent_id: str | None = None
    message_id: str | None = None
    node_id: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class DecisionView(View):
    """How a vote came out, and what made it."""

    decision_id: str
    task_id: str | None = None
    topic: str
    status: Literal["pending", "reached", "failed"]
    consensus_reached: bool = False
    rule: str
    threshold: float | None = None
    electorate: int
    needed: int | None = None
    """Equal votes that decide."""
    final_decision: Any = None
    votes: list[dict[str, Any]] = Field(default_factory=list)
    votes_used: int = 0
    votes_not_asked: int = 0
    margin: float | None = None
    confidence: float | None = None
    confidence_basis: str | None = None
    decided_by: str | None = None
    dissent: list[dict[str, Any]] = Field(default_factory=list)
    """Who gave another answer than the leading one, and which."""
    created_at: datetime | None = None
    decided_at: datetime | None = None
    question: Any = None
    """Of a proposal."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The rule's options, as they were given."""
    capability: str | None = None
    """Whose reliabilities counted."""
    voters: list[dict[str, Any]] = Field(default_factory=list)
    """The frozen electorate: agent_id, reliability, estimate, performance."""
    lost_agents: list[str] = Field(default_factory=list)
    late_votes: list[dict[str, Any]] = Field(default_factory=list)
    """Answers that came after the decision: kept, not counted."""
    counts: dict[str, int] = Field(default_factory=dict)
    """Votes per canonical answer; empty while the vote is open."""
    stage: str = "vote"
    escalation: list[dict[str, Any]] = Field(default_factory=list)
    """What was done because there was no agreement, step by step."""
    compared: list[Any] = Field(default_factory=list)
    answer: str | None = None
    """The leading answer in its canonical form, reached or not."""
    raw_confidence: float | None = None
    """The rule's own, before calibration."""
    deadline: datetime | None = None
    opened_by: str | None = None
    closed_by: str | None = None
    verified: bool | None = None
    """Whether the decision is known to be right; None where nobody has said."""


class HistoryView(View):
    """Stored votes, in the form that a replay reads."""

    labels: list[dict[str, str]] = Field(default_factory=list)
    truth: list[dict[str, str]] = Field(default_factory=list)


class VoteView(View):
    """A vote that was taken."""

    decision_id: str
    agent_id: str
    status: str
    """`answered` or `abstained`."""
    is_closed: bool = False
    """It was the one that decided."""


class OutcomeView(View):
    """What a verified outcome did."""

    task_id: str
    capability: str
    is_right: bool | None = None
    credited: int = 0
    """Agents whose reliability changed."""
    verified: int = 0
    """Verified outcomes of the capability by now."""
    calibrated: int = 0
    """Outcomes behind its calibrated confidence; 0 while there are too few."""


class ReliabilityView(View):
    """How often an agent is right in one capability."""

    agent_id: str
    capability: str
    estimate: float
    successes: float = 0.0
    trials: float = 0.0
    verified_successes: float = 0.0
    verified_trials: float = 0.0
    inferred: float | None = None


class TaskView(View):
    """One task; `task show` fills what is below `assigned_agents` too."""

    task_id: str
    name: str | None = None
    type: str
    status: str
    """`blocked`, `pending`, `running`, `completed`, `failed`, `cancelled` or `skipped`."""
    priority: int = 5
    required_capabilities: list[str] = Field(default_factory=list)
    depends_on: list[str] = Field(default_factory=list)
    waiting_on: int = 0
    """Dependencies that are not done yet."""
    attempts_made: int = 0
    failures: int = 0
    assigned_agents: list[str] = Field(default_factory=list)
    progress: float | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    run_at: datetime | None = None
    deadline: datetime | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    submission_id: str | None = None
    parent_id: str | None = None
    idempotency_key: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    data: Any = None
    options: dict[str, Any] = Field(default_factory=dict)
    attempts: list[AttemptView] = Field(default_factory=list)
    events: list[EventView] = Field(default_factory=list)
    decision: DecisionView | None = None


class NodeView(View):
    """One `serve` process."""

    node_id: str
    host: str
    port: int | None = None
    pid: int
    version: str
    is_leader: bool = False
    is_live: bool = True
    agents: int = 0
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None


class SubmittedTask(View):
    """One task of a submission, as it was stored."""

    task_id: str
    name: str | None = None
    status: str
    is_new: bool = True
    """False where the idempotency key was known: the task that had it is named instead."""


class SubmitReply(View):
    """What a submission became."""

    submission_id: str | None = None
    tasks: list[SubmittedTask] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    """For instance: no registered agent has a capability that is asked for."""


class ChangeReply(View):
    """What a change of several things did, thing by thing."""

    changed: list[str] = Field(default_factory=list)
    unchanged: dict[str, str] = Field(default_factory=dict)
    """Id to the reason why nothing was done."""


class ScheduleView(View):
    """Tasks that are submitted again and again; `schedule show` fills `upcoming` and `tasks` too."""

    name: str
    cron: str
    time_zone: str = "UTC"
    state: str
    """`active`, `paused`, `failing` (see `error`; it is tried again) or `ended` (no time comes any more)."""
    missed: str = "once"
    """What becomes of runs that nobody could start: `skip`, `once` or `all`."""
    overlap: str = "allow"
    """`skip`: no run while tasks of the last one are open."""
    next_at: datetime | None = None
    retry_at: datetime | None = None
    error: str | None = None
    """Why it cannot run."""
    last_at: datetime | None = None
    """The time that its last run was for."""
    last_submission_id: str | None = None
    last_tasks: list[str] = Field(default_factory=list)
    runs: int = 0
    skipped: int = 0
    created_at: datetime
    updated_at: datetime
    upcoming: list[datetime] = Field(default_factory=list)
    tasks: list[Any] = Field(default_factory=list)
    """As the task file said them."""


class PlanView(View):
    """What the registered fleet could make of a submission."""

    missing: list[str] = Field(default_factory=list)
    """Dependencies that are neither in the submission nor stored."""
    agents: dict[str, list[str]] = Field(default_factory=dict)
    """By task: the agents that could take it, online or not."""
    never: dict[str, str] = Field(default_factory=dict)
    """By task that cannot run with this fleet: why not."""


class WhyLink(View):
    """One reason for a wait, and how long it has held."""

    task_id: str
    depth: int = 0
    """0 for the task that was asked about; what it waits for is one deeper."""
    code: str
    sentence: str
    seconds: float | None = None
    agents: dict[str, str | None] = Field(default_factory=dict)
    """Agent by agent, why not; null for those that could."""


class WhyView(View):
    """Why a task waits."""

    task_id: str
    status: str
    is_clear: bool
    """Nothing stands in the way."""
    links: list[WhyLink] = Field(default_factory=list)


class DeadlockFinding(View):
    """What is wrong with some tasks."""

    kind: str
    """`unsatisfiable`, `missing_dependency`, `failed_dependency`, `circular_dependency`, `hold_and_wait`
    or `timeout`."""
    members: list[str]
    """In the order of the cycle, where there is one: each waits for the next, the last for the first."""
    edges: list[dict[str, Any]] = Field(default_factory=list)
    """Of the cycle: `task`, `on`, `agent`, `reason`."""
    reason: str
    waited_s: float = 0.0
    victims: list[str] = Field(default_factory=list)
    cost: dict[str, Any] = Field(default_factory=dict)
    """What ending the victims loses."""


class DeadlockView(DeadlockFinding):
    """A deadlock as it was recorded."""

    deadlock_id: str
    resolution: str | None = None
    resolved_by: str | None = None
    """`monitor`, or a person; None where it dissolved by itself."""
    node_id: str | None = None
    detected_at: datetime
    resolved_at: datetime | None = None


class DeadlockStep(DeadlockFinding):
    """What is to be done, or was done, about a deadlock."""

    act: str
    """`park`, `lend`, `requeue`, `fail` or `forget`."""
    step: str
    is_done: bool = False
    """False for a dry run, and where the world had moved on."""


class DeadlockCheck(View):
    """Everything that cannot move now."""

    stuck: list[str] = Field(default_factory=list)
    components: list[list[str]] = Field(default_factory=list)
    kind: dict[str, str] = Field(default_factory=dict)
    cycles: list[list[str]] = Field(default_factory=list)
    victims: list[str] = Field(default_factory=list)
    found: list[DeadlockFinding] = Field(default_factory=list)


class SchemaView(View):
    """The state of the schema."""

    current: int | None
    """None where there is no schema yet."""
    wanted: int
    applied: list[str] = Field(default_factory=list)
    """Names of the migrations that this call applied."""
    is_up_to_date: bool = False


class StatusView(View):
    """The fleet in one document."""

    at: datetime
    nodes: list[NodeView] = Field(default_factory=list)
    agents: list[AgentView] = Field(default_factory=list)
    agent_counts: dict[str, int] = Field(default_factory=dict)
    task_counts: dict[str, int] = Field(default_factory=dict)
    running: list[TaskView] = Field(default_factory=list)
    recent: list[TaskView] = Field(default_factory=list)
    """Tasks that ended last, newest first."""
    oldest_pending_seconds: float | None = None
    decisions: list[DecisionView] = Field(default_factory=list)
    alarms: list[str] = Field(default_factory=list)
    """Sentences, for instance that no serve is running, or that nobody can do a pending task."""
