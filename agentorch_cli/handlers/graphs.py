"""Operations whose answers are drawn: how tasks hang together, and when they were worked on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from agentorch_cli import views
from agentorch_cli.core.timeline import Try, Work, longest_chain, stretches
from agentorch_cli.handlers.context import Context
from agentorch_cli.handlers.tasks import task_view
from agentorch_cli.store.graph import family
from agentorch_cli.store.listing import Clauses, among, both
from agentorch_cli.store.listings import TASKS

MOST_DRAWN = 5_000
"""Tasks of one picture."""

LONGEST_NOTE = 200
"""Letters of a reason."""


async def graph_of_task(context: Context, task_id: str, limit: int = MOST_DRAWN) -> views.GraphView:
    """All that a task (or a submission) hangs together with: what it waits for, what waits for it,
    sub-tasks, and theirs. Of more than `limit` the nearest. Raises NotFound."""
    found = await family(context.store, task_id, min(limit, MOST_DRAWN))
    ids = found.task_ids
    rows = await context.db.fetch("show_tasks", len(ids), within=Clauses(TASKS, both(among("id", ids))))
    tasks = [task_view(row) for row in reversed(rows)]
    nodes = [
        views.GraphNodeView(
            task_id=task.task_id,
            name=task.name,
            type=task.type,
            status=task.status,
            agents=task.assigned_agents,
            note=_note(task),
        )
        for task in tasks
    ]
    nodes += [
        views.GraphNodeView(task_id=one, type="", status="unknown", note="there is no such task")
        for one in found.missing
    ]
    return views.GraphView(task_id=task_id, nodes=nodes, edges=_edges(tasks, nodes), cut=found.cut)


def _edges(
    tasks: Sequence[views.TaskView], nodes: Sequence[views.GraphNodeView]
) -> list[views.GraphEdgeView]:
    shown = {node.task_id for node in nodes}
    edges = []
    for task in tasks:
        edges += [
            views.GraphEdgeView(before=one, after=task.task_id) for one in task.depends_on if one in shown
        ]
        if task.parent_id in shown:
            edges.append(views.GraphEdgeView(before=task.parent_id, after=task.task_id, kind="sub_task"))
    return edges


def _note(task: views.TaskView) -> str | None:
    """What a person would ask next."""
    if task.error is not None and task.status != "completed":
        said = str(task.error.get("message") or task.error.get("code") or "")
        return said[:LONGEST_NOTE] or None
    if task.status == "running":
        facts = [f"attempt {task.attempts_made}"] if task.failures else []
        facts += [f"{task.progress:.0%} done"] if task.progress is not None else []
        return ", ".join(facts) or None
    if task.failures:
        return f"{task.failures} failed attempt{'' if task.failures == 1 else 's'}"
    return None


async def timeline_of_task(context: Context, task_id: str, limit: int = MOST_DRAWN) -> views.TimelineView:
    """When all that a task (or a submission) hangs together with was worked on, and when it waited;
    with the chain of tasks that took the longest. Raises NotFound."""
    found = await family(context.store, task_id, min(limit, MOST_DRAWN))
    rows = await context.db.fetch("times_of_tasks", found.task_ids)
    attempts = await context.db.fetch("times_of_attempts", found.task_ids)
    clock = await context.db.fetch_one("clock")
    assert clock is not None
    now = _seconds(clock["now"])
    works = [
        Work(
            row["task_id"],
            row["status"],
            _seconds(row["created_at"]),
            None if row["completed_at"] is None else _seconds(row["completed_at"]),
            tuple(row["depends_on"]),
            row["parent_id"],
            min(_seconds(row["run_at"]), now),
        )
        for row in rows
    ]
    tries = [
        Try(
            row["task_id"],
            row["attempt"],
            row["agent_id"],
            row["status"],
            _seconds(row["began_at"]),
            None if row["finished_at"] is None else _seconds(row["finished_at"]),
        )
        for row in attempts
    ]
    told = {row["task_id"]: row for row in rows}
    bars = [
        views.BarView(
            task_id=one.task_id,
            name=told[one.task_id]["name"],
            task_status=told[one.task_id]["status"],
            agent=one.agent_id or None,
            lane=one.lane,
            start=_moment(one.start),
            end=_moment(one.end),
            status=one.status,
            attempt=one.attempt,
            is_open=one.is_open,
        )
        for one in stretches(works, tries, now)
    ]
    return views.TimelineView(
        task_id=task_id,
        bars=bars,
        start=min(bar.start for bar in bars),
        end=max(bar.end for bar in bars),
        critical=longest_chain(works, tries, now),
        cut=found.cut,
    )


def _seconds(when: datetime) -> float:
    return when.timestamp()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
