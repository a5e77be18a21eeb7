"""One task, told: what it is, what happened to it, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from rich.text import Text

from agentorch_cli.cli import columns, money
from agentorch_cli.cli.look import SPACIOUS, Look, moment, span
from agentorch_cli.cli.names import Teller, called, listed
from agentorch_cli.cli.tables import Column, Page
from agentorch_cli.views import DecisionView, EventView, OutcomeView, TaskView, WhyLink, WhyView

MOST_LINES = 60
"""Of a reason; a traceback of a command is shown as it was written."""

LONG_KIND = 17
"""Letters of most kinds of events."""

MOST_ALIKE = 3
"""Agents that are named one by one where the same stands in the way of all."""

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
    "consensus_opened": "vote opened",
    "ballot_cast": "vote cast by",
    "consensus_decided": "vote closed",
}


ENDS = {
    "threshold": "enough of them agree",
    "certain": "no ballot that is out could change it",
    "confidence": "it is sure enough",
    "exhausted": "everybody was heard",
    "impossible": "no answer could win any more",
    "too_few": "fewer voters are left than it needs",
    "plurality": "the most popular answer was taken",
    "deadline": "its time was over",
}
"""What ended a vote, in words."""

JUDGES = {"judge": "a judge decided", "person": "a person closed it"}
"""Who ended it, where that is no rule."""


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
        page.line(look.lines(columns.coded(task.error), MOST_LINES, "red"))
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
    """One step of the story: when, and what, who, the details in as many lines as they have."""
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
        parts += ["  ", look.lines(details, MOST_LINES, "dim")]
    return Text(when, "dim"), Text.assemble(*parts)


def draw_why(page: Page, why: WhyView) -> None:
    """The chain of reasons, each as deep as it lies, with how long it has held."""
    look = page.look
    name = called(why.task_id, why.names)
    page.title(why.status, name, why.task_id if name != why.task_id else "")
    told: Callable[[str], str] = Teller(why.names, why.task_id) if look.is_terminal else str
    for link in why.links:
        margin = 2 * (link.depth + 1)
        whose = f"{told(link.task_id)} " if link.depth else ""
        since = f"  for {span(link.seconds)}" if link.seconds is not None else ""
        page.indented(
            margin, look.text(whose, "bold"), look.text(told(link.sentence)), look.text(since, "dim")
        )
        for obstacle in _obstacles(link, look, told):
            page.indented(margin + 2, obstacle)


def _obstacles(link: WhyLink, look: Look, told: Callable[[str], str]) -> list[Text]:
    """Agents with what stands in the way of each; on a terminal those with the same reason together.

    Those who are nearest to taking it stand on top: the fewer have a reason, the more it says.
    """
    alike: dict[str, list[str]] = {}
    reasons = {agent: told(reason or "could take it") for agent, reason in link.agents.items()}
    for agent, reason in reasons.items():
        alike.setdefault(reason, []).append(agent)

    def one_by_one(agents: Iterable[str]) -> list[Text]:
        return [Text.assemble(look.text(one, "bold"), " ", look.text(reasons[one], "dim")) for one in agents]

    if not look.is_terminal:
        return one_by_one(reasons)
    found: list[Text] = []
    for reason, agents in sorted(alike.items(), key=lambda one: len(one[1])):
        if len(agents) <= MOST_ALIKE:
            found += one_by_one(agents)
            continue
        named = Text(", ").join(look.text(one, "bold") for one in agents[:MOST_ALIKE])
        more = Text(f" and {len(agents) - MOST_ALIKE:,} more", "dim")
        found.append(Text.assemble(look.text(reason, "dim"), ": ", named, more))
    return found


def offset(seconds: float) -> str:
    """A time offset: milliseconds matter in the first minute only."""
    return f"{seconds:.3f}s" if seconds < 60 else span(seconds)


def draw_events(page: Page, events: list[EventView]) -> None:
    """Events of several tasks: as a table, or where it would have no room for what happened, as lines."""
    if page.look.is_terminal and page.look.width < SPACIOUS:
        for event in events:
            draw_event(page, event)
    else:
        page.table(EVENTS, events)


def draw_event(page: Page, event: EventView) -> None:
    """One event as a line, at once: of a log that is followed."""
    look = page.look
    if look.is_terminal:
        page.hanging(look.clock(event.at) + Text("  "), _followed(event, look))
    else:
        page.line(Text("\t").join(column.cell(event, look) for column in EVENTS))
    page.stream.flush()


def _followed(event: EventView, look: Look) -> Text:
    """What, with which task, who, and the details: the lines stand in columns as far as they can."""
    kind = look.text(event.kind, _color(event.kind))
    kind.append(" " * max(0, LONG_KIND - kind.cell_len))
    parts = [kind, look.text(event.task_id, "dim"), look.text(event.agent_id, "bold")]
    line = Text("  ").join(part for part in [*parts, look.text(_details(event))] if part.plain)
    line.rstrip()
    return line


def draw_decision(page: Page, decision: DecisionView) -> None:
    """A vote: its rule, its answers as bars, its ballots, and how sure it is."""
    look = page.look
    page.title(decision.status, columns.topic(decision, look), decision.decision_id)
    page.pairs(_vote_facts(decision, look))
    if decision.counts:
        page.heading("ANSWERS")
        page.pairs(_bars(decision, look))
    if decision.votes:
        page.heading("BALLOTS" if decision.decided_at else "BALLOTS (sealed until the vote closes)")
        dissent = {one.get("agent_id") for one in decision.dissent}
        rows = [{**vote, "dissents": vote.get("agent_id") in dissent} for vote in decision.votes]
        page.table(columns.BALLOTS, rows)
    if decision.late_votes:
        page.heading("CAME LATE, NOT COUNTED")
        page.pairs([(str(one["agent_id"]), look.json(one["answer"], 200)) for one in decision.late_votes])
    if decision.escalation:
        page.heading("WITHOUT AGREEMENT")
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
        ("after", _after(task, look) if task.depends_on else None),
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
        ("estimate", Text(span(estimate)) if (estimate := task.options.get("estimate_seconds")) else None),
        ("limits", _limits(task)),
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


def _after(task: TaskView, look: Look) -> Text:
    """What it depends on; on a pipe by id."""
    return look.names(listed(task.depends_on, task.names) if look.is_terminal else task.depends_on)


def _limits(task: TaskView) -> Text | None:
    """How long an attempt may take, and how many may fail: of interest until all went well."""
    if task.timeout_seconds is None or task.status in ("completed", "cancelled", "skipped"):
        return None
    retries = "1 retry" if task.retries == 1 else f"{task.retries or 'no'} retries"
    return Text(f"{span(task.timeout_seconds)} an attempt, {retries}")


def _is_paid(task: TaskView) -> bool:
    """Whether usage is worth a line: somebody told some, or a budget pays for it."""
    told = task.usage is not None and (task.usage.cost_usd is not None or task.usage.tokens is not None)
    return told or (bool(task.budgets) and task.usage is not None and task.usage.unknown_attempts > 0)


def _vote_facts(decision: DecisionView, look: Look) -> list[tuple[str, Text]]:
    decide = "one vote decides" if decision.needed == 1 else f"{decision.needed} equal votes decide"
    needed = f", {decide}" if decision.needed else ""
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
        ("decided by", _decided(decision.decided_by, look) if decision.decided_by else None),
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


def _decided(by: str, look: Look) -> Text:
    """What ended the vote: its word, and what that means."""
    meant = ENDS.get(by)
    return look.text(by.replace("_", " ")) + (look.text(f"  {meant}", "dim") if meant else Text(""))


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
    match event.kind:
        case "consensus_opened":
            asked = ", ".join(map(str, data.get("voters") or ()))
            return f"{data.get('rule')}, voters: {asked}" if asked else str(data.get("rule") or "")
        case "ballot_cast":
            return "" if data.get("status") == "answered" else str(data.get("status") or "")
        case "consensus_decided":
            by = str(data.get("decided_by"))
            is_reached = "reached" if data.get("status") == "reached" else "not reached"
            return f"{is_reached}: {ENDS.get(by) or JUDGES.get(by) or by}"
    return ", ".join(f"{key}: {_brief(value)}" for key, value in data.items() if value is not None)


def _brief(value: Any) -> str:
    """A value among the details of an event."""
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _moved(data: dict[str, Any]) -> str:
    """Where an attempt went, and what that did to the loads."""
    before, after = data.get("before") or {}, data.get("after") or {}
    taker = f" and given to {data['to']}" if data.get("to") else ""
    loads = "; ".join(f"{agent}: {before[agent]:.0%} -> {after.get(agent, 0):.0%}" for agent in before)
    return f"{MOVES[data['why']]}{taker} ({loads})"


def _color(kind: str) -> str:
    kind = kind.removeprefix("task_").removeprefix("attempt_")
    if kind in ("completed", "reached"):
        return "green"
    if kind in ("failed", "lost", "timed_out", "cancelled"):
        return "red"
    return ""


def _detail_cell(event: EventView, look: Look) -> Text:
    """In words; on a pipe all that there is, as JSON."""
    return look.text(_details(event)) if look.is_terminal else look.json(event.data or None)


EVENTS = (
    Column("AT", lambda event, look: look.clock(event.at)),
    Column("KIND", lambda event, look: look.text(event.kind, _color(event.kind))),
    Column("TASK", lambda event, look: look.text(event.task_id, "bold"), 8, is_id=True),
    Column("AGENT", lambda event, look: look.text(event.agent_id), 7, is_id=True),
    Column("DETAILS", lambda event, look: _detail_cell(event, look), 5),
    Column("CURSOR", lambda event, look: look.text(event.cursor, "dim"), 1, is_id=True),
)
