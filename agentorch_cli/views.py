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

    model_config = ConfigDict(extra="ignore", defer_build=True)


class LedgerView(View):
    """What the ledger says of an agent at one kind of work; the counts fade, so they are no whole numbers."""

    skill: str
    """What the tasks required: `any` for nothing, else names joined by `+`; empty for everything."""
    task_type: str
    """Empty for everything."""
    completed: float
    failed: float
    """Timed out is failed."""
    lost: float
    success_rate: float | None = None
    right: float
    """How often its work is right, 0..1: verified, by agreement in votes, or else completed in time."""
    trials: float
    """How many outcomes that rests on; a verified one counts for three."""
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    cost_usd: float | None = None
    """Of the attempts that said it; None where none did."""
    cost_unknown: float
    """Attempts that did not say what they cost."""
    tokens: float | None = None
    tokens_unknown: float
    updated_at: datetime


class TrendView(View):
    """What an agent finished in five minutes."""

    minutes_ago: int
    """When the five minutes began; the newest ones are not over yet."""
    completed: int = 0
    failed: int = 0
    """Lost ones among them."""


class AgentView(View):
    """One agent of the fleet."""

    agent_id: str
    type: str
    pool: str = "default"
    """It gets tasks of this pool only."""
    capabilities: list[str] = Field(default_factory=list)
    status: str
    """`online`, `offline`, `draining` or `paused`."""
    status_since: datetime | None = None
    """Of a paused or draining agent."""
    status_reason: str | None = None
    status_until: datetime | None = None
    """When the pause ends by itself; None: when somebody resumes it."""
    excluded_until: datetime | None = None
    """It kept failing and gets nothing until then; afterwards one task at a time, until one goes well."""
    excluded_since: datetime | None = None
    excluded_reason: str | None = None
    consecutive_failures: int = 0
    """Since its last success."""
    trips: int = 0
    """Exclusions without a success in between."""
    slots: int = 1
    busy: int = 0
    """Slots that hold work now."""
    queued: int = 0
    """Attempts beyond its slots, which it begins as these come free."""
    load: float = 0.0
    """busy / slots."""
    performance_score: float = 100.0
    """How often its work is right, by all that is known of it; 100 for an agent nobody knows."""
    performance_hourly: float = 50.0
    """50 + 50 x completed / ended in the last hour, less 10 where they took over 5 minutes in the mean."""
    completed: int = 0
    """Since it was registered; likewise `failed`, in which lost ones count."""
    failed: int = 0
    success_rate: float | None = None
    """Of late: old attempts fade, as they do from the latencies."""
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    node_id: str | None = None
    exec: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    last_heartbeat: datetime | None = None
    created_at: datetime | None = None
    working_on: list[str] = Field(default_factory=list)
    """Ids of the tasks that it holds."""
    names: dict[str, str] = Field(default_factory=dict)
    """What those are called that have a name, by id; of all in `agent show`, in `status` of the first."""
    ledger: list[LedgerView] = Field(default_factory=list)
    """By skill and task type, everything first; filled by `agent show`, likewise `trend`."""
    trend: list[TrendView] = Field(default_factory=list)
    """The last hour, oldest first."""
    cursor: str | None = None
    """Where a list goes on after it; only in lists."""


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


class BudgetView(View):
    """What a task, a submission or a label may use, and what of that is used.

    Of a unit that it does not limit, everything is null.
    """

    scope: str
    """`task`, `submission` or `label`."""
    key: str
    """The id of the task or submission, or `name=value`."""
    cost_usd: float | None = None
    tokens: int | None = None
    attempt_usd: float | None = None
    """What one attempt is expected to use, where a person said so."""
    attempt_tokens: int | None = None
    spent_usd: float | None = None
    """With `unknown_usd`."""
    spent_tokens: int | None = None
    reserved_usd: float | None = None
    """For attempts that run."""
    reserved_tokens: int | None = None
    left_usd: float | None = None
    """Below 0 where attempts used more than was reserved for them."""
    left_tokens: int | None = None
    unknown_usd: float | None = None
    """The part of what is spent that was reserved for attempts which did not say what they used."""
    unknown_tokens: int | None = None
    unknown_attempts: int = 0
    running: int = 0
    """Attempts for which something is reserved."""
    waiting: int = 0
    """Ready tasks that it cannot pay for now."""
    period: str | None = None
    """`day`, `week` or `month`: how often what is spent begins anew."""
    window_start: datetime | None = None
    """Since when it counts."""
    created_at: datetime | None = None
    updated_at: datetime | None = None


