"""What the tables of the cockpit show, and how each sorts and filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agentorch_cli.cli import board, columns, crew
from agentorch_cli.cli.look import Look
from agentorch_cli.cli.tables import Column
from agentorch_cli.text import natural
from agentorch_cli.views import StatusView, TaskView

WORDS = (
    "agent_id", "task_id", "name", "type", "status", "pool", "capabilities", "required_capabilities", "topic",
    "submission_id", "assigned_agents", "rule", "reason", "members",
)  # fmt: skip
"""Fields in which a filter looks."""

LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class State:
    """All that was asked for."""

    status: StatusView
    tasks: Sequence[TaskView] = ()
    """The newest, without the running ones that are older."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One table."""

    name: str
    noun: str
    """Of one row: what Enter opens."""
    columns: Callable[[State], Sequence[Column]]
    rows: Callable[[State], Sequence[Any]]
    key: Callable[[Any], str]
    orders: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """By title of a column: the value that is sorted by. Others sort by what they show."""
    more: Callable[[Any], str] = lambda row: ""
    """What a filter looks at besides what is shown."""


def words_of(row: Any) -> str:
    """Texts of a row that no column may show: capabilities, types, ids, reasons."""
    return " ".join(str(getattr(row, name, "")) for name in WORDS)


def tasks_of(state: State) -> list[TaskView]:
    """Running ones first, the longest on top; then the newest."""
    running = {task.task_id: task for task in state.status.running}
    ended = {task.task_id for task in state.tasks if task.status not in ("running", "pending", "blocked")}
    found = {one: task for one, task in running.items() if one not in ended}
    for task in state.tasks:
        found.setdefault(task.task_id, task)
    rank = {state: number for number, state in enumerate(board.TASK_ORDER)}
    return sorted(found.values(), key=lambda task: rank[task.status] if task.status == "running" else 9)


_by_title = {column.title: column for column in (*columns.RUNNING, *columns.TASKS)}

TASKS = (
    _by_title["STATUS"],
    Column("NAME", lambda task, look: look.text(columns.label(task), "bold"), least=28),
    _by_title["PROGRESS"],
    Column("FOR", columns.took, 7, is_right=True),
    _by_title["AGENTS"],
    _by_title["NOTE"],
    _by_title["PRIO"],
    _by_title["TRIES"],
    _by_title["AGE"],
    Column("TASK", lambda task, look: look.text(task.task_id, "dim"), 4, is_id=True),
    _by_title["POOL"],
)

LISTINGS = (
    Listing(
        "Agents",
        "agent",
        lambda state: crew.crew(state.status),
        lambda state: crew.in_order(state.status.agents, state.status.at),
        lambda agent: str(agent.agent_id),
        {
            "AGENT": lambda agent: natural(agent.agent_id),
            "LOAD": lambda agent: (agent.load, agent.queued),
            "SLOTS": lambda agent: agent.slots,
            "SCORE": lambda agent: agent.performance_score,
            "P50": lambda agent: agent.latency_p50_ms or 0.0,
            "DONE": lambda agent: agent.completed,
            "FAILED": lambda agent: agent.failed,
            "SEEN": lambda agent: agent.last_heartbeat or LONG_AGO,
        },
        words_of,
    ),
    Listing(
        "Tasks",
        "task",
        lambda state: TASKS,
        tasks_of,
        lambda task: str(task.task_id),
        {
            "PROGRESS": lambda task: task.progress or 0.0,
            "PRIO": lambda task: task.priority,
            "TRIES": lambda task: task.attempts_made,
            "AGE": lambda task: task.created_at or LONG_AGO,
            "FOR": lambda task: (task.completed_at or datetime.now(UTC)) - (task.started_at or LONG_AGO),
        },
        words_of,
    ),
    Listing(
        "Votes",
        "vote",
        lambda state: columns.VOTE_OUTCOMES,
        lambda state: state.status.decisions,
        lambda decision: str(decision.decision_id),
        {
            "VOTES": lambda decision: decision.votes_used,
            "SURE": lambda decision: decision.confidence or 0.0,
        },
        words_of,
    ),
    Listing(
        "Deadlocks",
        "deadlock",
        lambda state: columns.DEADLOCKS,
        lambda state: state.status.deadlocks,
        lambda deadlock: str(deadlock.deadlock_id),
        {
            "WAITED": lambda deadlock: deadlock.waited_s,
            "FOUND": lambda deadlock: deadlock.detected_at,
        },
        words_of,
    ),
)


def filtered(listing: Listing, rows: Sequence[Any], words: str, shown: Callable[[Any], str]) -> list[Any]:
    """Rows that hold every word; those after a `!` must not be there."""
    wanted = words.casefold().split()
    if not wanted:
        return list(rows)

    def fits(row: Any) -> bool:
        text = f"{shown(row)} {listing.more(row)}".casefold()
        return all(word[1:] not in text if word.startswith("!") else word in text for word in wanted)

    return [row for row in rows if fits(row)]


def ordered(
    listing: Listing, rows: Sequence[Any], column: Column | None, look: Look, *, is_reversed: bool
) -> list[Any]:
    """By a column, or as they came. Equal ones stay in their order."""
    if column is None:
        return list(rows)
    by = listing.orders.get(column.title, lambda row: column.cell(row, look).plain.casefold())
    return sorted(rows, key=by, reverse=is_reversed)
