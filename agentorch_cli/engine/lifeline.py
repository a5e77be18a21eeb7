"""Nothing waits for ever: silence, loss and time limits.

* An attempt that its agent does not accept within the response timeout goes elsewhere. Where it was handed
  over beyond the agent's slots, the time begins with a slot for it; if that takes long, it is taken back.
* One that runs longer than the task's timeout is called off and counts as a failure.
* An agent that lost its session has a grace to come back for what it holds; then it is lost.
* Agents whose node died get the same grace from the moment that the death is noticed.
* A task whose deadline passes fails, wherever it waits.
* A task that says how long it may be ready without being started (`queue_timeout`) fails after that.

The node watches its own deliveries in memory on the loop's clock; the chief sweeps the
tables for what no living node watches, and whoever leads a pool for its ready tasks. With nothing
in flight there is nothing to look at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from agentorch_cli.core.model import AttemptStatus
from agentorch_cli.engine.scheduler import LATE_AFTER, PATIENCE
from agentorch_cli.engine.settler import DEADLINE, QUEUE_TIMEOUT, Settler
from agentorch_cli.engine.state import Report, State
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.logs import facts
from agentorch_cli.store.records import Delivery
from agentorch_cli.store.store import Store
from agentorch_cli.store.why import why_unstarted

log = logging.getLogger("agentorch.lifeline")

LOOK_EVERY = 0.25
"""Seconds between looks at the deliveries of this node, while there are any."""

SWEEP_LIMIT = 1_000

UNSENT_AFTER = 2.0
"""Seconds after which an attempt that nobody has taken is looked at: perhaps it was never sent."""


async def _nothing(_agent_ids: list[str]) -> None:
    """Nobody wants to know."""


async def _no_errand() -> None:
    """Nobody looks."""


class Lifeline:
    """The loop that gives up."""

    def __init__(self, state: State, store: Store, settler: Settler, *, grace: float) -> None:
        self.state = state
        self.store = store
        self.settler = settler
        self.grace = grace
        self._given_up: set[str] = set()
        self.on_silent: Callable[[str, Sequence[str], float], None] = lambda agent_id, tasks, seconds: None
        """Told when an agent holds work and has been gone for too long."""
        self.errands: list[Callable[[], Awaitable[None]]] = []
        """What others do with each sweep that finds open votes."""
        self.on_stranded: Callable[[list[str]], Awaitable[None]] = _nothing
        """Told which agents were on nodes that are gone."""
        self.on_due: Callable[[], None] = lambda: None
        """Told when a sweep finds a schedule whose time has come."""
        self.on_waited: Callable[[list[Delivery]], None] = lambda waited: None
        """Told which attempts have waited for a slot of their agents for too long."""
        self.on_late: Callable[[Delivery], None] = lambda delivery: None
        """Told of each attempt that its agent has a slot for and does not take; again and again, until it is
        on the shelf."""
        self.on_unsent: Callable[[], Awaitable[None]] = _no_errand
        """Told when a sweep finds attempts that their agents have not taken for a while."""
        self._orphans_from = 0.0
        self._buried: set[str] = set()

    # --- what this node carries -------------------------------------------------------------

    async def watch(self) -> None:
        """For ever: look at the deliveries of this node."""
        loop = asyncio.get_running_loop()
        while True:
            asleep = loop.time()
            await asyncio.sleep(LOOK_EVERY)
            now = loop.time()
            self.state.meters.lag.observe(now - asleep - LOOK_EVERY)
            if self.state.deliveries or self.state.gone_since:
                self.watch_once(now)

    def watch_once(self, now: float) -> None:
        """Report what is overdue at `now`, on the loop's clock. Each attempt is reported once."""
        self._given_up &= self.state.deliveries.keys()
        late = self.state.response_timeout - LATE_AFTER
        waited: list[Delivery] = []
        for delivery in self.state.deliveries.values():
            if delivery.due <= now:
                if delivery.is_ahead:
                    delivery.due = now + PATIENCE  # unless it is given back by then
                    waited.append(delivery)
                elif delivery.message_id not in self._given_up:
                    self._give_up(delivery)
            elif (
                delivery.due <= now + late
                and not (delivery.is_accepted or delivery.is_ahead)
                and delivery.message_id not in self.state.shelf
            ):
                self.on_late(delivery)
        if waited:
            self.on_waited(waited)
        for agent_id, since in list(self.state.gone_since.items()):
            if since + self.grace <= now:
                del self.state.gone_since[agent_id]
                self.lose(agent_id)

    def _give_up(self, delivery: Delivery) -> None:
        self._given_up.add(delivery.message_id)
        if delivery.is_accepted:
            status = AttemptStatus.TIMED_OUT
            error = {
                "code": "timeout",
                "message": f"agent {delivery.agent_id} did not finish within {delivery.timeout_seconds:g} s",
            }
        else:
            status = AttemptStatus.LOST
            error = {
                "code": "no_answer",
                "message": f"agent {delivery.agent_id} did not accept the work in time",
            }
        self.settler.put(
            Report(delivery.message_id, delivery.agent_id, status, error=error, from_agent=False)
        )

    def lose(self, agent_id: str) -> None:
        """The agent did not come back: what it held goes elsewhere."""
        error = {"code": "agent_lost", "message": f"agent {agent_id} was disconnected for {self.grace:g} s"}
        held = [self.state.deliveries[one].task_id for one in self.state.held_by.get(agent_id, ())]
        if held:
            self.on_silent(agent_id, held, self.grace)
        self._end_all(agent_id, AttemptStatus.LOST, error)

    def take_away(self, message_id: str, agent_id: str, reason: str) -> None:
        """The attempt ran for far too long, on whatever node it is."""
        error = {"code": "timeout", "message": reason}
        self.settler.put(Report(message_id, agent_id, AttemptStatus.TIMED_OUT, error=error, from_agent=False))

    def give_back(self, agent_id: str, what: str = "left and gave its work back") -> None:
        """The agent leaves in good order, or was removed: what it held goes elsewhere, and is no loss."""
        error = {"code": "returned", "message": f"agent {agent_id} {what}"}
        self._end_all(agent_id, AttemptStatus.CANCELLED, error)

    def _end_all(self, agent_id: str, status: AttemptStatus, error: dict[str, str]) -> None:
        for message_id in list(self.state.held_by.get(agent_id, ())):
            self._given_up.add(message_id)
            self.settler.put(Report(message_id, agent_id, status, error=dict(error), from_agent=False))

    # --- what nobody carries ----------------------------------------------------------------

    async def sweep(self, every: float) -> None:
        """For ever, while this node is the chief or leads: look for what fell between the nodes."""
        # While no node ran, agents could not come back, however long ago they lost theirs.
        self._orphans_from = asyncio.get_running_loop().time() + self.grace
        while True:
            await asyncio.sleep(every)
            try:
                if (self.state.is_chief or self.state.is_leader) and not self.state.is_stopping:
                    await self.sweep_once()
            except DatabaseUnreachable as error:
                log.warning("cannot sweep: %s", error)
                self.settler.ended_elsewhere(None)  # a task may have been ended without anybody being told
            except Exception:
                log.exception("a sweep failed; the next one tries again")

    async def sweep_once(self) -> None:
        """One pass over the tables: one question, and more only where it finds something."""
        seen = await self.store.db.fetch_one(
            "sweep", self.store.node_id, self.grace, self.state.is_chief, self.state.pool, UNSENT_AFTER
        )
        assert seen is not None  # a select without from has one row
        if seen["has_stranded"]:
            stranded = [
                row["agent_id"] for row in await self.store.db.fetch("strand_agents", self.store.node_id)
            ]
            log.info("%d agents were on a node that is gone: %s", len(stranded), ", ".join(stranded[:10]))
            await self.on_stranded(stranded)
        if seen["has_orphans"] and asyncio.get_running_loop().time() >= self._orphans_from:
            for row in await self.store.db.fetch("orphaned_attempts", self.grace, SWEEP_LIMIT):
                await self._lose_orphan(str(row["message_id"]))
        if seen["has_overdue"]:
            for row in await self.store.db.fetch("overdue_tasks", SWEEP_LIMIT):
                await self._end_in_time(row["task_id"], DEADLINE)
        if seen["has_starved"]:
            await self._end_starved()
        if seen["has_due"]:
            self.on_due()
        if seen["has_votes"]:
            await self._look_at_votes()
        await self.settler.tell_for_others()
        dead = set(seen["dead_nodes"] or ()) - self._buried
        if dead:  # any of them may have died between settling a task and telling its dependents
            await self.settler.unlock_missed()
            self._buried |= dead
        if seen["has_unsent"]:
            await self.on_unsent()
        if seen["outgrown"]:
            # A plan that was made while a table was small reads all of it for each row that it is asked
            # for, and is kept until the next statistics: the server itself takes those a minute later.
            await self.store.db.analyze(seen["outgrown"])
        if seen["has_ready"] and self.state.roster.free:
            self.settler.scheduler.look_again_here()  # hints can be lost; the table is the truth

    async def _lose_orphan(self, message_id: str) -> None:
        if message_id in self.state.deliveries:
            return  # its agent is on this node; the grace there decides
        known = await self.store.tasks_of([message_id])
        row = known.get(message_id)
        if row is None:
            return
        error = {"code": "agent_lost", "message": f"agent {row['agent_id']} is gone"}
        report = Report(message_id, row["agent_id"], AttemptStatus.LOST, error=error, from_agent=False)
        self.settler.put(report)

    async def _look_at_votes(self) -> None:
        """Open votes that wait for voters who are gone, or for nobody; and questions that are overdue."""
        for row in await self.store.db.fetch("absent_voters", self.grace, SWEEP_LIMIT, self.store.node_id):
            await self._look_at_vote(row["task_id"], row["gone"])
        for row in await self.store.db.fetch("idle_votes", SWEEP_LIMIT):
            await self._look_at_vote(row["task_id"], ())
        for errand in self.errands:
            await errand()

    async def _look_at_vote(self, task_id: str, gone: Collection[str]) -> None:
        """A vote waits for voters that are gone, or for nothing at all."""
        try:
            await self.settler.settle_task(task_id, gone=gone)
        except DatabaseUnreachable:
            raise
        except Exception:
            log.exception("the vote of task %s cannot be looked at", task_id, extra=facts(task=task_id))

    async def _end_starved(self) -> None:
        """Ready tasks that nobody took in time end, and say what they waited for."""
        rows = await self.store.db.fetch("starved_tasks", SWEEP_LIMIT)
        reasons = await why_unstarted(self.store, [row["task_id"] for row in rows])
        for row in rows:
            message = f"nobody had started it {row['queue_timeout_seconds']:g} s after it became ready"
            reason = reasons.get(row["task_id"])
            error = {
                "code": QUEUE_TIMEOUT,
                "message": f"{message}: {reason}" if reason else message,
                "retryable": False,
            }
            await self._end_in_time(row["task_id"], error)

    async def _end_in_time(self, task_id: str, error: Mapping[str, Any]) -> None:
        try:
            await self.settler.settle_task(task_id, ended_by=error)
        except DatabaseUnreachable:
            raise
        except Exception:
            log.exception(
                "task %s is past a time limit but cannot be ended", task_id, extra=facts(task=task_id)
            )
