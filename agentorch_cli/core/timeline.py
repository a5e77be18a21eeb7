"""When work was done, and when it waited: from what tasks and attempts say of their times.

Times are seconds on any clock, the database's in practice. Nothing here asks what time it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

FINAL: Final = frozenset({"completed", "failed", "cancelled", "skipped"})


@dataclass(frozen=True, slots=True)
class Work:
    """One task."""

    task_id: str
    status: str
    created: float
    ended: float | None
    depends_on: tuple[str, ...] = ()
    parent_id: str | None = None
    run_at: float = 0.0
    """Not before."""


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt; open while `ended` is None."""

    task_id: str
    attempt: int
    agent_id: str
    status: str
    began: float
    ended: float | None


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time of one task: an attempt, or (attempt 0) a wait, whose status is the task's own then."""

    task_id: str
    attempt: int
    agent_id: str
    status: str
    lane: int
    start: float
    end: float
    is_open: bool


def stretches(works: Sequence[Work], tries: Sequence[Try], now: float) -> list[Stretch]:
    """The stretches of all tasks: those that were begun in that order, then those that wait."""
    ended = {work.task_id: work.ended for work in works}
    tries_of: dict[str, list[Try]] = {work.task_id: [] for work in works}
    for one in sorted(tries, key=lambda one: (one.began, one.attempt)):
        tries_of.get(one.task_id, []).append(one)
    told = [(tries_of[work.task_id], _of_task(work, tries_of[work.task_id], ended, now)) for work in works]
    told.sort(key=lambda one: (not one[0], one[0][0].began if one[0] else one[1][0].start))
    return [stretch for _, found in told for stretch in found]


def _of_task(
    work: Work, tries: Sequence[Try], ended: Mapping[str, float | None], now: float
) -> list[Stretch]:
    is_final = work.status in FINAL
    last = now if work.ended is None else work.ended
    if not tries:
        status = "blocked" if is_final or work.status == "blocked" else "pending"
        start = work.created if status == "blocked" else _ready(work, ended)
        return [_wait(work, status, min(start, last), last, is_open=not is_final)]
    found: list[Stretch] = []
    free = min(_ready(work, ended), tries[0].began)
    lanes: list[float] = []
    for one in tries:
        if one.began > free:
            found.append(_wait(work, "pending", free, one.began, is_open=False))
        end = max(now if one.ended is None else one.ended, one.began)
        lane = next((lane for lane, busy in enumerate(lanes) if busy <= one.began), len(lanes))
        lanes[lane : lane + 1] = [end]
        found.append(
            Stretch(
                work.task_id, one.attempt, one.agent_id, one.status, lane, one.began, end, one.ended is None
            )
        )
        free = max(free, end)
    if last > free and not any(one.ended is None for one in tries):
        found.append(_wait(work, "pending", free, last, is_open=not is_final))
    return found


def _ready(work: Work, ended: Mapping[str, float | None]) -> float:
    """When nothing but an agent was missing any more."""
    needed = [ended.get(one) for one in work.depends_on]
    return max([work.created, work.run_at, *(end for end in needed if end is not None)])


def _wait(work: Work, status: str, start: float, end: float, *, is_open: bool) -> Stretch:
    return Stretch(work.task_id, 0, "", status, 0, start, end, is_open)


def longest_chain(works: Sequence[Work], tries: Sequence[Try], now: float) -> list[str]:
    """The tasks because of which it took as long as it did, first to last.

    From the task that ended last (or is worked on) back to whichever of those that it waited for
    ended last, and so on: to make everything quicker, one of these has to be.
    """
    known = {work.task_id: work for work in works}
    began = {one.task_id for one in tries}
    children: dict[str, list[str]] = {}
    for work in works:
        if work.parent_id is not None:
            children.setdefault(work.parent_id, []).append(work.task_id)
    end = {work.task_id: now if work.ended is None else work.ended for work in works if work.task_id in began}

    def latest(ids: Sequence[str]) -> str | None:
        open_ids = [one for one in ids if one in end and one not in chain]
        return max(open_ids, key=lambda one: (end[one], one), default=None)

    chain: dict[str, None] = {}
    current = latest(list(end))
    while current is not None:
        chain[current] = None
        work = known[current]
        before = latest([*work.depends_on, *children.get(current, ())])
        while before is None and work.parent_id in known:  # a sub-task began because its parent did
            work = known[work.parent_id]
            if work.task_id not in chain and work.task_id in end:
                before = work.task_id
            else:
                before = latest(work.depends_on)
        current = before
    first = {one.task_id: one.began for one in sorted(tries, key=lambda one: one.began, reverse=True)}
    return sorted(chain, key=lambda task: (first[task], task))
