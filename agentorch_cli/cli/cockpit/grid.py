"""A table of the cockpit: columns that fit, rows that the filter leaves, the cursor where it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text
from textual.widgets import DataTable

from agentorch_cli.cli.cockpit.lists import Listing, State, filtered, ordered
from agentorch_cli.cli.look import Look
from agentorch_cli.cli.tables import Column, fit

MOST_ROWS = 500
"""That are shown: more is for a filter."""

SCROLLBAR = 1

PADDING = 1
"""Blank columns on each side of a cell."""


class Grid(DataTable[Text]):
    """Rows of one listing at a time."""

    def __init__(self) -> None:
        super().__init__(cursor_type="row", zebra_stripes=False, cell_padding=PADDING, id="grid")
        self.listing: Listing | None = None
        self.words = ""
        self.sorted_by: dict[str, tuple[str, bool]] = {}
        """By listing: the title of the column, and whether the largest is on top."""
        self.number = 0
        """Rows that the filter leaves."""
        self.total = 0
        self._kept: list[tuple[str, int]] = []
        self._cells: dict[str, list[Text]] = {}
        self._is_shown: tuple[str, tuple[str, bool] | None] = ("", None)

    def show(self, listing: Listing, state: State, look: Look) -> None:
        """Bring the table up to date; a cursor that was moved stays on its row, else it is on top."""
        columns = listing.columns(state)
        every = listing.rows(state)
        rows = filtered(listing, every, self.words, lambda row: _plain(columns, row, look))
        by, is_reversed = self.sorted_by.get(listing.name, ("", False))
        chosen = next((column for column in columns if by and column.title == by), None)
        rows = ordered(listing, rows, chosen, look, is_reversed=is_reversed)
        self.number, self.total, self.listing = len(rows), len(every), listing
        rows = rows[:MOST_ROWS]
        cells = {listing.key(row): [column.cell(row, look) for column in columns] for row in rows}
        natural = [
            max(
                (
                    len(column.title) + 2 * (column is chosen),
                    *(row[index].cell_len for row in cells.values()),
                ),
                default=0,
            )
            if any(row[index].plain for row in cells.values())
            else 0
            for index, column in enumerate(columns)
        ]
        # `fit` counts two blanks between columns, which is what a padding of one makes of them
        kept, widths = fit(columns, natural, look.width - 2 * PADDING - SCROLLBAR)
        titles = [(columns[index].title, width) for index, width in zip(kept, widths, strict=True)]
        shown = {
            key: [
                _cut(row[index], width, columns[index], look)
                for index, width in zip(kept, widths, strict=True)
            ]
            for key, row in cells.items()
        }
        self._bring(titles, shown, (listing.name, self.sorted_by.get(listing.name)))

    def sort_next(self) -> None:
        """By the next column; after the last one as it came."""
        titles = ["", *(title for title, _ in self._kept if title)]
        if self.listing is not None:
            now = self.sorted_by.get(self.listing.name, ("", False))[0]
            at = titles.index(now) if now in titles else 0
            self.sort_by(titles[(at + 1) % len(titles)])

    def sort_by(self, title: str) -> None:
        """By this column: texts from A, numbers and times from the largest."""
        if self.listing is None:
            return
        if not title:
            self.sorted_by.pop(self.listing.name, None)
        else:
            self.sorted_by[self.listing.name] = (title, title in self.listing.orders and title != "AGENT")

    def turn(self) -> None:
        """The other way round."""
        if self.listing is not None and self.listing.name in self.sorted_by:
            title, is_reversed = self.sorted_by[self.listing.name]
            self.sorted_by[self.listing.name] = (title, not is_reversed)

    @property
    def chosen(self) -> str | None:
        """The key of the row under the cursor."""
        if not self.row_count or not 0 <= self.cursor_row < self.row_count:
            return None
        return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value

    def _bring(
        self,
        titles: list[tuple[str, int]],
        rows: dict[str, list[Text]],
        is_shown: tuple[str, tuple[str, bool] | None],
    ) -> None:
        """Change only the cells that differ, where the rows are the same; else write them all anew."""
        if titles == self._kept and list(rows) == list(self._cells) and is_shown == self._is_shown:
            for key, row in rows.items():
                for (title, _), cell, before in zip(titles, row, self._cells[key], strict=True):
                    if cell != before:
                        self.update_cell(key, title, cell)
            self._cells = rows
            return
        was_here = is_shown[0] == self._is_shown[0]
        chosen, was_moved, offset = self.chosen, self.cursor_row > 0, self.scroll_offset
        self.clear(columns=True)
        for title, width in titles:
            self.add_column(_heading(title, is_shown[1]), width=width, key=title)
        for key, row in rows.items():
            self.add_row(*row, key=key)
        self._kept, self._cells, self._is_shown = titles, rows, is_shown
        if was_here and was_moved and chosen in rows:
            self.move_cursor(row=list(rows).index(chosen), animate=False, scroll=False)
            self.scroll_to(y=offset.y, animate=False)


def _heading(title: str, by: tuple[str, bool] | None) -> Text:
    if by is None or by[0] != title:
        return Text(title)
    return Text(f"{title} {'▼' if by[1] else '▲'}", "bold")


def _plain(columns: Sequence[Column], row: Any, look: Look) -> str:
    return " ".join(column.cell(row, look).plain for column in columns)


def _cut(cell: Text, width: int, column: Column, look: Look) -> Text:
    """What has room of a cell; rows are one line high here."""
    cell = cell.copy()
    cell.truncate(width, overflow="crop" if look.is_ascii else "ellipsis")
    if column.is_right:
        cell.pad_left(max(0, width - cell.cell_len))
    return cell
