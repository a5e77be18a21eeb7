"""How a submission becomes rows: whole, or not at all.

Tasks that depend only on each other go in with one statement. If any depends on a task that
is stored already, those are locked first (the lock order of the schema), because one of them
may end at this very moment: either this transaction sees its end, or its settling sees the
new edge. Idempotency keys that are known are answered with the task that has them.

A large submission is one transaction of many statements: its tasks go in by slices, the next one written
while PostgreSQL stores the last, and its edges as copies in the order of their index. So neither side
holds all of it as text at once, and no statement takes longer than its time limit.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from agentorch_cli.core.election import first_wave
from agentorch_cli.core.ledger import BUCKETS, quantile
from agentorch_cli.core.model import Aggregate, OnDependencyFailure, TaskSpec, TaskStatus
from agentorch_cli.core.plan import rank
from agentorch_cli.core.settle import MOST_BACKOFF
from agentorch_cli.errors import Conflict, InvalidTask, NotFound
from agentorch_cli.store.budgets import NewBudget, insert_budgets, new_budgets
from agentorch_cli.store.database import Database, Transaction
from agentorch_cli.store.literals import array_literal, column, plain_column, text_column
from agentorch_cli.store.store import Store, hint, whole

LARGE: Final = 2_500
"""Tasks and edges from which on a submission goes in by slices. Below that one statement is quicker."""

SLICE: Final = 1_000
"""Tasks of one slice: 1 MB with ten dependencies each, which PostgreSQL holds and sorts in memory."""

COPIED_AT_ONCE: Final = 1 << 22
"""Characters of edges of one copy."""

MOST_TYPES: Final = 1_000
"""Types of one submission whose usual durations are looked up."""

MOST_KEPT: Final = 20_000
"""Types whose usual durations are remembered."""

TRUE_SECONDS: Final = 30.0
"""For so long: with 10,000 agents that have done ten kinds of work each a look takes 100 ms."""

_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
"""Of a copy's text format."""


@dataclass(slots=True)
class Stored:
    """One task of a submission, as it is in the database."""

    task_id: str
    name: str | None
    status: str
    is_new: bool = True
    differs: Sequence[str] = ()
    """Fields in which a task with a known key is another than the one that is stored."""


async def insert(
    store: Store,
    submission_id: UUID,
    tasks: Sequence[TaskSpec],
    *,
    allow_forward: bool = False,
    budget: Mapping[str, Any] | None = None,
) -> list[Stored]:
    """Store tasks; answers in their order. Raises Conflict (an id is taken, a key is there twice),
    NotFound (an unknown dependency), InvalidTask (a new task's deadline is over).

    `allow_forward`: dependencies on ids that nobody has are taken, and waited for. `budget`: what
    all of them together may use.
    """
    _refuse_repeated_keys(tasks)
    if budget:
        tasks = [replace(task, funded_by=str(submission_id)) for task in tasks]
    tasks = await _ranked(store, store.db, await _placed_in_time(store.db, tasks))
    answers: dict[str, Stored] = {}
    left = tasks
    while left:
        known, left = await _known(store.db, left)
        answers |= known
        await _refuse_late(store.db, left)
        try:
            budgets = new_budgets(left, str(submission_id), budget)
            stored = await _insert(store, submission_id, left, allow_forward, budgets) if left else []
        except asyncpg.UniqueViolationError as error:
            if "idempotency" in (error.constraint_name or ""):
                continue  # somebody else was quicker with a key: now it is known
            raise Conflict(
                _taken(error),
                why="Ids are for ever.",
                hint="choose another, or leave it out and one is made",
                fix="agentorch help task-file",
            ) from error
        answers |= {one.task_id: one for one in stored}
        break
    return [answers[task.task_id] for task in tasks]


