"""Who can never move again, why, and whom to abort.

A cycle in a wait-for graph is not yet a deadlock: a wait may be for any of several tasks, for k of n,
or for a slot of whichever agent is free first. So the question is asked the other way round.

1. Reduce (`core/reduction.py`): let everything end that can. What is left is **stuck**: it cannot end
   under any schedule. A task behind a busy agent whose work will end is never left.
2. Explain (`core/knots.py`): among the stuck tasks, draw an edge from each waiter to the dependencies that
   it still waits for, and to those who hold the slots that it lacks. Components of more than one task,
   or of a task that waits for itself, are the knots; each is shown by one of its shortest cycles.
3. Name, the first that fits: `unsatisfiable`, `missing_dependency`, `failed_dependency`,
   `circular_dependency`, `hold_and_wait`, `blocked_behind`. A missing or failed dependency counts only where
   the condition can never hold without it. A ring of dependencies is accused only if it would stay closed
   even if everything outside of its component ended and there were slots for all: a ring with an "any" that
   leads out of it waits for what is outside, and must not be failed. `timeout` is given by the caller.
4. Resolve (`core/victims.py`). The victims of a hold-and-wait are to be aborted and requeued. A ring of
   dependencies has victims, to be failed, only where an edge ignores failure; otherwise its members are
   `doomed` together and no victim is named, because none would save the others. Where dependencies and
   slots are knotted together, the rings of dependencies go first, and the rest is for the next look. A task
   with a missing or failed dependency, or an unsatisfiable need, is named and left as it is.

Two readings. The slots that a task lacks count as a wait while its dependencies are still open, too: it
needs both. And distinct agents are counted within one need: a slot held already does not make that agent
ineligible for one more, but a task waits there for itself only where nobody else stuck holds a slot.

All answers are sorted by id, and do not depend on the order of tasks, agents or dependencies.
Time: O(V + E) and pools x agents, besides the search for victims, which is bounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentorch_cli.core import graphs
from agentorch_cli.core.knots import Kind, Knot, Knots, ahead, kinds, tie, untangle
from agentorch_cli.core.model import DEFAULT_POOL
from agentorch_cli.core.reduction import Pool, Remainder, remainder
from agentorch_cli.core.system import DEAD, Agent, Need, System
from agentorch_cli.core.team import advice, shortfall

__all__ = ["Component", "Kind", "Report", "Wait", "detect"]


@dataclass(frozen=True, slots=True)
class Wait:
    """One edge: `task` waits for `on`, for its end or, with an agent, for its slot there."""

    task: str
    on: str
    agent: str | None = None

    @property
    def reason(self) -> str:
        """In words."""
        if self.agent is None:
            return f"{self.task} depends on {self.on}"
        if self.task == self.on:
            return f"{self.task} needs a slot of {self.agent}, and holds it itself"
        return f"{self.task} needs a slot of {self.agent}, which {self.on} holds"


@dataclass(frozen=True, slots=True)
class Component:
    """Tasks that wait for each other."""

    kind: Kind
    """`circular_dependency` if it holds a ring of dependencies, else `hold_and_wait`; `blocked_behind` if
    only others keep it up, and it will dissolve with them."""
    members: tuple[str, ...]
    cycle: tuple[str, ...]
    """Each waits for the next, the last for the first. Dependencies only, if the kind is circular."""
    edges: tuple[Wait, ...]
    """Those of the cycle."""
    victims: tuple[str, ...]
    """To abort and requeue, in a hold-and-wait; to fail, in a circular dependency."""
    doomed: tuple[str, ...]
    """To fail together, with the cycle as the reason: no victim would save them."""


@dataclass(frozen=True, slots=True)
class Report:
    """What `detect` has found."""

    stuck: tuple[str, ...]
    components: tuple[Component, ...]
    kind: Mapping[str, Kind]
    """By task; also of those that are only overdue."""
    behind: Mapping[str, tuple[str, ...]]
    """By task that is blocked behind others: the component, or the one task, that it is behind."""
    _rest: Remainder = field(repr=False, compare=False)

    @property
    def cycles(self) -> tuple[tuple[str, ...], ...]:
        """One shortest cycle of each component."""
        return tuple(component.cycle for component in self.components)

    @property
    def victims(self) -> tuple[str, ...]:
        """All victims of all components."""
        return tuple(sorted(victim for component in self.components for victim in component.victims))

    def waits(self, task: str) -> Iterator[Wait]:
        """What this stuck task waits for among the stuck, dependencies first. Empty for any other task."""
        rest, number = self._rest, self._rest.number.get(task)
        if number is None:
            return
        for needed in rest.rows[number]:
            yield Wait(task, rest.names[needed])
        if rest.via[number] >= 0:
            for holder in rest.holders[rest.via[number]]:
                if holder != number or number in rest.alone:
                    yield Wait(task, rest.names[holder], rest.agent_between(number, holder))

    def explain(self, task: str) -> str:
        """Why this stuck or overdue task does not move, in a sentence. Raises KeyError for any other task."""
        match self.kind[task]:
            case Kind.UNSATISFIABLE:
                return _unsatisfiable(self._rest, task)
            case Kind.MISSING_DEPENDENCY | Kind.FAILED_DEPENDENCY as kind:
                return _unfit_dependencies(self._rest.system, task, kind)
            case Kind.CIRCULAR_DEPENDENCY | Kind.HOLD_AND_WAIT:
                mine = next(part for part in self.components if task in part.members)
                return f"{task} is caught in {graphs.show_cycle(mine.cycle)}"
            case Kind.BLOCKED_BEHIND:
                return f"{task} is behind {_some(self.behind[task])}"
            case Kind.TIMEOUT:
                return f"{task} is overdue"

    def to_json(self) -> dict[str, Any]:
        """As `agentorch deadlock check --json` prints it."""
        return {
            "stuck": list(self.stuck),
            "components": [list(component.members) for component in self.components],
            "kind": {task: str(kind) for task, kind in self.kind.items()},
            "cycles": [list(cycle) for cycle in self.cycles],
            "victims": list(self.victims),
        }


def detect(system: System, overdue: Collection[str] = ()) -> Report:
    """Find every task that can never end, and explain it.

    `overdue` are tasks past twice their timeout, or silent, or waiting past their deadline. They are not
    stuck, because the engine will take their work away, but are named `timeout` unless another kind fits.
    """
    rest = remainder(system)
    tied = tie(rest)
    named = kinds(tied)
    behind = ahead(tied, named)
    untangle(tied)
    names = rest.names
    kind = dict(zip(names, named, strict=True))
    if late := {task for task in overdue if task in system.tasks and task not in kind}:
        kind = dict(sorted((kind | dict.fromkeys(late, Kind.TIMEOUT)).items()))
    culprits = {id(numbers): numbers for numbers in behind.values()}  # many tasks are behind the same
    shared = {key: tuple(names[number] for number in numbers) for key, numbers in culprits.items()}
    return Report(
        tuple(names),
        tuple(_component(tied, knot) for knot in sorted(tied.knots, key=lambda knot: knot.members)),
        kind,
        {names[number]: shared[id(numbers)] for number, numbers in behind.items()},
        rest,
    )


def _component(tied: Knots, knot: Knot) -> Component:
    rest, names = tied.rest, tied.rest.names
    if knot.cores:
        cycle = graphs.shortest_cycle(rest.rows, knot.cores[0])
    else:
        cycle = graphs.shortest_cycle(tied.walk, knot.members, rest.via, rest.holders)
    edges = []
    for task, on in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        agent = None if on in rest.rows[task] else rest.agent_between(task, on)
        edges.append(Wait(names[task], names[on], agent))
    return Component(
        knot.kind,
        tuple(names[member] for member in knot.members),
        tuple(names[member] for member in cycle),
        tuple(edges),
        tuple(names[member] for member in sorted(knot.victims)),
        tuple(names[member] for member in sorted(knot.doomed)),
    )


def _unsatisfiable(rest: Remainder, task: str) -> str:
    given = rest.system.tasks[task]
    if given.wanted > len(given.deps):
        return f"{task} waits for {given.wanted} of only {len(given.deps)} dependencies"
    pool = rest.slots.pools[rest.demand[rest.number[task]]]
    if given.need.is_team:
        return _no_team(task, pool, rest.system)
    caps = pool.need.caps
    able = "agent" if given.need.count == 1 else "agents"
    able += (f" with {', '.join(sorted(caps))}" if caps else "") + _in_pool(given.need)
    if pool.absent and pool.registered + pool.absent >= given.need.count:
        return f"{task} needs {given.need.count} {able}: no live agent, {pool.absent} known and away"
    how = advice(
        caps, {name: agent.caps for name, agent in rest.system.agents.items() if _is_in(agent, pool.need)}
    )
    return f"{task} needs {given.need.count} {able}: there are {pool.registered}" + (
        f"; {how}" if how else ""
    )


def _no_team(task: str, pool: Pool, system: System) -> str:
    need = pool.need
    count = "" if need.count < 2 else f", {need.count} agents at least"
    wanted = f"{task} needs a team with {', '.join(sorted(need.caps))}{_in_pool(need)}{count}"
    if pool.absent:
        return f"{wanted}: some of those who make it are known and away"
    having = [agent.caps for agent in system.agents.values() if agent.slots > 0 and need.serves(agent)]
    why = shortfall(need.caps, having, need.most) or f"there are {len(having)} who have any of it"
    return f"{wanted}: {why}"


def _in_pool(need: Need) -> str:
    return "" if need.pool in (None, DEFAULT_POOL) else f" in pool {need.pool}"


def _is_in(agent: Agent, need: Need) -> bool:
    return need.pool is None or agent.pool == need.pool


def _unfit_dependencies(system: System, task: str, kind: Kind) -> str:
    deps = system.tasks[task].deps
    missing = [needed for needed in deps if needed not in system.tasks]
    if kind is Kind.MISSING_DEPENDENCY:
        return f"{task} depends on {_some(missing)}, unknown so far"
    failed = [needed for needed in deps if needed in system.tasks and system.tasks[needed].state in DEAD]
    return f"{task} depends on {_some(failed)}, which failed or was cancelled"


def _some(names: Collection[str]) -> str:
    shown = sorted(names)[:3]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
