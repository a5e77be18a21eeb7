"""Operations on agents."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence

import asyncpg
import orjson

from agentorch_cli import views
from agentorch_cli.core.durations import waited
from agentorch_cli.core.ledger import NOTHING, Evidence, estimate, hourly_score, quantile
from agentorch_cli.core.model import AgentSpec, check_name
from agentorch_cli.errors import Conflict, UsageError, WaitTimedOut, command
from agentorch_cli.frames import dumps
from agentorch_cli.handlers.context import Context
from agentorch_cli.handlers.lists import labelled, within_time
from agentorch_cli.payloads import is_storable
from agentorch_cli.store.ledger import evidence_of
from agentorch_cli.store.listing import Clauses, among, both, cursor_from
from agentorch_cli.store.listings import AGENTS
from agentorch_cli.store.literals import array_literal
from agentorch_cli.store.names import called, no_such, none_such

PIECES = 12
"""Of five minutes each: the hour of a trend."""

MOST_REASON = 1_000
"""Characters of a reason that a person gives."""

LOOK_EVERY = 1.0
"""Seconds between looks at what draining agents hold, where no task ends meanwhile."""


async def register_agents(context: Context, agents: Sequence[AgentSpec]) -> list[views.AgentView]:
    """Upsert registrations."""
    twice = [agent_id for agent_id, number in Counter(a.agent_id for a in agents).items() if number > 1]
    if twice:
        raise Conflict(f"agent {twice[0]!r} is there twice")
    for agent in agents:
        _check_names(agent)
    await context.db.fetch(
        "register_agents",
        [a.agent_id for a in agents],
        [a.type for a in agents],
        [array_literal(a.capabilities) for a in agents],
        [a.slots for a in agents],
        [dumps(a.metadata) for a in agents],
        [a.exec for a in agents],
        context.store.node_id,
        [a.pool for a in agents],
    )
    return await find_agents(context, ids=[a.agent_id for a in agents])


def _check_names(agent: AgentSpec) -> None:
    """Files and frames were checked when they were read; a program may hand over anything."""
    check_name("id", agent.agent_id)
    check_name("type", agent.type)
    for capability in agent.capabilities:
        check_name("capability", capability)
    if agent.pool is not None:
        check_name("pool", agent.pool)


async def list_agents(
    context: Context,
    status: str | Sequence[str] | None = None,
    capability: str | Sequence[str] | None = None,
    pool: str | None = None,
    type: str | None = None,
    label: Mapping[str, str] | None = None,
    since: str | None = None,
    until: str | None = None,
    sort: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> list[views.AgentView]:
    """The fleet, by id, or in the order of `sort`; each with the cursor of what comes after it.

    `capability`: all of these. `label`: of its metadata. `since`, `until`: when it was registered.
    Raises UsageError, NotFound (a bad cursor).
    """
    capabilities = [capability] if isinstance(capability, str) else capability or ()
    wanted = both(
        among("status", status),
        among("pool", pool),
        among("type", type),
        *labelled(label),
        *within_time(since, until),
        *(among("capability", one) for one in capabilities),
    )
    return await find_agents(context, within=Clauses(AGENTS, wanted, sort, cursor), limit=limit)


async def get_agent(context: Context, agent_id: str) -> views.AgentView:
    """One agent. Raises NotFound."""
    found = await find_agents(context, ids=[agent_id])
    if not found:
        raise await no_such(context.db, "agent", agent_id)
    rows = await context.db.fetch("show_ledger", agent_id, context.store.half_life_seconds)
    found[0].ledger = _ledger(rows)
    hour = await context.db.fetch("show_trend", agent_id)
    found[0].trend = _trend(hour)
    found[0].names = await called(context.db, found[0].working_on)
    parts = ("completed", "failed", "lost", "seconds")
    found[0].performance_hourly = hourly_score(*(sum(row[part] for row in hour) for part in parts))
    return found[0]


async def remove_agents(context: Context, agent_ids: Sequence[str], force: bool = False) -> views.ChangeReply:
    """Take agents out of the registry; those that hold work only with `force`."""
    known = {agent.agent_id for agent in await find_agents(context, ids=agent_ids)}
    rows = await context.db.fetch("remove_agents", list(agent_ids), force, context.store.node_id)
    gone = {row["agent_id"] for row in rows}
    reply = views.ChangeReply(changed=sorted(gone))
    missing = await none_such(context.db, "agent", [one for one in agent_ids if one not in known])
    for agent_id in agent_ids:
        if agent_id not in known:
            reply.unchanged[agent_id] = missing[agent_id]
        elif agent_id not in gone:
            reply.unchanged[agent_id] = "it holds work; drain it first, or use --force"
    return reply


async def pause_agents(
    context: Context, agent_ids: Sequence[str], reason: str | None = None, for_seconds: float | None = None
) -> views.ChangeReply:
    """Agents get nothing new and keep what they hold, for a time or until they are resumed."""
    rows = await context.db.fetch(
        "pause_agents", list(agent_ids), _reason(reason), for_seconds, context.store.node_id
    )
    return await _changed(context, agent_ids, {row["agent_id"] for row in rows})


async def drain_agents(
    context: Context,
    agent_ids: Sequence[str],
    reason: str | None = None,
    wait: bool = False,
    timeout_seconds: float | None = None,
) -> views.ChangeReply:
    """Agents get nothing new and are told to finish what they hold; `wait`: return once that is done.

    Raises WaitTimedOut.
    """
    rows = await context.db.fetch("drain_agents", list(agent_ids), _reason(reason), context.store.node_id)
    reply = await _changed(context, agent_ids, {row["agent_id"] for row in rows})
    if wait:
        await _until_they_hold_nothing(context, reply.changed, timeout_seconds)
    return reply


async def resume_agents(
    context: Context, agent_ids: Sequence[str], reason: str | None = None
) -> views.ChangeReply:
    """Agents that were paused, draining or excluded get work again."""
    known = {agent.agent_id for agent in await find_agents(context, ids=agent_ids)}
    rows = await context.db.fetch("resume_agents", list(agent_ids), _reason(reason), context.store.node_id)
    reply = await _changed(context, agent_ids, {row["agent_id"] for row in rows})
    for agent_id in known & reply.unchanged.keys():
        reply.unchanged[agent_id] = "it is neither paused nor draining nor excluded"
    return reply


async def _changed(context: Context, agent_ids: Sequence[str], changed: set[str]) -> views.ChangeReply:
    missing = [agent_id for agent_id in agent_ids if agent_id not in changed]
    return views.ChangeReply(
        changed=[agent_id for agent_id in dict.fromkeys(agent_ids) if agent_id in changed],
        unchanged=await none_such(context.db, "agent", missing),
    )


def _reason(text: str | None) -> str | None:
    """A reason as it is kept. Raises UsageError where it is too long or cannot be stored."""
    if text is not None and len(text) > MOST_REASON:
        raise UsageError(f"a reason has at most {MOST_REASON} characters, this one has {len(text)}")
    if text is not None and not is_storable(text):
        raise UsageError("a reason may hold no NUL character and no lone surrogate")
    return text or None


async def _until_they_hold_nothing(
    context: Context, agent_ids: Sequence[str], timeout_seconds: float | None
) -> None:
    async def held() -> list[str]:
        rows = await context.db.fetch("held_by_agents", list(agent_ids))
        return [row["task_id"] for row in rows]

    try:
        async with asyncio.timeout(timeout_seconds), context.hearing() as waiting:
            while tasks := await held():
                # a task that goes elsewhere does not end: so look again now and then as well
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await waiting.until_final(tasks)
    except TimeoutError:
        left = await held()
        raise WaitTimedOut(
            f"{len(left)} {'task is' if len(left) == 1 else 'tasks are'} still held"
            f" after {waited(timeout_seconds or 0)}; the agents go on draining",
            fix=command("task", "show", left[0]) if left else None,
            task_ids=left[:100],
        ) from None


async def find_agents(
    context: Context,
    *,
    ids: Sequence[str] | None = None,
    within: Clauses | None = None,
    limit: int | None = None,
) -> list[views.AgentView]:
    wanted = list(ids) if ids is not None else None
    rows = await context.db.fetch("show_agents", wanted, None, limit, within=within)
    found = []
    for row in rows:
        facts = dict(row)
        facts["metadata"] = orjson.loads(facts["metadata"])
        facts["load"] = facts["busy"] / facts["slots"]
        facts["cursor"] = cursor_from(row["place"]) if row["place"] is not None else None
        found.append(views.AgentView(**facts, **_latencies(row["latency"])))
    return found


def _latencies(histogram: Sequence[float] | None) -> dict[str, float | None]:
    """The quantiles that are shown, in milliseconds."""
    quantiles = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95}
    found = {name: quantile(histogram or (), share) for name, share in quantiles.items()}
    return {name: seconds * 1000 if seconds is not None else None for name, seconds in found.items()}


def _ledger(rows: Sequence[asyncpg.Record]) -> list[views.LedgerView]:
    """The rows of one agent, each with the estimate that it leads to."""
    overall = NOTHING
    skills: dict[str, Evidence] = {}
    for row in rows:
        evidence = evidence_of(row["rights"], row["trials"])
        if row["skill"]:
            skills[row["skill"]] = skills.get(row["skill"], NOTHING).plus(evidence)
        else:
            overall = evidence
    found = []
    for row in rows:
        facts = dict(row)
        typed = evidence_of(row["rights"], row["trials"]) if row["skill"] else None
        facts["right"] = estimate(overall, skills.get(row["skill"]), typed)
        attempts = row["completed"] + row["failed"] + row["lost"]
        facts["success_rate"] = row["completed"] / attempts if attempts else None
        for amount, unknown in (("cost_usd", "cost_unknown"), ("tokens", "tokens_unknown")):
            if attempts - row[unknown] < 1e-6:  # nobody said it
                facts[amount] = None
        found.append(views.LedgerView(**facts, **_latencies(row["latency"])))
    return found


def _trend(rows: Sequence[asyncpg.Record]) -> list[views.TrendView]:
    """The last hour in twelve pieces, oldest first."""
    known = {row["piece"]: row for row in rows}
    return [
        views.TrendView(
            minutes_ago=5 * (piece + 1),
            completed=known[piece]["completed"] if piece in known else 0,
            failed=known[piece]["failed"] + known[piece]["lost"] if piece in known else 0,
        )
        for piece in reversed(range(PIECES))
    ]
