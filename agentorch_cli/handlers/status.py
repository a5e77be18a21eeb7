"""Nodes, and the fleet in one document."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from agentorch_cli import views
from agentorch_cli.core.team import advice, listed, shortfall
from agentorch_cli.core.why import MOST_NAMED, time_in_words
from agentorch_cli.handlers.agents import find_agents
from agentorch_cli.handlers.budgets import find_alarms, find_spend, list_budgets
from agentorch_cli.handlers.context import MOST_SHOWN, Context
from agentorch_cli.handlers.tasks import task_view
from agentorch_cli.handlers.votes import find_decisions
from agentorch_cli.store.why import idle_beside_work, in_pool, nobody_schedules


async def list_nodes(context: Context) -> list[views.NodeView]:
    """The serve processes of the last hour."""
    return [
        views.NodeView(**dict(row), load=row["busy"] / row["slots"] if row["slots"] else 0.0)
        for row in await context.db.fetch("show_nodes")
    ]


async def get_status(context: Context, limit: int = 20) -> views.StatusView:
    """The fleet in one document."""
    now = await context.db.fetch_one("clock")
    agents = await find_agents(context)
    nodes = await list_nodes(context)
    counts = await context.db.fetch("count_tasks")
    running = await context.db.fetch("show_tasks", ["running"], limit)
    recent = await context.db.fetch("recent_tasks", limit)
    decisions = await find_decisions(context, limit=min(limit, 5))
    oldest = await context.db.fetch_one("oldest_pending")
    unserved = await context.db.fetch("unserved_capabilities")
    assert now is not None
    agent_counts: dict[str, int] = {}
    for agent in agents:
        agent_counts[agent.status] = agent_counts.get(agent.status, 0) + 1
    live = [node for node in nodes if node.is_live]
    alarms = []
    fleets: dict[str, dict[str, frozenset[str]]] = {}
    for agent in agents:
        fleets.setdefault(agent.pool, {})[agent.agent_id] = frozenset(agent.capabilities)
    task_counts = {row["status"]: row["number"] for row in counts}
    if not live and (task_counts.get("pending") or task_counts.get("running")):
        alarms.append("no serve is running, so nothing moves: run agentorch serve")
    elif live:
        served = {node.pool for node in live}
        rows = await context.db.fetch("pools_with_work")
        alarms += [nobody_schedules(row["pool"]) for row in rows if row["pool"] not in served]
    for row in unserved:
        wanted = " and ".join(row["required_capabilities"]) or "any capability"
        wanted += in_pool(row["pool"])
        how = advice(frozenset(row["required_capabilities"]), fleets.get(row["pool"], {}))
        alarms.append(
            f"{_ready(row['number'])} an agent with {wanted}; none is registered"
            + (f" ({how})" if how is not None else "")
        )
    for row in await context.db.fetch("waiting_teams"):
        required = frozenset(row["required_capabilities"])
        why = shortfall(required, fleets.get(row["pool"], {}).values(), row["max_agents"])
        if why is not None:
            where = in_pool(row["pool"])
            alarms.append(f"{_ready(row['number'])} a team with {listed(required)}{where}: {why}")
        elif aside := _set_aside(
            required, row["max_agents"], [one for one in agents if one.pool == row["pool"]], now["now"]
        ):
            who = ", ".join(aside[:MOST_NAMED]) + (" …" if len(aside) > MOST_NAMED else "")
            alarms.append(
                f"{_ready(row['number'])} a team with {listed(required)}{in_pool(row['pool'])};"
                f" of those who could, some are set aside: {who}"
            )
    for row in await context.db.fetch("waits_for_set_aside"):
        wanted = " and ".join(row["required_capabilities"]) or "any capability"
        alarms.append(
            f"{_ready(row['number'])} an agent with {wanted}{in_pool(row['pool'])};"
            " those who could are set aside: " + ", ".join(row["agents"])
        )
    alarms += await idle_beside_work(context.store)
    stuck = await context.db.fetch_one("open_deadlocks")
    if stuck is not None and stuck["number"]:
        are = "deadlock is" if stuck["number"] == 1 else "deadlocks are"
        alarms.append(f"{stuck['number']} {are} open ({stuck['kinds']}): agentorch deadlock list --open")
    alarms += await find_alarms(context)
    budgets = [one for one in await list_budgets(context, MOST_SHOWN) if _is_worth_showing(one)]
    return views.StatusView(
        at=now["now"],
        nodes=live,
        agents=agents,
        agent_counts=agent_counts,
        task_counts=task_counts,
        running=[task_view(row) for row in running],
        recent=[task_view(row) for row in recent],
        oldest_pending_seconds=oldest[0] if oldest is not None else None,
        decisions=decisions,
        spend=await find_spend(context),
        budgets=budgets[:limit],
        alarms=alarms,
    )


def _ready(number: int) -> str:
    """`1 ready task wants`."""
    return "1 ready task wants" if number == 1 else f"{number:,} ready tasks want"


def _set_aside(
    required: frozenset[str], most: int, agents: Sequence[views.AgentView], now: datetime
) -> list[str]:
    """Connected agents without which no team covers this now, and which are paused, draining or excluded."""
    useful = [one for one in agents if one.node_id is not None and required & set(one.capabilities)]
    aside = {one.agent_id: why for one in useful if (why := _why_aside(one, now)) is not None}
    able = [frozenset(one.capabilities) for one in useful if one.agent_id not in aside]
    if shortfall(required, able, most) is None:
        return []
    return [f"{agent_id} ({why})" for agent_id, why in sorted(aside.items())]


def _why_aside(agent: views.AgentView, now: datetime) -> str | None:
    if agent.status in ("paused", "draining"):
        until = f" until {time_in_words(agent.status_until, now)}" if agent.status_until is not None else ""
        return f"{agent.status}{until}"
    if agent.excluded_until is not None and agent.excluded_until > now:
        return f"excluded until {time_in_words(agent.excluded_until, now)}"
    return None


def _is_worth_showing(one: views.BudgetView) -> bool:
    """Budgets of labels; those of tasks and submissions only while something is wrong with them."""
    return one.scope == "label" or one.waiting > 0
