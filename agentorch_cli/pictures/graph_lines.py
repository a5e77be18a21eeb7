"""A graph on a terminal with a line for each dependency: boxes in layers, or names in columns.

Boxes run from top to bottom; names in columns from left to right, which takes less height. Where two
lines cross without meeting, one of them is seen to pass behind the other (`─│─`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Final

from rich.text import Text

from agentorch_cli.pictures.canvas import EAST, NORTH, SOUTH, WEST, Canvas
from agentorch_cli.pictures.channels import Net, assign, nets_of
from agentorch_cli.pictures.layers import Layered, places
from agentorch_cli.pictures.model import GraphNode
from agentorch_cli.pictures.pen import Pen
from agentorch_cli.pictures.words import cells, state_words
from agentorch_cli.signs import STYLES

MOST_TRACKS: Final = 24
"""Lines side by side between two layers: of more nobody sees where one goes."""

BOX_NAMES: Final = (24, 16, 12)
COLUMN_NAMES: Final = (30, 22, 16, 11)
"""Letters of a name: as many as fit, these one after the other."""

READABLE: Final = 16
"""Letters below which a cut name tells little: where many would be cut so short, a tree shows them whole."""

NEARLY: Final = 2
"""Steps across that a task gives way for a straight line."""

BOX_LINES: Final = 36
"""Boxes that take more give way to columns."""


def lined(pen: Pen, nodes: Sequence[GraphNode], layered: Layered) -> Text | None:
    """Boxes or columns, whichever fit into the width with names that can be read; None: neither does."""
    if len(layered.rows) * 4 <= BOX_LINES:
        for most, step in product(BOX_NAMES, (1, 2)):
            boxes = _fitting(_Boxes(pen, nodes, layered, most, step))
            if boxes is not None and boxes.plain.count("\n") < BOX_LINES:
                return boxes
    for step in (1, 2):
        form = _Columns(pen, nodes, layered, step)
        for most in COLUMN_NAMES:
            if most < READABLE and sum(cells(node.name) > most for node in nodes) * 3 > len(nodes):
                break
            form.name(most)
            columns = _fitting(form)
            if columns is not None:
                return columns
    return None


def _fitting(form: _Form) -> Text | None:
    """The picture, if it is no wider than it may be."""
    if form.least > form.pen.width:
        return None
    drawn = form.draw()
    if drawn is None or max(cells(line) for line in drawn.plain.split("\n")) > form.pen.width:
        return None
    return drawn


class _Form:
    """Nodes in layers with lines between them. `along` counts from layer to layer, `across` within one."""

    can_shift = True

    def __init__(self, pen: Pen, nodes: Sequence[GraphNode], layered: Layered) -> None:
        self.pen = pen
        self.nodes = nodes
        self.layered = layered
        self.below: list[list[int]] = [[] for _ in layered.layer]
        for upper, lower in layered.links:
            self.below[upper].append(lower)
        self.awaited = {lower for _, lower in layered.links}
        self.origin = list(range(len(layered.layer)))
        for way in layered.routes.values():
            for vertex in way[1:-1]:
                self.origin[vertex] = way[0]

    def draw(self) -> Text | None:
        """The picture; None where the lines would be too many to follow."""
        self.canvas = Canvas(is_ascii=self.pen.is_ascii)
        at = self.across()
        along = 0
        for depth, row in enumerate(self.layered.rows):
            size = self.size(row)
            for vertex in row:
                if self.layered.is_bend(vertex):
                    self.pass_by(along, along + size, at[vertex], self.style([vertex]))
                else:
                    self.node(vertex, along, at[vertex], size)
            along += size
            if depth < len(self.layered.rows) - 1:
                ways = [
                    (one, at[one], [at[other] for other in self.below[one]]) for one in row if self.below[one]
                ]
                nets = nets_of(ways)
                tracks = assign(nets, can_shift=self.can_shift)
                if tracks is None or tracks > MOST_TRACKS:
                    return None
                along = self.gap(along, nets, tracks, at, depth + 1)
        return self.canvas.text()

    def gap(self, along: int, nets: Sequence[Net], tracks: int, at: Sequence[int], depth: int) -> int:
        """The lines between two layers; gives where the next one begins."""
        first = along + self.lead + any(net.is_shifted for net in nets)
        end = first + tracks + self.tail
        for net in nets:
            style = self.style(net.origins)
            if net.track < 0:
                self.pass_by(along, end, net.sources[0], style)
                continue
            track = first + net.track
            ends = dict.fromkeys(net.starts, self.back)
            for origin, source, start in zip(net.origins, net.sources, net.starts, strict=True):
                own = self.style([origin])
                if net.is_shifted:
                    self.pass_by(along, first - 1, source, own)
                    self.bit(first - 1, source, self.back | self.more, own, joins=True)
                    self.bit(first - 1, start, self.less | self.ahead, own, joins=True)
                self.pass_by(first if net.is_shifted else along, track, start, own)
            for target in net.targets:
                ends[target] = ends.get(target, 0) | self.ahead
                self.pass_by(track + 1, end, target, style)
            for across in range(net.low, net.high + 1):
                sides = self.less if across > net.low else 0
                sides |= self.more if across < net.high else 0
                self.bit(track, across, sides | ends.get(across, 0), style, joins=across in ends)
        for vertex in self.layered.rows[depth]:
            if vertex in self.awaited and not self.layered.is_bend(vertex):
                self.arrow(end - 1, at[vertex])
        return end

    def pass_by(self, start: int, end: int, across: int, style: str) -> None:
        for along in range(start, end):
            self.bit(along, across, self.back | self.ahead, style)

    def style(self, vertices: Sequence[int]) -> str:
        """Of a line: whether what it comes from is done, or will never be."""
        states = {self.nodes[self.origin[vertex]].state for vertex in vertices}
        return "green" if states == {"completed"} else "red" if "failed" in states else "dim"

    # --- what makes the difference between boxes and columns ------------------------------------

    back: int
    ahead: int
    less: int
    more: int
    """Sides of a cell: towards the layer before, the next one, lower and higher places across."""
    lead: int
    tail: int
    """Steps in front of the tracks of a gap, and behind them."""

    least = 0
    """Columns that it takes in any case."""

    def across(self) -> list[int]:
        """The place of each vertex."""
        raise NotImplementedError

    def size(self, row: Sequence[int]) -> int:
        """How many steps a layer takes."""
        raise NotImplementedError

    def node(self, vertex: int, along: int, across: int, size: int) -> None:
        """Draw a task."""
        raise NotImplementedError

    def arrow(self, along: int, across: int) -> None:
        """Draw the tip in front of a task."""
        raise NotImplementedError

    def bit(self, along: int, across: int, sides: int, style: str, *, joins: bool = False) -> None:
        """Draw one bit of a line."""
        raise NotImplementedError


class _Boxes(_Form):
    """From top to bottom, each task in a box."""

    back, ahead, less, more = NORTH, SOUTH, WEST, EAST
    lead, tail = 0, 1

    def __init__(self, pen: Pen, nodes: Sequence[GraphNode], layered: Layered, most: int, step: int) -> None:
        super().__init__(pen, nodes, layered)
        self.step = step
        self.can_shift = step > 1
        self.labels = [pen.label(node, most) for node in nodes]
        self.notes = [pen.few(node.agents, max(most, 9)) or state_words(node.state) for node in nodes]
        self.height = 4 if any(node.agents for node in nodes) else 3
        # odd, so that a line meets the middle
        self.wide = [
            (max(cells(label.plain), cells(note) + 2 if self.height > 3 else 0) + 4) | 1
            for label, note in zip(self.labels, self.notes, strict=True)
        ]
        wide = [[self.wide[one] + 2 for one in row if not layered.is_bend(one)] for row in layered.rows]
        self.least = max(map(sum, wide), default=2) - 2

    def across(self) -> list[int]:
        count = self.layered.count
        sizes = [self.wide[vertex] if vertex < count else 1 for vertex in range(len(self.layered.layer))]
        at = places(self.layered, sizes.__getitem__, 2)
        return _whole(
            self.layered, at, lambda one, other: (sizes[one] + sizes[other]) / 2 + 2, self.step, sizes
        )

    def size(self, row: Sequence[int]) -> int:
        return self.height

    def node(self, vertex: int, along: int, across: int, size: int) -> None:
        wide, style = self.wide[vertex], STYLES[self.nodes[vertex].state][2]
        left, right, put = across - wide // 2, across + wide // 2, self.canvas.line
        for column in range(left + 1, right):
            put(along, column, EAST | WEST, style)
            put(along + size - 1, column, EAST | WEST, style)
        for row in range(along + 1, along + size - 1):
            put(row, left, NORTH | SOUTH, style)
            put(row, right, NORTH | SOUTH, style)
        for row, column, sides in (
            (along, left, EAST | SOUTH), (along, right, WEST | SOUTH),
            (along + size - 1, left, EAST | NORTH), (along + size - 1, right, WEST | NORTH),
        ):  # fmt: skip
            put(row, column, sides, style)
        if self.below[vertex]:
            put(along + size - 1, across, SOUTH, style, joins=True)
        self.canvas.styled(along + 1, left + 2, self.labels[vertex])
        if size > 3:
            self.canvas.words(along + 2, left + 4, self.notes[vertex], "dim")

    def arrow(self, along: int, across: int) -> None:
        self.canvas.words(along, across, "v" if self.pen.is_ascii else "▼", "dim")

    def bit(self, along: int, across: int, sides: int, style: str, *, joins: bool = False) -> None:
        self.canvas.line(along, across, sides, style, joins=joins)


class _Columns(_Form):
    """From left to right, each task a line."""

    back, ahead, less, more = WEST, EAST, NORTH, SOUTH
    lead, tail = 1, 2

    def __init__(self, pen: Pen, nodes: Sequence[GraphNode], layered: Layered, step: int) -> None:
        super().__init__(pen, nodes, layered)
        self.can_shift = step > 1
        at = places(layered, lambda vertex: 0, step)
        self.at = _whole(layered, at, lambda one, other: step, step, [0] * len(at))

    def name(self, most: int) -> None:
        """Give the tasks their names, in at most so many letters."""
        self.labels = [self.pen.label(node, most) for node in self.nodes]
        rows = self.layered.rows
        self.least = sum(map(self.size, rows)) + (self.lead + self.tail) * (len(rows) - 1)

    def across(self) -> list[int]:
        return self.at

    def size(self, row: Sequence[int]) -> int:
        shown = [cells(self.labels[vertex].plain) for vertex in row if not self.layered.is_bend(vertex)]
        return max(shown, default=0) + 1

    def node(self, vertex: int, along: int, across: int, size: int) -> None:
        label = self.labels[vertex]
        self.canvas.styled(across, along, label)
        if self.below[vertex]:
            self.pass_by(along + cells(label.plain) + 1, along + size, across, self.style([vertex]))

    def arrow(self, along: int, across: int) -> None:
        self.canvas.words(across, along - 1, ">" if self.pen.is_ascii else "▶", "dim")
        self.canvas.words(across, along, " ")

    def bit(self, along: int, across: int, sides: int, style: str, *, joins: bool = False) -> None:
        self.canvas.line(across, along, sides, style, joins=joins)


def _whole(
    layered: Layered,
    at: Sequence[float],
    apart: Callable[[int, int], float],
    step: int,
    sizes: Sequence[int],
) -> list[int]:
    """The places as multiples of a step, neighbours as far apart as they have to be, the least edge at 0."""
    found = [0] * len(at)
    for row in layered.rows:
        last = -1
        for vertex in row:
            place = round(at[vertex] / step) * step
            if last >= 0:
                least = found[last] + apart(last, vertex)
                place = max(place, int(-(-least // step)) * step)
            found[vertex] = place
            last = vertex
    _straighten(layered, found, apart)
    edge = min((place - sizes[vertex] // 2 for vertex, place in enumerate(found)), default=0)
    move = edge // step * step
    return [place - move for place in found]


def _straighten(layered: Layered, found: list[int], apart: Callable[[int, int], float]) -> None:
    """Move what nearly stands below another to just there, where its row has the room."""
    above: list[list[int]] = [[] for _ in found]
    for upper, lower in layered.links:
        above[lower].append(upper)
    for row in layered.rows:
        for number, vertex in enumerate(row):
            near = min((found[one] - found[vertex] for one in above[vertex]), key=abs, default=0)
            if not 0 < abs(near) <= NEARLY:
                continue
            place = found[vertex] + near
            before, after = row[number - 1] if number else -1, (*row, -1)[number + 1]
            fits_before = before < 0 or place - found[before] >= apart(before, vertex)
            if fits_before and (after < 0 or found[after] - place >= apart(vertex, after)):
                found[vertex] = place
