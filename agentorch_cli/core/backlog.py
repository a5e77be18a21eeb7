"""The tasks that want agents, in the order of service.

The order is that of the database: (urgency, remaining_path descending, seq), where urgency is
the minute of readiness less the priority.

Tasks that want the same are stuck and freed together, so each different `Want` has one `Queue`
and only its first task is ever tried. The queues stand in a `line` by their first tasks. A
queue that found too few agents sleeps until somebody who has the capabilities can take more
than before, so a step looks at what is new and not at all that waits. Who walks the line meets
every task that could be served, in the order of service: no idle agent is left beside a ready
task that it could take.

A task that wants several agents at once, or a team, may be overtaken by tasks behind it that use an agent
it could use, at most `MOST_OVERTAKES` times; from then on such agents are kept for it until it
runs. They are not kept where fewer agents are online than it wants.

A task may also have to pass gates (`core.gates`): a queue behind a closed one is shut, and costs
nothing, until the gate opens. Nothing is kept for it: agents are not what it lacks.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any

from agentorch_cli.core.gates import Gates
from agentorch_cli.core.matching import Roster, Seat, Want, lasting_obstacle

MOST_OVERTAKES = 20
"""Measured: bounded overtaking keeps agents busy and bounds the wait of large gangs."""

Order = tuple[int, float, int]
"""Lower goes first."""

Entry = tuple[Order, str]
"""A task's place, and its id."""

FIRST: Order = (-(2**63), float("-inf"), -1)
"""Before all that there can be."""


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
    """Tasks behind it that were served, while it waited, by an agent that it could have used."""
    role: str | None = None
    """What its next agent is told to be."""
    brief: str | None = None
    """What that agent is told besides the inputs, as JSON text of an object."""
    order: Order = field(init=False)
    """Reckoned once: it is compared half a dozen times."""

    def __post_init__(self) -> None:
        self.order = (self.urgency, -self.remaining_path, self.seq)


@dataclass(slots=True, eq=False)
class Queue:
    """Tasks that want the same."""

    want: Want
    number: int
    """Settles equal orders: which queue was there first."""
    run: deque[Entry] = field(default_factory=deque)
    """Entries in order. Tasks mostly come in the order of service, and to keep a heap of them costs more than
    all else that is done with an entry."""
    heap: list[Entry] = field(default_factory=list)
    """Those that came out of order."""
    place: Order = (0, 0.0, 0)
    """Where it stands in the line: at its first task, or before it where that has left."""
    is_asleep: bool = False
    """Nobody could serve it, and nothing was kept then for others."""
    shut_by: str | None = None
    """The gate that is closed for its first task."""
    overtaken: int = 0
    """No task in it was overtaken more often."""

    def push(self, entry: Entry) -> None:
        """Add an entry wherever it belongs."""
        if not self.run or entry > self.run[-1]:
            self.run.append(entry)
        else:
            heapq.heappush(self.heap, entry)

    def first(self) -> Entry | None:
        """The lowest entry, left in place."""
        run, heap = self.run, self.heap
        if heap and (not run or heap[0] < run[0]):
            return heap[0]
        return run[0] if run else None

    def pop(self) -> None:
        """Throw the lowest entry away."""
        run, heap = self.run, self.heap
        if heap and (not run or heap[0] < run[0]):
            heapq.heappop(heap)
        else:
            run.popleft()

    def __len__(self) -> int:
        return len(self.run) + len(self.heap)


