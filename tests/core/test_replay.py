"""Recorded votes of real fleets, run through the decision code."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from effort import growth, lines_of

from agentorch_cli.core.consensus import Ballot, BallotStatus, Policy, Rule
from agentorch_cli.core.equivalence import Equivalence
from agentorch_cli.core.inference import infer
from agentorch_cli.core.replay import ReplayResult, closed_options, read_labels, read_truth, replay
from agentorch_cli.errors import InvalidFile

DATA = Path(__file__).parent.parent / "data" / "consensus"

Record = tuple[dict[str, list[Ballot]], dict[str, str]]


def record(name: str, how: Equivalence | None = None) -> Record:
    with (DATA / name / "labels.csv").open(newline="") as labels, (DATA / name / "truth.csv").open() as truth:
        return read_labels(csv.DictReader(labels), how), read_truth(csv.DictReader(truth), how)


@pytest.fixture(scope="module")
def rte() -> Record:
    return record("crowd_rte")


@pytest.fixture(scope="module")
def gsm() -> Record:
    return record("llm_gsm")


def runs(
    record: Record, policy: Policy, verified: float = 0.0, seats: int | None = None
) -> list[ReplayResult]:
    return [replay(*record, policy, random.Random(seed), verified, seats) for seed in range(5)]


def mean(results: list[ReplayResult], name: str) -> float:
    return sum(getattr(result, name) for result in results) / len(results)


def test_the_weighted_vote_beats_ten_votes_with_less_than_five(rte: Record) -> None:
    weighted = runs(rte, Policy(Rule.WEIGHTED))
    everybody = runs(rte, Policy(Rule.PLURALITY))

    assert mean(weighted, "votes_per_task") <= 4.7
    assert mean(weighted, "accuracy") >= 0.92
    assert mean(weighted, "calibration_error") <= 0.03
    assert mean(everybody, "accuracy") < mean(weighted, "accuracy")


def test_verified_outcomes_save_votes(rte: Record) -> None:
    none, some = runs(rte, Policy(Rule.WEIGHTED)), runs(rte, Policy(Rule.WEIGHTED), 0.2)

    assert mean(some, "votes_per_task") < mean(none, "votes_per_task") - 0.2
    assert mean(some, "accuracy") >= 0.915
    assert all(result.calibrated_on >= 100 for result in some)
    assert mean(some, "calibration_error") <= 0.05


def test_the_adaptive_vote_keeps_the_accuracy_of_everybody(gsm: Record) -> None:
    adaptive, everybody = runs(gsm, Policy(Rule.ADAPTIVE)), runs(gsm, Policy(Rule.PLURALITY))

    assert mean(adaptive, "votes_per_task") <= 7
    assert mean(everybody, "votes_per_task") > 20
    assert abs(mean(adaptive, "accuracy") - mean(everybody, "accuracy")) <= 0.01


def test_the_best_first_vote_needs_two_and_a_half_language_models(gsm: Record) -> None:
    weighted = runs(gsm, Policy(Rule.WEIGHTED))

    assert mean(weighted, "votes_per_task") <= 2.8
    assert mean(weighted, "accuracy") >= 0.95


@pytest.mark.parametrize("rule", [Rule.PLURALITY, Rule.MAJORITY, Rule.SUPERMAJORITY, Rule.UNANIMOUS])
def test_closing_early_changes_no_answer_of_a_record(rte: Record, rule: Rule) -> None:
    votes, truth = rte

    one, other = (replay(votes, truth, Policy(rule), random.Random(seed)) for seed in (1, 2))

    assert (one.decided, one.accuracy_decided) == (other.decided, other.accuracy_decided)
    assert one.votes_per_task <= 10


def test_canonical_numbers_reach_the_supermajority_more_often() -> None:
    votes, truth = record("llm_gsm", Equivalence(number=True))
    raw = {
        task: [
            Ballot(row["worker"], row["raw"], BallotStatus.ANSWERED if row["raw"] else BallotStatus.ABSTAINED)
            for row in rows
        ]
        for task, rows in rows_by_task().items()
    }

    as_written = replay(raw, truth, Policy(), random.Random(1))
    canonical = replay(votes, truth, Policy(), random.Random(1))

    assert canonical.decided / canonical.tasks >= as_written.decided / as_written.tasks + 0.1
    assert (canonical.accuracy or 0) >= (as_written.accuracy or 0) - 0.001


def rows_by_task() -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    with (DATA / "llm_gsm" / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["task"], []).append(row)
    return found


def test_forty_percent_colluders_are_outvoted_once_some_outcomes_are_known(rte: Record) -> None:
    """Four in ten workers give the same wrong answer to everything that they are asked."""
    votes, truth = rte
    rng = random.Random(40)
    workers = sorted({ballot.agent for ballots in votes.values() for ballot in ballots})
    gang = set(rng.sample(workers, int(0.4 * len(workers))))
    lies = {"0": "1", "1": "0"}
    spoilt = {
        task: [Ballot(b.agent, lies[truth[task]] if b.agent in gang else b.answer) for b in ballots]
        for task, ballots in votes.items()
    }

    counted = runs((spoilt, truth), Policy(Rule.PLURALITY))
    weighted = runs((spoilt, truth), Policy(Rule.WEIGHTED), 0.1)

    assert mean(weighted, "accuracy") > mean(counted, "accuracy") + 0.1


def test_inference_on_a_real_crowd(rte: Record) -> None:
    votes, truth = rte

    found = infer({task: [(b.agent, str(b.answer)) for b in ballots] for task, ballots in votes.items()})

    assert sum(found.answers()[task] == truth[task] for task in truth) / len(truth) >= 0.92


def test_the_same_seed_gives_the_same_replay(rte: Record) -> None:
    votes, truth = rte

    assert replay(votes, truth, Policy(Rule.WEIGHTED), random.Random(5), 0.1) == replay(
        votes, truth, Policy(Rule.WEIGHTED), random.Random(5), 0.1
    )


def test_what_a_replay_costs_grows_with_the_ballots(gsm: Record) -> None:
    votes, truth = gsm

    def part(size: int) -> Callable[[], object]:
        some = dict(list(votes.items())[:size])
        return lambda: replay(
            some, {task: truth[task] for task in some}, Policy(Rule.WEIGHTED), random.Random(1), 0.05
        )

    ballots = sum(len(one) for one in list(votes.values())[:100])
    assert lines_of(part(100)) < 500 * ballots
    assert growth(part, 100) < 2.4


def test_the_calibration_is_judged_on_tasks_that_it_has_not_seen(rte: Record) -> None:
    votes, truth = rte

    result = replay(votes, truth, Policy(Rule.WEIGHTED), random.Random(1), verified=1.0)

    assert result.calibrated_on == 800
    assert result.calibration_error is None


def test_seats_bound_the_electorate(gsm: Record) -> None:
    votes, truth = gsm

    assert replay(votes, truth, Policy(Rule.SUPERMAJORITY), random.Random(1), seats=5).votes_per_task <= 5


def test_few_answers_are_options_and_many_are_not(rte: Record, gsm: Record) -> None:
    assert closed_options(rte[0]) == ("0", "1")
    assert closed_options(gsm[0]) == ()
    assert closed_options({"t": [Ballot("w", "a")]}) == ()


def test_rows_become_ballots() -> None:
    rows = [
        {"task": "1", "worker": "x", "label": "18", "raw": "$18.00"},
        {"task": "1", "worker": "y", "label": "", "raw": ""},
        {"task": "1", "worker": "x", "label": "19", "raw": "19"},
    ]

    assert read_labels(rows) == {"1": [Ballot("x", "18"), Ballot("y", None, BallotStatus.ABSTAINED)]}
    assert read_labels(rows, Equivalence(number=True))["1"][0].answer == "18"
    assert read_truth([{"task": "1", "truth": "18"}, {"task": "2", "truth": ""}]) == {"1": "18"}


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InvalidFile, match="'worker'") as caught:
        read_labels([{"task": "1", "label": "a"}])
    assert caught.value.where == "line 2"
    with pytest.raises(InvalidFile, match="'truth'"):
        read_truth([{"task": "1"}])


def test_a_record_without_truth_or_without_tasks_says_so() -> None:
    votes = {"1": [Ballot("x", "a"), Ballot("y", "a")]}

    unknown = replay(votes, {}, Policy(), random.Random(1))
    empty = replay({}, {}, Policy(), random.Random(1))

    assert (unknown.tasks, unknown.decided, unknown.accuracy, unknown.calibration_error) == (1, 1, None, None)
    assert (empty.tasks, empty.votes_per_task, empty.accuracy) == (0, 0.0, None)


def test_of_a_stored_vote_the_whole_electorate_counts_and_not_only_who_answered() -> None:
    votes = {
        "agreed": [Ballot(agent, "a") for agent in "vwxy"],
        "called off": [Ballot(agent, "a") for agent in "vw"],
    }
    electorates = {task: [*"vwxyz"] for task in votes}

    by_ballots = replay(votes, {}, Policy(), random.Random(1))
    by_voters = replay(votes, {}, Policy(), random.Random(1), electorates=electorates)

    assert (by_ballots.decided, by_ballots.ballots) == (2, 5)  # 3 of 4 and 2 of 2
    assert (by_voters.decided, by_voters.ballots) == (1, 6)  # 4 of 5, and two who do not reach that
    assert by_voters.decided_by == {"threshold": 1, "open": 1}
    assert replay(votes, {}, Policy(), random.Random(1), seats=2, electorates=electorates).decided == 2
