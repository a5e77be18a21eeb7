"""Operations on tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from agentorch_cli import views
from agentorch_cli.core import tracing
from agentorch_cli.core.durations import waited
from agentorch_cli.core.goal import Goal
from agentorch_cli.core.model import FINAL, Coverage, TaskSpec, TaskStatus
from agentorch_cli.core.team import advice, misnamed, shortfall
from agentorch_cli.core.where import parse_where
from agentorch_cli.errors import Conflict, NotFound, UsageError, WaitTimedOut, command
from agentorch_cli.handlers.budgets import find_budgets, find_funding, usage_of
from agentorch_cli.handlers.context import MOST_SHOWN, Context
from agentorch_cli.handlers.deadlocks import find_deadlocks
from agentorch_cli.handlers.events import event_view
from agentorch_cli.handlers.lists import labelled, within_time
from agentorch_cli.handlers.votes import find_decisions
from agentorch_cli.identity import new_id
from agentorch_cli.store.dependencies import add_dependency
from agentorch_cli.store.listing import Clauses, among, both, cursor_from
from agentorch_cli.store.listings import TASKS
from agentorch_cli.store.names import called, no_such, none_such
from agentorch_cli.store.store import Fleets, as_uuid, hint
from agentorch_cli.store.submission import Stored, find, insert
from agentorch_cli.store.why import in_pool, registered, who_could, why

MOST_TOLD = 10
"""Warnings of one kind."""


async def submit_tasks(
    context: Context,
    tasks: Sequence[TaskSpec],
    allow_forward: bool = False,
    budget: Mapping[str, Any] | None = None,
    submission_id: UUID | None = None,
    again: bool = False,
    traceparent: str | None = None,
) -> views.SubmitReply:
    """Store a submission, whole or not at all. Raises Conflict, NotFound (an unknown dependency).

    `allow_forward`: tasks may depend on ids that do not exist yet, and wait for them to come.
    `budget`: what they may use together, as `[budget]` of a task file says it.
    `again`: the same request was sent before, with this `submission_id`, and its answer was lost:
    if it was stored, this is its answer.
    `traceparent`: the span that all of them are a part of, but for those that name one themselves.
    """
    submission_id = submission_id or new_id()
    span = _begin_span(context, traceparent)
    began = time.time()
    if span is not None:
        tasks = [one if one.traceparent else replace(one, traceparent=str(span)) for one in tasks]
    stored = await find(context.store, submission_id, tasks) if again else None
    if stored is None:
        try:
            stored = await insert(
                context.store, submission_id, tasks, allow_forward=allow_forward, budget=budget
            )
        except Conflict:  # the first of the two was quicker than this look
            stored = await find(context.store, submission_id, tasks) if again else None
            if stored is None:
                raise
    reply = views.SubmitReply(
        submission_id=str(submission_id),
        tasks=[
            views.SubmittedTask(
                task_id=one.task_id,
                name=one.name,
                status=one.status,
                is_new=one.is_new,
                differs=list(one.differs),
            )
            for one in stored
        ],
    )
    if context.traces is not None and span is not None:
        context.traces.end(
            "submit", span, traceparent, began, submission_id=str(submission_id), submission_tasks=len(tasks)
        )
    reply.warnings = [*_other_content(tasks, stored), *await _unserved(context, tasks)]
    return reply


def _begin_span(context: Context, traceparent: str | None) -> tracing.Context | None:
    """The span that the tasks are a part of; None where they are part of no trace. Raises UsageError."""
    try:
        if context.traces is not None:
            return context.traces.begin(traceparent)
        return tracing.parse_traceparent(traceparent) if traceparent is not None else None
    except ValueError as error:
        raise UsageError(f"traceparent {error}") from None


def _other_content(tasks: Sequence[TaskSpec], stored: Sequence[Stored]) -> list[str]:
    """Sentences about tasks whose key stands for something else already."""
    told = [
        f"the idempotency key {task.idempotency_key!r} is that of task {one.task_id}, which has another"
        f" {' and '.join(one.differs)}: that task stays as it is, and this one is not submitted"
        for task, one in zip(tasks, stored, strict=True)
        if one.differs
    ]
    more = len(told) - MOST_TOLD
    return told if more <= 0 else [*told[:MOST_TOLD], f"and {more:,} more keys stand for other tasks"]


async def _unserved(context: Context, tasks: Sequence[TaskSpec]) -> list[str]:
    """Sentences about capabilities that nobody has, where there are any."""
    wanted = {
        (
            task.pool,
            frozenset(task.required_capabilities),
            task.max_agents if task.coverage is Coverage.TEAM else 0,
        )
        for task in tasks
    }
    fleets, is_new = await context.store.fleets()
    told = _told_of(wanted, fleets)
    if told and not is_new:  # somebody may have come meanwhile
        fleets, _ = await context.store.fleets(anew=True)
        told = _told_of(wanted, fleets)
    return told


def _told_of(wanted: Collection[tuple[str, frozenset[str], int]], fleets: Fleets) -> list[str]:
    told = []
    for pool, required, most in sorted(wanted, key=lambda one: (one[0], sorted(one[1]), one[2])):
        fleet, where = fleets.get(pool, {}), in_pool(pool)
        if most:
            why = shortfall(required, fleet.values(), most)
            if why is not None:
                told.append(f"no registered agents{where} make a team: {why}; the task waits until they do")
        elif not any(required <= one for one in fleet.values()):
            how = advice(required, fleet)
            told.append(
                f"no registered agent{where} has "
                + (" and ".join(sorted(required)) if required else "connected or been registered yet")
                + misnamed(required, fleet)
                + "; the task waits until one comes"
                + (f" ({how})" if how is not None else "")
            )
    return told


async def list_tasks(
    context: Context,
    status: Sequence[str] | None = None,
    type: str | None = None,
    agent: str | None = None,
    submission_id: str | None = None,
    limit: int = 50,
    pool: str | None = None,
    capability: Sequence[str] | None = None,
    label: Mapping[str, str] | None = None,
    since: str | None = None,
    until: str | None = None,
    where: str | None = None,
    sort: str | None = None,
    cursor: str | None = None,
) -> list[views.TaskView]:
    """Tasks, newest first, or in the order of `sort`; each with the cursor of what comes after it.

    `capability`: required ones, all of these. `since`, `until`: when it was submitted. `where`: an
    expression, see `core.where`. Raises NotFound where the submission's id is none, UsageError.
    """
    if submission_id is not None and as_uuid(submission_id) is None:
        raise NotFound(f"there is no submission {submission_id!r}", fix="agentorch task list --json")
    wanted = both(
        among("status", status),
        among("type", type),
        among("agent", agent),
        among("submission", submission_id),
        among("pool", pool),
        *labelled(label),
        *within_time(since, until),
        *(among("capability", one) for one in capability or ()),
        parse_where(where, TASKS.fields) if where is not None else None,
    )
    within = Clauses(TASKS, wanted, sort, cursor)
    rows = await context.db.fetch("show_tasks", limit, within=within)
    return [task_view(row) for row in rows]


async def match_tasks(
    context: Context,
    where: str,
    status: Sequence[str] | None = None,
    limit: int = 1_000,
    cursor: str | None = None,
) -> list[views.TaskRef]:
    """The tasks that an expression means, oldest first, by their names only. Raises UsageError, NotFound."""
    wanted = both(parse_where(where, TASKS.fields), among("status", status))
    rows = await context.db.fetch("match_tasks", limit, within=Clauses(TASKS, wanted, "created", cursor))
    return [views.TaskRef(**dict(row), cursor=cursor_from(row["place"])) for row in rows]


async def get_task(context: Context, task_id: str) -> views.TaskView:
    """One task with its attempts, its story and its vote. Raises NotFound."""
    row = await context.db.fetch_one("show_task", task_id)
    if row is None:
        raise await no_such(context.db, "task", task_id)
    task = task_view(row)
    task.attempts = [attempt_view(one) for one in await context.db.fetch("show_attempts", task_id)]
    task.events = [event_view(one) for one in await context.db.fetch("task_story", task_id, MOST_SHOWN)]
    decisions = await find_decisions(context, task_id=task_id)
    task.decision = decisions[0] if decisions else None
    task.usage = usage_of(task.attempts)
    task.names = await called(context.db, task.depends_on)
    task.budgets = await find_budgets(context, task_id)
    if task.budgets:
        funding = await find_funding(context, [one.message_id for one in task.attempts])
        for attempt in task.attempts:
            attempt.funding = funding.get(attempt.message_id, [])
    return task


async def wait_for_tasks(
    context: Context,
    task_ids: Sequence[str],
    timeout_seconds: float | None = None,
    until: Goal = Goal.COMPLETED,
    any: bool = False,
) -> list[views.TaskView]:
    """Return the tasks once each has reached the state `until`, or has ended so that it never will.

    `any`: once one has reached it; only those that have are returned, or all if none can any more.
    Raises NotFound, WaitTimedOut.
    """
    ids = list(dict.fromkeys(task_ids))
    found: dict[str, asyncpg.Record] = {}
    is_known = False

    async def look(some: Collection[str], is_told: bool) -> set[str]:
        """What is said to have ended is read whole: mostly that is true."""
        rows = await context.db.fetch_by_key("results" if is_told else "statuses", list(some))
        if not is_known:
            await know(rows)
        if is_told:
            found.update((row["task_id"], row) for row in rows if row["status"] in FINAL)
        return {*some} - {row["task_id"] for row in rows if row["status"] not in FINAL}

    async def know(rows: Sequence[asyncpg.Record]) -> None:
        nonlocal is_known
        known = {row["task_id"] for row in rows}
        for task_id in ids:
            if task_id not in known:
                raise await no_such(context.db, "task", task_id)
        is_known = True

    try:
        async with asyncio.timeout(timeout_seconds), context.hearing() as waiting:
            if any or until.begins:
                await look(ids, False)
                await waiting.until(ids, until, is_any=any)
            else:
                await waiting.until_final(ids, look)
    except TimeoutError:
        rows = await context.db.fetch("statuses", ids)
        if not is_known:
            await know(rows)
        left = [row["task_id"] for row in rows if until.decided(row["status"]) is None]
        have = "have not ended" if not until.begins else "have not begun"
        if left:
            raise WaitTimedOut(
                f"{len(left)} of {len(ids)} tasks {have} after {waited(timeout_seconds or 0)}",
                fix=command("task", "why", left[0]),
                task_ids=left[:100],
            ) from None
    if left := [task_id for task_id in ids if task_id not in found]:
        found.update((row["task_id"], row) for row in await context.db.fetch_by_key("results", left))
    tasks = [task_view(found[task_id]) for task_id in ids if task_id in found]
    return [task for task in tasks if any and until.decided(task.status)] or tasks


async def cancel_tasks(
    context: Context, task_ids: Sequence[str], reason: str | None = None
) -> views.ChangeReply:
    """Call tasks off, and all their sub-tasks; agents that hold them are told."""
    ids = list(dict.fromkeys(task_ids))
    message = reason or "cancelled by request"
    async with context.db.transaction() as tx:
        tree = [row["task_id"] for row in await tx.fetch("lineage_down", ids)]
        stood = await context.store.lock_tasks(tx, tree)
        await tx.fetch("lock_budgets", tree)
        rows = await tx.fetch("cancel_tasks", tree, message, context.store.node_id)
    off = [row["task_id"] for row in rows]
    await context.store.notify("agentorch_cancel", hint([str(m) for row in rows for m in row["messages"]]))
    told = await context.store.unlock(
        [(row["task_id"], "cancelled") for row in rows if row["has_dependents"]]
    )
    await context.store.notify("agentorch_done", hint(off))
    await context.store.notify("agentorch_tasks", hint(told.ready, delayed=told.delayed))
    reply = views.ChangeReply(changed=_as_asked(ids, off))
    missing = await none_such(context.db, "task", [one for one in ids if one not in stood])
    for task_id in ids:
        if task_id not in stood:
            reply.unchanged[task_id] = missing[task_id]
        elif task_id not in off:
            reply.unchanged[task_id] = f"it is {stood[task_id].status} already"
    return reply


def _as_asked(asked: Sequence[str], changed: Sequence[str]) -> list[str]:
    """What changed, first what was asked for, in that order: a statement answers in an order of its own."""
    found = set(changed)
    return [*(one for one in asked if one in found), *sorted(found.difference(asked))]


async def retry_tasks(context: Context, task_ids: Sequence[str]) -> views.ChangeReply:
    """Open tasks again that ended without a result, and what failed because of them.

    Of those that wait, agents who declined them are asked again.
    """
    ids = list(dict.fromkeys(task_ids))
    async with context.db.transaction() as tx:
        known = {row["task_id"]: row for row in await tx.fetch("statuses", ids)}
        ended = [t for t, row in known.items() if row["status"] in ("failed", "cancelled", "skipped")]
        fallen = await tx.fetch("fallen_with", ended, [known[t]["submission_id"] for t in ended])
        reopened = sorted({row["task_id"] for row in fallen})
        # What they depend on is locked too: it may end at this moment, and they would wait for it for ever.
        needed = await tx.fetch("dependencies_of", reopened)
        waiting = [t for t, row in known.items() if row["status"] == TaskStatus.PENDING]
        await context.store.lock_tasks(tx, sorted({*reopened, *(row["task_id"] for row in needed), *waiting}))
        asked = await tx.fetch("ask_again", waiting, context.store.node_id) if waiting else []
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
    again = [row["task_id"] for row in asked]
    ready = [row["task_id"] for row in rows if row["status"] == TaskStatus.PENDING]
    await context.store.notify("agentorch_tasks", hint([*ready, *again]))
    changed = [*(row["task_id"] for row in rows), *again]
    reply = views.ChangeReply(changed=_as_asked(ids, changed))
    missing = await none_such(context.db, "task", [one for one in ids if one not in known])
    for task_id in ids:
        if task_id not in known:
            reply.unchanged[task_id] = missing[task_id]
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
    fleets = await registered(context.store)
    pools: dict[str, list[frozenset[str]]] = {}
    for task in tasks:
        pools.setdefault(task.pool, []).append(frozenset(task.required_capabilities))
    found = {pool: who_could(fleets.get(pool, {}), demands) for pool, demands in pools.items()}
    agents: dict[str, list[str]] = {}
    never: dict[str, str] = {}
    for task in tasks:
        required, fleet = frozenset(task.required_capabilities), fleets.get(task.pool, {})
        able, why_not = found[task.pool]
        could = agents[task.task_id] = able[required]
        if task.coverage is Coverage.TEAM:
            could = agents[task.task_id] = sorted(one for one, has in fleet.items() if required & has)
            why = shortfall(required, [fleet[one] for one in could], task.max_agents)
            if why is not None:
                never[task.task_id] = f"wants a team{in_pool(task.pool)}: {why}"
                continue
        if len(could) < task.min_agents:
            how = advice(required, fleet) if task.coverage is Coverage.EACH else None
            never[task.task_id] = (
                f"wants {task.min_agents} agent{'' if task.min_agents == 1 else 's'}{in_pool(task.pool)},"
                f" {len(could)} could: {how or why_not[required]}"
            )
    return views.PlanView(
        missing=[one for one in external if one not in known],
        agents=agents,
        never=never,
    )


async def why_task(context: Context, task_id: str) -> views.WhyView:
    """Why a task waits, link by link, from the rules that assign. Raises NotFound."""
    found = await why(context.store, task_id, grace=context.grace)
    links = [views.WhyLink(**asdict(link)) for link in found.links]
    names = dict(found.names)
    for one in await find_deadlocks(context, only_open=True, task_id=task_id, limit=3):
        links.append(
            views.WhyLink(
                task_id=task_id,
                code="deadlock",
                sentence=f"{one.kind}: {one.reason} (agentorch deadlock show {one.deadlock_id})",
                seconds=one.waited_s,
            )
        )
        names |= one.names
    return views.WhyView(
        task_id=task_id, status=found.status, is_clear=found.is_clear, links=links, names=names
    )


async def depend_on(context: Context, task_id: str, on: str) -> views.TaskView:
    """Let a task that has not begun wait for another. Raises NotFound, Conflict (with the cycle)."""
    await add_dependency(context.store, task_id, on)
    return await get_task(context, task_id)


def task_view(row: asyncpg.Record) -> views.TaskView:
    facts: dict[str, Any] = dict(row)
    for key in ("error", "options", "result"):
        if facts.get(key) is not None:
            facts[key] = orjson.loads(facts[key])
    if facts.get("place") is not None:
        facts["cursor"] = cursor_from(facts["place"])
    if isinstance(facts.get("labels"), str):
        facts["labels"] = orjson.loads(facts["labels"])
    elif "labels" in facts:
        del facts["labels"]
    if facts.get("task_data") is not None:
        facts["data"] = orjson.loads(facts["task_data"])
    if "options" in facts:
        facts["labels"] = facts["options"].pop("labels", {})
        if isinstance(schema := facts["options"].get("result_schema"), str):
            facts["options"]["result_schema"] = orjson.loads(schema)
    return views.TaskView(**facts)


def attempt_view(row: asyncpg.Record) -> views.AttemptView:
    facts: dict[str, Any] = dict(row)
    for key in ("result", "error", "usage", "usage_so_far"):
        if facts[key] is not None:
            facts[key] = orjson.loads(facts[key])
    facts["message_id"] = str(facts["message_id"])
    return views.AttemptView(**facts)
