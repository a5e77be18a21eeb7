"""Budgets: what labels may use is set here; those of tasks and submissions come with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import asyncpg

from agentorch_cli import views
from agentorch_cli.core.budget import Scope, Shortage, dollars, nano
from agentorch_cli.core.hints import did_you_mean, shortened
from agentorch_cli.core.model import MAX_NAME
from agentorch_cli.core.purses import name_in
from agentorch_cli.core.shortage import alarms
from agentorch_cli.errors import NotFound, UsageError
from agentorch_cli.handlers.context import MOST_SHOWN, Context
from agentorch_cli.store.budgets import exact, read_ledger
from agentorch_cli.store.names import none_such

LIMITS = ("cost_usd", "tokens", "attempt_usd", "attempt_tokens")

LONGEST_KEY = 500
"""Letters of a budget's key that the table takes."""

MOST_WAITING = 5_000
"""Ready tasks that are looked at for an alarm, as many as the scheduler holds."""


async def set_budget(
    context: Context,
    key: str,
    cost_usd: float | None = None,
    tokens: int | None = None,
    attempt_usd: float | None = None,
    attempt_tokens: int | None = None,
    period: str | None = None,
) -> views.BudgetView:
    """Set the budget of a label (`team=ml`), or change that of a task or a submission, by its id.

    What is not given stays as it is. `period` is `day`, `week`, `month` or `none`. Raises NotFound,
    UsageError.
    """
    known = await _find(context, key)
    if known is None and "=" not in key:
        raise NotFound(
            f"there is no budget of {key!r}",
            hint="name a label as team=ml, or the id of a task or submission that was given a budget",
        )
    if known is None and not _is_label(key):
        raise UsageError(
            f"no task can have the label {shortened(key)!r}",
            hint=f"name and value have at most {MAX_NAME} characters each, and the name is visible text",
        )
    given = {
        "cost_usd": cost_usd,
        "tokens": tokens,
        "attempt_usd": attempt_usd,
        "attempt_tokens": attempt_tokens,
    }
    limits = {
        name: value if value is not None else getattr(known, name) if known is not None else None
        for name, value in given.items()
    }
    if limits["cost_usd"] is None and limits["tokens"] is None:
        raise UsageError("a budget limits something", hint="say --cost-usd 50, --tokens 1000000, or both")
    if known is not None and known.scope != Scope.LABEL:
        if period is not None:
            raise UsageError("only the budget of a label begins anew with a period")
        await context.db.fetch(
            "change_budget",
            known.scope,
            known.key,
            *(exact(limits[name]) for name in LIMITS),
            context.store.node_id,
        )
    else:
        wanted = period if period is not None else known.period if known is not None else None
        await context.db.fetch(
            "set_budget",
            key,
            *(exact(limits[name]) for name in LIMITS),
            None if wanted == "none" else wanted,
            context.store.node_id,
        )
    return await get_budget(context, key)


async def list_budgets(context: Context, limit: int = 50) -> list[views.BudgetView]:
    """Budgets as they stand: those of labels first, then the newest."""
    waiting = await _waiting(context)
    rows = await context.db.fetch("show_budgets", None, None, limit)
    return [budget_view(row, waiting) for row in rows]


async def get_budget(context: Context, key: str) -> views.BudgetView:
    """One budget: of a label, or of a task or a submission by its id. Raises NotFound."""
    found = await _find(context, key)
    if found is None:
        known = [row["key"] for row in await context.db.fetch("show_budgets", None, None, MOST_SHOWN)]
        raise NotFound(
            f"there is no budget of {key!r}{did_you_mean(key, known)}",
            fix="agentorch budget list",
        )
    return found


async def remove_budgets(context: Context, keys: Sequence[str]) -> views.ChangeReply:
    """Lift budgets: their tasks are not limited any more, and what they spent is forgotten."""
    reply = views.ChangeReply()
    missing = []
    for key in keys:
        found = await _find(context, key)
        if found is None:
            missing.append(key)
            continue
        await context.db.fetch("remove_budget", found.scope, found.key, context.store.node_id)
        reply.changed.append(key)
    reply.unchanged |= await none_such(context.db, "budget", missing)
    return reply


async def find_budgets(context: Context, task_id: str) -> list[views.BudgetView]:
    """The budgets that a task is charged to."""
    found = []
    for row in await context.db.fetch("budgets_of_task", task_id):
        shown = await context.db.fetch("show_budgets", row["scope"], row["key"], 1)
        found += [budget_view(one, {}) for one in shown]
    return found


async def find_spend(context: Context) -> views.SpendView:
    """What all attempts said that they used."""
    row = await context.db.fetch_one("spend")
    assert row is not None  # an aggregate has one row

    def told(name: str, count: str) -> Any:
        return row[name] if row[count] else None

    return views.SpendView(
        today_usd=_number(told("usd_today", "usd_attempts_today")),
        today_tokens=_whole(told("tokens_today", "tokens_attempts_today")),
        today_unknown_attempts=row["unknown_today"],
        total_usd=_number(told("usd", "usd_attempts")),
        total_tokens=_whole(told("tokens", "tokens_attempts")),
        total_unknown_attempts=row["unknown_attempts"],
        usd_attempts=row["usd_attempts"],
        tokens_attempts=row["tokens_attempts"],
    )


