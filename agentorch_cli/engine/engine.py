"""The engine of one node: its loops, started and stopped together.

hints (LISTEN) ──> scheduler ──> assign ──> courier (gateway) ──> agents
                       ^                                            │
                       └── settler <── desk (gateway) <─────────────┘
lifeline: what is overdue ──> settler        leader: beat, lease        timetable: schedules ──> tasks
ledger: what was finished           balancer: what agents have not begun ──> scheduler ──> other agents
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentorch_cli.core import breaker
from agentorch_cli.core.ladder import Policy
from agentorch_cli.core.matching import Member, Roster
from agentorch_cli.core.model import DEFAULT_POOL, AgentStatus
from agentorch_cli.core.scoring import Weights
from agentorch_cli.engine.balancer import Balance, Balancer
from agentorch_cli.engine.census import Census
from agentorch_cli.engine.deadlocks import Monitor
from agentorch_cli.engine.desk import Desk
from agentorch_cli.engine.exclusions import Exclusions
from agentorch_cli.engine.historian import Historian
from agentorch_cli.engine.leader import Leader
from agentorch_cli.engine.ledger import Bookkeeper
from agentorch_cli.engine.lifeline import Lifeline
from agentorch_cli.engine.orders import channel_of
from agentorch_cli.engine.peers import Peers, seat
from agentorch_cli.engine.proposals import Proposals
from agentorch_cli.engine.pruner import Age, Pruner
from agentorch_cli.engine.relay import AGENTS, FREED, LATE, WORK, Relay
from agentorch_cli.engine.scheduler import Scheduler
from agentorch_cli.engine.settler import Settler
from agentorch_cli.engine.state import Courier, State
from agentorch_cli.engine.stragglers import Patience, Stragglers
from agentorch_cli.engine.subtasks import Rules, Subtasks
from agentorch_cli.engine.timetable import Timetable
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.logs import facts
from agentorch_cli.store.database import Ear
from agentorch_cli.store.deadlocks import Deadlocks
from agentorch_cli.store.records import Delivery
from agentorch_cli.store.store import WHOLE, Store, hinted_in, row_in
from agentorch_cli.store.waiting import Waiting

log = logging.getLogger("agentorch.engine")

CHANNELS = (
    "agentorch_fleet",
    "agentorch_cancel",
    "agentorch_votes",
    "agentorch_slots",
    "agentorch_deadlock",
    "agentorch_ended",
    "agentorch_schedules",
    "agentorch_limits",
    "agentorch_budgets",
    "agentorch_lead",
    "agentorch_tokens",
    WORK,
    AGENTS,
)
"""What every node wants to know."""

DONE = "agentorch_done"
"""Of each batch of results: of interest where somebody waits, or keys are held by tasks of other pools."""

LEADERS = ("agentorch_tasks", FREED)
"""What whoever leads a pool wants to know besides."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The engine's settings; durations in seconds."""

    pool: str = DEFAULT_POOL
    """What it schedules."""
    most_running: int = 100
    response_timeout: float = 30.0
    heartbeat_interval: float = 10.0
    lease_seconds: float = 10.0
    sweep_interval: float = 5.0
    drain_timeout: float = 30.0
    weights: Weights = field(default_factory=Weights)
    exploration: float = 0.0
    seed: int = 0
    task_defaults: Mapping[str, Any] = field(default_factory=dict)
    """TaskSpec fields for sub-tasks and scheduled tasks that are silent about them."""
    subtasks: Rules = field(default_factory=Rules)
    balance: Balance = field(default_factory=Balance)
    stragglers: Patience = field(default_factory=Patience)
    deadlocks: Policy = field(default_factory=Policy)
    deadlock_sweep_interval: float = 30.0
    deadlock_wait: float = 1.0
    breaker: breaker.Rules = field(default_factory=breaker.Rules)
    retention: Age = field(default_factory=Age)


