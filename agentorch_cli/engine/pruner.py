"""Deletes what is old, on the chief, where `retention.tasks` says so.

It does so in batches that take some milliseconds, and rests four times as long after each: at most
a fifth of one connection's time, and nothing that anybody waits for.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict, dataclass

from agentorch_cli.engine.state import State
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.frames import dumps
from agentorch_cli.store import retention
from agentorch_cli.store.database import Database
from agentorch_cli.store.retention import Pruned

log = logging.getLogger("agentorch.pruner")

FIRST_AFTER = 60.0
"""Seconds after the start: whoever starts an engine has other worries."""

REST = 4
"""How much longer it rests than it worked."""


@dataclass(frozen=True, slots=True)
class Age:
    """When history is old; in seconds."""

    tasks: float = 0.0
    """0: never."""
    keep_last: int = 1000
    interval: float = 3600.0


class Pruner:
    """The loop that deletes."""

    def __init__(self, state: State, db: Database, age: Age) -> None:
        self.state = state
        self.db = db
        self.age = age

    async def run(self) -> None:
        """For ever, while this node is the chief; at once for ever asleep where nothing gets old."""
        wait = min(FIRST_AFTER, self.age.interval)
        while self.age.tasks > 0:
            await asyncio.sleep(wait)
            wait = self.age.interval
            if not self.state.is_chief or self.state.is_stopping:
                continue
            try:
                await self.prune()
            except DatabaseUnreachable as error:
                log.warning("cannot delete what is old: %s", error)
            except Exception:
                log.exception("what is old could not be deleted; the next look tries again")
        await asyncio.Event().wait()

    async def prune(self) -> Pruned:
        """Everything that is old at this moment."""
        bounds = await retention.bounds_of(self.db, self.age.tasks, self.age.keep_last)
        total = Pruned()
        place: int | None = 0
        while place is not None and self._may_go_on():
            began = self._now()
            step, place = await retention.prune_tasks(self.db, bounds, place)
            total.plus(step)
            await self._rest(began)
        cursor: tuple[str, int] | None = ("0", 0)
        while cursor is not None and self._may_go_on():
            began = self._now()
            events, cursor = await retention.prune_events(self.db, bounds.before, cursor)
            total.plus(Pruned(events=events))
            await self._rest(began)
        if self._may_go_on():
            total.plus(await retention.prune_rest(self.db, bounds))
            noted = {"before": bounds.before.isoformat(), "keep_last": self.age.keep_last}
            await self.db.fetch("note_maintenance", "prune", dumps(noted))
        if not total.is_nothing:
            self.state.count("pruned_tasks", total.tasks)
            log.info(
                "deleted what is old: %s", ", ".join(f"{n} {name}" for name, n in asdict(total).items() if n)
            )
        return total

    def _may_go_on(self) -> bool:
        return self.state.is_chief and not self.state.is_stopping

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _rest(self, began: float) -> None:
        await asyncio.sleep(REST * (self._now() - began))
