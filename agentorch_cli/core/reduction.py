"""What can still end, and what is left when all of that has ended.

The reduction lets everything move that can: a task that runs will end; a waiting task whose condition
holds, and for which enough eligible agents have a free slot, will run and end, and then gives back what
it holds. Slots only ever come back, so the order does not matter and what is left is well defined:
exactly the tasks that cannot end under any schedule (Holt, Some deadlock properties of computer
systems, ACM Computing Surveys 1972, for agents with several slots; AND, OR and k-of-n waits are conditions).

One pass: each task watches one unfinished dependency at a time and goes on from there when that one
ends, so every edge is looked at about once. Demands with the same capabilities share one `Pool`, which
counts its eligible agents with a free slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agentorch_cli.core.system import DEAD, WAITING, State, System, Task


@dataclass(slots=True)
class Pool:
    """The agents that have all of some capabilities."""

    caps: frozenset[str]
    agents: tuple[str, ...]
    """The live ones, by id."""
    registered: int
    """How many of these there are, idle or not."""
    absent: int
    """Eligible agents with slots that are not live."""
    free: int
    """Live ones with a free slot now."""


@dataclass(slots=True)
class Slots:
    """Free slots per live agent, and per pool how many of its agents have any."""

    free: dict[str, int]
    pools: list[Pool]
    """In the order of their capabilities."""
    number: dict[frozenset[str], int]
    pools_of: dict[str, list[int]]
    """By agent: the pools that it is in."""

    def give_back(self, held: tuple[str, ...]) -> Iterator[tuple[int, int]]:
        """Take slots back; yields each pool that has gained an agent, and how many it has free now."""
        for agent in held:
            if agent not in self.free:
                continue
            self.free[agent] += 1
            if self.free[agent] == 1:
                for number in self.pools_of.get(agent, ()):
                    pool = self.pools[number]
                    pool.free += 1
                    yield number, pool.free


def free_slots(system: System) -> Slots:
    """Capacity less what waiting tasks hold; what running tasks hold will come back by itself."""
    free = {name: agent.slots for name, agent in system.agents.items() if agent.live}
    demands: set[frozenset[str]] = set()
    for task in system.tasks.values():
        if task.state in WAITING:
            for agent in task.holds:
                if agent in free:
                    free[agent] -= 1
            if task.need.count:
                demands.add(task.need.caps)
    slots = Slots(free, [], {}, {})
    for caps in sorted(demands, key=sorted):
        able = [name for name, agent in system.agents.items() if agent.slots > 0 and caps <= agent.caps]
        live = tuple(sorted(name for name in able if name in free))
        slots.number[caps] = len(slots.pools)
        for name in live:
            slots.pools_of.setdefault(name, []).append(len(slots.pools))
        idle = sum(free[name] > 0 for name in live)
        slots.pools.append(Pool(caps, live, len(live), len(able) - len(live), idle))
    return slots


def reduce(system: System) -> tuple[set[str], Slots]:
    """The tasks that have ended well or still can, and the slots that are free after that."""
    tasks = system.tasks
    slots = free_slots(system)
    ended = {name for name, task in tasks.items() if task.state is State.DONE or task.state is State.RUNNING}
    watchers: dict[str, list[tuple[str, Iterator[str] | None]]] = {}
    open_count: dict[str, int] = {}  # of k-of-n waits: how many more must end
    queues: dict[tuple[int, int], list[str]] = {}  # by pool and count: who waits for slots only
    moving: list[str] = []

    def watch(name: str, task: Task, rest: Iterator[str]) -> None:
        """Go on to the next unfinished dependency, or to the slots."""
        for needed in rest:
            if needed not in ended and not (task.ignore_failure and _is_dead(tasks, needed)):
                watchers.setdefault(needed, []).append((name, rest))
                return
        take_slots(name, task)

    def watch_some(name: str, task: Task) -> None:
        """The same for any and k-of-n: count how many of all dependencies have ended."""
        distinct = dict.fromkeys(task.deps)
        unfinished = [
            needed
            for needed in distinct
            if needed not in ended and not (task.ignore_failure and _is_dead(tasks, needed))
        ]
        open_count[name] = task.wanted - len(distinct) + len(unfinished)
        if open_count[name] <= 0:
            take_slots(name, task)
            return
        for needed in unfinished:
            watchers.setdefault(needed, []).append((name, None))

    def take_slots(name: str, task: Task) -> None:
        need = task.need
        if need.count:
            number = slots.number[need.caps]
            if slots.pools[number].free < need.count:
                queues.setdefault((number, need.count), []).append(name)
                return
        ended.add(name)
        moving.append(name)

    for name, task in tasks.items():
        if task.state not in WAITING:
            continue
        if task.mode == "all":
            watch(name, task, iter(task.deps))
        else:
            watch_some(name, task)
        while moving:
            done = moving.pop()
            for key in slots.give_back(tasks[done].holds):
                for waiter in queues.pop(key, ()):
                    ended.add(waiter)
                    moving.append(waiter)
            for waiter, rest in watchers.pop(done, ()):
                if rest is not None:
                    watch(waiter, tasks[waiter], rest)
                    continue
                open_count[waiter] -= 1
                if not open_count[waiter]:
                    take_slots(waiter, tasks[waiter])
    return ended, slots


def _is_dead(tasks: Mapping[str, Task], name: str) -> bool:
    task = tasks.get(name)
    return task is not None and task.state in DEAD


@dataclass(frozen=True, slots=True)
class Remainder:
    """The stuck tasks in numbers, ascending by id, and what each of them still waits for."""

    system: System
    names: list[str]
    number: dict[str, int]
    tasks: list[Task]
    rows: list[list[int]]
    """Unfinished dependencies of those whose condition does not hold; all of them are stuck too."""
    lacking: list[int]
    """How many more dependencies must end; more than are unfinished if no end can make the condition hold."""
    demand: list[int]
    """The pool of the slots that the task needs, -1 if it needs none."""
    via: list[int]
    """That pool, where it has too few agents with a free slot; else -1."""
    holders: list[list[int]]
    """By pool: the stuck tasks that hold a slot of its full agents."""
    alone: frozenset[int]
    """Tasks that wait for an agent whose only stuck holder they are themselves."""
    slots: Slots

    @property
    def slack(self) -> list[int]:
        """How many unfinished dependencies may die until the condition cannot hold; below 0 it cannot now."""
        return [len(row) - lacking for row, lacking in zip(self.rows, self.lacking, strict=True)]

    def agent_between(self, task: int, holder: int) -> str:
        """The full agent, first by id, that `task` could use and `holder` sits on."""
        held = self.tasks[holder].holds
        agents = self.slots.pools[self.via[task]].agents
        return next(agent for agent in agents if agent in held and self.slots.free[agent] <= 0)


def remainder(system: System) -> Remainder:
    """Reduce, and number what is left."""
    ended, slots = reduce(system)
    names = sorted(name for name, task in system.tasks.items() if task.state in WAITING and name not in ended)
    tasks = [system.tasks[name] for name in names]
    number = {name: place for place, name in enumerate(names)}
    rows: list[list[int]] = []
    lacking: list[int] = []
    for task in tasks:
        deps = task.deps if task.mode == "all" else tuple(dict.fromkeys(task.deps))
        row = [number[needed] for needed in deps if needed in number]
        settled = 0
        if len(row) < len(deps):
            settled = sum(
                needed in ended or (task.ignore_failure and _is_dead(system.tasks, needed))
                for needed in deps
                if needed not in number
            )
        open_count = task.wanted - settled
        row.sort()
        rows.append(row if open_count > 0 else [])
        lacking.append(max(0, open_count))
    demand = [slots.number[task.need.caps] if task.need.count else -1 for task in tasks]
    via = [
        pool if pool >= 0 and slots.pools[pool].free < task.need.count else -1
        for pool, task in zip(demand, tasks, strict=True)
    ]
    holders, alone = _holders(tasks, via, slots)
    return Remainder(system, names, number, tasks, rows, lacking, demand, via, holders, alone, slots)


def _holders(tasks: list[Task], via: list[int], slots: Slots) -> tuple[list[list[int]], frozenset[int]]:
    """Who sits on the full agents of each pool that somebody lacks, and who waits there for himself only."""
    sitting: dict[str, list[int]] = {}
    for number, task in enumerate(tasks):
        for agent in dict.fromkeys(task.holds):
            if slots.free.get(agent, 1) <= 0:
                sitting.setdefault(agent, []).append(number)
    lacked = {pool for pool in via if pool >= 0}
    holders: list[list[int]] = [[] for _ in slots.pools]
    for pool in lacked:
        holders[pool] = sorted({n for agent in slots.pools[pool].agents for n in sitting.get(agent, ())})
    alone = {
        there[0]
        for agent, there in sitting.items()
        if len(there) == 1 and via[there[0]] in slots.pools_of.get(agent, ())
    }
    return holders, frozenset(alone)
