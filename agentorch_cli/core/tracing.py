"""W3C trace context: which trace a task belongs to, and which span each of its steps is.

`traceparent` is `00-TRACE-SPAN-FLAGS` in hexadecimal digits (W3C Trace Context, level 1). The span of an
attempt follows from its message id, so every node that has a part in it knows the same one, after a
restart too, and nothing has to be stored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

SAMPLED: Final = 1


@dataclass(frozen=True, slots=True)
class Context:
    """A span that others can be children of."""

    trace_id: int
    span_id: int
    flags: int = SAMPLED

    @property
    def is_sampled(self) -> bool:
        """Whether who began the trace wants it kept."""
        return bool(self.flags & SAMPLED)

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"


def parse_traceparent(text: str) -> Context:
    """The span that a traceparent names. Raises ValueError with a sentence that says what would be right."""
    match = _FORM.fullmatch(text)
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        raise ValueError('must look like "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"')
    found = Context(int(match[2], 16), int(match[3], 16), int(match[4], 16))
    if not found.trace_id or not found.span_id:
        raise ValueError("may not name the trace or the span 0")
    return found


def of_attempt(parent: Context, message_id: str) -> Context:
    """The span of an attempt: the last 16 digits of its message id, which are random."""
    span_id = int(message_id.replace("-", "")[-16:], 16)
    return Context(parent.trace_id, span_id or 1, parent.flags)
