"""One frame of the live view: the board, made to fit a terminal of any size.

Never more rows than there is room for: a table of 2,000 rows would take longer to draw than to
be wanted. What matters less gives way first: tables by their order, their columns by weight. On
a wide terminal there are two columns of tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from agentorch_cli.cli import board
from agentorch_cli.cli.board import Part
from agentorch_cli.cli.look import Look
from agentorch_cli.cli.sparks import History
from agentorch_cli.cli.tables import table
from agentorch_cli.views import StatusView

Line = list[Segment]

WIDE = 150
"""Columns from which tables stand in two columns."""

LEFT_SHARE = 0.58
LEFT = ("AGENTS", "RUNNING")
"""What stands on the left where there are two columns."""

UNCOUNTED = ("RECENT", "VOTES")
"""Tables that hold only the newest of what there is."""

HEAD_LINES = 2
"""Of each table: its title, the names of its columns."""

LEAST_ROWS = 2
"""A table with less room than for this many of its rows is left out, the last ones first."""

TALL = 40
"""Lines from which an alarm may take more than one."""

ALARM_SHARE = 4
"""Alarms take a quarter of the lines at most."""


def frame(
    status: StatusView,
    console: Console,
    look: Look,
    server: str | None = None,
    *,
    history: History | None = None,
    is_paused: bool = False,
    note: str | None = None,
) -> RenderableType:
    """One frame, exactly as large as the terminal, with the keys on its last line.

    `server`: where the fleet is, None where it is here. `note`: what else a person should know now.
    """
    look = replace(look, now=status.at)
    if history is None:
        history = History()
        history.add(status.flow)
    lines = [_title(status, console, look, server, is_paused)]
    alarms = _alarms(status.alarms, console, look)
    facts = _lines(Group(*board.facts(status, look, history)), console, look.width)
    lines += [*alarms, *facts]
    room = look.height - len(lines) - 1
    if room > 0:
        lines += _body(status, console, look, room)
    lines = [_fitted(line, look.width) for line in lines[: look.height - 1]]
    lines += [[Segment(" " * look.width)]] * (look.height - 1 - len(lines))
    keys = _fitted(_keys(console, look, is_paused, note), look.width)
    return Segments([segment for line in lines for segment in (*line, Segment.line())] + keys)


def _title(status: StatusView, console: Console, look: Look, server: str | None, is_paused: bool) -> Line:
    """Whose fleet it is on the left; on the right since when it is so."""
    left = Text.assemble(("agentorch", "bold"), "  ") if look.width >= 2 * board.NARROW else Text("")
    left += board.where(status.nodes, look)
    if server is not None and look.width >= board.NARROW:
        left += Text("  ") + look.text(server, "dim")
    at = status.at.astimezone().strftime("%H:%M:%S")
    right = Text.assemble((" paused ", "black on yellow"), " ", at) if is_paused else Text(at, "dim")
    if look.width < right.cell_len + 12:
        return _segments(left, console)
    left.truncate(look.width - right.cell_len - 1, overflow="crop" if look.is_ascii else "ellipsis")
    gap = look.width - left.cell_len - right.cell_len
    return _segments(left + Text(" " * gap) + right, console)


def _alarms(sentences: Sequence[str], console: Console, look: Look) -> list[Line]:
    """As many as have room, in one line each where there is little; the others are counted."""
    room = max(1, (look.height - 1) // ALARM_SHARE)
    lines: list[Line] = []
    for number, sentence in enumerate(sentences):
        left = len(sentences) - number
        line = board.alarm(sentence, look)
        if look.height < TALL:
            line.truncate(look.width, overflow="crop" if look.is_ascii else "ellipsis")
        found = _lines(line, console, look.width)
        if len(lines) + len(found) + (left > 1) > room:
            words = f"{left} more" if number else f"{left} alarms" if left > 1 else "1 alarm"
            return [*lines, _segments(Text(f"! {words}", "bold red"), console)][:room]
        lines += found
    return lines


def _body(status: StatusView, console: Console, look: Look, room: int) -> list[Line]:
    parts = board.parts(status, look)
    left = [part for part in parts if part[0] in LEFT]
    right = [part for part in parts if part[0] not in LEFT]
    if look.width < WIDE or not left or not right:
        return _tables(parts, status, console, look, room)
    width = int(look.width * LEFT_SHARE)
    sides = (
        (width, _tables(left, status, console, replace(look, width=width), room)),
        (
            look.width - width - 3,
            _tables(right, status, console, replace(look, width=look.width - width - 3), room),
        ),
    )
    between = [Segment(" | " if look.is_ascii else " │ ", Style(dim=True))]
    height = max(len(lines) for _, lines in sides)
    (left_width, lefts), (right_width, rights) = (
        (wide, lines + [[]] * (height - len(lines))) for wide, lines in sides
    )
    return [
        _fitted(one, left_width) + between + _fitted(other, right_width)
        for one, other in zip(lefts, rights, strict=True)
    ]


def _tables(parts: Sequence[Part], status: StatusView, console: Console, look: Look, room: int) -> list[Line]:
    """The tables one below the other, each with a fair share of the lines."""
    kept = list(parts)
    while len(kept) > 1 and sum(min(len(one[2]), LEAST_ROWS) + HEAD_LINES for one in kept) > room:
        kept.pop()
    totals = {"RUNNING": status.task_counts.get("running", 0)}
    bodies = [_lines(table(columns, rows[:room], look), console, look.width) for _, columns, rows in kept]
    lines: list[Line] = []
    for index, (title, columns, rows) in enumerate(kept):
        share = _share(room - len(lines), [len(body) + 1 for body in bodies[index:]])
        shown, body = rows[:room], bodies[index]
        while shown and len(body) + 1 > share:
            # as many fewer as there are lines too many; ids that are folded take some each, so not too few
            excess = len(body) + 1 - share
            shown = shown[: max(share - HEAD_LINES, 0) if len(body) == len(shown) + 1 else -(excess // 4 + 1)]
            body = _lines(table(columns, shown, look), console, look.width)
        if shown:
            total = max(len(rows), totals.get(title, 0))
            of = f" ({len(shown)} of {total:,})" if len(shown) < total else f" ({total:,})"
            lines += [_heading(title + ("" if title in UNCOUNTED else of), console, look), *body]
    return lines


def _share(room: int, needs: Sequence[int]) -> int:
    """Lines for the first of the tables that follow: what it needs, or a fair share."""
    fair = room // len(needs)
    return min(needs[0], max(room - sum(min(need, fair) for need in needs[1:]), 0))


def _heading(title: str, console: Console, look: Look) -> Line:
    rule = ("-" if look.is_ascii else "─") * max(0, look.width - len(title) - 1)
    return _segments(Text.assemble((title, "bold"), " ", (rule, "dim")), console)


def _keys(console: Console, look: Look, is_paused: bool, note: str | None) -> Line:
    keys = Text(f"p {'goes on' if is_paused else 'pauses'}  q quits", "dim")
    return _segments(keys + Text("   ") + look.text(note, "yellow") if note else keys, console)


def _lines(renderable: RenderableType, console: Console, width: int) -> list[Line]:
    return console.render_lines(renderable, console.options.update(width=width), pad=False)


def _segments(text: Text, console: Console) -> Line:
    """A line in its styles, which is not wrapped."""
    return list(text.render(console))


def _fitted(line: Line, width: int) -> Line:
    """Cut or filled up to the width."""
    return Segment.adjust_line_length(line, width)
