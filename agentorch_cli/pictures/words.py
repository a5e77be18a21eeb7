"""Words in pictures: how wide they are, how they are cut, and how times are written."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from agentorch_cli.core.durations import span as span
from agentorch_cli.text import one_line

LONGEST: Final = 500
"""Characters of a name or a note that a tooltip shows."""

STATE_WORDS: Final[dict[str, str]] = {"accepted": "running", "sent": "given out", "timed_out": "timed out"}

STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
"""Seconds between two marks of a time axis that people can read."""


def state_words(state: str) -> str:
    """A state of a task or an attempt, as people say it."""
    return STATE_WORDS.get(state, state.replace("_", " "))


def plain(text: str, limit: int = LONGEST) -> str:
    """Text of others in one line, with everything hidden shown as its code."""
    return one_line(text, limit)


def cells(text: str) -> int:
    """Columns that a text takes where letters are of one width: two for East Asian wide ones."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def fitted(text: str, most: int, sign: str = "…") -> str:
    """The text in at most so many columns, in one line; its end tells names apart, so the middle goes."""
    text = plain(text)
    if cells(text) <= most:
        return text
    if most <= len(sign):
        return sign[:most]
    tail = min(4, (most - len(sign)) // 3)
    head, room = "", most - len(sign) - tail
    end = ""
    for letter in reversed(text):
        if cells(letter + end) > tail:
            break
        end = letter + end
    for letter in text:
        if cells(head + letter) > room:
            break
        head += letter
    return head + sign + end


def few(names: Sequence[str], most: int, sign: str = "…") -> str:
    """As many of the names as fit into so many columns, and how many there are besides."""
    shown = ", ".join(plain(name) for name in names)
    for count in range(len(names) - 1, 0, -1):
        if cells(shown) <= most:
            break
        shown = f"{', '.join(plain(name) for name in names[:count])} +{len(names) - count}"
    return fitted(shown, most, sign)


def marks(seconds: float, most: int) -> list[tuple[float, str]]:
    """At most so many marks of a time axis from 0 on: where, and what is written there."""
    if seconds <= 0 or most < 1:
        return [(0.0, "0s")]
    step = _step(seconds / most)
    count = int(seconds / step + 1e-9)
    return [(number * step, _mark(number * step, step)) for number in range(count + 1)]


def _step(least: float) -> float:
    """The smallest readable step that is not below this."""
    if least < 1:
        power = 1e-6
        while power < 1:
            for digit in (1, 2, 5):
                if digit * power >= least * (1 - 1e-9):
                    return digit * power
            power *= 10
        return 1.0
    found = next((step for step in STEPS if step >= least), None)
    if found is not None:
        return float(found)
    days = 1
    while days * 86_400 < least:
        days *= 2
    return days * 86_400.0


def _mark(at: float, step: float) -> str:
    if at == 0:
        return "0s"
    if step >= 1:
        return span(at) if at >= 60 else f"{at:.0f}s"
    if step >= 0.001 and at < 1:
        return f"{at * 1000:.0f}ms"
    if step < 0.001:
        return f"{at * 1000:.3g}ms"
    digits = 1 if step >= 0.1 else 2 if step >= 0.01 else 3
    return f"{at:.{digits}f}s"
