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
from agentorch_cli.engine.state import Courier, State
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.identity import new_id
from agentorch_cli.store.records import Assignment, Claimed, Delivery
from agentorch_cli.store.store import Store, earliest, is_simple, joined
from agentorch_cli.store.votes import open_task_vote

log = logging.getLogger("agentorch.scheduler")

WINDOW = 5_000
"""Ready tasks that the mirror holds."""

BATCH = 500
"""Tasks per commit."""

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
        self._timer: asyncio.TimerHandle | None = None
        self._is_in_doubt = False
        """A commit failed, which does not mean that nothing was stored."""
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
            except Exception:
                log.exception("a scheduling step failed; the next one reads everything anew")
                self.state.bus.publish("error", where="scheduler")
                self._is_in_doubt = True
                self.look_again()
                await asyncio.sleep(0.3)

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
        while pairs := list(self.state.backlog.match(self.state.roster, self._room())):
            await self._commit(pairs)
            await self._read()

    def _room(self) -> int:
        if not self.most_running:
            return BATCH
        return min(BATCH, self.most_running - len(self.state.deliveries))

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
            tasks = await self.store.ready_tasks(WINDOW)
            self._is_cut = len(tasks) == WINDOW
            known = {task.task_id: task.overtaken for task in backlog.tasks.values() if task.overtaken}
            backlog.clear()
            for task in tasks:
                task.overtaken = known.get(task.task_id, 0)
                backlog.put(task)
        elif self._hinted:
            ids, self._hinted = self._hinted, set()
            for task in await self.store.ready_tasks_by_id(list(ids)):
                backlog.put(task)

    # --- committing -------------------------------------------------------------------------

    async def _commit(self, pairs: Sequence[Pair]) -> None:
        """Store the assignments and send the work. What the table refuses is taken back."""
        opening = [pair for pair in pairs if _opens_vote(pair[0])]
        pairs = [pair for pair in pairs if not _opens_vote(pair[0])]
        self._take_back(opening)  # the best voters are asked first, and those may be others
        try:
            for pair in opening:
                await self._open_vote(pair)
        except BaseException:
            self._take_back(pairs)
            raise
        if not pairs:
            return
        batch = [seat for task, seats in pairs for seat in self._assignments(task, seats)]
        try:
            claimed = await self.store.assign(batch)
        except asyncpg.UniqueViolationError:
            log.info("another scheduler was quicker; reading the fleet anew")
            self._take_back(pairs)
            self._is_in_doubt = True
            raise DatabaseUnreachable("another scheduler took the same slots") from None
        except DatabaseUnreachable:
            self._take_back(pairs)
            self._is_in_doubt = True
            raise
        except asyncpg.PostgresError:
            self._take_back(pairs)
            await self._one_by_one(pairs)
            return
        self._send(pairs, batch, claimed)

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
                if self.state.bus.is_heard:
                    self.state.bus.publish(
                        "task_assigned", task_id=task.task_id, agent_id=assignment.agent_id
                    )
            if row is None or ("consensus" in task.options and len(seats) < task.want.most):
                self._hinted.add(task.task_id)
        self.state.count("assigned", len(batch))

    def _take_back(self, pairs: Sequence[Pair]) -> None:
        for _, seats in pairs:
            for seat in seats:
                self.state.roster.give_back(seat.member.agent_id, seat.slot)

    async def _one_by_one(self, pairs: Sequence[Pair]) -> None:
        """One sick task must not stop the others: find it, say so, leave it aside."""
        for task, seats in pairs:
            for seat in seats:
                self.state.roster.take(seat.member, seat.slot)
            batch = self._assignments(task, seats)
            try:
                claimed = await self.store.assign(batch)
            except asyncpg.PostgresError as error:
                self._take_back([(task, seats)])
                log.exception("task %s cannot be assigned", task.task_id)
                self.state.bus.publish("error", task_id=task.task_id, message=str(error))
                continue
            self._send([(task, seats)], batch, claimed)

    # --- votes ------------------------------------------------------------------------------

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