async def find(store: Store, submission_id: UUID, tasks: Sequence[TaskSpec]) -> list[Stored] | None:
    """The answer to a submission that was stored already; None where it was not."""
    rows = {
        row["task_id"]: row
        for row in await store.db.fetch("stored_of", submission_id, [task.task_id for task in tasks])
    }
    if not rows:
        return None
    known, _ = await _known(store.db, [task for task in tasks if task.task_id not in rows])
    own = {task_id: Stored(task_id, row["name"], row["status"]) for task_id, row in rows.items()}
    return [(own | known)[task.task_id] for task in tasks]


async def insert_within(
    tx: Transaction, store: Store, submission_id: UUID, tasks: Sequence[TaskSpec]
) -> list[Stored]:
    """Store tasks in somebody's transaction; a known key is answered with the task that has it.

    Raises NotFound (an unknown dependency), and asyncpg.UniqueViolationError where an id is taken.
    """
    answers, left = await _known(tx, await _ranked(store, tx, await _placed_in_time(tx, tasks)))
    if left:
        budgets = new_budgets(left, str(submission_id), None)
        stored = await _insert_in(tx, store, submission_id, left, _external(left), False, budgets)
        answers |= {one.task_id: one for one in stored}
    return [answers[task.task_id] for task in tasks]


async def _placed_in_time(db: Database | Transaction, tasks: Sequence[TaskSpec]) -> Sequence[TaskSpec]:
    """Delays as moments on the database's clock."""
    if all(task.delay_seconds is None for task in tasks):
        return tasks
    clock = await db.fetch_one("clock")
    assert clock is not None
    return [
        task
        if task.delay_seconds is None
        else replace(task, run_at=clock["now"] + timedelta(seconds=task.delay_seconds))
        for task in tasks
    ]


async def _ranked(store: Store, db: Database | Transaction, tasks: Sequence[TaskSpec]) -> Sequence[TaskSpec]:
    """By the longest remaining path, with how long tasks of their types have taken where they do not say it.

    The database is asked only where that could change their order.
    """
    silent = list(dict.fromkeys(task.type for task in tasks if task.estimate_seconds is None))
    are_alike = len(silent) + any(task.estimate_seconds is not None for task in tasks) < 2
    if not silent or are_alike or not any(task.depends_on for task in tasks):
        return tasks
    return rank(tasks, await _typical(store, db, silent[:MOST_TYPES]))


async def _typical(store: Store, db: Database | Transaction, types: Sequence[str]) -> dict[str, float]:
    """The seconds that tasks of these types take, of those of which that is known."""
    now = asyncio.get_running_loop().time()
    if len(store.typical) > MOST_KEPT:
        store.typical.clear()
    if old := [one for one in types if one not in store.typical or store.typical[one][0] < now]:
        counts: dict[str, list[float]] = {}
        for row in await db.fetch("durations_of_types", old):
            counts.setdefault(row["task_type"], [0.0] * BUCKETS)[row["bucket"]] = row["attempts"]
        for one in old:
            store.typical[one] = now + TRUE_SECONDS, quantile(counts.get(one, ()), 0.5)
    known = ((one, store.typical.get(one)) for one in types)  # others may have emptied it meanwhile
    return {one: found[1] for one, found in known if found is not None and found[1]}


async def _refuse_late(db: Database, tasks: Sequence[TaskSpec]) -> None:
    """Raises InvalidTask where a deadline is over already: the task could only fail, or be done too late."""
    if all(task.deadline is None for task in tasks):
        return
    clock = await db.fetch_one("clock")
    assert clock is not None
    late = [task for task in tasks if task.deadline is not None and task.deadline <= clock["now"]]
    if late:
        raise InvalidTask(
            f"the deadline of the task {(late[0].name or late[0].task_id)!r} is over already: it was"
            f" {late[0].deadline:%Y-%m-%dT%H:%M:%SZ}",
            fix="agentorch explain task.deadline",
            late=[task.task_id for task in late],
        )


def _refuse_repeated_keys(tasks: Sequence[TaskSpec]) -> None:
    seen: dict[str, TaskSpec] = {}
    for task in tasks:
        if task.idempotency_key is None:
            continue
        first = seen.setdefault(task.idempotency_key, task)
        if first is not task:
            raise Conflict(
                f"the tasks {(first.name or first.task_id)!r} and {(task.name or task.task_id)!r}"
                f" have the same idempotency key {task.idempotency_key!r}",
                hint="a key stands for one task: give each its own",
            )


