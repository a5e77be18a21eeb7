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

from agentorch_cli.core.durations import span as span
from agentorch_cli.signs import STYLES
from agentorch_cli.text import one_line, shorten, visible

MAX_VALUE = 2_000
"""Characters of a JSON value that a line shows."""

SPACIOUS = 120
"""Columns from which every name of a list stands in a table."""


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

    def lines(self, value: object, most: int, style: str = "") -> Text:
        """Text of others that may have several lines, such as what a command said: safe, each a line."""
        lines = visible(value).strip("\n").split("\n")
        more = [f"… ({len(lines) - most:,} more lines)"] if len(lines) > most else []
        return Text("\n".join(lines[:most] + more), style)

    def sentence(self, value: str, style: str = "") -> Text:
        """The same where there is one line for it: on a terminal a blank for each break, which on a pipe is
        its code, so that programs can tell them apart."""
        return self.text(" ".join(value.split("\n")) if self.is_terminal else value, style)

    def names(self, values: list[str]) -> Text:
        """A list of names; a dash on a terminal where there is none."""
        return self.text(", ".join(values)) if values else self.nothing()

    def crowd(self, values: list[str]) -> Text:
        """Names where there is little room for them: the first, and how many others."""
        if not self.is_terminal or self.width >= SPACIOUS or len(values) < 2:
            return self.names(values)
        return self.text(values[0]) + Text(f" +{len(values) - 1}", "dim")

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

    def clock(self, when: datetime) -> Text:
        """The time of day here, which does not grow old while it is read; of another day with its date."""
        if not self.is_terminal:
            return Text(moment(when))
        here = when.astimezone()
        is_today = here.date() == self.now.astimezone().date()
        return Text(f"{here:%H:%M:%S}" if is_today else f"{here:%Y-%m-%d %H:%M:%S}", "dim")

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


def moment(when: datetime) -> str:
    """A moment for programs: ISO 8601 in UTC, to the millisecond."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _can_encode(stream: TextIO) -> bool:
    try:
        "●◐░█─│".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
