"""Where the tasks of a graph go: in layers, with few crossings, and near to what they are tied to.

The method of Sugiyama, Tagawa and Toda (Methods for Visual Understanding of Hierarchical System
Structures, IEEE Trans. SMC 1981), in four steps, all in a fixed order, so that the same graph always
gives the same picture:

1. Edges that close a circle are turned around (`turned`), so that what is left has an order.
2. Each node goes one layer below the lowest that it waits for; one that waits for nobody goes right
   above the first that waits for it.
3. An edge over several layers gets a bend in each layer between. Edges of one node share their bends,
   as they share a line in the picture. Each layer is then sorted by the mean place of its neighbours,
   down and up again, and the best order that was seen is kept (by crossings, counted exactly).
4. `places` moves the nodes of each layer as near as it can to the mean of their neighbours without
   changing their order: for one layer that is isotonic regression, solved by pooling adjacent
   violators in one pass.

Parts that are not tied to each other are laid out one by one (`parts`).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

Edge = tuple[int, int]

ROUNDS: Final = 8
"""Sweeps down and up while sorting layers; more hardly ever find fewer crossings."""

ENOUGH_CROSSINGS: Final = 30_000
"""With more there is nothing to see in the order anyway: two sweeps do."""

STEPS: Final = (8, 16)
"""Sweeps of placing: towards the neighbours on one side in turn, then towards all of them."""

LARGE: Final = 1_500
"""Vertices from which on there are fewer of them."""

FEWER_STEPS: Final = (4, 6)

MOST_BENDS: Final = 20_000
"""Edges for which no bend is left go straight from layer to layer."""

STRAIGHT: Final = 8.0
"""How much more a line between two bends pulls than an edge: long lines are to be straight."""


@dataclass(frozen=True, slots=True)
class Layered:
    """A graph in layers. Vertices 0..count-1 are its nodes, the others are bends."""

    count: int
    rows: tuple[tuple[int, ...], ...]
    """The vertices of each layer, in order."""
    layer: tuple[int, ...]
    """Of each vertex."""
    links: tuple[Edge, ...]
    """Between neighbouring layers, upper vertex first."""
    routes: dict[Edge, tuple[int, ...]]
    """Of each edge as it was given: the vertices from its first node to its second.
    An edge that was turned runs upwards."""
    turned: frozenset[Edge]
    """Edges that close a circle."""

    def is_bend(self, vertex: int) -> bool:
        """No node, but where a long edge passes a layer."""
        return vertex >= self.count


def parts(count: int, edges: Sequence[Edge]) -> list[list[int]]:
    """The nodes of each part that hangs together, in order; single nodes make parts of their own."""
    root = list(range(count))

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    for before, after in edges:
        first, second = sorted((find(before), find(after)))
        root[second] = first
    found: dict[int, list[int]] = {}
    for node in range(count):
        found.setdefault(find(node), []).append(node)
    return list(found.values())


def arrange(count: int, edges: Iterable[Edge]) -> Layered:
    """Layers of a graph of `count` nodes; an edge is (before, after)."""
    given = [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1]]
    turned = closing(count, given)
    straight = [(b, a) if (a, b) in turned else (a, b) for a, b in given]
    level = levels(count, straight)
    bends, links, routes = _bent(count, level, given, turned)
    layer = [*level, *bends]
    rows = _sorted(layer, links)
    return Layered(
        count, tuple(map(tuple, rows)), tuple(layer), tuple(links), routes, frozenset(turned & set(given))
    )


def closing(count: int, edges: Sequence[Edge]) -> set[Edge]:
    """Edges without which no circle is left: those back into the path of a depth-first search."""
    ahead: list[list[int]] = [[] for _ in range(count)]
    for before, after in edges:
        ahead[before].append(after)
    fresh, on_path, done = 0, 1, 2
    state = [fresh] * count
    found: set[Edge] = set()
    has_before = {after for _, after in edges}
    for root in sorted(range(count), key=lambda node: node in has_before):
        if state[root] != fresh:
            continue
        state[root] = on_path
        path = [(root, iter(ahead[root]))]
        while path:
            node, rest = path[-1]
            for other in rest:
                if state[other] == on_path:
                    found.add((node, other))
                elif state[other] == fresh:
                    state[other] = on_path
                    path.append((other, iter(ahead[other])))
                    break
            else:
                state[node] = done
                path.pop()
    return found


def levels(count: int, edges: Sequence[Edge]) -> list[int]:
    """The layer of each node of a graph without circles: the longest way to it."""
    ahead: list[list[int]] = [[] for _ in range(count)]
    left = [0] * count
    for before, after in edges:
        ahead[before].append(after)
        left[after] += 1
    level = [0] * count
    ready = [node for node in range(count) if not left[node]]
    starts = list(ready)
    for node in ready:  # grows while it is walked through
        for other in ahead[node]:
            level[other] = max(level[other], level[node] + 1)
            left[other] -= 1
            if not left[other]:
                ready.append(other)
    for node in starts:
        if ahead[node]:
            level[node] = min(level[other] for other in ahead[node]) - 1
    return level


def _bent(
    count: int, level: Sequence[int], edges: Sequence[Edge], turned: set[Edge]
) -> tuple[list[int], list[Edge], dict[Edge, tuple[int, ...]]]:
    """The layers of the bends, the links between neighbouring layers, and the way of each edge."""
    layers: list[int] = []
    links: dict[Edge, None] = {}
    routes: dict[Edge, tuple[int, ...]] = {}
    bend_of: dict[tuple[int, int], int] = {}
    for edge in sorted(edges, key=lambda one: abs(level[one[1]] - level[one[0]])):
        upper, lower = (edge[1], edge[0]) if edge in turned else edge
        between = range(level[upper] + 1, level[lower])
        needed = sum((upper, depth) not in bend_of for depth in between)
        way = [upper]
        if len(layers) + needed <= MOST_BENDS:
            for depth in between:
                bend = bend_of.setdefault((upper, depth), count + len(layers))
                if bend == count + len(layers):
                    layers.append(depth)
                way.append(bend)
            links.update(dict.fromkeys(zip(way, [*way[1:], lower], strict=True)))
        way.append(lower)
        routes[edge] = tuple(reversed(way)) if edge in turned else tuple(way)
    return layers, list(links), {edge: routes[edge] for edge in edges}


def _sorted(layer: Sequence[int], links: Sequence[Edge]) -> list[list[int]]:
    """The layers, each in an order with few crossings."""
    above: list[list[int]] = [[] for _ in layer]
    below: list[list[int]] = [[] for _ in layer]
    for upper, lower in links:
        below[upper].append(lower)
        above[lower].append(upper)
    rows = _first_order(layer, below)
    best, fewest = [list(row) for row in rows], crossings(rows, below)
    rounds = ROUNDS if fewest < ENOUGH_CROSSINGS else 2
    for number in range(rounds):
        if not fewest:
            break
        downwards = number % 2 == 0
        near, order = (above, rows) if downwards else (below, rows[::-1])
        place: dict[int, int] = {vertex: at for at, vertex in enumerate(order[0])}
        for row in order[1:]:
            _sort(row, near, place)
            place.update((vertex, at) for at, vertex in enumerate(row))
        found = crossings(rows, below)
        if found < fewest:
            best, fewest = [list(row) for row in rows], found
    return best


def _first_order(layer: Sequence[int], below: Sequence[Sequence[int]]) -> list[list[int]]:
    """The layers in the order of a depth-first walk: what hangs together begins side by side."""
    rows: list[list[int]] = [[] for _ in range(1 + max(layer, default=-1))]
    seen = [False] * len(layer)
    for root in sorted(range(len(layer)), key=lambda vertex: layer[vertex]):
        waiting = [root]
        while waiting:
            vertex = waiting.pop()
            if not seen[vertex]:
                seen[vertex] = True
                rows[layer[vertex]].append(vertex)
                waiting.extend(reversed(below[vertex]))
    return rows


def _sort(row: list[int], near: Sequence[Sequence[int]], place: dict[int, int]) -> None:
    """By the mean place of the neighbours; who has none stays where it is."""
    means = {
        vertex: sum(place[other] for other in near[vertex]) / len(near[vertex])
        for vertex in row
        if near[vertex]
    }
    moving = iter(sorted(means, key=means.__getitem__))
    row[:] = [next(moving) if vertex in means else vertex for vertex in row]


def crossings(rows: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> int:
    """How many pairs of links cross."""
    total = 0
    for upper, lower in pairwise(rows):
        place = {vertex: at for at, vertex in enumerate(lower)}
        passed: list[int] = []
        for vertex in upper:
            ends = sorted(place[other] for other in below[vertex])
            total += sum(len(passed) - bisect_right(passed, end) for end in ends)
            for end in ends:
                insort(passed, end)
    return total


def places(layered: Layered, size: Callable[[int], float], gap: float) -> list[float]:
    """The middle of each vertex across the layers, so that neighbours in a layer are `gap` apart.

    The smallest edge of all is at 0.
    """
    count = len(layered.layer)
    pulls = _pulls(layered)
    half = [size(vertex) / 2 for vertex in range(count)]
    at = [0.0] * count
    rows = []
    for row in layered.rows:
        offset, offsets = 0.0, []
        for place, vertex in enumerate(row):
            offset += half[row[place - 1]] + gap + half[vertex] if place else 0.0
            offsets.append(offset)
            at[vertex] = offset
        rows.append((row, offsets))
    turns, more = STEPS if count < LARGE else FEWER_STEPS
    for step in range(turns + more):
        ties = pulls[step % 2 if step < turns else 2]
        for row, offsets in rows if step % 2 == 0 else reversed(rows):
            _settle(row, offsets, ties, at)
    least = min((at[vertex] - half[vertex] for vertex in range(count)), default=0.0)
    return [place - least for place in at]


_Ties = list[tuple[list[tuple[int, float]], float]]
"""For each vertex: the others and how much each pulls, as shares of one, and how much they pull in all."""


def _pulls(layered: Layered) -> list[_Ties]:
    """What pulls each vertex: those above it, those below it, all of them."""
    above: list[list[tuple[int, float]]] = [[] for _ in layered.layer]
    below: list[list[tuple[int, float]]] = [[] for _ in layered.layer]
    for upper, lower in layered.links:
        weight = (1.0, 2.0, STRAIGHT)[layered.is_bend(upper) + layered.is_bend(lower)]
        above[lower].append((upper, weight))
        below[upper].append((lower, weight))
    both = [[*up, *down] for up, down in zip(above, below, strict=True)]
    found = []
    for ties in (above, below, both):
        sums = [sum([weight for _, weight in one]) for one in ties]
        shares = [
            [(other, weight / total) for other, weight in one] for one, total in zip(ties, sums, strict=True)
        ]
        found.append(list(zip(shares, sums, strict=True)))
    return found


def _settle(row: Sequence[int], offsets: Sequence[float], ties: _Ties, at: list[float]) -> None:
    """The places nearest to where each is pulled (weighted least squares) that keep order and distance."""
    means: list[float] = []  # of blocks that move as one, as places of their first member
    weights: list[float] = []
    sizes: list[int] = []
    for vertex, offset in zip(row, offsets, strict=True):
        near, weight = ties[vertex]
        wish = 0.0
        if weight:
            for other, share in near:
                wish += at[other] * share
        else:
            wish, weight = at[vertex], 0.01
        mean, many = wish - offset, 1
        while means and means[-1] > mean:
            before = weights.pop()
            mean = (mean * weight + means.pop() * before) / (weight + before)
            weight += before
            many += sizes.pop()
        means.append(mean)
        weights.append(weight)
        sizes.append(many)
    place = 0
    for mean, many in zip(means, sizes, strict=True):
        for number in range(place, place + many):
            at[row[number]] = mean + offsets[number]
        place += many
