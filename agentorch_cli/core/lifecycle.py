"""The life of a task and of an attempt, as tables.

A task moves only along `TASK_MOVES`, an attempt only along `ATTEMPT_MOVES`; each key is
(state, event) and the value is the next state. Nothing leaves a final state but a
person's `retry`, which opens a new generation of the task. The SQL of the store applies
these moves with `where status = <old>`, and a trigger in the database refuses any way out of
a final state. `scripts/lifecycle-page > docs/lifecycle.md` draws the page from these tables,
and a test keeps it so. The short of it:

    blocked --unblocked--> pending --assigned--> running --completed--> completed
                              ^                     |
                              +----- requeued ------+---- failed -----> failed

Two attempts of one task can be live at once (several agents are asked); the task stays
`running` until `core.settle` says what their results mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from agentorch_cli.core.model import AttemptStatus, TaskStatus


class TaskEvent(StrEnum):
    """What can happen to a task; the names are those of the event log without `task_`."""

    UNBLOCK = "unblocked"
    """Everything that it waits for has ended well enough."""
    ASSIGN = "assigned"
    """Agents were chosen, and their attempts are committed."""
    REQUEUE = "requeued"
    """Its attempts came to nothing, and it may have more."""
    RESUME = "running"
    """A late result came of one of the several agents that it wants; it goes on with that."""
    COMPLETE = "completed"
    """It has its result; also a late one, of an attempt that was given up."""
    FAIL = "failed"
    """It has its reason: no more retries, a deadline, a dependency, a vote that agreed on nothing."""
    CANCEL = "cancelled"
    """A person, a parent or a program called it off."""
    SKIP = "skipped"
    """A dependency failed, and it says `on_dependency_failure = "skip"`."""
    RETRY = "retried"
    """A person opened it again, in a new generation."""
    BLOCK = "blocked"
    """It was retried together with tasks that it depends on, and waits for them again."""


class AttemptEvent(StrEnum):
    """What can happen to an attempt."""

    ACCEPT = "accepted"
    """The agent said that it took the work."""
    COMPLETE = "completed"
    """A result came; also late, while its task has no outcome."""
    FAIL = "failed"
    """An error came."""
    LOSE = "lost"
    """The agent vanished, or did not accept in time."""
    TIME_OUT = "timed_out"
    """It ran longer than the task's timeout."""
    CANCEL = "cancelled"
    """It was called off, or the agent gave it back."""
    MOVE = "moved"
    """It was taken back before its agent had accepted it, to be given to another."""


_T, _E = TaskStatus, TaskEvent

TASK_MOVES: dict[tuple[TaskStatus, TaskEvent], TaskStatus] = {
    (_T.BLOCKED, _E.UNBLOCK): _T.PENDING,
    (_T.BLOCKED, _E.FAIL): _T.FAILED,
    (_T.BLOCKED, _E.SKIP): _T.SKIPPED,
    (_T.BLOCKED, _E.CANCEL): _T.CANCELLED,
    (_T.PENDING, _E.ASSIGN): _T.RUNNING,
    (_T.PENDING, _E.RESUME): _T.RUNNING,
    (_T.PENDING, _E.COMPLETE): _T.COMPLETED,  # a late result of an attempt given up for lost
    (_T.PENDING, _E.FAIL): _T.FAILED,  # its deadline passed
    (_T.PENDING, _E.CANCEL): _T.CANCELLED,
    (
        _T.RUNNING,
        _E.ASSIGN,
    ): _T.RUNNING,  # more agents: a further wave of a vote, or in place of one that failed
    (_T.RUNNING, _E.REQUEUE): _T.PENDING,
    (_T.RUNNING, _E.COMPLETE): _T.COMPLETED,
    (_T.RUNNING, _E.FAIL): _T.FAILED,
    (_T.RUNNING, _E.CANCEL): _T.CANCELLED,
    (_T.FAILED, _E.RETRY): _T.PENDING,
    (_T.CANCELLED, _E.RETRY): _T.PENDING,
    (_T.SKIPPED, _E.RETRY): _T.PENDING,
    (_T.FAILED, _E.BLOCK): _T.BLOCKED,
    (_T.CANCELLED, _E.BLOCK): _T.BLOCKED,
    (_T.SKIPPED, _E.BLOCK): _T.BLOCKED,
}

TASK_BEGINS: dict[TaskStatus, str] = {
    _T.BLOCKED: "waits for others",
    _T.PENDING: "waits for nobody",
    _T.FAILED: "a dependency has failed",
    _T.SKIPPED: "a dependency has failed, skip",
}
"""How a task can begin, and when it does."""

_A, _F = AttemptStatus, AttemptEvent

ATTEMPT_MOVES: dict[tuple[AttemptStatus, AttemptEvent], AttemptStatus] = {
    (_A.SENT, _F.ACCEPT): _A.ACCEPTED,
    (_A.SENT, _F.COMPLETE): _A.COMPLETED,
    (_A.SENT, _F.FAIL): _A.FAILED,
    (_A.SENT, _F.LOSE): _A.LOST,
    (_A.SENT, _F.TIME_OUT): _A.TIMED_OUT,  # that it was accepted had not been written down yet
    (_A.SENT, _F.CANCEL): _A.CANCELLED,
    (_A.SENT, _F.MOVE): _A.CANCELLED,
    (_A.ACCEPTED, _F.COMPLETE): _A.COMPLETED,
    (_A.ACCEPTED, _F.FAIL): _A.FAILED,
    (_A.ACCEPTED, _F.LOSE): _A.LOST,
    (_A.ACCEPTED, _F.TIME_OUT): _A.TIMED_OUT,
    (_A.ACCEPTED, _F.CANCEL): _A.CANCELLED,
    (_A.LOST, _F.COMPLETE): _A.COMPLETED,  # late, and the task has no outcome yet
    (_A.TIMED_OUT, _F.COMPLETE): _A.COMPLETED,
}

ATTEMPT_BEGINS: dict[AttemptStatus, str] = {_A.SENT: "assigned"}


def move_task(status: TaskStatus, event: TaskEvent) -> TaskStatus | None:
    """The next state, or None where the event has no place in this state."""
    return TASK_MOVES.get((status, event))


def move_attempt(status: AttemptStatus, event: AttemptEvent) -> AttemptStatus | None:
    """The next state, or None where the event has no place in this state."""
    return ATTEMPT_MOVES.get((status, event))


def mermaid(begins: Mapping[Any, str], moves: Mapping[tuple[Any, Any], Any]) -> str:
    """Moves as a state diagram, in the order of their table."""
    lines = [f"    [*] --> {status}: {when}" for status, when in begins.items()]
    lines += [f"    {old} --> {new}: {event}" for (old, event), new in moves.items()]
    return "\n".join(["stateDiagram-v2", *lines])


def text(moves: Mapping[tuple[Any, Any], Any]) -> str:
    """Moves as a table in Markdown: the states from which each event leads, and where to."""
    rows: dict[tuple[str, str], list[str]] = {}
    for (old, event), new in moves.items():
        rows.setdefault((event, new), []).append(old)
    lines = [f"| {event} | {', '.join(old)} | {new} |" for (event, new), old in rows.items()]
    return "\n".join(["| event | from | to |", "|---|---|---|", *lines])
