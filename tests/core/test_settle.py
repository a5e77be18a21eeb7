"""What a task does next: each way an attempt can end, aggregates, votes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch_cli.core.consensus import Voter, VoteStatus
from agentorch_cli.core.election import Election, first_wave, policy_of, sameness_of, settle_vote
from agentorch_cli.core.model import Aggregate, AttemptStatus, TaskStatus
from agentorch_cli.core.settle import (
    MOST_BACKOFF,
    MOST_LOSSES,
    Case,
    Move,
    Tried,
    backoff,
    settle,
    settle_one,
)

SENT, ACCEPTED, COMPLETED = AttemptStatus.SENT, AttemptStatus.ACCEPTED, AttemptStatus.COMPLETED
FAILED, TIMED_OUT = AttemptStatus.FAILED, AttemptStatus.TIMED_OUT
LOST, CANCELLED = AttemptStatus.LOST, AttemptStatus.CANCELLED

BROKEN = {"code": "broken", "message": "it broke"}
HOPELESS = {"code": "hopeless", "message": "it will always break", "retryable": False}


def middle() -> float:
    return 0.5


def tried(agent: str, status: AttemptStatus, result: Any = None, **more: Any) -> Tried:
    number = more.pop("number", 1)
    if status in (FAILED, TIMED_OUT, LOST):
        more.setdefault("error", BROKEN)
    return Tried(f"{agent}:{number}", agent, status, result=result, **more)


def case(*attempts: Tried, **more: Any) -> Case:
    """A task with these attempts; what they count for is counted."""
    more.setdefault("failures", sum(one.status in (FAILED, TIMED_OUT) for one in attempts))
    more.setdefault("losses", sum(one.status is LOST for one in attempts))
    more.setdefault("max_agents", max(1, more.get("min_agents", 1)))
    return Case("task", attempts, **more)


def settled(*attempts: Tried, **more: Any) -> Move:
    return settle(case(*attempts, **more), middle)


# --- one agent ----------------------------------------------------------------------------------


def test_a_result_completes_the_task() -> None:
    assert settled(tried("a", COMPLETED, {"n": 1})) == Move(TaskStatus.COMPLETED, result={"n": 1})


@pytest.mark.parametrize("status", [FAILED, TIMED_OUT])
def test_a_failure_is_repeated_after_a_wait_as_often_as_retries_say(status: AttemptStatus) -> None:
    first = settled(tried("a", status), retries=2, backoff_seconds=4.0)
    third = settled(*[tried("a", status, number=n) for n in range(3)], retries=2)

    assert (first.status, first.wanted, first.delay_seconds) == (TaskStatus.PENDING, 1, 3.0)
    assert first.error == BROKEN
    assert third.status is TaskStatus.FAILED
    assert third.error == {**BROKEN, "attempts_failed": 3}


def test_without_retries_the_first_failure_is_the_last() -> None:
    assert settled(tried("a", FAILED), retries=0).status is TaskStatus.FAILED


def test_a_failure_that_says_so_is_not_repeated() -> None:
    move = settled(tried("a", FAILED, error=HOPELESS), retries=9)

    assert move.status is TaskStatus.FAILED
    assert move.error == {**HOPELESS, "attempts_failed": 1}


def test_an_agent_that_gives_no_reason_is_given_one() -> None:
    move = settled(tried("a", FAILED, error=None), retries=0)

    assert move.error == {"code": "failed", "message": "the agent gave no reason", "attempts_failed": 1}


def test_a_loss_is_repeated_at_once_and_is_no_retry() -> None:
    move = settled(*[tried("a", LOST, number=n) for n in range(MOST_LOSSES - 1)], retries=0)

    assert (move.status, move.wanted, move.delay_seconds) == (TaskStatus.PENDING, 1, 0.0)


def test_a_loss_after_a_failure_does_not_wait_for_the_failure_again() -> None:
    move = settled(tried("a", FAILED), tried("b", LOST), retries=2)

    assert (move.status, move.delay_seconds) == (TaskStatus.PENDING, 0.0)


def test_work_that_loses_many_agents_is_poison() -> None:
    move = settled(*[tried("a", LOST, number=n) for n in range(MOST_LOSSES)], retries=9)

    assert move.status is TaskStatus.FAILED
    assert move.error is not None
    assert (move.error["code"], move.error["last"]) == ("agents_lost", BROKEN)


def test_a_crowd_that_is_lost_at_once_is_not_poison() -> None:
    crowd = [tried(f"a{n}", LOST) for n in range(MOST_LOSSES + 1)]

    move = settled(*crowd, min_agents=len(crowd), retries=0)

    assert (move.status, move.wanted) == (TaskStatus.PENDING, len(crowd))


def test_work_that_was_given_back_counts_as_nothing() -> None:
    back = [tried("a", CANCELLED, number=n) for n in range(50)]

    assert settled(*back, retries=0) == Move(TaskStatus.PENDING, wanted=1)
    assert settled(*back, *[tried("b", LOST, number=n) for n in range(MOST_LOSSES - 1)]).wanted == 1


@pytest.mark.parametrize("given_up", [LOST, TIMED_OUT])
def test_a_late_result_counts_and_calls_the_other_off(given_up: AttemptStatus) -> None:
    waits = case(tried("a", given_up), tried("b", ACCEPTED))

    came = replace(waits, tried=[tried("a", COMPLETED, "late"), waits.tried[1]])

    assert settle(waits, middle) == Move(TaskStatus.RUNNING)
    assert settle(came, middle) == Move(TaskStatus.COMPLETED, result="late", call_off=("b:1",))


def test_a_late_result_completes_a_task_that_waits_for_its_retry() -> None:
    assert settled(tried("a", COMPLETED, 1), tried("b", FAILED)).result == 1


# --- the short way and the long way -------------------------------------------------------------


errors = st.one_of(
    st.none(),
    st.sampled_from([BROKEN, HOPELESS, {"code": "x", "message": "y", "retryable": True}]),
)
endings = st.sampled_from([COMPLETED, FAILED, TIMED_OUT, LOST, CANCELLED])


@settings(max_examples=400, derandomize=True, deadline=None)
@given(
    st.lists(st.sampled_from([FAILED, TIMED_OUT, LOST, CANCELLED]), max_size=8),
    endings,
    errors,
    st.integers(0, 4),
    st.floats(0, 600),
    st.floats(0, 1),
)
def test_both_ways_to_settle_one_agent_say_the_same(
    before: list[AttemptStatus],
    status: AttemptStatus,
    error: Mapping[str, Any] | None,
    retries: int,
    backoff_seconds: float,
    jitter: float,
) -> None:
    earlier: list[Tried] = []
    for number, one in enumerate(before):  # as far as the task lives to see it
        ended = case(*earlier, tried("a", one, number=number), retries=retries)
        if settle(ended, middle).status is TaskStatus.PENDING:
            earlier = list(ended.tried)
    known = case(*earlier)
    last = tried("b", status, "result" if status is COMPLETED else None, error=error)

    long = settle(case(*earlier, last, retries=retries, backoff_seconds=backoff_seconds), lambda: jitter)
    short = settle_one(
        status,
        error,
        retries=retries,
        failures=known.failures,
        losses=known.losses,
        backoff_seconds=backoff_seconds,
        jitter=lambda: jitter,
    )

    assert replace(long, result=None) == short
    assert (long.result == "result") == (status is COMPLETED)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.floats(0, 1e6), st.integers(0, 5_000), st.floats(0, 1))
def test_a_backoff_doubles_up_to_its_bound_with_jitter_over_the_upper_half(
    seconds: float, failures: int, jitter: float
) -> None:
    longest = min(MOST_BACKOFF, seconds * 2 ** min(max(failures, 1) - 1, 100))

    wait = backoff(seconds, failures, lambda: jitter)

    # Beyond thirty doublings nothing that matters is below the bound.
    assert wait <= longest + 1e-9
    assert wait >= longest / 2 - 1e-9 or failures > 30
    assert backoff(seconds, 1, lambda: 1.0) == min(MOST_BACKOFF, seconds)


# --- several agents -----------------------------------------------------------------------------

PAIR = {"min_agents": 2, "max_agents": 2}


@pytest.mark.parametrize(
    ("aggregate", "results", "expected"),
    [
        (Aggregate.FIRST, {"b": 1, "a": 2}, 1),
        (Aggregate.ALL, {"b": 1, "a": None}, {"a": None, "b": 1}),
        (Aggregate.MERGE, {"b": {"x": 1, "y": 1}, "a": {"x": 2}}, {"x": 1, "y": 1}),
        (Aggregate.MERGE, {"b": [1], "a": [2, 3]}, [2, 3, 1]),
        (Aggregate.MEDIAN, {"b": 1, "a": 4, "c": 2}, 2),
        (Aggregate.MEDIAN, {"b": 1, "a": 4}, 2.5),
    ],
)
def test_results_become_one(aggregate: Aggregate, results: dict[str, Any], expected: Any) -> None:
    attempts = [tried(agent, COMPLETED, result) for agent, result in results.items()]

    move = settled(*attempts, min_agents=len(attempts), aggregate=aggregate)

    assert (move.status, move.result) == (TaskStatus.COMPLETED, expected)


@pytest.mark.parametrize(
    ("aggregate", "results", "code"),
    [
        (Aggregate.MERGE, ({}, []), "cannot_merge"),
        (Aggregate.MERGE, ("a", "b"), "cannot_merge"),
        (Aggregate.MEDIAN, (1, "2"), "no_median"),
        (Aggregate.MEDIAN, (1, True), "no_median"),
        (Aggregate.MEDIAN, (1, None), "no_median"),
    ],
)
def test_results_that_do_not_go_together_fail_the_task(
    aggregate: Aggregate, results: tuple[Any, Any], code: str
) -> None:
    move = settled(
        tried("a", COMPLETED, results[0]), tried("b", COMPLETED, results[1]), **PAIR, aggregate=aggregate
    )

    assert move.status is TaskStatus.FAILED
    assert move.error is not None
    assert (move.error["code"], move.error["retryable"]) == (code, False)


def test_the_best_is_the_most_confident_then_the_best_agent_then_the_first_by_id() -> None:
    def best(*attempts: Tried) -> Any:
        return settled(*attempts, min_agents=len(attempts), aggregate=Aggregate.BEST).result

    sure = tried("c", COMPLETED, "sure", confidence=0.9, performance=0.1)
    unsure = tried("b", COMPLETED, "unsure", confidence=0.8, performance=0.9)
    silent = tried("a", COMPLETED, "silent", performance=0.5)
    assert best(silent, unsure, sure) == "sure"
    assert best(silent, tried("b", COMPLETED, "good", performance=0.9)) == "good"
    assert best(tried("b", COMPLETED, "second"), tried("a", COMPLETED, "first")) == "first"


def test_the_first_result_of_a_race_calls_the_others_off() -> None:
    move = settled(tried("a", ACCEPTED), tried("b", COMPLETED, "b"), tried("c", SENT), max_agents=3)

    assert move == Move(TaskStatus.COMPLETED, result="b", call_off=("a:1", "c:1"))


def test_a_race_that_wants_two_results_does_not_wait_for_the_third() -> None:
    two = [tried("a", COMPLETED, "a"), tried("b", COMPLETED, "b")]

    assert settled(*two, tried("c", SENT), min_agents=2, max_agents=3).call_off == ("c:1",)
    assert settled(two[0], tried("c", SENT), min_agents=2, max_agents=3) == Move(TaskStatus.RUNNING, wanted=0)


def test_all_who_are_still_at_it_are_waited_for_where_all_results_count() -> None:
    two = [tried("a", COMPLETED, 1), tried("b", COMPLETED, 2)]
    three = {"min_agents": 2, "max_agents": 3, "aggregate": Aggregate.ALL}

    assert settled(*two, tried("c", ACCEPTED), **three) == Move(TaskStatus.RUNNING)
    assert settled(*two, tried("c", COMPLETED, 3), **three).result == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize("status", [FAILED, TIMED_OUT, LOST, CANCELLED])
def test_two_of_three_suffice_when_the_third_comes_to_nothing(status: AttemptStatus) -> None:
    move = settled(
        tried("a", COMPLETED, 1),
        tried("b", COMPLETED, 2),
        tried("c", status),
        min_agents=2,
        max_agents=3,
        retries=0,
        aggregate=Aggregate.ALL,
    )

    assert (move.status, move.result) == (TaskStatus.COMPLETED, {"a": 1, "b": 2})


def test_one_of_three_may_fail_without_a_word_while_the_others_are_at_it() -> None:
    three = {"min_agents": 2, "max_agents": 3, "aggregate": Aggregate.ALL}

    assert settled(tried("a", FAILED), tried("b", SENT), tried("c", SENT), **three) == Move(
        TaskStatus.RUNNING
    )


def test_as_many_are_asked_again_as_are_lacking() -> None:
    out = settled(tried("a", FAILED), tried("b", ACCEPTED), **PAIR, retries=2)
    done = settled(tried("a", LOST), tried("b", COMPLETED), **PAIR)
    none = settled(tried("a", LOST), tried("b", FAILED), **PAIR, retries=2)

    assert (out.status, out.wanted, out.delay_seconds) == (TaskStatus.RUNNING, 1, 0.75)
    assert (done.status, done.wanted, done.delay_seconds) == (TaskStatus.RUNNING, 1, 0.0)
    assert (none.status, none.wanted, none.delay_seconds) == (TaskStatus.PENDING, 2, 0.75)


def test_a_pair_that_may_not_retry_fails_and_calls_the_other_off() -> None:
    spent = settled(tried("a", FAILED), tried("b", ACCEPTED), **PAIR, retries=0)
    hopeless = settled(tried("a", FAILED, error=HOPELESS), tried("b", SENT), **PAIR, retries=9)

    assert (spent.status, spent.call_off) == (TaskStatus.FAILED, ("b:1",))
    assert (hopeless.status, hopeless.call_off) == (TaskStatus.FAILED, ("b:1",))


def test_a_failure_that_is_final_is_not_forgotten_over_a_later_one() -> None:
    attempts = [tried("a", FAILED, error=HOPELESS), tried("b", FAILED), tried("c", SENT)]

    move = settled(*attempts, min_agents=2, max_agents=3, retries=9)

    assert move.status is TaskStatus.FAILED
    assert move.error is not None
    assert move.error["code"] == "hopeless"


def test_an_agent_counts_once_however_often_it_answers() -> None:
    twice = [tried("a", COMPLETED, 1), tried("a", COMPLETED, 2, number=2)]

    lacks = settled(*twice, **PAIR, aggregate=Aggregate.ALL)
    whole = settled(*twice, tried("b", COMPLETED, 3), **PAIR, aggregate=Aggregate.ALL)

    assert (lacks.status, lacks.wanted) == (TaskStatus.RUNNING, 1)
    assert whole.result == {"a": 1, "b": 3}


attempts_of_several = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(list(AttemptStatus)), errors), min_size=1, max_size=7
)


@settings(max_examples=400, derandomize=True, deadline=None)
@given(attempts_of_several, st.integers(1, 3), st.integers(0, 3), st.sampled_from(list(Aggregate)))
def test_every_case_has_a_next_step_and_an_outcome_stays(
    attempts: list[tuple[str, AttemptStatus, Any]], min_agents: int, retries: int, aggregate: Aggregate
) -> None:
    made = [
        tried(agent, status, number, number=number, error=error)
        for number, (agent, status, error) in enumerate(attempts)
    ]
    now = case(*made, min_agents=min_agents, retries=retries, aggregate=aggregate)

    move = settle(now, middle)

    live = {one.message_id for one in made if one.status.is_live}
    assert set(move.call_off) <= live
    if move.status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
        off = [replace(one, status=CANCELLED) if one.message_id in move.call_off else one for one in made]
        after = settle(replace(now, tried=off), middle)
        assert set(move.call_off) == live, "an outcome leaves nobody at work"
        assert (after.status, after.result) == (move.status, move.result)
    else:
        assert move.wanted > 0 or live, "it waits for something"
        assert (move.status is TaskStatus.PENDING) <= (not live)
        assert move.result is None
        assert (move.delay_seconds > 0) <= any(one.went_wrong for one in made)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(attempts_of_several, st.integers(1, 3), st.integers(0, 3), st.randoms(use_true_random=False))
def test_what_a_task_does_depends_little_on_the_order_of_its_attempts(
    attempts: list[tuple[str, AttemptStatus, Any]], min_agents: int, retries: int, rng: Any
) -> None:
    made = [tried(a, status, 1, number=n, error=error) for n, (a, status, error) in enumerate(attempts)]
    now = case(*made, min_agents=min_agents, retries=retries, aggregate=Aggregate.MEDIAN)
    shuffled = list(made)
    rng.shuffle(shuffled)

    one, other = settle(now, middle), settle(replace(now, tried=shuffled), middle)

    assert (one.status, one.wanted, one.result) == (other.status, other.wanted, other.result)
    assert set(one.call_off) == set(other.call_off)


# --- votes --------------------------------------------------------------------------------------

VOTERS = ("a", "b", "c")


def vote(*attempts: Tried, voters: Iterable[str] = VOTERS, **more: Any) -> Move:
    options = {"rule": "supermajority", "threshold": 0.66, **more.pop("options", {}), **more}
    frozen = tuple(map(Voter, voters))
    now = case(*attempts, min_agents=2, max_agents=len(frozen))
    return settle_vote(now, Election(options, frozen)).move


def test_a_vote_asks_as_many_as_could_decide_it() -> None:
    assert first_wave({"rule": "supermajority", "threshold": 0.66}, 2, 3) == 2
    assert first_wave({"rule": "unanimous"}, 2, 5) == 5
    assert first_wave({"rule": "adaptive"}, 2, 7) == 4
    assert first_wave({}, 1, 1) == 1
    assert first_wave(None, 4, 9) == 4


def test_two_of_three_agree_and_the_third_is_not_asked() -> None:
    move = vote(tried("a", COMPLETED, "yes"), tried("b", COMPLETED, "yes"))

    assert (move.status, move.result, move.wanted) == (TaskStatus.COMPLETED, "yes", 0)
    assert move.verdict is not None
    assert (move.verdict.status, move.verdict.votes_not_asked) == (VoteStatus.REACHED, 1)


def test_two_that_differ_have_the_third_asked() -> None:
    split = [tried("a", COMPLETED, "yes"), tried("b", COMPLETED, "no")]

    asks = vote(*split)
    waits = vote(*split, tried("c", ACCEPTED))
    decided = vote(*split, tried("c", COMPLETED, "no"))

    assert (asks.status, asks.wanted) == (TaskStatus.RUNNING, 1)
    assert (waits.status, waits.wanted) == (TaskStatus.RUNNING, 0)
    assert (decided.status, decided.result) == (TaskStatus.COMPLETED, "no")
    assert decided.verdict is not None
    assert decided.verdict.dissent == ("a",)


def test_three_that_differ_fail_with_the_counts() -> None:
    move = vote(*(tried(agent, COMPLETED, agent) for agent in VOTERS))

    assert move.status is TaskStatus.FAILED
    assert move.error is not None
    assert move.error["code"] == "consensus_not_reached"
    assert move.error["message"] == "no answer can reach 2 of 3 votes"
    assert sorted(move.error["counts"].values()) == [1, 1, 1]


def test_three_that_differ_give_the_most_popular_where_that_is_wanted() -> None:
    voters = ["a", "b", "c", "d", "e"]
    answers = dict(zip(voters, ["x", "y", "y", "z", "w"], strict=True))
    attempts = [tried(agent, COMPLETED, answer) for agent, answer in answers.items()]

    move = vote(*attempts, voters=voters, on_no_consensus="plurality")

    assert (move.status, move.result) == (TaskStatus.COMPLETED, "y")
    assert move.verdict is not None
    assert move.verdict.status is VoteStatus.FAILED


@pytest.mark.parametrize("status", [FAILED, TIMED_OUT, LOST, CANCELLED])
def test_a_voter_that_is_lost_lowers_what_is_needed_down_to_the_floor(status: AttemptStatus) -> None:
    lost = tried("a", status)

    asks = vote(lost, tried("b", COMPLETED, "yes"))
    agreed = vote(lost, tried("b", COMPLETED, "yes"), tried("c", COMPLETED, "yes"))
    differ = vote(lost, tried("b", COMPLETED, "yes"), tried("c", COMPLETED, "no"))

    assert (asks.status, asks.wanted) == (TaskStatus.RUNNING, 1)
    assert (agreed.status, agreed.result) == (TaskStatus.COMPLETED, "yes")
    assert agreed.verdict is not None
    assert agreed.verdict.threshold_count == 2
    assert differ.status is TaskStatus.FAILED


def test_fewer_voters_than_the_floor_decide_nothing() -> None:
    two_lost = vote(tried("a", LOST), tried("b", FAILED), tried("c", ACCEPTED))
    all_lost = vote(*(tried(agent, LOST) for agent in VOTERS), on_no_consensus="plurality")

    assert (two_lost.status, two_lost.call_off) == (TaskStatus.FAILED, ("c:1",))
    assert all_lost.status is TaskStatus.FAILED
    assert all_lost.verdict is not None
    assert all_lost.verdict.leader is None


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_an_empty_answer_is_an_abstention(nothing: Any) -> None:
    three = vote(*(tried(agent, COMPLETED, nothing) for agent in VOTERS))
    two = vote(tried("a", COMPLETED, nothing), *(tried(agent, COMPLETED, "yes") for agent in "bc"))

    assert three.status is TaskStatus.FAILED
    assert (two.status, two.result) == (TaskStatus.COMPLETED, "yes")


def test_a_decided_vote_calls_off_who_is_still_at_it() -> None:
    move = vote(tried("a", COMPLETED, 1), tried("b", ACCEPTED), tried("c", COMPLETED, 1.0))

    assert (move.status, move.result, move.call_off) == (TaskStatus.COMPLETED, 1, ("b:1",))


def test_the_result_is_as_a_voter_wrote_it() -> None:
    options = {"vote_on": "/answer", "normalize": True}

    move = vote(
        tried("b", COMPLETED, {"answer": "Paris", "why": "b"}),
        tried("a", COMPLETED, {"answer": " paris ", "why": "a"}),
        options=options,
    )

    assert move.result == {"answer": " paris ", "why": "a"}


def test_a_voter_that_answers_late_has_answered() -> None:
    attempts = [tried("a", LOST), tried("a", COMPLETED, "yes", number=2), tried("b", COMPLETED, "yes")]

    for order in itertools.permutations(attempts):
        assert vote(*order).result == "yes"


@pytest.mark.parametrize(
    ("options", "answers", "result"),
    [
        ({"rule": "median"}, [1, 4, "2"], "2"),
        ({"rule": "median", "min_votes": 2}, [1, 4], 2.5),
        ({"rule": "trimmed_mean"}, [1, 2, 6], 3),
        ({"tolerance": 0.5}, [1.0, 1.4, 9], 1.2),
        ({"relative_tolerance": 0.1}, [100, 104, 9], 102),
        ({"rule": "schulze", "options": ["red", "Blue"]}, [["Blue", "red"], ["Blue"], "red"], "Blue"),
        ({"rule": "approval", "options": ["x", "y"], "vote_on": "/a"}, [{"a": ["y"]}, {"a": "y"}, {}], "y"),
        ({"rule": "quorum", "quorum": 2}, ["x", "y", "x"], "x"),
        ({"rule": "plurality", "options": ["x", "y"]}, ["x", "nonsense", "x"], "x"),
    ],
)
def test_each_rule_gets_its_ballots(options: dict[str, Any], answers: list[Any], result: Any) -> None:
    voters = [f"v{number}" for number in range(len(answers))]
    attempts = [tried(voter, COMPLETED, answer) for voter, answer in zip(voters, answers, strict=True)]

    move = vote(*attempts, voters=voters, options=options)

    assert (move.status, move.result) == (TaskStatus.COMPLETED, result)


def test_options_of_a_task_become_a_policy() -> None:
    policy = policy_of({"tolerance": 0.5, "relative_tolerance": 0.1, "min_votes": None, "rule": "median"}, 1)

    assert (policy.tolerance, policy.relative_tolerance, policy.min_votes, policy.panel) == (0.5, 0.1, 1, 1)
    assert policy_of({}, 5).threshold == 0.66
    assert sameness_of({"tolerance": 0.5}).number
    assert not sameness_of({}).number


ballots = st.lists(
    st.tuples(st.sampled_from(list(AttemptStatus)), st.sampled_from(["x", "y", "z", None])),
    min_size=1,
    max_size=5,
)
rules = st.sampled_from(
    ["supermajority", "majority", "unanimous", "plurality", "adaptive", "quorum", "weighted"]
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    ballots,
    st.integers(0, 3),
    rules,
    st.sampled_from(["fail", "plurality"]),
    st.randoms(use_true_random=False),
)
def test_a_vote_hears_everybody_alike_whatever_the_order_and_its_outcome_stays(
    cast: list[tuple[AttemptStatus, str | None]], more: int, rule: str, otherwise: str, rng: Any
) -> None:
    attempts = [tried(f"v{n}", status, answer) for n, (status, answer) in enumerate(cast)]
    voters = [f"v{n}" for n in range(len(cast) + more)]
    shuffled = list(attempts)
    rng.shuffle(shuffled)
    now: dict[str, Any] = {"voters": voters, "options": {"rule": rule}, "on_no_consensus": otherwise}

    move, other = vote(*attempts, **now), vote(*shuffled, **now)

    assert replace(move, call_off=()) == replace(other, call_off=())
    assert set(move.call_off) == set(other.call_off)
    live = {one.message_id for one in attempts if one.status.is_live}
    if move.status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
        off = [replace(one, status=CANCELLED) if one.status.is_live else one for one in attempts]
        after = vote(*off, **now)
        assert set(move.call_off) == live
        assert (after.status, after.result) == (move.status, move.result)
    else:
        assert move.wanted > 0 or live, "it waits for something"
        assert move.wanted + len(attempts) <= len(voters), "nobody is asked who has no vote left"
