"""The moves that could free a stuck system, tried on paper.

A `Play` is the stuck rest of a system with the two moves that the engine can make:

- `requeue` tasks: they give their slots back and wait again from the start. This is the way out of
  a hold-and-wait. It never breaks a cycle of dependencies: they still wait for the same things.
- `fail` tasks: whoever ignores failures counts them as ended; others fail in turn once their
  condition can never hold.

After each move everything that can end does. A copy is cheap, so that many moves can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentorch_cli.core.reduction import Remainder, Slots

STUCK, ENDED, FAILED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Board:
    """What does not change in a play: who waits for whom, who needs and holds which slots."""

    needed_by: Sequence[Sequence[int]]
    ignores: Sequence[bool]
    demand: Sequence[int]
    count: Sequence[int]
    holds: Sequence[tuple[str, ...]]
    waiters: dict[tuple[int, int], list[int]]
    """By pool and count: who needs that many of that pool."""
    slots: Slots
    """As the reduction left them: which agents and pools there are. What is free is the play's."""


@dataclass(slots=True)
class Play:
    """The stuck rest of a system, or a part of it, and what became of each task there."""

    board: Board
    lacking: list[int]
    slack: list[int]
    free: dict[str, int]
    idle: dict[int, int]
    """By pool: how many of its agents have a free slot, or whether they make a team."""
    teams: dict[int, tuple[int, frozenset[frozenset[str]]]]
    """By pool of a team: how many have a free slot, and which parts these have."""
    fate: bytearray
    let_go: bytearray
    """Whether the task has given its slots back."""

    @classmethod
    def whole(cls, rest: Remainder) -> Play:
        """The play of all stuck tasks."""
        needed_by: list[list[int]] = [[] for _ in rest.names]
        waiters: dict[tuple[int, int], list[int]] = {}
        for number, row in enumerate(rest.rows):
            for needed in row:
                needed_by[needed].append(number)
            if rest.demand[number] >= 0:
                key = (rest.demand[number], rest.tasks[number].need.level)
                waiters.setdefault(key, []).append(number)
        board = Board(
            needed_by,
            [task.ignore_failure for task in rest.tasks],
            rest.demand,
            [task.need.level for task in rest.tasks],
            [task.holds for task in rest.tasks],
            waiters,
            rest.slots,
        )
        idle = {number: pool.free for number, pool in enumerate(rest.slots.pools)}
        teams = {
            number: (pool.idle, frozenset(pool.parts))
            for number, pool in enumerate(rest.slots.pools)
            if pool.need.is_team
        }
        size = len(rest.names)
        return cls(
            board,
            list(rest.lacking),
            rest.slack,
            dict(rest.slots.free),
            idle,
            teams,
            bytearray(size),
            bytearray(size),
        )

    def part(self, members: Sequence[int], *, by_dependencies_alone: bool = False) -> Play:
        """A play of these tasks only, renumbered in their order, from where this play stands.

        Outside of it nothing moves. Or, for dependencies alone: all that is outside has ended, there
        are slots for everybody, and whoever can end with that has ended.
        """
        local = {member: place for place, member in enumerate(members)}
        whole = self.board
        needed_by = [
            [local[waiter] for waiter in whole.needed_by[member] if waiter in local] for member in members
        ]
        demand = [-1 if by_dependencies_alone else whole.demand[member] for member in members]
        board = Board(
            needed_by,
            [whole.ignores[member] for member in members],
            demand,
            [whole.count[member] for member in members],
            [whole.holds[member] for member in members],
            _waiters(demand, [whole.count[member] for member in members]),
            whole.slots,
        )
        part = Play(
            board,
            [self.lacking[member] for member in members],
            [self.slack[member] for member in members],
            {agent: self.free[agent] for held in board.holds for agent in held if agent in self.free},
            {pool: self.idle[pool] for pool in demand if pool >= 0},
            {pool: self.teams[pool] for pool in demand if pool in self.teams},
            bytearray(self.fate[member] for member in members),
            bytearray(self.let_go[member] for member in members),
        )
        if by_dependencies_alone:
            inside = [0] * len(members)
            for row in needed_by:
                for waiter in row:
                    inside[waiter] += 1
            part.lacking = [max(0, n - slack) for n, slack in zip(inside, part.slack, strict=True)]
            settled: list[int] = []
            for place in range(len(members)):
                part._try(place, settled)
            part._run(settled)
        return part

    def copy(self) -> Play:
        """The same play, to try something."""
        return Play(
            self.board,
            self.lacking.copy(),
            self.slack.copy(),
            self.free.copy(),
            self.idle.copy(),
            self.teams.copy(),
            self.fate[:],
            self.let_go[:],
        )

    def requeue(self, tasks: Iterable[int]) -> int:
        """Let these give their slots back; how many tasks end by that."""
        settled: list[int] = []
        for task in tasks:
            self._give_back(task, settled)
        return self._run(settled)

    def fail(self, tasks: Iterable[int]) -> int:
        """Let these fail; how many tasks end by that."""
        settled: list[int] = []
        for task in tasks:
            if self.fate[task] == STUCK:
                self.fate[task] = FAILED
                settled.append(task)
        return self._run(settled)

    def stuck(self) -> list[int]:
        """Who still does not move."""
        return [task for task, fate in enumerate(self.fate) if fate == STUCK]

    def _run(self, settled: list[int]) -> int:
        """Tell the waiters of each settled task, and so on; how many have ended."""
        board, ended = self.board, 0
        while settled:
            task = settled.pop()
            died = self.fate[task] == FAILED
            ended += not died
            self._give_back(task, settled)
            for waiter in board.needed_by[task]:
                if self.fate[waiter] != STUCK:
                    continue
                if died and not board.ignores[waiter]:
                    self.slack[waiter] -= 1
                    if self.slack[waiter] < 0:
                        self.fate[waiter] = FAILED
                        settled.append(waiter)
                else:
                    self.lacking[waiter] -= 1
                    self._try(waiter, settled)
        return ended

    def _try(self, task: int, settled: list[int]) -> None:
        pool = self.board.demand[task]
        if (
            self.lacking[task] <= 0
            and self.fate[task] == STUCK
            and (pool < 0 or self.idle[pool] >= self.board.count[task])
        ):
            self.fate[task] = ENDED
            settled.append(task)

    def _give_back(self, task: int, settled: list[int]) -> None:
        if self.let_go[task]:
            return
        self.let_go[task] = True
        for agent in self.board.holds[task]:
            if agent not in self.free:
                continue
            self.free[agent] += 1
            if self.free[agent] != 1:
                continue
            for pool in self.board.slots.pools_of.get(agent, ()):
                if pool in self.idle and self._gain(pool, agent):
                    for waiter in self.board.waiters.get((pool, self.idle[pool]), ()):
                        self._try(waiter, settled)

    def _gain(self, pool: int, agent: str) -> bool:
        """The agent has a free slot from now on: whether that raises the level of the pool."""
        if pool not in self.teams:
            self.idle[pool] += 1
            return True
        if self.idle[pool]:
            return False
        need = self.board.slots.pools[pool].need
        number, parts = self.teams[pool]
        self.teams[pool] = number + 1, parts | {self.board.slots.agents[agent].caps & need.caps}
        self.idle[pool] = need.reached(*self.teams[pool])
        return self.idle[pool] > 0


def _waiters(demand: Sequence[int], count: Sequence[int]) -> dict[tuple[int, int], list[int]]:
    waiters: dict[tuple[int, int], list[int]] = {}
    for task, pool in enumerate(demand):
        if pool >= 0:
            waiters.setdefault((pool, count[task]), []).append(task)
    return waiters
