"""One small async function per operation. Local and remote calls both end here.

A handler takes the context and keyword arguments, asks the store, and answers with a view.
It raises the errors of `errors`; it prints nothing and knows nothing of terminals.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from agentorch_cli import views
from agentorch_cli.core.equivalence import merged
from agentorch_cli.core.ladder import Finding, Policy
from agentorch_cli.core.model import AgentSpec, TaskSpec, TaskStatus
from agentorch_cli.core.reliability import Record
from agentorch_cli.errors import Conflict, NotFound, WaitTimedOut
from agentorch_cli.frames import dumps
from agentorch_cli.identity import new_id
from agentorch_cli.store import proposals
from agentorch_cli.store.database import Database
from agentorch_cli.store.deadlocks import Deadlocks
from agentorch_cli.store.dependencies import add_dependency
from agentorch_cli.store.migrations import newest_version
from agentorch_cli.store.store import Store, as_uuid, hint
from agentorch_cli.store.submission import array_literal, insert
from agentorch_cli.store.truth import Truth, verify
from agentorch_cli.store.waiting import Waiting
from agentorch_cli.store.why import idle_beside_work, who_could, why

MOST_SHOWN = 1_000


@dataclass(slots=True)
class Context:
    """What handlers work with."""

    store: Store
    waiting: Waiting | None = None
    """In a process that listens already; elsewhere each wait listens for itself."""
    policy: Policy = field(default_factory=Policy)
    """What is done about deadlocks."""
    grace: float = 30.0
    """Seconds for which an agent that went away still counts as there."""
    on_close: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    @property
    def db(self) -> Database:
        return self.store.db

    async def close(self) -> None:
        """Close what was opened for this context, last first."""
        for step in reversed(self.on_close):
            await step()


# --- the schema -----------------------------------------------------------------------------


async def apply_schema(context: Context, check: bool = False) -> views.SchemaView:
    """Create or upgrade the schema; `check`: only say how it stands."""
    wanted = newest_version()
    applied = [] if check else await context.db.migrate()
    current = await context.db.schema_version()
    return views.SchemaView(current=current, wanted=wanted, applied=applied, is_up_to_date=current == wanted)


# --- agents ---------------------------------------------------------------------------------


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
    return await _agents(context, ids=[a.agent_id for a in agents])


async def list_agents(
    context: Context, status: str | None = None, capability: str | None = None
) -> list[views.AgentView]:
    """The fleet, by id."""
    return await _agents(context, status=status, capability=capability)


async def get_agent(context: Context, agent_id: str) -> views.AgentView:
    """One agent. Raises NotFound."""
    found = await _agents(context, ids=[agent_id], details=True)
    if not found:
        raise NotFound(f"there is no agent {agent_id!r}", hint="agentorch agent list shows the fleet")
    return found[0]


async def remove_agents(context: Context, agent_ids: Sequence[str], force: bool = False) -> views.ChangeReply:
    """Take agents out of the registry; those that hold work only with `force`."""
    known = {agent.agent_id for agent in await _agents(context, ids=agent_ids)}
    rows = await context.db.fetch("remove_agents", list(agent_ids), force, context.store.node_id)
    gone = {row["agent_id"] for row in rows}
    reply = views.ChangeReply(changed=sorted(gone))
    for agent_id in agent_ids:
        if agent_id not in known:
            reply.unchanged[agent_id] = "there is no such agent"
        elif agent_id not in gone:
            reply.unchanged[agent_id] = "it holds work; drain it first, or use --force"
    return reply


async def _agents(
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


# --- tasks ----------------------------------------------------------------------------------


async def submit_tasks(
    context: Context, tasks: Sequence[TaskSpec], allow_forward: bool = False
) -> views.SubmitReply:
    """Store a submission, whole or not at all. Raises Conflict, NotFound (an unknown dependency).

    `allow_forward`: tasks may depend on ids that do not exist yet, and wait for them to come.
    """
    submission_id = new_id()
    stored = await insert(context.store, submission_id, tasks, allow_forward=allow_forward)
    reply = views.SubmitReply(
        submission_id=str(submission_id),
        tasks=[
            views.SubmittedTask(task_id=one.task_id, name=one.name, status=one.status, is_new=one.is_new)
            for one in stored
        ],
    )
    reply.warnings = await _unserved(context, tasks)
    return reply


async def _unserved(context: Context, tasks: Sequence[TaskSpec]) -> list[str]:
    """Sentences about capabilities that nobody has, where there are any."""
    wanted = {frozenset(task.required_capabilities) for task in tasks}
    rows = await context.db.fetch("capability_sets")
    fleets = [frozenset(row["capabilities"]) for row in rows]
    told = []
    for required in sorted(wanted, key=sorted):
        if not any(required <= fleet for fleet in fleets):
            told.append(
                "no registered agent has "
                + (" and ".join(sorted(required)) if required else "connected or been registered yet")
                + "; the task waits until one comes"
            )
    return told


async def list_tasks(
    context: Context,
    status: Sequence[str] | None = None,
    type: str | None = None,
    agent: str | None = None,
    submission_id: str | None = None,
    limit: int = 50,
) -> list[views.TaskView]:
    """Tasks, newest first. Raises NotFound where the submission's id is none."""
    if submission_id is not None and as_uuid(submission_id) is None:
        raise NotFound(f"there is no submission {submission_id!r}", hint="task submit --json names it")
    rows = await context.db.fetch(
        "show_tasks", list(status) if status else None, type, agent, submission_id, limit, None
    )
    return [_task(row) for row in rows]


