"""Lines between two neighbouring layers of a graph on a terminal, where a line is a row of characters.

Nodes with the same targets share a track, which runs across between the layers: from each node along
to the track, on the track across, and from there along to each target. Lines to the same target meet
on the last bit. Two rules keep unlike lines apart, as in the routing of channels between rows of
circuits (Hashimoto and Stevens, Wire Routing by Optimizing Channel Assignment, DAC 1971):

- tracks that overlap are different ones, found from the left edge on;
- where a node stands opposite to a target of another track, its own track comes first, or the last
  bit of the other would run into it.

The second rule may go in a circle. Then nodes leave their places by one step, onto places where no
target is (`can_shift`: places have room between them), and are bound by it no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Net:
    """The lines from some nodes to targets in the next layer that they all have; by places across."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    origins: tuple[int, ...]
    """The nodes that the lines belong to, in the order of the sources."""
    track: int = -1
    """-1: it goes straight."""
    is_shifted: bool = False

    @property
    def starts(self) -> tuple[int, ...]:
        """Where its nodes leave for the track."""
        return tuple(place + 1 for place in self.sources) if self.is_shifted else self.sources

    @property
    def low(self) -> int:
        return min(*self.starts, *self.targets)

    @property
    def high(self) -> int:
        return max(*self.starts, *self.targets)


def assign(nets: Sequence[Net], *, can_shift: bool) -> int | None:
    """Gives each net its track; how many there are. None: not without shifting."""
    left = [net for net in nets if net.sources != net.targets or len(net.sources) > 1]
    number = {source: place for place, net in enumerate(left) for source in net.sources}
    blocked_by = [
        {number[at] for at in net.targets if at in number} - {place} for place, net in enumerate(left)
    ]
    waiting = list(range(len(left)))
    tracks = 0
    while waiting:
        free = [place for place in waiting if not blocked_by[place]]
        if not free:
            if not can_shift:
                return None
            blockers = [one for place in waiting for one in blocked_by[place]]
            chosen = max(sorted(set(blockers)), key=blockers.count)
            left[chosen].is_shifted = True
            for blocked in blocked_by:
                blocked.discard(chosen)
            continue
        end: int | None = None
        taken = set()
        for place in sorted(free, key=lambda one: (left[one].low, left[one].high)):
            if end is None or left[place].low > end:
                left[place].track, end = tracks, left[place].high
                taken.add(place)
        waiting = [place for place in waiting if place not in taken]
        for blocked in blocked_by:
            blocked -= taken
        tracks += 1
    return tracks


def nets_of(ways: Iterable[tuple[int, int, Sequence[int]]]) -> list[Net]:
    """The nets of (node, its place, the places of its targets), in that order."""
    found: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for node, source, targets in ways:
        found.setdefault(tuple(sorted(set(targets))), []).append((source, node))
    return [
        Net(tuple(source for source, _ in members), targets, tuple(node for _, node in members))
        for targets, members in found.items()
    ]
