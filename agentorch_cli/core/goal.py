"""What somebody waits for: that tasks complete, end in some way, or begin."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from agentorch_cli.core.model import FINAL, TaskStatus


class Goal(StrEnum):
    """A state that a task is to reach."""

    RUNNING = "running"
    """It has begun: it runs, or has completed already."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    FINAL = "final"
    """It has ended, in whatever way."""

    @property
    def begins(self) -> bool:
        """It may be reached before the task ends."""
        return self is Goal.RUNNING

    def decided(self, status: str) -> bool | None:
        """Whether a task in this state has reached the goal; None while it still can."""
        if status in _REACHED[self]:
            return True
        return False if status in FINAL else None


_REACHED: Final[dict[Goal, frozenset[str]]] = {
    Goal.RUNNING: frozenset({TaskStatus.RUNNING, TaskStatus.COMPLETED}),
    Goal.COMPLETED: frozenset({TaskStatus.COMPLETED}),
    Goal.FAILED: frozenset({TaskStatus.FAILED}),
    Goal.CANCELLED: frozenset({TaskStatus.CANCELLED}),
    Goal.SKIPPED: frozenset({TaskStatus.SKIPPED}),
    Goal.FINAL: frozenset(FINAL),
}