async def get_task(context: Context, task_id: str) -> views.TaskView:
    """One task with its attempts, its story and its vote. Raises NotFound."""
    row = await context.db.fetch_one("show_task", task_id)
    if row is None:
        raise NotFound(f"there is no task {task_id!r}", hint="agentorch task list shows the newest")
    task = _task(row)
    task.attempts = [_attempt(one) for one in await context.db.fetch("show_attempts", task_id)]
    task.events = [_event(one) for one in await context.db.fetch("task_story", task_id, MOST_SHOWN)]
    decisions = await _decisions(context, task_id=task_id)
    task.decision = decisions[0] if decisions else None
    return task


async def wait_for_tasks(
    context: Context, task_ids: Sequence[str], timeout_seconds: float | None = None
) -> list[views.TaskView]:
    """Return the tasks once all are final. Raises NotFound, WaitTimedOut."""
    ids = list(dict.fromkeys(task_ids))
    known = {row["task_id"] for row in await context.db.fetch("statuses", ids)}
    unknown = [task_id for task_id in ids if task_id not in known]
    if unknown:
        raise NotFound(f"there is no task {unknown[0]!r}")
    try:
        async with asyncio.timeout(timeout_seconds):
            await _until_final(context, ids)
    except TimeoutError:
        left = [row["task_id"] for row in await context.db.fetch("standing", ids)]
        raise WaitTimedOut(
            f"{len(left)} of {len(ids)} tasks have not ended after {timeout_seconds:g} s",
            hint=f"agentorch task show {left[0]}" if left else None,
            task_ids=left[:100],
        ) from None
    rows = {row["task_id"]: row for row in await context.db.fetch("results", ids)}
    return [_task(rows[task_id]) for task_id in ids]


async def _until_final(context: Context, ids: Sequence[str]) -> None:
    if context.waiting is not None:
        await context.waiting.until_final(ids)
        return
    waiting = Waiting(context.db)
    async with waiting.listening():
        await waiting.until_final(ids)


async def cancel_tasks(
    context: Context, task_ids: Sequence[str], reason: str | None = None
) -> views.ChangeReply:
    """Call tasks off, and all their sub-tasks; agents that hold them are told."""
    ids = list(dict.fromkeys(task_ids))
    message = reason or "cancelled by request"
    async with context.db.transaction() as tx:
        tree = [row["task_id"] for row in await tx.fetch("lineage_down", ids)]
        stood = await context.store.lock_tasks(tx, tree)
        rows = await tx.fetch("cancel_tasks", tree, message, context.store.node_id)
    off = [row["task_id"] for row in rows]
    await context.store.notify("agentorch_cancel", hint([str(m) for row in rows for m in row["messages"]]))
    told = await context.store.unlock(
        [(row["task_id"], "cancelled") for row in rows if row["has_dependents"]]
    )
    await context.store.notify("agentorch_done", hint(off))
    await context.store.notify("agentorch_tasks", hint(told.ready, delayed=told.delayed))
    reply = views.ChangeReply(changed=off)
    for task_id in ids:
        if task_id not in stood:
            reply.unchanged[task_id] = "there is no such task"
        elif task_id not in off:
            reply.unchanged[task_id] = f"it is {stood[task_id].status} already"
    return reply


