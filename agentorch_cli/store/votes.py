"""Votes in the tables: opened, cast, closed, credited. Used by the engine and by the operations.

Each function is called inside somebody's transaction, under the lock of the vote's row, except
those that take a `Store`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import asyncpg
import orjson

from agentorch_cli.core import consensus
from agentorch_cli.core.calibration import Calibration
from agentorch_cli.core.election import (
    Account,
    Stage,
    account,
    honest,
    opening_wave,
    policy_of,
    skill,
    voter_from,
    voter_json,
)
from agentorch_cli.core.reliability import Record, best_first, clamped
from agentorch_cli.core.vote import Ballot, Policy, Rule, Verdict, Voter, VoteStatus
from agentorch_cli.frames import dumps
from agentorch_cli.identity import new_id
from agentorch_cli.store.database import Transaction
from agentorch_cli.store.ledger import IN_TIME, credit
from agentorch_cli.store.literals import array_literal
from agentorch_cli.store.store import Store


class Asks(Protocol):
    """A database or a transaction."""

    async def fetch(self, name: str, *args: Any) -> list[asyncpg.Record]: ...


@dataclass(frozen=True, slots=True)
class Frozen:
    """An electorate as it stands from now on."""

    voters: tuple[str, ...]
    """In the order in which they are asked."""
    wave: int
    """How many of them to ask at once."""
    is_new: bool


@dataclass(frozen=True, slots=True)
class Poll:
    """An open vote, under lock."""

    decision_id: Any
    task_id: str | None
    options: dict[str, Any]
    voters: tuple[Voter, ...]
    stored: list[dict[str, Any]]
    """The voters as they are kept."""
    capability: str
    stage: Stage = Stage.VOTE
    lost: frozenset[str] = frozenset()
    compared: tuple[tuple[str, str, bool], ...] = ()
    escalation: list[dict[str, Any]] = field(default_factory=list)

    @property
    def policy(self) -> Policy:
        return policy_of(self.options, len(self.voters))


@dataclass(frozen=True, slots=True)
class Cast:
    """One ballot, as it was given and as it is counted."""

    ballot: Ballot
    status: str
    """`answered`, `abstained`, `lost`, or `late`."""
    vote: Any = None
    confidence: float | None = None
    seconds: float | None = None
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """An agent as a voter, with the estimate by which it is asked sooner or later."""

    voter: Voter
    estimate: float


async def known_voters(db: Asks, agents: Sequence[tuple[str, float]], capability: str) -> dict[str, Known]:
    """Agents with their performance (0..1) as voters with what is known of their reliability."""
    rows = await db.fetch("reliabilities", capability, [agent for agent, _ in agents])
    performance = dict(agents)
    found = {}
    for row in rows:
        estimate = row["inferred"] or Record(row["successes"], row["trials"]).estimate
        p = min(max(clamped(estimate, row["verified"]), 1e-6), 1 - 1e-6)
        found[row["agent_id"]] = Known(Voter(row["agent_id"], p, performance[row["agent_id"]]), estimate)
    return found


async def open_task_vote(
    store: Store,
    task_id: str,
    topic: str,
    options: Mapping[str, Any],
    required: Iterable[str],
    seats: int,
    agents: Sequence[tuple[str, float]],
) -> Frozen:
    """Freeze the electorate of a task before its first ballot is asked for; `agents` are best first."""
    capability = skill(required)
    known = await known_voters(store.db, agents, capability)
    order = [agent for agent, _ in agents]
    policy = policy_of(options, min(seats, len(order)))
    if policy.rule is Rule.WEIGHTED:
        order = best_first({agent: one.estimate for agent, one in known.items()})
    members = [known[agent] for agent in order[:seats]]
    verdict = consensus.decide(policy, [one.voter for one in members], ())
    row = await store.db.fetch_one(
        "open_decision",
        new_id(),
        task_id,
        topic,
        str(policy.rule),
        policy.threshold if policy.rule is Rule.SUPERMAJORITY else None,
        len(members),
        verdict.threshold_count,
        dumps(dict(options)),
        order[: len(members)],
        capability,
        dumps([voter_json(one.voter, one.estimate) for one in members]),
        store.node_id,
    )
    assert row is not None
    wave = opening_wave(policy, len(members))
    return Frozen(tuple(row["participating_agents"]), wave, row["is_new"])


def poll_of(row: asyncpg.Record) -> Poll:
    """An open vote from its row."""
    stored = orjson.loads(row["voters"])
    return Poll(
        decision_id=row["decision_id"],
        task_id=row["task_id"],
        options=orjson.loads(row["options"]),
        voters=tuple(map(voter_from, stored)),
        stored=stored,
        capability=row["capability"] or "any",
        stage=Stage(row["stage"]) if "stage" in row else Stage.VOTE,
        lost=frozenset(row["lost_agents"]),
        compared=tuple((one, other, same) for one, other, same in orjson.loads(row["compared"])),
        escalation=orjson.loads(row["escalation"]) if "escalation" in row else [],
    )


async def cast(
    tx: Asks, decision_id: Any, task_id: str | None, casts: Sequence[Cast], node_id: str
) -> dict[str, str]:
    """Store ballots; agent to status of those that were taken."""
    if not casts:
        return {}
    rows = await tx.fetch(
        "cast_ballots",
        decision_id,
        [one.ballot.agent for one in casts],
        [one.status for one in casts],
        [None if one.status == "lost" else dumps(one.vote) for one in casts],
        [one.ballot.answer for one in casts],
        [array_literal(one.ballot.choices) for one in casts],
        [one.confidence for one in casts],
        [one.seconds for one in casts],
        [one.message_id for one in casts],
        task_id,
        node_id,
    )
    return {row["agent_id"]: row["status"] for row in rows}


@dataclass(frozen=True, slots=True)
class Closing:
    """What is written when a vote is over."""

    verdict: Verdict
    decided_by: str
    final_decision: Any
    has_answer: bool
    """The final decision is an answer, even if it is null."""
    ballots: Sequence[Ballot]
    votes: list[dict[str, Any]]
    """The ballots as people read them."""
    escalation: list[dict[str, Any]] | None = None
    closed_by: str | None = None


async def close(tx: Transaction, poll: Poll, closing: Closing, store: Store) -> None:
    """Write how a vote came out, what each ballot weighed, and what it earned its agent."""
    verdict = closing.verdict
    by_judge = closing.decided_by == "judge"
    confidence, basis = honest(verdict, await _calibration(tx, poll.capability, verdict))
    books = account(poll.policy, poll.voters, closing.ballots)
    given = {one["agent_id"]: one["answer"] for one in closing.votes}
    for one in closing.votes:
        one["weight"] = books.weights.get(one["agent_id"])
    await tx.fetch(
        "close_decision",
        poll.decision_id,
        "reached" if verdict.status is VoteStatus.REACHED else "failed",
        dumps(closing.final_decision) if closing.has_answer else None,
        dumps(closing.votes),
        verdict.threshold_count,
        verdict.votes_used,
        verdict.votes_not_asked,
        float(verdict.margin),
        None if by_judge else float(confidence),
        None if by_judge else basis,
        closing.decided_by,
        dumps([{"agent_id": agent, "answer": given.get(agent)} for agent in verdict.dissent]),
        verdict.electorate,
        verdict.leader,
        float(verdict.confidence),
        str(verdict.confidence_basis),
        dumps(closing.escalation) if closing.escalation is not None else None,
        closing.closed_by,
        store.node_id,
    )
    await _credit(tx, poll, books, store)


async def _credit(tx: Transaction, poll: Poll, books: Account, store: Store) -> None:
    """Proposals are preferences, and nobody's reliability."""
    credits = books.credits if poll.task_id is not None else {}
    agents = sorted(books.weights)
    if not agents:
        return
    earned = [credits.get(agent, Record()) for agent in agents]
    await tx.fetch(
        "weigh_ballots",
        poll.decision_id,
        agents,
        [books.weights[agent] for agent in agents],
        [one.successes for one in earned],
        [one.trials for one in earned],
    )
    if credits:
        await tx.fetch(
            "credit_agents",
            poll.capability,
            agents,
            [one.successes for one in earned],
            [one.trials for one in earned],
        )
    if poll.task_id is not None:
        said = {agent: credits.get(agent, IN_TIME) for agent in agents}
        await credit(tx, store, poll.task_id, poll.capability, said, is_outcome=True)


async def _calibration(tx: Asks, capability: str, verdict: Verdict) -> Calibration | None:
    rows = await tx.fetch("calibration", capability, str(verdict.confidence_basis))
    if not rows:
        return None
    row = rows[0]
    return Calibration(
        row["outcomes"],
        (row["centre"][0], row["centre"][1], row["centre"][2]),
        (row["scale"][0], row["scale"][1], row["scale"][2]),
        (row["weights"][0], row["weights"][1], row["weights"][2], row["weights"][3]),
    )
