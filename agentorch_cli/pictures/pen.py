"""What everything that is drawn on a terminal has in common: its width, its letters, its signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from agentorch_cli.pictures.model import GraphNode
from agentorch_cli.pictures.words import cells, few, fitted, state_words
from agentorch_cli.signs import STYLES

_NAMES = {"failed": "bold red", "running": "bold", "blocked": "dim", "skipped": "dim"}
"""Styles of the names of tasks, by state."""


@dataclass(frozen=True, slots=True)
class Pen:
    """What can be drawn with."""

    width: int
    is_ascii: bool = False

    @property
    def more(self) -> str:
        """Where something is left out."""
        return "..." if self.is_ascii else "…"

    @property
    def arrow(self) -> str:
        """From one task to the next."""
        return "->" if self.is_ascii else "→"

    def sign(self, state: str) -> str:
        """The sign of a state, without its colour."""
        sign, plain, _ = STYLES[state]
        return plain if self.is_ascii else sign

    def fit(self, text: str, most: int) -> str:
        """Text of others, in one line of so many columns, in ASCII where that is all there is."""
        shown = fitted(text, most, self.more)
        if self.is_ascii and not shown.isascii():
            shown = fitted(shown.encode("ascii", "backslashreplace").decode(), most, self.more)
        return shown

    def few(self, names: Sequence[str], most: int) -> str:
        """As many names of others as fit, and how many there are besides."""
        shown = few(names, most, self.more)
        return self.fit(shown, most) if self.is_ascii else shown

    def label(self, node: GraphNode, most: int) -> Text:
        """A task in a line: its sign and its name in at most so many columns."""
        sign = (f"{self.sign(node.state)} ", STYLES[node.state][2])
        return Text.assemble(sign, (self.fit(node.name, most), _NAMES.get(node.state, "")))

    def counts(self, title: str, counted: Sequence[tuple[str, int]], cut: int) -> Text:
        """How many are in each state, in as many lines as they need."""
        items = [Text(title, "bold")]
        if cut:
            items.append(Text(f"(and {cut:,} more that are not shown)", "dim"))
        items += [
            Text(f"{self.sign(state)} {count:,} {state_words(state)}", STYLES[state][2])
            for state, count in counted
        ]
        lines = [Text()]
        for item in items:
            if lines[-1].plain and cells(lines[-1].plain) + 3 + cells(item.plain) > self.width:
                lines.append(Text())
            lines[-1].append("   " if lines[-1].plain else "").append_text(item)
        for line in lines:
            line.truncate(self.width, overflow="crop")
        return Text("\n").join(lines)
