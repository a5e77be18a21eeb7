"""Everything that a task hangs together with, read from the tables.

Round by round from the task outwards. A graph is nearly always one submission, and then there are
two rounds; graphs over several submissions, and sub-tasks, take one more for each step outwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import asyncpg

from agentorch_cli.errors import NotFound
from agentorch_cli.store.names import meant, names_of
from agentorch_cli.store.store import Store, as_uuid

MOST_SEEN: Final = 200_000
"""Tasks after which nothing further out is looked for."""


@dataclass(frozen=True, slots=True)
class Family:
    """Tasks that hang together."""

    task_ids: list[str]
    """The nearest ones first."""
    missing: list[str]
    """Ids that some of them wait for and that are not stored."""
    cut: int
    """Tasks that are left out: those farthest away."""


async def family(store: Store, about: str, limit: int) -> Family:
    """Around a task, or of a whole submission. Raises NotFound."""
    ties = _Ties()
    roots = await _roots(store, about)
    asked: set[str] = set()
    submissions: set[str] = set()
    ties.take(roots)
    start = [row["task_id"] for row in roots]
    while len(asked) < MOST_SEEN:
        fresh = [task_id for task_id in ties.reached(start) if task_id not in asked]
        if not fresh:
            break
        asked.update(fresh)
        groups = {ties.submission_of[one] for one in fresh} - submissions
        submissions |= groups
        wanted = [one for one in dict.fromkeys(n for t in fresh for n in ties.named(t)) if one not in ties]
        ties.take(await store.db.fetch("tied_by_id", wanted, fresh))
        ties.take(await store.db.fetch("tied_by_waiting", sorted(groups), fresh, False))
    reached = ties.reached(start)
    kept = reached[:limit]
    missing = dict.fromkeys(name for task in kept for name in ties.named(task) if name not in ties)
    return Family(kept, list(missing), len(reached) - len(kept))


async def _roots(store: Store, about: str) -> list[asyncpg.Record]:
    found = await store.db.fetch("tied_by_id", [about], [])
    if not found and as_uuid(about) is not None:
        found = await store.db.fetch("tied_by_waiting", [about], [], True)
    if not found:
        known = await names_of(store.db, "task")
        raise NotFound(
            f"there is no task and no submission {about!r}{meant(about, known)}", fix="agentorch task list"
        )
    return found


class _Ties:
    """Who is tied to whom, as far as it was read."""

    def __init__(self) -> None:
        self.submission_of: dict[str, str] = {}
        self._named: dict[str, tuple[str, ...]] = {}
        self._near: dict[str, list[str]] = {}

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._named

    def named(self, task_id: str) -> tuple[str, ...]:
        """What its row names: dependencies, and its parent."""
        return self._named[task_id]

    def take(self, rows: Iterable[asyncpg.Record]) -> None:
        for row in rows:
            task_id = row["task_id"]
            if task_id in self._named:
                continue
            parent = (row["parent_id"],) if row["parent_id"] is not None else ()
            self._named[task_id] = (*row["depends_on"], *parent)
            self.submission_of[task_id] = row["submission_id"]
            for other in self._named[task_id]:
                self._near.setdefault(task_id, []).append(other)
                self._near.setdefault(other, []).append(task_id)

    def reached(self, start: Iterable[str]) -> list[str]:
        """What hangs together with these, nearest first; what is only named is passed through."""
        seen = dict.fromkeys(start)
        queue = list(seen)
        for task_id in queue:  # grows while it is walked through
            for other in self._near.get(task_id, ()):
                if other not in seen:
                    seen[other] = None
                    queue.append(other)
        return [task_id for task_id in queue if task_id in self._named]
