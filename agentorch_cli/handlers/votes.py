"""Votes and what is known of the voters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from agentorch_cli import views
from agentorch_cli.core.equivalence import merged
from agentorch_cli.core.reliability import Record
from agentorch_cli.handlers.context import Context
from agentorch_cli.handlers.lists import labelled, within_time
from agentorch_cli.store import proposals
from agentorch_cli.store.listing import Clauses, among, both, cursor_from
from agentorch_cli.store.listings import DECISIONS
from agentorch_cli.store.names import no_such


async def list_decisions(
    context: Context,
    limit: int = 50,
    status: str | Sequence[str] | None = None,
    agent: str | None = None,
    capability: str | None = None,
    label: Mapping[str, str] | None = None,
    since: str | None = None,
    until: str | None = None,
    sort: str | None = None,
    cursor: str | None = None,
) -> list[views.DecisionView]:
    """Votes, newest first, or in the order of `sort`; each with the cursor of what comes after it.

    `agent`: who may vote. `label`: of its task. Raises UsageError, NotFound (a bad cursor).
    """
    wanted = both(
        among("status", status),
        among("agent", agent),
        among("capability", capability),
        *labelled(label),
        *within_time(since, until),
    )
    return await find_decisions(context, limit=limit, within=Clauses(DECISIONS, wanted, sort, cursor))


async def get_decision(context: Context, decision_id: str) -> views.DecisionView:
    """One vote, by its id or its task's. Raises NotFound."""
    found = await find_decisions(context, decision_id=decision_id) or await find_decisions(
        context, task_id=decision_id
    )
    if not found:
        raise await no_such(context.db, "vote", decision_id)
    return found[0]


async def find_decisions(
    context: Context,
    *,
    task_id: str | None = None,
    decision_id: str | None = None,
    limit: int = 50,
    within: Clauses | None = None,
) -> list[views.DecisionView]:
    rows = await context.db.fetch("show_decisions", task_id, decision_id, limit, within=within)
    ballots: dict[str, list[asyncpg.Record]] = {}
    for ballot in await context.db.fetch("show_ballots", [UUID(row["decision_id"]) for row in rows]):
        ballots.setdefault(ballot["decision_id"], []).append(ballot)
    return [_decision(row, ballots.get(row["decision_id"], [])) for row in rows]


def _decision(row: asyncpg.Record, ballots: Sequence[asyncpg.Record]) -> views.DecisionView:
    facts = dict(row)
    facts["cursor"] = cursor_from(facts["place"]) if facts["place"] is not None else None
    for key in (
        "votes",
        "dissent",
        "final_decision",
        "question",
        "options",
        "voters",
        "escalation",
        "compared",
    ):
        if facts[key] is not None:
            facts[key] = orjson.loads(facts[key])
    if facts["status"] == "pending":  # sealed: who has voted is no secret, what they said is
        facts["votes"] = [{"agent_id": one["agent_id"], "status": one["status"]} for one in ballots]
        facts["votes_used"] = sum(one["status"] == "answered" for one in ballots)
        return views.DecisionView(**facts)
    counts: dict[str, int] = {}
    names = merged(
        {vote["canonical"] for vote in facts["votes"] if vote.get("canonical") is not None},
        [(one, other) for one, other, same in facts["compared"] if same],
    )
    for vote in facts["votes"]:
        if vote.get("status") == "answered" and vote.get("canonical") is not None:
            name = names[vote["canonical"]]
            counts[name] = counts.get(name, 0) + 1
    facts["counts"] = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    facts["late_votes"] = [
        {
            "agent_id": one["agent_id"],
            "answer": orjson.loads(one["vote"]),
            "cast_at": one["cast_at"].isoformat(),
        }
        for one in ballots
        if one["vote"] is not None and one["status"] in ("late", "lost")
    ]
    return views.DecisionView(**facts)


async def open_proposal(
    context: Context,
    topic: str,
    question: Any = None,
    options: dict[str, Any] | None = None,
    voters: Sequence[str] = (),
    capability: str | None = None,
    deadline: datetime | None = None,
    deadline_seconds: float | None = None,
    opened_by: str | None = None,
) -> views.DecisionView:
    """Ask a question; `options` are those of a task's consensus. Raises UsageError."""
    decision_id = await proposals.open_proposal(
        context.store,
        topic=topic,
        question=question,
        options=options or {},
        voters=voters,
        capability=capability,
        deadline=deadline,
        deadline_seconds=deadline_seconds,
        opened_by=opened_by,
    )
    return await get_decision(context, decision_id)


async def cast_vote(
    context: Context,
    decision_id: str,
    agent_id: str,
    vote: Any = None,
    confidence: float | None = None,
    abstain: bool = False,
) -> views.VoteView:
    """Vote on a question. Raises NotFound, NotAllowed, Conflict, UsageError."""
    counted = await proposals.cast_vote(
        context.store, decision_id, agent_id, vote, confidence=confidence, abstain=abstain
    )
    return views.VoteView(**asdict(counted))


async def close_proposal(
    context: Context, decision_id: str, closed_by: str | None = None
) -> views.DecisionView:
    """End a question with the votes that are there. Raises NotFound, Conflict."""
    await proposals.close_proposal(context.store, decision_id, closed_by=closed_by)
    return await get_decision(context, decision_id)


async def get_history(context: Context, capability: str | None = None) -> views.HistoryView:
    """Stored votes and what is known of them, in the form that a replay reads."""
    labels = await context.db.fetch("history_ballots", capability)
    truth = await context.db.fetch("history_truth", capability)
    electorates = await context.db.fetch("history_electorates", capability)
    return views.HistoryView(
        labels=[dict(row) for row in labels],
        truth=[dict(row) for row in truth],
        electorates={row["task"]: row["voters"] for row in electorates},
    )


async def list_reliabilities(
    context: Context, agent_id: str | None = None, capability: str | None = None
) -> list[views.ReliabilityView]:
    """How often agents are right, by capability."""
    found = []
    for row in await context.db.fetch("show_reliabilities", agent_id, capability):
        record = Record(row["successes"] + row["verified_successes"], row["trials"] + row["verified_trials"])
        found.append(views.ReliabilityView(**dict(row), estimate=row["inferred"] or record.estimate))
    return found
