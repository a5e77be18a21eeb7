"""One task, told: what it is, what happened to it, and what came of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.text import Text

from agentorch_cli.cli import columns, money
from agentorch_cli.cli.look import Look, moment, span
from agentorch_cli.cli.tables import Column, Page
from agentorch_cli.views import DecisionView, EventView, OutcomeView, TaskView, WhyView

MOST_LINES = 60
"""Of a reason; a traceback of a command is shown as it was written."""

WORDS = {
    # kind of event: how the story says it; where an agent takes part, its name follows
    "submitted": "submitted",
    "assigned": "given to",
    "accepted": "taken by",
    "completed": "completed by",
    "failed": "failed at",
    "requeued": "will be tried again after",
    "resumed": "goes on, after a reconnect, at",
    "resent": "given once more, after a reconnect, to",
    "lost": "lost with",
    "timed_out": "ran out of time at",
    "retried": "opened again",
    "moved": "taken back from",
    "straggler_backed_up": "given a backup, for it lasts long with",
    "skipped": "left out",
    "budget_reserved": "reserved for",
    "budget_settled": "paid for",
    "budget_returned": "given back by",
}


MOVES = {
    "balance": "loads were uneven",
    "idle": "somebody was idle",
    "waited": "it was busy for too long",
}
"""Why an attempt was moved."""


def draw(page: Page, task: TaskView) -> None:
    """The page of a task."""
    look = page.look
    page.title(task.status, columns.label(task), task.task_id)
    page.pairs(_facts(task, look))
    if task.error:
        page.heading("WHY")
        for line in columns.coded(task.error).splitlines()[:MOST_LINES]:
            page.line(look.text(line, "red"))
    if task.result is not None:
        page.heading("RESULT")
        page.show(look.block(task.result))
    if task.events:
        page.heading("STORY")
        start = task.created_at or task.events[0].at
        page.pairs([told(event, start, look) for event in task.events])
    if task.attempts:
        page.heading("ATTEMPTS")
        page.table(columns.ATTEMPTS, task.attempts)
    if task.decision:
        page.heading("VOTE")
        draw_decision(page, task.decision)
    if task.data not in (None, {}):
        page.heading("DATA")
        page.show(look.block(task.data))


def told(event: EventView, start: datetime, look: Look) -> tuple[Text, Text]:
    """One line of the story: when, and what, who, the details."""
    seconds = max((event.at - start).total_seconds(), 0.0)
    when = f"{'+' + offset(seconds):>9}" if look.is_terminal else moment(event.at)
    kind = event.kind.removeprefix("task_").removeprefix("attempt_")
    words = WORDS.get(kind, kind.replace("_", " "))
    if event.agent_id is None:
        words = words.removesuffix(" by").removesuffix(" at")
    parts: list[Text | str] = [look.text(words, _color(kind))]
    if event.agent_id is not None:
        parts += [" ", look.text(event.agent_id, "bold")]
    if details := _details(event):
        parts += ["  ", look.text(details, "dim")]
    return Text(when, "dim"), Text.assemble(*parts)


def draw_why(page: Page, why: WhyView) -> None:
    """The chain of reasons, each as deep as it lies, with how long it has held."""
    look = page.look
    page.title(why.status, why.task_id, "")
    for link in why.links:
        margin = "  " * (link.depth + 1)
        name = f"{link.task_id} " if link.depth else ""
        since = f"  for {span(link.seconds)}" if link.seconds is not None else ""
        page.line(margin, look.text(name, "bold"), look.text(link.sentence), look.text(since, "dim"))
        for agent_id, reason in link.agents.items():
            page.line(
                margin + "  ", look.text(agent_id, "bold"), " ", look.text(reason or "could take it", "dim")
            )


def offset(seconds: float) -> str:
    """A time offset: milliseconds matter in the first minute only."""
    return f"{seconds:.3f}s" if seconds < 60 else span(seconds)


def draw_events(page: Page, events: list[EventView]) -> None:
    """Events of several tasks, as a table."""
    page.table(EVENTS, events)


def draw_event(page: Page, event: EventView) -> None:
    """One event as a line, at once: of a log that is followed."""
    cells = [column.cell(event, page.look) for column in EVENTS]
    page.line(Text("\t" if not page.look.is_terminal else "  ").join(cells))
    page.stream.flush()


def draw_decision(page: Page, decision: DecisionView) -> None:
    """A vote: its rule, its answers as bars, its ballots, and how sure it is."""
    look = page.look
    page.title(decision.status, decision.topic, decision.decision_id)
    page.pairs(_vote_facts(decision, look))
    if decision.counts:
        page.heading("Answers")
        page.pairs(_bars(decision, look))
    if decision.votes:
        page.heading("Ballots" if decision.decided_at else "Ballots (sealed until the vote closes)")
        dissent = {one.get("agent_id") for one in decision.dissent}
        rows = [{**vote, "dissents": vote.get("agent_id") in dissent} for vote in decision.votes]
        page.table(columns.BALLOTS, rows)
    if decision.late_votes:
        page.heading("Came late, not counted")
        page.pairs([(str(one["agent_id"]), look.json(one["answer"], 200)) for one in decision.late_votes])
    if decision.escalation:
        page.heading("Without agreement")
        page.pairs([(str(step.get("step")), look.text(_step(step))) for step in decision.escalation])


def _bars(decision: DecisionView, look: Look) -> list[tuple[str, Text]]:
    """Each answer with its share of the votes."""
    total = sum(decision.counts.values()) or 1
    return [
        (answer[:60], look.progress(number / total) + Text(f"  {number} of {total}"))
        for answer, number in decision.counts.items()
    ]


def _step(step: dict[str, Any]) -> str:
    """What was done because the voters did not agree."""
    match step.get("step"):
        case "voters":
            return "asked " + ", ".join(step.get("added", ())) + " as well"
        case "judge":
            return f"called an agent with the capability {step.get('capability')}"
        case "judged":
            return f"{step.get('agent_id')} decided"
        case _:
            return "took the most popular answer"


def draw_outcome(page: Page, learned: OutcomeView) -> None:
    """What a verified outcome did."""
    look = page.look
    word = {True: "right", False: "wrong", None: "known"}[learned.is_right]
    page.line(look.text(learned.task_id, "bold"), f" is {word}; {learned.credited} agents were credited.")
    page.line(
        look.text(
            f"{learned.verified} outcomes of {learned.capability} are verified"
            + (f", its confidence is calibrated on {learned.calibrated}." if learned.calibrated else "."),
            "dim",
        )
    )


def _facts(task: TaskView, look: Look) -> list[tuple[str, Text]]:
    """What is worth saying about the task: nothing that is only a default."""
    made = look.age(task.created_at)
    facts: list[tuple[str, Text | None]] = [
        ("type", look.text(task.type)),
        ("needs", look.names(task.required_capabilities) if task.required_capabilities else None),
        ("priority", Text(str(task.priority)) if task.priority != 5 else None),
        ("agents", look.names(task.assigned_agents) if task.assigned_agents else None),
        ("after", look.names(task.depends_on) if task.depends_on else None),
        (
            "waits for",
            Text(f"{task.waiting_on} of {len(task.depends_on)} dependencies") if task.waiting_on else None,
        ),
        (
            "progress",
            look.progress(task.progress) if task.progress is not None and not task.completed_at else None,
        ),
        ("submitted", made),
        ("runs from", look.age(task.run_at) if task.run_at and task.run_at > look.now else None),
        ("deadline", look.age(task.deadline) if task.deadline else None),
        ("took", columns.took(task, look) if task.started_at else None),
        ("attempts", Text(f"{task.attempts_made}, {task.failures} failed") if task.failures else None),
        ("used", look.text(money.used(task.usage)) if task.usage and _is_paid(task) else None),
        *[("budget", look.text(money.charged(one))) for one in task.budgets],
        ("parent", look.text(task.parent_id) if task.parent_id else None),
        ("key", look.text(task.idempotency_key) if task.idempotency_key else None),
        (
            "labels",
            look.names([f"{key}={value}" for key, value in task.labels.items()]) if task.labels else None,
        ),
    ]
    return [(name, value) for name, value in facts if value is not None]


def _is_paid(task: TaskView) -> bool:
    """Whether usage is worth a line: somebody told some, or a budget pays for it."""
    told = task.usage is not None and (task.usage.cost_usd is not None or task.usage.tokens is not None)
    return told or (bool(task.budgets) and task.usage is not None and task.usage.unknown_attempts > 0)


def _vote_facts(decision: DecisionView, look: Look) -> list[tuple[str, Text]]:
    needed = f", {decision.needed} equal votes decide" if decision.needed else ""
    saved = (
        f", {decision.votes_not_asked} not asked: {decision.votes_not_asked / decision.electorate:.0%} saved"
        if decision.votes_not_asked and decision.electorate
        else ""
    )
    dissent = ", ".join(str(one.get("agent_id", one)) for one in decision.dissent)
    known = {True: "known to be right", False: "known to be wrong"}
    facts = [
        ("question", look.json(decision.question) if decision.question is not None else None),
        ("rule", look.text(decision.rule + needed)),
        ("votes", Text(columns.votes(decision) + saved)),
        ("answer", look.json(decision.final_decision)),
        ("sure", _sure(decision, look) if decision.confidence is not None else None),
        ("decided by", look.text(decision.decided_by) if decision.decided_by else None),
        ("dissent", look.text(dissent) if dissent else None),
        ("truth", look.text(known[decision.verified]) if decision.verified is not None else None),
        ("lost", look.text(", ".join(decision.lost_agents)) if decision.lost_agents else None),
        (
            "open until",
            look.age(decision.deadline) if decision.deadline and not decision.decided_at else None,
        ),
        ("closed by", look.text(decision.closed_by) if decision.closed_by else None),
    ]
    return [(name, value) for name, value in facts if value is not None]


def _sure(decision: DecisionView, look: Look) -> Text:
    basis = f" ({decision.confidence_basis})" if decision.confidence_basis else ""
    return columns.percent(decision.confidence, look) + look.text(basis, "dim")


def _details(event: EventView) -> str:
    """What an event carries: its sentence, if it has one, else all of it."""
    data = event.data
    if event.kind.startswith("budget_"):
        return money.booked(data)
    if data.get("message"):
        return str(data["message"])
    if data.get("why") in MOVES:
        return _moved(data)
    return ", ".join(
        f"{key}: {value:g}" if isinstance(value, float) else f"{key}: {value}"
        for key, value in data.items()
        if value is not None
    )


def _moved(data: dict[str, Any]) -> str:
    """Where an attempt went, and what that did to the loads."""
    before, after = data.get("before") or {}, data.get("after") or {}
    taker = f" and given to {data['to']}" if data.get("to") else ""
    loads = "; ".join(f"{agent}: {before[agent]:.0%} -> {after.get(agent, 0):.0%}" for agent in before)
    return f"{MOVES[data['why']]}{taker} ({loads})"


def _color(kind: str) -> str:
    if kind in ("completed", "reached"):
        return "green"
    if kind in ("failed", "lost", "timed_out", "cancelled"):
        return "red"
    return ""


EVENTS = (
    Column("AT", lambda event, look: look.age(event.at)),
    Column("KIND", lambda event, look: look.text(event.kind, _color(event.kind))),
    Column("TASK", lambda event, look: look.text(event.task_id, "bold"), 8, is_id=True),
    Column("AGENT", lambda event, look: look.text(event.agent_id), 7, is_id=True),
    Column("DETAILS", lambda event, look: look.json(event.data or None, 200), 5),
    Column("CURSOR", lambda event, look: look.text(event.cursor, "dim"), 1, is_id=True),
)
