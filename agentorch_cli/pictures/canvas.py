"""A sheet of characters on which lines join, cross and pass, and boxes and words stand."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from rich.text import Text

from agentorch_cli.pictures.words import cells

NORTH, EAST, SOUTH, WEST = 1, 2, 4, 8

_LINES: Final = " ╵╶└╷│┌├╴┘─┴┐┤┬┼"
"""By the sides to which a line leaves, added up."""

_ROUND: Final = {"└": "╰", "┌": "╭", "┘": "╯", "┐": "╮"}
_PLAIN: Final = " '-'.|.+-'-+.+++"


class Canvas:
    """Lines and words by row and column; what is put later stands above what was there."""

    def __init__(self, *, is_ascii: bool) -> None:
        self.is_ascii = is_ascii
        self._sides: dict[tuple[int, int], int] = {}
        self._joins: set[tuple[int, int]] = set()
        self._style: dict[tuple[int, int], str] = {}
        self._words: dict[tuple[int, int], tuple[str, str]] = {}
        self.height = 0

    def line(self, row: int, column: int, sides: int, style: str, *, joins: bool = False) -> None:
        """A bit of a line. Bits that cross in a cell join only if one of them does."""
        cell = row, column
        self._sides[cell] = self._sides.get(cell, 0) | sides
        self._style[cell] = style
        if joins:
            self._joins.add(cell)
        self.height = max(self.height, row + 1)

    def words(self, row: int, column: int, text: str, style: str = "") -> None:
        """A text; each letter in a cell, a wide one in two."""
        for letter in text:
            width = cells(letter)
            if not width and column:  # a mark on the letter before
                before, its_style = self._words.get((row, column - 1), ("", style))
                self._words[row, column - 1] = (before + letter, its_style)
                continue
            self._words[row, column] = (letter, style)
            for more in range(1, width):
                self._words[row, column + more] = ("", style)
            column += width
        self.height = max(self.height, row + 1)

    def styled(self, row: int, column: int, text: Text) -> None:
        """A text of several styles."""
        ends = sorted({0, len(text.plain), *(place for span in text.spans for place in span[:2])})
        for start, end in pairwise(ends):
            style = next((str(span.style) for span in text.spans if span.start <= start < span.end), "")
            self.words(row, column + cells(text.plain[:start]), text.plain[start:end], style)

    def text(self) -> Text:
        """Everything, line by line, without blanks at the ends."""
        rows: dict[int, dict[int, tuple[str, str]]] = {}
        for (row, column), sides in self._sides.items():
            rows.setdefault(row, {})[column] = self._glyph((row, column), sides), self._style[row, column]
        for (row, column), word in self._words.items():
            rows.setdefault(row, {})[column] = word
        drawn = Text()
        for row in range(self.height):
            at = 0
            for column, (letter, style) in sorted(rows.get(row, {}).items()):
                drawn.append(" " * (column - at))
                drawn.append(letter, style)
                at = column + 1
            drawn.append("\n" if row < self.height - 1 else "")
        return drawn

    def _glyph(self, cell: tuple[int, int], sides: int) -> str:
        if sides == NORTH | EAST | SOUTH | WEST and cell not in self._joins:
            sides = NORTH | SOUTH  # one passes behind the other
        if self.is_ascii:
            return _PLAIN[sides]
        glyph = _LINES[sides]
        return _ROUND.get(glyph, glyph)
