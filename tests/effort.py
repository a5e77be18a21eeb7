"""How much work a call is, counted and not timed: the same number on a busy machine and on an idle one.

Counted are the lines of Python that run, each pass of a loop anew, within comprehensions too. What C
code does inside one line counts as that line: its cost belongs into `bench/`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class Effort:
    """Counts the lines that run in this thread while it is entered: `with Effort() as effort: …`."""

    def __init__(self) -> None:
        self.lines = 0
        self._before: Any = None

    def __enter__(self) -> Effort:
        self._before = sys.gettrace()
        sys.settrace(self._frame)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _frame(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._line

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            self.lines += 1
        return self._line


def lines_of(work: Callable[[], object]) -> int:
    """How many lines of Python a call runs."""
    with Effort() as effort:
        work()
    return effort.lines


def growth(work: Callable[[int], Callable[[], object]], size: int, times: int = 2) -> float:
    """By what factor the work grows when its size does `times`: about `times` where it is linear.

    `work(size)` prepares, and gives back what is counted.
    """
    return lines_of(work(times * size)) / lines_of(work(size))
