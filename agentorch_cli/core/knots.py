"""The stuck tasks, tied into knots: which wait for each other, and what each one's trouble is called.

Edges lead from a waiter to the dependencies that it still waits for, and to those who hold the slots
that it lacks. The theory is in `core/deadlock.py`; here it is done, in numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from agentorch_cli.core import graphs
from agentorch_cli.core.play import STUCK, Play
from agentorch_cli.core.reduction import Remainder
from agentorch_cli.core.victims import Untangler


class Kind(StrEnum):
    """Why a task does not move; the first that fits."""

    UNSATISFIABLE = "unsatisfiable"
    """Too few live agents have the capabilities, idle or not; or more dependencies are wanted than named."""
    MISSING_DEPENDENCY = "missing_dependency"
    """The condition can never hold while a dependency does not exist."""
    FAILED_DEPENDENCY = "failed_dependency"
    """The condition can never hold, because a dependency failed or was cancelled."""
    CIRCULAR_DEPENDENCY = "circular_dependency"
    """On a cycle of dependencies that nothing outside of it can open."""
    HOLD_AND_WAIT = "hold_and_wait"
    """Among tasks that hold slots and wait for each other."""
    BLOCKED_BEHIND = "blocked_behind"
    """Waits for one of the above."""
    TIMEOUT = "timeout"
    """Not stuck, but overdue."""


@dataclass(slots=True)
class Knot:
    """A component of tasks that wait for each other, or one task that waits for itself."""

    members: list[int]
    lacks_slots: bool
    """Whether some of its waits are for slots that its own members hold."""
    cores: list[list[int]] = field(default_factory=list)
    """Cycles of dependencies inside of it that nothing outside can open."""
    victims: list[int] = field(default_factory=list)
    doomed: list[int] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        if self.cores:
            return Kind.CIRCULAR_DEPENDENCY
        return Kind.HOLD_AND_WAIT if self.lacks_slots else Kind.BLOCKED_BEHIND


@dataclass(slots=True)
class Knots:
    """Everything about the stuck tasks that the report needs."""

    rest: Remainder
    walk: list[Sequence[int]]
    """The wait edges as rows. A pool that somebody lacks is a node, numbered after the tasks, and leads to
    those who hold its full agents: hundreds who wait for hundreds need no edge for each pair."""
    found: list[list[int]]
    """The strongly connected components of `walk`, what is waited for first."""
    knots: list[Knot]
    play: Play | None = None


def tie(rest: Remainder) -> Knots:
    """Find the components and their cores."""
    walk = _walk(rest)
    found = graphs.components(walk)
    tied = Knots(rest, walk, found, [knot for nodes in found if (knot := _knot(rest, walk, nodes))])
    _find_cores(tied)
    return tied


def _walk(rest: Remainder) -> list[Sequence[int]]:
    size = len(rest.names)
    walk: list[Sequence[int]] = list(rest.rows)
    for number, pool in enumerate(rest.via):
        if pool >= 0:
            itself = [number] if number in rest.alone else []
            walk[number] = [*itself, *rest.rows[number], size + pool]
    return [*walk, *rest.holders]


def _knot(rest: Remainder, walk: Sequence[Sequence[int]], nodes: Sequence[int]) -> Knot | None:
    """The tasks of a component, if somebody among them waits for himself in the end."""
    size = len(rest.names)
    if len(nodes) == 1:
        return Knot([*nodes], nodes[0] in rest.alone) if nodes[0] in walk[nodes[0]] else None
    members = [node for node in nodes if node < size]
    if len(members) == 1:  # with a pool: the task also holds what it lacks, but waits for others there
        return Knot(members, members[0] in rest.alone) if members[0] in walk[members[0]] else None
    lacks_slots = not rest.alone.isdisjoint(members)
    if len(members) < len(nodes) and not lacks_slots:
        inside = set(members)
        sitting = [inside.intersection(holders) for holders in rest.holders]
        lacks_slots = any(
            rest.via[member] >= 0 and sitting[rest.via[member]] - {member} for member in members
        )
    return Knot(members, lacks_slots)


def _find_cores(tied: Knots) -> None:
    """Suppose all outside of the knot had ended and there were slots for all: who would still be stuck?"""
    rest, slack = tied.rest, tied.rest.slack
    for knot in tied.knots:
        if not knot.lacks_slots and all(slack[member] <= 0 for member in knot.members):
            knot.cores = [knot.members]  # everybody needs all that is open, so nothing outside helps
            continue
        tied.play = tied.play or Play.whole(rest)
        part = tied.play.part(knot.members, by_dependencies_alone=True)
        left = [knot.members[place] for place in part.stuck()]
        local = {member: place for place, member in enumerate(left)}
        rows = [[local[other] for other in rest.rows[member] if other in local] for member in left]
        cores = graphs.cyclic(rows, graphs.components(rows))
        knot.cores = sorted([left[place] for place in core] for core in cores)


def kinds(tied: Knots) -> list[Kind]:
    """By stuck task, the first kind that fits."""
    rest = tied.rest
    named = [Kind.BLOCKED_BEHIND] * len(rest.names)
    for knot in tied.knots:
        if knot.lacks_slots:
            for member in knot.members:
                named[member] = Kind.HOLD_AND_WAIT
        for core in knot.cores:
            for member in core:
                named[member] = Kind.CIRCULAR_DEPENDENCY
    for number, (task, slack, pool) in enumerate(zip(rest.tasks, rest.slack, rest.demand, strict=True)):
        if task.wanted > len(task.deps) or (
            pool >= 0 and rest.slots.pools[pool].registered < task.need.level
        ):
            named[number] = Kind.UNSATISFIABLE
        elif slack < 0:
            missing = any(needed not in rest.system.tasks for needed in task.deps)
            named[number] = Kind.MISSING_DEPENDENCY if missing else Kind.FAILED_DEPENDENCY
    return named


def ahead(tied: Knots, named: Sequence[Kind]) -> dict[int, list[int]]:
    """For each task that is blocked behind others: the component, or the one task, that it is behind.

    Of several, the one along the waits with the smallest ids.
    """
    if Kind.BLOCKED_BEHIND not in named:
        return {}
    size = len(named)
    nobody: list[int] = []
    blamed = [nobody] * len(tied.walk)
    for number, kind in enumerate(named):
        if kind is not Kind.BLOCKED_BEHIND:
            blamed[number] = [number]
    for knot in tied.knots:
        for member in knot.members:
            if named[member] in (Kind.CIRCULAR_DEPENDENCY, Kind.HOLD_AND_WAIT):
                blamed[member] = knot.members
    for nodes in tied.found:
        if len(nodes) == 1:
            node = nodes[0]
            onwards = next((other for other in tied.walk[node] if other != node), node)
            blamed[node] = blamed[node] or blamed[onwards]
            continue
        source = blamed[min((node for node in nodes if blamed[node]), default=nodes[0])]
        if not source:
            inside = set(nodes)
            source = min(blamed[other] for node in nodes for other in tied.walk[node] if other not in inside)
        for node in nodes:
            blamed[node] = blamed[node] or source
    return {n: blamed[n] for n in range(size) if named[n] is Kind.BLOCKED_BEHIND}


def untangle(tied: Knots) -> None:
    """Choose the victims of each knot, in the order in which resolving one may dissolve the next."""
    rest = tied.rest
    if not any(knot.lacks_slots or _has_exception(rest, knot) for knot in tied.knots):
        for knot in tied.knots:
            knot.doomed = [member for core in knot.cores for member in core]
        return
    play = tied.play or Play.whole(rest)
    untangler = Untangler(rest, play)
    for knot in tied.knots:
        for core in knot.cores:
            left = [member for member in core if play.fate[member] == STUCK]
            victims = untangler.open_ring(left)
            knot.victims += victims
            knot.doomed += [] if victims else left
        if knot.kind is Kind.HOLD_AND_WAIT:
            knot.victims = untangler.open_slots(knot.members)


def _has_exception(rest: Remainder, knot: Knot) -> bool:
    return any(rest.tasks[member].ignore_failure for core in knot.cores for member in core)
