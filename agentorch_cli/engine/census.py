"""What the whole fleet looks like in the tables, for the metrics page of the chief.

Asked for when the page is, and not again before it is old: the longer it took, the longer it counts.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from agentorch_cli.engine.state import State
from agentorch_cli.errors import OrchestratorError
from agentorch_cli.store.database import Database

log = logging.getLogger("agentorch.census")

FRESH = 5.0
"""Seconds for which an answer counts at least."""

SHARE = 20
"""An answer counts so many times as long as it took."""


class Census:
    """The last answer."""

    def __init__(self, state: State, db: Database) -> None:
        self.state = state
        self.db = db
        self._facts: dict[str, Any] = {}
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def take(self) -> dict[str, Any]:
        """What the tables say; nothing on a node that is not the chief, or while they do not answer."""
        if not self.state.is_chief:
            return {}
        async with self._asking:
            now = asyncio.get_running_loop().time
            began = now()
            if began >= self._until:
                try:
                    row = await self.db.fetch_one("census")
                except OrchestratorError as error:
                    log.info("the metrics page is without the tables: %s", error)
                    self._facts = {}
                else:
                    self._facts = dict(row) if row is not None else {}
                self._until = now() + max(FRESH, SHARE * (now() - began))
        return self._facts
