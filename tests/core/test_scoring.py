"""The score of an agent: what it is made of, and what it costs."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch_cli.core.scoring import PRIOR_STRENGTH, Weights, fleet_mean, score, shrunk_performance

counts = st.integers(0, 10_000)
shares = st.floats(0, 1)
quick = settings(max_examples=200, derandomize=True, deadline=None)


def test_a_score_is_seven_parts_performance_and_three_parts_idleness() -> None:
    assert score(Weights(), performance=0.8, busy=1, slots=4) == pytest.approx(0.7 * 0.8 + 0.3 * 0.75)
    assert score(Weights(1.0, 0.0), performance=0.8, busy=4, slots=4) == 0.8


@quick
@given(shares, shares, st.integers(1, 100), st.data())
def test_a_score_lies_between_0_and_1_and_grows_with_performance_and_idleness(
    low: float, high: float, slots: int, data: st.DataObject
) -> None:
    low, high = sorted((low, high))
    busy = data.draw(st.integers(0, slots))
    more_busy = data.draw(st.integers(busy, slots))

    assert -1e-9 <= score(Weights(), low, more_busy, slots) <= score(Weights(), high, busy, slots) <= 1 + 1e-9


def test_an_agent_without_outcomes_stands_at_the_mean_of_the_fleet() -> None:
    assert shrunk_performance(0, 0, 0.6) == pytest.approx(0.6)
    assert fleet_mean(0, 0) == 1.0
    assert fleet_mean(1, 2) == 0.5


def test_the_mean_counts_for_as_much_as_its_prior_strength() -> None:
    outcomes = int(PRIOR_STRENGTH)

    assert shrunk_performance(outcomes, 0, 0.5) == 0.75
    assert shrunk_performance(0, outcomes, 0.5) == 0.25


@quick
@given(counts, counts, shares)
def test_an_estimate_lies_between_what_was_seen_and_the_mean(
    completed: int, failed: int, mean: float
) -> None:
    seen = completed / (completed + failed) if completed + failed else mean
    low, high = sorted((seen, mean))

    assert low - 1e-9 <= shrunk_performance(completed, failed, mean) <= high + 1e-9


@quick
@given(counts, counts, shares)
def test_each_outcome_moves_the_estimate_its_way(completed: int, failed: int, mean: float) -> None:
    now = shrunk_performance(completed, failed, mean)

    assert (
        shrunk_performance(completed, failed + 1, mean)
        <= now
        <= shrunk_performance(completed + 1, failed, mean)
    )


@quick
@given(counts, counts)
def test_the_mean_of_a_fleet_lies_between_0_and_1(completed: int, failed: int) -> None:
    assert 0 < fleet_mean(completed, failed) <= 1


def test_a_thousand_agents_are_scored_for_a_thousand_tasks_within_a_second() -> None:
    weights = Weights()
    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        for busy in range(1_000):
            for agent in range(1_000):
                score(weights, agent / 1_000, busy % 4, 4)
        best = min(best, time.perf_counter() - started)

    assert best < 1.0
