"""The graph of one submission: names become ids, and what cannot run is refused before it is stored.

A submission goes in whole or not at all, so everything that is wrong with it is found
first and told at once: ids and names that are there twice, tasks that wait for
themselves, directly or in a circle, and names that nobody has. References to ids outside
the submission are left for the store to look up (`Plan.external`); a new task that waits
for stored ones cannot close a cycle, so existence is all that is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, NoReturn

from agentorch_cli.core.graphs import components, cyclic, layers, shortest_cycle
from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.core.model import TaskSpec
from agentorch_cli.errors import InvalidTask

MOST_HINTS: Final = 10
"""Unknown names for which the nearest known one is looked up: tens of milliseconds each in a large graph."""

MOST_ERRORS: Final = 100
"""Errors that one refusal lists; the others are counted."""

LONGEST_CYCLE: Final = 12
"""Members of a cycle that are shown; of a longer one both ends."""

MOST_MEMBERS: Final = 1000
"""Members of a cycle in the JSON form of the refusal, which has to fit a frame."""

SHORTEST: Final = 1e-9
"""Of the mean, so long is a task at least: the database refuses a `real` that it would round to nothing."""

_FIELDS: Final = [field.name for field in fields(TaskSpec)]
_VALUES: Final = attrgetter(*_FIELDS)
_CHANGED: Final = [_FIELDS.index(name) for name in ("depends_on", "dependency_names", "remaining_path")]
"""Of a hundred thousand tasks `replace`, which looks at each field, took a second."""

Where = Callable[[int, tuple[str | int, ...]], Mapping[str, Any]]
"""From the position of a task and the path of a field to `where`, and `line`, `column` if known."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one task of a submission."""

    position: int
    path: tuple[str | int, ...]
    message: str
    others: tuple[int, ...] = ()
    """Positions of other tasks that take part in it; their lines are told too."""
    cycle: tuple[str, ...] = ()


def in_submission(position: int, path: tuple[str | int, ...]) -> dict[str, Any]:
    """The place of a field where there is no file."""
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return {"where": f"tasks[{position}]{steps}"}


@dataclass(frozen=True, slots=True)
class Plan:
    """A submission that can be stored: ids in place of names, no cycle, all tasks ranked."""

    tasks: list[TaskSpec]
    external: tuple[str, ...]
    """References to tasks outside of the submission, sorted. The store says which of them exist."""
    where: Where = in_submission
    budget: Mapping[str, Any] | None = None
    """What the tasks may use together."""

    def layers(self) -> list[list[str]]:
        """Ids of what can run first, of what can run after that, and so on."""
        return layers({task.task_id: task.depends_on for task in self.tasks})

    def refuse_unknown(self, missing: Collection[str]) -> None:
        """Raises InvalidTask if any of these external ids is missing from the store."""
        unknown = [
            (reference, position, place)
            for position, task in enumerate(self.tasks)
            for place, reference in enumerate(task.depends_on)
            if reference in missing
        ]
        if unknown:
            refuse(_unknown(unknown, self.tasks), self.where)

    def refuse_late(self, late: Collection[str]) -> None:
        """Raises InvalidTask if any of these tasks, whose deadlines are over, is one of ours."""
        problems = [
            Problem(position, ("deadline",), "is over already")
            for position, task in enumerate(self.tasks)
            if task.task_id in late
        ]
        if problems:
            refuse(problems, self.where)


def plan(
    tasks: Sequence[TaskSpec], *, where: Where = in_submission, known: Collection[str] | None = None
) -> Plan:
    """Resolves the references of `depends_on`, which may be names or ids, and ranks the tasks.

    `known` are the ids that exist outside, where the caller knows them already: other
    references are then refused here instead of being returned as external.
    Raises InvalidTask with all problems.
    """
    resolved, external, problems = examine(tasks)
    if known is not None:
        unknown = [found for found in external if found[0] not in known]
        problems += _unknown(unknown, tasks)
    if problems:
        refuse(problems, where)
    return Plan(resolved, tuple(sorted({reference for reference, _, _ in external})), where)


