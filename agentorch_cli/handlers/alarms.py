"""What is wrong, in sentences: the lines on top of `status`.

Each names what it is about and, where a command helps, the command.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from shlex import quote

from agentorch_cli import views
from agentorch_cli.core.team import advice, listed, misnamed, shortfall
from agentorch_cli.core.why import MOST_NAMED, time_in_words
from agentorch_cli.handlers.budgets import find_alarms
from agentorch_cli.handlers.context import Context
from agentorch_cli.store.why import idle_beside_work, in_pool, nobody_schedules

LEAST_FREE_BYTES = 1 << 30
LEAST_FREE_SHARE = 0.05
"""The disk is told of when less than both of these is free."""

MOST_TOLD = 5
"""Schedules and excluded agents that have a line of their own."""


async def find_all_alarms(
    context: Context,
    agents: Sequence[views.AgentView],
    nodes: Sequence[views.NodeView],
    task_counts: Mapping[str, int],
    now: datetime,
) -> list[str]:
    """All of them, the worst first. `nodes`: those that live."""
    found = [sentence async for sentence in _nobody_works(context, nodes, task_counts)]
    found += await asyncio.to_thread(_disk, context.data_dir)
    found += await _deadlocks(context)
    found += [sentence async for sentence in _unserved(context, agents, now)]
    found += await idle_beside_work(context.store)
    found += _excluded(agents, now)
    found += await _schedules(context)
    found += await find_alarms(context)
    return found


async def _nobody_works(
    context: Context, live: Sequence[views.NodeView], task_counts: Mapping[str, int]
) -> AsyncIterator[str]:
    if live:
        served = {node.pool for node in live}
        for row in await context.db.fetch("pools_with_work"):
            if row["pool"] not in served:
                yield nobody_schedules(row["pool"])
    elif task_counts.get("pending") or task_counts.get("running"):
        yield "no serve is running, so nothing moves: run agentorch serve, or agentorch up"


def _disk(data_dir: Path | None) -> list[str]:
    """When the disk is full the database stops, so it is told before."""
    if data_dir is None:
        return []
    try:
        disk = shutil.disk_usage(data_dir)
    except OSError:
        return []
    if disk.free >= LEAST_FREE_BYTES or disk.free >= LEAST_FREE_SHARE * disk.total:
        return []
    return [f"the disk of the database is nearly full: {disk.free / 1e9:.1f} GB are free in {data_dir}"]


async def _deadlocks(context: Context) -> list[str]:
    stuck = await context.db.fetch_one("open_deadlocks")
    if stuck is None or not stuck["number"]:
        return []
    are = "deadlock is" if stuck["number"] == 1 else "deadlocks are"
    return [f"{stuck['number']} {are} open ({stuck['kinds']}): agentorch deadlock list --open"]


async def _unserved(context: Context, agents: Sequence[views.AgentView], now: datetime) -> AsyncIterator[str]:
    """Demands that nobody can meet: nobody registered, or nobody who is not set aside."""
    fleets: dict[str, dict[str, frozenset[str]]] = {}
    for agent in agents:
        fleets.setdefault(agent.pool, {})[agent.agent_id] = frozenset(agent.capabilities)
    for row in await context.db.fetch("unserved_capabilities"):
        wanted = " and ".join(row["required_capabilities"]) or "any capability"
        wanted += in_pool(row["pool"])
        how = advice(frozenset(row["required_capabilities"]), fleets.get(row["pool"], {}))
        wanted += misnamed(row["required_capabilities"], fleets.get(row["pool"], {}))
        yield (
            f"{_ready(row['number'])} an agent with {wanted}; none is registered"
            + (f" ({how})" if how is not None else "")
        )
    for row in await context.db.fetch("waiting_teams"):
        required = frozenset(row["required_capabilities"])
        why = shortfall(required, fleets.get(row["pool"], {}).values(), row["max_agents"])
        if why is not None:
            where = in_pool(row["pool"])
            yield f"{_ready(row['number'])} a team with {listed(required)}{where}: {why}"
        elif aside := _set_aside(
            required, row["max_agents"], [one for one in agents if one.pool == row["pool"]], now
        ):
            who = ", ".join(aside[:MOST_NAMED]) + (" …" if len(aside) > MOST_NAMED else "")
            yield (
                f"{_ready(row['number'])} a team with {listed(required)}{in_pool(row['pool'])};"
                f" of those who could, some are set aside: {who}"
            )
    for row in await context.db.fetch("waits_for_set_aside"):
        wanted = " and ".join(row["required_capabilities"]) or "any capability"
        yield (
            f"{_ready(row['number'])} an agent with {wanted}{in_pool(row['pool'])};"
            " those who could are set aside: " + ", ".join(row["agents"]) + " (agentorch agent resume)"
        )
    for row in await context.db.fetch("declined_by_all", MOST_TOLD):
        who = ", ".join(row["declined_by"][:MOST_NAMED]) + (
            " …" if len(row["declined_by"]) > MOST_NAMED else ""
        )
        yield (
            f"task {row['task_id']} waits: everybody who could do it has declined it ({who});"
            f" agentorch task retry {quote(row['task_id'])} asks them again"
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


def _excluded(agents: Sequence[views.AgentView], now: datetime) -> list[str]:
    """Agents that get nothing because they kept failing."""
    out = [one for one in agents if one.excluded_until is not None and one.excluded_until > now]
    told = []
    for one in out[:MOST_TOLD]:
        assert one.excluded_until is not None
        why = f": {one.excluded_reason}" if one.excluded_reason else ""
        told.append(f"agent {one.agent_id} is excluded until {time_in_words(one.excluded_until, now)}{why}")
    if len(out) > MOST_TOLD:
        told.append(f"{len(out) - MOST_TOLD} more agents are excluded: agentorch agent list")
    return told


async def _schedules(context: Context) -> list[str]:
    """Schedules that cannot run."""
    return [
        f"the schedule {row['name']} cannot run: {row['error']} (agentorch schedule show {row['name']})"
        for row in await context.db.fetch("failing_schedules", MOST_TOLD)
    ]
