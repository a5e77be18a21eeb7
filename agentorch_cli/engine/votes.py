"""The votes of tasks, as the settler needs them: read under lock, decided by core, written.

Everything happens in the settler's transaction, so that a task and its vote cannot disagree,
whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import orjson

from agentorch_cli.core import consensus
from agentorch_cli.core.election import (
    Election,
    Ruling,
    ballot_of,
    ballots_of,
    judge_of,
    policy_of,
    same_named,
    settle_vote,
    voter_json,
)
from agentorch_cli.core.matching import Want
from agentorch_cli.core.model import AttemptStatus, TaskSpec, TaskStatus
from agentorch_cli.core.settle import Case, Move, Tried
from agentorch_cli.core.vote import BallotStatus, Policy, Verdict, VoteStatus
from agentorch_cli.engine.state import Report, State
from agentorch_cli.frames import dumps
from agentorch_cli.identity import new_id, new_id_text
from agentorch_cli.store.database import Transaction
from agentorch_cli.store.records import AttemptRow, LockedTask
from agentorch_cli.store.store import Store
from agentorch_cli.store.submission import insert_within
from agentorch_cli.store.votes import Cast, Closing, Known, Poll, cast, close, known_voters, poll_of

COMPARE = "compare"
"""The type of the task that asks whether two answers mean the same."""

COMPARE_SECONDS = 120.0


class Votes:
    """Reads, decides and writes votes."""

    def __init__(self, state: State, store: Store) -> None:
        self.state = state
        self.store = store

    async def poll(self, tx: Transaction, task: LockedTask) -> Poll | None:
        """The open vote of a task, under lock."""
        if "consensus" not in task.options:
            return None
        row = await tx.fetch_one("lock_election", task.task_id)
        return poll_of(row) if row is not None else None

    async def decide(
        self,
        tx: Transaction,
        task: LockedTask,
        poll: Poll,
        case: Case,
        finished: Collection[str],
        gone: Collection[str] = (),
    ) -> Move:
        """Store the ballots that came in, decide, and write what that means for the vote."""
        if gone:
            await self._lose(tx, poll, sorted(gone))
            poll = _with_lost(poll, gone)
        await self._cast(tx, poll, case, finished)
        spare = await self._spare(tx, task, poll, case)
        election = Election(
            options=poll.options,
            voters=poll.voters,
            stage=poll.stage,
            lost=poll.lost,
            compared=poll.compared,
            spare=tuple(one.voter for one in spare.values()),
            judges=len(self._who_can(judge_of(poll.options), task.pool, poll, case)),
            can_compare="comparer" in poll.options and self._has(poll.options["comparer"], task.pool),
        )
        ruling = settle_vote(case, election)
        if ruling.is_over:
            await self._close(tx, poll, election, case, ruling)
        elif ruling.added:
            await self._widen(tx, poll, [spare[voter.agent] for voter in ruling.added], ruling.verdict)
        elif ruling.calls_judge:
            await self._call_judge(tx, poll, ruling.verdict)
        elif ruling.asks_same:
            await self._ask_same(tx, task, poll, ruling.asks_same)
        return ruling.move

    async def give_up(self, tx: Transaction, poll: Poll, case: Case, decided_by: str) -> None:
        """Close a vote whose task ended for another reason, such as its deadline."""
        election = Election(poll.options, poll.voters, poll.stage, poll.lost, poll.compared)
        verdict = _failed_now(poll, case, election)
        ruling = Ruling(Move(TaskStatus.FAILED), verdict, decided_by)
        await self._close(tx, poll, election, case, ruling)

    async def cast_late(
        self, tx: Transaction, task: LockedTask, reports: Iterable[Report], attempts: Sequence[AttemptRow]
    ) -> None:
        """Answers that come after the decision are kept, and change nothing."""
        late = [report for report in reports if report.status is AttemptStatus.COMPLETED]
        if "consensus" not in task.options or not late:
            return
        row = await tx.fetch_one("decision_of", task.task_id)
        if row is None or row["status"] == "pending":
            return
        options = task.options["consensus"]
        voters = set(row["participating_agents"])
        policy = policy_of(options, max(1, len(voters)))
        ids = {one.message_id for one in attempts}
        casts = [
            Cast(
                ballot_of(report.agent_id, _loaded(report.result), options, policy),
                "late",
                _loaded(report.result),
                report.confidence,
                message_id=report.message_id,
            )
            for report in late
            if report.agent_id in voters and report.message_id in ids
        ]
        await cast(tx, row["decision_id"], task.task_id, casts, self.store.node_id)

    # --- writing ----------------------------------------------------------------------------

    async def _cast(self, tx: Transaction, poll: Poll, case: Case, finished: Collection[str]) -> None:
        voters = {voter.agent for voter in poll.voters}
        policy = poll.policy
        casts = []
        for one in case.tried:
            if one.message_id not in finished or one.agent_id not in voters or one.status.is_live:
                continue
            casts.append(_cast_of(one, poll, policy))
        taken = await cast(tx, poll.decision_id, case.task_id, casts, self.store.node_id)
        for agent_id, status in taken.items():
            self.state.bus.publish("ballot_cast", task_id=case.task_id, agent_id=agent_id, status=status)

    async def _lose(self, tx: Transaction, poll: Poll, gone: list[str]) -> None:
        await tx.fetch("lose_voters", poll.decision_id, gone)
        policy = poll.policy
        casts = [Cast(ballot_of(agent, None, poll.options, policy), "lost") for agent in gone]
        await cast(tx, poll.decision_id, poll.task_id, casts, self.store.node_id)

    async def _close(
        self, tx: Transaction, poll: Poll, election: Election, case: Case, ruling: Ruling
    ) -> None:
        policy = poll.policy
        ballots = same_named(ballots_of(case.tried, election, policy), election.compared)
        counted = {ballot.agent: ballot for ballot in ballots}
        tried = {one.agent_id: one for one in case.tried}
        votes = [
            {
                "agent_id": voter.agent,
                "status": str(counted[voter.agent].status),
                "answer": tried[voter.agent].result if voter.agent in tried else None,
                "canonical": counted[voter.agent].answer,
                "confidence": tried[voter.agent].confidence if voter.agent in tried else None,
                "seconds": tried[voter.agent].seconds if voter.agent in tried else None,
                "message_id": tried[voter.agent].message_id if voter.agent in tried else None,
            }
            for voter in poll.voters
            if voter.agent in counted
        ]
        escalation = list(poll.escalation)
        if ruling.decided_by == "judge":
            judge = next(
                one
                for one in case.tried
                if one.agent_id not in {v.agent for v in poll.voters}
                and one.status is AttemptStatus.COMPLETED
            )
            escalation.append({"step": "judged", "agent_id": judge.agent_id, "answer": judge.result})
        elif ruling.decided_by == "plurality":
            escalation.append({"step": "plurality", "counts": dict(ruling.verdict.counts)})
        closing = Closing(
            verdict=ruling.verdict,
            decided_by=str(ruling.decided_by),
            final_decision=ruling.move.result,
            has_answer=ruling.move.status is TaskStatus.COMPLETED,
            ballots=ballots,
            votes=votes,
            escalation=escalation,
        )
        await close(tx, poll, closing, self.store)
        is_reached = ruling.verdict.status is VoteStatus.REACHED
        self.state.meters.votes["reached" if is_reached else "failed"] += 1
        self.state.bus.publish(
            "consensus_decided",
            task_id=case.task_id,
            reached=is_reached,
            decided_by=ruling.decided_by,
        )

    async def _widen(self, tx: Transaction, poll: Poll, added: list[Known], verdict: Verdict) -> None:
        names = [one.voter.agent for one in added]
        stored = [*poll.stored, *(voter_json(one.voter, one.estimate) for one in added)]
        step = {"step": "voters", "added": names, "counts": dict(verdict.counts)}
        await tx.fetch(
            "widen_electorate",
            poll.decision_id,
            names,
            dumps(stored),
            len(stored),
            dumps([*poll.escalation, step]),
        )

    async def _call_judge(self, tx: Transaction, poll: Poll, verdict: Verdict) -> None:
        brief = [
            {"answer": _loaded_or_text(answer), "votes": number}
            for answer, number in sorted(verdict.counts.items(), key=lambda item: (-item[1], item[0]))
        ]
        step = {"step": "judge", "capability": judge_of(poll.options), "counts": dict(verdict.counts)}
        await tx.fetch("call_judge", poll.decision_id, dumps(brief), dumps([*poll.escalation, step]))

    async def _ask_same(
        self, tx: Transaction, task: LockedTask, poll: Poll, pairs: Sequence[tuple[str, str]]
    ) -> None:
        """Tasks for the comparer, one for each pair; they inform the vote when they end."""
        tasks = [
            TaskSpec(
                task_id=new_id_text(),
                type=COMPARE,
                name=f"compare two answers to {task.task_id}"[:200],
                required_capabilities=(poll.options["comparer"],),
                timeout_seconds=COMPARE_SECONDS,
                retries=1,
                priority=10,
                idempotency_key=f"compare {poll.decision_id} {number} {hash_of(pair)}",
                data={
                    "one": _loaded_or_text(pair[0]),
                    "other": _loaded_or_text(pair[1]),
                    "question": "do these two answers mean the same?",
                },
                pool=task.pool,
                parent_id=task.task_id,
                labels=task.options.get("labels", {}),
                funded_by=task.options.get("funded_by"),
                borrows=task.task_id if task.options.keys() & {"labels", "funded_by"} else None,
                compares={"task_id": task.task_id, "decision_id": str(poll.decision_id), "pair": list(pair)},
            )
            for number, pair in enumerate(pairs)
        ]
        await insert_within(tx, self.store, new_id(), tasks)

    # --- who there is -----------------------------------------------------------------------

    async def _spare(self, tx: Transaction, task: LockedTask, poll: Poll, case: Case) -> dict[str, Known]:
        """Agents that could be added to the electorate, best first."""
        if poll.options.get("on_no_consensus") != "escalate":
            return {}
        taken = {voter.agent for voter in poll.voters} | {one.agent_id for one in case.tried}
        members = self.state.roster.eligible(
            Want(frozenset(task.required_capabilities), closed_to=frozenset(taken), pool=task.pool)
        )
        known = await known_voters(tx, [(m.agent_id, m.performance) for m in members], poll.capability)
        order = sorted(
            known.values(), key=lambda one: (-one.estimate, -one.voter.performance, one.voter.agent)
        )
        return {one.voter.agent: one for one in order}

    def _who_can(self, capability: str, pool: str, poll: Poll, case: Case) -> list[str]:
        """Registered agents of the pool with a capability that have no part in this vote, here or away."""
        taken = {voter.agent for voter in poll.voters} | {one.agent_id for one in case.tried}
        return [
            member.agent_id
            for member in self.state.roster.members.values()
            if capability in member.capabilities and member.pool == pool and member.agent_id not in taken
        ]

    def _has(self, capability: str, pool: str) -> bool:
        return any(
            capability in member.capabilities and member.pool == pool
            for member in self.state.roster.members.values()
        )


def hash_of(pair: tuple[str, str]) -> str:
    """A short name of two answers."""
    return sha256("\0".join(pair).encode()).hexdigest()[:16]


def _cast_of(one: Tried, poll: Poll, policy: Policy) -> Cast:
    if one.status is not AttemptStatus.COMPLETED:
        return Cast(ballot_of(one.agent_id, None, poll.options, policy), "lost", message_id=one.message_id)
    ballot = ballot_of(one.agent_id, one.result, poll.options, policy)
    status = "answered" if ballot.status is BallotStatus.ANSWERED else "abstained"
    return Cast(ballot, status, one.result, one.confidence, one.seconds, one.message_id)


def _with_lost(poll: Poll, gone: Collection[str]) -> Poll:
    return replace(poll, lost=poll.lost | set(gone))


def _failed_now(poll: Poll, case: Case, election: Election) -> Verdict:
    """Where the vote stood when it was given up: not reached."""
    ballots = same_named(ballots_of(case.tried, election, poll.policy), election.compared)
    verdict = consensus.decide(poll.policy, poll.voters, ballots)
    return replace(verdict, status=VoteStatus.FAILED, answer=None)


def _loaded(result: str | None) -> Any:
    return orjson.loads(result) if result is not None else None


def _loaded_or_text(answer: str) -> Any:
    """A canonical answer as the value that it writes."""
    try:
        return orjson.loads(answer)
    except orjson.JSONDecodeError:
        return answer