def examine(
    tasks: Sequence[TaskSpec],
) -> tuple[list[TaskSpec], list[tuple[str, int, int]], list[Problem]]:
    """The resolved tasks, the external references (with position and place in `depends_on`), the problems."""
    position_of, problems = _register(tasks)
    external: list[tuple[str, int, int]] = []
    rows: list[list[int]] = []
    for position, task in enumerate(tasks):
        targets = list(map(position_of.get, task.depends_on))
        row = [target for target in targets if target is not None and target != position]
        if len(row) < len(targets):
            for place, target in enumerate(targets):
                if target is None:
                    external.append((task.depends_on[place], position, place))
                elif target == position:
                    problems.append(Problem(position, ("depends_on", place), "is the task itself"))
        rows.append(row)
    if problems:
        return list(tasks), external, problems
    paths = remaining_paths(rows, _weights(tasks, {}))
    if paths is None:
        return list(tasks), external, _circles(tasks, rows)
    ids, names = [task.task_id for task in tasks], [task.name for task in tasks]
    resolved = [
        _resolved(task, row, ids, names, position_of, path)
        if task.depends_on or path != task.remaining_path
        else task
        for task, row, path in zip(tasks, rows, paths, strict=True)
    ]
    return resolved, external, []


def rank(tasks: Sequence[TaskSpec], typical: Mapping[str, float]) -> Sequence[TaskSpec]:
    """Resolved tasks with their remaining paths anew: `typical` has the seconds that tasks of a type take,
    for those that do not say it."""
    weights = _weights(tasks, typical)
    if weights is None:
        return tasks
    position_of = {task.task_id: position for position, task in enumerate(tasks)}
    rows = [
        [target for one in task.depends_on if (target := position_of.get(one)) is not None] for task in tasks
    ]
    paths = remaining_paths(rows, weights)
    assert paths is not None, "what is resolved has no circle"
    return [
        task if path == task.remaining_path else _changed(task, task.depends_on, task.dependency_names, path)
        for task, path in zip(tasks, paths, strict=True)
    ]


def _weights(tasks: Sequence[TaskSpec], typical: Mapping[str, float]) -> list[float] | None:
    """How long each takes beside the mean of those of which that is known; None where it is of nobody.

    In seconds a submission of short tasks would come after all others of its priority, for no reason.
    """
    seconds = [task.estimate_seconds or typical.get(task.type) for task in tasks]
    known = [one for one in seconds if one is not None]
    if not known:
        return None
    mean = math.fsum(known) / len(known)
    return [max(one / mean, SHORTEST) if one is not None else 1.0 for one in seconds]


def remaining_paths(
    rows: Sequence[Sequence[int]], weights: Sequence[float] | None = None
) -> list[float] | None:
    """For each node the length of the longest chain of nodes that wait for it, itself included.

    `rows[i]` lists what node i waits for; `weights` how long each node is, 1 where they are missing. None if
    a cycle leaves somebody without an answer: the usual case, no cycle, so costs one pass in all, and the
    search for cycles starts only then.
    """
    lengths = [1.0] * len(rows) if weights is None else weights
    paths, waiters = list(lengths), [0] * len(rows)
    for row in rows:
        for node in row:
            waiters[node] += 1
    settled = [node for node, count in enumerate(waiters) if not count]
    for node in settled:  # grows as it is walked through
        path = paths[node]
        for other in rows[node]:
            along = lengths[other] + path
            if along > paths[other]:
                paths[other] = along
            waiters[other] -= 1
            if not waiters[other]:
                settled.append(other)
    return paths if len(settled) == len(rows) else None


def refuse(problems: Sequence[Problem], where: Where) -> NoReturn:
    """Raises InvalidTask: the first problem as its message, all of them in `details["errors"]`."""
    ordered = sorted(problems, key=lambda problem: problem.position)
    errors = [_entry(problem, where) for problem in ordered[:MOST_ERRORS]]
    errors.sort(key=lambda entry: entry.get("line", 0))
    message = errors[0]["message"]
    if len(ordered) > 1:
        message += f" (and {len(ordered) - 1:,} more)"
    raise InvalidTask(message, where=errors[0]["where"], errors=errors, error_count=len(ordered))


