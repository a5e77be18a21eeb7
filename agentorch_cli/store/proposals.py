"""Questions that stand for a vote of their own: no task, agents and people as voters.

The electorate is frozen when the question is asked. A vote is one row, so the database itself
refuses a second one; each vote is counted under the lock of its question, which closes as soon
as no ballot that is still out can change the outcome, at its deadline, or when it is closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from agentorch_cli.core import consensus
from agentorch_cli.core.election import ballot_of, plain_answer, policy_of, voter_json
from agentorch_cli.core.vote import OPTION_RULES, Ballot, BallotStatus, Rule, Verdict, VoteStatus
from agentorch_cli.errors import Conflict, InvalidTask, NotAllowed, UsageError, command
from agentorch_cli.frames import dumps
from agentorch_cli.identity import new_id
from agentorch_cli.store.database import Transaction
from agentorch_cli.store.names import no_such
from agentorch_cli.store.store import Store, as_uuid
from agentorch_cli.store.votes import Cast, Closing, Poll, cast, close, known_voters, poll_of

MOST_VOTERS = 10_000

PROPOSALS = "proposals"
"""The capability of votes that belong to no task."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A vote that was taken."""

    decision_id: str
    agent_id: str
    status: str
    is_closed: bool


async def open_proposal(
    store: Store,
    *,
    topic: str,
    question: Any,
    options: Mapping[str, Any],
    voters: Sequence[str],
    capability: str | None,
    deadline: datetime | None,
    deadline_seconds: float | None,
    opened_by: str | None,
) -> str:
    """Freeze the voters and ask; the id of the decision. Raises UsageError where nobody could vote."""
    names = await _voters(store, voters, capability)
    try:
        policy = policy_of({"min_votes": 1, **options}, len(names))
    except InvalidTask as error:
        raise UsageError(error.message.removeprefix("consensus: ")) from error
    known = await known_voters(store.db, [(name, 0.5) for name in names], capability or PROPOSALS)
    members = [known[name] for name in names]
    verdict = consensus.decide(policy, [one.voter for one in members], ())
    decision_id = new_id()
    await store.db.fetch(
        "open_proposal",
        decision_id,
        topic,
        dumps(question),
        dumps({"min_votes": 1, **options}),
        names,
        str(policy.rule),
        policy.threshold if policy.rule is Rule.SUPERMAJORITY else None,
        len(names),
        verdict.threshold_count,
        capability or PROPOSALS,
        dumps([voter_json(one.voter, one.estimate) for one in members]),
        deadline,
        deadline_seconds,
        opened_by,
        store.node_id,
    )
    return str(decision_id)


async def _voters(store: Store, voters: Sequence[str], capability: str | None) -> list[str]:
    names = list(dict.fromkeys(voters))
    if not names:
        rows = await store.db.fetch("show_agents", None, capability, None)
        names = [row["agent_id"] for row in rows]
    if not names:
        who = (
            f"no registered agent has the capability {capability!r}"
            if capability
            else "no agent is registered"
        )
        raise UsageError(f"nobody could vote: {who}", hint="name the voters: --voters ada,grace")
    if len(names) > MOST_VOTERS:
        raise UsageError(f"{len(names):,} voters are too many; at most {MOST_VOTERS:,} may vote")
    return names


async def cast_vote(
    store: Store,
    decision_id: str,
    agent_id: str,
    value: Any,
    *,
    confidence: float | None = None,
    abstain: bool = False,
) -> Counted:
    """Count a vote. Raises NotFound, NotAllowed (no voter), Conflict (closed, voted before), UsageError."""
    async with store.db.transaction() as tx:
        row = await _locked(tx, decision_id)
        if row["task_id"] is not None:
            raise Conflict(
                f"vote {decision_id} belongs to task {row['task_id']}: its ballots are the results of agents"
            )
        _refuse_closed(row)
        if agent_id not in row["participating_agents"]:
            raise NotAllowed(
                f"{agent_id} has no vote in {decision_id}",
                hint="its voters: " + ", ".join(row["participating_agents"][:20]),
            )
        poll = poll_of(row)
        ballot = ballot_of(agent_id, value, poll.options, poll.policy)
        if abstain:
            ballot = Ballot(agent_id, status=BallotStatus.ABSTAINED)
        elif ballot.status is not BallotStatus.ANSWERED:
            raise UsageError(_why_invalid(value, poll))
        status = "abstained" if abstain else "answered"
        taken = await cast(
            tx,
            row["decision_id"],
            None,
            [Cast(ballot, status, None if abstain else value, confidence)],
            store.node_id,
        )
        if agent_id not in taken:
            raise Conflict(f"{agent_id} has voted already in {decision_id}; the first vote stands")
        verdict, ballots, votes = await _counted(tx, poll)
        if verdict.decided:
            await _close(tx, store, poll, verdict, ballots, votes, str(verdict.decided_by))
    return Counted(decision_id, agent_id, status, verdict.decided)


