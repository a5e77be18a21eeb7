"""What can still end, and what is left when all of that has ended.

The reduction lets everything move that can: a task that runs will end; a waiting task whose condition
holds, and for which enough eligible agents have a free slot, will run and end, and then gives back what
it holds. Slots only ever come back, so the order does not matter and what is left is well defined:
exactly the tasks that cannot end under any schedule (Holt, Some deadlock properties of computer
systems, ACM Computing Surveys 1972, for agents with several slots; AND, OR and k-of-n waits are conditions).

One pass, depth first with an explicit path: where nothing is in the way, a task is looked at after all that
it waits for. Else it watches one unfinished dependency and goes on from there when that one ends, so every
edge is looked at about once. Demands with the same capabilities share one `Pool`, which
counts its eligible agents with a free slot. The pool of a team counts to 1: it is there or it is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from agentorch_cli.core.system import DEAD, WAITING, Agent, Kind, Need, State, System, Task


@dataclass(slots=True)
class Pool:
    """The agents that have all of some capabilities; of a team's, the agents that have any."""

    need: Need
    """One of the demands."""
    agents: tuple[str, ...]
    """The live ones, by id."""
    registered: int
    """The level of these, idle or not: how many there are, or whether they make a team."""
    absent: int
    """What eligible agents with slots that are not live would add to it."""
    free: int
    """The level of the live ones with a free slot now."""
    idle: int
    """How many these are."""
    parts: set[frozenset[str]]
    """What they have of a team's capabilities."""

    def gain(self, caps: frozenset[str]) -> bool:
        """An agent with these has a free slot from now on: whether that raises the level."""
        before, part = self.free, caps & self.need.caps
        self.idle += 1
        if not self.need.is_team:
            self.free = self.idle
        elif not self.free:
            self.parts.add(part)
            self.free = self.need.reached(self.idle, self.parts)
        return self.free > before


@dataclass(slots=True)
class Slots:
    """Free slots per live agent, and per pool how many of its agents have any."""

    agents: Mapping[str, Agent]
    free: dict[str, int]
    pools: list[Pool]
    """In the order of their capabilities."""
    number: dict[Kind, int]
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
                    if pool.gain(self.agents[agent].caps):
                        yield number, pool.free


def free_slots(system: System) -> Slots:
    """Capacity less what waiting tasks hold; what running tasks hold will come back by itself."""
    free = {name: agent.slots for name, agent in system.agents.items() if agent.live}
    demands: dict[Kind, Need] = {}
    for task in system.tasks.values():
        if task.state in WAITING:
            for agent in task.holds:
                if agent in free:
                    free[agent] -= 1
            if task.need.count:
                demands.setdefault(task.need.kind, task.need)
    slots = Slots(system.agents, free, [], {}, {})
    for kind, need in sorted(demands.items(), key=_by_capabilities):
        able = {n: agent.caps for n, agent in system.agents.items() if agent.slots > 0 and need.serves(agent)}
        live = tuple(sorted(name for name in able if name in free))
        slots.number[kind] = len(slots.pools)
        for name in live:
            slots.pools_of.setdefault(name, []).append(len(slots.pools))
        registered, everybody = _level(need, able, live), _level(need, able, able)
        idle = [name for name in live if free[name] > 0]
        pool = Pool(need, live, registered, everybody - registered, 0, 0, set())
        for name in idle:
            pool.gain(able[name])
        slots.pools.append(pool)
    return slots


def _by_capabilities(item: tuple[Kind, Need]) -> tuple[list[str], str, bool, int, int]:
    need = item[1]
    size = (need.count, need.most) if need.is_team else (0, 0)
    return (sorted(need.caps), need.pool or "", need.is_team, *size)


def _level(need: Need, caps: Mapping[str, frozenset[str]], names: Collection[str]) -> int:
    """What these agents reach together."""
    return need.reached(len(names), {caps[name] & need.caps for name in names} if need.is_team else ())


def reduce(system: System) -> tuple[set[str], Slots]:
    """The tasks that have ended well or still can, and the slots that are free after that."""
    reduction = _Reduction(system)
    for name, task in system.tasks.items():
        if task.state in WAITING and name not in reduction.seen:
            reduction.look(name, task)
    return reduction.ended, reduction.slots


