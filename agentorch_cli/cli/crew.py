"""Agents at work: what each does now, problems on top, then the busiest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.text import Text

from agentorch_cli.cli import columns
from agentorch_cli.cli.look import Look, span
from agentorch_cli.cli.names import called
from agentorch_cli.cli.tables import Column
from agentorch_cli.text import natural
from agentorch_cli.views import AgentView, StatusView, TaskView

LATE_SECONDS = 30.0
"""Without a sign of life, after which it is worth a look."""


def in_order(agents: Sequence[AgentView], now: datetime) -> list[AgentView]:
    """Those with a problem first, then the busy ones, then the idle, then those that are not there."""
    return sorted(agents, key=lambda one: (_rank(one, now), -one.load, -one.queued, natural(one.agent_id)))


def _rank(agent: AgentView, now: datetime) -> int:
    if agent.excluded_until is not None and agent.excluded_until > now:
        return 0
    if agent.status == "offline":
        return 1 if agent.working_on else 4
    if agent.status in ("paused", "draining") or agent.excluded_until is not None:
        return 2
    return 3


def crew(status: StatusView) -> tuple[Column, ...]:
    """The columns of agents at work; the names of what they do come from the same document."""
    running = {task.task_id: task for task in status.running}
    margin = 5 if any(task.progress is not None for task in running.values()) else 0
    by_title = {column.title: column for column in columns.AGENTS}
    return (
        Column("", _sign),
        by_title["AGENT"],
        Column("LOAD", lambda agent, look: look.bar(agent.load, 6), 7),
        Column("SLOTS", by_title["SLOTS"].cell, 5, is_right=True),
        Column("SCORE", by_title["SCORE"].cell, 7, is_right=True),
        Column("P50", by_title["P50"].cell, 3, is_right=True),
        Column("DONE", lambda agent, look: Text(f"{agent.completed:,}"), 2, is_right=True),
        Column("FAILED", _failed, 2, is_right=True),
        Column("SEEN", _seen, 6, is_right=True),
        Column("DOING", lambda agent, look: doing(agent, running, look, margin), 8, least=24),
        by_title["POOL"],
    )


def _sign(agent: AgentView, look: Look) -> Text:
    is_out = agent.excluded_until is not None and agent.excluded_until > look.now
    return look.sign("failing" if is_out else agent.status)


def _seen(agent: AgentView, look: Look) -> Text:
    if agent.last_heartbeat is None:
        return look.nothing()
    seconds = max((look.now - agent.last_heartbeat).total_seconds(), 0.0)
    late = "yellow" if agent.status == "online" and seconds > LATE_SECONDS else "dim"
    return Text(f"{seconds:.0f}s" if seconds < 60 else span(seconds), late)


def doing(agent: AgentView, running: Mapping[str, TaskView], look: Look, margin: int = 0) -> Text:
    """Why it gets nothing, the tasks that it holds (the first by name), and how it fails.

    `margin` is kept free where it is not known how far that one is, so that names stand below each other.
    """
    parts = []
    if agent.status != "online":
        parts.append(look.text(agent.status, "yellow" if agent.status != "offline" else "dim"))
    if (aside := columns.set_aside(agent, look)).plain:
        parts.append(aside)
    if agent.working_on:
        first = next((running[one] for one in agent.working_on if one in running), None)
        held = look.text(
            columns.label(first) if first is not None else called(agent.working_on[0], agent.names)
        )
        if first is not None and first.progress is not None:
            held = Text(f"{min(max(first.progress, 0.0), 1.0):>4.0%} ", "cyan") + held
        else:
            held = Text(" " * margin) + held
        if len(agent.working_on) > 1:
            held += Text(f" +{len(agent.working_on) - 1}", "dim")
        parts.append(held)
    if agent.consecutive_failures > 1:
        parts.append(Text(f"{agent.consecutive_failures} failures in a row", "red"))
    return Text(" ").join(parts)


def _failed(agent: AgentView, look: Look) -> Text:
    return Text(f"{agent.failed:,}", "red" if agent.consecutive_failures > 1 else "")
