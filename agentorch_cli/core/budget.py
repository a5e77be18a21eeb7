"""Budgets: what an attempt may use, and what is not started because it cannot be paid.

A task can be charged to several budgets at once: its own, that of its submission, and those of
its labels. Before an attempt starts, an amount is reserved for it on each of them; when it
ends, what it used takes the place of what was reserved. So at any moment

    spent + what is reserved for attempts that run  <=  limit        (whenever something is reserved)

and only the attempts that run can exceed what was reserved for them, by saying so afterwards.

How much is reserved, for each unit (dollars, tokens) that the budget limits:

* A task's own budget is its alone: each attempt gets an equal share of what is left, one
  share for each agent that the task wants at this moment.
* On a budget that is shared, an attempt gets what it is expected to use: what the task says
  (`attempt_usd`), else what the budget says, else 1.25 x the largest of the last 20 of
  its type, and never more than its own budget gives it. While nothing is known it gets all that is left,
  so that one attempt runs at a time until it has said what it used.
* A sub-task may use up what is reserved for the attempt that submitted it, where nothing else is left:
  that one waits for it, and would wait for ever.

A budget of a task or a submission does not grow by itself: what it can never pay for fails. A
task that a label's budget cannot pay for waits.

Amounts are integers: dollars are counted in billionths. There are no fractions to lose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum

PER_DOLLAR = 10**9


class Unit(StrEnum):
    """What is counted."""

    USD = "usd"
    """Billionths of a dollar."""
    TOKENS = "tokens"
    """Read and written together."""


class Scope(StrEnum):
    """Whose budget it is."""

    TASK = "task"
    SUBMISSION = "submission"
    LABEL = "label"
    """Of all tasks with this label; its key is `name=value`."""


Amounts = Mapping[Unit, int]


def nano(usd: float | str | Decimal) -> int:
    """Dollars as billionths; what is finer than that is rounded."""
    return int((Decimal(str(usd)) * PER_DOLLAR).to_integral_value(ROUND_HALF_EVEN))


def dollars(amount: int) -> Decimal:
    """Billionths as dollars."""
    return Decimal(amount) / PER_DOLLAR


@dataclass(slots=True)
class Account:
    """A budget as it stands. Units that it does not limit are not in `limit`."""

    scope: Scope
    key: str
    limit: Amounts
    spent: dict[Unit, int] = field(default_factory=dict)
    reserved: dict[Unit, int] = field(default_factory=dict)
    attempt: Amounts = field(default_factory=dict)
    """What one attempt is expected to use, as a person says it."""

    @property
    def name(self) -> tuple[Scope, str]:
        return (self.scope, self.key)

    def left(self, unit: Unit) -> int:
        """What can still be reserved; below 0 where attempts used more than was reserved for them."""
        return self.limit[unit] - self.spent.get(unit, 0) - self.reserved.get(unit, 0)

    def at_best(self, unit: Unit) -> int:
        """What would be left if the attempts that run used nothing."""
        return self.limit[unit] - self.spent.get(unit, 0)


@dataclass(frozen=True, slots=True)
class Loan:
    """What is reserved on a budget for the attempt that submitted a sub-task."""

    message_id: str
    held: Amounts


@dataclass(frozen=True, slots=True)
class Demand:
    """Attempts of one task that are to start together."""

    task_id: str
    seats: int = 1
    wanted: int = 1
    """Agents that the task wants at this moment; `seats` of them are there."""
    said: Amounts = field(default_factory=dict)
    """What the task says that one attempt uses."""
    learned: Amounts = field(default_factory=dict)
    """What attempts of its type were seen to use, with the margin."""
    loans: Mapping[tuple[Scope, str], Loan] = field(default_factory=dict)


@dataclass(slots=True)
class Grant:
    """What is reserved for one attempt on one budget."""

    scope: Scope
    key: str
    amounts: dict[Unit, int]
    borrowed: dict[Unit, int] = field(default_factory=dict)
    """The part of it that was reserved for the attempt that submitted the task."""
    lender: str | None = None


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why attempts cannot be paid."""

    scope: Scope
    key: str
    unit: Unit
    limit: int
    spent: int
    reserved: int
    each: int | None
    """What one attempt needs; None where nobody knows."""
    seats: int = 1
    is_final: bool = False
    """No attempt that runs could change it, and the budget does not grow by itself."""

    @property
    def left(self) -> int:
        return self.limit - self.spent - self.reserved


def expected_after(largest: int) -> int:
    """What an attempt is expected to use, given the most that one of the last of its type used."""
    return (5 * largest + 3) // 4


