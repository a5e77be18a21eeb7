"""Nodes, and the fleet in one document.

`status.get` is asked again and again by whoever watches, so it is a constant number of statements,
and none of them reads tasks that have ended but through an index (`tests/store/test_status_cost.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from agentorch_cli import views
from agentorch_cli.handlers.agents import find_agents
from agentorch_cli.handlers.alarms import find_all_alarms
from agentorch_cli.handlers.budgets import find_spend, list_budgets
from agentorch_cli.handlers.context import MOST_SHOWN, Context
from agentorch_cli.handlers.deadlocks import find_deadlocks
from agentorch_cli.handlers.tasks import task_view
from agentorch_cli.handlers.votes import find_decisions
from agentorch_cli.store.names import called

MOST_COUNTED = 50_000
"""Of more tasks than this, those that have ended are estimated."""

STEP_SECONDS = 2.0
STEPS = 30
"""Of the flow: the last minute."""

MOST_EVENTS = 4_000
"""Newest events that are read to see what comes and goes."""


async def list_nodes(context: Context) -> list[views.NodeView]:
    """The serve processes of the last hour."""
    return [
        views.NodeView(**dict(row), load=row["busy"] / row["slots"] if row["slots"] else 0.0)
        for row in await context.db.fetch("show_nodes")
    ]


async def get_status(context: Context, limit: int = 20) -> views.StatusView:
    """The fleet in one document."""
    clock = await context.db.fetch_one("clock")
    assert clock is not None
    now: datetime = clock["now"]
    agents = await find_agents(context)
    live = [node for node in await list_nodes(context) if node.is_live]
    task_counts, is_estimated = await _count(context)
    agent_counts: dict[str, int] = {}
    for agent in agents:
        agent_counts[agent.status] = agent_counts.get(agent.status, 0) + 1
    oldest = await context.db.fetch_one("oldest_pending")
    budgets = [one for one in await list_budgets(context, MOST_SHOWN) if _is_worth_showing(one)]
    deadlocks = await find_deadlocks(context, limit=min(limit, 10))
    running = [task_view(row) for row in await context.db.fetch("running_tasks", limit)]
    await _name_work(context, agents, {task.task_id for task in running})
    return views.StatusView(
        at=now,
        nodes=live,
        agents=agents,
        agent_counts=agent_counts,
        task_counts=task_counts,
        counts_estimated=is_estimated,
        flow=await _flow(context, now),
        running=running,
        recent=[task_view(row) for row in await context.db.fetch("recent_tasks", limit)],
        oldest_pending_seconds=oldest[0] if oldest is not None else None,
        decisions=await find_decisions(context, limit=min(limit, 5)),
        deadlocks=[
            one for one in deadlocks
            if one.resolved_at is None or one.resolved_at > now - timedelta(hours=1)
        ],
        spend=await find_spend(context),
        budgets=budgets[:limit],
        alarms=await find_all_alarms(context, agents, live, task_counts, now),
    )  # fmt: skip


async def _name_work(context: Context, agents: Sequence[views.AgentView], told: Collection[str]) -> None:
    """Give busy agents the name of what they do, where no task of the document tells it."""
    busy = {one.agent_id: one.working_on[0] for one in agents if one.working_on}
    busy = {agent_id: first for agent_id, first in busy.items() if first not in told}
    names = await called(context.db, list(busy.values()))
    for agent in agents:
        if (first := busy.get(agent.agent_id)) in names:
            agent.names = {first: names[first]}


async def _count(context: Context) -> tuple[dict[str, int], bool]:
    """How many tasks there are in each state, and whether those that ended are only estimated."""
    size = await context.db.fetch_one("size_of_tasks")
    assert size is not None
    if size["number"] > MOST_COUNTED:
        rows = await context.db.fetch("estimate_tasks", size["number"])
        if any(row["status"] in ("completed", "failed", "cancelled", "skipped") for row in rows):
            return {row["status"]: row["number"] for row in rows if row["number"]}, True
    rows = await context.db.fetch("count_tasks")
    return {row["status"]: row["number"] for row in rows}, False


async def _flow(context: Context, now: datetime) -> views.FlowView:
    """Steps as a row of numbers; where not all events of the minute were read, only what is known."""
    minute = STEPS * STEP_SECONDS
    rows = await context.db.fetch("flow", MOST_EVENTS, STEP_SECONDS, minute)
    lately = await context.db.fetch_one("came_lately", minute)
    newest = int(now.timestamp() // STEP_SECONDS)
    whole = sum(row["events"] for row in rows) < MOST_EVENTS
    first = min((row["first"] for row in rows), default=now)
    seconds = minute if whole else max((now - first).total_seconds(), 0.001)
    came = sum(row["came"] for row in rows) if whole or lately is None else lately["number"]
    known_from = newest - STEPS if whole else int(first.timestamp() // STEP_SECONDS) + 1
    by_step = {row["step"]: row for row in rows}

    def line(name: str) -> list[int | None]:
        return [
            (by_step[step][name] if step in by_step else 0) if step >= known_from else None
            for step in range(newest - STEPS + 1, newest + 1)
        ]

    return views.FlowView(
        seconds=seconds,
        in_per_second=came / minute,
        out_per_second=sum(row["ended"] for row in rows) / seconds,
        step=newest,
        step_seconds=STEP_SECONDS,
        came=line("came"),
        ended=line("ended"),
    )


def _is_worth_showing(one: views.BudgetView) -> bool:
    """Budgets of labels; those of tasks and submissions only while something is wrong with them."""
    return one.scope == "label" or one.waiting > 0
