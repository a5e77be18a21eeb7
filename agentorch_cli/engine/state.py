"""What one node holds in memory: a mirror. The tables are the truth.

Everything here can be thrown away and read again (`Engine.resync`), and is, whenever the
database could not be asked for a while.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

import orjson

from agentorch_cli.core.backlog import Backlog
from agentorch_cli.core.ledger import bucket_of
from agentorch_cli.core.limits import LimitGates
from agentorch_cli.core.matching import Roster, Seat
from agentorch_cli.core.model import DEFAULT_POOL, AttemptStatus
from agentorch_cli.engine.bus import Bus
from agentorch_cli.engine.meters import Meters
from agentorch_cli.engine.pace import Pace
from agentorch_cli.engine.relay import PARKED, Relay
from agentorch_cli.engine.reputation import Reputation
from agentorch_cli.engine.shelf import Shelf
from agentorch_cli.store.records import Delivery
from agentorch_cli.traces import Traces

LONGEST_SKILL = 200
"""Letters of a skill's name that the ledger keeps: an index entry has an end."""

MOST_OVER = 10_000
"""Attempts that are remembered after their end."""


class Courier(Protocol):
    """What the engine needs of the gateway. None of these waits."""

    def deliver(self, delivery: Delivery) -> bool:
        """Send work to its agent; False where that agent has no session here."""
        ...

    def call_off(self, agent_id: str, message_id: str, task_id: str, reason: str) -> None:
        """Tell an agent to stop."""
        ...

    def acknowledge(self, agent_id: str, message_ids: Iterable[str]) -> None:
        """Results are durable."""
        ...

    def refuse(self, agent_id: str, code: str, message: str, message_id: str | None = None) -> None:
        """Tell an agent what was wrong."""
        ...

    def drain_agent(self, agent_id: str) -> None:
        """Tell an agent to finish what it holds: no more will come."""
        ...

    def dismiss(self, agent_id: str, reason: str) -> None:
        """End an agent's session: it is not registered any more."""
        ...

    def supersede(self, agent_id: str) -> None:
        """End an agent's session without a word: it has a newer one, on another node."""
        ...

    def session_of(self, agent_id: str) -> Any:
        """The session of an agent that is connected here."""
        ...

    def connected(self) -> Iterable[str]:
        """The agents that are connected here."""
        ...


@dataclass(slots=True)
class Report:
    """The end of an attempt, as an agent (or the lifeline) tells it."""

    message_id: str
    agent_id: str
    status: AttemptStatus
    result: str | None = None
    """JSON text."""
    error: dict[str, Any] | None = None
    confidence: float | None = None
    usage: str | None = None
    from_agent: bool = True
    """Wants an ack."""
    task_id: str | None = None
    """The task that the agent says it is about; refused where that is not so."""
    is_checked: bool = False
    """Its result was looked at already: it fits, or this is the failure that it became."""

    @property
    def is_declined(self) -> bool:
        """Its agent gave the work back because it does not want to do it."""
        return self.from_agent and self.status is AttemptStatus.CANCELLED


@dataclass(slots=True)
class Elsewhere:
    """A live attempt of an agent on another node, as the leader remembers it."""

    agent_id: str
    slot: int
    task_id: str
    skill: str
    type: str
    is_parked: bool = False
    required: frozenset[str] = frozenset()
    is_ahead: bool = False
    """Beyond the slots of its agent, which has not begun it."""
    begun: float = 0.0
    """When its agent had a slot for it, on the loop's clock; 0: as soon as it is held."""
    pool: str = DEFAULT_POOL
    estimate: float | None = None
    """Seconds that it is expected to take, if it says so."""


@dataclass(slots=True)
class Tally:
    """What an agent finished since the last beat."""

    completed: int = 0
    failed: int = 0