async def _known(
    db: Database | Transaction, tasks: Sequence[TaskSpec]
) -> tuple[dict[str, Stored], Sequence[TaskSpec]]:
    """Those whose idempotency key is stored already, by the id that was asked for, and the rest,
    pointing at them."""
    keyed = [task for task in tasks if task.idempotency_key is not None]
    if not keyed:
        return {}, tasks
    found = await db.fetch(
        "compare_with_known",
        [task.idempotency_key for task in keyed],
        [task.type for task in keyed],
        [array_literal(task.required_capabilities) for task in keyed],
        [task.priority for task in keyed],
        [orjson.dumps(task.data).decode() if task.data is not None else None for task in keyed],
    )
    rows = {row["idempotency_key"]: row for row in found}
    if not rows:
        return {}, tasks
    known = {
        task.task_id: Stored(row["task_id"], row["name"], row["status"], is_new=False, differs=row["differs"])
        for task in tasks
        if (row := rows.get(task.idempotency_key)) is not None
    }
    instead = {task_id: one.task_id for task_id, one in known.items()}
    return known, [
        replace(
            task,
            depends_on=tuple(dict.fromkeys(instead.get(d, d) for d in task.depends_on)),
            dependency_names={instead.get(d, d): name for d, name in task.dependency_names.items()},
        )
        for task in tasks
        if task.task_id not in instead
    ]


async def _insert(
    store: Store,
    submission_id: UUID,
    tasks: Sequence[TaskSpec],
    allow_forward: bool,
    budgets: Sequence[NewBudget],
) -> list[Stored]:
    external = _external(tasks)
    if external or budgets or _is_large(tasks):
        async with store.db.transaction() as tx:
            return await _insert_in(tx, store, submission_id, tasks, external, allow_forward, budgets)
    rows = _Rows(store, submission_id, tasks, {})
    if (alone := rows.alone()) is not None:
        await store.db.hot("insert_task", *alone)
    else:
        await store.db.hot("insert_tasks", *rows.arguments())
    return rows.stored()


def _is_large(tasks: Sequence[TaskSpec]) -> bool:
    return len(tasks) + sum(len(task.depends_on) for task in tasks) > LARGE


def _external(tasks: Sequence[TaskSpec]) -> list[str]:
    """Ids that are depended on and are not of this submission."""
    own = {task.task_id for task in tasks}
    return sorted({d for task in tasks for d in task.depends_on if d not in own})


async def _insert_in(
    tx: Transaction,
    store: Store,
    submission_id: UUID,
    tasks: Sequence[TaskSpec],
    external: Sequence[str],
    allow_forward: bool,
    budgets: Sequence[NewBudget],
) -> list[Stored]:
    """What takes more than one statement: tasks that wait for stored ones, and budgets."""
    found: dict[str, str] = {}
    if external:
        found = {row["task_id"]: row["status"] for row in await tx.fetch("mark_depended_on", list(external))}
    missing = [task_id for task_id in external if task_id not in found]
    if missing and not allow_forward:
        raise _unknown(tasks, missing)
    rows = _Rows(store, submission_id, tasks, found)
    if _is_large(tasks):
        await _insert_slices(tx, rows)
    elif (alone := rows.alone()) is not None:
        await tx.fetch("insert_task", *alone)
    else:
        await tx.fetch("insert_tasks", *rows.arguments())
    await insert_budgets(tx, budgets)
    if missing:
        absent = set(missing)
        edges = [(d, task.task_id) for task in tasks for d in task.depends_on if d in absent]
        await tx.fetch("note_forward_references", [e[0] for e in edges], [e[1] for e in edges])
        await tx.fetch("look_for_deadlocks", "*")
    return rows.stored()


