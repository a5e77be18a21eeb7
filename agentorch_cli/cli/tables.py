"""Tables that fit: on a terminal by giving way in a sensible order, on a pipe in full.

When a table is too wide, columns that matter less are left out, then long texts are
shortened, then ids fold onto a second line. An id is never cut: half an id is none. Nor
is a title, which folds as well.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from agentorch_cli.cli.look import Look
from agentorch_cli.text import one_line

GAP = 2
"""Blank columns between two columns of a table."""

NARROWEST = 6
"""No column gets narrower: below this a table is only noise."""

SHORT_TEXT = 12
"""To how many letters a text is shortened before ids fold."""

KEPT = 9
"""The weight of a column that is never left out."""


@dataclass(frozen=True, slots=True)
class Column:
    """What a column shows of a row, and how it gives way."""

    title: str
    cell: Callable[[Any, Look], Text]
    weight: int = KEPT
    """Lower ones are left out first when the terminal is narrow."""
    is_id: bool = False
    """Folds, and is never shortened."""
    fold_at: int = 36
    """Where an id folds, if the table does not fit as it is: the length of a UUID."""
    is_right: bool = False
    least: int = SHORT_TEXT
    """To how many letters a text is shortened while there are columns that could be left out."""


class Page:
    """Where an answer is written: a terminal, or a pipe."""

    def __init__(self, stream: TextIO, look: Look | None = None) -> None:
        self.look = look or Look.of(stream)
        self.stream = stream
        self.console = Console(
            file=stream,
            width=self.look.width,
            height=self.look.height,
            force_terminal=self.look.is_terminal,
            no_color=bool(os.environ.get("NO_COLOR")) or None,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
        )

    def line(self, *parts: Text | str) -> None:
        """One line of text; it wraps on a terminal."""
        self.show(Text.assemble(*parts))

    def command(self, line: str) -> None:
        """A line to be pasted: one line, however narrow the terminal, which breaks it for the eye only."""
        if self.look.is_terminal:
            self.console.print(Text(line), soft_wrap=True)
        else:
            self._write(line)

    def indented(self, margin: int, *parts: Text | str) -> None:
        """A line that goes on under itself where it is too long for the terminal."""
        self.hanging(Text(" " * margin), *parts)

    def hanging(self, lead: Text, *parts: Text | str) -> None:
        """The same behind some first words, under which nothing stands."""
        text = Text.assemble(*parts)
        if not self.look.is_terminal:
            self._write(lead.plain + text.plain)
            return
        margin = min(lead.cell_len, self.look.width // 2)
        for number, line in enumerate(text.wrap(self.console, max(self.look.width - margin, NARROWEST))):
            line.rstrip()
            self.console.print((Text(" " * margin) if number else lead) + line)

    def gap(self) -> None:
        """An empty line."""
        self.show(Text(""))

    def title(self, state: str, name: str, note: str) -> None:
        """The first line of a page about one thing."""
        look = self.look
        self.line(look.state(state), "  ", look.text(name, "bold"), "  ", look.text(note, "dim"))

    def heading(self, title: str) -> None:
        """The title of a part of the page."""
        self.gap()
        self.show(Text(title, "bold"))

    def table(self, columns: Sequence[Column], rows: Sequence[Any]) -> None:
        """A table of rows."""
        if self.look.is_terminal:
            self.show(table(columns, rows, self.look))
            return
        self._write("\t".join(column.title for column in columns))
        for row in rows:
            self._write("\t".join(_plain(column.cell(row, self.look)) for column in columns))

    def pairs(self, rows: Sequence[tuple[Text | str, Text]], indent: int = 2) -> None:
        """Names with their values; a long value goes on under itself. Names may be texts of others too."""
        rows = [(one_line(name) if isinstance(name, str) else name, value) for name, value in rows]
        if not self.look.is_terminal:
            for name, value in rows:
                label = f"{' ' * indent}{name}\t" if name else ""
                self._write(label + value.plain.replace("\n", f"\n{' ' * indent}\t"))
            return
        grid = Table.grid(padding=(0, GAP, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in rows:
            grid.add_row(Text(" " * indent) + (Text(name, "dim") if isinstance(name, str) else name), value)
        self.console.print(grid)

    def show(self, renderable: RenderableType) -> None:
        """Anything that Rich can show; on a pipe without colours and without wrapping."""
        if self.look.is_terminal:
            self.console.print(renderable)
        elif isinstance(renderable, Text):
            self._write(renderable.plain)
        else:
            self._write(_captured(renderable, self.look))

    def _write(self, text: str) -> None:
        self.stream.write(text.rstrip("\n") + "\n")


def table(columns: Sequence[Column], rows: Sequence[Any], look: Look) -> Table:
    """The table as it fits into the width."""
    cells = [[column.cell(row, look) for column in columns] for row in rows]
    natural = [_natural(column, [row[index].plain for row in cells]) for index, column in enumerate(columns)]
    kept, widths = fit(columns, natural, look.width)
    grid = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    for index, width in zip(kept, widths, strict=True):
        column = columns[index]
        grid.add_column(
            Text(_head(column.title, width)),
            width=width,
            justify="right" if column.is_right else "left",
            # Rich marks a cut with a letter that ASCII does not have
            overflow="fold" if column.is_id else "crop" if look.is_ascii else "ellipsis",
            no_wrap=not column.is_id,
        )
    for row in cells:
        grid.add_row(*(row[index] for index in kept))
    return grid


def fit(columns: Sequence[Column], natural: Sequence[int], width: int) -> tuple[list[int], list[int]]:
    """Which columns stay, and how wide each is.

    Folds what is longer than an id needs to be, leaves out by weight, then narrows the
    widest text, then the widest of all. What is left over goes back to the ids that were
    folded. Columns of width 0 have nothing to show.
    """
    kept = [index for index, one in enumerate(natural) if one]
    widths = [min(one, width) for one in natural]
    if sum(widths) + GAP * (len(kept) - 1) > width:
        widths = [
            min(one, column.fold_at) if column.is_id else one
            for one, column in zip(widths, columns, strict=True)
        ]

    def excess() -> int:
        return sum(widths[index] for index in kept) + GAP * (len(kept) - 1) - width

    def texts() -> list[int]:
        return [index for index in kept if not columns[index].is_id and widths[index] > columns[index].least]

    while excess() > sum(widths[index] - columns[index].least for index in texts()):
        lightest = min(kept, key=lambda index: (columns[index].weight, -index))
        if columns[lightest].weight == KEPT:
            break
        kept.remove(lightest)
    while excess() > 0:
        giving = texts() or [index for index in kept if widths[index] > NARROWEST]
        if not giving:
            break
        widths[max(giving, key=lambda index: widths[index])] -= 1
    for index in kept:
        if columns[index].is_id and widths[index] < natural[index]:
            widths[index] = min(natural[index], widths[index] + max(-excess(), 0))
    return kept, [widths[index] for index in kept]


def _head(title: str, width: int) -> str:
    """The title as it fits: over several lines where it has to be. Cut it would say nothing."""
    return title if cell_len(title) <= width else textwrap.fill(title, max(width, 1))


def _natural(column: Column, texts: Sequence[str]) -> int:
    """The width that shows everything; 0 for a column in which no row has anything."""
    if column.weight < KEPT and all(text in ("", "-", "–") for text in texts):
        return 0
    return max([cell_len(column.title), *map(cell_len, texts)])


def _plain(cell: Text) -> str:
    return cell.plain.replace("\t", "\\t")


def _captured(renderable: RenderableType, look: Look) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=max(look.width, 200), no_color=True, highlight=False).print(renderable)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())