async def retry_tasks(context: Context, task_ids: Sequence[str]) -> views.ChangeReply:
    """Open tasks again that ended without a result, and what failed because of them."""
    ids = list(dict.fromkeys(task_ids))
    async with context.db.transaction() as tx:
        known = {row["task_id"]: row for row in await tx.fetch("statuses", ids)}
        ended = [t for t, row in known.items() if row["status"] in ("failed", "cancelled", "skipped")]
        fallen = await tx.fetch("fallen_with", ended, [known[t]["submission_id"] for t in ended])
        reopened = sorted({row["task_id"] for row in fallen})
        # What they depend on is locked too: it may end at this moment, and they would wait for it for ever.
        needed = await tx.fetch("dependencies_of", reopened)
        await context.store.lock_tasks(tx, [*reopened, *(row["task_id"] for row in needed)])
        waits = {row["task_id"]: row["waits_for"] for row in await tx.fetch("open_dependencies", reopened)}
        blocked = {row["task_id"] for row in await tx.fetch("dead_dependencies", reopened)}
        opened = [task_id for task_id in reopened if task_id not in blocked]
        rows = await tx.fetch(
            "retry_tasks",
            opened,
            [len(waits.get(task_id, ())) for task_id in opened],
            context.store.aging_seconds,
            context.store.node_id,
        )
        edges = [(dependency, task_id) for task_id in opened for dependency in waits.get(task_id, ())]
        await tx.fetch("add_edges", [edge[0] for edge in edges], [edge[1] for edge in edges])
    ready = [row["task_id"] for row in rows if row["status"] == TaskStatus.PENDING]
    await context.store.notify("agentorch_tasks", hint(ready))
    changed = [row["task_id"] for row in rows]
    reply = views.ChangeReply(changed=changed)
    for task_id in ids:
        if task_id not in known:
            reply.unchanged[task_id] = "there is no such task"
        elif task_id in blocked:
            reply.unchanged[task_id] = "a task that it depends on has not completed; retry that one"
        elif task_id not in changed:
            reply.unchanged[task_id] = f"it is {known[task_id]['status']}"
    return reply


async def plan_tasks(context: Context, tasks: Sequence[TaskSpec]) -> views.PlanView:
    """What the fleet that is registered could make of a submission. Nothing is stored."""
    own = {task.task_id for task in tasks}
    external = sorted({one for task in tasks for one in task.depends_on if one not in own})
    known = {row["task_id"] for row in await context.db.fetch("statuses", external)}
    able, why_not = await who_could(context.store, [frozenset(task.required_capabilities) for task in tasks])
    never: dict[str, str] = {}
    for task in tasks:
        required = frozenset(task.required_capabilities)
        if len(able[required]) < task.min_agents:
            never[task.task_id] = (
                f"wants {task.min_agents} agent{'' if task.min_agents == 1 else 's'},"
                f" {len(able[required])} could: {why_not[required]}"
            )
    return views.PlanView(
        missing=[one for one in external if one not in known],
        agents={task.task_id: able[frozenset(task.required_capabilities)] for task in tasks},
        never=never,
    )


async def why_task(context: Context, task_id: str) -> views.WhyView:
    """Why a task waits, link by link, from the rules that assign. Raises NotFound."""
    found = await why(context.store, task_id)
    links = [views.WhyLink(**asdict(link)) for link in found.links]
    for one in await _deadlocks(context, only_open=True, task_id=task_id, limit=3):
        links.append(
            views.WhyLink(
                task_id=task_id,
                code="deadlock",
                sentence=f"{one.kind}: {one.reason} (agentorch deadlock show {one.deadlock_id})",
                seconds=one.waited_s,
            )
        )
    return views.WhyView(task_id=task_id, status=found.status, is_clear=found.is_clear, links=links)


