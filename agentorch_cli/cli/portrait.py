"""One agent, told: what it can do, what it does, how well it has done."""

from __future__ import annotations

from rich.text import Text

from agentorch_cli.cli import columns
from agentorch_cli.cli.look import Look
from agentorch_cli.cli.tables import Page
from agentorch_cli.views import AgentView


def draw(page: Page, agent: AgentView) -> None:
    """The page of an agent."""
    look = page.look
    page.title(agent.status, agent.agent_id, agent.type)
    page.pairs(_facts(agent, look))
    if agent.metadata:
        page.heading("METADATA")
        page.show(look.block(agent.metadata))


def _facts(agent: AgentView, look: Look) -> list[tuple[str, Text]]:
    facts: list[tuple[str, Text | None]] = [
        ("can", look.names(agent.capabilities)),
        (agent.status, _aside(agent, look) if agent.status in ("paused", "draining") else None),
        ("excluded", _excluded(agent, look) if agent.excluded_until is not None else None),
        ("in a row", _failing(agent) if agent.consecutive_failures else None),
        ("load", look.bar(agent.load, 10) + Text(f"  {agent.busy} of {agent.slots} slots")),
        ("works on", look.names(agent.working_on) if agent.working_on else None),
        ("score", look.number(agent.performance_score, 1)),
        ("done", Text(f"{agent.completed:,} completed, {agent.failed:,} failed")),
        ("success", columns.percent(agent.success_rate, look) if agent.success_rate is not None else None),
        ("latency", _latency(agent) if agent.latency_p50_ms is not None else None),
        ("runs", look.text(agent.exec) if agent.exec else None),
        ("on node", look.text(agent.node_id) if agent.node_id else None),
        ("seen", look.age(agent.last_heartbeat)),
        ("registered", look.age(agent.created_at)),
    ]
    return [(name, value) for name, value in facts if value is not None]


def _aside(agent: AgentView, look: Look) -> Text:
    told = Text("since ") + look.age(agent.status_since)
    if agent.status_until is not None:
        told += Text(", until ") + look.age(agent.status_until)
    return told + Text(": ") + look.text(agent.status_reason) if agent.status_reason else told


def _excluded(agent: AgentView, look: Look) -> Text:
    """Since when and until when; afterwards it is probed."""
    times = "once" if agent.trips == 1 else f"{agent.trips} times"
    is_over = agent.excluded_until is not None and agent.excluded_until <= look.now
    return Text.assemble(
        look.age(agent.excluded_since),
        ", until ",
        look.age(agent.excluded_until),
        f" ({times} without a success in between"
        f"{'; now it gets one task at a time, until one goes well' if is_over else ''}): ",
        look.text(agent.excluded_reason),
    )


def _failing(agent: AgentView) -> Text:
    one = agent.consecutive_failures == 1
    return Text(f"{agent.consecutive_failures:,} failure{'' if one else 's'} since its last success")


def _latency(agent: AgentView) -> Text:
    slow = (
        f", {agent.latency_p95_ms:,.0f} ms for the slowest twentieth"
        if agent.latency_p95_ms is not None
        else ""
    )
    return Text(f"{agent.latency_p50_ms:,.0f} ms in the middle{slow}")