def _entry(problem: Problem, where: Where) -> dict[str, Any]:
    place = where(problem.position, problem.path)
    message = problem.message
    lines = [where(other, ()).get("line") for other in problem.others[:LONGEST_CYCLE]]
    if all(lines) and len({place.get("line"), *lines}) > 1:
        dots = ", …" if len(problem.others) > LONGEST_CYCLE else ""
        word = "lines" if len(lines) > 1 else "line"
        message += f" ({word} {', '.join(str(line) for line in lines)}{dots})"
    entry = {"message": message, **place}
    if problem.cycle:
        entry["cycle"] = list(problem.cycle[:MOST_MEMBERS])
    return entry


def _register(tasks: Sequence[TaskSpec]) -> tuple[dict[str, int], list[Problem]]:
    """Ids and names share one space, so that a reference means one task and no more."""
    by_id: dict[str, int] = {}
    by_name: dict[str, int] = {}
    problems: list[Problem] = []
    for position, task in enumerate(tasks):
        first = by_id.setdefault(task.task_id, position)
        if first != position:
            problems.append(Problem(position, ("id",), f'the id "{task.task_id}" is there twice', (first,)))
        if task.name is not None:
            first = by_name.setdefault(task.name, position)
            if first != position:
                problems.append(
                    Problem(position, ("name",), f'the name "{task.name}" is there twice', (first,))
                )
    for name, position in by_name.items():
        owner = by_id.setdefault(name, position)
        if owner != position:
            problems.append(
                Problem(position, ("name",), f'the name "{name}" is the id of another task', (owner,))
            )
    return by_id, problems


def _resolved(
    task: TaskSpec,
    row: Sequence[int],
    ids: Sequence[str],
    names: Sequence[str | None],
    position_of: Mapping[str, int],
    path: float,
) -> TaskSpec:
    """The task with ids in the place of names, and ranked. `row`: what it waits for in the submission.

    What is no id is the name of a task: the text of that is kept, not one for each reference.
    """
    needed = [ids[target] for target in row]
    if len(set(needed)) == len(task.depends_on):
        pairs = zip(needed, task.depends_on, row, strict=True)
        named = {one: names[target] or reference for one, reference, target in pairs if one != reference}
    else:  # tasks outside of the submission, or one by its id and by its name
        first: dict[str, str] = {}
        for reference in task.depends_on:
            found = position_of.get(reference)
            first.setdefault(reference if found is None else ids[found], reference)
        needed = list(first)
        named = {one: reference for one, reference in first.items() if one != reference}
    return _changed(task, tuple(needed), named, path)


def _changed(task: TaskSpec, *changes: Any) -> TaskSpec:
    """With these in the place of what `_CHANGED` names."""
    values = list(_VALUES(task))
    for place, value in zip(_CHANGED, changes, strict=True):
        values[place] = value
    return TaskSpec(*values)


def _circles(tasks: Sequence[TaskSpec], rows: Sequence[Sequence[int]]) -> list[Problem]:
    problems = []
    for members in cyclic(rows, components(rows)):
        positions = tuple(shortest_cycle(rows, members))
        shown = tuple(tasks[position].name or tasks[position].task_id for position in positions)
        message = f"tasks wait for each other in a circle: {_show(shown)}"
        problems.append(Problem(positions[0], ("depends_on",), message, positions, shown))
    return problems


def _show(cycle: Sequence[str]) -> str:
    if len(cycle) <= LONGEST_CYCLE:
        return " -> ".join([*cycle, cycle[0]])
    middle = f"({len(cycle) - LONGEST_CYCLE + 1:,} more)"
    return " -> ".join([*cycle[: LONGEST_CYCLE - 2], middle, cycle[-1], cycle[0]])


def _unknown(found: Sequence[tuple[str, int, int]], tasks: Sequence[TaskSpec]) -> list[Problem]:
    """References with position and place that mean no task; the first few with the name that may be meant."""
    if not found:
        return []
    known = [task.name for task in tasks if task.name is not None] + [task.task_id for task in tasks]
    problems = []
    for number, (reference, position, place) in enumerate(found):
        hint = did_you_mean(reference, known) if number < MOST_HINTS else ""
        message = f'there is no task "{reference}", neither in the submission nor stored{hint}'
        problems.append(Problem(position, ("depends_on", place), message))
    return problems
