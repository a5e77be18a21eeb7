"""What finished attempts say about an agent: how often it is right, and how long it takes.

**Evidence** is two sums, `right` of `trials`. An attempt that nobody checks counts by how it ended:
completed in time is right, failed, timed out or lost is not. A ballot counts when its vote closes, by
agreement with the others (leave-one-out credit, `core/reliability.py`), and a verified outcome counts
for three trials and takes the place of what stood there before.

Evidence is kept per agent (overall) and per (agent, skill, task type); a skill is the sum of its types.
What is known of little is drawn towards what is known of more:

    agent        g = (s + 1) / (n + 2), and 1 for an agent without any evidence
    capability   p = (s + 8 g) / (n + 8)
    task type    p = (s + 8 p of the capability) / (n + 8)

**It fades**: by 0.97 with each further outcome of its row, so that a sudden loss of quality shows
within some 25 outcomes of fast and slow agents alike, and by time with a half-life of days. Counts,
costs and latencies that are shown fade by time only.

**Latencies** are histograms whose bounds grow by the square root of two, from 1 ms to three days:
they can be added, faded and stored, and a quantile lies in the same bucket as the true one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from agentorch_cli.core.scoring import PRIOR_STRENGTH

OUTCOME_DECAY: Final = 0.97
"""What is left of a row's evidence after one more outcome of that row."""

SLOW_SECONDS: Final = 300.0
"""Work that takes longer than this in the mean costs 10 points of the hourly score."""

BUCKETS: Final = 58
"""The first holds what took less than 1 ms, the last everything from 3 days on."""

BOUNDS: Final = tuple(0.001 * 2 ** (n / 2) for n in range(BUCKETS - 1))
"""Seconds at which bucket n ends and bucket n + 1 begins."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """So much was right, of so many trials; both may be fractions."""

    right: float = 0.0
    trials: float = 0.0

    def plus(self, other: Evidence) -> Evidence:
        return Evidence(self.right + other.right, self.trials + other.trials)

    def times(self, share: float) -> Evidence:
        """What is left of it after fading."""
        return Evidence(self.right * share, self.trials * share)


NOTHING: Final = Evidence()


def estimate(overall: Evidence, skill: Evidence | None = None, typed: Evidence | None = None) -> float:
    """How often this agent is right, in 0..1: its own mean, drawn to what its skill and task type say."""
    p = (overall.right + 1) / (overall.trials + 2) if overall.trials > 0 else 1.0
    for closer in (skill, typed):
        if closer is not None:
            p = (closer.right + PRIOR_STRENGTH * p) / (closer.trials + PRIOR_STRENGTH)
    return p


def left_after(seconds: float, half_life_seconds: float) -> float:
    """The share of a row that is left after this time; nothing is gained by a clock that runs back."""
    return math.exp(-math.log(2) * max(0.0, seconds) / half_life_seconds)


def left_after_outcomes(outcomes: int) -> float:
    """The share of a row's evidence that is left after so many further outcomes of that row."""
    return float(OUTCOME_DECAY**outcomes)


def weight_of(outcomes: int) -> float:
    """What so many outcomes weigh that come in together: the later ones fade the earlier ones.

    Their order is not kept, so each counts for the mean: `weight_of(n) / n`. Never above 33.4.
    """
    return (1.0 - OUTCOME_DECAY**outcomes) / (1.0 - OUTCOME_DECAY)


def after_outcomes(before: Evidence, good: float, outcomes: int) -> Evidence:
    """Evidence after so many further outcomes, of which `good` went well; they count at once."""
    if not outcomes:
        return before
    weight = weight_of(outcomes)
    return before.times(left_after_outcomes(outcomes)).plus(Evidence(weight * good / outcomes, weight))


def hourly_score(completed: float, failed: float, lost: float, seconds: float) -> float:
    """The plain rule for what was finished in an hour, 0..100; the statement `reckon_hour` says the same.

    `seconds` is how long the completed and the failed ones took together.
    """
    ended = completed + failed + lost
    if not ended:
        return 50.0
    is_slow = completed + failed > 0 and seconds / (completed + failed) > SLOW_SECONDS
    return min(100.0, max(0.0, 50.0 + 50.0 * completed / ended - (10.0 if is_slow else 0.0)))


def bucket_of(seconds: float) -> int:
    """The bucket of a histogram that counts a duration."""
    return bisect_right(BOUNDS, seconds)


def merged(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Two histograms as one; either may end with its last bucket that is not empty."""
    return [a + b for a, b in zip_longest(one, other, fillvalue=0.0)]


def quantile(histogram: Sequence[float], share: float) -> float | None:
    """Seconds within which this share (0..1) of a histogram's durations lies; None for an empty one.

    Within a bucket durations are taken as spread evenly by their logarithm. The open ends count as
    their bound: 1 ms and three days.
    """
    total = sum(histogram)
    if total <= 0:
        return None
    rank = share * total
    below = 0.0
    last = 0
    for bucket, count in enumerate(histogram):
        if count <= 0:
            continue
        last = bucket
        if below + count >= rank:
            return _within(bucket, max(0.0, rank - below) / count)
        below += count
    return _within(last, 1.0)  # rounding: the sum came out below the rank


def _within(bucket: int, share: float) -> float:
    if bucket == 0:
        return BOUNDS[0]
    if bucket >= len(BOUNDS):
        return BOUNDS[-1]
    low, high = BOUNDS[bucket - 1], BOUNDS[bucket]
    return float(low * (high / low) ** share)
