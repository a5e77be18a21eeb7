"""Operations on agents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import orjson

from agentorch_cli import views
from agentorch_cli.core.model import AgentSpec
from agentorch_cli.errors import Conflict, NotFound
from agentorch_cli.frames import dumps
from agentorch_cli.handlers.context import Context
from agentorch_cli.store.submission import array_literal


async def register_agents(context: Context, agents: Sequence[AgentSpec]) -> list[views.AgentView]:
    """Upsert registrations."""
    twice = [agent_id for agent_id, number in Counter(a.agent_id for a in agents).items() if number > 1]
    if twice:
        raise Conflict(f"agent {twice[0]!r} is there twice")
    await context.db.fetch(
        "register_agents",
        [a.agent_id for a in agents],
        [a.type for a in agents],
        [array_literal(a.capabilities) for a in agents],
        [a.slots for a in agents],
        [dumps(a.metadata) for a in agents],
        [a.exec for a in agents],
        context.store.node_id,
    )
    return await find_agents(context, ids=[a.agent_id for a in agents])


async def list_agents(
    context: Context, status: str | None = None, capability: str | None = None
) -> list[views.AgentView]:
    """The fleet, by id."""
    return await find_agents(context, status=status, capability=capability)


async def get_agent(context: Context, agent_id: str) -> views.AgentView:
    """One agent. Raises NotFound."""
    found = await find_agents(context, ids=[agent_id], details=True)
    if not found:
        raise NotFound(f"there is no agent {agent_id!r}", hint="agentorch agent list shows the fleet")
    return found[0]


async def remove_agents(context: Context, agent_ids: Sequence[str], force: bool = False) -> views.ChangeReply:
    """Take agents out of the registry; those that hold work only with `force`."""
    known = {agent.agent_id for agent in await find_agents(context, ids=agent_ids)}
    rows = await context.db.fetch("remove_agents", list(agent_ids), force, context.store.node_id)
    gone = {row["agent_id"] for row in rows}
    reply = views.ChangeReply(changed=sorted(gone))
    for agent_id in agent_ids:
        if agent_id not in known:
            reply.unchanged[agent_id] = "there is no such agent"
        elif agent_id not in gone:
            reply.unchanged[agent_id] = "it holds work; drain it first, or use --force"
    return reply


async def find_agents(
    context: Context,
    *,
    ids: Sequence[str] | None = None,
    status: str | None = None,
    capability: str | None = None,
    details: bool = False,
) -> list[views.AgentView]:
    rows = await context.db.fetch(
        "show_agents", list(ids) if ids is not None else None, status, details, capability
    )
    found = []
    for row in rows:
        facts = dict(row)
        facts["metadata"] = orjson.loads(facts["metadata"])
        facts["load"] = facts["busy"] / facts["slots"]
        ended = facts["completed"] + facts["failed"]
        facts["success_rate"] = facts["completed"] / ended if ended else None
        found.append(views.AgentView(**facts))
    return found
