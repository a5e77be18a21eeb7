"""A confidence that is a probability: of the answers at 0.9, nine in ten are right.

A vote share is no probability, and neither is a posterior whose voters are wrong together. So
the raw value goes through a small logistic map with the features

    logit(raw confidence), votes, 1 / votes

fitted per capability to verified outcomes: ridge regression by Newton's method (iteratively
reweighted least squares), on standardised features, with a free intercept. Four coefficients
need little data: the map is used from 50 verified outcomes on, and an answer may be accepted
without a look from 100 on (fewer, and a lucky streak looks like certainty).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from agentorch_cli.core.vote import Basis, Verdict

MIN_OUTCOMES = 50
"""Verified outcomes that a calibration needs."""
MIN_AUTO_ACCEPT = 100
"""Verified outcomes before an answer may be accepted on its confidence alone."""
RIDGE = 1.0
"""Penalty on the squared coefficients, in outcomes."""
MAX_LOGIT = 8.0
"""Raw values within 0.0003 of 0 or 1 are all the same to the map: they say the model, not the world."""
BINS = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """One decided vote whose answer was verified."""

    confidence: float
    """The raw confidence of the verdict: posterior or share."""
    votes: int
    right: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted map of one capability; `outcomes` is the n of `calibrated(n)`."""

    outcomes: int
    centre: tuple[float, float, float]
    scale: tuple[float, float, float]
    weights: tuple[float, float, float, float]

    def probability(self, confidence: float, votes: int) -> float:
        """The chance that such an answer is right."""
        row = _row(confidence, votes, self.centre, self.scale)
        return _sigmoid(sum(weight * value for weight, value in zip(self.weights, row, strict=True)))

    def apply(self, verdict: Verdict) -> Verdict:
        """The same verdict with a calibrated confidence."""
        if verdict.votes_used == 0:
            return verdict
        honest = self.probability(verdict.confidence, verdict.votes_used)
        return replace(verdict, confidence=honest, confidence_basis=Basis.CALIBRATED)

    def accepts(self, confidence: float, goal: float) -> bool:
        """Whether an answer may be taken without a look: sure enough, and the map has seen enough."""
        return self.outcomes >= MIN_AUTO_ACCEPT and confidence >= goal


def fit(outcomes: Sequence[Outcome]) -> Calibration | None:
    """The map that fits these outcomes, or None if there are fewer than 50."""
    if len(outcomes) < MIN_OUTCOMES:
        return None
    raw = [_features(outcome.confidence, outcome.votes) for outcome in outcomes]
    centre = _three(math.fsum(column) / len(raw) for column in zip(*raw, strict=True))
    scale = _three(
        math.sqrt(math.fsum((value - mean) ** 2 for value in column) / len(raw)) or 1.0
        for column, mean in zip(zip(*raw, strict=True), centre, strict=True)
    )
    rows = [_row(outcome.confidence, outcome.votes, centre, scale) for outcome in outcomes]
    weights = _newton(rows, [1.0 if outcome.right else 0.0 for outcome in outcomes])
    return Calibration(len(outcomes), centre, scale, weights)


def calibration_error(stated: Iterable[tuple[float, bool]]) -> float:
    """Expected calibration error: the mean gap, over 10 equal bins, between confidence and share right."""
    gaps = [0.0] * BINS
    count = 0
    for confidence, right in stated:
        gaps[min(BINS - 1, int(confidence * BINS))] += confidence - right
        count += 1
    return sum(map(abs, gaps)) / count if count else 0.0


def _features(confidence: float, votes: int) -> tuple[float, float, float]:
    inside = min(max(confidence, 1e-9), 1 - 1e-9)
    logit = math.log(inside / (1 - inside))
    return min(max(logit, -MAX_LOGIT), MAX_LOGIT), float(votes), 1 / max(1, votes)


def _row(
    confidence: float, votes: int, centre: tuple[float, float, float], scale: tuple[float, float, float]
) -> tuple[float, float, float, float]:
    first, second, third = (
        (value - mean) / width
        for value, mean, width in zip(_features(confidence, votes), centre, scale, strict=True)
    )
    return 1.0, first, second, third


def _newton(rows: Sequence[Sequence[float]], targets: Sequence[float]) -> tuple[float, float, float, float]:
    """Maximise the penalised likelihood. It is strictly concave but for the intercept, whose step is damped
    by a trace of a penalty, so that outcomes that are all right give a high chance and not infinity.
    """
    size = len(rows[0])
    penalty = [0.01, *[RIDGE] * (size - 1)]
    weights = [0.0] * size
    for _ in range(30):
        gradient = [-penalty[i] * weights[i] for i in range(size)]
        hessian = [[penalty[i] if i == j else 0.0 for j in range(size)] for i in range(size)]
        for row, target in zip(rows, targets, strict=True):
            chance = _sigmoid(sum(weight * value for weight, value in zip(weights, row, strict=True)))
            curve = chance * (1 - chance)
            for i in range(size):
                gradient[i] += (target - chance) * row[i]
                for j in range(size):
                    hessian[i][j] += curve * row[i] * row[j]
        step = _solve(hessian, gradient)
        longest = max(map(abs, step))
        damp = min(1.0, 4.0 / longest) if longest else 1.0
        weights = [weight + damp * change for weight, change in zip(weights, step, strict=True)]
        if longest < 1e-9:
            break
    return weights[0], weights[1], weights[2], weights[3]


def _solve(matrix: list[list[float]], vector: list[float]) -> list[float]:
    """Gaussian elimination with pivoting, for a small positive definite matrix."""
    size = len(vector)
    rows = [[*row, value] for row, value in zip(matrix, vector, strict=True)]
    for at in range(size):
        pivot = max(range(at, size), key=lambda index: abs(rows[index][at]))
        rows[at], rows[pivot] = rows[pivot], rows[at]
        for below in range(at + 1, size):
            factor = rows[below][at] / rows[at][at]
            rows[below] = [low - factor * high for low, high in zip(rows[below], rows[at], strict=True)]
    solved = [0.0] * size
    for at in reversed(range(size)):
        known = sum(rows[at][later] * solved[later] for later in range(at + 1, size))
        solved[at] = (rows[at][size] - known) / rows[at][at]
    return solved


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1 + grown)


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third
