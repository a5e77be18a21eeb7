"""Gives ready tasks to agents.

Wakes when something changed (a hint that tasks are ready, a slot that came free, an agent
that came online), never on a clock while nothing does. One step matches what the mirror
knows, commits it in one statement per batch, and sends. While a commit runs, more wakes up:
so batches grow under load by themselves, and a single task passes at once. Where more is ready
than a batch holds, the next batch is matched while the last one is being stored (a `_Flight`),
and that one is sent while the next is stored: neither the database nor this loop waits for the other,
and no agent waits for what this loop reads.

The mirror holds a window of the ready tasks. Hints name new ones; where they do not fit in a
hint, or the mirror may have missed some, the window is read again from the table.

Tasks that share limits with others (`core.gates`) are committed in a transaction of their own,
which claims what they need; all others keep to the one statement.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import asyncpg

from agentorch_cli.core.backlog import FIRST, Order, Ready
from agentorch_cli.core.limits import KEY, RATE, Scope, needs
from agentorch_cli.core.matching import Demand, Seat, skill_of, skill_shown
from agentorch_cli.core.model import AgentStatus
from agentorch_cli.core.settle import MOST_BACKOFF
from agentorch_cli.engine.funds import Funds
from agentorch_cli.engine.orders import order_of
from agentorch_cli.engine.relay import WAITS
from agentorch_cli.engine.state import Courier, Elsewhere, State
from agentorch_cli.errors import DatabaseUnreachable, OrchestratorError
from agentorch_cli.identity import new_id_texts
from agentorch_cli.store.database import Transaction
from agentorch_cli.store.limits import read_keys, read_limits, take_keys, take_tokens
from agentorch_cli.store.records import Assignment, Claimed, Delivery, Row, Unlocked
from agentorch_cli.store.store import Store, earliest, is_simple, joined, schema_in, vote_in
from agentorch_cli.store.votes import open_task_vote

log = logging.getLogger("agentorch.scheduler")

WINDOW = 5_000
"""Ready tasks that the mirror holds."""

DOUBT_PAUSE = 0.05
"""Seconds before the mirror is compared with the tables, so that they do not disagree in a tight loop."""

BATCH = 250
"""Tasks per commit."""

LATE_AFTER = 10.0
"""Seconds after which work within its slots that an agent has not taken may go to an idle one. By the
protocol it has longer: only where somebody else could do it at once does it lose it sooner."""

PATIENCE = 1.0
"""Seconds that an attempt may wait at its agent, for a slot or to be taken, before others may have it."""

DIG_EVERY = 1.0
"""Seconds between looks beyond the window that found nothing: they may read much of the table."""

SHORTEST_WAIT = 0.02
"""Seconds between looks at rates that are used up."""

MOST_KINDS = 16
"""Capability sets of free agents that one such look asks for."""

ALONE_AFTER = 3
"""Refusals in a row by a unique index after which the tasks of a batch are tried one by one."""

GIVEN_UP_AFTER = 20.0
"""Seconds for which a task that is tried alone may be refused so: longer than two schedulers can overlap."""

MOST_COLLIDING = 10_000
"""Tasks of which refusals are remembered."""

Pair = tuple[Ready, list[Seat]]

Claim = Callable[[Transaction, Sequence[tuple[Ready, Sequence[Assignment]]]], Awaitable[set[str]]]
"""Claims what tasks need besides agents, in the transaction that assigns them; the ids of those that
are refused. Then everything is taken back, and tried again without them."""


class _Refused(Exception):
    """Some of the tasks of a transaction may not start after all."""

    def __init__(self, task_ids: set[str]) -> None:
        self.task_ids = task_ids
        super().__init__(f"{len(task_ids)} tasks were refused")


@dataclass(slots=True)
class _Flight:
    """Assignments that are being stored: nobody was told of them yet, and their tasks still look ready."""

    pairs: Sequence[Pair]
    batch: list[Assignment]
    answer: asyncio.Task[dict[str, Claimed]]
    is_sent: bool = False
    """Its agents were told, or it was given up."""
    task_ids: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.task_ids = {task.task_id for task, _ in self.pairs}


class Scheduler:
    """The loop that assigns."""

    def __init__(
        self,
        state: State,
        store: Store,
        courier: Courier,
        *,
        most_running: int = 0,
        response_timeout: float = 30.0,
    ) -> None:
        self.state = state
        self.store = store
        self.courier = courier
        self.most_running = most_running
        self.response_timeout = response_timeout
        self._wake = asyncio.Event()
        self._hinted: set[str] = set()
        self._rows: list[Row] = []
        """Ready tasks that a statement of this node answered, or a hint held: they need not be read."""
        self._is_stale = True
        self._is_cut = False
        """The table holds more ready tasks than the window."""
        self._edge: Order = FIRST
        """The place of the last task that was read in the order of service."""
        self._look_at_delayed = True
        self._parked: dict[str, str] = {}
        """Attempts that want a slot to go on, with their agents, in the order of service."""
        self._parked_on: dict[str, str] = {}
        """The nodes of these agents."""
        self._look_at_parked = True
        self._unservable: set[Demand] = set()
        self.funds = Funds(store, state.gates.purses)
        self.funds.on_renewal = self.look_at_budgets
        self.claims: list[Claim] = [self._claim_limits, self.funds.claim]
        self._are_budgets_stale = True
        self._changed_budgets: set[tuple[str, str]] = set()
        self._flight: _Flight | None = None
        """At most one; none between two steps."""
        self._moving: Sequence[Pair] = ()
        """What is being given to others who hold it: its seats are taken, and nothing is held in them yet."""
        self._claiming = asyncio.Lock()
        """One transaction at a time claims: claims remember what they gave until it is stored."""
        self._are_limits_stale = True
        self._limit_timer: asyncio.TimerHandle | None = None
        self.on_unservable: Callable[[], None] = lambda: None
        """Told when a demand came that no registered agent can meet."""
        self.on_continued: Callable[[str, int], None] | None = None
        """Told of each attempt that got a slot again."""
        self.on_probe: Callable[[Assignment], None] = lambda assignment: None
        """Told of work that shows how an agent is that was excluded."""
        self._timer: asyncio.TimerHandle | None = None
        self.on_idle: Callable[[Iterable[str]], None] | None = None
        """Told of agents that have nothing to do, while others hold work that they have not begun."""
        self._last_failure = ""
        self._dig_at = 0.0
        self._dig_timer: asyncio.TimerHandle | None = None
        self._refused: set[str] = set()
        """Tasks whose last assignment the tables refused. Twice in a row: the mirror is wrong."""
        self._collisions: dict[str, tuple[int, float]] = {}
        """Tasks that a unique index refused the last time: how often in a row, and since when."""
        self._is_in_doubt = False
        """A commit failed, which does not mean that nothing was stored."""
        self.on_sick: Callable[[str, str], Awaitable[None]] | None = None
        """Ends a task that cannot be handled, with the reason."""
        self.on_keys: Callable[[], Awaitable[None]] = _at_once
        """Awaited when keys are held, perhaps by tasks of other pools: this is told of ends from then on."""
        self.on_doubt: Callable[[], Awaitable[None]] | None = None
        """Makes the mirror what the tables say, and sends what was assigned but never sent."""

    # --- what others tell it ----------------------------------------------------------------

    def wake(self) -> None:
        """Something may fit now."""
        self._wake.set()

    def hint(self, task_ids: Iterable[str], *, delayed: bool = False) -> None:
        """These tasks became ready here; `delayed`: some will be later. Whoever leads their pools is told."""
        task_ids = list(task_ids)
        if self.state.relay is not None and (not self.state.is_leader or self.state.relay.has_other_pools):
            self.state.relay.ready(task_ids, delayed=delayed)
        self.hinted(task_ids, delayed=delayed)

    def hinted(self, task_ids: Iterable[str], *, delayed: bool = False) -> None:
        """The same, as it was heard from somebody."""
        if not self.state.is_leader:
            return  # whoever takes the lead reads everything
        self._hinted.update(task_ids)
        self._look_at_delayed |= delayed
        self._wake.set()

    def came(self, row: Row) -> None:
        """A task was submitted that is ready at once, and this is how it stands."""
        if self.state.is_leader:
            self._rows.append(row)
            self._wake.set()

    def unlocked(self, told: Unlocked) -> None:
        """These tasks became ready here, and this is how they stand."""
        if self.state.is_leader and told.rows:
            if self.state.relay is not None and self.state.relay.has_other_pools:
                theirs = [row["task_id"] for row in told.rows if row["pool"] != self.state.pool]
                if theirs:
                    self.state.relay.ready(theirs)
            self._rows += told.rows
            self._wake.set()
        elif told.rows:
            self.hint(told.ready)
        if told.delayed:
            self.hint((), delayed=True)

    def look_again(self) -> None:
        """The mirror of whoever leads may be wrong: the window is read anew, that of each pool."""
        if self.state.relay is not None and (not self.state.is_leader or self.state.relay.has_other_pools):
            self.state.relay.look_again()
        self.look_again_here()

    def look_again_here(self) -> None:
        """The mirror may be wrong: read the window anew."""
        self._is_stale = True
        self._look_at_delayed = True
        self._look_at_parked = True
        self._are_budgets_stale |= bool(self.funds.purses.shut)
        # Keys may be held by tasks of other pools, of whose retries nothing is told here.
        has_other_pools = self.state.relay is not None and self.state.relay.has_other_pools
        self._are_limits_stale |= has_other_pools and bool(self.state.gates.keys.held)
        self._wake.set()

    @property
    def counts_on_ends(self) -> bool:
        """Keys are held, perhaps by tasks of other pools: of their ends other nodes tell."""
        relay = self.state.relay
        return bool(self.state.gates.keys.by_task) and relay is not None and relay.has_other_pools

    def ended(self, payload: str) -> None:
        """Tasks ended, of any pool (`*`: some did): those that held a key hold it no more."""
        if not self.counts_on_ends:
            return
        keys = self.state.gates.keys
        for task_id in list(keys.by_task) if payload == "*" else payload.split("\n"):
            keys.doubt(task_id)
        if keys.doubted:
            self._wake.set()

    def look_at_limits(self) -> None:
        """Rates were changed, or what is known of the limits may be wrong."""
        self._are_limits_stale = True
        self._is_stale = True
        self._wake.set()

    def look_at_budgets(self) -> None:
        """Budgets were set or removed, or begin anew."""
        self._are_budgets_stale = True
        self._wake.set()

    def budget_changed(self, scope: str, key: str) -> None:
        """What was reserved there for an attempt was settled."""
        self._changed_budgets.add((scope, key))
        self._wake.set()

    def doubt(self) -> None:
        """The mirror of agents and attempts may be wrong: compare it before the next assignment."""
        self._is_in_doubt = True
        self._wake.set()

    # --- the loop ---------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever. No error of one step ends it."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.step()
            except DatabaseUnreachable as error:
                log.warning("cannot assign: %s", error)
                self.look_again_here()
                await asyncio.sleep(0.3)
            except Exception as error:
                self._tell_once(error)
                self.state.bus.publish("error", where="scheduler")
                self._is_in_doubt = True
                self.look_again_here()
                await asyncio.sleep(0.3)

    def _tell_once(self, error: Exception) -> None:
        """The same failure again and again is one story: its traceback is logged the first time only."""
        if repr(error) == self._last_failure:
            log.warning("a scheduling step failed again in the same way: %s", type(error).__name__)
        else:
            log.exception("a scheduling step failed; the next one reads everything anew")
        self._last_failure = repr(error)

    async def step(self) -> None:
        """Read what is new, and assign until nothing fits."""
        if not self.state.is_leader or self.state.is_stopping:
            return
        if self._is_in_doubt and self.on_doubt is not None:
            self._is_in_doubt = False  # before: what fails meanwhile is in doubt again
            try:
                await self.on_doubt()
            except BaseException:
                self._is_in_doubt = True
                raise
            self.state.recount_slots(seat for _, seats in self._moving for seat in seats)
        if self._look_at_delayed:
            await self._release_delayed()
        await self._look()
        await self._continue()
        try:
            await self._assign()
        except BaseException:
            await self._abandon()
            raise

    async def _assign(self) -> None:
        """Match and commit until nothing fits; nothing is in flight at the end."""
        while True:
            pairs = self._match()
            if pairs:
                await self._commit(pairs)
            elif self._flight is not None:
                await self._land()
            elif not await self._dig():
                self._wait_for_rates()
                self._tell_idle()
                return
            else:
                continue
            if self._is_in_doubt:
                await self._land()
                self._wake.set()
                await asyncio.sleep(DOUBT_PAUSE)
                return
            await self._look()
            if self._look_at_parked or self._parked:
                await self._land()
                await self._continue()

    async def _look(self) -> None:
        """Read what is new of limits and of tasks.

        Limits again where they were changed meanwhile: a task that was read then may be younger than they.
        Where tasks are found without a hint, limits are read after them in any case: the notice of a limit
        may still be on its way, while the notice of a task comes after that of an older limit.
        """
        while True:
            if not self._is_stale:
                await self._read_limits()
            await self._read_budgets()
            await self._read()
            if not (self._are_limits_stale or self._are_budgets_stale):
                return

    def _tell_idle(self) -> None:
        """Nothing that is ready fits these agents: perhaps what others hold does."""
        idled = self.state.roster.idled
        if idled:
            self.state.roster.idled = {}
            if self.state.shelf and self.on_idle is not None:
                self.on_idle(idled)

    def _match(self) -> list[Pair]:
        gates, roster = self.state.gates, self.state.roster
        gates.rates.now = asyncio.get_running_loop().time()
        if gates.bounds_agents:
            gates.rates.bound_all(roster)
        pairs = []
        for pair in self.state.backlog.match(roster, self._room(), gates):
            self._chosen(*pair)  # before the next is chosen
            pairs.append(pair)
        return pairs

    def _chosen(self, task: Ready, seats: Sequence[Seat]) -> None:
        """Who was chosen for work that takes long is not free soon."""
        if task.options and (seconds := task.options.get("estimate_seconds")) is not None:
            for seat in seats:
                if not seat.is_ahead:
                    self.state.pace.chosen(seat.member, seconds)

    # --- limits that tasks share ------------------------------------------------------------

    async def _read_limits_anew(self) -> None:
        """All of them, whether or not anything was heard."""
        self._are_limits_stale = True
        await self._read_limits()

    async def _read_limits(self) -> None:
        """What the mirror does not know for certain of rates and concurrency keys."""
        gates = self.state.gates
        if self._are_limits_stale:
            self._are_limits_stale = False
            had_agents = gates.bounds_agents
            await read_limits(self.store.db, gates, asyncio.get_running_loop().time())
            if had_agents or gates.bounds_agents:
                gates.rates.bound_all(self.state.roster)
            self._open_gates(self.state.backlog.shut_gates())
        elif gates.keys.doubted:
            keys = sorted(gates.keys.doubted)
            await read_keys(self.store.db, gates, keys)
            self._open_gates(f"{KEY}:{key}" for key in keys)
        else:
            return
        if self.counts_on_ends:
            await self.on_keys()

    async def _read_budgets(self) -> None:
        """Which labels have a budget; and what waits for budgets that have changed is tried again."""
        if self._are_budgets_stale:
            self._are_budgets_stale = False
            self._changed_budgets.clear()
            self._is_stale |= await self.funds.read()
            self._open_gates(self.funds.purses.changed(None))
        elif self._changed_budgets:
            changed, self._changed_budgets = self._changed_budgets, set()
            self._open_gates(self.funds.purses.changed(changed))

    def _open_gates(self, names: Iterable[str]) -> None:
        for name in names:
            self.state.backlog.open_gate(name)

    def open_gate(self, name: str) -> None:
        """What waits behind this gate may be able to start."""
        if self.state.backlog.open_gate(name):
            self._wake.set()

    def _wait_for_rates(self) -> None:
        """Wake when the next token of a bucket that somebody waits for is there."""
        shut = self.state.backlog.shut_gates()
        if self._limit_timer is not None or not (shut or self.state.gates.bounds_agents):
            return
        rates = self.state.gates.rates
        rates.now = asyncio.get_running_loop().time()
        seconds = rates.due_in(shut, self.state.roster)
        if seconds is not None:
            self._limit_timer = asyncio.get_running_loop().call_later(
                min(max(seconds, SHORTEST_WAIT), 3600.0), self._rates_are_due
            )

    def _rates_are_due(self) -> None:
        self._limit_timer = None
        self._open_gates(name for name in self.state.backlog.shut_gates() if name.startswith(f"{RATE}:"))
        self._wake.set()

    def _queue(self, tasks: Iterable[Ready]) -> None:
        """Put tasks into the backlog, each behind the gates that it has to pass."""
        for task in tasks:
            if task.options or self.state.gates.rates.buckets:
                self.state.gates.place(task)
            self.state.backlog.put(task)

    async def _claim_limits(
        self, tx: Transaction, pairs: Sequence[tuple[Ready, Sequence[Assignment]]]
    ) -> set[str]:
        """Tokens of rates, and slots of concurrency keys."""
        gates = self.state.gates
        owned = {
            task.task_id: gates.keys.by_task[task.task_id]
            for task, _ in pairs
            if task.status == "pending" and task.task_id in gates.keys.by_task
        }
        if owned:
            await take_keys(tx, owned)
        asked = {task.task_id: needs(task, [a.agent_id for a in batch], gates.rates) for task, batch in pairs}
        tokens: dict[str, int] = {}
        for of_task in asked.values():
            for name, number in of_task.items():
                tokens[name] = tokens.get(name, 0) + number
        if not tokens:
            return set()
        empty = await take_tokens(tx, tokens)
        if empty:
            self._are_limits_stale = True
        return {task_id for task_id, of_task in asked.items() if empty & of_task.keys()}

    def _room(self) -> int:
        if not self.most_running:
            return BATCH
        flight = self._flight
        aloft = len(flight.pairs) if flight is not None and not flight.is_sent else 0
        return min(BATCH, self.most_running - len(self.state.running) - aloft)

    async def _continue(self) -> None:
        """Parents whose sub-tasks ended go on before anything new begins, each in a slot of its agent."""
        if self._look_at_parked:
            self._look_at_parked = False
            rows = await self.store.db.fetch("continuations", self.state.pool)
            self._parked = {str(row["message_id"]): row["agent_id"] for row in rows}
            self._parked_on = {str(row["message_id"]): row["node_id"] for row in rows}
        roster = self.state.roster
        slots: dict[str, int] = {}
        for message_id, agent_id in self._parked.items():
            member = roster.members.get(agent_id)
            if member is not None and member.status is not AgentStatus.OFFLINE and member.busy < member.slots:
                slots[message_id] = member.free_slot()
                roster.hold(member, slots[message_id])
        if not slots:
            return
        try:
            granted = await self.store.grant_slots(slots)
        except BaseException as error:
            for message_id, slot in slots.items():
                roster.give_back(self._parked[message_id], slot)
            self._look_at_parked = self._is_in_doubt = True
            if isinstance(error, asyncpg.UniqueViolationError):
                raise DatabaseUnreachable("slots to go on are taken, as the tables say") from None
            raise
        for message_id, slot in slots.items():
            agent_id = self._parked.pop(message_id)
            if message_id not in granted:
                roster.give_back(agent_id, slot)
            elif message_id in self.state.deliveries:
                if self.on_continued is not None:
                    self.on_continued(message_id, slot)
            else:
                if not self.state.go_on_elsewhere(message_id, slot):
                    roster.give_back(agent_id, slot)  # it ended before this was told, or is not known here
                node_id = self._parked_on[message_id]
                if self.state.relay is not None and node_id != self.state.node_id:
                    self.state.relay.work(node_id, message_id)

    def look_at_parked(self, message_id: str | None = None) -> None:
        """Somebody who gave its slot back may go on."""
        delivery = self.state.deliveries.get(message_id) if message_id is not None else None
        if delivery is not None and self.state.relay is not None and self.state.is_for_others(delivery):
            self.state.relay.changed(delivery.message_id, WAITS)
        self._look_at_parked = True
        self._wake.set()

    async def _release_delayed(self) -> None:
        self._look_at_delayed = False
        released, next_seconds = await self.store.release_delayed(self.state.pool)
        if released:
            self._is_stale = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if next_seconds is not None:
            # The clock that counts is the database's: this one may wake a little early, then it looks again.
            wait = min(max(next_seconds, 0.0), 3600.0) + 0.001
            self._timer = asyncio.get_running_loop().call_later(wait, self._delayed_is_due)

    def _delayed_is_due(self) -> None:
        self.hinted((), delayed=True)

    async def _read(self) -> None:
        backlog = self.state.backlog
        if self._is_stale:
            await self._land()
            self._is_stale = False
            self._hinted.clear()
            self._rows.clear()
            self._refused.clear()
            tasks = await self.store.ready_tasks(WINDOW, self.state.pool)
            await self._read_limits_anew()
            self._note_edge(tasks, WINDOW)
            known = {task.task_id: task.overtaken for task in backlog.tasks.values() if task.overtaken}
            backlog.clear()
            for task in tasks:
                task.overtaken = known.get(task.task_id, 0)
            self._take_in(tasks)
        elif self._is_cut and len(backlog) < WINDOW // 2:
            # What came or changed before the edge was hinted at, so only what lies behind it is new.
            tasks = await self.store.ready_tasks(WINDOW // 2, self.state.pool, behind=self._edge)
            await self._read_limits_anew()
            self._note_edge(tasks, WINDOW // 2)
            self._take_in(tasks)
        if self._rows:
            rows, self._rows = self._rows, []
            self._take_in(await self.store.ready_among(rows, self.state.pool))
        if self._hinted and (ids := self._hinted - self._aloft):
            self._hinted &= self._aloft  # looked at once it is known what became of them
            self._take_in(await self.store.ready_tasks_by_id(list(ids), self.state.pool))
        if self.store.sick:
            await self._end_sick()
        if self.funds.exhausted:
            for task_id in await self.funds.end_exhausted():
                backlog.drop(task_id)

    def _take_in(self, tasks: Sequence[Ready]) -> None:
        """Queue what was read, but for what was assigned meanwhile."""
        if aloft := self._aloft:
            tasks = [task for task in tasks if task.task_id not in aloft]
        self._queue(tasks)
        self._notice_unservable(tasks)

    @property
    def _aloft(self) -> set[str]:
        """Tasks whose assignment is being stored: what a reading says of them is not true any more."""
        return self._flight.task_ids if self._flight is not None else set()

    def _note_edge(self, tasks: Sequence[Ready], limit: int) -> None:
        self._is_cut = len(tasks) == limit or bool(self.store.sick)
        if tasks:
            self._edge = tasks[-1].order

    def _notice_unservable(self, tasks: Sequence[Ready]) -> None:
        """Demands that nobody who is registered could meet, however long they wait."""
        roster = self.state.roster
        demands = {want.demand: want for want in {task.want for task in tasks}}
        for demand, want in demands.items():
            if demand not in self._unservable and not roster.knows(want):
                if len(self._unservable) >= MOST_KINDS:
                    self._unservable.clear()
                self._unservable.add(demand)
                self.on_unservable()

    async def _end_sick(self) -> None:
        """One sick task must not stop the others."""
        sick, self.store.sick = self.store.sick, {}
        for task_id, reason in sick.items():
            self.state.backlog.drop(task_id)
            if self.on_sick is not None:
                await self.on_sick(task_id, reason)

    async def _dig(self) -> bool:
        """Look beyond the window for work that the free agents can do; False where there is none.

        The window holds what comes first. If nobody can do that (no agent has the capability, or all
        that have it are busy), it must not hide what others could do at once.
        """
        now = asyncio.get_running_loop().time()
        kinds = self.state.roster.free_kinds()
        if not self._is_cut or not kinds or self._room() <= 0:
            return False
        if now < self._dig_at:
            if self._dig_timer is None:
                self._dig_timer = asyncio.get_running_loop().call_at(self._dig_at, self._dig_again)
            return False
        known = len(self.state.backlog)
        shut = self.state.backlog.shut_gates()
        found: list[Ready] = []
        for kind in sorted(kinds, key=sorted)[:MOST_KINDS]:
            found += await self.store.ready_tasks_for(sorted(kind), BATCH, shut, self.state.pool)
        if found:
            await self._read_limits_anew()
            self._queue(found)
        has_more = len(self.state.backlog) > known
        if not has_more:
            self._dig_at = now + DIG_EVERY
        return has_more

    def _dig_again(self) -> None:
        self._dig_timer = None
        self._wake.set()

    # --- committing -------------------------------------------------------------------------

    async def _commit(self, pairs: Sequence[Pair]) -> None:
        """Store the assignments and send the work. What the table refuses is taken back."""
        opened = await self._open_votes(pairs)
        limited = [pair for pair in opened if self._is_limited(pair)]
        plain = [pair for pair in opened if not self._is_limited(pair)] if limited else opened
        try:
            if plain:
                await self._take_off(plain)
            if limited or not self.state.backlog.tasks:
                await self._land()
        except BaseException:
            self._take_back(limited)
            raise
        if limited:
            await self._commit_limited(limited)

    def _is_limited(self, pair: Pair) -> bool:
        """Whether the start of this task uses up anything besides slots of agents."""
        task, seats = pair
        if task.want.gates:
            return True
        rates = self.state.gates.rates
        return self.state.gates.bounds_agents and any(
            f"{Scope.AGENT}:{seat.member.agent_id}" in rates.buckets for seat in seats
        )

    async def _take_off(self, pairs: Sequence[Pair]) -> None:
        """Have these stored next; what is being stored now is sent meanwhile."""
        batch = self._assignments(pairs)
        before, self._flight = self._flight, None
        claimed: dict[str, Claimed] | None = None
        try:
            if before is not None:
                claimed = await self._answer(before)
        except BaseException:
            self._take_back(pairs)
            raise
        flight = self._flight = _Flight(pairs, batch, asyncio.create_task(self._store(batch)))
        flight.answer.add_done_callback(lambda _: self._landed(flight))
        if before is not None and claimed is not None:
            await asyncio.sleep(0)  # the statement is on its way
            self._send_once(before, claimed)

    async def _store(self, batch: list[Assignment]) -> dict[str, Claimed]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        claimed = await self.store.assign(batch)
        self.state.meters.assign.observe(loop.time() - began)
        return claimed

    async def _land(self) -> None:
        """Wait for what is being stored, and send it."""
        flight, self._flight = self._flight, None
        if flight is not None:
            claimed = await self._answer(flight)
            if claimed is not None:
                self._send_once(flight, claimed)

    def _landed(self, flight: _Flight) -> None:
        """It is stored, or not. Its agents do not wait for what the loop reads meanwhile, but for two rounds
        of the event loop: if the next batch waits for this one, its statement is under way by then."""
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._send_landed, flight)

    def _send_landed(self, flight: _Flight) -> None:
        if flight.answer.cancelled() or flight.answer.exception() is not None:
            return  # whoever waits for it sees to that
        try:
            self._send_once(flight, flight.answer.result())
        except Exception:
            log.exception("assignments could not be sent; the next step reads everything anew")
            self.doubt()

    def _send_once(self, flight: _Flight, claimed: dict[str, Claimed]) -> None:
        if not flight.is_sent:
            flight.is_sent = True
            self._send(flight.pairs, flight.batch, claimed)

    async def _abandon(self) -> None:
        """A step failed: what it was storing is not known to be stored, and is taken back here."""
        flight, self._flight = self._flight, None
        if flight is not None and not flight.is_sent:
            flight.is_sent = True
            self._take_back(flight.pairs)
            self._is_in_doubt = True
            flight.answer.cancel()
            await asyncio.gather(flight.answer, return_exceptions=True)

    async def _answer(self, flight: _Flight) -> dict[str, Claimed] | None:
        """What the database said, by task; None where they had to be stored one by one."""
        try:
            return await flight.answer
        except asyncpg.PostgresError as error:
            if isinstance(error, asyncpg.UniqueViolationError) and not self._keep_colliding(flight.pairs):
                self._was_quicker(flight.pairs)
            self._take_back(flight.pairs)
            await self._one_by_one(flight.pairs)
            return None
        except Exception:
            self._take_back(flight.pairs)
            self._is_in_doubt = True
            raise

    def _was_quicker(self, pairs: Sequence[Pair]) -> NoReturn:
        log.info("another scheduler was quicker; reading the fleet anew")
        self._take_back(pairs)
        self._is_in_doubt = True
        self._are_limits_stale = True
        raise DatabaseUnreachable("another scheduler took the same slots") from None

    def _keep_colliding(self, pairs: Sequence[Pair]) -> bool:
        """Count the refusal of a batch. True: so often that each is to be tried alone.

        As a rule another scheduler was quicker, and after a look at the tables it goes well. A row that the
        mirror cannot know of would keep all from work for ever.
        """
        now = asyncio.get_running_loop().time()
        if len(self._collisions) > MOST_COLLIDING:
            self._collisions.clear()
        for task, _ in pairs:
            number, since = self._collisions.get(task.task_id, (0, now))
            self._collisions[task.task_id] = number + 1, since
        return all(self._collisions[task.task_id][0] > ALONE_AFTER for task, _ in pairs)

    def _is_given_up(self, task: Ready, error: asyncpg.UniqueViolationError) -> bool:
        """Whether a task that was refused alone has been for so long that it is ended."""
        number, since = self._collisions[task.task_id]
        seconds = asyncio.get_running_loop().time() - since
        if seconds < GIVEN_UP_AFTER:
            return False
        del self._collisions[task.task_id]
        rule = error.constraint_name or "a unique index"
        self.store.sick[task.task_id] = (
            f"the database refused to assign it {number} times in {seconds:.0f} s ({rule})"
        )
        return True

    async def move(self, pairs: Sequence[Pair], take_back: Claim) -> set[str]:
        """Give tasks that others hold to these agents; the ids of those that were given.

        They were entered by the caller (`enter`), one by one as they were chosen. `take_back` frees them in
        the transaction that assigns them. Raises DatabaseUnreachable, and asyncpg.PostgresError where one of
        them cannot be stored; then none was given.
        """
        self._moving = pairs
        try:
            async with self._claiming:
                return await self._claim_and_commit(pairs, take_back)
        finally:
            self._moving = ()

    async def _commit_limited(self, pairs: Sequence[Pair]) -> None:
        """The same in one transaction with what these tasks use up; without those that are refused."""
        async with self._claiming:
            await self._claim_and_commit(pairs)

    async def _claim_and_commit(self, pairs: Sequence[Pair], take_back: Claim | None = None) -> set[str]:
        """The ids of those that were assigned."""
        pairs = list(pairs)
        claims = self.claims if take_back is None else [take_back, *self.claims]
        while pairs:
            assignments = [(pair[0], self._assignments([pair])) for pair in pairs]
            batch = [one for _, its_own in assignments for one in its_own]
            try:
                async with self.store.db.transaction() as tx:
                    refused: set[str] = set()
                    for claim in claims:
                        refused |= await claim(tx, assignments)
                    claimed = await self.store.assign_within(tx, batch) if not refused else {}
                    refused = refused or {task.task_id for task, _ in pairs} - claimed.keys()
                    if refused:
                        raise _Refused(refused)
                    await self.funds.seal(tx)
            except _Refused as refusal:
                refused_pairs = [pair for pair in pairs if pair[0].task_id in refusal.task_ids]
                if take_back is None:
                    self._refuse(refused_pairs)
                else:
                    self._take_back(refused_pairs)
                pairs = [pair for pair in pairs if pair[0].task_id not in refusal.task_ids]
            except asyncpg.UniqueViolationError as error:
                if take_back is not None or not self._keep_colliding(pairs):
                    self._was_quicker(pairs)
                self._take_back(pairs)
                self._is_in_doubt = self._are_limits_stale = True
                if len(pairs) > 1:
                    await self._claim_one_by_one(pairs)
                elif not self._is_given_up(pairs[0][0], error):
                    self.look_again_here()
                return set()
            except asyncpg.PostgresError as error:
                self._take_back(pairs)
                if take_back is not None:
                    raise
                if len(pairs) == 1:
                    self.store.sick[pairs[0][0].task_id] = str(error)
                    return set()
                await self._claim_one_by_one(pairs)
                return set()
            except BaseException:
                self._take_back(pairs)
                self._is_in_doubt = self._are_limits_stale = True
                raise
            else:
                self._send(pairs, batch, claimed)
                return set(claimed)
        return set()

    async def _claim_one_by_one(self, pairs: Sequence[Pair]) -> None:
        for task, seats in pairs:
            self.enter(task, seats)
            await self._claim_and_commit([(task, seats)])

    def _refuse(self, pairs: Sequence[Pair]) -> None:
        """These may not start now: they are looked at again."""
        self._take_back(pairs)
        for task, seats in pairs:
            self._hinted.add(task.task_id)
            is_known = task.task_id in self.funds.exhausted or self.state.gates.closed(task, len(seats))
            if not is_known:
                self._is_in_doubt |= task.task_id in self._refused
                self._refused.add(task.task_id)

    def _assignments(self, pairs: Sequence[Pair]) -> list[Assignment]:
        """One for each seat, in their order."""
        ids = iter(new_id_texts(sum(len(seats) for _, seats in pairs)))
        here = self.state.node_id
        return [
            Assignment(
                task.task_id,
                task.attempts_made,
                next(ids),
                seat.member.agent_id,
                seat.slot,
                seat.role or task.role,
                task.attempts_made + number,
                seat.member.node_id or here,
                seat.is_ahead,
            )
            for task, seats in pairs
            for number, seat in enumerate(seats, start=1)
        ]

    def _send(self, pairs: Sequence[Pair], batch: Sequence[Assignment], claimed: dict[str, Claimed]) -> None:
        if self._collisions:
            for task_id in claimed:
                self._collisions.pop(task_id, None)
        assignments = iter(batch)
        waited = self.state.meters.queue
        self.state.meters.assign_size.observe(len(batch))
        now = asyncio.get_running_loop().time()
        for task, seats in pairs:
            row = claimed.get(task.task_id)
            for seat in seats:
                assignment = next(assignments)
                if row is None:  # the task had moved on, or the agent had
                    self.state.roster.give_back(seat.member.agent_id, seat.slot)
                    continue
                if (
                    assignment.message_id in self.state.deliveries
                    or assignment.message_id in self.state.brought
                ):
                    pass  # its agent came in meanwhile, was sent what the tables had, and may be done with it
                elif assignment.node_id == self.state.node_id:
                    delivery = _delivery(task, assignment, row)
                    delivery.is_ahead = seat.is_ahead
                    seconds = PATIENCE if seat.is_ahead else self.response_timeout
                    delivery.begun, delivery.due = now, now + seconds
                    delivery.is_probe = seat.member.is_probing and seat.member.probe_slot == seat.slot
                    self.state.hold(delivery)
                    self.courier.deliver(delivery)
                else:
                    self._hand_over(task, assignment, row, seat)
                if seat.member.probe_slot == seat.slot and seat.member.is_probing:
                    self.on_probe(assignment)
                if self.state.bus.is_heard:
                    self.state.bus.publish(
                        "task_assigned", task_id=task.task_id, agent_id=assignment.agent_id
                    )
            if row is not None:
                if task.status == "pending":
                    waited.observe(row.waited)
                    if self.state.traces is not None and "traceparent" in task.options:
                        self._trace_queue(task, row)
                self._refused.discard(task.task_id)
                if "consensus" in task.options and len(seats) < task.want.most:
                    self._hinted.add(task.task_id)  # a vote may be given fewer agents than it wants
                continue
            self._hinted.add(task.task_id)
            self._is_in_doubt |= task.task_id in self._refused
            self._refused.add(task.task_id)
        self.state.has_worked = True
        self.state.count("assigned", len(batch))

    def _trace_queue(self, task: Ready, row: Claimed) -> None:
        assert self.state.traces is not None
        assigned = row.now.timestamp()
        self.state.traces.end(
            "queue",
            None,
            task.options["traceparent"],
            assigned - row.waited,
            assigned,
            task_id=task.task_id,
            task_type=task.type,
            task_pool=task.want.pool,
        )

    def _hand_over(self, task: Ready, assignment: Assignment, row: Claimed, seat: Seat) -> None:
        """The agent is on another node: that one sends the work."""
        self.state.hold_elsewhere(
            assignment.message_id,
            Elsewhere(
                assignment.agent_id,
                assignment.slot,
                task.task_id,
                skill_shown(task.required_capabilities, assignment.role),
                task.type,
                required=frozenset(task.required_capabilities),
                is_ahead=seat.is_ahead,
                pool=task.want.pool,
                estimate=task.options.get("estimate_seconds"),
            ),
        )
        if self.state.relay is not None:
            order = order_of(task, assignment, row) if not seat.member.is_probing else None
            self.state.relay.work(assignment.node_id, assignment.message_id, order)

    def enter(self, task: Ready, seats: Sequence[Seat]) -> None:
        """It starts, as far as the mirror is concerned."""
        for seat in seats:
            self.state.roster.take(seat.member, seat.slot)
        self._chosen(task, seats)
        self.state.gates.enter(task, seats)
        if self.state.gates.bounds_agents:
            self.state.gates.spend(seats, self.state.roster)

    def _take_back(self, pairs: Sequence[Pair]) -> None:
        """It did not start."""
        for task, seats in pairs:
            for seat in seats:
                self.state.roster.give_back(seat.member.agent_id, seat.slot)
            self.state.gates.leave(task, seats)
            if self.state.gates.bounds_agents:
                self.state.gates.unspend(seats, self.state.roster)

    async def _one_by_one(self, pairs: Sequence[Pair]) -> None:
        """Something in this batch cannot be stored: find it, and end it."""
        for task, seats in pairs:
            self.enter(task, seats)
            batch = self._assignments([(task, seats)])
            try:
                claimed = await self.store.assign(batch)
            except asyncpg.PostgresError as error:
                self._take_back([(task, seats)])
                if isinstance(error, asyncpg.UniqueViolationError):
                    self._is_in_doubt = True
                    self._keep_colliding([(task, seats)])
                    if not self._is_given_up(task, error):
                        self.look_again_here()
                else:
                    self.store.sick[task.task_id] = str(error)
            except BaseException:
                self._take_back([(task, seats)])
                self._is_in_doubt = True
                raise
            else:
                self._send([(task, seats)], batch, claimed)

    # --- votes ------------------------------------------------------------------------------

    async def _open_votes(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Open the votes among these; the pairs that can be committed now: all that open none."""
        votes = [pair for pair in pairs if pair[0].options and _opens_vote(pair[0])]
        if not votes:
            return list(pairs)
        ready = [pair for pair in pairs if not _opens_vote(pair[0])]
        self._take_back(votes)  # the best voters are asked first, and those may be others
        for pair in votes:
            try:
                await self._open_vote(pair)
            except (TypeError, ValueError, AttributeError, OrchestratorError) as error:
                if isinstance(error, DatabaseUnreachable):
                    self._take_back(ready)
                    self._is_in_doubt = True
                    raise
                self.store.sick[pair[0].task_id] = str(error)
            except BaseException:
                self._take_back(ready)
                self._is_in_doubt = True
                raise
        return ready

    async def _open_vote(self, pair: Pair) -> None:
        """Freeze the electorate of a vote before its first ballot is asked for."""
        task, seats = pair
        members = self.state.roster.eligible(task.want)
        if len(members) < task.min_agents:
            return
        # Those who were chosen by score and load first, then the next best.
        chosen = [seat.member for seat in seats]
        others = [member for member in members if member not in chosen]
        frozen = await open_task_vote(
            self.store,
            task.task_id,
            task.options.get("topic") or task.type,
            task.options["consensus"],
            task.required_capabilities,
            task.max_agents,
            [
                (member.agent_id, member.estimate(skill_of(task.want.required), task.type))
                for member in (*chosen, *others)
            ],
        )
        if frozen.is_new:
            old = task.want
            task.want = replace(old, number=1, most=frozen.wave, rather_not=frozenset(), only=frozen.voters)
            self.state.backlog.put(task)
            self.state.bus.publish("consensus_opened", task_id=task.task_id, voters=list(frozen.voters))
        else:  # it was opened before: those who were frozen then vote
            self._hinted.add(task.task_id)


