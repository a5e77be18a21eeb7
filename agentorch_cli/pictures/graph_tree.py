"""A graph as a tree: each task once, under the last of those that it waits for.

The others that it waits for are named behind it. Tasks that follow each other one by one stand in one
line, so that a long chain does not run out of the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from agentorch_cli.pictures.layers import Edge, levels
from agentorch_cli.pictures.model import GraphNode
from agentorch_cli.pictures.pen import Pen
from agentorch_cli.pictures.words import cells

LONGEST = 40
"""Letters of a name."""


def tree(pen: Pen, nodes: Sequence[GraphNode], edges: Sequence[Edge]) -> Text:
    """The tree of a part of a graph without circles; an edge is (before, after)."""
    return _Tree(pen, nodes, edges).draw()


class _Tree:
    def __init__(self, pen: Pen, nodes: Sequence[GraphNode], edges: Sequence[Edge]) -> None:
        self.pen = pen
        self.nodes = nodes
        self.before: list[list[int]] = [[] for _ in nodes]
        for first, second in edges:
            self.before[second].append(first)
        level = levels(len(nodes), edges)
        self.below: list[list[int]] = [[] for _ in nodes]
        self.above = [-1] * len(nodes)
        for place, needed in enumerate(self.before):
            if needed:
                self.above[place] = max(needed, key=lambda one: (level[one], -one))
                self.below[self.above[place]].append(place)

    def draw(self) -> Text:
        lines: list[Text] = []
        pipe, tee, corner = ("|  ", "+- ", "`- ") if self.pen.is_ascii else ("│  ", "├─ ", "╰─ ")
        roots = [place for place, above in enumerate(self.above) if above < 0]
        stack = [(root, "", "") for root in reversed(roots)]
        while stack:
            place, lead, margin = stack.pop()
            last = self.chain(lines, place, lead, margin)
            for number, child in reversed(list(enumerate(self.below[last]))):
                is_last = number == len(self.below[last]) - 1
                branch, rest = (corner, "   ") if is_last else (tee, pipe)
                if len(margin) >= self.pen.width // 2:  # no room for another step
                    branch, rest = "> " if self.pen.is_ascii else "› ", ""
                stack.append((child, margin + branch, margin + rest))
        for line in lines:
            line.truncate(self.pen.width, overflow="crop")
        return Text("\n").join(lines)

    def chain(self, lines: list[Text], place: int, lead: str, margin: str) -> int:
        """Tasks that follow each other one by one, in as many lines as they need; gives the last."""
        lines.append(Text.assemble((lead, "dim")))
        step = Text()
        while True:
            item = self.item(place, self.pen.width - len(margin) - 8)
            if step.plain and cells(lines[-1].plain + step.plain + item.plain) > self.pen.width:
                lines.append(Text.assemble((margin + " ", "dim")))
            lines[-1].append_text(step).append_text(item)
            if len(self.below[place]) != 1:
                return place
            place = self.below[place][0]
            step = Text(f" {self.pen.arrow} ", "dim")

    def item(self, place: int, room: int) -> Text:
        """A task, with what else it waits for."""
        item = self.pen.label(self.nodes[place], max(min(room, LONGEST), 8))
        others = [one for one in self.before[place] if one != self.above[place]]
        if others:
            names = [self.pen.fit(self.nodes[one].name, 20) for one in others[:3]]
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            item.append(f" (also after {', '.join(names)}{more})", "dim")
        return item
