"""The fleet on one page: counts, agents, what runs, what ended, votes, alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from agentorch_cli.cli import columns, money
from agentorch_cli.cli.look import Look, span
from agentorch_cli.cli.tables import Column, Page
from agentorch_cli.views import StatusView

TASK_ORDER = ("running", "pending", "blocked", "completed", "failed", "cancelled", "skipped")
AGENT_ORDER = ("online", "draining", "paused", "offline")


def draw(page: Page, status: StatusView) -> None:
    """The whole page, once."""
    look = page.look
    for line in head(status, look):
        page.line(line)
    for title, column, rows in parts(status):
        page.heading(f"{title} ({len(rows)})" if look.is_terminal else title)
        page.table(column, rows)


def head(status: StatusView, look: Look) -> list[Text]:
    """The lines on top: alarms, nodes, agents, tasks."""
    lines = [_alarm(sentence, look) for sentence in status.alarms]
    nodes = [node for node in status.nodes if node.is_live]
    where = ", ".join(f"{node.host}:{node.port}" if node.port else node.host for node in nodes)
    title = Text("Engine  ", "bold")
    lines.append(
        title + (look.sign("online") + " " + look.text(where) if nodes else Text("not running", "yellow"))
    )
    agents = counts(status.agent_counts, AGENT_ORDER, look) or [Text("none registered", "dim")]
    tasks = counts(status.task_counts, TASK_ORDER, look) or [Text("none yet", "dim")]
    if status.oldest_pending_seconds:
        tasks.append(Text(f"oldest waits for {span(status.oldest_pending_seconds)}", "dim"))
    spent = money.spend(status.spend)
    return [
        *lines,
        *wrapped("Agents", agents, look),
        *wrapped("Tasks", tasks, look),
        *(wrapped("Spent", [spent], look) if spent is not None else []),
    ]


def parts(status: StatusView) -> list[tuple[str, Sequence[Column], Sequence[Any]]]:
    """The tables of the page that have rows, in their order."""
    every: list[tuple[str, Sequence[Column], Sequence[Any]]] = [
        ("AGENTS", columns.AGENTS, status.agents),
        ("RUNNING", columns.RUNNING, status.running),
        ("RECENT", columns.OUTCOMES, status.recent),
        ("VOTES", columns.VOTE_OUTCOMES, status.decisions),
        ("BUDGETS", money.BUDGETS, status.budgets),
    ]
    return [part for part in every if part[2]]


def counts(found: Mapping[str, int], order: Sequence[str], look: Look) -> list[Text]:
    """`● 3 running`, `○ 12 pending`, without the states that nothing is in."""
    states = [*(state for state in order if found.get(state)), *sorted(set(found) - set(order))]
    return [look.sign(state) + f" {found[state]:,} " + look.text(state) for state in states if found[state]]


def wrapped(title: str, pieces: Sequence[Text], look: Look) -> list[Text]:
    """Pieces side by side, on as many lines as they need; none is broken."""
    lines = [Text(f"{title:<8}", "bold")]
    for piece in pieces:
        is_first = lines[-1].plain.endswith(" ")
        gap = "" if is_first else "   "
        if look.is_terminal and not is_first and lines[-1].cell_len + len(gap) + piece.cell_len > look.width:
            lines.append(Text(" " * 8) + piece)
        else:
            lines[-1] = lines[-1] + gap + piece
    return lines


def _alarm(sentence: str, look: Look) -> Text:
    return Text("! ", "bold red") + look.text(sentence, "red")
