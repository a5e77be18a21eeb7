"""The score of an agent: what it is made of, and what it costs."""

from __future__ import annotations

import pytest
from effort import lines_of
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch_cli.core.scoring import Weights, counted_performance, score

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


def test_counts_alone_say_little_of_few_outcomes_and_nothing_against_a_new_agent() -> None:
    assert counted_performance(0, 0) == 1.0
    assert counted_performance(1, 0) == pytest.approx(2 / 3)
    assert counted_performance(0, 1) == pytest.approx(1 / 3)
    assert counted_performance(990, 10) == pytest.approx(0.99, abs=0.001)


def test_a_score_is_a_few_lines_of_work() -> None:
    """It is reckoned for each agent and each task: a thousand of both in less than a second."""
    weights = Weights()

    assert lines_of(lambda: score(weights, 0.5, 3, 4)) <= 5
