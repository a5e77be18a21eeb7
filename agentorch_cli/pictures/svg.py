"""The pictures as SVG: one self-contained text each, for a file, a README, or a page.

Light and dark follow the reader's preference. With `with_style=False` the style sheet
(`ink.STYLE`) is left to the page around, whose security policy may forbid others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log, sqrt
from typing import Final

from agentorch_cli.pictures.ink import LETTER, document, label, legend, num, sign, tooltip
from agentorch_cli.pictures.layers import Edge, Layered, arrange, parts, places
from agentorch_cli.pictures.model import Bar, Graph, GraphNode, Timeline, outcome
from agentorch_cli.pictures.words import cells, few, fitted, marks, span, state_words

MARGIN: Final = 24.0
LEGEND: Final = 40.0

BOX: Final = 42.0
"""Height of a node."""

NARROWEST, WIDEST = 12, 26
"""Letters of a name for which a node has room."""

LAYER_GAP: Final = {True: 66.0, False: 46.0}
"""Between layers, where the graph runs to the right and where it runs downwards."""

NODE_GAP: Final = 14.0
BEND: Final = 6.0

SHAPE: Final = 1.6
"""Width to height of a screen: a graph runs to the right or downwards, whichever comes nearer."""

NAMES: Final = 26
"""Letters of a name beside a bar."""

LANE: Final = 22.0
BAR: Final = 14.0
AXIS: Final = 860.0
"""Width of the time axis."""


# --- the graph ----------------------------------------------------------------------------------


def graph_svg(graph: Graph, *, with_style: bool = True) -> str:
    """The graph in layers; the tooltip of a task says what is known of it."""
    plan = _Plan.of(graph)
    width, height = plan.width + 2 * MARGIN, plan.height + 2 * MARGIN + LEGEND
    signs, legend_width = legend(graph.counts(), MARGIN, MARGIN)
    content = [signs]
    if graph.cut:
        more = f"and {graph.cut:,} more that are not shown"
        content.append(label(MARGIN + legend_width, MARGIN + 4, more, "faint"))
        legend_width += len(more) * LETTER
    content.append(f'<g transform="translate({num(MARGIN)} {num(MARGIN + LEGEND)})">')
    content += _edges(graph, plan)
    content += [_node(node, *plan.spots[place], plan.box) for place, node in enumerate(graph.nodes)]
    content.append("</g>")
    tasks = f"{len(graph.nodes):,} task{'' if len(graph.nodes) == 1 else 's'}"
    return document(
        max(width, legend_width + 2 * MARGIN), height, f"Graph of {tasks}", content, with_style=with_style
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where everything goes: nodes by their middle, edges by the points that they pass."""

    box: float
    """Width of a node."""
    is_right: bool
    """Layers follow each other to the right; else downwards."""
    spots: dict[int, tuple[float, float]]
    ways: dict[Edge, list[tuple[float, float]]]
    turned: frozenset[Edge]
    width: float
    height: float

    @classmethod
    def of(cls, graph: Graph) -> _Plan:
        longest = max((cells(fitted(node.name, WIDEST)) for node in graph.nodes), default=0)
        box = max(longest, NARROWEST) * LETTER + 44
        edges = [(before, after) for before, after, _ in graph.links()]
        found = parts(len(graph.nodes), edges)
        part_of = {node: number for number, members in enumerate(found) for node in members}
        own: list[list[Edge]] = [[] for _ in found]
        for edge in edges:
            own[part_of[edge[0]]].append(edge)
        singles = [members[0] for members in found if len(members) == 1]
        layered = [
            (members, _numbered(members, own[number]))
            for number, members in enumerate(found)
            if len(members) > 1
        ]
        is_right = _is_right(layered, len(singles), box)
        return _placed(layered, singles, box, is_right=is_right)


def _numbered(members: Sequence[int], edges: Sequence[Edge]) -> Layered:
    """The layers of one part, whose nodes get numbers of their own."""
    number = {node: place for place, node in enumerate(members)}
    return arrange(len(members), [(number[before], number[after]) for before, after in edges])


