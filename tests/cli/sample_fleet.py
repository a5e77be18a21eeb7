"""A fleet to look at: views as the operations would answer them, with some nasty text among them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agentorch_cli.views import (
    AgentView,
    AttemptView,
    DeadlockView,
    DecisionView,
    EventView,
    NodeView,
    StatusView,
    TaskView,
)

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
EVIL = "evil\x1b]52;c;aGk=\x07\x1b[2J[/bold]\u202etxt.exe\u200b\U000e0041\x9b31m"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def task_id(number: int) -> str:
    return f"019a8f2e-7b1c-7d10-a3f4-{number:012d}"


def agents() -> list[AgentView]:
    return [
        AgentView(
            agent_id="reader-1",
            type="reader",
            capabilities=["count", "extract"],
            status="online",
            slots=4,
            busy=3,
            load=0.75,
            performance_score=97.2,
            completed=1204,
            failed=3,
            last_heartbeat=ago(2),
            created_at=ago(86_400),
        ),
        AgentView(
            agent_id="writer-with-a-rather-long-name-for-an-agent-01",
            type="writer",
            capabilities=["summarise", "translate", "check_facts", "write_reports"],
            status="draining",
            slots=1,
            busy=1,
            load=1.0,
            performance_score=61.0,
            completed=88,
            failed=41,
            last_heartbeat=ago(11),
            created_at=ago(8_000),
        ),
        AgentView(agent_id=EVIL, type=EVIL, capabilities=[EVIL], status="offline", created_at=ago(90_000)),
    ]


def tasks() -> list[TaskView]:
    return [
        TaskView(
            task_id=task_id(1),
            name="summarise the annual report of the observatory",
            type="summarise",
            status="running",
            assigned_agents=["reader-1"],
            progress=0.4,
            attempts_made=1,
            created_at=ago(70),
            started_at=ago(65),
        ),
        TaskView(
            task_id=task_id(2),
            name="count",
            type="count",
            status="completed",
            assigned_agents=["reader-1"],
            attempts_made=1,
            result={"words": 1200, "lines": 88},
            created_at=ago(300),
            started_at=ago(299.5),
            completed_at=ago(298.2),
        ),
        TaskView(
            task_id=task_id(3),
            name=EVIL,
            type="check",
            status="failed",
            attempts_made=3,
            failures=3,
            error={"code": "agent_failed", "message": f"no such file {EVIL}"},
            created_at=ago(4000),
            started_at=ago(3999),
            completed_at=ago(3000),
        ),
        TaskView(task_id="nightly-report", type="report", status="blocked", waiting_on=2, created_at=ago(5)),
    ]


def decision() -> DecisionView:
    return DecisionView(
        decision_id=task_id(900),
        task_id=task_id(3),
        topic="is the statement true?",
        status="reached",
        consensus_reached=True,
        rule="supermajority",
        threshold=0.66,
        electorate=5,
        needed=4,
        final_decision={"answer": "yes"},
        votes=[
            {"agent_id": "reader-1", "vote": "yes", "confidence": 0.9, "weight": 1.0},
            {"agent_id": EVIL, "vote": EVIL, "confidence": None, "weight": 0.5},
        ],
        votes_used=4,
        votes_not_asked=1,
        confidence=0.97,
        confidence_basis="posterior",
        decided_by="threshold",
        created_at=ago(60),
        decided_at=ago(50),
    )


def story() -> TaskView:
    task = tasks()[2]
    events = [
        EventView(cursor="1:1", at=ago(4000), kind="submitted", task_id=task.task_id),
        EventView(
            cursor="1:2",
            at=ago(3999.4),
            kind="assigned",
            task_id=task.task_id,
            agent_id="reader-1",
            data={"attempt": 1},
        ),
        EventView(cursor="1:3", at=ago(3999.2), kind="accepted", task_id=task.task_id, agent_id="reader-1"),
        EventView(
            cursor="1:4",
            at=ago(3001),
            kind="failed",
            task_id=task.task_id,
            agent_id=EVIL,
            data={"message": EVIL},
        ),
    ]
    attempts = [
        AttemptView(
            message_id=task_id(800),
            agent_id="reader-1",
            attempt=1,
            status="failed",
            sent_at=ago(3999.4),
            accepted_at=ago(3999.2),
            finished_at=ago(3001),
            error={"message": EVIL},
        )
    ]
    return task.model_copy(
        update={
            "events": events,
            "attempts": attempts,
            "decision": decision(),
            "data": {"text": "line one\nline two", "n": [1, 2]},
            "depends_on": ["count"],
            "labels": {"team": "north"},
        }
    )


def deadlock() -> DeadlockView:
    return DeadlockView(
        deadlock_id=task_id(99),
        kind="circular_dependency",
        members=["ring-a", "ring-b"],
        reason="ring-a waits for ring-b, which waits for ring-a",
        waited_s=3.0,
        detected_at=ago(4),
    )


def status(agent_count: int = 3) -> StatusView:
    fleet = agents()
    fleet += [
        AgentView(agent_id=f"worker-{n:04}", type="worker", status="online", created_at=NOW)
        for n in range(agent_count - 3)
    ]
    every = tasks()
    return StatusView(
        at=NOW,
        nodes=[
            NodeView(
                node_id="n1",
                host="127.0.0.1",
                port=3001,
                pid=1,
                version="1",
                is_leader=True,
                started_at=ago(99),
            )
        ],
        agents=fleet,
        agent_counts={"online": agent_count - 2, "draining": 1, "offline": 1},
        task_counts={"running": 1, "pending": 12, "blocked": 1, "completed": 48_210, "failed": 1},
        running=every[:1],
        recent=every[1:3],
        oldest_pending_seconds=12.5,
        decisions=[decision()],
        alarms=['nobody online can "translate": 2 tasks wait for it'],
    )
