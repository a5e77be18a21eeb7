"""Writes the ledger: what agents finished since the last time, in one statement.

Attempts are counted in memory where they are settled (`State.account`), and written a few times per
lease, beside the beat and not within it: a sign of life never waits for a row that somebody holds.
With nothing finished nothing is asked. What was counted and not yet written is lost with a process
that is killed, at most a third of a lease; the attempts themselves are not.

The node that leads also reckons `performance_hourly` and `performance_score` once a minute, as long
as somebody finished something within the hour.
"""

from __future__ import annotations

import asyncio
import logging

from agentorch_cli.core.ledger import weight_of
from agentorch_cli.engine.state import Account, AccountKey, State
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.store.ledger import Entry, keep_accounts, reckon
from agentorch_cli.store.store import Store

log = logging.getLogger("agentorch.ledger")

RECKON_EVERY = 60.0
"""Seconds between two looks at the last hour."""


class Bookkeeper:
    """The loop that keeps the ledger."""

    def __init__(self, state: State, store: Store, *, every: float) -> None:
        self.state = state
        self.store = store
        self.every = every
        self._has_recent_work = True
        """As far as is known here: a node that has not led yet does not know."""
        self._reckon_at = 0.0

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self.write()
                if not self.state.is_leader:
                    self._has_recent_work = True
                elif self._has_recent_work and loop.time() >= self._reckon_at:
                    self._reckon_at = loop.time() + RECKON_EVERY
                    await self.reckon()
            except DatabaseUnreachable as error:
                log.warning("the ledger could not be written: %s", error)
            except Exception:
                log.exception("the ledger could not be written; the next time it goes on without these")
            await asyncio.sleep(self.every)

    async def write(self) -> None:
        """Tell the ledger what was finished. What could not be told is kept, unless it is to blame."""
        if not self.state.accounts:
            return
        accounts, self.state.accounts = self.state.accounts, {}
        self._has_recent_work = True
        try:
            await keep_accounts(self.store, entries(accounts))
        except (DatabaseUnreachable, asyncio.CancelledError):
            for key, account in accounts.items():
                self.state.accounts.setdefault(key, Account()).plus(account)
            raise

    async def reckon(self) -> None:
        """Bring the scores of the fleet up to date, and drop what is too old or too much."""
        self._has_recent_work = await reckon(self.store) > 0


def entries(accounts: dict[AccountKey, Account]) -> list[Entry]:
    """A row for each account, and one for each agent with everything that it finished."""
    everything: dict[AccountKey, Account] = {}
    for (agent_id, _, _), account in accounts.items():
        everything.setdefault((agent_id, "", ""), Account()).plus(account)
    return [_entry(key, account) for key, account in sorted((accounts | everything).items())]


def _entry(key: AccountKey, account: Account) -> Entry:
    judged = account.completed - account.ballots
    outcomes = judged + account.failed + account.lost
    trials = weight_of(outcomes)
    return Entry(
        agent_id=key[0],
        skill=key[1],
        task_type=key[2],
        completed=account.completed,
        failed=account.failed,
        lost=account.lost,
        cost_usd=account.cost_usd,
        tokens=account.tokens,
        cost_unknown=account.cost_unknown,
        tokens_unknown=account.tokens_unknown,
        latency=account.latency,
        rights=trials * judged / outcomes if outcomes else 0.0,
        trials=trials,
        seconds=account.seconds,
    )