class SpendView(View):
    """What all attempts said that they used. Null: none said anything."""

    today_usd: float | None = None
    """Since midnight UTC."""
    today_tokens: int | None = None
    today_unknown_attempts: int = 0
    """Attempts on a budget that did not say."""
    total_usd: float | None = None
    total_tokens: int | None = None
    total_unknown_attempts: int = 0
    usd_attempts: int = 0
    """How many said what they cost."""
    tokens_attempts: int = 0


class UsageView(View):
    """What the attempts of a task said that they used. Null: none said anything."""

    cost_usd: float | None = None
    tokens: int | None = None
    unknown_attempts: int = 0
    """Attempts that ended and did not say."""


class FundingView(View):
    """What was reserved for an attempt on a budget, and what it was charged."""

    scope: str
    key: str
    granted_usd: float | None = None
    granted_tokens: int | None = None
    charged_usd: float | None = None
    """Null while it runs."""
    charged_tokens: int | None = None
    is_unknown: bool = False
    """It did not say: what was reserved counts as used."""


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
    """`input_tokens`, `output_tokens`, `cost_usd`, as its agent told; null: unknown."""
    usage_so_far: dict[str, Any] | None = None
    """The same as it was told while the attempt ran: shown, not charged."""
    funding: list[FundingView] = Field(default_factory=list)


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
    task_name: str | None = None
    topic: str
    """Of a proposal; of a task its type."""
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
    cursor: str | None = None
    """Where a list goes on after it; only in lists."""


class HistoryView(View):
    """Stored votes, in the form that a replay reads."""

    labels: list[dict[str, str]] = Field(default_factory=list)
    truth: list[dict[str, str]] = Field(default_factory=list)
    electorates: dict[str, list[str]] = Field(default_factory=dict)
    """Task to all who had a vote and were not lost, also those who were never asked."""


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
    pool: str = "default"
    """Only agents of this pool get it."""
    type: str
    status: str
    """`blocked`, `pending`, `running`, `completed`, `failed`, `cancelled` or `skipped`."""
    priority: int = 5
    required_capabilities: list[str] = Field(default_factory=list)
    depends_on: list[str] = Field(default_factory=list)
    names: dict[str, str] = Field(default_factory=dict)
    """What those are called that have a name, by id; filled by `task show`."""
    waiting_on: int = 0
    """Dependencies that are not done yet."""
    attempts_made: int = 0
    failures: int = 0
    assigned_agents: list[str] = Field(default_factory=list)
    progress: float | None = None
    note: str | None = None
    """What its agent said of it last; while it runs, in `status`."""
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
    usage: UsageView | None = None
    budgets: list[BudgetView] = Field(default_factory=list)
    """That it is charged to."""
    cursor: str | None = None
    """Where a list goes on after it; only in lists."""
    timeout_seconds: float | None = None
    """For which one attempt may run; filled by `task show`."""
    retries: int | None = None
    """Attempts that may follow one that failed; filled by `task show`."""


class TaskRef(View):
    """A task by its names, where there may be very many."""

    task_id: str
    name: str | None = None
    type: str
    status: str
    cursor: str | None = None
    """Where the list goes on after it."""


class NodeView(View):
    """One `serve` process."""

    node_id: str
    host: str
    port: int | None = None
    pid: int
    version: str
    pool: str = "default"
    """The one that it schedules, if it leads; agents of any pool may be connected to it."""
    is_leader: bool = False
    """It schedules its pool."""
    is_chief: bool = False
    """It does what is there once for all pools: sweeps, deadlocks, schedules, scores."""
    is_live: bool = True
    agents: int = 0
    """That are connected to it."""
    slots: int = 0
    """Of these agents."""
    busy: int = 0
    """Slots of these that hold work now."""
    load: float = 0.0
    """busy / slots."""
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None


