"""Whom to abort, so that the others can move: the cheapest of the smallest sets.

Components are played (`core/play.py`) in the order of the waits, what is waited for first, because
a component may dissolve when the one before it is resolved.

- Hold-and-wait: the victims are requeued. The set is the smallest that sets free everybody whom
  requeueing all holders would set free; nobody is aborted where that helps nobody.
- Ring of dependencies: the victims fail, and only an edge that ignores failure makes that useful.
  Then the set saves as many members as can be saved, and is the smallest of these. Without such an
  edge everybody fails whoever is the first: there is no victim, the ring fails as a whole.

Up to 12 members all sets are tried, by size. Larger components are opened greedily: abort the task
with the least cost per task set free, reduce again, and in the end spare whoever was not needed after all.
Cost is compared in this order: restarts so far (never the same task for ever), priority (low first),
work done (seconds, then tokens), dependents lost, youngest, id; the cost of a set is the sum of its members'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from agentorch_cli.core.play import ENDED, STUCK, Play
from agentorch_cli.core.reduction import Remainder

EXACT_MEMBERS = 12
EXACT_TRIES = 100_000  # of all components together, so that many sick sets never stop the pass
CANDIDATES = 32  # tried per greedy step, cheapest first
STEPS = 100_000  # tasks looked at per greedy step, roughly
LOST_LIMIT = 1_000  # dependents are counted up to here

Cost = tuple[float, ...]


class Untangler:
    """Plays the resolution of one component after the other, and says who has to go."""

    def __init__(self, rest: Remainder, play: Play) -> None:
        """`play` is the whole one; it moves on with each resolution."""
        self._rest = rest
        self._play = play
        self._tries_left = EXACT_TRIES

    def open_slots(self, members: Sequence[int]) -> list[int]:
        """The victims to requeue so that this hold-and-wait sets free whom it can set free; play it.

        None if the component has dissolved with those before it, or if nobody would be helped.
        """
        left = [member for member in members if self._play.fate[member] == STUCK]
        part = self._play.part(left)
        holders = self._useful_holders(left)
        best = part.copy()
        best.requeue(holders)
        target = [place for place, fate in enumerate(best.fate) if fate == ENDED]
        victims: list[int] = []
        if target:
            if len(members) <= EXACT_MEMBERS and self._tries_left > 0:
                victims = self._smallest(part, holders, target, left)
            else:
                victims = self._greedy(part, holders, target, left)
        self._play.requeue(left[place] for place in victims)
        return [left[place] for place in victims]

    def open_ring(self, core: Sequence[int]) -> list[int]:
        """The victims to fail so that as many as possible of this stuck ring still end; play it.

        None if everybody fails whoever is the first: then all of it fails.
        """
        rest = self._rest
        inside = set(core)
        dispensable = sorted(
            {
                needed
                for task in core
                if rest.tasks[task].ignore_failure
                for needed in rest.rows[task]
                if needed in inside
            }
        )
        victims: list[int] = []
        if dispensable:
            part = self._play.part(core, by_dependencies_alone=True)
            local = {member: place for place, member in enumerate(core)}
            victims = self._savers(part, [local[task] for task in dispensable], core)
        self._play.fail(core[place] for place in victims) if victims else self._play.fail(core)
        return [core[place] for place in victims]

    def _useful_holders(self, left: Sequence[int]) -> list[int]:
        """The places of those whose slots somebody here lacks, cheapest first."""
        wanted = {pool for member in left if (pool := self._rest.via[member]) >= 0}
        sitting = {holder for pool in wanted for holder in self._rest.holders[pool]}
        useful = [place for place, member in enumerate(left) if member in sitting]
        return sorted(useful, key=lambda place: self._cheap_cost(left[place]))

    def _smallest(
        self, part: Play, holders: Sequence[int], target: Sequence[int], left: Sequence[int]
    ) -> list[int]:
        """The cheapest of the smallest sets of holders that set all of the target free."""
        for size in range(1, len(holders)):
            good = []
            for chosen in combinations(sorted(holders), size):
                self._tries_left -= 1
                if self._frees(part, chosen, target):
                    good.append(chosen)
            if good:
                return list(min(good, key=lambda chosen: self._set_cost([left[n] for n in chosen])))
            if self._tries_left <= 0:
                return self._greedy(part, holders, target, left)
        return sorted(holders)

    def _greedy(
        self, part: Play, holders: Sequence[int], target: Sequence[int], left: Sequence[int]
    ) -> list[int]:
        """Abort the one with the least cost per task set free, reduce again; spare who was not needed."""
        now, chosen = part.copy(), list[int]()
        limit = max(1, min(CANDIDATES, STEPS // len(left)))
        waiting = list(holders)
        while any(now.fate[place] != ENDED for place in target):
            waiting = [place for place in waiting if now.fate[place] == STUCK and not now.let_go[place]]
            best = waiting[0]
            if limit > 1:
                trials = [(place, now.copy().requeue([place])) for place in waiting[:limit]]
                helpful = [(place, freed) for place, freed in trials if freed]
                if helpful:
                    best = min(helpful, key=lambda trial: self._rate(left[trial[0]], trial[1]))[0]
            now.requeue([best])
            chosen.append(best)
        if len(chosen) <= limit:
            for place in sorted(chosen, key=lambda place: self._cost(left[place]), reverse=True):
                fewer = [other for other in chosen if other != place]
                if fewer and self._frees(part, fewer, target):
                    chosen = fewer
        return sorted(chosen)

    def _frees(self, part: Play, chosen: Iterable[int], target: Iterable[int]) -> bool:
        trial = part.copy()
        trial.requeue(chosen)
        return all(trial.fate[place] == ENDED for place in target)

    def _savers(self, part: Play, dispensable: Sequence[int], core: Sequence[int]) -> list[int]:
        """Whose failure lets most of the core end; of these sets the smallest, then the cheapest."""
        if len(core) > EXACT_MEMBERS or self._tries_left <= 0:
            return self._greedy_savers(part, dispensable, core)
        best: list[int] = []
        most = 0
        for size in range(1, len(dispensable) + 1):
            if most >= len(core) - size or self._tries_left <= 0:
                break
            found: dict[tuple[int, ...], int] = {}
            for chosen in combinations(dispensable, size):
                self._tries_left -= 1
                found[chosen] = part.copy().fail(chosen)
            if max(found.values()) > most:
                most = max(found.values())
                equal = [chosen for chosen, saved in found.items() if saved == most]
                best = list(min(equal, key=lambda chosen: self._set_cost([core[n] for n in chosen])))
        return best

    def _greedy_savers(self, part: Play, dispensable: Sequence[int], core: Sequence[int]) -> list[int]:
        """The same for a large core, one after the other, as long as each saves somebody."""
        now, chosen = part.copy(), list[int]()
        cheapest_first = sorted(dispensable, key=lambda place: self._cheap_cost(core[place]))
        limit = max(1, min(CANDIDATES, STEPS // len(core)))
        while waiting := [place for place in cheapest_first if now.fate[place] == STUCK][:limit]:
            trials = {place: now.copy().fail([place]) for place in waiting}
            best = min(waiting, key=lambda place: (-trials[place], self._cost(core[place])))
            if not trials[best]:
                break
            now.fail([best])
            chosen.append(best)
        return sorted(chosen)

    def _cheap_cost(self, task: int) -> Cost:
        """The cost without the dependents, which have to be counted."""
        given = self._rest.tasks[task]
        return (
            given.restarts,
            given.priority,
            given.work_seconds,
            given.tokens,
            -given.created_at,
            task,
        )

    def _cost(self, task: int) -> Cost:
        *before, youth, number = self._cheap_cost(task)
        return (*before, self._dependents(task), youth, number)

    def _set_cost(self, tasks: Sequence[int]) -> tuple[Cost, list[int]]:
        """Summed up, but for the ids: these are compared from the first on."""
        sums = zip(*(self._cost(task)[:-1] for task in tasks), strict=True)
        return tuple(sum(each) for each in sums), sorted(tasks)

    def _rate(self, task: int, freed: int) -> Cost:
        """Cost per task set free."""
        *costs, youth, number = self._cost(task)
        return (*(each / freed for each in costs), -freed, youth, number)

    def _dependents(self, task: int) -> int:
        """How many would be lost with this task, because they wait for it and its failure blocks them."""
        board = self._play.board
        found = {task}
        todo = [task]
        while todo and len(found) <= LOST_LIMIT:
            for waiter in board.needed_by[todo.pop()]:
                if waiter not in found and not board.ignores[waiter]:
                    found.add(waiter)
                    todo.append(waiter)
        return min(len(found) - 1, LOST_LIMIT)