class Backlog:
    """Ready tasks by what they want."""

    def __init__(self) -> None:
        self.tasks: dict[str, Ready] = {}
        self._queued: dict[str, tuple[Queue, Order]] = {}
        """Where each task waits. Entries of heaps that say otherwise are thrown away when met."""
        self._queues: dict[Want, Queue] = {}
        self._line: list[tuple[Order, int, Queue]] = []
        self._gangs: dict[Want, Queue] = {}
        """The queues of tasks that want several agents at once."""
        self._shut: dict[str, set[Queue]] = {}
        """Queues by the gate that is closed for them."""
        self._entries = 0
        self._founded = 0
        self._awake = 0
        self._roster: Roster | None = None
        self._seen = 0
        """The roster's stamp up to which sleeping queues know what happened."""
        self._is_disturbed = False
        """Something was put during a walk: the walk may have missed a queue."""

    def __len__(self) -> int:
        return len(self.tasks)

    # --- changes ----------------------------------------------------------------------------

    def put(self, task: Ready) -> None:
        """Add a task, or replace what was known of it."""
        task_id, order = task.task_id, task.order
        known = self.tasks.get(task_id)
        if known is not None and known.overtaken > task.overtaken:
            task.overtaken = known.overtaken
        self.tasks[task_id] = task
        queue = self._queues.get(task.want)
        if queue is None:
            queue = self._open(task)
        if task.overtaken > queue.overtaken:
            queue.overtaken = task.overtaken
        if queue.overtaken >= MOST_OVERTAKES:
            self._wake(queue)
        self._is_disturbed = True
        if queue.shut_by is not None:
            self._open_queue(queue)  # another first task may need less
        there = (queue, order)
        if known is not None and self._queued.get(task_id) == there:
            return
        self._queued[task_id] = there
        queue.push((order, task_id))
        self._entries += 1
        if order < queue.place:
            self._move(queue, order)
        if self._entries > 64 + 4 * len(self.tasks):
            self._sweep()

    def drop(self, task_id: str) -> None:
        """The task wants nothing any more."""
        if self.tasks.pop(task_id, None) is not None:
            del self._queued[task_id]

    def clear(self) -> None:
        """Nothing wants anything any more."""
        self.tasks.clear()
        self._queued.clear()
        self._queues.clear()
        self._line.clear()
        self._gangs.clear()
        self._shut.clear()
        self._entries = self._awake = 0

    def open_gate(self, name: str) -> bool:
        """What waits behind this gate is tried again; False where nothing does."""
        queues = self._shut.pop(name, None)
        for queue in queues or ():
            queue.shut_by = None
            self._wake(queue)
        return bool(queues)

    def shut_gates(self) -> list[str]:
        """The gates behind which something waits."""
        return list(self._shut)

    # --- the walk ---------------------------------------------------------------------------

    def match(
        self, roster: Roster, limit: int, gates: Gates | None = None
    ) -> Iterator[tuple[Ready, list[Seat]]]:
        """Pairs of task and agents, best task first, at most `limit`.

        Each pair's slots are taken in the roster, it has passed its gates, and its task leaves the backlog.
        """
        stamp = roster.stamp
        self._is_disturbed = False
        news = self._news(roster)
        kept: list[Want] = []
        unseen = self._awake
        index = 0
        while limit > 0 and index < len(self._line) and (unseen > 0 or news):
            place, _, queue = self._line[index]
            if queue.shut_by is not None or (queue.is_asleep and not news.concern(queue.want)):
                index += 1
                continue
            task = self._first(queue)
            if task is None:
                unseen -= not queue.is_asleep
                self._close(queue)
                continue
            if task.order != place:  # it is behind that
                if index + 1 < len(self._line) and self._line[index + 1][0] <= task.order:
                    self._move(queue, task.order)
                    continue
                queue.place = task.order
                self._line[index] = (task.order, queue.number, queue)
            if gates is not None and task.want.gates:
                shut = gates.closed(task, task.want.number)
                if shut is not None:
                    unseen -= not queue.is_asleep
                    self._shut_queue(queue, shut[0])
                    index += 1
                    continue
            seats = roster.choose(task.want, kept)
            if seats is not None and gates is not None and task.want.gates:
                shut = gates.closed(task, len(seats)) if len(seats) > task.want.number else None
                if shut is not None and task.want.is_team:  # none of its members is one too many
                    unseen -= not queue.is_asleep
                    self._shut_queue(queue, shut[0])
                    index += 1
                    continue
                while shut is not None:
                    seats.pop()
                    shut = gates.closed(task, len(seats)) if len(seats) > task.want.number else None
            if seats is None:
                unseen -= not queue.is_asleep
                self._set_aside(queue, roster, kept)
                index += 1
                continue
            self._serve(task, seats, roster, kept)
            if gates is not None:
                gates.enter(task, seats)
                if gates.bounds_agents:
                    gates.spend(seats, roster)
            queue.pop()  # its own entry, which stands for nothing any more
            self._entries -= 1
            if not queue:
                unseen -= not queue.is_asleep
                self._close(queue)
            news.spent(seats)
            limit -= 1
            yield task, seats
        if limit > 0 and not self._is_disturbed:
            # Every queue was seen, so all of them know what happened until the walk began.
            self._seen = stamp

    def explain(self, roster: Roster, task: Ready) -> dict[str, str | None]:
        """Agent by agent, what stands in the way of a waiting task; None for those it would be given."""
        found = roster.explain(task.want)
        for gang in self.kept_ahead(task):
            kept = roster.reservation(gang.want)
            if kept is None:
                continue
            for agent_id, reason in found.items():
                if reason is None and lasting_obstacle(roster.members[agent_id], kept) is None:
                    wanted = "a team" if gang.want.is_team else gang.want.number
                    found[agent_id] = f"is kept for task {gang.task_id}, which wants {wanted}"
        return found

    def kept_ahead(self, task: Ready) -> list[Ready]:
        """Tasks before this one that were overtaken often enough: they get their agents first."""
        ahead = [
            first
            for queue in self._gangs.values()
            if self._is_kept(queue)
            and (first := self._first(queue)) is not None
            and first.order < task.order
            and first.want != task.want
        ]
        return sorted(ahead, key=lambda gang: gang.order)

    def _news(self, roster: Roster) -> _News:
        if roster is not self._roster:
            self._roster, self._seen = roster, 0
            for queue in self._queues.values():
                self._wake(queue)
        return _News(roster, self._seen)

    def _serve(self, task: Ready, seats: Sequence[Seat], roster: Roster, kept: list[Want]) -> None:
        """Its agents are taken, it leaves, and those whom it passed by count it."""
        for seat in seats:
            roster.take(seat.member, seat.slot)
        self.drop(task.task_id)
        for queue in self._gangs.values():
            if queue.place >= task.order or queue.want == task.want or queue.shut_by is not None:
                continue
            could_use = roster.spared(queue.want)
            if queue.want.is_team and self._is_kept(queue):  # who is not kept for it may work for others
                could_use = roster.reservation(queue.want) or could_use
            if not any(lasting_obstacle(seat.member, could_use) is None for seat in seats):
                continue
            was_kept = self._is_kept(queue)
            for passed in self._tasks_of(queue):
                if passed.order < task.order:
                    passed.overtaken += 1
                    queue.overtaken = max(queue.overtaken, passed.overtaken)
            if not was_kept and self._is_kept(queue):
                self._keep(queue, roster, kept)

    def _set_aside(self, queue: Queue, roster: Roster, kept: list[Want]) -> None:
        """Too few agents for its tasks: it sleeps, unless what happens to others can change that."""
        if queue.want.is_gang and self._is_kept(queue):
            self._keep(queue, roster, kept)
        elif not kept:
            self._awake -= not queue.is_asleep
            queue.is_asleep = True
            return
        self._wake(queue)

    def _keep(self, queue: Queue, roster: Roster, kept: list[Want]) -> None:
        self._wake(queue)
        reservation = roster.reservation(queue.want)
        if reservation is not None:
            kept.append(reservation)

    def _is_kept(self, queue: Queue) -> bool:
        """Whether one of its tasks was overtaken often enough."""
        if queue.overtaken >= MOST_OVERTAKES:  # the bound may be that of a task that has left
            queue.overtaken = max((task.overtaken for task in self._tasks_of(queue)), default=0)
        return queue.overtaken >= MOST_OVERTAKES

    # --- queues and their line --------------------------------------------------------------

    def _open(self, task: Ready) -> Queue:
        self._founded += 1
        queue = self._queues[task.want] = Queue(task.want, self._founded, place=task.order)
        insort(self._line, (queue.place, queue.number, queue))
        self._awake += 1
        if task.want.is_gang:
            self._gangs[task.want] = queue
        return queue

    def _shut_queue(self, queue: Queue, name: str) -> None:
        """It is not looked at until the gate opens."""
        self._awake -= not queue.is_asleep
        queue.is_asleep = True
        queue.shut_by = name
        self._shut.setdefault(name, set()).add(queue)

    def _open_queue(self, queue: Queue) -> None:
        if queue.shut_by is not None:
            behind = self._shut[queue.shut_by]
            behind.discard(queue)
            if not behind:
                del self._shut[queue.shut_by]
            queue.shut_by = None
            self._wake(queue)

    def _close(self, queue: Queue) -> None:
        self._open_queue(queue)
        self._leave_line(queue)
        del self._queues[queue.want]
        self._gangs.pop(queue.want, None)
        self._awake -= not queue.is_asleep

    def _move(self, queue: Queue, place: Order) -> None:
        self._leave_line(queue)
        queue.place = place
        insort(self._line, (place, queue.number, queue))

    def _leave_line(self, queue: Queue) -> None:
        del self._line[bisect_left(self._line, (queue.place, queue.number, queue))]

    def _wake(self, queue: Queue) -> None:
        self._awake += queue.is_asleep
        queue.is_asleep = False

    def _first(self, queue: Queue) -> Ready | None:
        while (entry := queue.first()) is not None:
            order, task_id = entry
            if self._queued.get(task_id) == (queue, order):
                return self.tasks[task_id]
            queue.pop()
            self._entries -= 1
        return None

    def _tasks_of(self, queue: Queue) -> list[Ready]:
        return [self.tasks[task_id] for _, task_id in self._standing(queue)]

    def _standing(self, queue: Queue) -> set[Entry]:
        return {
            entry for entry in chain(queue.run, queue.heap) if self._queued.get(entry[1]) == (queue, entry[0])
        }

    def _sweep(self) -> None:
        """Throw away all entries that stand for nothing."""
        for queue in list(self._queues.values()):
            queue.run = deque(sorted(self._standing(queue)))
            queue.heap.clear()
            if not queue:
                self._close(queue)
        self._entries = sum(len(queue) for queue in self._queues.values())


class _News:
    """What happened to the fleet that could wake a sleeping queue."""

    def __init__(self, roster: Roster, seen: int) -> None:
        self._roster, self._seen = roster, seen
        self._freed = roster.freed_since(seen)
        self._somebody_left = roster.lost_at > seen

    def __bool__(self) -> bool:
        return bool(self._freed) or self._somebody_left

    def concern(self, want: Want) -> bool:
        """Whether there may be an agent now for what found none."""
        if self._somebody_left and want.rather_not:
            return True  # perhaps nobody is left but those who failed it
        return bool(self._freed) and self._roster.may_serve_since(want, self._seen)

    def spent(self, seats: Sequence[Seat]) -> None:
        """These seats were taken: agents that have no room any more wake nobody."""
        for seat in seats:
            if not seat.member.has_room:
                self._freed.discard(seat.member.agent_id)
