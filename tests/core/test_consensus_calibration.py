"""Confidence that is a probability, and truth from many votes at once."""

from __future__ import annotations

import math
import random

import pytest

from agentorch_cli.core.calibration import Outcome, calibration_error, fit
from agentorch_cli.core.consensus import Ballot, Basis, Policy, Voter, decide
from agentorch_cli.core.inference import infer, suits, wins


def history(rng: random.Random, size: int) -> list[Outcome]:
    """Raw confidences that promise too much: 0.99 is right three times in four."""
    found = []
    for _ in range(size):
        raw = rng.choice((0.6, 0.9, 0.99, 0.999))
        honest = {0.6: 0.4, 0.9: 0.6, 0.99: 0.75, 0.999: 0.85}[raw]
        found.append(Outcome(raw, rng.randint(2, 7), rng.random() < honest))
    return found


def test_a_map_fitted_to_outcomes_is_honest_on_others() -> None:
    rng = random.Random(9)
    calibration = fit(history(rng, 300))
    fresh = history(rng, 3_000)

    assert calibration is not None
    raw = calibration_error((one.confidence, one.right) for one in fresh)
    honest = calibration_error(
        (calibration.probability(one.confidence, one.votes), one.right) for one in fresh
    )
    assert raw > 0.15
    assert honest < 0.05


def test_fifty_outcomes_are_needed_and_a_hundred_to_accept_unseen() -> None:
    rng = random.Random(2)
    outcomes = history(rng, 100)

    few, enough = fit(outcomes[:50]), fit(outcomes)

    assert fit(outcomes[:49]) is None
    assert few is not None
    assert enough is not None
    assert not few.accepts(0.99, 0.95)
    assert enough.accepts(0.96, 0.95)
    assert not enough.accepts(0.94, 0.95)


def test_outcomes_that_are_all_right_give_a_high_chance_and_no_overflow() -> None:
    calibration = fit([Outcome(0.99, 3, True)] * 60)

    assert calibration is not None
    assert 0.95 < calibration.probability(0.99, 3) < 1
    assert 0 < calibration.probability(0.0, 1) < 1
    assert 0 < calibration.probability(1.0, 500) <= 1


def test_the_fit_is_the_maximum_of_the_penalised_likelihood() -> None:
    outcomes = history(random.Random(4), 200)
    calibration = fit(outcomes)
    assert calibration is not None

    def loss(weights: tuple[float, ...]) -> float:
        total = 0.005 * weights[0] ** 2 + 0.5 * sum(weight**2 for weight in weights[1:])
        for outcome in outcomes:
            logit = math.log(outcome.confidence / (1 - outcome.confidence))
            features = (logit, outcome.votes, 1 / outcome.votes)
            score = weights[0] + sum(
                weight * (value - centre) / scale
                for weight, value, centre, scale in zip(
                    weights[1:], features, calibration.centre, calibration.scale, strict=True
                )
            )
            total += math.log(1 + math.exp(-score if outcome.right else score))
        return total

    best = loss(calibration.weights)
    for at in range(4):
        for step in (-0.01, 0.01):
            moved = list(calibration.weights)
            moved[at] += step
            assert loss(tuple(moved)) > best


def test_a_calibrated_verdict_names_its_basis() -> None:
    calibration = fit(history(random.Random(1), 80))
    assert calibration is not None
    verdict = decide(Policy(), [Voter("a"), Voter("b")], [Ballot("a", "x"), Ballot("b", "x")])

    honest = calibration.apply(verdict)

    assert honest.confidence_basis is Basis.CALIBRATED
    assert honest.confidence == calibration.probability(1.0, 2)
    assert honest.answer == verdict.answer
    nobody = decide(Policy(), [Voter("a"), Voter("b")], [])
    assert calibration.apply(nobody) == nobody


def test_the_calibration_error_is_the_mean_gap() -> None:
    assert calibration_error([(0.95, True)] * 19 + [(0.95, False)]) == pytest.approx(0)
    assert calibration_error([(1.0, False), (1.0, True)]) == pytest.approx(0.5)
    assert calibration_error([]) == 0


def crowd(rng: random.Random, tasks: int) -> tuple[dict[str, list[tuple[str, str]]], dict[str, str]]:
    """Three agents see spam everywhere, two tell the classes apart."""
    given, truth = {}, {}
    for number in range(tasks):
        right = rng.choice(("ham", "spam"))
        ballots = []
        for agent in range(3):
            ballots.append((f"eager{agent}", "spam" if rng.random() < 0.8 else right))
        for agent in range(2):
            other = "ham" if right == "spam" else "spam"
            ballots.append((f"fair{agent}", right if rng.random() < 0.85 else other))
        given[f"t{number}"], truth[f"t{number}"] = ballots, right
    return given, truth


def test_inference_sees_through_a_class_bias() -> None:
    given, truth = crowd(random.Random(8), 600)
    majority = {
        task: max(("ham", "spam"), key=[said for _, said in ballots].count) for task, ballots in given.items()
    }

    found = infer(given)

    right = sum(found.answers()[task] == truth[task] for task in truth)
    counted = sum(majority[task] == truth[task] for task in truth)
    assert right > counted + 60
    assert wins(found.answers(), majority, truth)
    assert not wins(majority, found.answers(), truth)
    assert found.reliability("fair0") > found.reliability("eager0")
    assert all(sum(row) == pytest.approx(1) for rows in found.confusion.values() for row in rows)
    assert found.posterior([("fair0", "ham"), ("fair1", "ham")])["ham"] > 0.8
    assert found.posterior([("stranger", "ham")]) == pytest.approx(
        dict(zip(found.classes, found.prior, strict=True))
    )


def test_inference_does_not_depend_on_the_order_of_ballots() -> None:
    rng = random.Random(6)
    given, _ = crowd(rng, 80)
    shuffled = {task: rng.sample(ballots, len(ballots)) for task, ballots in given.items()}

    assert infer(shuffled).posteriors == infer(given).posteriors


def test_a_task_without_ballots_gets_the_prior() -> None:
    given, _ = crowd(random.Random(7), 40)

    found = infer({**given, "silent": []})

    assert found.posteriors["silent"] == pytest.approx(found.prior, abs=0.01)
    with pytest.raises(ValueError, match="no ballots"):
        infer({"silent": []})


def test_an_agent_with_one_ballot_is_taken_for_mostly_right() -> None:
    given, _ = crowd(random.Random(7), 200)
    given["t0"] = [*given["t0"], ("newcomer", "ham")]

    assert infer(given).reliability("newcomer") > 0.7


def test_inference_wants_history_and_few_classes() -> None:
    given, _ = crowd(random.Random(7), 200)

    assert suits(given)
    assert not suits(dict(list(given.items())[:199]))
    assert not suits({f"t{number}": [("a", str(number))] for number in range(300)})


def test_a_handful_of_verified_tasks_proves_nothing() -> None:
    truth = {str(number): "a" for number in range(29)}
    wrong = dict.fromkeys(truth, "b")

    assert not wins(truth, wrong, truth)
