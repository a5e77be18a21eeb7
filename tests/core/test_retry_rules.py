"""Retries by error code: counted by themselves, with waits of their own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch_cli.core.model import AttemptStatus, TaskStatus
from agentorch_cli.core.settle import MOST_LOSSES, Case, Move, Retry, Tried, retry_rules, settle, settle_one

FAILED, TIMED_OUT, LOST = AttemptStatus.FAILED, AttemptStatus.TIMED_OUT, AttemptStatus.LOST


def fully() -> float:
    return 1.0


def error(code: str, **more: Any) -> dict[str, Any]:
    return {"code": code, "message": f"it was {code}", **more}


def after(*codes: str, rules: dict[str, Retry] | None = None, **more: Any) -> Move:
    """What a task does after attempts that failed with these codes; `agent_lost` is a loss."""
    tried = [
        Tried(f"m{number}", f"a{number}", LOST if code == "agent_lost" else FAILED, error=error(code))
        for number, code in enumerate(codes)
    ]
    losses = codes.count("agent_lost")
    case = Case(
        "task",
        tried,
        failures=len(codes) - losses,
        losses=losses,
        retry=rules or {},
        **{"retries": 1, **more},
    )
    return settle(case, fully)


def test_a_code_with_a_rule_has_its_own_number_of_retries() -> None:
    rules = {"busy": Retry(retries=3)}

    assert after(*["busy"] * 3, rules=rules).status is TaskStatus.PENDING
    assert after(*["busy"] * 4, rules=rules).status is TaskStatus.FAILED
    assert after("broken", "broken", rules=rules).status is TaskStatus.FAILED


def test_what_has_a_rule_uses_up_nothing_of_the_others() -> None:
    rules = {"busy": Retry(retries=5)}

    assert after(*["busy"] * 5, "broken", rules=rules).status is TaskStatus.PENDING
    assert after(*["busy"] * 5, "broken", "broken", rules=rules).status is TaskStatus.FAILED
    assert after("broken", *["busy"] * 5, rules=rules).status is TaskStatus.PENDING


def test_no_retries_for_a_code_end_the_task_at_once() -> None:
    move = after("bad_input", rules={"bad_input": Retry(retries=0)}, retries=9)

    assert move.status is TaskStatus.FAILED
    assert move.error == {**error("bad_input"), "attempts_failed": 1}


def test_a_rule_without_retries_has_those_of_the_task() -> None:
    rules = {"busy": Retry(backoff_seconds=9.0)}

    assert after("busy", rules=rules).delay_seconds == 9.0
    assert after("busy", "busy", rules=rules).status is TaskStatus.FAILED


def test_waits_double_by_code_up_to_the_most() -> None:
    rules = {"busy": Retry(retries=9, backoff_seconds=4.0, max_backoff_seconds=10.0)}
    more: dict[str, Any] = {"rules": rules, "backoff_seconds": 1.0, "retries": 9}

    waits = [after(*["busy"] * number, **more).delay_seconds for number in (1, 2, 3)]
    mixed = [after("busy", "busy", "broken", **more), after("broken", "broken", "busy", **more)]

    assert waits == [4.0, 8.0, 10.0]
    assert [move.delay_seconds for move in mixed] == [1.0, 4.0]


def test_the_longest_wait_of_a_task_is_its_own() -> None:
    waits = [
        after(*["broken"] * number, retries=9, backoff_seconds=2.0, max_backoff_seconds=5.0).delay_seconds
        for number in (1, 2, 3, 4)
    ]

    assert waits == [2.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        (Retry(retries=2), TaskStatus.PENDING),
        (Retry(backoff_seconds=2.0), TaskStatus.FAILED),
        (None, TaskStatus.FAILED),
    ],
)
def test_only_a_rule_that_names_retries_goes_before_what_the_agent_says(
    rule: Retry | None, status: TaskStatus
) -> None:
    tried = [Tried("m", "a", FAILED, error=error("hopeless", retryable=False))]
    rules = {"hopeless": rule} if rule else {}

    move = settle(Case("task", tried, retries=9, failures=1, retry=rules), fully)

    assert move.status is status
    if status is TaskStatus.FAILED:
        assert move.error is not None and move.error["retryable"] is False


def test_a_time_limit_has_the_code_timeout() -> None:
    tried = [Tried("m", "a", TIMED_OUT, error=error("timeout"))]

    assert settle(Case("t", tried, failures=1, retry={"timeout": Retry(retries=0)}), fully).status is (
        TaskStatus.FAILED
    )


def test_a_loss_may_have_a_rule_too() -> None:
    never_again = {"agent_lost": Retry(retries=0)}
    patient = {"agent_lost": Retry(retries=20, backoff_seconds=3.0)}

    assert after("agent_lost").delay_seconds == 0.0
    assert after("agent_lost", rules=never_again, retries=9).status is TaskStatus.FAILED
    assert after(*["agent_lost"] * (MOST_LOSSES + 1), rules=patient).status is TaskStatus.PENDING
    assert after("agent_lost", rules=patient).delay_seconds == 3.0
    assert after("broken", "agent_lost", rules={"agent_lost": Retry(retries=3)}).delay_seconds == 0.0


def test_an_error_without_a_code_has_the_code_failed() -> None:
    tried = [Tried("m", "a", FAILED)]

    assert settle(Case("t", tried, failures=1, retry={"failed": Retry(retries=0)}), fully).status is (
        TaskStatus.FAILED
    )


def test_several_agents_count_together() -> None:
    rules = {"busy": Retry(retries=2)}
    done = Tried("m9", "z", AttemptStatus.COMPLETED, result=1)
    busy = [Tried(f"m{n}", f"a{n}", FAILED, error=error("busy")) for n in range(3)]

    twice = settle(Case("t", [done, *busy[:2]], 2, 2, retries=0, failures=2, retry=rules), fully)
    thrice = settle(Case("t", [done, *busy], 2, 2, retries=0, failures=3, retry=rules), fully)

    assert (twice.status, twice.wanted) == (TaskStatus.RUNNING, 1)
    assert thrice.status is TaskStatus.FAILED


def test_rules_are_read_from_options() -> None:
    assert retry_rules(None) == {}
    assert retry_rules({"busy": {"retries": 3, "backoff_seconds": 1.0}}) == {"busy": Retry(3, 1.0)}


@given(
    codes=st.lists(st.sampled_from(["broken", "agent_lost"]), min_size=1, max_size=7),
    retries=st.integers(0, 4),
    most=st.floats(0.1, 100),
)
def test_rules_for_other_codes_change_nothing(codes: list[str], retries: int, most: float) -> None:
    rules = {"busy": Retry(0, 9.0)}

    ruled = after(*codes, rules=rules, retries=retries, max_backoff_seconds=most)

    assert ruled == after(*codes, retries=retries, max_backoff_seconds=most)


def test_the_quick_way_knows_the_longest_wait() -> None:
    for failures, most in itertools.product(range(4), (0.5, 3.0, 300.0)):
        quick = settle_one(
            FAILED,
            error("broken"),
            retries=9,
            failures=failures,
            losses=0,
            backoff_seconds=1.0,
            max_backoff_seconds=most,
            jitter=fully,
        )
        slow = after(*["broken"] * (failures + 1), retries=9, max_backoff_seconds=most)

        assert quick.delay_seconds == slow.delay_seconds