async def depend_on(context: Context, task_id: str, on: str) -> views.TaskView:
    """Let a task that has not begun wait for another. Raises NotFound, Conflict (with the cycle)."""
    await add_dependency(context.store, task_id, on)
    return await get_task(context, task_id)


def _task(row: asyncpg.Record) -> views.TaskView:
    facts: dict[str, Any] = dict(row)
    for key in ("error", "options", "result"):
        if facts.get(key) is not None:
            facts[key] = orjson.loads(facts[key])
    if facts.get("task_data") is not None:
        facts["data"] = orjson.loads(facts["task_data"])
    if "options" in facts:
        facts["labels"] = facts["options"].pop("labels", {})
    return views.TaskView(**facts)


def _attempt(row: asyncpg.Record) -> views.AttemptView:
    facts: dict[str, Any] = dict(row)
    for key in ("result", "error", "usage"):
        if facts[key] is not None:
            facts[key] = orjson.loads(facts[key])
    facts["message_id"] = str(facts["message_id"])
    return views.AttemptView(**facts)


# --- what happened --------------------------------------------------------------------------


async def list_events(
    context: Context, task_id: str | None = None, cursor: str | None = None, limit: int = 200
) -> list[views.EventView]:
    """The log after a cursor, oldest first."""
    tx, _, event_id = (cursor or "0:0").partition(":")
    if not (tx.isdecimal() and event_id.isdecimal() and int(tx) < 1 << 63 and int(event_id) < 1 << 63):
        raise NotFound(f"{cursor!r} is no cursor", hint="use the cursor of an event that was shown")
    rows = await context.db.fetch("show_events", task_id, tx, int(event_id), limit)
    return [_event(row) for row in rows]


def _event(row: asyncpg.Record) -> views.EventView:
    return views.EventView(
        cursor=f"{row['tx']}:{row['event_id']}",
        at=row["at"],
        kind=row["kind"],
        task_id=row["task_id"],
        agent_id=row["agent_id"],
        message_id=str(row["message_id"]) if row["message_id"] else None,
        node_id=row["node_id"],
        data=orjson.loads(row["data"]) if row["data"] else {},
    )


async def list_decisions(
    context: Context, limit: int = 50, status: str | None = None
) -> list[views.DecisionView]:
    """Votes, newest first."""
    return await _decisions(context, limit=limit, status=status)


async def get_decision(context: Context, decision_id: str) -> views.DecisionView:
    """One vote, by its id or its task's. Raises NotFound."""
    found = await _decisions(context, decision_id=decision_id) or await _decisions(
        context, task_id=decision_id
    )
    if not found:
        raise NotFound(f"there is no vote {decision_id!r}", hint="agentorch consensus list shows the newest")
    return found[0]


async def _decisions(
    context: Context,
    *,
    task_id: str | None = None,
    decision_id: str | None = None,
    limit: int = 50,
    status: str | None = None,
) -> list[views.DecisionView]:
    rows = await context.db.fetch("show_decisions", task_id, decision_id, limit, status)
    ballots: dict[str, list[asyncpg.Record]] = {}
    for ballot in await context.db.fetch("show_ballots", [UUID(row["decision_id"]) for row in rows]):
        ballots.setdefault(ballot["decision_id"], []).append(ballot)
    return [_decision(row, ballots.get(row["decision_id"], [])) for row in rows]


def _decision(row: asyncpg.Record, ballots: Sequence[asyncpg.Record]) -> views.DecisionView:
    facts = dict(row)
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
    return views.HistoryView(labels=[dict(row) for row in labels], truth=[dict(row) for row in truth])


