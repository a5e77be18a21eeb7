"""Gives ready tasks to agents.

Wakes when something changed (a hint that tasks are ready, a slot that came free, an agent
that came online), never on a clock while nothing does. One step matches what the mirror
knows, commits it in one statement per batch, and sends. While a commit runs, more wakes up:
so batches grow under load by themselves, and a single task passes at once.

The mirror holds a window of the ready tasks. Hints name new ones; where they do not fit in a
hint, or the mirror may have missed some, the window is read again from the table.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import asyncpg

from agentorch_cli.core.backlog import Ready
from agentorch_cli.core.matching import Seat, Want
from agentorch_cli.core.model import AgentStatus
from agentorch_cli.engine.state import Courier, State
from agentorch_cli.errors import DatabaseUnreachable, OrchestratorError
from agentorch_cli.identity import new_id
from agentorch_cli.store.records import Assignment, Claimed, Delivery
from agentorch_cli.store.store import Store, earliest, is_simple, joined
from agentorch_cli.store.votes import open_task_vote

log = logging.getLogger("agentorch.scheduler")

WINDOW = 5_000
"""Ready tasks that the mirror holds."""

DOUBT_PAUSE = 0.05
"""Seconds before the mirror is compared with the tables, so that they do not disagree in a tight loop."""

BATCH = 500
"""Tasks per commit."""

DIG_EVERY = 1.0
"""Seconds between looks beyond the window that found nothing: they may read much of the table."""

MOST_KINDS = 16
"""Capability sets of free agents that one such look asks for."""

Pair = tuple[Ready, list[Seat]]


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
        self._is_stale = True
        self._is_cut = False
        """The table holds more ready tasks than the window."""
        self._look_at_delayed = True
        self._parked: dict[str, str] = {}
        """Attempts that want a slot to go on, with their agents, in the order of service."""
        self._look_at_parked = True
        self._unservable: set[frozenset[str]] = set()
        self.on_unservable: Callable[[], None] = lambda: None
        """Told when a demand came that no registered agent can meet."""
        self.on_continued: Callable[[str, int], None] | None = None
        """Told of each attempt that got a slot again."""
        self.on_probe: Callable[[Delivery], None] = lambda delivery: None
        """Told of work that shows how an agent is that was excluded."""
        self._timer: asyncio.TimerHandle | None = None
        self._last_failure = ""
        self._dig_at = 0.0
        self._dig_timer: asyncio.TimerHandle | None = None
        self._refused: set[str] = set()
        """Tasks whose last assignment the tables refused. Twice in a row: the mirror is wrong."""
        self._is_in_doubt = False
        """A commit failed, which does not mean that nothing was stored."""
        self.on_sick: Callable[[str, str], Awaitable[None]] | None = None
        """Ends a task that cannot be handled, with the reason."""
        self.on_doubt: Callable[[], Awaitable[None]] | None = None
        """Makes the mirror what the tables say, and sends what was assigned but never sent."""

    # --- what others tell it ----------------------------------------------------------------

    def wake(self) -> None:
        """Something may fit now."""
        self._wake.set()

    def hint(self, task_ids: Iterable[str], *, delayed: bool = False) -> None:
        """These tasks became ready; `delayed`: some will be later."""
        self._hinted.update(task_ids)
        self._look_at_delayed |= delayed
        self._wake.set()

    def look_again(self) -> None:
        """The mirror may be wrong: read the window anew."""
        self._is_stale = True
        self._look_at_delayed = True
        self._look_at_parked = True
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
                self.look_again()
                await asyncio.sleep(0.3)
            except Exception as error:
                self._tell_once(error)
                self.state.bus.publish("error", where="scheduler")
                self._is_in_doubt = True
                self.look_again()
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
            await self.on_doubt()
            self._is_in_doubt = False
        if self._look_at_delayed:
            await self._release_delayed()
        await self._read()
        await self._continue()
        while True:
            pairs = list(self.state.backlog.match(self.state.roster, self._room()))
            if pairs:
                await self._commit(pairs)
                if self._is_in_doubt:
                    self._wake.set()
                    await asyncio.sleep(DOUBT_PAUSE)
                    return
                await self._read()
                if self._look_at_parked or self._parked:
                    await self._continue()
            elif not await self._dig():
                return

    def _room(self) -> int:
        if not self.most_running:
            return BATCH
        return min(BATCH, self.most_running - len(self.state.running))

    async def _continue(self) -> None:
        """Parents whose sub-tasks ended go on before anything new begins, each in a slot of its agent."""
        if self._look_at_parked:
            self._look_at_parked = False
            rows = await self.store.db.fetch("continuations")
            self._parked = {str(row["message_id"]): row["agent_id"] for row in rows}
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
        except (asyncpg.UniqueViolationError, DatabaseUnreachable):
            for message_id, slot in slots.items():
                roster.give_back(self._parked[message_id], slot)
            self._look_at_parked = self._is_in_doubt = True
            raise DatabaseUnreachable("slots to go on could not be taken") from None
        for message_id, slot in slots.items():
            agent_id = self._parked.pop(message_id)
            if message_id not in granted:
                roster.give_back(agent_id, slot)
            elif self.on_continued is not None:
                self.on_continued(message_id, slot)

    def look_at_parked(self) -> None:
        """Somebody who gave its slot back may go on."""
        self._look_at_parked = True
        self._wake.set()

    async def _release_delayed(self) -> None:
        self._look_at_delayed = False
        released, next_seconds = await self.store.release_delayed()
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
        self.hint((), delayed=True)

    async def _read(self) -> None:
        backlog = self.state.backlog
        if self._is_stale or (self._is_cut and len(backlog) < WINDOW // 2):
            self._is_stale = False
            self._hinted.clear()
            self._refused.clear()
            tasks = await self.store.ready_tasks(WINDOW)
            self._is_cut = len(tasks) == WINDOW
            known = {task.task_id: task.overtaken for task in backlog.tasks.values() if task.overtaken}
            backlog.clear()
            for task in tasks:
                task.overtaken = known.get(task.task_id, 0)
                backlog.put(task)
            self._notice_unservable(tasks)
        elif self._hinted:
            ids, self._hinted = self._hinted, set()
            tasks = await self.store.ready_tasks_by_id(list(ids))
            for task in tasks:
                backlog.put(task)
            self._notice_unservable(tasks)
        if self.store.sick:
            await self._end_sick()

    def _notice_unservable(self, tasks: Sequence[Ready]) -> None:
        """Demands that nobody who is registered could meet, however long they wait."""
        for required in {task.want.required for task in tasks}:
            if required not in self._unservable and not self.state.roster.guild(required).size:
                if len(self._unservable) >= MOST_KINDS:
                    self._unservable.clear()
                self._unservable.add(required)
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
        kinds = {member.capabilities for member in self.state.roster.members.values() if member.is_free}
        if not self._is_cut or not kinds or self._room() <= 0:
            return False
        if now < self._dig_at:
            if self._dig_timer is None:
                self._dig_timer = asyncio.get_running_loop().call_at(self._dig_at, self._dig_again)
            return False
        known = len(self.state.backlog)
        for kind in sorted(kinds, key=sorted)[:MOST_KINDS]:
            for task in await self.store.ready_tasks_for(sorted(kind), BATCH):
                self.state.backlog.put(task)
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
        batch = [seat for task, seats in opened for seat in self._assignments(task, seats)]
        try:
            claimed = await self.store.assign(batch) if batch else {}
        except asyncpg.UniqueViolationError:
            log.info("another scheduler was quicker; reading the fleet anew")
            self._take_back(opened)
            self._is_in_doubt = True
            raise DatabaseUnreachable("another scheduler took the same slots") from None
        except DatabaseUnreachable:
            self._take_back(opened)
            self._is_in_doubt = True
            raise
        except asyncpg.PostgresError:
            self._take_back(opened)
            await self._one_by_one(opened)
            return
        self._send(opened, batch, claimed)

    def _assignments(self, task: Ready, seats: Sequence[Seat]) -> list[Assignment]:
        return [
            Assignment(
                task_id=task.task_id,
                seen_attempts=task.attempts_made,
                message_id=str(new_id()),
                agent_id=seat.member.agent_id,
                slot=seat.slot,
                role=task.role,
                attempt=task.attempts_made + number,
                node_id=seat.member.node_id or self.state.node_id,
            )
            for number, seat in enumerate(seats, start=1)
        ]

    def _send(self, pairs: Sequence[Pair], batch: Sequence[Assignment], claimed: dict[str, Claimed]) -> None:
        assignments = iter(batch)
        due = asyncio.get_running_loop().time() + self.response_timeout
        for task, seats in pairs:
            row = claimed.get(task.task_id)
            for seat in seats:
                assignment = next(assignments)
                if row is None:  # the task had moved on, or the agent had
                    self.state.roster.give_back(seat.member.agent_id, seat.slot)
                    continue
                delivery = _delivery(task, assignment, row)
                delivery.due = due
                self.state.hold(delivery)
                self.courier.deliver(delivery)
                if seat.member.probe_slot == seat.slot:
                    delivery.is_probe = True
                    self.on_probe(delivery)
                if self.state.bus.is_heard:
                    self.state.bus.publish(
                        "task_assigned", task_id=task.task_id, agent_id=assignment.agent_id
                    )
            if row is not None:
                self._refused.discard(task.task_id)
                if "consensus" in task.options and len(seats) < task.want.most:
                    self._hinted.add(task.task_id)  # a vote may be given fewer agents than it wants
                continue
            self._hinted.add(task.task_id)
            self._is_in_doubt |= task.task_id in self._refused
            self._refused.add(task.task_id)
        self.state.count("assigned", len(batch))

    def _take_back(self, pairs: Sequence[Pair]) -> None:
        for _, seats in pairs:
            for seat in seats:
                self.state.roster.give_back(seat.member.agent_id, seat.slot)

    async def _one_by_one(self, pairs: Sequence[Pair]) -> None:
        """Something in this batch cannot be stored: find it, and end it."""
        for task, seats in pairs:
            for seat in seats:
                self.state.roster.take(seat.member, seat.slot)
            batch = self._assignments(task, seats)
            try:
                claimed = await self.store.assign(batch)
            except asyncpg.PostgresError as error:
                self._take_back([(task, seats)])
                if isinstance(error, asyncpg.UniqueViolationError):
                    self._is_in_doubt = True
                    self.look_again()
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
        ready = [pair for pair in pairs if not _opens_vote(pair[0])]
        votes = [pair for pair in pairs if _opens_vote(pair[0])]
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
            [(member.agent_id, member.performance) for member in (*chosen, *others)],
        )
        if frozen.is_new:
            old = task.want
            task.want = Want(old.required, 1, frozen.wave, old.closed_to, only=frozen.voters)
            self.state.backlog.put(task)
            self.state.bus.publish("consensus_opened", task_id=task.task_id, voters=list(frozen.voters))
        else:  # it was opened before: those who were frozen then vote
            self._hinted.add(task.task_id)


def _opens_vote(task: Ready) -> bool:
    return "consensus" in task.options and task.want.only is None and task.role is None


def _delivery(task: Ready, assignment: Assignment, row: Claimed) -> Delivery:
    options: dict[str, Any] = task.options
    return Delivery(
        message_id=assignment.message_id,
        task_id=task.task_id,
        agent_id=assignment.agent_id,
        attempt=assignment.attempt,
        slot=assignment.slot,
        role=assignment.role,
        node_id=assignment.node_id,
        type=task.type,
        priority=task.priority,
        required_capabilities=task.required_capabilities,
        timeout_seconds=task.timeout_seconds,
        retries=task.retries,
        failures=task.failures,
        losses=task.losses,
        backoff_seconds=options.get("backoff_seconds", 1.0),
        is_simple=is_simple(task.max_agents, options),
        has_dependents=task.has_dependents,
        data=row.data,
        inputs=joined(row.inputs, task.brief),
        deadline=earliest(row.now, task.timeout_seconds, row.deadline),
    )
