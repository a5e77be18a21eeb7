"""A dependency between tasks that are stored already.

A new task cannot close a cycle, an edge between old ones can. So edges are added one at a time,
under a lock of their own, and before each the tasks above its far end are looked at: only those
that are still blocked, whatever else is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentorch_cli.core.graphs import show_cycle
from agentorch_cli.core.model import TaskStatus
from agentorch_cli.errors import Conflict, command
from agentorch_cli.store.names import no_such
from agentorch_cli.store.store import Store


async def add_dependency(store: Store, task_id: str, on: str) -> bool:
    """Let `task_id` wait for `on`; False where it does so already.

    Raises NotFound, and Conflict where the task has begun, `on` failed, or a cycle would close.
    """
    if task_id == on:
        raise Conflict(f"task {task_id} cannot wait for itself")
    async with store.db.transaction() as tx:
        await tx.fetch("lock_edges")
        rows = {row["task_id"]: row for row in await tx.fetch("lock_ends", sorted((task_id, on)))}
        for wanted in (task_id, on):
            if wanted not in rows:
                raise await no_such(tx, "task", wanted)
        task, other = rows[task_id], TaskStatus(rows[on]["status"])
        if task["status"] not in (TaskStatus.BLOCKED, TaskStatus.PENDING):
            raise Conflict(
                f"task {task_id} is {task['status']}: it is too late to let it wait",
                fix=command("task", "show", task_id),
            )
        if on in task["depends_on"]:
            return False
        if other in (TaskStatus.FAILED, TaskStatus.CANCELLED) and task["on_dependency_failure"] != "run":
            raise Conflict(
                f"task {on} is {other}: nobody can wait for it any more", fix=command("task", "show", on)
            )
        if not other.is_final:
            above = {row["task_id"]: row["depends_on"] for row in await tx.fetch("waits_above", on)}
            if path := _path(above, on, task_id):
                cycle = [task_id, *path[:-1]]
                raise Conflict(
                    f"that would close a circle: {show_cycle(cycle)}",
                    hint="a task cannot wait for one that waits for it",
                    cycle=cycle,
                )
        await tx.fetch("add_dependency", task_id, on, not other.is_final, store.node_id)
    await store.notify("agentorch_deadlock", "*")
    return True


def _path(waits: Mapping[str, Sequence[str]], start: str, end: str) -> list[str]:
    """A shortest chain of waits from one task to another, both included; empty where there is none."""
    came_from: dict[str, str] = {start: ""}
    row = [start]
    while row:
        further = []
        for task in row:
            for needed in waits.get(task, ()):
                if needed in came_from:
                    continue
                came_from[needed] = task
                if needed == end:
                    path = [end]
                    while path[-1] != start:
                        path.append(came_from[path[-1]])
                    return path[::-1]
                further.append(needed)
        row = further
    return []
