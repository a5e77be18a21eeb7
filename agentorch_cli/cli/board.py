"""The fleet on one page: counts, flow, agents, what runs, what ended, votes, alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from agentorch_cli.cli import columns, crew, money
from agentorch_cli.cli.look import Look, span
from agentorch_cli.cli.sparks import History, rate, spark
from agentorch_cli.cli.tables import Column, Page
from agentorch_cli.views import NodeView, StatusView

TASK_ORDER = ("running", "pending", "blocked", "completed", "failed", "cancelled", "skipped")
AGENT_ORDER = ("online", "draining", "paused", "offline")
ENDED = frozenset(TASK_ORDER[3:])

NARROW = 50
"""Columns below which a count is a sign with a number."""

LOW = 16
"""Lines below which the flow has no bars: there is a table in their place."""

Part = tuple[str, Sequence[Column], Sequence[Any]]
"""Title, columns and rows of one table."""


def draw(page: Page, status: StatusView) -> None:
    """The whole page, once."""
    look = page.look
    for line in head(status, look):
        page.line(line)
    for title, column, rows in parts(status, look):
        page.heading(f"{title} ({len(rows)})" if look.is_terminal else title)
        page.table(column, rows)


def head(status: StatusView, look: Look) -> list[Text]:
    """The lines on top: alarms, nodes, agents, tasks, flow, spend."""
    history = History()
    history.add(status.flow)
    title = Text.assemble(("Engine  ", "bold"), where(status.nodes, look))
    return [*(alarm(one, look) for one in status.alarms), title, *facts(status, look, history)]


def where(nodes: Sequence[NodeView], look: Look) -> Text:
    """The serve processes that live."""
    live = [node for node in nodes if node.is_live]
    if not live:
        return Text.assemble(
            ("not running", "yellow"), ("; agentorch serve or agentorch up starts it", "dim")
        )
    names = ", ".join(f"{node.host}:{node.port}" if node.port else node.host for node in live[:3])
    return look.sign("online") + " " + look.text(names + (f" +{len(live) - 3}" if len(live) > 3 else ""))


def facts(status: StatusView, look: Look, history: History) -> list[Text]:
    """How many agents and tasks there are, what comes and goes, and what it costs."""
    agents = counts(status.agent_counts, AGENT_ORDER, look) or [Text("none yet", "dim")]
    estimated = ENDED if status.counts_estimated else frozenset()
    tasks = counts(status.task_counts, TASK_ORDER, look, estimated) or [Text("none yet", "dim")]
    if status.oldest_pending_seconds:
        words = "oldest" if look.is_terminal and look.width < NARROW else "oldest waits for"
        tasks.append(Text(f"{words} {span(status.oldest_pending_seconds)}", "dim"))
    spent = money.spend(status.spend)
    return [
        *wrapped("Agents", agents, look),
        *wrapped("Tasks", tasks, look),
        *(wrapped("Flow", flow(history, look), look) if sum(status.task_counts.values()) else []),
        *(wrapped("Spent", spent, look) if spent else []),
    ]


def flow(history: History, look: Look) -> list[Text]:
    """What comes in and goes out, per second, with the bars of the last minute or more."""
    came, ended = history.lines(steps_shown(look))
    has_room = look.is_terminal and look.height >= LOW
    bars = [(came, "yellow"), (ended, "green")] if has_room else []
    words = (("in", history.in_per_second), ("out", history.out_per_second))
    pieces = []
    for index, (word, per_second) in enumerate(words):
        piece = Text.assemble(word, " ", (f"{rate(per_second):>7}" if bars else rate(per_second)))
        if bars:
            piece += Text(" ") + spark(bars[index][0], look, bars[index][1])
        pieces.append(piece)
    return pieces


def steps_shown(look: Look) -> int:
    """How many bars two lines of the flow have room for side by side, or one below the other."""
    room = (look.width - 8) // 2 - 16
    return min(60, room) if room >= 10 else max(4, min(30, look.width - 8 - 13))


def parts(status: StatusView, look: Look) -> list[Part]:
    """The tables of the page that have rows, in their order."""
    agents = (
        (crew.crew(status), crew.in_order(status.agents, look.now))
        if look.is_terminal
        else (columns.AGENTS, status.agents)
    )
    deadlocks: Part = (
        "DEADLOCKS",
        columns.DEADLOCKS_BRIEFLY if look.is_terminal else columns.DEADLOCKS,
        status.deadlocks,
    )
    running: Part = ("RUNNING", columns.RUNNING, status.running)
    every: list[Part] = [
        ("AGENTS", *agents),
        *((deadlocks, running) if is_stuck(status) or not look.is_terminal else (running, deadlocks)),
        ("RECENT", columns.RECENT, status.recent),
        ("VOTES", columns.VOTE_OUTCOMES, status.decisions),
        ("BUDGETS", money.BUDGETS, status.budgets),
    ]
    return [part for part in every if part[2]]


def is_stuck(status: StatusView) -> bool:
    """Whether something is stuck now, and no alarm says so already; what is over is no hurry."""
    return any(one.resolved_at is None and one.kind != "unsatisfiable" for one in status.deadlocks)


def counts(
    found: Mapping[str, int], order: Sequence[str], look: Look, estimated: frozenset[str] = frozenset()
) -> list[Text]:
    """`● 3 running`, `○ 12 pending`, without the states that nothing is in; `~` before an estimate."""
    states = [*(state for state in order if found.get(state)), *sorted(set(found) - set(order))]
    pieces = []
    for state in states:
        if found[state]:
            about = "~" if state in estimated else ""
            word = "" if look.is_terminal and look.width < NARROW else " " + look.text(state).plain
            pieces.append(look.sign(state) + f" {about}{found[state]:,}" + Text(word))
    return pieces


def wrapped(title: str, pieces: Sequence[Text], look: Look) -> list[Text]:
    """Pieces side by side, on as many lines as they need; none is broken."""
    gap = " " if look.is_terminal and look.width < NARROW else "   "
    lines = [Text.assemble((f"{title:<8}", "bold"))]  # a style of its own: the rest of the line is plain
    is_first = True
    for piece in pieces:
        if is_first:
            lines[-1] = lines[-1] + piece
        elif look.is_terminal and lines[-1].cell_len + len(gap) + piece.cell_len > look.width:
            lines.append(Text(" " * 8) + piece)
        else:
            lines[-1] = lines[-1] + gap + piece
        is_first = False
    return lines


def alarm(sentence: str, look: Look) -> Text:
    """One line of what is wrong."""
    return Text.assemble(("! ", "bold red"), look.text(sentence, "red"))
