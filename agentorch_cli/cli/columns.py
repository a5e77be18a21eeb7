"""What a row shows: the columns of agents, tasks, attempts, votes and nodes.

The most telling columns stand left and stay longest. On a pipe all of them are there.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from rich.text import Text

from agentorch_cli.cli import money
from agentorch_cli.cli.look import Look, span
from agentorch_cli.cli.names import listed
from agentorch_cli.cli.tables import Column
from agentorch_cli.core.model import DEFAULT_POOL
from agentorch_cli.core.reliability import VERIFIED_WEIGHT
from agentorch_cli.views import (
    AgentView,
    AttemptView,
    DeadlockView,
    DecisionView,
    LedgerView,
    NodeView,
    ReliabilityView,
    ScheduleView,
    TaskView,
)

ROOMY = 100
"""Columns from which a bar of progress is long."""


def took(task: TaskView | AttemptView, look: Look) -> Text:
    """How long the work took, or has taken so far."""
    start = task.started_at if isinstance(task, TaskView) else task.sent_at
    end = task.completed_at if isinstance(task, TaskView) else task.finished_at
    if start is None:
        return look.nothing()
    seconds = max(((end or look.now) - start) / timedelta(seconds=1), 0.0)
    return Text(span(seconds) if look.is_terminal else f"{seconds:.3f}")


def outcome(task: TaskView, look: Look) -> Text:
    """What came of a task: its result, or why there is none."""
    if task.error:
        return look.sentence(reason(task.error), "red" if task.status == "failed" else "dim")
    return look.json(task.result, 200)


def how_far(task: TaskView, look: Look) -> Text:
    """The progress of a task in a table: a short bar where there is little room, but always its number."""
    return look.progress(task.progress, 12 if look.width >= ROOMY else 6)


def reason(error: dict[str, Any]) -> str:
    """The sentence of a stored error."""
    return str(error.get("message") or error.get("code") or error)


def coded(error: dict[str, Any]) -> str:
    """The same behind its code, which rules of retries are about."""
    code, said = str(error.get("code") or ""), reason(error)
    return f"{code}: {said}" if code and code != said else said


def label(task: TaskView) -> str:
    """What a person calls the task."""
    return task.name or task.type


def slots(agent: AgentView) -> str:
    """`1/2`, and where it holds work beyond them, `2/2 +1`."""
    return f"{agent.busy}/{agent.slots}" + (f" +{agent.queued}" if agent.queued else "")


def percent(value: float | None, look: Look) -> Text:
    """A rate of 0..1."""
    if value is None:
        return look.nothing()
    return Text(f"{value:.0%}" if look.is_terminal else f"{value:.4f}")


def milliseconds(value: float | None, look: Look) -> Text:
    """A duration that is kept in milliseconds."""
    if value is None:
        return look.nothing()
    return Text(span(value / 1000) if look.is_terminal else f"{value:.1f}")


def spent(row: LedgerView, look: Look) -> Text:
    """What work has cost, at least: nobody has to say it."""
    if row.cost_usd is None:
        return Text("unknown" if row.cost_unknown else "", "dim")
    amount = f"${row.cost_usd:.4f}" if row.cost_usd < 1 else f"${row.cost_usd:,.2f}"
    if row.cost_unknown < 0.01:
        return Text(amount)
    return Text(f"at least {amount}" if look.is_terminal else f"{amount} + {row.cost_unknown:.1f} unknown")


def votes(decision: DecisionView) -> str:
    """`4 of 5`: how many of the panel voted."""
    return f"{decision.votes_used} of {decision.electorate}"


def set_aside(agent: AgentView, look: Look) -> Text:
    """Why an agent gets nothing, and until when."""
    if agent.status in ("paused", "draining"):
        until = look.until(agent.status_until) if agent.status_until is not None else None
        reason = look.text(agent.status_reason) if agent.status_reason else None
        return Text(": ").join(one for one in (until, reason) if one is not None)
    if agent.excluded_until is not None:
        return Text.assemble(
            ("excluded " if agent.excluded_until > look.now else "probed since ", "yellow"),
            look.until(agent.excluded_until)
            if agent.excluded_until > look.now
            else look.age(agent.excluded_until),
            ": ",
            look.text(agent.excluded_reason),
        )
    return Text("")


AGENTS = (
    Column("AGENT", lambda agent, look: look.text(agent.agent_id, "bold"), is_id=True, fold_at=24),
    Column("STATUS", lambda agent, look: look.state(agent.status)),
    Column("TYPE", lambda agent, look: look.text(agent.type), 2),
    Column("CAPABILITIES", lambda agent, look: look.names(agent.capabilities), 7, least=20),
    Column("LOAD", lambda agent, look: look.bar(agent.load, 6), 4),  # the same as SLOTS, and wider
    Column("SLOTS", lambda agent, look: Text(slots(agent)), 6, is_right=True),
    Column("SCORE", lambda agent, look: look.number(agent.performance_score), 8, is_right=True),
    Column("SUCCESS", lambda agent, look: percent(agent.success_rate, look), 6, is_right=True),
    Column("P50", lambda agent, look: milliseconds(agent.latency_p50_ms, look), 5, is_right=True),
    Column("P95", lambda agent, look: milliseconds(agent.latency_p95_ms, look), 5, is_right=True),
    Column("DONE", lambda agent, look: Text(str(agent.completed)), 1, is_right=True),
    Column("FAILED", lambda agent, look: Text(str(agent.failed)), 1, is_right=True),
    Column("POOL", lambda agent, look: _pool(agent.pool, look), 1),
    Column("NOTE", lambda agent, look: set_aside(agent, look), 8),
    Column("SEEN", lambda agent, look: look.age(agent.last_heartbeat), 2),
)

LEDGER = (
    Column("SKILL", lambda row, look: look.text(row.skill or "everything", "bold"), is_id=True, fold_at=24),
    Column("TYPE", lambda row, look: look.text(row.task_type) if row.skill else look.nothing(), 8),
    Column(
        "ATTEMPTS", lambda row, look: look.number(row.completed + row.failed + row.lost), 6, is_right=True
    ),
    Column("SUCCESS", lambda row, look: percent(row.success_rate, look), 7, is_right=True),
    Column("RIGHT", lambda row, look: percent(row.right, look), is_right=True),
    Column("P50", lambda row, look: milliseconds(row.latency_p50_ms, look), 5, is_right=True),
    Column("P95", lambda row, look: milliseconds(row.latency_p95_ms, look), 4, is_right=True),
    Column("COST", lambda row, look: spent(row, look), 5, is_right=True),
)

TASKS = (
    Column("TASK", lambda task, look: look.text(task.task_id, "bold"), is_id=True),
    Column("STATUS", lambda task, look: look.state(task.status)),
    Column("NAME", lambda task, look: look.text(label(task)), 8),
    Column("TYPE", lambda task, look: look.text(task.type), 1),
    Column("POOL", lambda task, look: _pool(task.pool, look), 1),
    Column("PRIO", lambda task, look: Text(str(task.priority)), 1, is_right=True),
    Column("AGENTS", lambda task, look: look.crowd(task.assigned_agents), 4),
    Column("TRIES", lambda task, look: Text(str(task.attempts_made)), 2, is_right=True),
    Column("AGE", lambda task, look: look.age(task.created_at), 6),
)

MEANT = (
    Column("TASK", lambda task, look: look.text(task.task_id, "bold"), is_id=True),
    Column("STATUS", lambda task, look: look.state(task.status)),
    Column("NAME", lambda task, look: look.text(task.name) if task.name else look.nothing(), 8),
    Column("TYPE", lambda task, look: look.text(task.type), 6),
)

RUNNING = (
    Column("NAME", lambda task, look: look.text(label(task), "bold"), least=20),
    Column("AGENTS", lambda task, look: look.crowd(task.assigned_agents)),
    Column("PROGRESS", lambda task, look: how_far(task, look), 6, least=17),
    Column("FOR", took, 7, is_right=True),
    Column("NOTE", lambda task, look: look.text(task.note, "dim"), 5),
    Column("TASK", lambda task, look: look.text(task.task_id, "dim"), 3, is_id=True),
)

OUTCOMES = (
    Column("NAME", lambda task, look: look.text(label(task), "bold")),
    Column("STATUS", lambda task, look: look.state(task.status)),
    Column("AGENTS", lambda task, look: look.crowd(task.assigned_agents), 5),
    Column("TOOK", took, 6, is_right=True),
    Column("OUTCOME", outcome, 8),
)

RECENT = (replace(OUTCOMES[0], least=20), *OUTCOMES[1:])

RESULTS = (
    *OUTCOMES[:2],
    Column("TRIES", lambda task, look: Text(str(task.attempts_made)), 2, is_right=True),
    *OUTCOMES[2:],
    Column("TASK", lambda task, look: look.text(task.task_id, "dim"), is_id=True),
)

ATTEMPTS = (
    Column("#", lambda attempt, look: Text(str(attempt.attempt)), is_right=True),
    Column("AGENT", lambda attempt, look: look.text(attempt.agent_id, "bold"), is_id=True, fold_at=24),
    Column("STATUS", lambda attempt, look: look.state(attempt.status)),
    Column("TOOK", took, 6, is_right=True),
    Column("ROLE", lambda attempt, look: look.text(attempt.role), 2),
    Column("SURE", lambda attempt, look: percent(attempt.confidence, look), 3, is_right=True),
    Column("USED", lambda attempt, look: look.text(money.of_attempt(attempt)), 4, is_right=True),
    Column("WHAT CAME OF IT", lambda attempt, look: _brought(attempt, look), 7),
)


def topic(decision: DecisionView, look: Look) -> str:
    """What a vote is about: for a person the task by its name, which says more than its type."""
    return (decision.task_name if look.is_terminal else None) or decision.topic


DECISIONS = (
    Column("DECISION", lambda decision, look: look.text(decision.decision_id, "bold"), is_id=True),
    Column("STATUS", lambda decision, look: look.state(decision.status)),
    Column("TOPIC", lambda decision, look: look.text(topic(decision, look)), 8),
    Column("RULE", lambda decision, look: look.text(decision.rule), 3),
    Column("VOTES", lambda decision, look: Text(votes(decision)), 6, is_right=True),
    Column("SURE", lambda decision, look: percent(decision.confidence, look), 5, is_right=True),
    Column("ANSWER", lambda decision, look: look.json(decision.final_decision, 200), 7),
    Column("AGE", lambda decision, look: look.age(decision.created_at), 2),
)

VOTE_OUTCOMES = (
    DECISIONS[2],
    DECISIONS[1],
    *DECISIONS[4:7],
    Column("DECISION", lambda decision, look: look.text(decision.decision_id, "dim"), 1, is_id=True),
)

RELIABILITIES = (
    Column("AGENT", lambda one, look: look.text(one.agent_id, "bold"), is_id=True),
    Column("CAPABILITY", lambda one, look: look.text(one.capability)),
    Column("RIGHT", lambda one, look: percent(one.estimate, look), is_right=True),
    Column(
        "BY AGREEMENT", lambda one, look: Text(f"{one.successes:.1f} of {one.trials:.0f}"), 5, is_right=True
    ),
    Column("VERIFIED", lambda one, look: _verified(one), 6, is_right=True),
    Column("INFERRED", lambda one, look: percent(one.inferred, look), 4, is_right=True),
)

REPLAYED = (
    Column("RULE", lambda row, look: look.text(row["rule"], "bold"), is_id=True),
    Column("TASKS", lambda row, look: Text(str(row["tasks"])), 3, is_right=True),
    Column("DECIDED", lambda row, look: Text(str(row["decided"])), 6, is_right=True),
    Column("VOTES PER TASK", lambda row, look: Text(f"{row['votes_per_task']:.2f}"), is_right=True, least=8),
    Column("ACCURACY", lambda row, look: _exactly(row["accuracy"], look), is_right=True),
    Column(
        "OF THE DECIDED",
        lambda row, look: _exactly(row["accuracy_decided"], look),
        5,
        is_right=True,
        least=8,
    ),
    Column(
        "CALIBRATION ERROR",
        lambda row, look: look.number(row["calibration_error"], 3),
        7,
        is_right=True,
        least=11,
    ),
    Column("SECONDS", lambda row, look: Text(f"{row['seconds']:.1f}"), 2, is_right=True),
)

BALLOTS = (
    Column(
        "AGENT",
        lambda vote, look: look.text(vote.get("agent_id") or vote.get("agent"), "bold"),
        is_id=True,
        fold_at=24,
    ),
    Column("VOTE", lambda vote, look: _vote_of(vote, look)),
    Column("", lambda vote, look: Text("dissents" if vote.get("dissents") else "", "yellow"), 6),
    Column("WEIGHT", lambda vote, look: look.number(vote.get("weight"), 2), 4, is_right=True),
    Column("SURE", lambda vote, look: percent(vote.get("confidence"), look), 5, is_right=True),
)

NODES = (
    Column("NODE", lambda node, look: look.text(node.node_id, "bold"), is_id=True),
    Column("STATE", lambda node, look: look.state("online" if node.is_live else "offline")),
    Column("POOL", lambda node, look: look.text(node.pool)),
    Column("LEADS", lambda node, look: look.text(_leads(node, look)), 8, least=14),
    Column("AGENTS", lambda node, look: Text(str(node.agents)), 7, is_right=True),
    Column("LOAD", lambda node, look: look.bar(node.load, 6), 5),
    Column("AT", lambda node, look: look.text(f"{node.host}:{node.port}" if node.port else node.host), 6),
    Column("VERSION", lambda node, look: look.text(node.version), 4),
    Column("AGE", lambda node, look: look.age(node.started_at), 6),
    Column("SEEN", lambda node, look: look.age(node.heartbeat_at), 3),
)

LIMITS = (
    Column("LIMIT", lambda one, look: look.text(f"{one.scope}:{one.name}", "bold"), is_id=True),
    Column("RATE", lambda one, look: look.text(one.rate), is_right=True),
    Column("BURST", lambda one, look: Text(f"{one.burst:,}"), 3, is_right=True),
    Column("LEFT NOW", lambda one, look: Text(f"{one.level:,.1f}"), is_right=True),
    Column("SET", lambda one, look: look.age(one.created_at), 4, is_right=True),
)

DEADLOCKS = (
    Column("DEADLOCK", lambda one, look: look.text(one.deadlock_id, "dim"), 4, is_id=True),
    Column("KIND", lambda one, look: look.text(one.kind, "bold")),
    Column("MEMBERS", lambda one, look: _members(one, look), 8),
    Column("WAITED", lambda one, look: Text(span(one.waited_s)), 5, is_right=True),
    Column(
        "RESOLUTION",
        lambda one, look: look.text(one.resolution or "open", "" if one.resolution else "red"),
        8,
    ),
    Column("BY", lambda one, look: look.text(one.resolved_by or "-"), 3),
    Column("FOUND", lambda one, look: look.age(one.detected_at), 6),
)

DEADLOCKS_BRIEFLY = (
    *DEADLOCKS[1:3],
    DEADLOCKS[4],
    DEADLOCKS[3],
    DEADLOCKS[6],
)

SCHEDULES = (
    Column("SCHEDULE", lambda one, look: look.text(one.name, "bold"), is_id=True, fold_at=24),
    Column("STATE", lambda one, look: look.state(one.state)),
    Column("CRON", lambda one, look: look.text(one.cron), 8, least=24),
    Column("TIME ZONE", lambda one, look: look.text(one.time_zone), 5, least=20),
    Column("NEXT", lambda one, look: _next(one, look), 7),
    Column("LAST", lambda one, look: look.age(one.last_at), 4),
    Column("RUNS", lambda one, look: Text(str(one.runs)), 3, is_right=True),
    Column("SKIPPED", lambda one, look: Text(str(one.skipped)), 2, is_right=True),
    Column("ERROR", lambda one, look: look.text(one.error, "red"), 6),
)

SUBMITTED = (
    Column("TASK", lambda task, look: look.text(task.task_id, "bold"), is_id=True),
    Column("STATUS", lambda task, look: look.state(task.status)),
    Column("NAME", lambda task, look: look.text(task.name) if task.name else look.nothing(), 8),
    Column("", lambda task, look: Text("" if task.is_new else "was known by its key", "dim"), 6),
)

PLANNED = (
    Column("LAYER", lambda row, look: Text(str(row["layer"])), is_right=True),
    Column("NAME", lambda row, look: look.text(row["name"] or row["task_id"], "bold"), is_id=True),
    Column("TYPE", lambda row, look: look.text(row["type"]), 6),
    Column("NEEDS", lambda row, look: look.names(row["required_capabilities"]), 5),
    Column("AFTER", lambda row, look: look.names(row["depends_on"]), 7),
)

PLANNED_WITH_AGENTS = (
    *PLANNED,
    Column(
        "AGENTS",
        lambda row, look: look.names(row["agents"]) if row["agents"] else look.text("nobody", "red"),
        6,
    ),
)

SETTINGS = (
    Column("SETTING", lambda row, look: _name_of_setting(row, look), is_id=True),
    Column(
        "VALUE",
        lambda row, look: _dimmed(_setting(row["value"], look), bool(row.get("is_beaten"))),
        is_id=True,
        fold_at=20,
    ),
    Column(
        "FROM",
        lambda row, look: look.text(row["origin"], "dim" if row["origin"] == "default" else "cyan"),
        is_id=True,  # the end of it has the line of the file
        fold_at=20,
    ),
)

PROCESSES = (
    Column("PROCESS", lambda row, look: look.text(row["name"], "bold"), is_id=True),
    Column("STATE", lambda row, look: _process_state(row["state"], look)),
    Column("PID", lambda row, look: look.number(row["pid"]), 4, is_right=True),
    Column("STARTS", lambda row, look: look.number(row["starts"]), 3, is_right=True),
    Column("SINCE", lambda row, look: look.age(row["since"]), 2),
    Column("NOTE", lambda row, look: look.text(row["note"]), 1),
)

PROFILES = (
    Column("", lambda row, look: look.text("*" if row["active"] else "", "bold green")),
    Column("NAME", lambda row, look: look.text(row["name"], "bold"), is_id=True),
    Column("URL", lambda row, look: look.text(row["url"]), is_id=True),
    Column("TOKEN", lambda row, look: look.text(row["token"])),
    Column("CA", lambda row, look: look.text(row["ca"])),
)

TOKENS = (
    Column("NAME", lambda token, look: look.text(token.name, "bold"), is_id=True),
    Column(
        "STATUS", lambda token, look: look.text(token.status, "green" if token.status == "active" else "dim")
    ),
    Column("SCOPES", lambda token, look: look.names(token.scopes), is_id=True),
    Column("USED", lambda token, look: look.age(token.last_used_at)),
    Column("EXPIRES", lambda token, look: look.age(token.expires_at)),
    Column("CREATED", lambda token, look: look.age(token.created_at), 5),
    Column("ID", lambda token, look: look.text(token.token_id, "dim"), 5, is_id=True),
)

CHECKS = (
    Column("CHECK", lambda finding, look: look.text(finding.name, "bold"), is_id=True),
    Column("", lambda finding, look: _checked(finding, look)),
    Column("FOUND", lambda finding, look: look.text(finding.text), is_id=True),
)


def _members(one: DeadlockView, look: Look) -> Text:
    """Who waits for whom: for a person by name."""
    return look.crowd(listed(one.members, one.names)) if look.is_terminal else look.names(one.members[:20])


def _vote_of(vote: dict[str, Any], look: Look) -> Text:
    """What was said; in its place what became of a voter that said nothing."""
    answer = vote.get("vote", vote.get("answer"))
    if answer is None and vote.get("status") not in (None, "answered"):
        return look.text(vote["status"], "dim")
    if answer is None and vote.get("status") == "answered":
        return look.text("has voted", "dim")
    return look.json(answer, 200)


def _pool(pool: str, look: Look) -> Text:
    """On a terminal the default pool goes without saying."""
    return Text("") if look.is_terminal and pool == DEFAULT_POOL else look.text(pool)


def _verified(one: ReliabilityView) -> Text:
    """Outcomes, each of which counts for three."""
    return Text(
        f"{one.verified_successes / VERIFIED_WEIGHT:.0f} of {one.verified_trials / VERIFIED_WEIGHT:.0f}"
    )


def _exactly(share: float | None, look: Look) -> Text:
    """A share as a percentage with one decimal: rules differ by less than one per cent."""
    return look.nothing() if share is None else Text(f"{share:.1%}")


def _brought(attempt: AttemptView, look: Look) -> Text:
    if attempt.error:
        return look.sentence(coded(attempt.error), "red")
    if attempt.result is not None:
        return look.json(attempt.result, 200)
    if attempt.progress is not None and attempt.finished_at is None:
        return look.progress(attempt.progress) + Text("  ") + look.text(attempt.note)
    return look.text(attempt.note)


def _leads(node: NodeView, look: Look) -> str:
    """What only one node does, and this one does."""
    own, joined = ("pool", ", ") if look.is_terminal else ("its pool", " and ")
    leads = [*([own] if node.is_leader else []), *(["monitors"] if node.is_chief else [])]
    return joined.join(leads) or "-"


def _next(schedule: ScheduleView, look: Look) -> Text:
    """When it runs next, if it does."""
    return look.age(schedule.next_at) if schedule.state in ("active", "failing") else look.nothing()


def _process_state(state: str, look: Look) -> Text:
    """A process that runs is as it should be; a task that runs is on its way."""
    if state != "running" or not look.is_terminal:
        return look.state(state)
    return look.sign("online") + Text(" ") + look.text(state, "green")


def _name_of_setting(row: Any, look: Look) -> Text:
    """On a terminal the layers that a value goes before stand below it without its name."""
    return Text("") if row.get("is_beaten") and look.is_terminal else look.text(row["name"], "bold")


def _dimmed(text: Text, is_dim: bool) -> Text:
    if is_dim:
        text.stylize("dim")
    return text


def _setting(value: Any, look: Look) -> Text:
    """A value as a configuration file would say it."""
    if isinstance(value, bool):
        return Text(str(value).lower())
    if isinstance(value, float):
        return Text(f"{value:g}")
    return look.text(value) if value != "" else look.nothing()


def _checked(finding: Any, look: Look) -> Text:
    state = {True: "completed", False: "failed", None: "pending"}[finding.ok]
    word = {True: "ok", False: "fail", None: "note"}[finding.ok]
    return look.sign(state) if look.is_terminal else Text(word)


FIELDS = (
    Column("FIELD", lambda row, look: look.text(row["name"], "bold"), is_id=True),
    Column("TYPE", lambda row, look: look.text(row["type"], "cyan"), weight=2),
    Column("MEANING", lambda row, look: look.text(row["meaning"])),
)