async def _at_once() -> None:
    return


def _opens_vote(task: Ready) -> bool:
    return "consensus" in task.options and task.want.only is None and task.role is None


def _delivery(task: Ready, assignment: Assignment, row: Claimed) -> Delivery:
    options: dict[str, Any] = task.options
    delivery = Delivery(
        assignment.message_id,
        task.task_id,
        assignment.agent_id,
        assignment.attempt,
        assignment.slot,
        assignment.role,
        assignment.node_id,
        task.type,
        task.priority,
        task.required_capabilities,
        task.timeout_seconds,
        task.retries,
        task.failures,
        task.losses,
        1.0,
        MOST_BACKOFF,
        False,
        task.max_agents == 1 and not assignment.is_funded,
        task.has_dependents,
        task.want.pool,
        row.data,
        joined(row.inputs, task.brief),
        row.name,
    )
    delivery.deadline = earliest(row.now, task.timeout_seconds, row.deadline)
    delivery.budget = assignment.budget
    if options:
        delivery.backoff_seconds = options.get("backoff_seconds", 1.0)
        delivery.max_backoff_seconds = options.get("max_backoff_seconds", MOST_BACKOFF)
        delivery.has_retry_rules = "retry" in options
        delivery.is_simple = is_simple(task.max_agents, options) and not assignment.is_funded
        delivery.result_schema = schema_in(options)
        delivery.traceparent = options.get("traceparent")
        delivery.estimate = options.get("estimate_seconds")
        delivery.vote = vote_in(options)
    return delivery
