"""Who should: the score of an agent for a piece of work.

    score = performance_weight x performance + load_weight x (1 - load)

performance is 0..1, shrunk towards the fleet's mean so that one lucky or unlucky result
says little: p = (completed + 8 g) / (completed + failed + 8), with g the fleet's mean.
load is busy slots / slots. Ties go by agent id, so the same fleet gives the same choice.
"""

from __future__ import annotations

from dataclasses import dataclass

PRIOR_STRENGTH = 8.0
"""How many outcomes the fleet's mean counts for."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What the score is made of."""

    performance: float = 0.7
    load: float = 0.3


def shrunk_performance(completed: int, failed: int, fleet_mean: float) -> float:
    """Estimate in 0..1 of how often this agent's work comes out well."""
    return (completed + PRIOR_STRENGTH * fleet_mean) / (completed + failed + PRIOR_STRENGTH)


def fleet_mean(completed: int, failed: int) -> float:
    """The fleet's share of work that came out well, in 0..1; 1 before there is any."""
    return (completed + 1.0) / (completed + failed + 1.0)


def score(weights: Weights, performance: float, busy: int, slots: int) -> float:
    """Higher is better; comparable within one fleet."""
    return weights.performance * performance + weights.load * (1.0 - busy / slots)