class Engine:
    """One node's engine. `start`, then the gateway may open; `stop` after it closed."""

    def __init__(self, store: Store, courier: Courier, limits: Limits) -> None:
        self.store = store
        self.limits = limits
        self.courier = courier
        self.state = State(
            store.node_id,
            Roster(limits.weights, exploration=limits.exploration, seed=limits.seed, pool=limits.pool),
        )
        self.relay = self.state.relay = Relay(store)
        self.scheduler = Scheduler(
            self.state,
            store,
            courier,
            most_running=limits.most_running,
            response_timeout=limits.response_timeout,
        )
        self.scheduler.on_doubt = self.resync
        self.scheduler.on_keys = self._hear_of_keys
        self.state.response_timeout = limits.response_timeout
        self.state.pace.on_soon = self.scheduler.wake
        self.settler = Settler(self.state, store, courier, self.scheduler)
        self.scheduler.on_sick = self.settler.end_sick
        self.scheduler.funds.on_exhausted = self.settler.end_early
        self.lifeline = Lifeline(self.state, store, self.settler, grace=3 * limits.heartbeat_interval)
        self.exclusions = Exclusions(self.state, store, limits.breaker, write_every=limits.lease_seconds / 3)
        self.exclusions.on_free = self.scheduler.wake
        self.exclusions.on_ignored = self._on_change_missed
        self.settler.on_ended = self.exclusions.ended
        self.scheduler.on_probe = self.exclusions.probed
        self.desk = Desk(
            self.state,
            store,
            self.scheduler,
            self.settler,
            self.lifeline,
            self.exclusions,
            response_timeout=limits.response_timeout,
            prefetch=limits.balance.prefetch if limits.balance.is_enabled else 0,
        )
        self.waiting = Waiting(store.db)
        self.subtasks = Subtasks(self.state, store, defaults=limits.task_defaults, rules=limits.subtasks)
        self.subtasks.on_continue = self.scheduler.look_at_parked
        self.subtasks.on_wait = self._on_wait
        self.monitor = Monitor(
            self.state,
            Deadlocks(store, limits.deadlocks, grace=3 * limits.heartbeat_interval),
            sweep_interval=limits.deadlock_sweep_interval,
            wait=limits.deadlock_wait,
        )
        self.lifeline.on_silent = self.monitor.went_silent
        self.monitor.take_away = self.lifeline.take_away
        self.scheduler.on_unservable = self._on_unservable
        self.desk.on_arrival = self._on_arrival
        self.desk.on_change_missed = self._on_change_missed
        self.desk.on_move_missed = self._on_move_missed
        self.scheduler.on_continued = self.subtasks.continued
        self.peers = Peers(
            self.state,
            store,
            courier,
            self.desk,
            self.scheduler,
            self.relay,
            self.exclusions,
            self.subtasks.granted,
        )
        self.lifeline.on_stranded = self.peers.follow_agents
        self.lifeline.on_unsent = self.peers.send_unsent
        self.balancer = Balancer(self.state, store, courier, self.scheduler, limits.balance)
        self.stragglers = Stragglers(self.state, store, self.scheduler, limits.stragglers)
        self.scheduler.on_idle = self.balancer.idle
        self.lifeline.on_waited = self.balancer.waited
        self.lifeline.on_late = self._on_late
        self.peers.on_late = self.balancer.late
        self.proposals = Proposals(self.state, store, courier)
        self.lifeline.errands.append(self.proposals.close_overdue)
        self.timetable = Timetable(self.state, store, defaults=limits.task_defaults)
        self.lifeline.on_due = self.timetable.wake
        self.historian = Historian(store)
        self.census = Census(self.state, store.db)
        self.pruner = Pruner(self.state, store.db, limits.retention)
        self.leader = Leader(
            self.state,
            store,
            lease_seconds=limits.lease_seconds,
            on_elected=self._take_the_lead,
            on_chosen=self._become_chief,
            on_stranded=self._reclaim,
            on_beat=self._mind_channels,
        )
        self.ledger = Bookkeeper(self.state, store, every=limits.lease_seconds / 3)
        self._loops: list[asyncio.Task[None]] = []
        self._fleet_changed = asyncio.Event()
        self._called_off: set[str] | None = set()
        self._slots_changed: set[str] | None = set()
        self._work: dict[str, None] = {}
        self.others: dict[str, Callable[[str], None]] = {}
        """Who else of this process wants to hear of a channel: each connection that listens is woken by
        whatever any node says, so there is one for all."""
        self.on_listening: Callable[[], None] = lambda: None
        """Told whenever something may have been missed on these channels."""
        self._own_channel = channel_of(store.node_id)
        self._orders: list[str] = []
        self.ear = Ear([*CHANNELS, *([self._own_channel] if self._own_channel is not None else [])])
        self.waiting.begins = self.subtasks.begins = self._hear_of_ends
        self._agents: dict[str, None] = {}
        self._peers_spoke = asyncio.Event()
        self._is_listening = asyncio.Event()

    async def start(self, port: int | None = None) -> None:
        """Look at the tables, take the lead if it is free, start the loops."""
        self.leader.port = port
        await self.leader.bury_the_dead()
        await self.lifeline.store.db.fetch("strand_agents", self.store.node_id)
        await self.read_fleet()
        await self.leader.beat()
        await self.store.db.fetch("declare_node", self.store.node_id, self.limits.most_running)
        run = asyncio.create_task
        self._loops = [
            run(self.scheduler.run(), name="scheduler"),
            run(self.settler.run(), name="settler"),
            run(self.settler.run_unlocks(), name="unlocks"),
            run(self.desk.run(), name="desk"),
            run(self.lifeline.watch(), name="lifeline"),
            run(self.lifeline.sweep(self.limits.sweep_interval), name="sweep"),
            run(self.leader.run(), name="leader"),
            run(self.ledger.run(), name="ledger"),
            run(self.monitor.run(), name="monitor"),
            run(self.balancer.run(), name="balancer"),
            run(self.stragglers.run(), name="stragglers"),
            run(self.proposals.run(), name="proposals"),
            run(self.exclusions.run(), name="exclusions"),
            run(self.timetable.run(), name="timetable"),
            run(self.historian.run(lambda: self.state.is_chief), name="historian"),
            run(self.pruner.run(), name="pruner"),
            run(self._follow_changes(), name="changes"),
            run(self._follow_peers(), name="peers"),
            run(self.relay.run(), name="relay"),
            run(self.store.db.listen(self.ear, self._on_notice, self._on_listening), name="listen"),
        ]
        for loop in self._loops:
            loop.add_done_callback(_loop_ended)
        await self._is_listening.wait()
        if self.relay.has_peers:  # they should know from now on that they are not alone
            await self.store.notify("agentorch_lead", self.state.node_id)
        self.state.bus.publish("initialized")

    # --- hints ------------------------------------------------------------------------------

    async def _hear_of_ends(self) -> None:
        """Somebody here waits for a task to end."""
        await self.ear.hear(DONE)

    async def _mind_channels(self) -> None:
        """Once a beat: what nobody wants to know any more is not listened to. A node is woken for its own
        work, and not for every batch of all others."""
        if self.scheduler.counts_on_ends:
            await self._hear_of_keys()
        unwanted = set() if self.state.is_leader else set(LEADERS)
        if not (self.waiting.is_awaited or self.subtasks.is_awaited or self.scheduler.counts_on_ends):
            unwanted.add(DONE)
        if unwanted:
            await self.ear.ignore(*unwanted)

    async def _hear_of_keys(self) -> None:
        """Keys may be held by tasks of other pools, which others end."""
        if not self.ear.hears(DONE):
            await self.ear.hear(DONE)
            self.scheduler.look_at_limits()  # what ended until now, nobody here has heard

    def _on_notice(self, channel: str, payload: str) -> None:
        if channel in self.others:
            self.others[channel](payload)
        if channel == DONE:
            self.subtasks.hinted(payload)
            self.waiting.hinted(payload)
            self.scheduler.ended(payload)
        elif channel == "agentorch_votes":
            self.proposals.opened(payload)
        elif channel == "agentorch_tasks":
            if payload == "*":
                self.scheduler.look_again_here()
            elif payload.startswith(WHOLE):
                self.scheduler.came(row_in(payload))
            else:
                told = hinted_in(payload)
                if told.concerns(self.state.pool):
                    self.scheduler.hinted(told.ids, delayed=told.delayed)
        elif channel == "agentorch_cancel":
            called_off = None if payload == "*" else payload.split("\n")
            self.peers.called_off(called_off)
            if called_off is None:
                self._called_off = None
            elif self._called_off is not None:
                self._called_off.update(called_off)
            self._fleet_changed.set()
        elif channel == WORK:
            node_id, *ids = payload.split("\n")
            if node_id == self.state.node_id:
                self._work.update(dict.fromkeys(ids))
                self._peers_spoke.set()
        elif channel == self._own_channel:
            self._orders.append(payload)  # their ids follow
        elif channel == FREED:
            self.peers.take_freed(payload.split("\n"))
        elif channel == AGENTS:
            self._agents.update(dict.fromkeys(payload.split("\n")))
            self._peers_spoke.set()
        elif channel == "agentorch_lead":
            if payload != self.state.node_id:
                self.leader.beat_soon()
        elif channel == "agentorch_limits":
            self.scheduler.look_at_limits()
        elif channel == "agentorch_budgets":
            scope, _, key = payload.partition(" ")
            if key:
                self.scheduler.budget_changed(scope, key)
            else:
                self.scheduler.look_at_budgets()
        elif channel == "agentorch_deadlock":
            self.monitor.look_soon(0.0)
        elif channel == "agentorch_ended":
            self.settler.ended_elsewhere(None if payload == "*" else payload.split("\n"))
        elif channel == "agentorch_schedules":
            self.timetable.wake()
        elif channel == "agentorch_tokens":
            pass  # of no concern to the engine
        elif channel == "agentorch_slots":
            if payload == "*":
                self._slots_changed = None
            elif self._slots_changed is not None:
                self._slots_changed.update(payload.split("\n"))
            self._fleet_changed.set()
        else:
            self.state.fleet_hints += 1
            self._fleet_changed.set()
            self.monitor.look_soon()

    def _on_arrival(self, agent_id: str) -> None:
        self.proposals.arrived(agent_id)
        self.monitor.agent_came()

    def _on_change_missed(self) -> None:
        self._fleet_changed.set()

    def _on_move_missed(self, agent_id: str) -> None:
        self._agents[agent_id] = None
        self._peers_spoke.set()

    def _on_unservable(self) -> None:
        if self.state.is_chief:
            self.monitor.look_soon(0.0)
        else:
            self.relay.stuck()

    def _on_late(self, delivery: Delivery) -> None:
        """An agent of this node does not take what it has a slot for: whoever leads may move it."""
        if self.state.leads(delivery.pool):
            self.balancer.late(delivery.message_id)
        else:
            self.state.is_late(delivery.message_id)
            self.relay.changed(delivery.message_id, LATE)

    def _on_wait(self, holds_slot: bool) -> None:
        self.scheduler.wake()
        if holds_slot:
            self.monitor.look_soon()

    async def _on_listening(self) -> None:
        """Whatever was said while nobody listened is in the tables."""
        self.on_listening()
        self._called_off = self._slots_changed = None
        if self._is_listening.is_set():  # not for the first time
            self.peers.called_off(None)
        self.state.fleet_hints += 1
        self._fleet_changed.set()
        self.settler.ended_elsewhere(None)
        self.monitor.look_soon()
        self.scheduler.look_again_here()
        self.scheduler.look_at_limits()
        self.scheduler.look_at_budgets()
        if not self.state.is_leader or self.state.elsewhere:
            self.scheduler.doubt()
        self.subtasks.hinted("*")
        self.proposals.opened("*")
        self.waiting.hinted("*")
        self.timetable.wake()
        self._is_listening.set()

    async def _follow_changes(self) -> None:
        """For ever: changes that people make to the fleet, and work that was called off."""
        while True:
            await self._fleet_changed.wait()
            self._fleet_changed.clear()
            called_off, self._called_off = self._called_off, set()
            try:
                await self.stop_called_off(called_off)
                await self.park_given_back()
                await self.read_fleet()
                self.scheduler.wake()
            except DatabaseUnreachable as error:
                log.warning("cannot follow a change: %s", error)
                self._called_off = self._slots_changed = None
                await asyncio.sleep(0.3)
                self._fleet_changed.set()
            except Exception:
                log.exception("a change could not be followed")

    async def _follow_peers(self) -> None:
        """For ever: work for agents of this node, and agents that come and go; and what hints have missed."""
        loop = asyncio.get_running_loop()
        sweep_at = loop.time() + self.limits.sweep_interval
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(sweep_at):
                    await self._peers_spoke.wait()
            self._peers_spoke.clear()
            work, self._work = self._work, {}
            orders, self._orders = self._orders, []
            agents, self._agents = self._agents, {}
            try:
                if agents:
                    await self.peers.follow_agents(agents)
                if work:
                    await self.peers.take_work(list(work), orders)
                if loop.time() >= sweep_at:  # also where others speak all the time
                    sweep_at = loop.time() + self.limits.sweep_interval
                    await self.peers.sweep()
                    await self.subtasks.look_after()
            except DatabaseUnreachable as error:
                log.warning("cannot follow other nodes: %s", error)
                self._agents = agents | self._agents
                self._work = work | self._work
                await asyncio.sleep(0.3)
                self._peers_spoke.set()
            except Exception:
                log.exception("what another node said could not be followed")

    async def stop_called_off(self, message_ids: set[str] | None) -> None:
        """Tell agents to stop what was called off in the tables; None: compare everything."""
        mine = self.state.deliveries.keys()
        asked = list(mine if message_ids is None else message_ids & mine)
        if not asked:
            return
        known = await self.store.tasks_of(asked)
        for message_id in asked:
            row = known.get(message_id)
            if row is not None and row["status"] in ("cancelled", "lost", "timed_out"):
                delivery = self.state.release(message_id)
                if delivery is not None:
                    self.courier.call_off(
                        delivery.agent_id, message_id, delivery.task_id, "the task was cancelled"
                    )

    async def park_given_back(self) -> None:
        """Slots that were taken from work that waits, in the tables, are free here too."""
        asked, self._slots_changed = self._slots_changed, set()
        ids = list(self.state.waiting if asked is None else asked & self.state.waiting)
        if ids:
            for row in await self.store.db.fetch("slots_of", ids):
                if row["is_parked"]:
                    self.state.park(str(row["message_id"]))

    async def read_fleet(self) -> None:
        """Make the roster what the tables say: who there is, what they can, which slots are taken.

        An agent that connects while the rows are on their way is newer than they are.
        """
        async with self.peers.reading:
            came = await self._read_fleet()
        if came and self.state.is_leader:  # what they have from the pool that they were in
            await self.peers.read_elsewhere(came)

    async def _read_fleet(self) -> list[str]:
        """The agents that came into this node's pool."""
        before = dict(self.state.roster.members)
        came: list[str] = []
        asked_at = asyncio.get_running_loop().time()
        rows = await self.store.db.fetch("roster")
        roster = self.state.roster
        for row in rows:
            known = roster.members.get(row["agent_id"])
            if known is not before.get(row["agent_id"]):
                continue
            if known is not None and row["node_id"] == self.state.node_id:
                if _follow_row(roster, known, dict(row)):
                    self.courier.drain_agent(known.agent_id)
            else:
                if known is not None and known.pool != row["pool"] == roster.pool:
                    came.append(known.agent_id)
                seat(roster, row)
                self.state.reputation.tell(row["agent_id"])
            self.exclusions.follow(roster.members[row["agent_id"]], row, asked_at)
        self.exclusions.pause_ends_in(
            min((row["pause_s"] for row in rows if row["pause_s"] is not None), default=None)
        )
        present = {row["agent_id"] for row in rows}
        for agent_id in before.keys() - present:
            if roster.members.get(agent_id) is before[agent_id] and not self.desk.is_arriving(agent_id):
                self.peers.forget(agent_id)
        return came

    async def resync(self) -> None:
        """Make the mirror what the tables say after a write whose outcome is unknown.

        An assignment may be stored although its answer never came: then nobody has sent it, and
        nobody watches it. The scheduler awaits this between two steps, so that none is under way.
        """
        await self.stop_called_off(None)
        await self.read_fleet()
        await self.peers.read_elsewhere()
        here = [m.agent_id for m in self.state.roster.members.values() if m.node_id == self.state.node_id]
        held = await self.store.held_work(here)
        unknown = [one.message_id for one in held if one.message_id not in self.state.deliveries]
        # What ended while these rows were on their way is unknown too, and must not be sent again.
        live = {one.message_id for one in await self.store.held_work(message_ids=unknown)} if unknown else ()
        for delivery in held:
            known = self.state.deliveries.get(delivery.message_id)
            if known is None and delivery.message_id in live:
                about = facts(task=delivery.task_id, agent=delivery.agent_id, attempt=delivery.message_id)
                log.info("attempt %s was assigned but not sent; sending it", delivery.message_id, extra=about)
                self.desk.take_up(delivery)
                self.courier.deliver(delivery)
            elif known is not None and known.is_parked and not delivery.is_parked:
                # It has its slot again, and nobody was told.
                self.subtasks.granted(known.message_id, delivery.slot)

    async def _reclaim(self, agent_ids: list[str]) -> None:
        """Another node took this one for dead. Its agents are still here; what they held may have moved."""
        if await self.desk.reclaim(agent_ids):
            self.scheduler.doubt()
            self.scheduler.look_again()

    async def _take_the_lead(self) -> None:
        self.scheduler.doubt()  # the first step reads fleet and attempts anew
        self.scheduler.look_again_here()
        await self.ear.hear(*LEADERS)
        self.scheduler.doubt()  # once more: until now nobody heard what became ready, and what came free
        self.scheduler.look_again_here()
        await self.ledger.follow()
        self.scheduler.look_at_limits()
        self.scheduler.look_at_budgets()
        await self.settler.unlock_missed()

    async def _become_chief(self) -> None:
        self.timetable.wake()
        self.monitor.look_soon()
        await self.settler.unlock_missed()

    # --- the end ----------------------------------------------------------------------------

    async def drain(self, seconds: float | None = None) -> bool:
        """Assign nothing more and wait for what runs; True if it all ended in time."""
        self.state.is_stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.drain_timeout if seconds is None else seconds):
                await self.state.all_released()
                await self.settler.idle()
        return not self.state.deliveries

    async def stop(self) -> None:
        """End the loops. What agents still hold stays theirs: they go on with it at the next node."""
        self.state.is_stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self.settler.idle()
        await self.subtasks.stop()
        await self.settler.checks.close()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []
        self.exclusions.stop()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                await self.desk.write()
                await self.exclusions.write(everything=True)
                await self.leader.beat()
                await self.ledger.write()
                await self.store.db.fetch("leave", self.store.node_id)
        self.state.bus.close()


def _follow_row(roster: Roster, member: Member, row: Mapping[str, Any]) -> bool:
    """What a person may change of an agent that is connected here: standing, capabilities, pool and slots.

    True where it is to be told that it is draining from now on.
    """
    before = member.status
    if before is not AgentStatus.OFFLINE:
        member.status = AgentStatus(row["status"])
    member.slots, member.prefetch = row["slots"], row["prefetch"]
    capabilities = frozenset(row["capabilities"])
    if capabilities == member.capabilities and row["pool"] == member.pool:
        roster.touch(member)
    else:
        roster.drop(member.agent_id)
        member.capabilities, member.pool = capabilities, row["pool"]
        roster.put(member)
    return member.status is AgentStatus.DRAINING and before is not AgentStatus.DRAINING


def _loop_ended(loop: asyncio.Task[None]) -> None:
    if not loop.cancelled() and loop.exception() is not None:
        log.critical("the %s loop ended", loop.get_name(), exc_info=loop.exception())
