"""Writes the ledger: what agents finished since the last time, in one statement.

Attempts are counted in memory where they are settled (`State.account`), and written a few times per
lease, beside the beat and not within it: a sign of life never waits for a row that somebody holds.
With nothing finished nothing is asked. What was counted and not yet written is lost with a process
that is killed, at most a third of a lease; the attempts themselves are not.

The chief also reckons `performance_hourly` and `performance_score` once a minute, as long as somebody
finished something within the hour, as far as it knows of that. Whoever leads a pool tells its own
mirror (`engine/reputation.py`) what votes, verified outcomes and other nodes brought.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import datetime

from agentorch_cli.core.ledger import NOTHING, after_outcomes
from agentorch_cli.engine.state import Account, AccountKey, State
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.store.ledger import Entry, evidence_of_all, evidence_since, keep_accounts, reckon
from agentorch_cli.store.store import Store

log = logging.getLogger("agentorch.ledger")

RECKON_EVERY = 60.0
"""Seconds between two looks at the last hour."""

FOLLOW_EVERY = 10.0
"""Seconds between two looks at what was written to the ledger."""

READ_EVERY = 3_600.0
"""Seconds after which the whole ledger is read again: time has faded it."""


END_SECONDS = 5.0
"""How long the end of the process waits for what is being written."""


class Bookkeeper:
    """The loop that keeps the ledger."""

    def __init__(self, state: State, store: Store, *, every: float) -> None:
        self.state = state
        self.store = store
        self.every = every
        self._has_recent_work = True
        """As far as is known here: a node that has not led yet does not know."""
        self._reckon_at = self._follow_at = self._read_at = 0.0
        self._seen: datetime | None = None
        """Up to when the ledger is known here; None where it was empty, or not read."""
        self._writing = asyncio.Lock()
        """One at a time: whoever asks for it finds everything written afterwards."""

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self.write()
                await self.lead(loop.time())
            except DatabaseUnreachable as error:
                log.warning("the ledger could not be written: %s", error)
            except Exception:
                log.exception("the ledger could not be written; the next time it goes on without these")
            await asyncio.sleep(self.every)

    async def write(self) -> None:
        """Tell the ledger what was finished. What could not be told is kept, unless it is to blame."""
        async with self._writing:
            if self.state.accounts:
                await self._write()

    async def _write(self) -> None:
        """Whoever is cancelled meanwhile waits for the end: what was stored may not be told again."""
        accounts, self.state.accounts = self.state.accounts, {}
        self._has_recent_work = True
        keeping = asyncio.ensure_future(keep_accounts(self.store, entries(accounts)))
        try:
            await asyncio.shield(keeping)
        except asyncio.CancelledError:
            await asyncio.wait([keeping], timeout=END_SECONDS)
            if _is_away(keeping):
                self._keep(accounts)
            keeping.cancel()
            raise
        except DatabaseUnreachable:
            self._keep(accounts)
            raise
        meters = self.state.meters
        for account in accounts.values():
            meters.cost_usd += account.cost_usd
            meters.tokens += account.tokens
            meters.unknown_costs += account.cost_unknown

    def _keep(self, accounts: dict[AccountKey, Account]) -> None:
        for key, account in accounts.items():
            self.state.accounts.setdefault(key, Account()).plus(account)

    async def lead(self, now: float) -> None:
        """What only whoever leads, or the chief, does, each when its time has come; `now` is the loop's."""
        if not (self.state.is_leader or self.state.is_chief):
            self._has_recent_work = True
            return
        self._has_recent_work |= self.state.has_worked
        self.state.has_worked = False
        if self.state.is_leader and self._has_recent_work and now >= self._follow_at:
            self._follow_at = now + FOLLOW_EVERY
            await self.follow(everything=now >= self._read_at)
        others = self.state.relay is not None and self.state.relay.has_other_pools  # they work unseen
        if self.state.is_chief and (self._has_recent_work or others) and now >= self._reckon_at:
            self._reckon_at = now + RECKON_EVERY
            await self.reckon()

    async def follow(self, *, everything: bool = True) -> None:
        """Tell the mirror what the ledger says: all of it, or what was written since the last time.

        Waits for nobody's row: a node does this while it takes the lead. What it is just writing is then
        unknown until the next time.
        """
        if everything or self._seen is None:
            everything = True
            self._read_at = asyncio.get_running_loop().time() + READ_EVERY
            lines, moment = await evidence_of_all(self.store)
        else:
            lines, moment = await evidence_since(self.store, self._seen)
        # From here on nothing waits: what was counted and is not in these rows is what is pending.
        pending = [
            (*key, account.good, account.outcomes) for key, account in with_totals(self.state.accounts)
        ]
        rows = [(line.agent_id, line.skill, line.task_type, line.evidence) for line in lines]
        self.state.reputation.load(rows, pending=pending, all_of_them=everything)
        self._seen = moment or self._seen

    async def reckon(self) -> None:
        """Bring the scores of the fleet up to date, and drop what is too old or too much."""
        active = await reckon(self.store)
        self._has_recent_work = active > 0 or any(m.used for m in self.state.roster.members.values())


def _is_away(keeping: asyncio.Future[None]) -> bool:
    """Whether it ended because the database was out of reach."""
    return keeping.done() and not keeping.cancelled() and isinstance(keeping.exception(), DatabaseUnreachable)


def entries(accounts: dict[AccountKey, Account]) -> list[Entry]:
    """Rows of the ledger for accounts and their totals, in the order of their keys."""
    return [_entry(key, account) for key, account in sorted(with_totals(accounts))]


def with_totals(accounts: dict[AccountKey, Account]) -> Iterable[tuple[AccountKey, Account]]:
    """Each account, and for each agent one with everything that it finished."""
    everything: dict[AccountKey, Account] = {}
    for (agent_id, _, _), account in accounts.items():
        everything.setdefault((agent_id, "", ""), Account()).plus(account)
    return [*accounts.items(), *everything.items()]


def _entry(key: AccountKey, account: Account) -> Entry:
    new = after_outcomes(NOTHING, account.good, account.outcomes)
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
        rights=new.right,
        trials=new.trials,
        seconds=account.seconds,
    )
