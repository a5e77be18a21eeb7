"""Budgets in words: amounts as people read them, and why something is not paid."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from agentorch_cli.core.budget import Scope, Shortage, Unit, dollars


def in_words(unit: Unit, amount: int) -> str:
    """`$0.0042`, `$5`, `1,200 tokens`."""
    return money(dollars(amount)) if unit is Unit.USD else f"{amount:,} tokens"


def money(usd: Decimal | float) -> str:
    """Dollars with enough digits: `$5`, `$12.50`, `$0.0042`; never 0 for what is more."""
    exact = Decimal(str(usd))
    sign, exact = ("-" if exact < 0 else ""), abs(exact)
    if exact == exact.to_integral_value():
        return f"{sign}${exact.to_integral_value():,}"
    if exact >= 1:
        return f"{sign}${exact:,.2f}"
    digits = max(2, 2 - exact.adjusted())
    text = f"{exact:.{digits}f}".rstrip("0")
    return f"{sign}${text.ljust(4, '0')}"


def called(scope: str, key: str) -> str:
    """A budget by its name."""
    return "its own budget" if scope == Scope.TASK else f"budget {scope} {key}"


def standing(one: Shortage) -> str:
    """`$0.12 of $5 left`."""
    if one.left < 0:
        return f"{in_words(one.unit, -one.left)} more than its {in_words(one.unit, one.limit)} is used"
    left = f"{in_words(one.unit, one.left)} of {in_words(one.unit, one.limit)} left"
    held = f" ({in_words(one.unit, one.reserved)} reserved for attempts that run)" if one.reserved else ""
    return left + held


def needs(one: Shortage) -> str:
    """What is wanted of it."""
    if one.each is None:
        return "it is not known yet what an attempt uses"
    agents = f"each of {one.seats} agents" if one.seats > 1 else "an attempt"
    return f"{agents} needs {in_words(one.unit, one.each)}"


def sentence(one: Shortage) -> str:
    """Why a task is not started."""
    return f"waits for {called(one.scope, one.key)}: {standing(one)}, {needs(one)}"


MOST_ALARMS = 5
"""Budgets that are told one by one; the rest is counted."""


def alarms(shortages: Iterable[Shortage]) -> list[str]:
    """Sentences about budgets that tasks wait for: those with most tasks first, the others as a number."""
    waiting: dict[tuple[str, str, Unit], list[Shortage]] = {}
    for one in shortages:
        waiting.setdefault((one.scope, one.key, one.unit), []).append(one)
    told = []
    order = sorted(waiting, key=lambda name: (-len(waiting[name]), name))
    for scope, key, unit in order[:MOST_ALARMS]:
        ones = waiting[scope, key, unit]
        who = "1 task waits" if len(ones) == 1 else f"{len(ones):,} tasks wait"
        whose = f"budget {scope} {key}"
        known = sorted({one.each for one in ones if one.each is not None})
        more = " or more" if len(known) > 1 else ""
        each = f"each needs {in_words(unit, known[0])}{more}" if known else needs(ones[0])
        told.append(f"{who} for {whose}: {standing(ones[0])}, {each}")
    if rest := order[MOST_ALARMS:]:
        number = sum(len(waiting[name]) for name in rest)
        who = "1 task waits" if number == 1 else f"{number:,} tasks wait"
        told.append(
            f"{who} for {len(rest):,} more budget{'' if len(rest) == 1 else 's'}: agentorch budget list"
        )
    return told


def exhausted(one: Shortage) -> dict[str, Any]:
    """The error of a task that can never be paid."""
    what = {Scope.TASK: "the task's budget", Scope.SUBMISSION: "the budget of its submission"}
    whose = what.get(one.scope, called(one.scope, one.key))
    message = (
        f"{whose} of {in_words(one.unit, one.limit)} cannot pay for another attempt:"
        f" {in_words(one.unit, one.spent)} is spent,"
        f" {in_words(one.unit, max(0, one.limit - one.spent))} is left"
    )
    if one.each is not None:
        message += f", {needs(one)}"
    as_number = (lambda amount: float(dollars(amount))) if one.unit is Unit.USD else int
    return {
        "code": "budget_exhausted",
        "message": message,
        "retryable": False,
        "scope": str(one.scope),
        "key": one.key,
        "unit": str(one.unit),
        "limit": as_number(one.limit),
        "spent": as_number(one.spent),
        "needed": as_number(one.each * one.seats) if one.each is not None else None,
    }
