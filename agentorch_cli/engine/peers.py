"""What this node does about what it hears from others; what it says itself is in `engine/relay.py`.

An agent is on one node at a time: the one that the registry names. Its attempts are held and
watched there, and remembered by the leader as being elsewhere. An agent that moves is followed:
the node that it left forgets what it held, the node that it came to adopts it. An attempt that
was meant for a node which its agent has left is passed on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agentorch_cli.core.matching import Member, Roster, skill_shown
from agentorch_cli.core.model import AgentStatus
from agentorch_cli.core.scoring import counted_performance
from agentorch_cli.engine.desk import Desk
from agentorch_cli.engine.exclusions import Exclusions
from agentorch_cli.engine.lifeline import UNSENT_AFTER
from agentorch_cli.engine.orders import read
from agentorch_cli.engine.relay import BADLY, LATE, PARKED, WAITS, WELL, Relay
from agentorch_cli.engine.scheduler import Scheduler
from agentorch_cli.engine.state import Courier, Elsewhere, State
from agentorch_cli.store.records import Delivery
from agentorch_cli.store.store import Store

log = logging.getLogger("agentorch.peers")

DISTRUST = 2.0
"""Seconds for which work is read and not taken as it is told, after so much was called off that nobody says
what, or hints were missed."""


class Peers:
    """Follows other nodes."""

    def __init__(
        self,
        state: State,
        store: Store,
        courier: Courier,
        desk: Desk,
        scheduler: Scheduler,
        relay: Relay,
        exclusions: Exclusions,
        on_continued: Callable[[str, int], None],
    ) -> None:
        self.state = state
        self.store = store
        self.courier = courier
        self.desk = desk
        self.scheduler = scheduler
        self.relay = relay
        self.exclusions = exclusions
        self.on_continued = on_continued
        self.on_late: Callable[[str], None] = state.is_late
        """Told of attempts on other nodes that their agents do not take."""
        self._trusts_from = 0.0
        """When orders are believed again, on the loop's clock."""
        self._reading_elsewhere = asyncio.Lock()
        self.reading = asyncio.Lock()
        """One at a time reads agents from the registry and tells the mirror: of two whose rows cross on
        their way, the older would come last, and stay."""

    # --- work for agents of this node -------------------------------------------------------

    async def take_work(self, message_ids: Sequence[str], orders: Sequence[str] = ()) -> None:
        """Send what was assigned to agents of this node, and let those go on that were given a slot.

        `orders`: payloads that say of some of it what would be read.
        """
        found = self._ordered(message_ids, orders) if orders else {}
        strays: list[Delivery] = []
        for delivery in await self._with_what_is_read(message_ids, found):
            known = self.state.deliveries.get(delivery.message_id)
            if known is not None:
                if known.is_parked and not delivery.is_parked:
                    self.on_continued(delivery.message_id, delivery.slot)
            elif delivery.message_id in found and delivery.message_id in self.state.over:
                continue  # since it was looked at
            elif self.courier.session_of(delivery.agent_id) is not None:
                self.state.free_elsewhere(delivery.message_id)
                self.state.takes_over(delivery)
                self.desk.take_up(delivery)
                self.courier.deliver(delivery)
            else:
                strays.append(delivery)
        if strays:
            await self._pass_on(strays)

    def _ordered(self, message_ids: Sequence[str], orders: Sequence[str]) -> dict[str, Delivery]:
        """What is told of these, where it is news: an order that comes late must not begin anything again."""
        if asyncio.get_running_loop().time() < self._trusts_from:
            return {}
        told: dict[str, Delivery] = {}
        for payload in orders:
            try:
                told.update((one.message_id, one) for one in read(payload, self.state.node_id))
            except (ValueError, KeyError, TypeError):
                log.warning("what another node said of its work cannot be understood: it is read")
        known, over = self.state.deliveries, self.state.over
        return {one: told[one] for one in message_ids if one in told and one not in known and one not in over}

    async def _with_what_is_read(
        self, message_ids: Sequence[str], found: dict[str, Delivery]
    ) -> Iterable[Delivery]:
        """All that is live of these, in the order of service: that in which they were assigned."""
        unknown = [one for one in message_ids if one not in found]
        if not unknown:
            return found.values()
        rows = await self.store.held_work(message_ids=unknown)
        if not found:
            return rows
        place = {message_id: number for number, message_id in enumerate(message_ids)}
        return sorted([*found.values(), *rows], key=lambda one: place[one.message_id])

    def called_off(self, message_ids: Iterable[str] | None) -> None:
        """Attempts were called off (None: nobody says which): an order that is under way is out of date."""
        if message_ids is None:
            self._trusts_from = asyncio.get_running_loop().time() + DISTRUST
        else:
            for message_id in message_ids:
                self.state.is_over(message_id)

    async def _pass_on(self, strays: Sequence[Delivery]) -> None:
        """Their agents have left this node: the one that they went to sends the work."""
        rows = await self.store.db.fetch("roster_of", sorted({one.agent_id for one in strays}))
        nodes = {row["agent_id"]: row["node_id"] for row in rows}
        for delivery in strays:
            node_id = nodes.get(delivery.agent_id)
            if node_id is not None and node_id != self.state.node_id:
                await self.store.db.fetch("adopt_attempts", [delivery.message_id], node_id)
                self.relay.work(node_id, delivery.message_id)

    # --- what became of work elsewhere ------------------------------------------------------

    def take_freed(self, lines: Iterable[str]) -> None:
        """Slots of agents on other nodes came free; whoever leads may use them."""
        if not self.state.is_leader:
            return
        now = asyncio.get_running_loop().time()
        over: list[str] = []
        outcomes: dict[tuple[str, str, str], list[int]] = {}
        for line in lines:
            message_id, _, mark = line.partition(" ")
            if mark == PARKED:
                self.state.park_elsewhere(message_id)
            elif mark == WAITS:
                self.scheduler.look_at_parked()
            elif mark == LATE:
                self.on_late(message_id)
            else:
                over.append(message_id)
                attempt = self.state.elsewhere.get(message_id)
                if attempt is not None and mark in (WELL, BADLY):
                    self.state.paces(attempt, now, went_well=mark == WELL)
                    count = outcomes.setdefault((attempt.agent_id, attempt.skill, attempt.type), [0, 0])
                    count[0] += mark == WELL
                    count[1] += 1
                elif attempt is not None and attempt.is_ahead:
                    self.state.was_slow(attempt.agent_id)
        for (agent_id, skill, type), (good, number) in outcomes.items():
            self.state.reputation.outcomes(agent_id, skill, type, good, number)
        self.state.free_all_elsewhere(over)
        self.scheduler.wake()

    async def read_elsewhere(self, agent_ids: Sequence[str] | None = None) -> None:
        """Make what is remembered of other nodes' attempts what the table says.

        One at a time: what came free while the rows are on their way is remembered for one reader.
        """
        async with self._reading_elsewhere:
            await self._read_elsewhere(agent_ids)

    async def _read_elsewhere(self, agent_ids: Sequence[str] | None) -> None:
        freed = self.state.freed_meanwhile = set[str]()
        try:
            rows = await self.store.db.fetch("live_elsewhere", self.state.node_id, agent_ids, self.state.pool)
        finally:
            self.state.freed_meanwhile = None
        now = asyncio.get_running_loop().time()
        live = {str(row["message_id"]): row for row in rows}
        holding = Counter(row["agent_id"] for row in rows if not row["is_parked"])
        members = self.state.roster.members
        overfull = {one for one, n in holding.items() if one in members and n > members[one].slots}
        for message_id, attempt in list(self.state.elsewhere.items()):
            if message_id not in live and (agent_ids is None or attempt.agent_id in agent_ids):
                self.state.free_elsewhere(message_id)
        for message_id, row in live.items():
            known = self.state.elsewhere.get(message_id)
            if known is not None and known.is_parked and not row["is_parked"] and message_id not in freed:
                self.state.go_on_elsewhere(message_id, row["slot"])
            elif known is not None:  # a commit that failed meanwhile may have given its slot back
                self.state.hold_elsewhere(message_id, known)
            elif message_id not in self.state.deliveries and message_id not in freed:
                self.state.hold_elsewhere(
                    message_id,
                    Elsewhere(
                        row["agent_id"],
                        row["slot"],
                        row["task_id"],
                        skill_shown(row["required_capabilities"], row["role"]),
                        row["task_type"],
                        row["is_parked"],
                        frozenset(row["required_capabilities"]),
                        is_ahead=row["status"] == "sent" and row["agent_id"] in overfull,
                        begun=now - row["seconds_since_begun"],
                        pool=row["pool"],
                        estimate=row["estimate"],
                    ),
                )

    # --- agents that come and go ------------------------------------------------------------

    async def follow_agents(self, agent_ids: Iterable[str]) -> None:
        """These agents came to a node, or left one."""
        asked = list(agent_ids)
        while asked:
            async with self.reading:
                asked = await self._follow(asked)
        self.scheduler.wake()

    async def _follow(self, asked: Sequence[str]) -> list[str]:
        """Those of them that took a seat while their rows were on their way: they are asked for again."""
        members = self.state.roster.members
        before = {agent_id: members.get(agent_id) for agent_id in asked}
        asked_at = asyncio.get_running_loop().time()
        rows = {row["agent_id"]: row for row in await self.store.db.fetch("roster_of", list(asked))}
        away, again = [], []
        for agent_id in asked:
            row = rows.get(agent_id)
            if self.desk.is_arriving(agent_id):
                continue  # its session here may be newer than the row
            if members.get(agent_id) is not before[agent_id]:
                again.append(agent_id)
                continue
            if row is None:
                if agent_id in members:
                    self.forget(agent_id)
                continue
            if row["node_id"] == self.state.node_id:
                continue  # this node knows best, also that it has just left
            if row["node_id"] is None:
                if self.courier.session_of(agent_id) is not None:
                    continue
            else:
                self.relay.has_peers = True
                self.courier.supersede(agent_id)
                self.desk.moved(agent_id)
            seat(self.state.roster, row)
            self.state.reputation.tell(agent_id)
            self.exclusions.follow(members[agent_id], row, asked_at)
            away.append(agent_id)
        if away and self.state.is_leader:
            await self.read_elsewhere(away)
        return again

    def forget(self, agent_id: str) -> None:
        """It is not registered any more."""
        self.state.roster.drop(agent_id)
        self.exclusions.forget(agent_id)
        self.courier.dismiss(agent_id, "the agent was removed from the registry")
        self.desk.lifeline.give_back(agent_id, "was removed")

    # --- the safety net ---------------------------------------------------------------------

    async def sweep(self) -> None:
        """Hints can be lost: look for work that nobody sent, and for slots that nobody gave back."""
        if not self.relay.has_peers:
            return
        await self.send_unsent()
        if self.state.is_leader and self.state.elsewhere:
            known = await self.store.tasks_of(list(self.state.elsewhere))
            for message_id, row in known.items():
                if row["status"] not in ("sent", "accepted"):
                    self.state.free_elsewhere(message_id)
            self.scheduler.wake()

    async def send_unsent(self) -> None:
        """Attempts at agents of this node of which it knows nothing: the hint was lost, or they were stored
        by a statement whose connection broke, after the tables had been looked at."""
        rows = await self.store.db.fetch("unsent_here", self.state.node_id, UNSENT_AFTER)
        unsent = [mid for row in rows if (mid := str(row["message_id"])) not in self.state.deliveries]
        if unsent:
            await self.take_work(unsent)


def seat(roster: Roster, row: Any) -> None:
    """Put an agent of another node, or of none, into the roster, or change what is known of it."""
    status = AgentStatus(row["status"]) if row["node_id"] is not None else AgentStatus.OFFLINE
    member = roster.members.get(row["agent_id"])
    capabilities = frozenset(row["capabilities"])
    if member is not None and member.capabilities == capabilities and member.pool == row["pool"]:
        member.status, member.slots, member.node_id = status, row["slots"], row["node_id"]
        member.prefetch = row["prefetch"]
        roster.touch(member)
        return
    roster.put(
        Member(
            agent_id=row["agent_id"],
            type=row["agent_type"],
            capabilities=capabilities,
            slots=row["slots"],
            status=status,
            node_id=row["node_id"],
            pool=row["pool"],
            performance=counted_performance(row["completed"], row["failed"]),
            completed=row["completed"],
            failed=row["failed"],
            used=set(member.used) if member is not None else set(),
            prefetch=row["prefetch"],
        )
    )
