"""What finished attempts say: evidence that fades, estimates that shrink, histograms of latencies."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch_cli.core.ledger import (
    BOUNDS,
    BUCKETS,
    NOTHING,
    OUTCOME_DECAY,
    Evidence,
    after_outcomes,
    bucket_of,
    estimate,
    hourly_score,
    left_after,
    left_after_outcomes,
    merged,
    quantile,
)

quick = settings(max_examples=200, derandomize=True, deadline=None)
shares = st.floats(0, 1)
seconds = st.floats(0.0012, 200_000)


@st.composite
def evidence(draw: st.DrawFn) -> Evidence:
    trials = draw(st.floats(0, 200))
    return Evidence(draw(shares) * trials, trials)


def counted(durations: list[float]) -> list[float]:
    histogram = [0.0] * BUCKETS
    for one in durations:
        histogram[bucket_of(one)] += 1
    return histogram


def trimmed(histogram: list[float]) -> list[float]:
    """Without the empty buckets at the end, as it is stored."""
    while histogram and not histogram[-1]:
        histogram = histogram[:-1]
    return histogram


def test_an_agent_nobody_has_measured_is_taken_as_always_right() -> None:
    assert estimate(NOTHING) == 1.0
    assert estimate(NOTHING, NOTHING, NOTHING) == 1.0


def test_an_estimate_is_drawn_from_the_type_to_the_skill_to_the_agent() -> None:
    agent = (6 + 1) / (10 + 2)
    skill = (1 + 8 * agent) / (4 + 8)

    assert estimate(Evidence(6, 10)) == pytest.approx(agent)
    assert estimate(Evidence(6, 10), Evidence(1, 4)) == pytest.approx(skill)
    assert estimate(Evidence(6, 10), Evidence(1, 4), Evidence(0, 2)) == pytest.approx((8 * skill) / 10)


@quick
@given(evidence(), evidence(), evidence())
def test_an_estimate_without_closer_evidence_is_that_of_the_wider(
    overall: Evidence, skill: Evidence, typed: Evidence
) -> None:
    assert estimate(overall, NOTHING) == pytest.approx(estimate(overall))
    assert estimate(overall, skill, NOTHING) == pytest.approx(estimate(overall, skill))
    assert 0 <= estimate(overall, skill, typed) <= 1


@quick
@given(evidence(), evidence(), st.floats(0.1, 50))
def test_more_right_raises_an_estimate_and_more_wrong_lowers_it(
    overall: Evidence, skill: Evidence, more: float
) -> None:
    now = estimate(overall, skill)

    assert estimate(overall, skill.plus(Evidence(more, more))) >= now - 1e-12
    assert estimate(overall, skill.plus(Evidence(0, more))) <= now + 1e-12


@quick
@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_outcomes_that_come_together_weigh_as_much_as_one_by_one(outcomes: list[bool]) -> None:
    one_by_one = Evidence(20.0, 30.0)
    for went_well in outcomes:
        one_by_one = one_by_one.times(OUTCOME_DECAY).plus(Evidence(float(went_well), 1.0))
    together = after_outcomes(Evidence(20.0, 30.0), sum(outcomes), len(outcomes))

    assert together.trials == pytest.approx(one_by_one.trials)
    assert 0 <= together.right <= together.trials + 1e-9
    if all(outcomes) or not any(outcomes):
        assert together.right == pytest.approx(one_by_one.right)


def test_no_further_outcomes_leave_evidence_as_it_was() -> None:
    assert after_outcomes(Evidence(2.0, 3.0), 0, 0) == Evidence(2.0, 3.0)
    assert after_outcomes(Evidence(2.0, 3.0), 1, 1) == Evidence(2.0 * 0.97 + 1, 3.0 * 0.97 + 1)


def test_evidence_is_half_gone_after_some_25_outcomes_and_after_its_half_life() -> None:
    assert left_after_outcomes(23) == pytest.approx(0.5, abs=0.01)
    assert left_after(3600, 3600) == pytest.approx(0.5)
    assert left_after(7200, 3600) == pytest.approx(0.25)
    assert left_after(-10, 3600) == 1.0


@quick
@given(st.floats(0, 1e7))
def test_a_duration_is_counted_between_the_bounds_of_its_bucket(duration: float) -> None:
    bucket = sum(1 for bound in BOUNDS if bound <= duration)

    assert bucket_of(duration) == bucket
    assert 0 <= bucket < BUCKETS


@quick
@given(st.lists(seconds, min_size=1, max_size=100), shares)
def test_a_quantile_is_off_by_no_more_than_one_bucket(durations: list[float], share: float) -> None:
    exact = sorted(durations)[max(0, math.ceil(share * len(durations)) - 1)]
    found = quantile(counted(durations), share)

    assert found is not None
    assert exact / math.sqrt(2) - 1e-9 <= found <= exact * math.sqrt(2) + 1e-9


@quick
@given(st.lists(seconds, max_size=50), st.lists(seconds, max_size=50), shares)
def test_two_histograms_as_one_are_that_of_all_durations(
    one: list[float], other: list[float], share: float
) -> None:
    both = merged(counted(one), counted(other))

    assert both == counted(one + other)
    assert merged(trimmed(counted(one)), trimmed(counted(other))) == trimmed(both)
    assert quantile(trimmed(both), share) == quantile(counted(one + other), share)


def test_fading_a_histogram_moves_no_quantile() -> None:
    histogram = counted([0.01, 0.2, 3.0, 3.1, 50.0])
    faded = [count * 0.3 for count in histogram]

    assert quantile(faded, 0.5) == pytest.approx(quantile(histogram, 0.5))
    assert quantile([0.0] * BUCKETS, 0.5) is None


def test_the_open_ends_of_a_histogram_count_as_their_bounds() -> None:
    assert quantile(counted([0.0]), 0.5) == BOUNDS[0]
    assert quantile(counted([1e9]), 0.5) == BOUNDS[-1] > 2 * 86_400


@pytest.mark.parametrize(
    ("hour", "score"),
    [
        ((0, 0, 0, 0.0), 50),
        ((4, 0, 0, 4.0), 100),
        ((0, 3, 0, 3.0), 50),
        ((3, 0, 1, 900.0), 87.5),
        ((3, 0, 1, 901.0), 77.5),
        ((0, 1, 0, 301.0), 40),
        ((0, 0, 5, 0.0), 50),
    ],
)
def test_the_hourly_score_is_the_plain_rule(hour: tuple[int, int, int, float], score: float) -> None:
    assert hourly_score(*hour) == score