class SubmittedTask(View):
    """One task of a submission, as it was stored."""

    task_id: str
    name: str | None = None
    status: str
    is_new: bool = True
    """False where the idempotency key was known: the task that had it is named instead."""
    differs: list[str] = Field(default_factory=list)
    """Fields in which what was sent is another task than the one that has its key."""


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


class ResolvedView(View):
    """Whole ids in the place of their parts."""

    ids: dict[str, str] = Field(default_factory=dict)


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
    cursor: str | None = None
    """Where a list goes on after it; only in lists."""


class PlanView(View):
    """What the registered fleet could make of a submission."""

    missing: list[str] = Field(default_factory=list)
    """Dependencies that are neither in the submission nor stored."""
    agents: dict[str, list[str]] = Field(default_factory=dict)
    """By task: the agents that could take it, or a part of it in a team, online or not."""
    never: dict[str, str] = Field(default_factory=dict)
    """By task that cannot run with this fleet: why not."""


class GraphNodeView(View):
    """One task of a graph."""

    task_id: str
    name: str | None = None
    type: str
    status: str
    """Of the task; `unknown` where others wait for it and it is not stored."""
    agents: list[str] = Field(default_factory=list)
    note: str | None = None
    """Why it failed, how far it is."""


class GraphEdgeView(View):
    """`after` waits for `before`; or was made by it, as a `sub_task`."""

    before: str
    after: str
    kind: Literal["depends", "sub_task"] = "depends"


class GraphView(View):
    """All that a task hangs together with."""

    task_id: str | None = None
    """Of the task, or of the submission, that was asked about; null for a file."""
    nodes: list[GraphNodeView] = Field(default_factory=list)
    edges: list[GraphEdgeView] = Field(default_factory=list)
    cut: int = 0
    """Tasks that are left out because there are too many: those farthest away."""


class BarView(View):
    """A stretch of time of one task: an attempt, or a wait."""

    task_id: str
    name: str | None = None
    task_status: str
    agent: str | None = None
    """Null for a wait."""
    lane: int = 0
    """0, or more where several agents worked on the task at once."""
    start: datetime
    end: datetime
    status: str
    """Of the attempt; or `blocked` (waits for other tasks), `pending` (waits for an agent)."""
    attempt: int = 0
    is_open: bool = False
    """It goes on; `end` is now."""


class TimelineView(View):
    """When all that a task hangs together with was worked on."""

    task_id: str
    """Of the task, or of the submission, that was asked about."""
    bars: list[BarView] = Field(default_factory=list)
    start: datetime
    end: datetime
    critical: list[str] = Field(default_factory=list)
    """The chain of tasks that took the longest, first to last."""
    cut: int = 0


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
    names: dict[str, str] = Field(default_factory=dict)
    """What it and the tasks of the links are called that have a name: by id."""


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
    names: dict[str, str] = Field(default_factory=dict)
    """What the members are called that have a name: by id, of the first fifty."""


class DeadlockView(DeadlockFinding):
    """A deadlock as it was recorded."""

    deadlock_id: str
    resolution: str | None = None
    resolved_by: str | None = None
    """`monitor`, or a person; None where it dissolved by itself."""
    node_id: str | None = None
    detected_at: datetime
    resolved_at: datetime | None = None
    cursor: str | None = None
    """Where a list goes on after it; only in lists."""


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


class TallyView(View):
    """How far some tasks are."""

    counts: dict[str, int] = Field(default_factory=dict)
    """By state."""
    running: list[TaskView] = Field(default_factory=list)
    """Some of those that run, the ones that began first."""


class FlowView(View):
    """Tasks that came and that ended, of late."""

    in_per_second: float = 0.0
    """The mean of the last minute."""
    out_per_second: float = 0.0
    """The mean of the last `seconds`."""
    seconds: float = 60.0
    """Less than a minute where so much happens that only the newest of it is read."""
    step: int = 0
    """Number of the newest step, counted in steps since 1970; it is not over yet."""
    step_seconds: float = 2.0
    came: list[int | None] = Field(default_factory=list)
    """By step, oldest first; null: not read."""
    ended: list[int | None] = Field(default_factory=list)


