"""The life of a task and of an attempt, as tables.

A task moves only along `TASK_MOVES`, an attempt only along `ATTEMPT_MOVES`; each key is
(state, event) and the value is the next state. Nothing leaves a final state but a
person's `retry`, which opens a new generation of the task. The SQL of the store applies
these moves with `where status = <old>`, a trigger in the database refuses any way out of
a final state, and a test compares the README's picture with these tables.

    blocked --unblock--> pending --assign--> running --complete--> completed
                            ^                   |
                            +------ requeue ----+---- fail -----> failed

Two attempts of one task can be live at once (several agents are asked); the task stays
`running` until `core.settle` says what their results mean.
"""

from __future__ import annotations

from enum import StrEnum

from agentorch_cli.core.model import AttemptStatus, TaskStatus


class TaskEvent(StrEnum):
    """What can happen to a task; the names are those of the event log without `task_`."""

    UNBLOCK = "unblocked"
    ASSIGN = "assigned"
    REQUEUE = "requeued"
    COMPLETE = "completed"
    FAIL = "failed"
    CANCEL = "cancelled"
    SKIP = "skipped"
    RETRY = "retried"


class AttemptEvent(StrEnum):
    """What can happen to an attempt."""

    ACCEPT = "accepted"
    COMPLETE = "completed"
    FAIL = "failed"
    LOSE = "lost"
    TIME_OUT = "timed_out"
    CANCEL = "cancelled"


_T, _E = TaskStatus, TaskEvent

TASK_MOVES: dict[tuple[TaskStatus, TaskEvent], TaskStatus] = {
    (_T.BLOCKED, _E.UNBLOCK): _T.PENDING,
    (_T.BLOCKED, _E.FAIL): _T.FAILED,
    (_T.BLOCKED, _E.SKIP): _T.SKIPPED,
    (_T.BLOCKED, _E.CANCEL): _T.CANCELLED,
    (_T.PENDING, _E.ASSIGN): _T.RUNNING,
    (_T.PENDING, _E.COMPLETE): _T.COMPLETED,  # a late result of an attempt given up for lost
    (_T.PENDING, _E.FAIL): _T.FAILED,  # its deadline passed
    (_T.PENDING, _E.CANCEL): _T.CANCELLED,
    (_T.RUNNING, _E.REQUEUE): _T.PENDING,
    (_T.RUNNING, _E.COMPLETE): _T.COMPLETED,
    (_T.RUNNING, _E.FAIL): _T.FAILED,
    (_T.RUNNING, _E.CANCEL): _T.CANCELLED,
    (_T.FAILED, _E.RETRY): _T.PENDING,
    (_T.CANCELLED, _E.RETRY): _T.PENDING,
    (_T.SKIPPED, _E.RETRY): _T.PENDING,
}

_A, _F = AttemptStatus, AttemptEvent

ATTEMPT_MOVES: dict[tuple[AttemptStatus, AttemptEvent], AttemptStatus] = {
    (_A.SENT, _F.ACCEPT): _A.ACCEPTED,
    (_A.SENT, _F.COMPLETE): _A.COMPLETED,
    (_A.SENT, _F.FAIL): _A.FAILED,
    (_A.SENT, _F.LOSE): _A.LOST,
    (_A.SENT, _F.CANCEL): _A.CANCELLED,
    (_A.ACCEPTED, _F.COMPLETE): _A.COMPLETED,
    (_A.ACCEPTED, _F.FAIL): _A.FAILED,
    (_A.ACCEPTED, _F.LOSE): _A.LOST,
    (_A.ACCEPTED, _F.TIME_OUT): _A.TIMED_OUT,
    (_A.ACCEPTED, _F.CANCEL): _A.CANCELLED,
    (_A.LOST, _F.COMPLETE): _A.COMPLETED,  # late, and the task has no outcome yet
    (_A.TIMED_OUT, _F.COMPLETE): _A.COMPLETED,
}


def move_task(status: TaskStatus, event: TaskEvent) -> TaskStatus | None:
    """The next state, or None where the event has no place in this state."""
    return TASK_MOVES.get((status, event))


def move_attempt(status: AttemptStatus, event: AttemptEvent) -> AttemptStatus | None:
    """The next state, or None where the event has no place in this state."""
    return ATTEMPT_MOVES.get((status, event))
