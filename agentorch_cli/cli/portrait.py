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


def _latency(agent: AgentView) -> Text:
    slow = (
        f", {agent.latency_p95_ms:,.0f} ms for the slowest twentieth"
        if agent.latency_p95_ms is not None
        else ""
    )
    return Text(f"{agent.latency_p50_ms:,.0f} ms in the middle{slow}")
