"""Budgets in the database: accounts as they stand, reservations, and what people set.

An assigning transaction locks its tasks, then their budgets, reads both, lets `core.budget`
decide, and writes the reservations with the attempts: see `Ledger` and `fund`. What ends an
attempt settles it by a trigger of the schema, whoever does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

import asyncpg

from agentorch_cli.core.budget import (
    Account,
    Demand,
    Grant,
    Loan,
    Scope,
    Shortage,
    Unit,
    allowed,
    book,
    dollars,
    expected_after,
    grant,
    nano,
)
from agentorch_cli.core.model import TaskSpec
from agentorch_cli.errors import Conflict
from agentorch_cli.store.database import Transaction
from agentorch_cli.store.records import Assignment

Name = tuple[Scope, str]


class Source(Protocol):
    """A pool, or a transaction."""

    async def fetch(self, name: str, *args: Any) -> list[asyncpg.Record]: ...


@dataclass(slots=True)
class _Facts:
    """A task, as far as budgets go."""

    wanted: int
    said: dict[Unit, int]
    learned: dict[Unit, int]
    accounts: list[Account] = field(default_factory=list)
    loans: dict[Name, Loan] = field(default_factory=dict)


class Ledger:
    """The budgets of some tasks at one moment, and what has been granted on them since."""

    def __init__(self, rows: Iterable[asyncpg.Record]) -> None:
        self._accounts: dict[Name, Account] = {}
        self._tasks: dict[str, _Facts] = {}
        self._loans: dict[tuple[str, Name], Loan] = {}
        for row in rows:
            self._enter(row)

    @property
    def task_ids(self) -> list[str]:
        """The tasks that are on a budget."""
        return list(self._tasks)

    def wanted(self, task_id: str) -> int:
        """Agents that a task wants at this moment."""
        return self._tasks[task_id].wanted

    def ask(self, task_id: str, seats: int, wanted: int | None = None) -> list[list[Grant]] | Shortage:
        """What each of `seats` attempts gets, by seat, or what is lacking. Without a budget: nothing."""
        facts = self._tasks.get(task_id)
        if facts is None:
            return [[] for _ in range(seats)]
        demand = Demand(task_id, seats, wanted or facts.wanted, facts.said, facts.learned, facts.loans)
        return grant(facts.accounts, demand)

    def book(self, grants: Iterable[Grant]) -> None:
        """Count what was granted as reserved, for those that ask after this."""
        grants = list(grants)
        book(self._accounts.values(), grants)
        for one in grants:
            if one.lender is not None:
                name = (one.scope, one.key)
                held = self._loans[(one.lender, name)].held
                assert isinstance(held, dict)
                for unit, amount in one.borrowed.items():
                    held[unit] -= amount

    def allowed(self, task_id: str, grants: Sequence[Grant]) -> dict[str, Any] | None:
        """What the agent of an attempt is told that it may use, once it is booked; None without a budget."""
        facts = self._tasks.get(task_id)
        found = allowed(facts.accounts, grants) if facts is not None else {}
        told: dict[str, Any] = {}
        if Unit.USD in found:
            told["costUsd"] = float(dollars(found[Unit.USD]))
        if Unit.TOKENS in found:
            told["tokens"] = found[Unit.TOKENS]
        return told or None

    def _enter(self, row: asyncpg.Record) -> None:
        name = (Scope(row["scope"]), row["key"])
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = account_of(row)
        facts = self._tasks.get(row["task_id"])
        if facts is None:
            facts = self._tasks[row["task_id"]] = _Facts(row["wanted"], *_expectations(row))
        facts.accounts.append(account)
        if row["lender"] is not None:
            held = _amounts(row["lender_usd"], row["lender_tokens"])
            facts.loans[name] = self._loans.setdefault((row["lender"], name), Loan(row["lender"], held))


def account_of(row: asyncpg.Record) -> Account:
    """A budget, from its row."""
    return Account(
        Scope(row["scope"]),
        row["key"],
        _amounts(row["cost_usd"], row["tokens"]),
        _amounts(row["spent_usd"], row["spent_tokens"]),
        _amounts(row["reserved_usd"], row["reserved_tokens"]),
        _amounts(row["attempt_usd"], row["attempt_tokens"]),
    )


def _amounts(usd: Decimal | None, tokens: Decimal | None) -> dict[Unit, int]:
    found: dict[Unit, int] = {}
    if usd is not None:
        found[Unit.USD] = nano(usd)
    if tokens is not None:
        found[Unit.TOKENS] = int(tokens)
    return found


def _expectations(row: asyncpg.Record) -> tuple[dict[Unit, int], dict[Unit, int]]:
    said = _amounts(
        Decimal(row["said_usd"]) if row["said_usd"] is not None else None,
        Decimal(row["said_tokens"]) if row["said_tokens"] is not None else None,
    )
    seen = _amounts(row["seen_usd"], row["seen_tokens"])
    return said, {unit: expected_after(largest) for unit, largest in seen.items()}


async def read_ledger(source: Source, task_ids: Sequence[str]) -> Ledger:
    """The budgets of tasks as they stand."""
    return Ledger(await source.fetch("budgets_of_tasks", list(task_ids)))


async def lock_ledger(tx: Transaction, task_ids: Sequence[str]) -> Ledger:
    """The same, locked until the end of the transaction, which has locked the tasks before."""
    await tx.fetch("lock_budgets", list(task_ids))
    return await read_ledger(tx, task_ids)


async def fund(tx: Transaction, pairs: Sequence[tuple[Assignment, Sequence[Grant]]], node_id: str) -> None:
    """Reserve for attempts that this transaction has made. Its ledger is locked, so there is enough."""
    rows = [(one, given) for one, grants in pairs for given in grants]
    if not rows:
        return
    found = await tx.fetch(
        "fund_attempts",
        [one.message_id for one, _ in rows],
        [one.task_id for one, _ in rows],
        [one.agent_id for one, _ in rows],
        [str(given.scope) for _, given in rows],
        [given.key for _, given in rows],
        [_usd(given.amounts) for _, given in rows],
        [_tokens(given.amounts) for _, given in rows],
        [_usd(given.borrowed) or Decimal(0) for _, given in rows],
        [_tokens(given.borrowed) or Decimal(0) for _, given in rows],
        [given.lender for _, given in rows],
        node_id,
    )
    if found[0]["paid"] != found[0]["asked"]:
        raise Conflict("a budget changed although it was locked: nothing was assigned")


async def read_labels(source: Source) -> tuple[frozenset[str], float | None]:
    """The labels that have a budget, and seconds until one of these begins anew."""
    rows = await source.fetch("label_budgets")
    waits = [row["renews_in_s"] for row in rows if row["renews_in_s"] is not None]
    return frozenset(row["key"] for row in rows), min(waits, default=None)


def _usd(amounts: Mapping[Unit, int]) -> Decimal | None:
    return dollars(amounts[Unit.USD]) if Unit.USD in amounts else None


def _tokens(amounts: Mapping[Unit, int]) -> Decimal | None:
    return Decimal(amounts[Unit.TOKENS]) if Unit.TOKENS in amounts else None


# --- what people set --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewBudget:
    """A budget that a submission brings."""

    scope: Scope
    key: str
    limits: Mapping[str, Any]
    """As in a task file: `cost_usd`, `tokens`, `attempt_usd`, `attempt_tokens`."""


def new_budgets(
    tasks: Iterable[TaskSpec], submission_id: str, own: Mapping[str, Any] | None
) -> list[NewBudget]:
    """The budgets of a submission and of its tasks; those that limit nothing are none."""
    found = [NewBudget(Scope.TASK, task.task_id, task.budget) for task in tasks if task.budget]
    if own:
        found.append(NewBudget(Scope.SUBMISSION, submission_id, own))
    return [one for one in found if one.limits.keys() & {"cost_usd", "tokens"}]


async def insert_budgets(tx: Transaction, budgets: Sequence[NewBudget]) -> None:
    """Store what a submission brings, in its transaction."""
    if budgets:
        await tx.fetch(
            "insert_budgets",
            [str(one.scope) for one in budgets],
            [one.key for one in budgets],
            [exact(one.limits.get("cost_usd")) for one in budgets],
            [exact(one.limits.get("tokens")) for one in budgets],
            [exact(one.limits.get("attempt_usd")) for one in budgets],
            [exact(one.limits.get("attempt_tokens")) for one in budgets],
        )


def exact(number: float | None) -> Decimal | None:
    """A number as it was written, not as a float is near it; dollars to a billionth."""
    return dollars(nano(number)) if number is not None else None