class _Reduction:
    """The pass itself: what a task waits for is looked at before the task, wherever that is possible."""

    def __init__(self, system: System) -> None:
        self.tasks = system.tasks
        self.slots = free_slots(system)
        self.ended = {
            name for name, task in system.tasks.items() if task.state in (State.DONE, State.RUNNING)
        }
        self.seen: set[str] = set()
        self._watchers: dict[str, list[tuple[str, Iterator[str] | None]]] = {}
        self._open_count: dict[str, int] = {}  # of any and k-of-n waits: how many more must end
        self._queues: dict[tuple[int, int], list[str]] = {}  # by pool and count: who waits for slots only

    def look(self, name: str, task: Task) -> None:
        """Let a task end, and all that it waits for before it, or leave word where it has to wait."""
        tasks, ended, seen = self.tasks, self.ended, self.seen
        seen.add(name)
        path = [(name, task, iter(task.deps))]
        returned = ""  # the dependency that was looked at just now, and has not ended
        while path:
            name, task, rest = path[-1]
            needs_all = task.mode == "all"
            if returned and needs_all:
                self._watchers.setdefault(returned, []).append((name, rest))
                path.pop()
                returned = name
                continue
            returned = ""
            for needed in rest:
                if needed in ended:
                    continue
                if needed not in seen:
                    other = tasks.get(needed)
                    if other is not None and other.state in WAITING:
                        seen.add(needed)
                        path.append((needed, other, iter(other.deps)))
                        break
                if needs_all and not (task.ignore_failure and _is_dead(tasks, needed)):
                    self._watchers.setdefault(needed, []).append((name, rest))
                    path.pop()
                    returned = name
                    break
            else:
                path.pop()
                if (needs_all or self._enough_ended(name, task)) and self._enough_slots(name, task):
                    self._end(name)
                else:
                    returned = name

    def _end(self, name: str) -> None:
        """The task ends, and with it those who waited for no more than that."""
        self.ended.add(name)
        moving = [name]
        while moving:
            done = moving.pop()
            free = []
            for key in self.slots.give_back(self.tasks[done].holds):
                free += self._queues.pop(key, [])
            for waiter, rest in self._watchers.pop(done, ()):
                if self._moves_on(waiter, rest) and self._enough_slots(waiter, self.tasks[waiter]):
                    free.append(waiter)
            self.ended.update(free)
            moving += free

    def _moves_on(self, name: str, rest: Iterator[str] | None) -> bool:
        """One dependency has ended: whether the condition holds now."""
        if rest is None:
            self._open_count[name] -= 1
            return self._open_count[name] == 0
        ignores = self.tasks[name].ignore_failure
        for needed in rest:
            if needed not in self.ended and not (ignores and _is_dead(self.tasks, needed)):
                self._watchers.setdefault(needed, []).append((name, rest))
                return False
        return True

    def _enough_ended(self, name: str, task: Task) -> bool:
        """For any and k-of-n: whether that many have ended; else count those that will."""
        distinct = dict.fromkeys(task.deps)
        unfinished = [
            needed
            for needed in distinct
            if needed not in self.ended and not (task.ignore_failure and _is_dead(self.tasks, needed))
        ]
        open_count = self._open_count[name] = task.wanted - len(distinct) + len(unfinished)
        if open_count <= 0:
            return True
        for needed in unfinished:
            self._watchers.setdefault(needed, []).append((name, None))
        return False

    def _enough_slots(self, name: str, task: Task) -> bool:
        """Whether the task gets its slots; else it queues for them."""
        if not task.need.count:
            return True
        pool = self.slots.number[task.need.kind]
        if self.slots.pools[pool].free >= task.need.level:
            return True
        self._queues.setdefault((pool, task.need.level), []).append(name)
        return False


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
    rows: list[tuple[int, ...]]
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
    rows: list[tuple[int, ...]] = []  # tuples of numbers cost the garbage collector nothing
    lacking: list[int] = []
    for task in tasks:
        deps = task.deps if task.mode == "all" else tuple(dict.fromkeys(task.deps))
        found = list(map(number.get, deps))
        row = tuple(sorted([place for place in found if place is not None]))
        settled = 0
        if len(row) < len(deps):
            settled = sum(
                needed in ended or (task.ignore_failure and _is_dead(system.tasks, needed))
                for needed in deps
                if needed not in number
            )
        open_count = task.wanted - settled
        rows.append(row if open_count > 0 else ())
        lacking.append(max(0, open_count))
    _leave_helpful(slots)
    demand = [slots.number[task.need.kind] if task.need.count else -1 for task in tasks]
    via = [
        pool if pool >= 0 and slots.pools[pool].free < task.need.level else -1
        for pool, task in zip(demand, tasks, strict=True)
    ]
    holders, alone = _holders(tasks, via, slots)
    return Remainder(system, names, number, tasks, rows, lacking, demand, via, holders, alone, slots)


def _leave_helpful(slots: Slots) -> None:
    """Who could help a team that is not there: who has what nobody has who is free. Or else all of them."""
    for pool in slots.pools:
        lacking = pool.need.caps.difference(*pool.parts)
        if pool.need.is_team and not pool.free and lacking:
            pool.agents = tuple(
                name for name in pool.agents if not lacking.isdisjoint(slots.agents[name].caps)
            )


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
        if len(there) == 1
        and via[there[0]] in slots.pools_of.get(agent, ())
        and _helps(agent, via[there[0]], slots)
    }
    return holders, frozenset(alone)


def _helps(agent: str, pool: int, slots: Slots) -> bool:
    """Whether a slot of this agent, which is in the pool, would help those who lack it."""
    return not slots.pools[pool].need.is_team or agent in slots.pools[pool].agents