async def close_proposal(
    store: Store, decision_id: str, *, decided_by: str = "closed", closed_by: str | None = None
) -> None:
    """End a vote now, with the ballots that are there. Raises NotFound, Conflict."""
    async with store.db.transaction() as tx:
        row = await _locked(tx, decision_id)
        if row["task_id"] is not None:
            raise Conflict(
                f"vote {decision_id} belongs to task {row['task_id']}",
                fix=command("task", "cancel", row["task_id"]),
            )
        if row["status"] != "pending":
            _refuse_closed(row)
        poll = poll_of(row)
        _, ballots, votes = await _counted(tx, poll)
        heard = {ballot.agent for ballot in ballots}
        lost = [Ballot(v.agent, status=BallotStatus.LOST) for v in poll.voters if v.agent not in heard]
        await cast(tx, row["decision_id"], None, [Cast(one, "lost") for one in lost], store.node_id)
        ballots = [*ballots, *lost]
        verdict = consensus.decide(poll.policy, poll.voters, ballots)
        votes += [
            {"agent_id": one.agent, "status": "lost", "answer": None, "canonical": None} for one in lost
        ]
        await _close(tx, store, poll, verdict, ballots, votes, decided_by, closed_by)


async def _locked(tx: Transaction, decision_id: str) -> asyncpg.Record:
    row = await tx.fetch_one("lock_decision", as_uuid(decision_id), decision_id)
    if row is None:
        raise await no_such(tx, "vote", decision_id)
    return row


def _refuse_closed(row: asyncpg.Record) -> None:
    if row["status"] != "pending":
        raise Conflict(
            f"vote {row['decision_id']} closed at {row['decided_at']:%Y-%m-%d %H:%M:%S} UTC:"
            f" {row['status']}, by {row['decided_by']}",
            fix=f"agentorch consensus show {row['decision_id']}",
        )
    if row["is_overdue"]:
        raise Conflict(
            f"vote {row['decision_id']} took votes until {row['deadline']:%Y-%m-%d %H:%M:%S} UTC",
            fix=f"agentorch consensus show {row['decision_id']}",
        )


def _why_invalid(value: Any, poll: Poll) -> str:
    shown = orjson.dumps(value).decode()[:100]
    options = ", ".join(str(option) for option in poll.options.get("options") or ())
    if poll.policy.rule in OPTION_RULES:
        return f"{shown} does not rank the options, each at most once; they are {options}"
    return f"{shown} is not one of the options: {options}" if options else f"{shown} is no answer that counts"


async def _counted(tx: Transaction, poll: Poll) -> tuple[Verdict, list[Ballot], list[dict[str, Any]]]:
    """The verdict of what is stored, with the ballots as they count and as people read them."""
    rows = await tx.fetch("show_ballots", [poll.decision_id])
    ballots = [ballot_from(row) for row in rows]
    votes = [
        {
            "agent_id": row["agent_id"],
            "status": row["status"],
            "answer": orjson.loads(row["vote"]) if row["vote"] is not None else None,
            "canonical": row["answer"],
            "confidence": row["confidence"],
            "cast_at": row["cast_at"].isoformat(),
        }
        for row in rows
    ]
    out = len(poll.voters) - len(ballots)
    return consensus.decide(poll.policy, poll.voters, ballots, out=out), ballots, votes


def ballot_from(row: Mapping[str, Any] | asyncpg.Record) -> Ballot:
    """A stored ballot as it counts."""
    if row["status"] != "answered":
        status = BallotStatus.LOST if row["status"] in ("lost", "late") else BallotStatus.ABSTAINED
        return Ballot(row["agent_id"], status=status)
    return Ballot(row["agent_id"], row["answer"], choices=tuple(row["choices"]))


async def _close(
    tx: Transaction,
    store: Store,
    poll: Poll,
    verdict: Verdict,
    ballots: Sequence[Ballot],
    votes: list[dict[str, Any]],
    decided_by: str,
    closed_by: str | None = None,
) -> None:
    reached = verdict.status is VoteStatus.REACHED
    closing = Closing(
        verdict=verdict,
        decided_by=decided_by,
        final_decision=plain_answer(verdict.answer, poll.options, poll.policy) if reached else None,
        has_answer=reached,
        ballots=ballots,
        votes=votes,
        closed_by=closed_by,
    )
    await close(tx, poll, closing, store)


async def waiting_for(
    store: Store, agents: Sequence[str], decision_id: str | None = None
) -> list[tuple[UUID, list[str], dict[str, Any]]]:
    """Open questions, who of these agents has not answered yet, and what to ask them."""
    found = []
    for row in await store.db.fetch("open_proposals", list(agents), decision_id):
        if not row["unheard"]:
            continue
        data: dict[str, Any] = {
            "decisionId": row["decision_id"],
            "topic": row["topic"],
            "question": orjson.loads(row["question"]) if row["question"] is not None else None,
        }
        options = orjson.loads(row["options"]).get("options")
        if options:
            data["options"] = options
        if row["deadline"] is not None:
            data["deadline"] = row["deadline"].isoformat().replace("+00:00", "Z")
        found.append((UUID(row["decision_id"]), list(row["unheard"]), data))
    return found