async def _insert_slices(tx: Transaction, rows: _Rows) -> None:
    """The tasks by slices, then the edges."""
    slices = rows.slices()
    arguments = await _written(next(slices))
    for following in slices:
        storing = asyncio.create_task(tx.fetch("insert_tasks", *arguments))
        try:
            arguments = await _written(following)
        finally:
            await storing
    await tx.fetch("insert_tasks", *arguments)
    for lines in rows.edges():
        await tx.copy("task_dependencies", ("depends_on", "task_id"), lines)


async def _written(columns: Iterator[Any]) -> list[Any]:
    """The columns one by one: between them the loop sends what the connection's buffer had no room for."""
    arguments = []
    for one in columns:
        arguments.append(one)
        await asyncio.sleep(0)
    return arguments


def _unknown(tasks: Sequence[TaskSpec], missing: Sequence[str]) -> NotFound:
    first = missing[0]
    who = next(task for task in tasks if first in task.depends_on)
    near = difflib.get_close_matches(first, [t.name or t.task_id for t in tasks], n=1)
    return NotFound(
        f"task {(who.name or who.task_id)!r} depends on {first!r},"
        " which is neither in this submission nor stored",
        hint=f"did you mean {near[0]!r}?" if near else None,
        fix="agentorch task list",
        missing=list(missing),
    )


