"""What is known to be true, and what follows from it: credit, the clamp, honest confidence.

A verified outcome takes the place of whatever the ballots of its vote had earned by agreement,
with three times the weight; said again, it replaces what was said before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from agentorch_cli.core.calibration import Outcome, fit
from agentorch_cli.core.election import ballot_of, policy_of, skill
from agentorch_cli.core.reliability import Record, outcome_credit, verified
from agentorch_cli.core.settle import Move
from agentorch_cli.errors import Conflict, command
from agentorch_cli.store.database import Transaction
from agentorch_cli.store.ledger import IN_TIME, credit
from agentorch_cli.store.names import no_such
from agentorch_cli.store.store import Store

REFIT_EVERY = 10
"""A calibration is fitted anew after so many more outcomes."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What somebody says about a task: its result is right or wrong, or what the answer is."""

    is_right: bool | None = None
    answer: Any = None
    has_answer: bool = False


@dataclass(frozen=True, slots=True)
class Learned:
    """What an outcome did."""

    task_id: str
    capability: str
    is_right: bool | None
    """Whether the task's result was right; None where that does not follow."""
    credited: int
    """Agents whose reliability changed."""
    verified: int
    """Verified outcomes of the capability."""
    calibrated: int
    """Outcomes behind its calibration; 0 where there are too few."""
    agents: Sequence[str] = ()
    """Whose ledger has changed."""


def verdict_of(result: Any) -> Truth | None:
    """What the result of a check task says; None where it says nothing."""
    if isinstance(result, bool):
        return Truth(result)
    if isinstance(result, Mapping):
        if isinstance(result.get("right"), bool):
            return Truth(result["right"])
        if "answer" in result:
            return Truth(answer=result["answer"], has_answer=True)
    return None


async def verify(
    tx: Transaction, task_id: str, truth: Truth, *, source: str, said_by: str | None, store: Store
) -> Learned:
    """Write an outcome down and let it count. Raises NotFound, Conflict."""
    task = await tx.fetch_one("task_for_outcome", task_id)
    if task is None:
        raise await no_such(tx, "task", task_id)
    if task["status"] not in ("completed", "failed"):
        raise Conflict(
            f"task {task_id} is {task['status']}: it has no result that could be right",
            fix=command("task", "wait", task_id),
        )
    decision = await tx.fetch_one("lock_decision", None, task_id)
    if decision is None:
        return await _verify_alone(tx, task, truth, source, said_by, store)
    return await _verify_vote(tx, task, decision, truth, source, said_by, store)


async def _verify_vote(
    tx: Transaction,
    task: asyncpg.Record,
    decision: asyncpg.Record,
    truth: Truth,
    source: str,
    said_by: str | None,
    store: Store,
) -> Learned:
    options = orjson.loads(decision["options"])
    policy = policy_of(options, max(1, len(decision["participating_agents"])))
    leader = decision["answer"]
    result = orjson.loads(task["result"]) if task["result"] is not None else None
    decided = ballot_of("", result, options, policy).answer if task["status"] == "completed" else None
    if decision["decided_by"] != "judge" and task["status"] == "completed":
        decided = leader
    right = _answer_of(truth, options) if truth.has_answer else None
    if right is None and decided is None:
        raise Conflict(
            f"task {task['task_id']} {task['status']} without a result that could be right or wrong",
            hint="say what the answer is: --answer JSON",
        )
    ballots = await tx.fetch("answers_of", decision["decision_id"])
    answers = {row["agent_id"]: row["answer"] for row in ballots if row["answer"] is not None}
    earned = outcome_credit(answers, right, decided=decided, right=truth.is_right)
    is_right = truth.is_right if right is None else (decided == right if decided is not None else False)
    known = right if right is not None else decided if truth.is_right else None
    leader_right = _leader_right(leader, known, decided, truth.is_right)
    changed = await _replace_credit(tx, store, task, decision, ballots, earned)
    await tx.fetch(
        "store_outcome",
        task["task_id"],
        decision["decision_id"],
        decision["capability"] or skill(task["required_capabilities"]),
        is_right,
        known,
        source,
        said_by,
        leader_right,
        decision["raw_confidence"],
        decision["raw_basis"],
        decision["votes_used"],
    )
    await _log(tx, task["task_id"], is_right, source, said_by, store.node_id)
    capability = decision["capability"] or "any"
    calibrated = await _recalibrate(tx, capability, decision["raw_basis"])
    number = await _verified(tx, capability)
    return Learned(task["task_id"], capability, is_right, len(earned), number, calibrated, changed)


def _leader_right(
    leader: str | None, known: str | None, decided: str | None, said_right: bool | None
) -> bool | None:
    """Whether the most popular answer was right; None where that is not known."""
    if leader is None:
        return None
    if known is not None:
        return leader == known
    return False if said_right is False and leader == decided else None


def _answer_of(truth: Truth, options: dict[str, Any]) -> str:
    """The canonical form of what the answer is said to be: a whole result, or the part that is voted on."""
    policy = policy_of(options, 1)
    whole = ballot_of("", truth.answer, options, policy).answer
    part = ballot_of("", truth.answer, {**options, "vote_on": ""}, policy).answer
    found = whole or part
    if found is None:
        raise Conflict(f"{truth.answer!r} is no answer that this vote could have given")
    return found


