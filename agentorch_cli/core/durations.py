"""Durations as people write them ("30s", "1h30m", "2d", or a number of seconds), and as they are told."""

from __future__ import annotations

import re
from typing import Final

UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

MAX_SECONDS: Final = 10 * 366 * 86400.0
"""Ten years: longer waits are typing errors, and PostgreSQL's intervals end somewhere too."""

DURATION_SCHEMA: Final = {
    "x-type": "duration",
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": MAX_SECONDS},
        {"type": "string", "pattern": "^ *[0-9][0-9. msMShHdDwW]*$", "maxLength": 100},
    ],
}
"""What editors are told of a duration: at least all that `parse_duration` takes."""

_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


def parse_duration(value: object) -> float:
    """Seconds, from a number or a text such as "90", "30s", "1h30m" or "500 ms".

    Raises ValueError with a sentence that says what would be right.
    """
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError(
            'must be a duration: a number of seconds, or a text such as "30s", "5m", "2h" or "1d"'
        )
    if not 0 <= seconds <= MAX_SECONDS:  # refuses NaN as well
        raise ValueError("must be a duration from 0 seconds to 10 years")
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) <= MAX_SECONDS else -1.0
    if not isinstance(value, str) or len(value) > 100:
        return None
    text = value.replace(" ", "").lower()
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _WHOLE.fullmatch(text):
        return None
    return sum(float(number) * UNIT_SECONDS[unit] for number, unit in _PART.findall(text))


def show_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back: 90 -> "1m30s", 0.25 -> "250ms"."""
    if seconds < 1 or seconds % 1:
        milliseconds = seconds * 1000
        return f"{milliseconds:g}ms" if seconds < 1 and milliseconds % 1 == 0 and seconds else f"{seconds:g}s"
    parts, rest = [], int(seconds)
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, int(UNIT_SECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def waited(seconds: float) -> str:
    """How long a wait was to last, `3 s`: whoever asks from far away sends what was left of it by then."""
    return f"{round(seconds, 1 if seconds >= 1 else 2):.10g} s"


def span(seconds: float) -> str:
    """A duration for people: `85ms`, `1.4s`, `12s`, `3m 20s`, `5h 2m`, `3d 4h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms" if seconds >= 0.0005 else "0s"
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"
    for size, unit, smaller, letter in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            return f"{whole}{unit}" + (f" {rest // smaller}{letter}" if rest // smaller else "")
    return f"{seconds:.0f}s"
