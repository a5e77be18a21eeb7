"""Operations on deadlocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from agentorch_cli import views
from agentorch_cli.core.ladder import Finding
from agentorch_cli.handlers.context import Context
from agentorch_cli.handlers.lists import within_time
from agentorch_cli.store.deadlocks import Deadlocks
from agentorch_cli.store.listing import Clauses, among, both, cursor_from
from agentorch_cli.store.listings import DEADLOCKS
from agentorch_cli.store.names import called, no_such


async def list_deadlocks(
    context: Context,
    only_open: bool = False,
    task_id: str | None = None,
    limit: int = 50,
    status: str | Sequence[str] | None = None,
    kind: str | Sequence[str] | None = None,
    since: str | None = None,
    until: str | None = None,
    sort: str | None = None,
    cursor: str | None = None,
) -> list[views.DeadlockView]:
    """Deadlocks, newest first, or in the order of `sort`; each with the cursor of what comes after it.

    `status`: `open` or `resolved`. Raises UsageError, NotFound (a bad cursor).
    """
    wanted = both(
        among("status", status), among("kind", kind), among("task", task_id), *within_time(since, until)
    )
    within = Clauses(DEADLOCKS, wanted, sort, cursor)
    return await find_deadlocks(context, only_open=only_open, limit=limit, within=within)


async def get_deadlock(context: Context, deadlock_id: str) -> views.DeadlockView:
    """One deadlock, by its id or that of a task in it. Raises NotFound."""
    found = await find_deadlocks(context, deadlock_id=deadlock_id) or await find_deadlocks(
        context, task_id=deadlock_id, limit=1
    )
    if not found:
        raise await no_such(context.db, "deadlock", deadlock_id)
    return found[0]


async def find_deadlocks(
    context: Context,
    *,
    deadlock_id: str | None = None,
    only_open: bool = False,
    task_id: str | None = None,
    limit: int = 1,
    within: Clauses | None = None,
) -> list[views.DeadlockView]:
    rows = await context.db.fetch("show_deadlocks", deadlock_id, only_open, task_id, limit, within=within)
    return [
        views.DeadlockView(
            **{
                **dict(row),
                "edges": orjson.loads(row["edges"]),
                "cost": orjson.loads(row["cost"]),
                "names": orjson.loads(row["names"]) if row["names"] else {},
            },
            cursor=cursor_from(row["place"]) if row["place"] is not None else None,
        )
        for row in rows
    ]


async def check_deadlocks(context: Context) -> views.DeadlockCheck:
    """Look at everything that waits, now; change nothing."""
    look = await Deadlocks(context.store, context.policy, grace=context.grace).look()
    names = await called(context.db, [member for one in look.found for member in one.members])
    return views.DeadlockCheck(
        stuck=list(look.report.stuck),
        components=[list(part.members) for part in look.report.components],
        kind={task: str(kind) for task, kind in look.report.kind.items()},
        cycles=[list(cycle) for cycle in look.report.cycles],
        victims=list(look.report.victims),
        found=[_finding(one, names) for one in look.found],
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
    names = await called(context.db, [one for finding, _ in steps.values() for one in finding.members])
    return [
        views.DeadlockStep(
            **_finding(finding, names).model_dump(),
            act=str(step.act),
            step=step.sentence,
            is_done=not dry_run and mark in done,
        )
        for mark, (finding, step) in steps.items()
    ]


def _finding(one: Finding, names: Mapping[str, str]) -> views.DeadlockFinding:
    return views.DeadlockFinding(
        kind=str(one.kind),
        members=list(one.members),
        edges=list(one.edges),
        reason=one.reason,
        waited_s=one.waited_s,
        victims=list(one.victims or one.doomed),
        cost=dict(one.cost),
        names={member: names[member] for member in one.members if member in names},
    )
