"""The graph for a terminal, in the richest of four forms that the width allows.

Boxes in layers from top to bottom; names in columns from left to right, which takes less height; a
tree, where each task stands under the last of those that it waits for; and for thousands of tasks a
line for each layer. Each task has the sign of its state, so that nothing depends on colours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from agentorch_cli.pictures.graph_lines import lined
from agentorch_cli.pictures.graph_tree import tree
from agentorch_cli.pictures.layers import arrange, closing, levels, parts
from agentorch_cli.pictures.model import Graph, GraphNode
from agentorch_cli.pictures.pen import Pen
from agentorch_cli.pictures.words import cells
from agentorch_cli.signs import STYLES

MOST_DRAWN: Final = 160
"""Tasks with lines between them; of more nobody sees where a line goes."""

MOST_LISTED: Final = 600
"""Tasks of a tree."""

MOST_BANDS: Final = 40
"""Lines of the form for thousands of tasks."""

ALONG: Final = 3
"""Blank columns between tasks that stand alone."""

_NUMBER: Final = re.compile(r"[\s._#/-]*\d+$")


def graph_text(graph: Graph, width: int, *, is_ascii: bool = False) -> Text:
    """The graph in at most `width` columns, below a line that counts its tasks."""
    drawing = _Drawing(graph, Pen(max(width, 20), is_ascii))
    blocks = [drawing.counts(), *drawing.parts(), *drawing.circles()]
    return Text("\n\n").join(block for block in blocks if block.plain)


class _Drawing:
    """The graph, and what it is drawn with."""

    def __init__(self, graph: Graph, pen: Pen) -> None:
        self.graph = graph
        self.nodes = graph.nodes
        self.pen = pen
        links = [(before, after) for before, after, _ in graph.links()]
        self.turned = closing(len(self.nodes), [edge for edge in links if edge[0] != edge[1]])
        self.turned |= {edge for edge in links if edge[0] == edge[1]}
        self.edges = [edge for edge in links if edge not in self.turned]

    def counts(self) -> Text:
        total = len(self.nodes)
        title = f"{total:,} task{'' if total == 1 else 's'}"
        return self.pen.counts(title, self.graph.counts(), self.graph.cut)

    def circles(self) -> Iterator[Text]:
        """Waits that close a circle: nothing of it can ever run."""
        names = [self.pen.fit(node.name, 40) for node in self.nodes]
        lines = [f"{names[after]} waits for {names[before]}" for before, after in sorted(self.turned)]
        if lines:
            shown = lines[:10] + ([f"and {len(lines) - 10:,} more"] if len(lines) > 10 else [])
            yield Text("and in a circle:\n  " + "\n  ".join(shown), "red")

    def parts(self) -> Iterator[Text]:
        if len(self.nodes) > MOST_LISTED:
            yield self.summary()
            return
        singles = []
        for members in parts(len(self.nodes), self.edges):
            if len(members) == 1:
                singles.append(members[0])
            else:
                yield self.part(members)
        if singles:
            yield self.flow(singles)

    def part(self, members: Sequence[int]) -> Text:
        number = {node: place for place, node in enumerate(members)}
        edges = [(number[b], number[a]) for b, a in self.edges if b in number]
        nodes = [self.nodes[node] for node in members]
        if len(members) <= MOST_DRAWN:
            drawn = lined(self.pen, nodes, arrange(len(members), edges))
            if drawn is not None:
                return drawn
        return tree(self.pen, nodes, edges)

    def flow(self, singles: Sequence[int]) -> Text:
        """Tasks that stand alone, side by side."""
        labels = [self.pen.label(self.nodes[node], 30) for node in singles]
        wide = max(cells(one.plain) for one in labels) + ALONG
        columns = max((self.pen.width + ALONG) // wide, 1)
        rows = -(-len(labels) // columns)
        lines = []
        for row in range(rows):
            line = Text()
            for one in labels[row::rows]:
                line.append(" " * (-cells(line.plain) % wide))
                line.append_text(one)
            lines.append(line)
        return Text("\n").join(lines)

    # --- a line for each layer ------------------------------------------------------------------

    def summary(self) -> Text:
        """How far each layer is, and what it is made of."""
        level = levels(len(self.nodes), self.edges)
        depth = 1 + max(level, default=0)
        size = -(-depth // MOST_BANDS)
        bands: list[list[GraphNode]] = [[] for _ in range(-(-depth // size))]
        for place, node in enumerate(self.nodes):
            bands[level[place] // size].append(node)
        most = max(map(len, bands))
        titles = [_band(number, size, depth) for number in range(len(bands))]
        wide = max(map(len, titles))
        bar = max(min(self.pen.width - wide - 40, 30), 8)
        lines = []
        for title, band in zip(titles, bands, strict=True):
            line = Text.assemble((title.rjust(wide) + "  ", "dim"))
            line.append_text(self.bar(band, bar, most))
            line.append(f"  {len(band):>{len(f'{most:,}')},}")
            counted = Counter(node.state for node in band)
            for state, _ in self.graph.counts():
                if counted[state]:
                    shown = f"  {self.pen.sign(state)} {counted[state]:,}"
                    line.append(shown, STYLES[state][2])
            line.append(f"  {self.kinds(band)}", "dim")
            line.truncate(self.pen.width, overflow="crop" if self.pen.is_ascii else "ellipsis")
            lines.append(line)
        return Text("\n").join(lines)

    def bar(self, band: Sequence[GraphNode], width: int, most: int) -> Text:
        """As long as the layer is broad, in the colours of its states."""
        full = max(round(len(band) / most * width), 1)
        counted = Counter(node.state for node in band)
        order = [state for state, _ in self.graph.counts() if counted[state]]
        order.sort(key=lambda state: state != "completed")
        drawn, used, seen = Text(), 0, 0
        for state in order:
            seen += counted[state]
            end = round(seen / len(band) * full)
            block = self.pen.sign(state) if self.pen.is_ascii else "█" if state == "completed" else "▒"
            drawn.append(block * (end - used), STYLES[state][2])
            used = end
        return drawn.append(" " * (width - full))

    def kinds(self, band: Sequence[GraphNode]) -> str:
        kinds = Counter(_stem(node) for node in band)
        by = "x" if self.pen.is_ascii else "×"
        named = [
            f"{self.pen.fit(kind, 24)}{f' {by}{count:,}' if count > 1 else ''}"
            for kind, count in kinds.most_common(3)
        ]
        return ", ".join(named) + (f" and {len(kinds) - 3:,} more" if len(kinds) > 3 else "")


def _stem(node: GraphNode) -> str:
    """What the tasks of a kind have in common: the type, or the name without its number."""
    if node.name == node.task_id and node.type:
        return node.type
    return _NUMBER.sub("", node.name) or node.name


def _band(number: int, size: int, depth: int) -> str:
    first, last = number * size + 1, min((number + 1) * size, depth)
    return f"layer {first:,}" if first == last else f"layers {first:,}-{last:,}"