async def list_reliabilities(
    context: Context, agent_id: str | None = None, capability: str | None = None
) -> list[views.ReliabilityView]:
    """How often agents are right, by capability."""
    found = []
    for row in await context.db.fetch("show_reliabilities", agent_id, capability):
        record = Record(row["successes"] + row["verified_successes"], row["trials"] + row["verified_trials"])
        found.append(views.ReliabilityView(**dict(row), estimate=row["inferred"] or record.estimate))
    return found


# --- deadlocks ------------------------------------------------------------------------------


async def list_deadlocks(
    context: Context, only_open: bool = False, task_id: str | None = None, limit: int = 50
) -> list[views.DeadlockView]:
    """Deadlocks, newest first."""
    return await _deadlocks(context, only_open=only_open, task_id=task_id, limit=limit)


async def get_deadlock(context: Context, deadlock_id: str) -> views.DeadlockView:
    """One deadlock, by its id or that of a task in it. Raises NotFound."""
    found = await _deadlocks(context, deadlock_id=deadlock_id) or await _deadlocks(
        context, task_id=deadlock_id, limit=1
    )
    if not found:
        raise NotFound(
            f"there is no deadlock {deadlock_id!r}", hint="agentorch deadlock list shows the newest"
        )
    return found[0]


async def _deadlocks(
    context: Context,
    *,
    deadlock_id: str | None = None,
    only_open: bool = False,
    task_id: str | None = None,
    limit: int = 1,
) -> list[views.DeadlockView]:
    rows = await context.db.fetch("show_deadlocks", deadlock_id, only_open, task_id, limit)
    return [
        views.DeadlockView(
            **{**dict(row), "edges": orjson.loads(row["edges"]), "cost": orjson.loads(row["cost"])}
        )
        for row in rows
    ]


async def check_deadlocks(context: Context) -> views.DeadlockCheck:
    """Look at everything that waits, now; change nothing."""
    look = await Deadlocks(context.store, context.policy, grace=context.grace).look()
    return views.DeadlockCheck(
        stuck=list(look.report.stuck),
        components=[list(part.members) for part in look.report.components],
        kind={task: str(kind) for task, kind in look.report.kind.items()},
        cycles=[list(cycle) for cycle in look.report.cycles],
        victims=list(look.report.victims),
        found=[_finding(one) for one in look.found],
    )


async def resolve_deadlocks(
    context: Context,
    deadlock_id: str | None = None,
    dry_run: bool = False,
    by: str = "person",
) -> list[views.DeadlockStep]:
    """Take the next step of the ladder for each deadlock (or one of them) that is there now.

    `dry_run`: only say what would be done. Raises NotFound.
    """
    deadlocks = Deadlocks(context.store, context.policy, grace=context.grace)
    look = await deadlocks.look()
    wanted = None
    if deadlock_id is not None:
        wanted = set((await get_deadlock(context, deadlock_id)).members)
    steps = {
        mark: pair
        for mark, pair in deadlocks.steps(look, by_person=True).items()
        if wanted is None or wanted & set(pair[0].members)
    }
    if not dry_run:
        await deadlocks.record(look.found, look.at)
        done = await deadlocks.resolve(look, steps, by)
    return [
        views.DeadlockStep(
            **_finding(finding).model_dump(),
            act=str(step.act),
            step=step.sentence,
            is_done=not dry_run and mark in done,
        )
        for mark, (finding, step) in steps.items()
    ]


def _finding(one: Finding) -> views.DeadlockFinding:
    return views.DeadlockFinding(
        kind=str(one.kind),
        members=list(one.members),
        edges=list(one.edges),
        reason=one.reason,
        waited_s=one.waited_s,
        victims=list(one.victims or one.doomed),
        cost=dict(one.cost),
    )


# --- what is true ---------------------------------------------------------------------------


async def say_outcome(
    context: Context,
    task_id: str,
    right: bool | None = None,
    answer: Any = None,
    has_answer: bool = False,
    said_by: str | None = None,
    source: str = "person",
) -> views.OutcomeView:
    """Say whether a task's result was right, or what is. Raises NotFound, Conflict."""
    truth = Truth(right, answer, has_answer)
    async with context.db.transaction() as tx:
        learned = await verify(
            tx, task_id, truth, source=source, said_by=said_by, node_id=context.store.node_id
        )
    return views.OutcomeView(**asdict(learned))