class StatusView(View):
    """The fleet in one document."""

    at: datetime
    nodes: list[NodeView] = Field(default_factory=list)
    agents: list[AgentView] = Field(default_factory=list)
    agent_counts: dict[str, int] = Field(default_factory=dict)
    task_counts: dict[str, int] = Field(default_factory=dict)
    counts_estimated: bool = False
    """There are so many tasks that those which ended are not counted but estimated."""
    flow: FlowView = Field(default_factory=FlowView)
    running: list[TaskView] = Field(default_factory=list)
    """Those that began first in front."""
    recent: list[TaskView] = Field(default_factory=list)
    """Tasks that ended last, newest first."""
    oldest_pending_seconds: float | None = None
    decisions: list[DecisionView] = Field(default_factory=list)
    deadlocks: list[DeadlockView] = Field(default_factory=list)
    """Open ones, and those that were resolved within the last hour."""
    spend: SpendView = Field(default_factory=SpendView)
    budgets: list[BudgetView] = Field(default_factory=list)
    """Of labels, and others that tasks wait for."""
    alarms: list[str] = Field(default_factory=list)
    """Sentences, for instance that no serve is running, or that nobody can do a pending task."""


class TokenView(View):
    """Who may do what from afar."""

    token_id: str
    name: str
    scopes: list[str] = Field(default_factory=list)
    status: str
    """`active`, `expired` or `revoked`."""
    created_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


class NewTokenView(TokenView):
    """A token that was made just now: the only time that it is shown."""

    token: str


class HelloView(View):
    """Who answers on the control endpoint, and as whom it takes the caller."""

    engine_id: str
    version: str
    protocol: int
    name: str | None = None
    """Of the caller's token; None where no token was needed."""
    scopes: list[str] = Field(default_factory=list)
    max_bytes: int | None = None
    """Of one request on this connection; a longer one ends it."""


class SubscriptionView(View):
    """Events come from here on."""

    subscription: int
    cursor: str
    """Where it begins: what comes after this is told."""


class TableView(View):
    """One table of the database."""

    name: str
    rows: int
    """About how many."""
    size_bytes: int
    """With its indexes."""
    index_bytes: int
    dead_rows: int
    """Versions of rows that nobody sees any more, and that are not cleaned up yet."""
    vacuumed_at: datetime | None = None


class MaintenanceView(View):
    """Something that was done for the database."""

    what: str
    """`backup`, `restore` or `prune`."""
    at: datetime
    data: dict[str, Any] = Field(default_factory=dict)


class DatabaseView(View):
    """The database as a whole."""

    name: str
    server_version: str
    database_version: int | None = None
    """Of its schema; None where there is none yet."""
    wanted_version: int
    started_at: datetime
    size_bytes: int
    wal_bytes: int | None = None
    """Of the write-ahead log; None where the account may not see that."""
    connections: int
    max_connections: int
    applications: dict[str, int] = Field(default_factory=dict)
    """Connections to this database, by what they call themselves."""
    oldest_transaction_seconds: float | None = None
    """How long the oldest open transaction of others has been open: it keeps dead rows alive."""
    transaction_age: int
    """Transactions since the last freeze; PostgreSQL cleans up by itself at 200 million."""
    dead_share: float
    """Of all rows, 0..1."""
    tables: list[TableView] = Field(default_factory=list)
    """Largest first."""
    maintenance: list[MaintenanceView] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)


class BackupView(View):
    """A backup, as its manifest says."""

    file: str
    size_bytes: int
    rows: int
    tables: dict[str, int]
    """Rows of each table."""
    database_version: int
    """Of the schema that it was taken of."""
    server_version: str
    program: str
    taken_at: datetime


class RestoreView(BackupView):
    """A backup that was restored."""

    applied: list[str] = Field(default_factory=list)
    """Migrations that are newer than the backup."""


class PruneView(View):
    """What was deleted because it is old, or would be."""

    before: datetime
    """What ended before this is old."""
    is_dry_run: bool
    tasks: int
    attempts: int
    events: int
    decisions: int
    deadlocks: int
    place: str | None = None
    """Where to go on; None: that was all."""