class _Rows:
    """The columns of a submission."""

    def __init__(
        self, store: Store, submission_id: UUID, tasks: Sequence[TaskSpec], external: dict[str, str]
    ) -> None:
        self._store = store
        self._submission_id = submission_id
        self._tasks = tasks
        self._external = external
        self._status: dict[str, TaskStatus] = {}
        self._error: dict[str, dict[str, Any]] = {}
        self._waiting: dict[str, Sequence[str]] = {}
        self._depended_on = {d for task in tasks for d in task.depends_on}
        self._ended: set[str] = set()
        self._decide()

    def _decide(self) -> None:
        """How each task begins. A dependency that has failed already ends those that say so, in turn."""
        dead = {d for d, status in self._external.items() if status in ("failed", "cancelled")}
        done = {d for d, status in self._external.items() if status in ("completed", "skipped")}
        if dead:
            self._doom(dead, done)
        ended = dead | done
        for task in self._tasks:
            if task.task_id in self._status:
                continue
            waiting: Sequence[str] = task.depends_on
            if ended or len(waiting) != len(set(waiting)):
                waiting = [d for d in dict.fromkeys(waiting) if d not in ended]
            if waiting:
                self._waiting[task.task_id] = waiting
            self._status[task.task_id] = TaskStatus.BLOCKED if waiting else TaskStatus.PENDING

    def _doom(self, dead: set[str], done: set[str]) -> None:
        own = {task.task_id: task for task in self._tasks}
        dependents: dict[str, list[str]] = {}
        for task in self._tasks:
            for dependency in task.depends_on:
                dependents.setdefault(dependency, []).append(task.task_id)
        todo = sorted(dead)
        while todo:
            because = todo.pop()
            for task_id in dependents.get(because, ()):
                task = own[task_id]
                if task_id in self._status or task.on_dependency_failure is OnDependencyFailure.RUN:
                    continue
                self._error[task_id] = {
                    "code": "dependency_failed",
                    "message": f"task {because}, which it depends on, did not complete",
                    "depends_on": because,
                }
                if task.on_dependency_failure is OnDependencyFailure.SKIP:
                    self._status[task_id] = TaskStatus.SKIPPED
                    done.add(task_id)
                else:
                    self._status[task_id] = TaskStatus.FAILED
                    dead.add(task_id)
                    todo.append(task_id)

    def stored(self) -> list[Stored]:
        return [Stored(task.task_id, task.name, self._status[task.task_id]) for task in self._tasks]

    def arguments(self) -> list[Any]:
        """All of it for one statement, in the order of its parameters."""
        row = self._row()
        waiting = [(task.task_id, self._waiting.get(task.task_id, ())) for task in self._tasks]
        edges = (
            array_literal([d for _, needed in waiting for d in needed]),
            array_literal([task_id for task_id, needed in waiting for _ in needed]),
        )
        return list(self._columns(self._tasks, edges, row or self._hint(), is_row=bool(row)))

    def alone(self) -> list[Any] | None:
        """The same for `insert_task`; None where this is more than one task, or one that has to wait."""
        task = self._tasks[0]
        row = self._row() if not task.depends_on else ""
        if not row:
            return None
        return [
            *self._common(row, is_row=True),
            task.task_id,
            task.name,
            task.type,
            task.priority,
            array_literal(task.required_capabilities),
            task.coverage,
            task.min_agents,
            task.max_agents,
            _first_wave(task),
            task.on_dependency_failure,
            task.remaining_path,
            task.timeout_seconds,
            task.retries,
            _options(task),
            orjson.dumps(task.data).decode() if task.data is not None else None,
            task.idempotency_key,
            task.parent_id,
            task.pool,
        ]

    def _common(self, told: str, *, is_row: bool = False) -> tuple[Any, ...]:
        """What both statements begin with."""
        return self._submission_id, self._store.node_id, self._store.aging_seconds, told, is_row

    def slices(self) -> Iterator[Iterator[Any]]:
        """The same by slices, without the edges. The hint of all is that of the first."""
        for start in range(0, len(self._tasks), SLICE):
            told = self._hint() if start == 0 else ""
            yield self._columns(self._tasks[start : start + SLICE], ("{}", "{}"), told)

    def edges(self) -> Iterator[bytes]:
        """The edges as lines for copies, sorted as the index of their table is."""
        dependents: dict[str, list[str]] = {}
        for task_id in sorted(self._waiting):
            for dependency in self._waiting[task_id]:
                dependents.setdefault(dependency, []).append(_copied(task_id))
        lines, size = [], 0
        for dependency in sorted(dependents):
            start = f"{_copied(dependency)}\t"
            lines.append(start + f"\n{start}".join(dependents[dependency]))
            size += len(lines[-1])
            if size > COPIED_AT_ONCE:
                yield ("\n".join(lines) + "\n").encode()
                lines, size = [], 0
        if lines:
            yield ("\n".join(lines) + "\n").encode()

    def _ready(self) -> list[str]:
        return [task_id for task_id, status in self._status.items() if status is TaskStatus.PENDING]

    def _hint(self) -> str:
        delayed = any(task.run_at is not None for task in self._tasks)
        return hint(self._ready(), delayed=delayed, pools={task.pool for task in self._tasks})

    def _row(self) -> str:
        """The hint of a single task that is ready at once, with its row; empty where there is none."""
        task = self._tasks[0]
        if len(self._tasks) > 1 or task.run_at is not None or self._waiting or not self._ready():
            return ""
        return _row(task)

    def _columns(
        self, tasks: Sequence[TaskSpec], edges: tuple[str, str], told: str, *, is_row: bool = False
    ) -> Iterator[Any]:
        """In the order of the statement's parameters."""
        status = [self._status[t.task_id] for t in tasks]
        waves = [_first_wave(t) for t in tasks]
        yield from self._common(told, is_row=is_row)
        yield array_literal([t.task_id for t in tasks])
        yield text_column([t.name for t in tasks])
        yield array_literal([t.type for t in tasks])
        yield plain_column(status)
        yield plain_column([t.priority for t in tasks])
        yield array_literal([array_literal(t.required_capabilities) for t in tasks])
        yield plain_column([t.coverage for t in tasks])
        yield plain_column([t.min_agents for t in tasks])
        yield plain_column([t.max_agents for t in tasks])
        yield plain_column([w if s is TaskStatus.PENDING else 0 for w, s in zip(waves, status, strict=True)])
        yield plain_column([len(self._waiting.get(t.task_id, ())) for t in tasks])
        yield array_literal([array_literal(t.depends_on) for t in tasks])
        yield array_literal(
            [array_literal([t.dependency_names.get(d, d) for d in t.depends_on]) for t in tasks]
        )
        yield plain_column([t.task_id in self._depended_on for t in tasks])
        yield plain_column([t.on_dependency_failure for t in tasks])
        yield plain_column([t.remaining_path for t in tasks])
        yield column([t.run_at for t in tasks])
        yield column([t.deadline for t in tasks])
        yield plain_column([t.timeout_seconds for t in tasks])
        yield plain_column([t.retries for t in tasks])
        yield array_literal([_options(t) for t in tasks])
        yield text_column([orjson.dumps(t.data).decode() if t.data is not None else None for t in tasks])
        errors = (self._error.get(t.task_id) for t in tasks)
        yield text_column([orjson.dumps(error).decode() if error else None for error in errors])
        yield text_column([t.idempotency_key for t in tasks])
        yield text_column([t.parent_id for t in tasks])
        yield column([t.deadline_seconds for t in tasks])
        yield plain_column(waves)
        yield text_column([t.pool for t in tasks])
        yield from edges


