"""A handler: the function that does the work of one task type, and how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Mode(StrEnum):
    """How a handler is called."""

    INLINE = "inline"
    """Directly by the reader. For work of microseconds; it may not wait for anything."""
    ASYNC = "async"
    """In a task of its own on the loop."""
    THREAD = "thread"
    """In a thread, so that it may block."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that does the work of one task type."""

    function: Callable[[Any], Any]
    mode: Mode


def mode_of(function: Callable[..., Any], inline: bool = False) -> Mode:
    """Raises TypeError for an async function that is to be called inline."""
    call = getattr(function, "__call__", None)  # noqa: B004 - an object may be async in its __call__ only
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
    if inline and is_async:
        raise TypeError("an inline handler is called directly and cannot be async")
    if inline:
        return Mode.INLINE
    return Mode.ASYNC if is_async else Mode.THREAD
