"""One agent, told: what it can do, what it does, how well it has done."""

from __future__ import annotations

from rich.text import Text

from agentorch_cli.cli import columns
from agentorch_cli.cli.look import Look
from agentorch_cli.cli.names import listed
from agentorch_cli.cli.tables import Page
from agentorch_cli.core.model import DEFAULT_POOL
from agentorch_cli.views import AgentView


def draw(page: Page, agent: AgentView) -> None:
    """The page of an agent."""
    look = page.look
    page.title(agent.status, agent.agent_id, agent.type)
    page.pairs(_facts(agent, look))
    if agent.ledger:
        page.heading("LEDGER")
        page.table(columns.LEDGER, agent.ledger)
    if agent.metadata:
        page.heading("METADATA")
        page.show(look.block(agent.metadata))


def _facts(agent: AgentView, look: Look) -> list[tuple[str, Text]]:
    facts: list[tuple[str, Text | None]] = [
        ("in pool", look.text(agent.pool) if agent.pool != DEFAULT_POOL else None),
        ("can", look.names(agent.capabilities)),
        (agent.status, _aside(agent, look) if agent.status in ("paused", "draining") else None),
        ("excluded", _excluded(agent, look) if agent.excluded_until is not None else None),
        ("in a row", _failing(agent) if agent.consecutive_failures else None),
        (
            "load",
            look.bar(agent.load, 10)
            + Text(
                f"  {agent.busy} of {agent.slots} slots{f', {agent.queued} queued' if agent.queued else ''}"
            ),
        ),
        ("works on", _held(agent, look) if agent.working_on else None),
        ("score", look.number(agent.performance_score, 1)),
        ("last hour", _hour(agent, look)),
        ("done", Text(f"{agent.completed:,} completed, {agent.failed:,} failed or lost")),
        ("success", columns.percent(agent.success_rate, look) if agent.success_rate is not None else None),
        ("latency", _latency(agent, look) if agent.latency_p50_ms is not None else None),
        ("runs", look.text(agent.exec) if agent.exec else None),
        ("on node", look.text(agent.node_id) if agent.node_id else None),
        ("seen", look.age(agent.last_heartbeat)),
        ("registered", look.age(agent.created_at)),
    ]
    return [(name, value) for name, value in facts if value is not None]


def _held(agent: AgentView, look: Look) -> Text:
    """What it works on; on a pipe by id."""
    return look.names(listed(agent.working_on, agent.names) if look.is_terminal else agent.working_on)


def _aside(agent: AgentView, look: Look) -> Text:
    told = look.age(agent.status_since) if look.is_terminal else Text("since ") + look.age(agent.status_since)
    if agent.status_until is not None:
        told += Text(", ") + look.until(agent.status_until)
    return told + Text(": ") + look.text(agent.status_reason) if agent.status_reason else told


def _excluded(agent: AgentView, look: Look) -> Text:
    """Since when and until when; afterwards it is probed."""
    times = "once" if agent.trips == 1 else f"{agent.trips} times"
    assert agent.excluded_until is not None
    is_over = agent.excluded_until <= look.now
    return Text.assemble(
        look.age(agent.excluded_since),
        ", ",
        Text("until ") + look.age(agent.excluded_until) if is_over else look.until(agent.excluded_until),
        f" ({times} without a success in between"
        f"{'; now it gets one task at a time, until one goes well' if is_over else ''}): ",
        look.text(agent.excluded_reason),
    )


def _failing(agent: AgentView) -> Text:
    one = agent.consecutive_failures == 1
    return Text(f"{agent.consecutive_failures:,} failure{'' if one else 's'} since its last success")


def _latency(agent: AgentView, look: Look) -> Text:
    """Half of the work was done within the first, all but a twentieth within the second."""
    unit = "" if look.is_terminal else " ms"
    middle = columns.milliseconds(agent.latency_p50_ms, look)
    slow = columns.milliseconds(agent.latency_p95_ms, look)
    return Text.assemble(middle, f"{unit} p50, ", slow, f"{unit} p95")


def _hour(agent: AgentView, look: Look) -> Text:
    """Twelve bars of five minutes, what came of them, and the plain rule's number."""
    completed = sum(piece.completed for piece in agent.trend)
    failed = sum(piece.failed for piece in agent.trend)
    bars = sparkline([piece.completed + piece.failed for piece in agent.trend], look)
    if look.is_terminal:
        for at, piece in enumerate(agent.trend):
            if piece.failed:
                bars.stylize("red", at, at + 1)
    number = look.number(agent.performance_hourly, 1)
    return Text.assemble(bars, f"  {completed:,} completed, {failed:,} failed: ", number, " of 100")


def sparkline(values: list[int], look: Look) -> Text:
    """One letter for each value, as high as the value; on a pipe the values."""
    if not look.is_terminal:
        return Text(" ".join(map(str, values)))
    letters = "_.:-=+*#" if look.is_ascii else "▁▂▃▄▅▆▇█"
    most = max(values, default=0)
    # the lowest letter is nothing at all, and nothing else
    heights = [0 if not value else 1 + round((len(letters) - 2) * value / most) for value in values]
    return Text("".join(letters[height] for height in heights), "green")
