"""Where agents are received: what the gateway asks of the engine.

A session that registers is written to the registry first, then the mirror follows. What the
agent held before is compared with what the tables say it holds: both know it: it goes on;
only the agent: dropped; only the tables: it is sent again under the same message id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import orjson

from agentorch_cli.core.matching import Member
from agentorch_cli.core.model import DEFAULT_POOL, AgentSpec, AgentStatus
from agentorch_cli.core.scoring import counted_performance
from agentorch_cli.engine.exclusions import Exclusions
from agentorch_cli.engine.lifeline import Lifeline
from agentorch_cli.engine.scheduler import PATIENCE, Scheduler
from agentorch_cli.engine.settler import Settler
from agentorch_cli.engine.state import Report, State
from agentorch_cli.errors import DatabaseUnreachable, NotAllowed
from agentorch_cli.frames import dumps
from agentorch_cli.logs import facts
from agentorch_cli.store.records import Delivery
from agentorch_cli.store.store import Store

log = logging.getLogger("agentorch.desk")

GATHER = 0.02
"""Seconds that acceptances and progress gather before they are written; nothing waits for them."""


@dataclass(slots=True)
class Welcome:
    """What a session is told when it registers."""

    resumed: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    send: list[Delivery] = field(default_factory=list)
    is_draining: bool = False
    """It is to finish what it holds, and gets no more."""


class Desk:
    """Receives agents and what they say."""

    def __init__(
        self,
        state: State,
        store: Store,
        scheduler: Scheduler,
        settler: Settler,
        lifeline: Lifeline,
        exclusions: Exclusions,
        *,
        response_timeout: float,
        prefetch: int = 0,
    ) -> None:
        self.state = state
        self.store = store
        self.scheduler = scheduler
        self.settler = settler
        self.lifeline = lifeline
        self.exclusions = exclusions
        self.response_timeout = response_timeout
        self.prefetch = prefetch
        """Attempts beyond its slots that an agent may hold at most, whatever it says itself."""
        self._accepted: list[str] = []
        self._progress: dict[str, tuple[float | None, str | None]] = {}
        self._usage: dict[str, str] = {}
        """What attempts have used so far, as they told last; JSON texts."""
        self._something = asyncio.Event()
        self._leaving: list[tuple[str, UUID]] = []
        self.on_arrival: Callable[[str], None] | None = None
        """Is told of agents that came in."""
        self.on_change_missed: Callable[[], None] | None = None
        """Is told where what the registry says of an agent may have changed while it came in."""
        self.on_move_missed: Callable[[str], None] | None = None
        """Is told of each agent that was looked for in the registry while it came in."""
        self._arriving: dict[str, bool] = {}
        """Agents that are coming in, and whether somebody looked for them meanwhile."""
        self._sessions: dict[str, UUID] = {}
        """Of the agents that are here."""

    # --- sessions ---------------------------------------------------------------------------

    async def welcome(self, agent: AgentSpec, session_id: UUID, resume: Sequence[str]) -> Welcome:
        """An agent came in. Raises DatabaseUnreachable while it cannot be written down."""
        self._arriving[agent.agent_id] = False
        try:
            return await self._admit(agent, session_id, resume)
        finally:
            if self._arriving.pop(agent.agent_id) and self.on_move_missed is not None:
                self.on_move_missed(agent.agent_id)

    def is_arriving(self, agent_id: str) -> bool:
        """Whether it is just coming in: rows may be older than its seat. It is looked for again then."""
        if agent_id not in self._arriving:
            return False
        self._arriving[agent_id] = True
        return True

    async def _admit(self, agent: AgentSpec, session_id: UUID, resume: Sequence[str]) -> Welcome:
        agent = replace(agent, prefetch=min(agent.prefetch, self.prefetch))
        hints, asked_at = self.state.fleet_hints, asyncio.get_running_loop().time()
        row = await self.store.db.fetch_one(
            "connect_agent",
            agent.agent_id,
            agent.type,
            list(agent.capabilities),
            agent.slots,
            dumps(agent.metadata),
            self.store.node_id,
            session_id,
            agent.prefetch,
            agent.pool,
        )
        assert row is not None
        before = self.state.held_now(agent.agent_id)
        slots = {message_id: self.state.slot_of(message_id) for message_id in before}
        ended = self.state.ended_of[agent.agent_id] = set[str]()
        try:
            read = await self.store.held_work([agent.agent_id])
        finally:
            del self.state.ended_of[agent.agent_id]
        now = self.state.held_now(agent.agent_id)
        younger = now - before
        held = [delivery for delivery in read if delivery.message_id not in ended]
        younger -= {delivery.message_id for delivery in held}
        for delivery in held:
            mine = self.state.deliveries.get(delivery.message_id)
            if mine is None or delivery.message_id not in slots:
                continue
            if self.state.slot_of(mine.message_id) != slots[mine.message_id]:
                # It gave its slot back since, or was given another.
                delivery.slot, delivery.is_parked = mine.slot, mine.is_parked
                delivery.is_waiting = mine.is_waiting
        self.state.gone_since.pop(agent.agent_id, None)
        self.state.heard.add(agent.agent_id)
        self._sessions[agent.agent_id] = session_id
        adopted = [delivery.message_id for delivery in held if delivery.node_id != self.state.node_id]
        self._seat(
            replace(agent, pool=row["pool"]),
            AgentStatus(row["status"]),
            row["completed"],
            row["failed"],
            held,
            now - younger,
            younger,
        )
        probe = next((delivery.slot for delivery in held if delivery.is_probe), None)
        member = self.state.roster.members[agent.agent_id]
        self.exclusions.follow(member, {**dict(row), "probe_slot": probe}, asked_at)
        if self.state.fleet_hints != hints and self.on_change_missed is not None:
            self.on_change_missed()  # the row may be older than the hint, whose reader did not see this seat
        welcome = Welcome(is_draining=row["status"] == AgentStatus.DRAINING)
        known = {delivery.message_id for delivery in held}
        named = dict.fromkeys(resume)
        welcome.resumed = [message_id for message_id in named if message_id in known]
        welcome.dropped = [message_id for message_id in named if message_id not in known]
        welcome.send = [delivery for delivery in held if delivery.message_id not in named]
        if adopted:
            await self.store.adopt(adopted)
        if self.state.relay is not None and (self.state.relay.has_peers or not self.state.is_leader):
            self.state.relay.agents([agent.agent_id])
        await self._note_return(held, set(welcome.resumed))
        self.state.bus.publish("agent_registered", agent_id=agent.agent_id)
        self.scheduler.wake()
        if self.on_arrival is not None:
            self.on_arrival(agent.agent_id)
        return welcome

    async def _note_return(self, held: Sequence[Delivery], resumed: set[str]) -> None:
        """The story says whether work went on after a reconnect, or was given once more."""
        if held:
            await self.store.db.fetch(
                "log_events",
                ["attempt_resumed" if d.message_id in resumed else "attempt_resent" for d in held],
                [delivery.task_id for delivery in held],
                [delivery.agent_id for delivery in held],
                [delivery.message_id for delivery in held],
                [None] * len(held),
                self.store.node_id,
            )

    def _seat(
        self,
        agent: AgentSpec,
        status: AgentStatus,
        completed: int,
        failed: int,
        held: Sequence[Delivery],
        older: Set[str],
        younger: Set[str],
    ) -> None:
        """Put the agent into the mirror, with the slots that its live attempts own.

        `held` is what was read of those. `older`: the mirror had them when that was asked; `younger`: they
        were given to the agent since, and what was read does not have them.
        """
        for message_id in older:
            if message_id in self.state.deliveries:
                self.state.release(message_id, is_told=False)
            else:
                self.state.free_elsewhere(message_id)
        before = self.state.roster.members.get(agent.agent_id)
        # Slots that are taken although nothing is held in them: their assignments are being committed.
        committing = before.used if before is not None and before.node_id == self.state.node_id else set()
        given = {slot for message_id in younger if (slot := self.state.slot_of(message_id)) is not None}
        member = Member(
            agent_id=agent.agent_id,
            type=agent.type,
            capabilities=frozenset(agent.capabilities),
            slots=agent.slots,
            status=status,
            node_id=self.state.node_id,
            pool=agent.pool or DEFAULT_POOL,
            performance=counted_performance(completed, failed),
            completed=completed,
            failed=failed,
            used={delivery.slot for delivery in held if not delivery.is_parked} | committing | given,
            prefetch=agent.prefetch,
        )
        self.state.roster.put(member)
        self.state.reputation.tell(agent.agent_id)
        for delivery in held:
            if delivery.message_id not in older:
                self.state.is_brought(delivery.message_id)
            self.take_up(delivery)

    def take_up(self, delivery: Delivery) -> None:
        """A live attempt of an agent that is here: hold it, watch it, and its slot is taken."""
        now = asyncio.get_running_loop().time()
        delivery.node_id = self.state.node_id
        if delivery.is_accepted:
            since = delivery.seconds_since_accepted or 0.0
            delivery.begun, delivery.due = now - since, now + max(0.0, delivery.timeout_seconds - since)
        else:
            delivery.begun, delivery.due = now - delivery.seconds_since_sent, now + self.response_timeout
        member = self.state.roster.members.get(delivery.agent_id)
        if member is not None and not delivery.is_parked:
            self.state.roster.hold(member, delivery.slot)
            if member.busy > member.slots and not delivery.is_accepted:
                delivery.is_ahead, delivery.due = True, now + PATIENCE
        self.state.hold(delivery)

    def leaves(self, agent_id: str, session_id: UUID, *, for_good: bool) -> None:
        """A session ended. `for_good`: the agent said so; its work goes elsewhere at once."""
        member = self.state.roster.members.get(agent_id)
        if member is not None and member.node_id in (None, self.state.node_id):
            member.status = AgentStatus.OFFLINE
            self.state.roster.touch(member)
        if for_good:
            self.lifeline.give_back(agent_id)
        elif agent_id in self.state.held_by:
            self.state.gone_since[agent_id] = asyncio.get_running_loop().time()
        self._sessions.pop(agent_id, None)
        self._leaving.append((agent_id, session_id))
        self._something.set()
        self.state.bus.publish("agent_offline", agent_id=agent_id)

    def moved(self, agent_id: str) -> None:
        """The agent has a newer session on another node, which holds what it held here."""
        self._sessions.pop(agent_id, None)
        self.state.gone_since.pop(agent_id, None)
        for message_id in list(self.state.held_by.get(agent_id, ())):
            self.state.release(message_id, is_told=False)

    async def reclaim(self, agent_ids: Sequence[str]) -> list[str]:
        """Of these agents, which the tables think are nowhere, those that are here; now the tables know."""
        mine = {agent_id: self._sessions[agent_id] for agent_id in agent_ids if agent_id in self._sessions}
        if not mine:
            return []
        rows = await self.store.db.fetch(
            "reclaim_agents", list(mine), list(mine.values()), self.store.node_id
        )
        for row in rows:
            log.warning(
                "agent %r was taken for gone with this node, but is here",
                row["agent_id"],
                extra=facts(agent=row["agent_id"]),
            )
            member = self.state.roster.members.get(row["agent_id"])
            if member is not None and row["agent_id"] in self._sessions:
                member.node_id = self.state.node_id
                member.status = AgentStatus(row["status"])
                self.state.roster.touch(member)
        return [row["agent_id"] for row in rows]

    # --- what agents say --------------------------------------------------------------------

    def heard_from(self, agent_id: str) -> None:
        """Any frame is a sign of life."""
        self.state.heard.add(agent_id)

    def accepted(self, agent_id: str, message_id: str) -> bool:
        """The agent has taken the work; False where it is not live (any more): a cancel may have crossed it.

        Raises NotAllowed where it is another agent's.
        """
        delivery = self.state.deliveries.get(message_id)
        if delivery is None:
            return False
        if delivery.agent_id != agent_id:
            raise NotAllowed("this messageId is another agent's work")
        if not delivery.is_accepted:
            delivery.is_accepted = True
            delivery.begun = asyncio.get_running_loop().time()
            delivery.due = delivery.begun + delivery.timeout_seconds
            delivery.is_ahead = False
            self.state.expect(message_id, delivery)
            if self.state.shelf:
                self.state.shelf.take(message_id)
            self._accepted.append(message_id)
            self._something.set()
        return True

    def progressed(
        self,
        agent_id: str,
        message_id: str,
        progress: float | None,
        note: str | None,
        usage: str | None = None,
    ) -> bool:
        """How far the work is, and what it has used (JSON text). False, and raises, as `accepted`."""
        if not self.accepted(agent_id, message_id):
            return False
        if usage is not None:
            self._usage[message_id] = usage
        known = self._progress.get(message_id, (None, None))
        self._progress[message_id] = (
            known[0] if progress is None else progress,
            known[1] if note is None else note,
        )
        self._something.set()
        self.state.bus.publish(
            "task_progress",
            task_id=self.state.deliveries[message_id].task_id,
            agent_id=agent_id,
            progress=progress,
            note=note,
            usage=orjson.loads(usage) if usage is not None else None,
        )
        return True

    def ended(self, report: Report) -> None:
        """The agent brings a result or an error."""
        self.settler.put(report)

    async def room(self) -> None:
        """Returns once the engine can take more from agents."""
        await self.settler.room()

    # --- writing it down --------------------------------------------------------------------

    async def run(self) -> None:
        """For ever: write acceptances, progress and departures, gathered."""
        while True:
            await self._something.wait()
            await asyncio.sleep(GATHER)
            self._something.clear()
            try:
                await self.write()
            except DatabaseUnreachable as error:
                log.warning("cannot note what agents said: %s", error)
                self._something.set()
                await asyncio.sleep(0.3)
            except Exception:
                log.exception("what agents said could not be noted")

    async def write(self) -> None:
        """What has gathered. Results do not wait for this, nor the other way round."""
        if self._leaving:
            leaving = list(self._leaving)
            await self.store.db.fetch(
                "disconnect_agents",
                [one[0] for one in leaving],
                [one[1] for one in leaving],
                self.store.node_id,
            )
            del self._leaving[: len(leaving)]
            if self.state.relay is not None and self.state.relay.has_peers:
                self.state.relay.agents(one[0] for one in leaving)
        if self._accepted:
            number = len(self._accepted)  # more may come while these are written
            accepted = [m for m in self._accepted if m in self.state.deliveries]
            if accepted:
                await self.store.accept(accepted)
            del self._accepted[:number]
        if self._progress:
            notes, self._progress = self._progress, {}
            try:
                await self.store.note_progress(notes)
            except DatabaseUnreachable:
                self._progress = notes | self._progress
                raise
        if self._usage:
            usage, self._usage = self._usage, {}
            try:
                await self.store.db.fetch("note_usage", list(usage), list(usage.values()))
            except DatabaseUnreachable:
                self._usage = usage | self._usage
                raise

    def facts(self) -> dict[str, Any]:
        """What the metrics page shows."""
        return {
            "agents_online": sum(m.status is AgentStatus.ONLINE for m in self.state.roster.members.values()),
            "agents_excluded": sum(m.excluded is not None for m in self.state.roster.members.values()),
            "attempts_live": len(self.state.deliveries),
            "tasks_ready": len(self.state.backlog),
            "chief": float(self.state.is_chief),
            "spend_usd": self.state.meters.cost_usd,
            "spend_tokens": self.state.meters.tokens,
            "spend_unknown": self.state.meters.unknown_costs,
            **self.state.counters,
        }
