"""Gives work that agents hold and have not begun to agents that have less.

* When an agent has a free slot and nothing that is ready fits it, it is given at once what others hold
  beyond their slots (`engine/shelf.py`). If it has nothing to do at all, it is also given what others have
  a slot for and have not taken for a second.
* Every interval the loads of all agents are compared (`core/balance.py`).
* What was handed to an agent beyond its slots and waits there for too long goes back to all.

The scheduler tells of idle agents, the lifeline of attempts that wait: while there are none, nobody
looks. A move is one transaction: the attempt is still not accepted, so it is called off, its task is
ready again as it was, and it is assigned. If its agent takes it in the same moment, whatever is
committed first stands. Only the node that leads moves work; each node gives back what waits with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import asyncpg

from agentorch_cli.core.backlog import Ready
from agentorch_cli.core.balance import Bounds, Movable, load_of, out_of_balance, plan_transfers
from agentorch_cli.core.matching import Seat
from agentorch_cli.engine.scheduler import LATE_AFTER, Pair, Scheduler
from agentorch_cli.engine.state import Courier, State
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.frames import dumps
from agentorch_cli.store.database import Transaction
from agentorch_cli.store.records import Assignment, Delivery
from agentorch_cli.store.store import Store

log = logging.getLogger("agentorch.balancer")

MOST_MOVES = 100
"""Attempts that one look moves at most, in one transaction."""

MOST_SEEN = 500
"""Attempts that one look considers."""

BALANCE, IDLE, WAITED = "balance", "idle", "waited"
"""Why an attempt was moved: loads differed, its new agent was idle, its old one had no slot for too long."""


@dataclass(frozen=True, slots=True)
class Balance:
    """The settings; durations in seconds."""

    is_enabled: bool = True
    interval: float = 60.0
    bounds: Bounds = field(default_factory=Bounds)
    prefetch: int = 0
    """Attempts beyond its slots that an agent may be handed at most."""


@dataclass(frozen=True, slots=True)
class Moved:
    """An attempt that is taken from its agent, and what is told of it."""

    message_id: str
    giver: str
    story: str
    """JSON text of an object."""


class Balancer:
    """The loop that moves work."""

    def __init__(
        self, state: State, store: Store, courier: Courier, scheduler: Scheduler, rules: Balance
    ) -> None:
        self.state = state
        self.store = store
        self.courier = courier
        self.scheduler = scheduler
        self.rules = rules
        self._idle: dict[str, None] = {}
        self._late: dict[str, None] = {}
        self._waited: dict[str, Delivery] = {}
        self._wake = asyncio.Event()

    # --- what others tell it ----------------------------------------------------------------

    def idle(self, agent_ids: Iterable[str]) -> None:
        """These agents have a free slot and nothing that is ready fits them."""
        if self.rules.is_enabled:
            self._idle.update(dict.fromkeys(agent_ids))
            self._wake.set()

    def late(self, message_id: str) -> None:
        """An agent has a slot for this and does not take it: others may have it."""
        if self.rules.is_enabled:
            self.state.is_late(message_id)
            self._late[message_id] = None
            self._wake.set()

    def waited(self, deliveries: Iterable[Delivery]) -> None:
        """These have waited for a slot of their agents for too long."""
        self._waited.update((delivery.message_id, delivery) for delivery in deliveries)
        self._wake.set()

    # --- the loop ---------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever. No error of one look ends it."""
        loop = asyncio.get_running_loop()
        compare_at = loop.time() + self.rules.interval
        while True:
            try:
                async with asyncio.timeout_at(compare_at):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self.step()
                if loop.time() >= compare_at:
                    compare_at = loop.time() + self.rules.interval
                    await self.compare()
            except DatabaseUnreachable as error:
                log.warning("no work could be moved: %s", error)
                await asyncio.sleep(0.3)
            except asyncpg.PostgresError as error:
                log.warning("work that cannot be stored was not moved: %s", error)
            except Exception:
                log.exception("work could not be moved")

    async def step(self) -> None:
        """What has been told since the last time."""
        if self._waited:
            waited, self._waited = self._waited, {}
            await self.give_back([one for one in waited.values() if one.is_ahead])
        if self._idle or self._late:
            idle, self._idle = self._idle, {}
            late, self._late = self._late, {}
            try:
                await self.steal(idle, late)
            except DatabaseUnreachable:
                self._idle, self._late = idle | self._idle, late | self._late
                self._wake.set()
                raise

    # --- work for the idle ------------------------------------------------------------------

    async def steal(self, idle: Iterable[str], late: Iterable[str] = ()) -> int:
        """Give idle agents what others have not begun, and anybody what is late; how many attempts moved."""
        if not self._may_move():
            return 0
        wanted = self._for_the_idle(late)
        for agent_id in idle:
            member = self.state.roster.members.get(agent_id)
            if member is not None and member.is_free and len(wanted) < MOST_MOVES:
                is_idle = not member.used
                fit = self.state.shelf.fit_for(agent_id, member.capabilities, ahead_only=not is_idle)
                new = (one for one in fit if one not in wanted and self.state.is_of_pool(one))
                wanted.update(dict.fromkeys(islice(new, member.slots - member.busy)))
        if not wanted:
            return 0
        found = await self.store.movable(list(wanted), (), len(wanted), self.state.pool)
        for message_id in wanted.keys() - {one[0] for one in found}:
            self.state.begins(message_id)  # as its agent has said on another node, or is just saying here
        pairs: list[Pair] = []
        moves: dict[str, Moved] = {}
        for message_id, giver_id, _, task in found:
            giver = self.state.roster.members.get(giver_id)
            if giver is None or message_id not in self.state.shelf:
                continue  # it was begun meanwhile
            is_ahead = self.state.shelf.is_ahead(message_id, giver_id)
            seat = self._seat(task, giver_id, idle_only=not is_ahead)
            if seat is not None:
                before = (load_of(giver), load_of(seat.member))
                after = (before[0] - 1 / giver.slots, before[1] + 1 / seat.member.slots)
                story = _story(IDLE, (giver_id, seat.member.agent_id), before, after)
                moves[task.task_id] = Moved(message_id, giver_id, story)
                pairs.append((task, [seat]))
                self.scheduler.enter(task, [seat])
        return await self._move(pairs, moves)

    def _for_the_idle(self, late: Iterable[str]) -> dict[str, None]:
        """Those of these attempts for which somebody may be idle: mostly nobody is, and no table is asked."""
        roster, shelf = self.state.roster, self.state.shelf
        has_idle: dict[frozenset[str], bool] = {}
        found: dict[str, None] = {}
        for message_id in late:
            required = shelf.demand_of(message_id)
            if required is None or not self.state.is_of_pool(message_id):
                continue
            if required not in has_idle:
                has_idle[required] = roster.has_idle(required)
            if has_idle[required] and len(found) < MOST_MOVES:
                found[message_id] = None
        return found

    def _seat(self, task: Ready, giver: str, *, idle_only: bool) -> Seat | None:
        """The best agent for it that is free, by the one rule of eligibility; never the one that has it.

        `idle_only`: of those that have nothing to do at all.
        """
        self.state.gates.place(task)
        if self.state.gates.closed(task, 1) is not None:
            return None
        roster = self.state.roster
        want = replace(task.want, closed_to=task.want.closed_to | {giver}, may_wait=False)
        if idle_only:
            idle = tuple(member.agent_id for member in roster.eligible(want) if not member.used)
            want = replace(want, only=idle, closed_to=want.closed_to | want.rather_not)
        gangs = self.state.backlog.kept_ahead(task)
        kept = [one for gang in gangs if (one := roster.reservation(gang.want)) is not None]
        seats = roster.choose(want, kept)
        return seats[0] if seats else None

    # --- loads ------------------------------------------------------------------------------

    async def compare(self) -> int:
        """Compare the loads of all agents, and move what evens them out; how many attempts moved."""
        members = [one for one in self.state.roster.members.values() if one.pool == self.state.pool]
        givers, takers = out_of_balance(members, self.rules.bounds)
        if not self._may_move() or not givers or not takers:
            return 0
        found = await self.store.movable((), givers[:MOST_MOVES], MOST_SEEN, self.state.pool)
        tasks: dict[str, Ready] = {}
        movable = []
        for message_id, agent_id, sent_s, task in found:
            delivery = self.state.deliveries.get(message_id)
            if delivery is not None and delivery.is_accepted:
                continue
            if message_id not in self.state.shelf and sent_s < LATE_AFTER:
                continue  # it is on its way
            self.state.gates.place(task)
            if self.state.gates.closed(task, 1) is None:
                tasks[message_id] = task
                movable.append(Movable(message_id, agent_id, task.want, task.order))
        roster = self.state.roster
        pairs: list[Pair] = []
        moves: dict[str, Moved] = {}
        for transfer in plan_transfers(members, movable, self.rules.bounds, MOST_MOVES):
            task, taker = tasks[transfer.message_id], roster.members[transfer.taker]
            story = _story(BALANCE, (transfer.giver, transfer.taker), transfer.before, transfer.after)
            moves[task.task_id] = Moved(transfer.message_id, transfer.giver, story)
            seat = Seat(taker, taker.free_slot())
            pairs.append((task, [seat]))
            self.scheduler.enter(task, [seat])
        return await self._move(pairs, moves)

    # --- moving -----------------------------------------------------------------------------

    def _may_move(self) -> bool:
        return self.rules.is_enabled and self.state.is_leader and not self.state.is_stopping

    async def _move(self, pairs: Sequence[Pair], moves: dict[str, Moved]) -> int:
        if not pairs:
            return 0

        async def take_back(
            tx: Transaction, assignments: Sequence[tuple[Ready, Sequence[Assignment]]]
        ) -> set[str]:
            ids = [task.task_id for task, _ in assignments]
            taken = await self._take_back(tx, {task_id: moves[task_id] for task_id in ids})
            return set(ids) - taken

        try:
            moved = await self.scheduler.move(pairs, take_back)
        except DatabaseUnreachable:
            self.scheduler.doubt()
            raise
        for task_id in moved:
            self._tell(moves[task_id], task_id, "it was given to another agent")
        self.scheduler.wake()
        return len(moved)

    async def give_back(self, deliveries: Sequence[Delivery]) -> int:
        """What waits for a slot of its agent for too long is ready for all again; how many that were."""
        moves = {}
        for delivery in deliveries:
            giver = self.state.roster.members.get(delivery.agent_id)
            load = load_of(giver) if giver is not None else 0.0
            after = load - 1 / giver.slots if giver is not None else 0.0
            story = _story(WAITED, (delivery.agent_id, None), (load, None), (after, None))
            moves[delivery.task_id] = Moved(delivery.message_id, delivery.agent_id, story)
        if not moves:
            return 0
        async with self.store.db.transaction() as tx:
            taken = await self._take_back(tx, moves)
        for task_id in taken:
            self.state.was_slow(moves[task_id].giver)
            self._tell(moves[task_id], task_id, "its agent was busy for too long")
        self.scheduler.hint(taken)
        return len(taken)

    async def _take_back(self, tx: Transaction, moves: dict[str, Moved]) -> set[str]:
        """Call off what its agent has still not accepted; the ids of these tasks."""
        rows = await tx.fetch(
            "take_back_attempts",
            [one.message_id for one in moves.values()],
            list(moves),
            [one.story for one in moves.values()],
            dumps({"code": "moved", "message": "it was taken back before its agent had accepted it"}),
            self.store.node_id,
        )
        return {row["task_id"] for row in rows}

    def _tell(self, moved: Moved, task_id: str, reason: str) -> None:
        """After the commit: its old agent stops, wherever it is."""
        self.state.count("attempt_moved")
        if self.state.release(moved.message_id) is not None:
            self.courier.call_off(moved.giver, moved.message_id, task_id, reason)
        elif self.state.relay is not None:
            self.state.relay.stopped([moved.message_id])
        if self.state.bus.is_heard:
            self.state.bus.publish("attempt_moved", task_id=task_id, agent_id=moved.giver)


def _story(
    why: str,
    agents: tuple[str, str | None],
    before: tuple[float, float | None],
    after: tuple[float, float | None],
) -> str:
    """What the event says: from whom to whom, and the loads of both."""

    def loads(pair: tuple[float, float | None]) -> dict[str, float]:
        return {
            agent: round(max(0.0, load), 4)
            for agent, load in zip(agents, pair, strict=True)
            if agent is not None and load is not None
        }

    return dumps(
        {"why": why, "from": agents[0], "to": agents[1], "before": loads(before), "after": loads(after)}
    )