async def _replace_credit(
    tx: Transaction,
    store: Store,
    task: asyncpg.Record,
    decision: asyncpg.Record,
    ballots: list[asyncpg.Record],
    earned: Mapping[str, Record],
) -> list[str]:
    """Take back what each ballot had earned where the outcome says something about it, and write that.

    The agents that are concerned.
    """
    nothing = Record()
    agents = [row["agent_id"] for row in ballots if row["agent_id"] in earned or row["is_verified"]]
    if not agents:
        return []
    had = {row["agent_id"]: row for row in ballots}
    agreement: list[Record] = []
    proof: list[Record] = []
    change: dict[str, Record] = {}
    for agent in agents:
        row, now = had[agent], earned.get(agent, nothing)
        before = Record(row["credit_successes"], row["credit_trials"])
        was_verified = row["is_verified"]
        taken = nothing if was_verified else before
        agreement.append(Record(-taken.successes, -taken.trials))
        old = before if was_verified else nothing
        proof.append(Record(now.successes - old.successes, now.trials - old.trials))
        change[agent] = _replaced(now if now.trials else IN_TIME, before if before.trials else IN_TIME)
    await tx.fetch("know_agents", decision["capability"], agents)
    await tx.fetch(
        "verify_agents",
        decision["capability"],
        agents,
        [one.successes for one in agreement],
        [one.trials for one in agreement],
        [one.successes for one in proof],
        [one.trials for one in proof],
    )
    await tx.fetch(
        "verify_ballots",
        decision["decision_id"],
        agents,
        [earned.get(agent, nothing).successes for agent in agents],
        [earned.get(agent, nothing).trials for agent in agents],
        [agent in earned for agent in agents],
    )
    capability = decision["capability"] or skill(task["required_capabilities"])
    await credit(tx, store, task["task_id"], capability, change, is_outcome=False)
    return agents


def _replaced(now: Record, before: Record) -> Record:
    """What is to be added so that one record stands in the place of another."""
    return Record(now.successes - before.successes, now.trials - before.trials)


async def _verify_alone(
    tx: Transaction,
    task: asyncpg.Record,
    truth: Truth,
    source: str,
    said_by: str | None,
    store: Store,
) -> Learned:
    """A task that one agent did: what is known of it is known of that agent."""
    if task["status"] != "completed":
        raise Conflict(f"task {task['task_id']} failed: it has no result that could be right or wrong")
    capability = skill(task["required_capabilities"])
    is_right = truth.is_right
    if truth.has_answer:
        policy = policy_of({"rule": "plurality"}, 1)
        result = orjson.loads(task["result"]) if task["result"] is not None else None
        is_right = ballot_of("", result, {}, policy).answer == ballot_of("", truth.answer, {}, policy).answer
    author = await tx.fetch_one("author_of", task["task_id"])
    earlier = await tx.fetch_one("earlier_outcome", task["task_id"])
    if author is not None:
        now = verified(bool(is_right))
        old = Record() if earlier is None else verified(bool(earlier["is_right"]))
        await tx.fetch("know_agents", capability, [author["agent_id"]])
        await tx.fetch(
            "verify_agents",
            capability,
            [author["agent_id"]],
            [0.0],
            [0.0],
            [now.successes - old.successes],
            [now.trials - old.trials],
        )
        change = {author["agent_id"]: _replaced(now, IN_TIME if earlier is None else old)}
        await credit(tx, store, task["task_id"], capability, change, is_outcome=False)
    await tx.fetch(
        "store_outcome",
        task["task_id"],
        None,
        capability,
        is_right,
        None,
        source,
        said_by,
        None,
        None,
        None,
        None,
    )
    await _log(tx, task["task_id"], is_right, source, said_by, store.node_id)
    authors = [author["agent_id"]] if author is not None else []
    number = await _verified(tx, capability)
    return Learned(task["task_id"], capability, is_right, len(authors), number, 0, authors)


async def _verified(tx: Transaction, capability: str) -> int:
    rows = await tx.fetch("reliabilities", capability, [""])
    return int(rows[0]["verified"])


async def _recalibrate(tx: Transaction, capability: str, basis: str | None) -> int:
    """Fit the map of a capability again, once enough has come in since; how many outcomes it stands on."""
    if basis is None:
        return 0
    stored = await tx.fetch_one("calibration", capability, basis)
    rows = await tx.fetch("known_outcomes", capability, basis)
    if stored is not None and len(rows) - stored["outcomes"] < REFIT_EVERY:
        return int(stored["outcomes"])
    calibration = fit(
        [Outcome(row["raw_confidence"], row["votes_used"], row["leader_right"]) for row in rows]
    )
    if calibration is None:
        return 0
    await tx.fetch(
        "store_calibration",
        capability,
        basis,
        calibration.outcomes,
        list(calibration.centre),
        list(calibration.scale),
        list(calibration.weights),
    )
    return calibration.outcomes


async def note_comparison(tx: Transaction, compares: Mapping[str, Any], move: Move) -> str | None:
    """What a comparer said about two answers of an open vote; a failure counts as different."""
    row = await tx.fetch_one("open_election", compares["decision_id"])
    if row is None:
        return None
    result = move.result
    same = result.get("same") if isinstance(result, Mapping) else result
    known = orjson.loads(row["compared"])
    one, other = compares["pair"]
    known.append([one, other, same is True])
    await tx.fetch("note_compared", compares["decision_id"], orjson.dumps(known).decode())
    return str(compares["task_id"])


async def _log(
    tx: Transaction, task_id: str, is_right: bool | None, source: str, said_by: str | None, node_id: str
) -> None:
    data = orjson.dumps({"right": is_right, "source": source, "said_by": said_by}).decode()
    await tx.fetch(
        "log_events",
        ["outcome_known"],
        [task_id],
        [said_by if source == "check" else None],
        [None],
        [data],
        node_id,
    )
