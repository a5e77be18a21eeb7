"""What a node measures of itself: counts of what took how long, kept in memory until somebody asks.

A measurement is a bisection and two additions; what is measured for a batch is measured once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""For what a program waits for: upper bounds of the buckets."""

WORK: Final = (
    0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0,
)  # fmt: skip
"""For what tasks and agents take: from a millisecond to a day."""

SIZES: Final = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)


class Histogram:
    """How many values lie below each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bucket; the last holds what is above every bound."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One more value; what a clock that was set makes negative counts as 0."""
        self.counts[bisect_left(self.bounds, value)] += 1
        if value > 0:
            self.total += value

    def cumulated(self) -> list[tuple[str, float]]:
        """The buckets as Prometheus has them: each with everything below it."""
        found, below = [], 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            below += count
            found.append((f"{bound:g}", float(below)))
        return [*found, ("+Inf", float(sum(self.counts)))]


@dataclass(slots=True)
class Meters:
    """The measurements of one node."""

    queue: Histogram = field(default_factory=lambda: Histogram(WORK))
    """From ready to assigned."""
    attempts: Mapping[str, Histogram] = field(
        default_factory=lambda: {one: Histogram(WORK) for one in ("completed", "failed", "timed_out")}
    )
    """From begun to ended, by how it ended."""
    assign: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    """Storing a batch of assignments."""
    assign_size: Histogram = field(default_factory=lambda: Histogram(SIZES))
    settle: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    """Storing a batch of results."""
    settle_size: Histogram = field(default_factory=lambda: Histogram(SIZES))
    lag: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    """How much later than asked for the event loop comes back to somebody who sleeps."""
    cost_usd: float = 0.0
    tokens: int = 0
    unknown_costs: int = 0
    """Attempts that did not say what they cost."""
    votes: dict[str, int] = field(default_factory=lambda: {"reached": 0, "failed": 0})
