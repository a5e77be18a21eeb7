"""What is done about a deadlock: the gentlest step that helps, as data.

The detector (`core/deadlock.py`) says who is stuck and why. A `Finding` is one thing that is wrong with
them, the same one as long as its `mark` is the same. `step` chooses what to do about it:

* `hold_and_wait`: park a parent that can be parked, else lend a slot where the agent allows, else stop
  the cheapest victims and try them again later; a task that this has happened to too often fails.
* `circular_dependency`: the whole ring fails, or its victims where an edge ignores failure.
* `failed_dependency`: who waits for the dead follows its own policy.
* `missing_dependency`: after a time the missing one counts as failed.
* `unsatisfiable`: reported and left, somebody who can do it may come. `timeout`: the lifeline's.

The store performs a step under lock, guarded by what was seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agentorch_cli.core.deadlock import Component, Kind, Report
from agentorch_cli.core.graphs import show_cycle
from agentorch_cli.core.model import DEFAULT_POOL
from agentorch_cli.core.system import System

MOST_SHOWN = 12
"""Members of a long cycle that a sentence shows."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The configuration, section `deadlocks`."""

    resolves: bool = True
    parks: bool = True
    lends: bool = True
    requeues: bool = True
    max_restarts: int = 5
    fails_rings: bool = True
    missing_after: float = 3600.0
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Holding:
    """An attempt that waits for its sub-tasks, as it was seen."""

    message_id: str
    task_id: str
    agent_id: str
    slot: int
    is_parked: bool
    awaits: tuple[str, ...]
    waited_s: float
    can_park: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What the photograph shows besides the waits."""

    age: Mapping[str, float] = field(default_factory=dict)
    """Seconds since each task was submitted."""
    generation: Mapping[str, int] = field(default_factory=dict)
    report_only: frozenset[str] = frozenset()
    """Tasks whose deadlocks are left to a person."""
    holdings: Mapping[str, Sequence[Holding]] = field(default_factory=dict)
    """By task."""
    loans: Mapping[str, int] = field(default_factory=dict)
    """By agent: how many more it may be lent."""
    missing: Mapping[str, float] = field(default_factory=dict)
    """By id that does not exist: seconds that it has been waited for."""
    weight: Mapping[str, float] = field(default_factory=dict)
    """How many tasks each of these stands for: of a crowd that wants the same only the first are in the
    photograph."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One deadlock."""

    kind: Kind
    mark: str
    members: tuple[str, ...]
    """In the order of the cycle, where there is one."""
    reason: str
    edges: tuple[dict[str, Any], ...] = ()
    """Of the cycle: `task`, `on`, `agent` and `reason` of each."""
    waited_s: float = 0.0
    victims: tuple[str, ...] = ()
    doomed: tuple[str, ...] = ()
    cost: Mapping[str, Any] = field(default_factory=dict)
    culprit: str | None = None
    """The dependency that is missing or has failed."""
    everybody: tuple[str, ...] = ()
    """All tasks of the component; the cycle may be shorter."""


class Act(StrEnum):
    """The steps of the ladder."""

    PARK = "park"
    LEND = "lend"
    REQUEUE = "requeue"
    FAIL = "fail"
    FORGET = "forget"
    """The culprit counts as failed; those who wait follow their own policy."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do."""

    act: Act
    sentence: str
    tasks: tuple[str, ...] = ()
    attempts: tuple[str, ...] = ()
    """Message ids, to be parked or lent."""


def findings(report: Report, system: System, facts: Facts) -> list[Finding]:
    """Everything that is wrong, each once. Tasks that are only behind others are no finding of their own."""
    knots = [part for part in report.components if part.kind is not Kind.BLOCKED_BEHIND]
    knotted = {member for part in knots for member in part.members}
    return [
        *(_of_component(part, system, facts) for part in knots),
        *_unsatisfiable(report, system, facts, knotted),
        *_unfit(report, system, facts),
    ]


def step(finding: Finding, system: System, facts: Facts, policy: Policy) -> Step | None:
    """The gentlest step that helps; None where it is left as it is."""
    match finding.kind:
        case Kind.HOLD_AND_WAIT:
            return _open_slots(finding, system, facts, policy)
        case Kind.CIRCULAR_DEPENDENCY if policy.fails_rings:
            ending = finding.doomed or finding.victims
            return Step(Act.FAIL, f"failed {some(ending)}", ending) if ending else None
        case Kind.FAILED_DEPENDENCY:
            return Step(Act.FORGET, f"those who wait for {finding.culprit} were told", finding.members)
        case Kind.MISSING_DEPENDENCY if finding.waited_s >= policy.missing_after:
            return Step(Act.FORGET, f"{finding.culprit} did not come and counts as failed", finding.members)
        case _:
            return None


def is_left_to_people(finding: Finding, facts: Facts) -> bool:
    """One of its tasks said `on_deadlock = "report"`."""
    return any(member in facts.report_only for member in finding.everybody or finding.members)


def some(names: Sequence[str]) -> str:
    """The first of many names."""
    more = f" and {len(names) - MOST_SHOWN:,} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(names[:MOST_SHOWN]) + more


