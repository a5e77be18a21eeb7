"""How budgets, usage and spend look: never 0 where nothing is known."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from agentorch_cli.cli.look import Look
from agentorch_cli.cli.tables import Column
from agentorch_cli.core.shortage import money
from agentorch_cli.views import AttemptView, BudgetView, SpendView, UsageView


def amounts(usd: float | None, tokens: int | None) -> str:
    """`$0.42, 1,200 tokens`; empty where neither is known."""
    parts = [money(usd)] if usd is not None else []
    parts += [f"{tokens:,} tokens"] if tokens is not None else []
    return ", ".join(parts)


def used(usage: UsageView) -> str:
    """What attempts said, and how many said nothing."""
    told = amounts(usage.cost_usd, usage.tokens)
    if not usage.unknown_attempts:
        return told
    of = _attempts(usage.unknown_attempts)
    return f"{told}; unknown for {of}" if told else f"unknown ({of} said nothing)"


def of_attempt(attempt: AttemptView) -> str:
    """What one attempt said; `unknown` where a budget wants to know and it did not say."""
    if said := _said(attempt.usage):
        return said
    so_far = _said(attempt.usage_so_far)
    if any(one.is_unknown for one in attempt.funding):
        return f"unknown, at least {so_far}" if so_far else "unknown"
    if not so_far:
        return ""
    return f"{so_far} so far" if attempt.finished_at is None else f"at least {so_far}"


def _said(usage: dict[str, Any] | None) -> str:
    told = usage or {}
    tokens = [told[key] for key in ("input_tokens", "output_tokens") if key in told]
    return amounts(told.get("cost_usd"), sum(tokens) if tokens else None)


def spent(budget: BudgetView) -> str:
    """What counts as spent; the part that nobody told is named as such."""
    told = amounts(budget.spent_usd, budget.spent_tokens)
    if not budget.unknown_attempts:
        return told
    return f"{told}, of which unknown (at most {amounts(budget.unknown_usd, budget.unknown_tokens)})"


def spend(found: SpendView) -> list[Text]:
    """The line of `status`, piece by piece; none where nobody has ever said anything."""
    total = amounts(found.total_usd, found.total_tokens)
    pieces = []
    if total:
        none = "unknown" if found.today_unknown_attempts else "nothing told"
        today = amounts(found.today_usd, found.today_tokens) or none
        pieces = [Text(f"{today} today"), Text(f"{total} in all")]
    if found.total_unknown_attempts:
        pieces.append(Text(f"{_attempts(found.total_unknown_attempts)} did not say", "yellow"))
    return pieces


def charged(one: BudgetView) -> str:
    """A budget in the words of a task that is charged to it."""
    name = "its own" if one.scope == "task" else f"{one.scope} {one.key}"
    return f"{name}: {spent(one)} of {amounts(one.cost_usd, one.tokens)} spent, {left(one)} left"


def booked(data: dict[str, Any]) -> str:
    """An event of a budget: how much, and on which."""
    amount = amounts(data.get("cost_usd"), data.get("tokens"))
    guess = "unknown, at most " if data.get("is_unknown") else ""
    whose = "its own budget" if data.get("scope") == "task" else f"{data.get('scope')} {data.get('key')}"
    return f"{guess}{amount} on {whose}" if amount else whose


def facts(budget: BudgetView, look: Look) -> list[tuple[str, Text]]:
    """A budget, line by line."""
    expected = amounts(budget.attempt_usd, budget.attempt_tokens)
    found: list[tuple[str, str | None]] = [
        ("limit", amounts(budget.cost_usd, budget.tokens)),
        ("spent", spent(budget)),
        ("reserved", amounts(budget.reserved_usd, budget.reserved_tokens) if budget.running else None),
        ("left", left(budget)),
        ("running", _attempts(budget.running) if budget.running else None),
        (
            "waiting",
            f"{budget.waiting:,} task{'' if budget.waiting == 1 else 's'}" if budget.waiting else None,
        ),
        ("attempt", f"{expected}, as it was said" if expected else None),
        ("unknown", f"{_attempts(budget.unknown_attempts)} did not say" if budget.unknown_attempts else None),
    ]
    rows = [(name, look.text(value)) for name, value in found if value]
    if budget.period:
        rows.append(("since", look.age(budget.window_start) + look.text(f", anew each {budget.period}")))
    return rows


def left(budget: BudgetView) -> str:
    """What can still be reserved."""
    parts = []
    if budget.left_usd is not None:
        parts.append(
            money(budget.left_usd) if budget.left_usd >= 0 else f"overspent by {money(-budget.left_usd)}"
        )
    if budget.left_tokens is not None:
        over = budget.left_tokens < 0
        parts.append(
            f"overspent by {-budget.left_tokens:,} tokens" if over else f"{budget.left_tokens:,} tokens"
        )
    return ", ".join(parts)


def _attempts(number: int) -> str:
    return f"{number:,} attempt{'' if number == 1 else 's'}"


def _share(one: BudgetView) -> float:
    """How much of the budget is used, by the unit of which there is less left."""
    shares = []
    if one.cost_usd:
        shares.append(((one.spent_usd or 0) + (one.reserved_usd or 0)) / one.cost_usd)
    if one.tokens:
        shares.append(((one.spent_tokens or 0) + (one.reserved_tokens or 0)) / one.tokens)
    return max(shares, default=0.0)


def _left(one: Any, look: Look) -> Text:
    is_over = (one.left_usd or 0) < 0 or (one.left_tokens or 0) < 0
    return look.text(left(one), "red" if is_over else "")


def _spent(one: Any, look: Look) -> Text:
    """On a terminal in short: what is not known counts as all that was reserved for it."""
    if not look.is_terminal or not one.unknown_attempts:
        return look.text(spent(one))
    return look.text(f"at most {amounts(one.spent_usd, one.spent_tokens)}", "yellow")


BUDGETS = (
    Column("BUDGET", lambda one, look: look.text(one.key, "bold"), is_id=True),
    Column("OF", lambda one, look: look.text(one.scope), 3),
    Column("LIMIT", lambda one, look: look.text(amounts(one.cost_usd, one.tokens)), least=24, is_right=True),
    Column("SPENT", _spent, least=24, is_right=True),
    Column(
        "RESERVED",
        lambda one, look: look.text(amounts(one.reserved_usd, one.reserved_tokens) if one.running else ""),
        5,
        is_right=True,
    ),
    Column("LEFT", _left, least=24, is_right=True),
    Column("USED", lambda one, look: look.bar(_share(one)), 4),
    Column("WAITING", lambda one, look: Text(f"{one.waiting:,}" if one.waiting else ""), 6, is_right=True),
    Column("ANEW", lambda one, look: look.text(f"each {one.period}" if one.period else ""), 2),
)
