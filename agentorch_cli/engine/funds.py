"""What attempts cost, on the side of the scheduler: reserved with the assignment, or refused.

The assigning transaction locks the budgets of its tasks, asks `core.budget` what each attempt gets,
and writes it with the attempts. What it refuses waits at a gate of the backlog until that budget
changes: a trigger says so when an attempt is settled, and whoever sets a budget does. What can
never be paid is failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agentorch_cli.core.backlog import Ready
from agentorch_cli.core.budget import Grant, Shortage
from agentorch_cli.core.purses import BUDGET, Purses, is_final
from agentorch_cli.core.shortage import exhausted
from agentorch_cli.store.budgets import Ledger, fund, lock_ledger, read_labels
from agentorch_cli.store.database import Transaction
from agentorch_cli.store.records import Assignment
from agentorch_cli.store.store import Store

LONGEST_NAP = 3600.0
"""Seconds between looks at budgets that begin anew with a day, a week or a month, at most."""


class Funds:
    """Pays for attempts, in the transactions of the scheduler."""

    def __init__(self, store: Store, purses: Purses) -> None:
        self.store = store
        self.purses = purses
        self.exhausted: dict[str, dict[str, Any]] = {}
        """Tasks that can never be paid, with the error that they fail with."""
        self.on_exhausted: Callable[[str, dict[str, Any]], Awaitable[Any]] | None = None
        """Fails such a task."""
        self.on_renewal: Callable[[], None] = lambda: None
        """Told when the period of a budget may be over."""
        self._granted: list[tuple[Assignment, list[Grant]]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def read(self) -> bool:
        """Which labels have a budget; True where that is news."""
        labels, renews_in = await read_labels(self.store.db)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if renews_in is not None:
            wait = min(max(renews_in, 0.0), LONGEST_NAP) + 0.01
            self._timer = asyncio.get_running_loop().call_later(wait, self.on_renewal)
        is_news = labels != self.purses.labels
        self.purses.labels = labels
        return is_news

    async def claim(self, tx: Transaction, pairs: Sequence[tuple[Ready, Sequence[Assignment]]]) -> set[str]:
        """Decide what each attempt gets; the tasks that cannot be paid."""
        self._granted = []
        on_budget = [pair for pair in pairs if _is_on_budget(pair[0])]
        if not on_budget:
            return set()
        ids = [task.task_id for task, _ in on_budget]
        await self.store.lock_tasks(tx, ids)
        ledger = await lock_ledger(tx, ids)
        refused: set[str] = set()
        for task, batch in on_budget:
            found = ledger.ask(task.task_id, len(batch))
            if isinstance(found, Shortage):
                refused.add(task.task_id)
                self._refuse(task, len(batch), found, ledger)
            else:
                self._grant(task, batch, found, ledger)
        return refused

    async def seal(self, tx: Transaction) -> None:
        """Reserve, now that the attempts are stored."""
        await fund(tx, self._granted, self.store.node_id)

    async def end_exhausted(self) -> list[str]:
        """Fail what can never be paid; those tasks."""
        ended, self.exhausted = self.exhausted, {}
        for task_id, error in ended.items():
            if self.on_exhausted is not None:
                await self.on_exhausted(task_id, error)
        return list(ended)

    def _refuse(self, task: Ready, number: int, lacking: Shortage, ledger: Ledger) -> None:
        least = min(task.want.number, number)
        while number > least and isinstance(lacking, Shortage):
            fewer = ledger.ask(task.task_id, number - 1)
            if not isinstance(fewer, Shortage):
                break
            number, lacking = number - 1, fewer
        if number == least and is_final(lacking):
            self.exhausted[task.task_id] = exhausted(lacking)
            return
        name = self.purses.name_of(task)
        if name is not None:
            self.purses.refuse(name, lacking, number)

    def _grant(
        self, task: Ready, batch: Sequence[Assignment], found: list[list[Grant]], ledger: Ledger
    ) -> None:
        ledger.book(grant for grants in found for grant in grants)
        for one, grants in zip(batch, found, strict=True):
            one.is_funded = bool(grants)
            one.budget = ledger.allowed(task.task_id, grants)
            if grants:
                self._granted.append((one, grants))


def _is_on_budget(task: Ready) -> bool:
    return any(name.startswith(f"{BUDGET}:") for name in task.want.gates)