def _open_slots(finding: Finding, system: System, facts: Facts, policy: Policy) -> Step | None:
    holding = [
        one for member in finding.everybody for one in facts.holdings.get(member, ()) if not one.is_parked
    ]
    parked = [one for one in holding if one.can_park]
    if policy.parks and parked:
        tasks = tuple(dict.fromkeys(one.task_id for one in parked))
        return Step(Act.PARK, f"parked {some(tasks)}", tasks, tuple(one.message_id for one in parked))
    lendable = [one for one in holding if facts.loans.get(one.agent_id, 0) > 0]
    if policy.lends and lendable:
        one = min(lendable, key=lambda one: (one.agent_id, one.message_id))
        return Step(
            Act.LEND, f"lent a slot of {one.agent_id} to {one.task_id}", (one.task_id,), (one.message_id,)
        )
    if policy.requeues and finding.victims:
        worn = [
            one
            for one in finding.victims
            if one in system.tasks and system.tasks[one].restarts >= policy.max_restarts
        ]
        if worn:
            return Step(Act.FAIL, f"failed {some(worn)} after {policy.max_restarts} restarts", tuple(worn))
        return Step(Act.REQUEUE, f"stopped {some(finding.victims)}, to be tried again later", finding.victims)
    return None


def _of_component(part: Component, system: System, facts: Facts) -> Finding:
    shown = show_cycle(part.cycle) if len(part.cycle) <= MOST_SHOWN else _long(part.cycle)
    marks = " ".join(f"{name}:{facts.generation.get(name, 0)}" for name in part.members)
    return Finding(
        kind=part.kind,
        mark=f"{part.kind} {marks}",
        members=part.cycle,
        reason=f"wait for each other in a circle: {shown}",
        edges=tuple(
            {"task": edge.task, "on": edge.on, "agent": edge.agent, "reason": edge.reason}
            for edge in part.edges
        ),
        waited_s=min((_waited(member, facts) for member in part.members), default=0.0),
        victims=part.victims,
        doomed=part.doomed,
        cost=_cost(part.victims or part.doomed, system),
        everybody=part.members,
    )


def _long(cycle: Sequence[str]) -> str:
    head = " -> ".join(cycle[: MOST_SHOWN - 2])
    return f"{head} -> ({len(cycle) - MOST_SHOWN + 1:,} more) -> {cycle[-1]} -> {cycle[0]}"


def _waited(task: str, facts: Facts) -> float:
    """Seconds since it began to wait."""
    own = [one.waited_s for one in facts.holdings.get(task, ())]
    return min(own) if own else facts.age.get(task, 0.0)


def _cost(tasks: Sequence[str], system: System) -> dict[str, Any]:
    """What ending these tasks loses."""
    lost = [system.tasks[task] for task in tasks if task in system.tasks]
    return {
        "tasks": len(lost),
        "restarts": sum(task.restarts for task in lost),
        "work_seconds": round(sum(task.work_seconds for task in lost), 3),
    }


def _unsatisfiable(report: Report, system: System, facts: Facts, knotted: set[str]) -> Iterator[Finding]:
    """One finding per demand; who is knotted has a finding of its own."""
    groups: dict[tuple[int, tuple[str, ...], str], list[str]] = {}
    for task, kind in report.kind.items():
        if kind is Kind.UNSATISFIABLE and task not in knotted:
            need = system.tasks[task].need
            what = f" team of {need.most}" if need.is_team else ""
            what += "" if need.pool in (None, DEFAULT_POOL) else f" in pool {need.pool}"
            groups.setdefault((need.count, tuple(sorted(need.caps)), what), []).append(task)
    for (count, caps, what), members in sorted(groups.items()):
        sentence = report.explain(members[0])
        number = round(sum(facts.weight.get(member, 1.0) for member in members))
        yield Finding(
            kind=Kind.UNSATISFIABLE,
            mark=f"{Kind.UNSATISFIABLE} {count} {' '.join(caps)}{what}",
            members=tuple(members[:1000]),
            reason=sentence if number == 1 else f"{number:,} tasks wait in vain: {sentence}",
            waited_s=max(facts.age.get(member, 0.0) for member in members),
        )


def _unfit(report: Report, system: System, facts: Facts) -> Iterator[Finding]:
    """One finding per dependency that is missing or has failed."""
    groups: dict[tuple[Kind, str], list[str]] = {}
    for task, kind in report.kind.items():
        if kind not in (Kind.MISSING_DEPENDENCY, Kind.FAILED_DEPENDENCY):
            continue
        for needed in system.tasks[task].deps:
            known = system.tasks.get(needed)
            is_culprit = known is None if kind is Kind.MISSING_DEPENDENCY else known is not None
            if is_culprit and (known is None or known.state in ("failed", "cancelled")):
                groups.setdefault((kind, needed), []).append(task)
    for (kind, needed), members in sorted(groups.items()):
        what = "does not exist (yet)" if kind is Kind.MISSING_DEPENDENCY else "failed or was cancelled"
        yield Finding(
            kind=kind,
            mark=f"{kind} {needed}",
            members=tuple(members[:1000]),
            reason=f"{some(members)} waits for {needed}, which {what}",
            edges=tuple(
                {"task": member, "on": needed, "agent": None, "reason": f"{member} depends on {needed}"}
                for member in members[:1000]
            ),
            waited_s=facts.missing.get(needed, max(facts.age.get(member, 0.0) for member in members)),
            culprit=needed,
        )