def _copied(text: str) -> str:
    """As a line of a copy holds it."""
    return text if text.isprintable() and "\\" not in text else text.translate(_ESCAPES)


def _first_wave(task: TaskSpec) -> int:
    return first_wave(task.consensus, task.min_agents, task.max_agents)


def _row(task: TaskSpec) -> str:
    """A hint with what the scheduler wants to know of a ready task; empty where it has to look."""
    if task.deadline is not None or task.deadline_seconds is not None or task.consensus is not None:
        return ""
    return whole(
        {
            "task_id": task.task_id,
            "remaining_path": task.remaining_path,
            "task_type": task.type,
            "priority": task.priority,
            "required_capabilities": task.required_capabilities,
            "coverage": task.coverage,
            "min_agents": task.min_agents,
            "max_agents": task.max_agents,
            "wanted": _first_wave(task),
            "timeout_seconds": task.timeout_seconds,
            "retries": task.retries,
            "has_dependents": False,
            "options": _options(task),
            "pool": task.pool,
        }
    )


def _options(task: TaskSpec) -> str:
    """What the hot path does not look at, as JSON; defaults are left out."""
    options: dict[str, Any] = {}
    if task.backoff_seconds != 1.0:
        options["backoff_seconds"] = task.backoff_seconds
    if task.max_backoff_seconds != MOST_BACKOFF:
        options["max_backoff_seconds"] = task.max_backoff_seconds
    if task.retry:
        options["retry"] = task.retry
    if task.estimate_seconds is not None:
        options["estimate_seconds"] = task.estimate_seconds
    if task.queue_timeout_seconds is not None:
        options["queue_timeout_seconds"] = task.queue_timeout_seconds
    if task.aggregate is not Aggregate.FIRST:
        options["aggregate"] = task.aggregate
    if task.consensus is not None:
        options["consensus"] = task.consensus
    if task.verifies is not None:
        named = (d for d, name in task.dependency_names.items() if name == task.verifies)
        options["verifies"] = next(named, task.verifies)
    if task.compares is not None:
        options["compares"] = task.compares
    if task.budget:
        options["budget"] = task.budget
    if task.funded_by is not None:
        options["funded_by"] = task.funded_by
    if task.borrows is not None:
        options["borrows"] = task.borrows
    if task.on_deadlock != "resolve":
        options["on_deadlock"] = task.on_deadlock
    if task.result_schema is not None:
        # as text: jsonb would forget the order of its keys, in which models and people answer
        options["result_schema"] = orjson.dumps(task.result_schema).decode()
    if task.concurrency_key is not None:
        options["concurrency_key"] = task.concurrency_key
        if task.concurrency_limit != 1:
            options["concurrency_limit"] = task.concurrency_limit
    if task.labels:
        options["labels"] = task.labels
    if task.traceparent is not None:
        options["traceparent"] = task.traceparent
    return orjson.dumps(options).decode() if options else "{}"


def _taken(error: asyncpg.UniqueViolationError) -> str:
    """PostgreSQL says `Key (task_id)=(the id) already exists.`, and the id may hold brackets too."""
    _, found, rest = (error.detail or "").partition("(task_id)=(")
    if found:
        return f"there is a task with the id {rest.rpartition(')')[0]!r} already"
    return "there is a task with one of these ids already"