def grant(accounts: Sequence[Account], demand: Demand) -> list[list[Grant]] | Shortage:
    """What is reserved for each attempt, by seat, or what is lacking. All seats or none.

    Accounts are not changed: see `book`.
    """
    shares: dict[Unit, int] = {}
    for account in accounts:
        if account.scope is Scope.TASK:
            for unit in account.limit:
                share = _own_share(account, unit, demand)
                if isinstance(share, Shortage):
                    return share
                shares[unit] = share
    granted: list[tuple[Account, dict[Unit, int]]] = []
    for account in accounts:
        if account.scope is Scope.TASK:
            granted.append((account, dict(shares)))
            continue
        amounts: dict[Unit, int] = {}
        for unit in account.limit:
            each = _shared(account, unit, demand, shares.get(unit))
            if isinstance(each, Shortage):
                return each
            amounts[unit] = each
        granted.append((account, amounts))
    return _seated(granted, demand)


def book(accounts: Iterable[Account], grants: Iterable[Grant]) -> None:
    """Count what was granted as reserved."""
    by_name = {account.name: account for account in accounts}
    for one in grants:
        reserved = by_name[(one.scope, one.key)].reserved
        for unit, amount in one.amounts.items():
            reserved[unit] = reserved.get(unit, 0) + amount - one.borrowed.get(unit, 0)


def allowed(accounts: Sequence[Account], grants: Sequence[Grant]) -> dict[Unit, int]:
    """What an attempt is told that it may use, after `book`: its share, or what shared budgets have left."""
    by_name = {account.name: account for account in accounts}
    found: dict[Unit, int] = {}
    for one in grants:
        for unit, amount in one.amounts.items():
            if one.scope is not Scope.TASK:
                amount += max(0, by_name[(one.scope, one.key)].left(unit))
            found[unit] = min(found.get(unit, amount), amount)
    return found


def _own_share(account: Account, unit: Unit, demand: Demand) -> int | Shortage:
    wanted = max(demand.wanted, demand.seats)
    if unit in demand.said:
        least = share = demand.said[unit]
        fits = account.left(unit) >= share * demand.seats
        never = account.at_best(unit) < share * demand.seats
    else:
        least = max(1, min(demand.learned.get(unit, 1), account.limit[unit] // wanted))
        share = account.left(unit) // wanted
        fits = share >= least
        never = account.at_best(unit) // wanted < least
    if fits:
        return share
    needs = demand.said.get(unit, demand.learned.get(unit))
    return _shortage(account, unit, demand, least if needs is not None else None, never)


def _shared(account: Account, unit: Unit, demand: Demand, own: int | None) -> int | Shortage:
    """What one attempt gets of a budget that it shares with others."""
    loan = demand.loans.get(account.name)
    lent = loan.held.get(unit, 0) if loan is not None else 0
    left = account.left(unit)
    each = _expected(account, unit, demand, own)
    if each is None:
        source = left if left >= demand.seats else lent
        if source >= demand.seats:
            return source // demand.seats
    elif max(0, left) + lent >= max(1, each * demand.seats):
        return each
    never = account.scope is not Scope.LABEL and account.at_best(unit) < max(1, (each or 1) * demand.seats)
    return _shortage(account, unit, demand, each, never)


def _expected(account: Account, unit: Unit, demand: Demand, own: int | None) -> int | None:
    said = demand.said.get(unit, account.attempt.get(unit))
    if said is None and unit in demand.learned:
        said = min(demand.learned[unit], account.limit[unit] // demand.seats)
    if said is None or own is None:
        return own if said is None else said
    return min(said, own)


def _shortage(account: Account, unit: Unit, demand: Demand, each: int | None, never: bool) -> Shortage:
    return Shortage(
        account.scope,
        account.key,
        unit,
        account.limit[unit],
        account.spent.get(unit, 0),
        account.reserved.get(unit, 0),
        each,
        demand.seats,
        is_final=never,
    )


def _seated(granted: Sequence[tuple[Account, dict[Unit, int]]], demand: Demand) -> list[list[Grant]]:
    """The same for every seat; what is left is used before anything is borrowed."""
    left = {(a.name, unit): max(0, a.left(unit)) for a, amounts in granted for unit in amounts}
    seats: list[list[Grant]] = []
    for _ in range(demand.seats):
        grants = []
        for account, amounts in granted:
            one = Grant(account.scope, account.key, dict(amounts))
            loan = demand.loans.get(account.name)
            for unit, amount in amounts.items():
                there = (account.name, unit)
                lacking = max(0, amount - left[there])
                left[there] = max(0, left[there] - amount)
                if loan is not None and lacking:
                    one.borrowed[unit], one.lender = lacking, loan.message_id
            grants.append(one)
        seats.append(grants)
    return seats