def _is_right(layered: Sequence[tuple[list[int], Layered]], singles: int, box: float) -> bool:
    """Whether a graph that runs to the right is nearer to the shape of a screen than one that runs down."""
    depth = max((len(one.rows) for _, one in layered), default=1)
    broad = sum(max(len(row) for row in one.rows) for _, one in layered) or ceil(sqrt(singles))
    right = depth * (box + LAYER_GAP[True]) / (broad * (BOX + NODE_GAP))
    down = broad * (box + NODE_GAP) / (depth * (BOX + LAYER_GAP[False]))
    return abs(log(right / SHAPE)) <= abs(log(down / SHAPE))


def _placed(
    layered: Sequence[tuple[list[int], Layered]], singles: Sequence[int], box: float, *, is_right: bool
) -> _Plan:
    across, along = (BOX, box) if is_right else (box, BOX)
    step = along + LAYER_GAP[is_right]
    spots: dict[int, tuple[float, float]] = {}
    ways: dict[Edge, list[tuple[float, float]]] = {}
    turned: set[Edge] = set()
    start, length = 0.0, 0.0

    def point(at: float, depth: float) -> tuple[float, float]:
        where = start + at, along / 2 + depth * step
        return where[::-1] if is_right else where

    for members, one in layered:
        sizes = [across if vertex < one.count else BEND for vertex in range(len(one.layer))]
        at = places(one, sizes.__getitem__, NODE_GAP)
        spots.update((node, point(at[vertex], one.layer[vertex])) for vertex, node in enumerate(members))
        for (before, after), way in one.routes.items():
            ways[members[before], members[after]] = [point(at[v], one.layer[v]) for v in way]
        turned |= {(members[before], members[after]) for before, after in one.turned}
        start += max(place + size / 2 for place, size in zip(at, sizes, strict=True)) + 2 * NODE_GAP
        length = max(length, len(one.rows) * step - LAYER_GAP[is_right])
    if singles:
        # beside a graph in as many rows as it has layers, else in a square
        many = max(round((length + LAYER_GAP[is_right]) / step), 1) if layered else 0
        many = many or max(1, ceil(sqrt(len(singles) * SHAPE * across / step)))
        for number, node in enumerate(singles):
            spots[node] = point(number // many * (across + NODE_GAP) + across / 2, number % many)
        start += ceil(len(singles) / many) * (across + NODE_GAP) + NODE_GAP
        length = max(length, min(len(singles), many) * step - LAYER_GAP[is_right])
    breadth = max(start - 2 * NODE_GAP, across)
    size = (max(length, along), breadth) if is_right else (breadth, max(length, along))
    return _Plan(box, is_right, spots, ways, frozenset(turned), *size)


def _edges(graph: Graph, plan: _Plan) -> Iterator[str]:
    half = plan.box / 2 if plan.is_right else BOX / 2
    for before, after, kind in graph.links():
        names = f"{graph.nodes[before].name}", f"{graph.nodes[after].name}"
        if before == after:
            continue
        is_turned = (before, after) in plan.turned
        classes = "edge" + (" made" if kind == "sub_task" else "") + (" circle" if is_turned else "")
        points = [p if plan.is_right else p[::-1] for p in plan.ways[before, after]]  # along first
        back = -1 if is_turned else 1
        points[0] = points[0][0] + back * half, points[0][1]
        end = points[-1][0] - back * half, points[-1][1]
        points[-1] = end[0] - back * 6, end[1]
        shown = _curve(points, half, is_right=plan.is_right)
        words = "made" if kind == "sub_task" else "before"
        yield f'<g>{tooltip([f"{names[0]} {words} {names[1]}"])}<path class="{classes}" d="{shown}"/>'
        tip = [(end[0] - back * 7, end[1] - 3.4), end, (end[0] - back * 7, end[1] + 3.4)]
        yield f'<path class="tip" d="M{" ".join(_xy(one, is_right=plan.is_right) for one in tip)}Z"/></g>'


def _curve(points: Sequence[tuple[float, float]], half: float, *, is_right: bool) -> str:
    """A smooth line through points (along the layers first), straight past the nodes of a layer."""
    drawn = "M" + _xy(points[0], is_right=is_right)
    leave = points[0]
    for number, arrive in enumerate(points[1:], start=1):
        is_bend = number < len(points) - 1
        side = half if arrive[0] > leave[0] else -half
        entry = (arrive[0] - side, arrive[1]) if is_bend else arrive
        middle = (leave[0] + entry[0]) / 2
        steps = [(middle, leave[1]), (middle, entry[1]), entry]
        drawn += "C" + " ".join(_xy(one, is_right=is_right) for one in steps)
        if is_bend:
            leave = arrive[0] + side, arrive[1]
            drawn += "L" + _xy(leave, is_right=is_right)
    return drawn


def _xy(point: tuple[float, float], *, is_right: bool) -> str:
    first, second = point if is_right else point[::-1]
    return f"{num(first)} {num(second)}"


def _node(node: GraphNode, x: float, y: float, box: float) -> str:
    state = node.state
    told = [
        node.name,
        node.task_id if node.task_id != node.name else "",
        state_words(node.status) + (f": {', '.join(node.agents)}" if node.agents else ""),
        f"type {node.type}" if node.type else "",
        node.note,
    ]
    room = int((box - 40) / LETTER)
    less = int(room * 1.12)
    said = node.note if state in ("failed", "unknown") else ""
    below = few(node.agents, less) or fitted(said or state_words(state), less)
    left, top = x - box / 2, y - BOX / 2
    return (
        f'<g class="node {state}">{tooltip(told)}'
        f'<rect class="paper" x="{num(left)}" y="{num(top)}" width="{num(box)}" height="{num(BOX)}" rx="8"/>'
        f'<rect class="box" x="{num(left)}" y="{num(top)}" width="{num(box)}" height="{num(BOX)}" rx="8"/>'
        + sign(state, left + 16, y - 7)
        + label(left + 30, y - 3, fitted(node.name, room), "strong")
        + label(left + 30, y + 13, below, "faint small")
        + "</g>"
    )


# --- the timeline -------------------------------------------------------------------------------


def timeline_svg(timeline: Timeline, *, with_style: bool = True) -> str:
    """A bar for each attempt, light where a task waits; the chain that took the longest is marked."""
    rows = timeline.rows()
    names = max((cells(fitted(lanes[0][0].name, NAMES)) for lanes in rows), default=0)
    left = MARGIN + 36 + max(names, 8) * LETTER
    height = sum(map(len, rows)) * LANE
    top = MARGIN + LEGEND + 14
    content = list(_head(timeline, rows))
    content += _axis(timeline, left, top, height)
    y = top
    critical = set(timeline.critical)
    for lanes in rows:
        content.append(_row(timeline, lanes, left, y, is_critical=lanes[0][0].task_id in critical))
        y += LANE * len(lanes)
    if timeline.is_open:
        x = left + AXIS
        content.append(
            f'<g class="failed"><path class="now" d="M{num(x)} {num(top - 8)}V{num(y + 4)}"/></g>'
            + label(x, y + 18, "now", "faint small", "middle")
        )
    tasks = f"{len(rows):,} task{'' if len(rows) == 1 else 's'}"
    return document(
        left + AXIS + 76 + MARGIN,
        y + MARGIN + 6,
        f"Timeline of {tasks}, {span(timeline.seconds)}",
        content,
        with_style=with_style,
    )


def _head(timeline: Timeline, rows: Sequence[Sequence[Sequence[Bar]]]) -> Iterator[str]:
    counts: dict[str, int] = {}
    for lanes in rows:
        state = outcome(lanes)
        counts[state] = counts.get(state, 0) + 1
    signs, width = legend(counts.items(), MARGIN, MARGIN)
    yield signs
    x = MARGIN + width
    if timeline.critical:
        mark = f'<rect class="path" x="{num(x)}" y="{num(MARGIN - 6)}" width="3" height="12"/>'
        yield f'<g class="failed">{mark}</g>'
        words = (
            f"the longest chain: {len(timeline.critical):,} task{'' if len(timeline.critical) == 1 else 's'}"
        )
        yield label(x + 10, MARGIN + 4, words, "faint")
        x += 10 + len(words) * LETTER + 20
    if timeline.cut:
        yield label(x, MARGIN + 4, f"and {timeline.cut:,} tasks that are not shown", "faint")


def _axis(timeline: Timeline, left: float, top: float, height: float) -> Iterator[str]:
    for at, words in marks(timeline.seconds, 9):
        x = left + (at / timeline.seconds * AXIS if timeline.seconds else 0)
        yield f'<path class="grid" d="M{num(x)} {num(top - 6)}V{num(top + height)}"/>'
        yield label(x, top - 11, words, "faint small", "middle")


def _row(
    timeline: Timeline, lanes: Sequence[Sequence[Bar]], left: float, y: float, *, is_critical: bool
) -> str:
    first = lanes[0][0]
    state = outcome(lanes)
    told = [first.name, first.task_id if first.task_id != first.name else "", state_words(state)]
    mark = (
        f'<g class="failed"><rect class="path" x="{num(MARGIN - 12)}" y="{num(y + 3)}" width="3"'
        f' height="{num(LANE * len(lanes) - 6)}"/></g>'
        if is_critical
        else ""
    )
    work = [bar for lane in lanes for bar in lane if not bar.is_wait]
    took = (
        span((max(bar.end for bar in work) - min(bar.start for bar in work)).total_seconds()) if work else ""
    )
    name = label(MARGIN + 18, y + LANE / 2 + 4, fitted(first.name, NAMES), "strong" if is_critical else "")
    drawn = [
        f"<g>{tooltip(told)}{mark}{sign(state, MARGIN + 6, y + LANE / 2)}{name}</g>",
        label(left + AXIS + 10, y + LANE / 2 + 4, took, "faint small"),
    ]
    for number, lane in enumerate(lanes):
        drawn += [_bar(timeline, bar, left, y + number * LANE) for bar in lane]
    return "".join(drawn)


def _bar(timeline: Timeline, bar: Bar, left: float, y: float) -> str:
    whole = timeline.seconds or 1.0
    start = left + timeline.offset(bar.start) / whole * AXIS
    width = max((bar.end - bar.start).total_seconds() / whole * AXIS, 2.0)
    told = [bar.name, f"{state_words(bar.status)}, {span(bar.seconds)}{' so far' if bar.is_open else ''}"]
    if bar.is_wait:
        words = "waits for other tasks" if bar.status == "blocked" else "waits for an agent"
        told = [bar.name, f"{words}, {span(bar.seconds)}{' so far' if bar.is_open else ''}"]
        high, kind = (3.0, "wait idle") if bar.status == "blocked" else (6.0, "wait")
        content = _rect(start, y + (LANE - high) / 2, width, high, kind)
    else:
        told += [f"{bar.agent}, attempt {bar.attempt}", f"from +{span(timeline.offset(bar.start))}"]
        content = _rect(start, y + (LANE - BAR) / 2, width, BAR, "bar")
        room = int((width - 10) / (LETTER * 0.88))
        if room >= 3:
            content += label(start + 5, y + LANE / 2 + 3.6, fitted(bar.agent, room), "inside small")
    return f'<g class="{bar.state}">{tooltip(told)}{content}</g>'


def _rect(x: float, y: float, width: float, height: float, classes: str) -> str:
    return (
        f'<rect class="{classes}" x="{num(x)}" y="{num(y)}" width="{num(width)}" height="{num(height)}"'
        f' rx="{num(min(3.0, height / 2, width / 2))}"/>'
    )
