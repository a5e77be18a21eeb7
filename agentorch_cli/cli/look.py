"""Signs, colours, ages and amounts: how a value looks where it is shown.

One function per kind of value. On a terminal a state has a sign and a colour and a time
is an age; on a pipe the state is its word and the time is ISO 8601, for programs.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.text import Text

from agentorch_cli.signs import STYLES
from agentorch_cli.text import one_line, shorten, visible

MAX_VALUE = 2_000
"""Characters of a JSON value that a line shows."""

AGE_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s"))


@dataclass(frozen=True, slots=True)
class Look:
    """What the place where things are shown can do."""

    is_terminal: bool
    is_ascii: bool
    width: int
    height: int
    now: datetime

    @classmethod
    def of(cls, stream: TextIO) -> Look:
        """Of a stream: a terminal with its size, or a pipe."""
        try:
            size = os.get_terminal_size(stream.fileno())
            width, height = size.columns or 80, size.lines or 24
        except (OSError, ValueError):
            width, height = 80, 24
        if width_asked := os.environ.get("COLUMNS", ""):
            width = int(width_asked) if width_asked.isdecimal() and int(width_asked) else width
        return cls(stream.isatty(), not _can_encode(stream), width, height, datetime.now(UTC))

    def text(self, value: object, style: str = "") -> Text:
        """Text of others: safe, in one line, never read as markup."""
        return Text("" if value is None else one_line(value), style)

    def names(self, values: list[str]) -> Text:
        """A list of names; a dash on a terminal where there is none."""
        return self.text(", ".join(values)) if values else self.nothing()

    def nothing(self) -> Text:
        """The place of a value that is not there."""
        return Text("-" if self.is_ascii else "–", "dim") if self.is_terminal else Text("")

    def sign(self, state: str) -> Text:
        """The sign of a state, in its colour."""
        sign, plain, style = STYLES.get(state, ("·", ".", ""))
        return Text(plain if self.is_ascii else sign, style)

    def state(self, state: str) -> Text:
        """A state with its sign; on a pipe only its word."""
        if not self.is_terminal:
            return self.text(state)
        style = STYLES.get(state, ("", "", ""))[2]
        return self.sign(state) + Text(" ") + self.text(state.replace("_", " "), style)

    def age(self, when: datetime | None) -> Text:
        """How long ago (or `in` how long); on a pipe the moment."""
        if when is None:
            return self.nothing()
        if not self.is_terminal:
            return Text(moment(when))
        seconds = (self.now - when).total_seconds()
        shown = f"{round(abs(seconds))}s" if abs(seconds) < 60 else span(abs(seconds))
        return Text(f"{shown} ago" if seconds >= -1 else f"in {shown}", "dim")

    def until(self, when: datetime) -> Text:
        """How long something goes on; on a pipe until which moment."""
        if not self.is_terminal:
            return Text(f"until {moment(when)}")
        left = max(0.0, (when - self.now).total_seconds())
        return Text.assemble("for ", (f"{round(left)}s" if left < 60 else span(left), "dim"), " more")

    def bar(self, share: float | None, width: int = 8) -> Text:
        """A share of 0..1 as a bar with its percentage; on a pipe the share."""
        if share is None:
            return self.nothing()
        if not self.is_terminal:
            return Text(f"{share:.2f}")
        share = min(max(share, 0.0), 1.0)
        full = round(share * width)
        on, off = ("#", "-") if self.is_ascii else ("█", "░")
        color = "green" if share < 0.75 else "yellow" if share < 1 else "red"
        return Text.assemble((on * full, color), (off * (width - full), "dim"), f" {share:>4.0%}")

    def progress(self, share: float | None, width: int = 12) -> Text:
        """How far work is; unlike a load it is not alarming when it is full."""
        bar = self.bar(share, width)
        if share is not None and self.is_terminal and bar.spans:
            bar.stylize("cyan", 0, round(min(max(share, 0.0), 1.0) * width))
        return bar

    def number(self, value: float | None, digits: int = 0) -> Text:
        """A number, or the sign for none."""
        return self.nothing() if value is None else Text(f"{value:.{digits}f}")

    def json(self, value: Any, limit: int = MAX_VALUE) -> Text:
        """A JSON value in one line: a text without its quotes."""
        if value is None:
            return self.nothing()
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        return self.text(shorten(shown[: limit * 2], limit) if self.is_terminal else shown)

    def block(self, value: Any) -> Text:
        """A JSON value over several lines, as much of it as a person reads."""
        shown = (
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
        )
        return Text(visible(shown))


def span(seconds: float) -> str:
    """A duration for people: `0.4s`, `12s`, `3m 20s`, `5h 2m`, `3d 4h`."""
    if seconds < 0.001:
        return "0s"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    for size, unit, smaller, smaller_unit in AGE_UNITS:
        if seconds >= size:
            rest = int(seconds % size // smaller)
            return f"{int(seconds // size)}{unit}" + (f" {rest}{smaller_unit}" if rest else "")
    return f"{seconds:.0f}s"


def moment(when: datetime) -> str:
    """A moment for programs: ISO 8601 in UTC, to the millisecond."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _can_encode(stream: TextIO) -> bool:
    try:
        "●◐░█─│".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
