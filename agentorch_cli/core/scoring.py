"""Who should: the score of an agent for a piece of work.

    score = performance_weight x performance + load_weight x (1 - load)

performance is 0..1: how often the agent is right, by what is known closest to the work
(`core.ledger`). load is busy slots / slots. Ties go by agent id, so the same fleet gives the same choice.
"""

from __future__ import annotations

from dataclasses import dataclass

PRIOR_STRENGTH = 8.0
"""How many outcomes that counts for which is known of more than the case in hand."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What the score is made of."""

    performance: float = 0.7
    load: float = 0.3


def counted_performance(completed: int, failed: int) -> float:
    """How often an agent's work comes out well, in 0..1, by its counts alone; 1 for a new agent.

    `core.ledger` knows better, where it knows anything.
    """
    return (completed + 1.0) / (completed + failed + 2.0) if completed + failed else 1.0


def score(weights: Weights, performance: float, busy: int, slots: int) -> float:
    """Higher is better; comparable within one fleet."""
    return weights.performance * performance + weights.load * (1.0 - busy / slots)