@dataclass(slots=True)
class Account:
    """What an agent finished in one skill and task type since the ledger was written last."""

    completed: int = 0
    failed: int = 0
    """Timed out is failed."""
    lost: int = 0
    ballots: int = 0
    """Of the completed ones those that a vote will judge: they are no evidence before it closes."""
    seconds: float = 0.0
    """How long the completed and the failed ones took together."""
    latency: dict[int, int] = field(default_factory=dict)
    """The completed ones by bucket of their duration."""
    cost_usd: float = 0.0
    tokens: int = 0
    cost_unknown: int = 0
    tokens_unknown: int = 0

    @property
    def good(self) -> int:
        """Outcomes that went well, as far as they are evidence."""
        return self.completed - self.ballots

    @property
    def outcomes(self) -> int:
        """All that are evidence."""
        return self.good + self.failed + self.lost

    def add(
        self, status: AttemptStatus, seconds: float | None, usage: str | None, *, is_ballot: bool = False
    ) -> None:
        """One more attempt that has ended; `usage` is JSON text, `seconds` None where not measured."""
        if status is AttemptStatus.COMPLETED:
            self.completed += 1
            self.ballots += is_ballot
            if seconds is not None:
                bucket = bucket_of(seconds)
                self.latency[bucket] = self.latency.get(bucket, 0) + 1
        elif status is AttemptStatus.LOST:
            self.lost += 1
            seconds = None
        else:
            self.failed += 1
        if seconds is not None:
            self.seconds += seconds
        used = orjson.loads(usage) if usage is not None else _NO_USAGE
        cost = used.get("cost_usd")
        if cost is None:
            self.cost_unknown += 1
        else:
            self.cost_usd += cost
        if "input_tokens" in used or "output_tokens" in used:
            self.tokens += used.get("input_tokens", 0) + used.get("output_tokens", 0)
        else:
            self.tokens_unknown += 1

    def plus(self, other: Account) -> None:
        """Add what another account holds."""
        self.completed += other.completed
        self.failed += other.failed
        self.lost += other.lost
        self.ballots += other.ballots
        self.seconds += other.seconds
        for bucket, number in other.latency.items():
            self.latency[bucket] = self.latency.get(bucket, 0) + number
        self.cost_usd += other.cost_usd
        self.tokens += other.tokens
        self.cost_unknown += other.cost_unknown
        self.tokens_unknown += other.tokens_unknown


_NO_USAGE: dict[str, Any] = {}

AccountKey = tuple[str, str, str]
"""Agent, skill, task type."""


