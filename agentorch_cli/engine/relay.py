"""What nodes tell each other, so that agents may be on any of them.

One node leads each pool: it assigns. The attempt is in the table when the node that carries the agent
is told of it (`agentorch_work`), and that node sends it, watches it and settles it. In return
it tells the leader which slots came free and how it went (`agentorch_freed`), and what became
ready (`agentorch_tasks`). All nodes hear which agents came and went (`agentorch_agents`).

Everything here is a hint, gathered while the last one was sent: whoever misses one finds out
from the tables, with the next sweep. A node without others says nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator

from agentorch_cli.engine.orders import Order, channel_of, written
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.store.store import MOST_HINTED, Store, freed_line, hint, hints

log = logging.getLogger("agentorch.relay")

WORK, FREED, AGENTS = "agentorch_work", "agentorch_freed", "agentorch_agents"

WELL, BADLY, PARKED, WAITS, GONE, LATE = "w", "b", "p", "s", "-", "l"
"""What became of a slot: its attempt ended well, badly, or without a verdict; is parked, wants one; was not
taken by its agent for a while."""


MOST_KEPT = 1_000
"""Notices that could not be told and are told later; of more, the tables and the sweeps know."""


class Relay:
    """The loop that tells other nodes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.has_peers = False
        """Other nodes live, or may."""
        self.has_other_pools = False
        """Nodes that schedule another pool live: what becomes ready here may be theirs to assign."""
        self._work: dict[str, list[str]] = {}
        self._orders: dict[str, list[Order]] = {}
        self._marks: dict[str, str] = {}
        self._freed: list[str] = []
        self._ready: dict[str, None] = {}
        self._is_delayed = False
        self._look_again = False
        self._is_stuck = False
        self._agents: dict[str, None] = {}
        self._stopped: dict[str, None] = {}
        self._untold: list[tuple[str, str]] = []
        """Notices that did not reach the database."""
        self._something = asyncio.Event()

    # --- what is to be told -----------------------------------------------------------------

    def work(self, node_id: str, message_id: str, order: Order | None = None) -> None:
        """This attempt is for an agent of that node, or changed there. `order`: what it would read of it."""
        self._work.setdefault(node_id, []).append(message_id)
        if order is not None:
            self._orders.setdefault(node_id, []).append(order)
        self._something.set()

    def mark(self, message_id: str, mark: str) -> None:
        """How it went; told when its slot comes free."""
        if self.has_peers:
            self._marks[message_id] = mark

    def freed(self, message_id: str) -> None:
        """An attempt of an agent of this node is not live any more."""
        if self.has_peers:
            self._freed.append(freed_line(message_id, self._marks.pop(message_id, GONE)))
            self._something.set()

    def changed(self, message_id: str, mark: str) -> None:
        """An attempt of an agent of this node is parked, or wants a slot again."""
        if self.has_peers:
            self._freed.append(freed_line(message_id, mark))
            self._something.set()

    def ready(self, task_ids: Iterable[str], *, delayed: bool = False) -> None:
        """Tasks became ready here, and another node assigns them."""
        if self.has_peers:
            self._ready.update(dict.fromkeys(task_ids))
            self._is_delayed |= delayed
            self._something.set()

    def look_again(self) -> None:
        """Whoever assigns should read the ready tasks anew."""
        if self.has_peers:
            self._look_again = True
            self._something.set()

    def stuck(self) -> None:
        """Whoever looks for deadlocks should do so."""
        if self.has_peers:
            self._is_stuck = True
            self._something.set()

    def agents(self, agent_ids: Iterable[str]) -> None:
        """Agents came to this node, or went."""
        self._agents.update(dict.fromkeys(agent_ids))
        self._something.set()

    def stopped(self, message_ids: Iterable[str]) -> None:
        """Attempts of agents of other nodes were called off."""
        self._stopped.update(dict.fromkeys(message_ids))
        self._something.set()

    # --- telling it -------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever: whatever has gathered, in one round trip."""
        while True:
            await self._something.wait()
            self._something.clear()
            try:
                await self.tell()
            except DatabaseUnreachable as error:
                log.warning("other nodes could not be told: %s", error)
                await asyncio.sleep(0.3)
                self._look_again = True
                self.agents(())
            except Exception:
                log.exception("other nodes could not be told")

    async def tell(self) -> None:
        """One round."""
        orders, notices = list(self._order_notices()), [*self._untold, *self._notices()]
        self._untold = notices[-MOST_KEPT:]  # without the orders: what is told late is read
        if notices:
            notices = [*orders, *notices]
            await self.store.db.fetch("notify_many", [n[0] for n in notices], [n[1] for n in notices])
        self._untold = []

    def _order_notices(self) -> Iterator[tuple[str, str]]:
        """What goes before the ids, for they are told in the same commit."""
        orders, self._orders = self._orders, {}
        for node_id, its_own in orders.items():
            channel = channel_of(node_id)
            if channel is not None:
                for payload in written(its_own):
                    yield channel, payload

    def _notices(self) -> Iterator[tuple[str, str]]:
        work, self._work = self._work, {}
        for node_id, message_ids in work.items():
            for lines in hints(message_ids, MOST_HINTED - len(node_id) - 1):
                yield WORK, f"{node_id}\n{lines}"
        freed, self._freed = self._freed, []
        for lines in hints(freed, MOST_HINTED):
            yield FREED, lines
        agents, self._agents = self._agents, {}
        for lines in hints(agents, MOST_HINTED):
            yield AGENTS, lines
        stopped, self._stopped = self._stopped, {}
        for lines in hints(stopped, MOST_HINTED):
            yield "agentorch_cancel", lines
        if self._is_stuck:
            self._is_stuck = False
            yield "agentorch_deadlock", "*"
        ready, self._ready = self._ready, {}
        is_delayed, self._is_delayed = self._is_delayed, False
        if self._look_again:
            self._look_again = False
            yield "agentorch_tasks", "*"
        elif ready or is_delayed:
            yield "agentorch_tasks", hint(list(ready), delayed=is_delayed)
