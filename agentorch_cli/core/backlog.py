"""The tasks that want agents, in the order of service.

The order is that of the database: (urgency, remaining_path descending, seq), where urgency is
the minute of readiness less the priority. Tasks are kept in one heap per set of required
capabilities, because tasks that ask for the same agents are stuck and freed together: a step
looks only at the heads of those heaps that have a free agent.

A task that wants several agents at once may be overtaken by tasks that want fewer, at most
`MOST_OVERTAKES` times; from then on the agents that it could use are kept for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentorch_cli.core.matching import Roster, Seat, Want

MOST_OVERTAKES = 20
"""Measured: bounded overtaking keeps agents busy and bounds the wait of large gangs."""

_SCAN = 64
"""How many tasks of one heap a step tries that the free agents cannot serve."""


@dataclass(slots=True)
class Ready:
    """A task that wants agents, as the scheduler needs it."""

    task_id: str
    seq: int
    urgency: int
    remaining_path: float
    type: str
    priority: int
    want: Want
    min_agents: int
    max_agents: int
    attempts_made: int
    timeout_seconds: float
    retries: int
    failures: int
    losses: int
    has_dependents: bool
    options: dict[str, Any]
    status: str
    required_capabilities: list[str]
    deadline: datetime | None = None
    overtaken: int = 0
    role: str | None = None
    """What its next agent is told to be."""
    brief: str | None = None
    """What that agent is told besides the inputs, as JSON text of an object."""

    @property
    def order(self) -> tuple[int, float, int]:
        return (self.urgency, -self.remaining_path, self.seq)


class Backlog:
    """Ready tasks by required capabilities."""

    def __init__(self) -> None:
        self.tasks: dict[str, Ready] = {}
        self._heaps: dict[frozenset[str], list[tuple[tuple[int, float, int], str]]] = {}

    def __len__(self) -> int:
        return len(self.tasks)

    def put(self, task: Ready) -> None:
        """Add a task, or replace what was known of it."""
        known = self.tasks.get(task.task_id)
        self.tasks[task.task_id] = task
        if known is not None and known.order == task.order and known.want.required == task.want.required:
            task.overtaken = known.overtaken
            return
        heapq.heappush(self._heaps.setdefault(task.want.required, []), (task.order, task.task_id))

    def drop(self, task_id: str) -> None:
        """The task wants nothing any more."""
        self.tasks.pop(task_id, None)

    def clear(self) -> None:
        self.tasks.clear()
        self._heaps.clear()

    def worst(self) -> tuple[int, float, int] | None:
        """The order of the task that would be served last."""
        return max((task.order for task in self.tasks.values()), default=None)

    def match(self, roster: Roster, limit: int) -> Iterator[tuple[Ready, list[Seat]]]:
        """Pairs of task and agents, best task first, at most `limit`.

        Each pair's slots are taken in the roster and its task leaves the backlog.
        """
        heads = [
            (heap[0][0], number, required)
            for number, (required, heap) in enumerate(self._heaps.items())
            if heap and roster.has_free(required)
        ]
        heapq.heapify(heads)
        stuck: list[tuple[frozenset[str], tuple[tuple[int, float, int], str]]] = []
        passed: dict[frozenset[str], int] = {}
        kept: set[str] = set()
        gangs: list[Ready] = []
        while heads and limit > 0:
            _, number, required = heapq.heappop(heads)
            heap = self._heaps[required]
            entry = heapq.heappop(heap)
            task = self.tasks.get(entry[1])
            if task is not None and task.order == entry[0] and task.want.required == required:
                seats = self._seats(roster, task, kept)
                if seats is None:
                    stuck.append((required, entry))
                    passed[required] = passed.get(required, 0) + 1
                    if task.want.number > 1:
                        gangs.append(task)
                        if task.overtaken >= MOST_OVERTAKES:
                            kept.update(m.agent_id for m in roster.eligible(task.want))
                else:
                    for seat in seats:
                        roster.take(seat.member, seat.slot)
                    del self.tasks[task.task_id]
                    limit -= 1
                    for gang in gangs:
                        gang.overtaken += any(
                            gang.want.required <= seat.member.capabilities for seat in seats
                        )
                    yield task, seats
            if heap and passed.get(required, 0) < _SCAN and roster.has_free(required):
                heapq.heappush(heads, (heap[0][0], number, required))
        for required, entry in stuck:
            heapq.heappush(self._heaps[required], entry)
        for required in [key for key, heap in self._heaps.items() if not heap]:
            del self._heaps[required]

    @staticmethod
    def _seats(roster: Roster, task: Ready, kept: Iterable[str]) -> list[Seat] | None:
        seats = roster.choose(task.want)
        if seats is None or not kept:
            return seats
        return None if any(seat.member.agent_id in kept for seat in seats) else seats