async def find_alarms(context: Context) -> list[str]:
    """Sentences about budgets that ready tasks wait for."""
    return alarms(await _shortages(context))


async def _shortages(context: Context) -> list[Shortage]:
    rows = await context.db.fetch("waiting_on_budgets", MOST_WAITING)
    if not rows:
        return []
    ledger = await read_ledger(context.db, [row["task_id"] for row in rows])
    found = [ledger.ask(task_id, max(1, ledger.wanted(task_id))) for task_id in ledger.task_ids]
    return [one for one in found if isinstance(one, Shortage)]


async def _waiting(context: Context) -> Mapping[tuple[str, str], int]:
    """How many ready tasks wait for each budget."""
    counts: dict[tuple[str, str], int] = {}
    for one in await _shortages(context):
        counts[(one.scope, one.key)] = counts.get((one.scope, one.key), 0) + 1
    return counts


async def _find(context: Context, key: str) -> views.BudgetView | None:
    """The budget of this name: a label is looked for first where it looks like one."""
    rows = await context.db.fetch("show_budgets", None, key, 3)
    order = (Scope.LABEL, Scope.TASK, Scope.SUBMISSION) if "=" in key else (Scope.TASK, Scope.SUBMISSION)
    found = {row["scope"]: row for row in rows}
    row = next((found[scope] for scope in order if scope in found), None)
    return budget_view(row, await _waiting(context)) if row is not None else None


def _is_label(key: str) -> bool:
    """Whether a task can have this label."""
    name = name_in(key)
    if name is None or not name.strip() or not name.isprintable():
        return False
    return len(name) <= MAX_NAME and len(key) <= LONGEST_KEY


def budget_view(row: asyncpg.Record, waiting: Mapping[tuple[str, str], int]) -> views.BudgetView:
    """A budget as it is shown: of a unit that it does not limit, nothing is said."""
    facts = {name: row[name] for name in ("scope", "key", "period", "unknown_attempts", "running")}
    facts |= {name: row[name] for name in ("window_start", "created_at", "updated_at")}
    for limit, unit, shown in (("cost_usd", "usd", _number), ("tokens", "tokens", _whole)):
        facts[f"attempt_{unit}"] = shown(row[f"attempt_{unit}"])
        if row[limit] is None:
            continue
        facts[limit] = shown(row[limit])
        for what in ("spent", "reserved", "unknown"):
            facts[f"{what}_{unit}"] = shown(row[f"{what}_{unit}"])
        facts[f"left_{unit}"] = shown(row[limit] - row[f"spent_{unit}"] - row[f"reserved_{unit}"])
    return views.BudgetView(**facts, waiting=waiting.get((row["scope"], row["key"]), 0))


def usage_of(attempts: Sequence[views.AttemptView]) -> views.UsageView:
    """What the attempts of a task said that they used, and how many that ended said nothing."""
    costs = [one.usage["cost_usd"] for one in attempts if one.usage and "cost_usd" in one.usage]
    tokens = [
        one.usage.get("input_tokens", 0) + one.usage.get("output_tokens", 0)
        for one in attempts
        if one.usage and one.usage.keys() & {"input_tokens", "output_tokens"}
    ]
    untold = [one for one in attempts if not one.usage and one.finished_at is not None and _ran(one)]
    return views.UsageView(
        cost_usd=_number(dollars(sum(nano(cost) for cost in costs))) if costs else None,
        tokens=sum(tokens) if tokens else None,
        unknown_attempts=len(untold),
    )


def _ran(attempt: views.AttemptView) -> bool:
    """Whether it may have used something: its agent was at it."""
    if attempt.status == "cancelled":
        return attempt.accepted_at is not None and (attempt.error or {}).get("code") != "returned"
    return attempt.status in ("completed", "failed", "timed_out")


async def find_funding(context: Context, message_ids: Sequence[str]) -> dict[str, list[views.FundingView]]:
    """By attempt, what was reserved for it on each of its budgets, and what it was charged."""
    found: dict[str, list[views.FundingView]] = {}
    for row in await context.db.fetch("funding_of_attempts", list(message_ids)):
        facts = {
            name: (_number if name.endswith("usd") else _whole)(row[name])
            for name in ("granted_usd", "granted_tokens", "charged_usd", "charged_tokens")
        }
        found.setdefault(row["message_id"], []).append(
            views.FundingView(scope=row["scope"], key=row["key"], is_unknown=row["is_unknown"], **facts)
        )
    return found


def _number(amount: Decimal | None) -> float | None:
    return float(amount) if amount is not None else None


def _whole(amount: Decimal | int | None) -> int | None:
    return int(amount) if amount is not None else None
