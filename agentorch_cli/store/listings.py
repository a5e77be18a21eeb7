"""What may be asked of the lists: which fields a condition may name, and what rows may be sorted by."""

from __future__ import annotations

from typing import Final

from agentorch_cli.core.model import AgentStatus, TaskStatus
from agentorch_cli.core.where import Kind
from agentorch_cli.store.listing import Column, Listing, Sort

SEQ: Final = Sort("t.seq", "bigint")

TASKS: Final = Listing(
    columns={
        "status": Column(
            Kind.STATE,
            "t.status",
            tuple(TaskStatus),
            few=(TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.SKIPPED),
            sql_of_few="t.indexed_status",
        ),
        "id": Column(Kind.TEXT, "t.task_id"),
        "name": Column(Kind.TEXT, "t.name"),
        "type": Column(Kind.TEXT, "t.task_type"),
        "pool": Column(Kind.TEXT, "t.pool"),
        "label": Column(Kind.TEXT, "t.options -> 'labels' ->> {key}", has_key=True),
        "agent": Column(Kind.LIST, "t.assigned_agents"),
        "capability": Column(Kind.LIST, "t.required_capabilities"),
        "submission": Column(Kind.TEXT, "t.submission_id::text"),
        "parent": Column(Kind.TEXT, "t.parent_id"),
        "key": Column(Kind.TEXT, "t.idempotency_key"),
        "error": Column(Kind.TEXT, "t.error ->> 'code'"),
        "priority": Column(Kind.NUMBER, "t.priority"),
        "attempts": Column(Kind.NUMBER, "t.attempts_made"),
        "failures": Column(Kind.NUMBER, "t.failures"),
        "age": Column(Kind.DURATION, "t.created_at", is_age=True),
        "took": Column(
            Kind.DURATION,
            "extract(epoch from coalesce(t.completed_at, case when t.status = 'running' then now() end)"
            " - t.started_at)",
        ),
        "created": Column(Kind.MOMENT, "t.created_at"),
        "started": Column(Kind.MOMENT, "t.started_at"),
        "completed": Column(Kind.MOMENT, "t.completed_at"),
    },
    sorts={
        "created": SEQ,
        "completed": Sort("coalesce(t.completed_at, '-infinity')", "timestamptz"),
        "started": Sort("coalesce(t.started_at, '-infinity')", "timestamptz"),
        "priority": Sort("t.priority::bigint", "bigint"),
        "attempts": Sort("t.attempts_made::bigint", "bigint"),
        "status": Sort("t.status", "text"),
        "type": Sort("t.task_type", "text"),
        "name": Sort("coalesce(t.name, '')", "text"),
    },
    tie=SEQ,
    usual="-created",
)

AGENT_ID: Final = Sort("a.agent_id", "text")

AGENTS: Final = Listing(
    columns={
        "status": Column(Kind.STATE, "a.status", tuple(AgentStatus)),
        "id": Column(Kind.TEXT, "a.agent_id"),
        "type": Column(Kind.TEXT, "a.agent_type"),
        "pool": Column(Kind.TEXT, "a.pool"),
        "label": Column(Kind.TEXT, "a.metadata ->> {key}", has_key=True),
        "capability": Column(Kind.LIST, "a.capabilities"),
        "created": Column(Kind.MOMENT, "a.created_at"),
    },
    sorts={
        "id": AGENT_ID,
        "created": Sort("a.created_at", "timestamptz"),
        "seen": Sort("coalesce(a.last_heartbeat, '-infinity')", "timestamptz"),
        "status": Sort("a.status", "text"),
        "type": Sort("a.agent_type", "text"),
        "load": Sort("coalesce(l.busy, 0)::float8 / a.slots", "float8"),
        "score": Sort("agentorch_score(coalesce(o.rights, 0), coalesce(o.trials, 0))", "float8"),
        "completed": Sort("a.completed", "bigint"),
        "failed": Sort("a.failed", "bigint"),
    },
    tie=AGENT_ID,
    usual="id",
)

DECISIONS: Final = Listing(
    columns={
        "status": Column(Kind.STATE, "d.status", ("pending", "reached", "failed")),
        "capability": Column(Kind.TEXT, "d.capability"),
        "agent": Column(Kind.LIST, "d.participating_agents"),
        "label": Column(
            Kind.TEXT,
            "(select t.options -> 'labels' ->> {key} from task_distributions t where t.task_id = d.task_id)",
            has_key=True,
        ),
        "created": Column(Kind.MOMENT, "d.created_at"),
    },
    sorts={
        "created": Sort("d.created_at", "timestamptz"),
        "decided": Sort("coalesce(d.decided_at, '-infinity')", "timestamptz"),
        "confidence": Sort("coalesce(d.confidence, -1)", "float8"),
        "votes": Sort("d.votes_used::bigint", "bigint"),
        "status": Sort("d.status", "text"),
    },
    tie=Sort("d.decision_id", "uuid"),
    usual="-created",
)

DEADLOCKS: Final = Listing(
    columns={
        "status": Column(
            Kind.STATE,
            "case when k.resolved_at is null then 'open' else 'resolved' end",
            ("open", "resolved"),
        ),
        "kind": Column(Kind.TEXT, "k.kind"),
        "task": Column(Kind.LIST, "k.members"),
        "created": Column(Kind.MOMENT, "k.detected_at"),
    },
    sorts={
        "created": Sort("k.detected_at", "timestamptz"),
        "resolved": Sort("coalesce(k.resolved_at, 'infinity')", "timestamptz"),
        "waited": Sort("k.waited_s", "float8"),
        "kind": Sort("k.kind", "text"),
    },
    tie=Sort("k.deadlock_id", "uuid"),
    usual="-created",
)

SCHEDULE_STATE: Final = (
    "case when s.is_paused then 'paused' when s.error is not null then 'failing'"
    " when s.next_at is null then 'ended' else 'active' end"
)

NAME: Final = Sort("s.name", "text")

SCHEDULES: Final = Listing(
    columns={
        "status": Column(Kind.STATE, SCHEDULE_STATE, ("active", "paused", "failing", "ended")),
        "name": Column(Kind.TEXT, "s.name"),
        "created": Column(Kind.MOMENT, "s.created_at"),
    },
    sorts={
        "name": NAME,
        "created": Sort("s.created_at", "timestamptz"),
        "next": Sort("coalesce(s.next_at, 'infinity')", "timestamptz"),
        "last": Sort("coalesce(s.last_at, '-infinity')", "timestamptz"),
        "status": Sort(SCHEDULE_STATE, "text"),
    },
    tie=NAME,
    usual="name",
)