async def say_outcomes(
    context: Context, outcomes: Sequence[dict[str, Any]], said_by: str | None = None
) -> views.ChangeReply:
    """The same for many tasks, each by itself: what is wrong with one does not stop the others."""
    reply = views.ChangeReply()
    for one in outcomes:
        try:
            await say_outcome(context, **one, said_by=said_by, source="file")
        except (NotFound, Conflict) as error:
            reply.unchanged[one["task_id"]] = error.message
        else:
            reply.changed.append(one["task_id"])
    return reply


async def list_nodes(context: Context) -> list[views.NodeView]:
    """The serve processes of the last hour."""
    return [views.NodeView(**dict(row)) for row in await context.db.fetch("show_nodes")]


async def get_status(context: Context, limit: int = 20) -> views.StatusView:
    """The fleet in one document."""
    now = await context.db.fetch_one("clock")
    agents = await _agents(context)
    nodes = await list_nodes(context)
    counts = await context.db.fetch("count_tasks")
    running = await context.db.fetch("show_tasks", ["running"], None, None, None, limit, None)
    recent = await context.db.fetch("recent_tasks", limit)
    decisions = await _decisions(context, limit=min(limit, 5))
    oldest = await context.db.fetch_one("oldest_pending")
    unserved = await context.db.fetch("unserved_capabilities")
    assert now is not None
    agent_counts: dict[str, int] = {}
    for agent in agents:
        agent_counts[agent.status] = agent_counts.get(agent.status, 0) + 1
    live = [node for node in nodes if node.is_live]
    alarms = []
    task_counts = {row["status"]: row["number"] for row in counts}
    if not live and (task_counts.get("pending") or task_counts.get("running")):
        alarms.append("no serve is running, so nothing moves: run agentorch serve")
    for row in unserved:
        wanted = " and ".join(row["required_capabilities"]) or "any capability"
        alarms.append(f"{row['number']} ready tasks want an agent with {wanted}; none is registered")
    alarms += await idle_beside_work(context.store)
    stuck = await context.db.fetch_one("open_deadlocks")
    if stuck is not None and stuck["number"]:
        alarms.append(
            f"{stuck['number']} deadlocks are open ({stuck['kinds']}): agentorch deadlock list --open"
        )
    return views.StatusView(
        at=now["now"],
        nodes=live,
        agents=agents,
        agent_counts=agent_counts,
        task_counts=task_counts,
        running=[_task(row) for row in running],
        recent=[_task(row) for row in recent],
        oldest_pending_seconds=oldest[0] if oldest is not None else None,
        decisions=decisions,
        alarms=alarms,
    )


Handler = Callable[..., Awaitable[Any]]

HANDLERS: dict[str, Handler] = {
    "schema.apply": apply_schema,
    "agent.register": register_agents,
    "agent.list": list_agents,
    "agent.get": get_agent,
    "agent.remove": remove_agents,
    "task.submit": submit_tasks,
    "task.list": list_tasks,
    "task.get": get_task,
    "task.wait": wait_for_tasks,
    "task.cancel": cancel_tasks,
    "task.retry": retry_tasks,
    "task.depend": depend_on,
    "task.why": why_task,
    "task.plan": plan_tasks,
    "deadlock.list": list_deadlocks,
    "deadlock.get": get_deadlock,
    "deadlock.check": check_deadlocks,
    "deadlock.resolve": resolve_deadlocks,
    "event.list": list_events,
    "consensus.list": list_decisions,
    "consensus.get": get_decision,
    "consensus.open": open_proposal,
    "consensus.vote": cast_vote,
    "consensus.close": close_proposal,
    "consensus.history": get_history,
    "reliability.list": list_reliabilities,
    "outcome.say": say_outcome,
    "outcome.say_many": say_outcomes,
    "node.list": list_nodes,
    "status.get": get_status,
}


@contextlib.asynccontextmanager
async def opened(context: Context) -> AsyncIterator[Context]:
    """The context, closed at the end."""
    try:
        yield context
    finally:
        await context.close()