@dataclass(slots=True)
class State:
    """The mirror."""

    node_id: str
    roster: Roster
    backlog: Backlog = field(default_factory=Backlog)
    gates: LimitGates = field(default_factory=LimitGates)
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    """Live attempts of agents on this node, by message id."""
    elsewhere: dict[str, Elsewhere] = field(default_factory=dict)
    """By message id, live attempts of agents on other nodes that matter to the pool; kept by its leader."""
    freed_meanwhile: set[str] | None = None
    """While the fleet is read: attempts that ended, or gave their slot back, since the reading began."""
    over: dict[str, None] = field(default_factory=dict)
    """Message ids of attempts that lately ended here, or were called off, the newest last: what is told of
    them late is not true any more."""
    brought: dict[str, None] = field(default_factory=dict)
    """Attempts that came with their agents before they were known here, the last so many: their assignments
    may be answered later, whatever has become of them."""
    ended_of: dict[str, set[str]] = field(default_factory=dict)
    """Of agents that are coming in: what ended since what they hold is being read."""
    taken_over: set[tuple[str, int]] = field(default_factory=set)
    """Agents and slots that whoever leads gave away before this node had heard that what is in them ended."""
    relay: Relay | None = None
    waiting: set[str] = field(default_factory=set)
    """Message ids of deliveries that wait for their sub-tasks."""
    going_on: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    """By message id of attempts that want a slot to go on: done once they need not wait for it."""
    shelf: Shelf = field(default_factory=Shelf)
    """What agents hold and have not begun."""
    response_timeout: float = 30.0
    """Seconds within which an agent takes work that it has a slot for."""
    running: Counter[str] = field(default_factory=Counter)
    """How many live attempts each task of the pool has, as far as is known here, without those that wait for
    their sub-tasks."""
    held_by: dict[str, set[str]] = field(default_factory=dict)
    """Message ids by agent."""
    gone_since: dict[str, float] = field(default_factory=dict)
    """Agents of this node that lost their session, with the loop time when."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    accounts: dict[AccountKey, Account] = field(default_factory=dict)
    """What the ledger has not been told yet."""
    has_worked: bool = False
    """Something was assigned since the ledger looked for that."""
    fleet_hints: int = 0
    """How often it was said that people, or the end of a pause, changed agents in the registry."""
    heard: set[str] = field(default_factory=set)
    """Agents that gave a sign of life since the last beat."""
    bus: Bus = field(default_factory=Bus)
    is_leader: bool = False
    """It schedules its pool."""
    is_chief: bool = False
    """It does what is there once for all pools: sweeps, deadlocks, schedules, scores."""
    is_stopping: bool = False
    counters: dict[str, int] = field(default_factory=dict)
    meters: Meters = field(default_factory=Meters)
    traces: Traces | None = None
    """Where spans go; None: nowhere."""
    reputation: Reputation = field(init=False)
    pace: Pace = field(init=False)
    _is_empty: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.reputation = Reputation(self.roster)
        self.pace = Pace(self.roster)

    @property
    def pool(self) -> str:
        """The one that this node schedules, if it leads."""
        return self.roster.pool

    def leads(self, pool: str) -> bool:
        """Whether this node schedules that pool."""
        return self.is_leader and pool == self.roster.pool

    def is_of_pool(self, message_id: str) -> bool:
        """Whether a live attempt is at a task of this node's pool, as far as is known here."""
        held = self.deliveries.get(message_id) or self.elsewhere.get(message_id)
        return held is not None and held.pool == self.roster.pool

    def held_now(self, agent_id: str) -> set[str]:
        """The message ids of what an agent holds, here or on another node, as far as is known here."""
        away = {one for one, attempt in self.elsewhere.items() if attempt.agent_id == agent_id}
        return away | self.held_by.get(agent_id, set())

    def slot_of(self, message_id: str) -> int | None:
        """The slot that a live attempt owns, if it is known here and owns one."""
        held = self.deliveries.get(message_id) or self.elsewhere.get(message_id)
        return held.slot if held is not None and not held.is_parked else None

    def is_for_others(self, delivery: Delivery) -> bool:
        """Whether another node counts on the slot of an attempt on this node: whoever leads the pool of the
        task, or the one that its agent has moved to."""
        member = self.roster.members.get(delivery.agent_id)
        return not (self.leads(delivery.pool) and (member is None or self.leads(member.pool)))

    def hold(self, delivery: Delivery) -> None:
        """A live attempt is on this node."""
        if delivery.message_id not in self.deliveries and not delivery.is_waiting:
            self._count_in(delivery)
        if delivery.traceparent is not None:
            self._tell_trace(delivery)
        self.deliveries[delivery.message_id] = delivery
        self.held_by.setdefault(delivery.agent_id, set()).add(delivery.message_id)
        if delivery.is_waiting:
            self.waiting.add(delivery.message_id)
        if delivery.is_parked:
            self._is_parent(delivery.agent_id)
        if delivery.is_ahead:
            required = frozenset(delivery.required_capabilities)
            self.shelf.put(delivery.message_id, delivery.agent_id, required, is_ahead=True)
            self._begin_next(delivery.agent_id)
        else:
            self.expect(delivery.message_id, delivery)

    def _tell_trace(self, delivery: Delivery) -> None:
        assert delivery.traceparent is not None
        delivery.traceparent_told = (
            self.traces.attempt(delivery.traceparent, delivery.message_id)
            if self.traces is not None
            else delivery.traceparent
        )

    def waits(self, delivery: Delivery, does_wait: bool) -> None:
        """It waits for its sub-tasks, or does so no more: what waits does not count as running."""
        if does_wait == delivery.is_waiting or delivery.message_id not in self.deliveries:
            return
        delivery.is_waiting = does_wait
        if does_wait:
            self.waiting.add(delivery.message_id)
            self._count_out(delivery)
        else:
            self.waiting.discard(delivery.message_id)
            self._count_in(delivery)

    def _count_in(self, attempt: Delivery | Elsewhere) -> None:
        if attempt.pool == self.roster.pool:
            self.running[attempt.task_id] += 1

    def _count_out(self, attempt: Delivery | Elsewhere) -> None:
        if attempt.pool == self.roster.pool:
            self.running[attempt.task_id] -= 1
            if not self.running[attempt.task_id]:
                del self.running[attempt.task_id]

    def go_on(self, message_id: str) -> None:
        """Whoever waits for this attempt to own a slot again need not any more."""
        going_on = self.going_on.pop(message_id, None)
        if going_on is not None and not going_on.done():
            going_on.set_result(None)

    def park(self, message_id: str) -> None:
        """It gave its slot back: others may have it."""
        delivery = self.deliveries.get(message_id)
        if delivery is not None and not delivery.is_parked:
            delivery.is_parked = True
            self.pace.ended(delivery.agent_id, message_id)
            self._is_parent(delivery.agent_id)
            self._give_back(delivery.agent_id, (delivery.slot,))
            if self.relay is not None and self.is_for_others(delivery):
                self.relay.changed(message_id, PARKED)

    def release(self, message_id: str, *, is_told: bool = True) -> Delivery | None:
        """It is not live any more: its slot is free. `is_told`: whoever leads hears of it."""
        delivery = self._let_go(message_id, is_told=is_told)
        if delivery is not None and not delivery.is_parked:
            self._give_back(delivery.agent_id, (delivery.slot,))
        return delivery

    def release_all(self, message_ids: Iterable[str], *, is_told: bool = True) -> None:
        """The same of several: what an agent has free is reckoned once."""
        slots: dict[str, list[int]] = {}
        for message_id in message_ids:
            delivery = self._let_go(message_id, is_told=is_told)
            if delivery is not None and not delivery.is_parked:
                slots.setdefault(delivery.agent_id, []).append(delivery.slot)
        for agent_id, its_own in slots.items():
            self._give_back(agent_id, its_own)

    def _let_go(self, message_id: str, *, is_told: bool) -> Delivery | None:
        """It is not live any more, and its slot is still to be given back."""
        delivery = self.deliveries.pop(message_id, None)
        if delivery is None:
            self.free_elsewhere(message_id)
            return None
        if self.relay is not None and self.relay.has_peers and self.is_for_others(delivery):
            self.is_over(message_id)
            if is_told:
                self.relay.freed(message_id)
        if self.ended_of and delivery.agent_id in self.ended_of:
            self.ended_of[delivery.agent_id].add(message_id)
        if self.going_on:
            self.go_on(message_id)
        if self.pace.ends:
            self.pace.ended(delivery.agent_id, message_id)
        if self.shelf:
            self.shelf.take(message_id)
        if message_id in self.waiting:
            self.waiting.remove(message_id)
        else:
            self._count_out(delivery)
        if delivery.task_id not in self.running:
            self.gates.keys.doubt(delivery.task_id)  # it may have ended, and own its key no more
        held = self.held_by.get(delivery.agent_id)
        if held is not None:
            held.discard(message_id)
            if not held:
                del self.held_by[delivery.agent_id]
        if self.is_stopping and not self.deliveries:
            self._is_empty.set()
        return delivery

    def is_over(self, message_id: str) -> None:
        """Whoever says later that it is to be sent is late."""
        _remember(self.over, message_id)

    def is_brought(self, message_id: str) -> None:
        """It came with its agent and was not known here: nobody else is to send it."""
        _remember(self.brought, message_id)

    # --- agents of other nodes --------------------------------------------------------------

    def hold_elsewhere(self, message_id: str, attempt: Elsewhere) -> None:
        """An agent on another node has this attempt."""
        known = self.elsewhere.get(message_id)
        if known is None and not attempt.is_parked:
            self._count_in(attempt)
        self.elsewhere[message_id] = attempt
        attempt.begun = attempt.begun or asyncio.get_running_loop().time()
        member = self.roster.members.get(attempt.agent_id)
        if member is not None and not attempt.is_parked and attempt.slot not in member.used:
            self.roster.hold(member, attempt.slot)
        if attempt.is_parked:
            self._is_parent(attempt.agent_id)
        if attempt.is_ahead:
            self.shelf.put(message_id, attempt.agent_id, attempt.required, is_ahead=True)
            self._begin_next(attempt.agent_id)
        else:
            self.expect(message_id, attempt)

    def park_elsewhere(self, message_id: str) -> None:
        """It gave its slot back."""
        if self.freed_meanwhile is not None:
            self.freed_meanwhile.add(message_id)
        attempt = self.elsewhere.get(message_id)
        if attempt is not None and not attempt.is_parked:
            attempt.is_parked = True
            self.pace.ended(attempt.agent_id, message_id)
            self._is_parent(attempt.agent_id)
            self._give_back(attempt.agent_id, (attempt.slot,))
            self._count_out(attempt)

    def go_on_elsewhere(self, message_id: str, slot: int) -> bool:
        """It owns a slot again; False where it is not known here."""
        attempt = self.free_elsewhere(message_id)
        if attempt is None:
            return False
        attempt.slot, attempt.is_parked, attempt.begun = slot, False, 0.0
        self.hold_elsewhere(message_id, attempt)
        return True

    def free_elsewhere(self, message_id: str) -> Elsewhere | None:
        """It is not live any more, or its agent came here."""
        attempt = self._let_go_elsewhere(message_id)
        if attempt is not None and not attempt.is_parked:
            self._give_back(attempt.agent_id, (attempt.slot,))
        return attempt

    def free_all_elsewhere(self, message_ids: Iterable[str]) -> None:
        """The same of several: what an agent has free is reckoned once."""
        slots: dict[str, list[int]] = {}
        for message_id in message_ids:
            attempt = self._let_go_elsewhere(message_id)
            if attempt is not None and not attempt.is_parked:
                slots.setdefault(attempt.agent_id, []).append(attempt.slot)
        for agent_id, its_own in slots.items():
            self._give_back(agent_id, its_own)

    def _let_go_elsewhere(self, message_id: str) -> Elsewhere | None:
        """It is not live any more, and its slot is still to be given back."""
        if self.freed_meanwhile is not None:
            self.freed_meanwhile.add(message_id)
        attempt = self.elsewhere.pop(message_id, None)
        if attempt is not None and attempt.agent_id in self.ended_of:
            self.ended_of[attempt.agent_id].add(message_id)
        if self.pace.ends and attempt is not None:
            self.pace.ended(attempt.agent_id, message_id)
        if self.shelf:
            self.shelf.take(message_id)
        if attempt is not None and not attempt.is_parked:
            self._count_out(attempt)
            if attempt.task_id not in self.running:
                self.gates.keys.doubt(attempt.task_id)
        return attempt

    # --- all slots --------------------------------------------------------------------------

    def recount_slots(self, entered: Iterable[Seat]) -> None:
        """Those slots are taken that an attempt of the mirror owns, or work that is being given to somebody
        (`entered`), and no others. Called when the mirror was made what the tables say.
        """
        owned: dict[str, set[int]] = {}
        live: Iterable[Delivery | Elsewhere] = chain(self.deliveries.values(), self.elsewhere.values())
        for held in live:
            if not held.is_parked:
                owned.setdefault(held.agent_id, set()).add(held.slot)
        for seat in entered:
            owned.setdefault(seat.member.agent_id, set()).add(seat.slot)
        for member in list(self.roster.members.values()):
            its_own = owned.get(member.agent_id, set())
            for slot in its_own - member.used:
                self.roster.hold(member, slot)
            self._give_back(member.agent_id, member.used - its_own)

    # --- work beyond the slots of agents ----------------------------------------------------

    def begins(self, message_id: str) -> None:
        """Its agent has a slot for it: it is due within the response timeout from now on."""
        self.shelf.take(message_id)
        held = self.deliveries.get(message_id) or self.elsewhere.get(message_id)
        if held is None or not held.is_ahead:
            return
        held.is_ahead = False
        held.begun = asyncio.get_running_loop().time()
        if isinstance(held, Delivery):
            held.due = held.begun + self.response_timeout
        self.expect(message_id, held)

    def is_late(self, message_id: str) -> None:
        """Its agent has a slot for it and has not taken it for a while."""
        delivery, attempt = self.deliveries.get(message_id), self.elsewhere.get(message_id)
        if delivery is not None and not delivery.is_accepted:
            required = frozenset(delivery.required_capabilities)
            self.shelf.put(message_id, delivery.agent_id, required, is_ahead=delivery.is_ahead)
        elif attempt is not None:
            self.shelf.put(message_id, attempt.agent_id, attempt.required, is_ahead=attempt.is_ahead)

    def was_slow(self, agent_id: str) -> None:
        """The agent is handed nothing beyond its slots until it has done something well."""
        self.pace.was_slow(agent_id)

    def _is_parent(self, agent_id: str) -> None:
        member = self.roster.members.get(agent_id)
        if member is not None:
            member.is_parent = True

    def takes_over(self, delivery: Delivery) -> None:
        """It may come in a slot that is still taken here: this node was the last to hear of its end."""
        member = self.roster.members.get(delivery.agent_id)
        if member is not None and delivery.slot in member.used and not delivery.is_parked:
            held = (self.deliveries[one] for one in self.held_by.get(delivery.agent_id, ()))
            if any(one.slot == delivery.slot and not one.is_parked for one in held):
                self.taken_over.add((delivery.agent_id, delivery.slot))

    def _give_back(self, agent_id: str, slots: Collection[int]) -> None:
        """Slots are free: what their agent holds beyond its slots moves up."""
        if self.taken_over:
            taken = {slot for slot in slots if (agent_id, slot) in self.taken_over}
            self.taken_over -= {(agent_id, slot) for slot in taken}
            slots = [slot for slot in slots if slot not in taken]
        self.roster.give_back_all(agent_id, slots)
        if self.shelf.ahead:
            self._begin_next(agent_id)

    def _begin_next(self, agent_id: str) -> None:
        """No more waits at an agent than it has beyond its slots."""
        ahead = self.shelf.ahead.get(agent_id)
        if not ahead:
            return
        member = self.roster.members.get(agent_id)
        beyond = max(0, member.busy - member.slots) if member is not None else 0
        for message_id in list(ahead)[: max(0, len(ahead) - beyond)]:
            self.begins(message_id)

    def expect(self, message_id: str, held: Delivery | Elsewhere) -> None:
        """Its agent works at it since it began: if it says how long it takes, its end is expected."""
        if held.estimate is not None and not held.is_parked:
            left = held.begun + held.estimate - asyncio.get_running_loop().time()
            self.pace.began(held.agent_id, message_id, left)

    def paces(self, held: Delivery | Elsewhere, now: float, *, went_well: bool) -> None:
        """The last attempt that an agent ended tells whether it is quick. Called before its slot is free."""
        member = self.roster.members.get(held.agent_id)
        if member is not None and member.prefetch:
            self.pace.last(member, now - held.begun, went_well=went_well)

    async def all_released(self) -> None:
        """Returns once nothing is live on this node. Only while it is stopping."""
        if self.deliveries:
            self._is_empty.clear()
            await self._is_empty.wait()

    def tally(self, agent_id: str, *, went_well: bool) -> None:
        """Remember an outcome until the next beat stores it."""
        tally = self.tallies.setdefault(agent_id, Tally())
        if went_well:
            tally.completed += 1
        else:
            tally.failed += 1

    def account(self, agent_id: str, skill: str, task_type: str) -> Account:
        """Where the attempts of an agent at work of this kind are counted until the ledger is told."""
        key = (agent_id, skill[:LONGEST_SKILL], task_type)
        account = self.accounts.get(key)
        if account is None:
            account = self.accounts[key] = Account()
        return account

    def count(self, name: str, number: int = 1) -> None:
        """A counter of the metrics page."""
        self.counters[name] = self.counters.get(name, 0) + number


def _remember(ids: dict[str, None], message_id: str) -> None:
    """The newest come last, and no more than `MOST_OVER` are kept."""
    ids[message_id] = None
    if len(ids) > MOST_OVER:
        del ids[next(iter(ids))]
