"""Budgets on the command line: what is asked, and how money looks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from agentorch_cli.cli import money
from agentorch_cli.core.budget import Scope, Shortage, Unit
from agentorch_cli.core.shortage import alarms
from agentorch_cli.core.shortage import money as dollars
from agentorch_cli.views import BudgetView, ChangeReply, SpendView, SubmitReply, UsageView

ML = BudgetView(
    scope="label",
    key="team=ml",
    cost_usd=5,
    spent_usd=4.88,
    reserved_usd=0,
    left_usd=0.12,
    unknown_usd=0.5,
    unknown_attempts=2,
    waiting=3,
    period="day",
    window_start=datetime(2026, 5, 4, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0, "$0"),
        (5, "$5"),
        (0.5, "$0.50"),
        (0.0042, "$0.0042"),
        (0.1234567, "$0.123"),
        (1e-9, "$0.000000001"),
        (12.5, "$12.50"),
        (1234567.891, "$1,234,567.89"),
        (-0.25, "-$0.25"),
    ],
)
def test_money_is_shown_with_enough_digits(amount: float, shown: str) -> None:
    assert dollars(amount) == shown


def test_what_is_not_known_is_never_shown_as_zero() -> None:
    assert money.used(UsageView(unknown_attempts=1)) == "unknown (1 attempt said nothing)"
    assert money.used(UsageView(tokens=1200, unknown_attempts=2)) == "1,200 tokens; unknown for 2 attempts"
    assert money.spent(ML) == "$4.88, of which unknown (at most $0.50)"
    assert money.spend(SpendView()) == []
    (piece,) = money.spend(SpendView(today_unknown_attempts=1, total_unknown_attempts=1))
    assert piece.plain == "1 attempt did not say"
    told = money.spend(SpendView(today_unknown_attempts=2, total_usd=1.5, total_unknown_attempts=2))
    assert [one.plain for one in told] == ["unknown today", "$1.50 in all", "2 attempts did not say"]


def test_an_alarm_counts_those_who_wait_for_the_same() -> None:
    lacking = Shortage(Scope.LABEL, "team=ml", Unit.USD, 5 * 10**9, 488 * 10**7, 0, 5 * 10**8)

    assert alarms([lacking] * 3) == [
        "3 tasks wait for budget label team=ml: $0.12 of $5 left, each needs $0.50"
    ]


def test_the_budget_of_a_label_is_set(agentorch: Callable[..., Any], desk: Any) -> None:
    desk.answers["budget.set"] = ML

    done = agentorch("budget", "set", "team=ml", "--cost-usd", "5", "--period", "day")

    assert desk.calls == [
        (
            "budget.set",
            {
                "key": "team=ml",
                "cost_usd": 5.0,
                "tokens": None,
                "attempt_usd": None,
                "attempt_tokens": None,
                "period": "day",
            },
        )
    ]
    assert done.code == 0
    assert done.out.splitlines()[1].split("\t") == [
        "team=ml",
        "label",
        "$5",
        "$4.88, of which unknown (at most $0.50)",
        "",
        "$0.12",
        "0.98",
        "3",
        "each day",
    ]


@pytest.mark.parametrize(
    "line", ["--cost-usd 0", "--cost-usd -1", "--cost-usd much", "--tokens 1.5", "--period year"]
)
def test_a_wrong_amount_is_refused(agentorch: Callable[..., Any], desk: Any, line: str) -> None:
    done = agentorch("budget", "set", "team=ml", *line.split())

    assert (done.code, desk.calls) == (2, [])


def test_budgets_are_listed_shown_and_lifted(agentorch: Callable[..., Any], desk: Any) -> None:
    desk.answers |= {
        "budget.list": [],
        "budget.get": ML,
        "budget.remove": ChangeReply(changed=["team=ml"], unchanged={"x": "there is no such budget"}),
    }

    assert agentorch("budget", "list").err == "There are no budgets yet; agentorch budget set makes one.\n"
    desk.answers["budget.list"] = [ML]
    assert agentorch("budget", "list").err == ""
    assert "--limit" in agentorch("budget", "list", "--limit", "1").err  # there may be others
    shown = agentorch("budget", "show", "team=ml").out
    assert "left\t$0.12" in shown and "anew each day" in shown and "3 tasks" in shown
    refused = agentorch("budget", "remove", "team=ml", "x")
    assert refused.code == 2 and "--yes" in refused.err  # something was spent, and nobody can be asked
    assert agentorch("budget", "remove", "team=ml", "x", "--yes").code == 9


def test_a_submission_is_given_a_budget_by_its_file_and_by_options(
    agentorch: Callable[..., Any], desk: Any, tmp_path: Any
) -> None:
    desk.answers |= {"task.submit": SubmitReply(submission_id="s"), "node.list": []}
    (tmp_path / "task.toml").write_text('[budget]\ncost_usd = 2\ntokens = 9\n[task]\ntype = "t"\n')
    (tmp_path / "other.toml").write_text('[budget]\ncost_usd = 2\n[task]\ntype = "t"\n')

    assert agentorch("task", "submit", "task.toml", "--budget-usd", "3.5").code == 0
    assert desk.calls[0][1]["budget"] == {"cost_usd": 3.5, "tokens": 9}
    desk.calls.clear()
    both = agentorch("task", "submit", "task.toml", "other.toml")
    assert (both.code, desk.calls) == (2, [])
    assert "a submission has one budget" in both.err


def test_only_the_budgets_with_most_waiting_tasks_are_told_one_by_one() -> None:
    def lacking(key: str) -> Shortage:
        return Shortage(Scope.LABEL, key, Unit.USD, 10**9, 10**9, 0, 10**8)

    names = [f"team={number}" for number in range(20)]

    told = alarms(map(lacking, [*names, "team=7"]))

    assert told[0] == "2 tasks wait for budget label team=7: $0 of $1 left, each needs $0.10"
    assert told[5:] == ["15 tasks wait for 15 more budgets: agentorch budget list"]
    assert alarms(map(lacking, names[:6]))[5:] == ["1 task waits for 1 more budget: agentorch budget list"]
