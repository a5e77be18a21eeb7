"""Agents that get nothing for a while, and when that is over.

The settler tells how attempts ended; `core.breaker` decides; here the mirror follows at once and
the registry soon after. Trips are rare and stored at once, each with its event. What is counted
below a trip is stored every few seconds, in one statement for all agents, and only where it
changed: an agent that does not fail costs a look into a dictionary per result and no statement.

Every end is a time on the database's clock. This node wakes for it by itself, from the seconds
that the database said were left; after a restart they are read with the roster. Pauses that a
person gave a time end likewise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from agentorch_cli.core.breaker import (
    CLOSED,
    Breaker,
    Event,
    Phase,
    Rules,
    after,
    exclusion_seconds,
    moved,
    outcome_of,
)
from agentorch_cli.core.matching import Member
from agentorch_cli.core.model import AttemptStatus
from agentorch_cli.engine.state import Report, State
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.logs import facts
from agentorch_cli.store.literals import array_literal
from agentorch_cli.store.records import Assignment
from agentorch_cli.store.store import Store
from agentorch_cli.text import one_line

log = logging.getLogger("agentorch.exclusions")

MARGIN = 0.02
"""Seconds that are waited beyond an end, so that the database's clock has passed it too."""

BREAKER = "breaker"
"""In whose name agents are excluded."""

MOST_TOLD = 300
"""Characters of an agent's own error that a reason quotes."""


class Exclusions:
    """Who is excluded, on this node's part of the fleet, and the loop that writes it down."""

    def __init__(self, state: State, store: Store, rules: Rules, *, write_every: float) -> None:
        self.state = state
        self.store = store
        self.rules = rules
        self.write_every = write_every
        self.on_free: Callable[[], None] = lambda: None
        """Told when somebody may be given work again."""
        self.on_ignored: Callable[[], None] = lambda: None
        """Told when a row may be older than the mirror: the next one counts."""
        self._breakers: dict[str, Breaker] = {}
        """Of agents that failed last, or are excluded or probed."""
        self._reasons: dict[str, str] = {}
        self._unwritten: dict[str, Breaker] = {}
        """Exclusions and readmissions that are not stored yet: newer than what the tables say."""
        self._counted: set[str] = set()
        """Agents whose count is not stored yet."""
        self._stored_at: dict[str, float] = {}
        """When the tables last learned of an agent from here, on the loop's clock: rows that were asked for
        before are older than the mirror."""
        self._probes: list[Assignment] = []
        """Probes whose event is not stored yet."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._pause_timer: asyncio.TimerHandle | None = None
        self._count_timer: asyncio.TimerHandle | None = None
        self._is_pause_over = self._are_counts_due = False
        self._something = asyncio.Event()

    # --- what others tell it ----------------------------------------------------------------

    def ended(self, report: Report, task_id: str, is_probe: bool) -> None:
        """An attempt of an agent ended, and that is stored."""
        agent_id = report.agent_id
        before = self._breakers.get(agent_id)
        if before is None:
            if report.status is AttemptStatus.COMPLETED:
                return
            before = CLOSED
        outcome = outcome_of(report.status, report.error)
        now = after(before, outcome, task_id, self.rules, is_probe=is_probe)
        if now == before:
            return
        self._set(agent_id, now)
        if now.phase is Phase.OPEN:
            self._exclude(agent_id, now, report.error)
        elif before.phase is not Phase.CLOSED:
            self._readmit(agent_id)
        else:
            self._count(agent_id)

    def probed(self, probe: Assignment) -> None:
        """An agent that was excluded is given one task, to see how it is."""
        about = facts(agent=probe.agent_id, task=probe.task_id, attempt=probe.message_id)
        log.info("agent %r is probed with task %s", probe.agent_id, probe.task_id, extra=about)
        self.state.count("agent_probed")
        self.state.bus.publish("agent_probed", agent_id=probe.agent_id, task_id=probe.task_id)
        self._probes.append(probe)
        self._something.set()

    def follow(self, member: Member, row: Any, asked_at: float) -> None:
        """Make the mirror of one agent what its row in the registry says, unless that is older.

        `asked_at`: when the row was asked for, on the loop's clock.
        """
        agent_id, left = member.agent_id, row["excluded_s"]
        known = self._breakers.get(agent_id, CLOSED)
        if agent_id in self._unwritten:
            pass
        elif asked_at <= self._stored_at.get(agent_id, -1.0):
            self.on_ignored()
        elif left is None:
            if known.phase is not Phase.CLOSED or agent_id not in self._counted:
                stored = Breaker(failures=row["consecutive_failures"], tasks=tuple(row["failing_tasks"]))
                self._set(agent_id, stored)
        elif known.phase is not Phase.PROBING or known.trips != row["trips"]:
            phase = Phase.OPEN if left > 0 else Phase.PROBING
            tasks = tuple(row["failing_tasks"])
            self._set(agent_id, Breaker(phase, row["consecutive_failures"], tasks, row["trips"]))
            self._reasons[agent_id] = row["excluded_reason"] or "it kept failing"
            if phase is Phase.OPEN:
                self._wake_in(agent_id, left)
        self._apply(member, row.get("probe_slot"))

    def forget(self, agent_id: str) -> None:
        """The agent was removed from the registry."""
        self._set(agent_id, CLOSED)
        self._unwritten.pop(agent_id, None)
        self._counted.discard(agent_id)
        self._stored_at.pop(agent_id, None)

    def pause_ends_in(self, seconds: float | None) -> None:
        """The next pause that ends by itself does so then; None: there is none."""
        if self._pause_timer is not None:
            self._pause_timer.cancel()
            self._pause_timer = None
        if seconds is not None:
            wait = min(max(seconds, 0.0), 86_400.0) + MARGIN
            self._pause_timer = asyncio.get_running_loop().call_later(wait, self._pause_is_over)

    def stop(self) -> None:
        """No timer fires any more."""
        for timer in (*self._timers.values(), self._pause_timer, self._count_timer):
            if timer is not None:
                timer.cancel()
        self._timers.clear()

    # --- the mirror -------------------------------------------------------------------------

    def _set(self, agent_id: str, breaker: Breaker) -> None:
        if breaker == CLOSED:
            self._breakers.pop(agent_id, None)
        else:
            self._breakers[agent_id] = breaker
        if breaker.phase is Phase.CLOSED:
            self._reasons.pop(agent_id, None)
        if breaker.phase is not Phase.OPEN and (timer := self._timers.pop(agent_id, None)) is not None:
            timer.cancel()

    def _apply(self, member: Member, probe_slot: int | None = None) -> None:
        """What the breaker says becomes what the choice of agents sees."""
        roster = self.state.roster
        match self._breakers.get(member.agent_id, CLOSED).phase:
            case Phase.CLOSED:
                roster.set_probing(member, is_probing=False)
                roster.exclude(member.agent_id, BREAKER, None)
            case Phase.OPEN:
                roster.set_probing(member, is_probing=False)
                reason = f"is excluded after {self._reasons[member.agent_id]}"
                roster.exclude(member.agent_id, BREAKER, reason)
            case Phase.PROBING:
                roster.set_probing(member, is_probing=True, slot=probe_slot)
                roster.exclude(member.agent_id, BREAKER, None)

    def _apply_to(self, agent_id: str) -> None:
        member = self.state.roster.members.get(agent_id)
        if member is not None:
            self._apply(member)

    def _exclude(self, agent_id: str, breaker: Breaker, error: Mapping[str, Any] | None) -> None:
        said = one_line((error or {}).get("message") or "no reason given", MOST_TOLD)
        self._reasons[agent_id] = f"{breaker.failures} failures in a row, the last: {said}"
        seconds = exclusion_seconds(breaker.trips, self.rules)
        log.warning(
            "agent %r is excluded for %g s: %s",
            agent_id,
            seconds,
            self._reasons[agent_id],
            extra=facts(agent=agent_id),
        )
        self._wake_in(agent_id, seconds)
        self._apply_to(agent_id)
        self.state.count("agent_excluded")
        self.state.bus.publish("agent_excluded", agent_id=agent_id, seconds=seconds)
        self._unwritten[agent_id] = breaker
        self._counted.discard(agent_id)
        self._something.set()

    def _readmit(self, agent_id: str) -> None:
        log.info(
            "agent %r did well when it was probed, and gets work again", agent_id, extra=facts(agent=agent_id)
        )
        self._apply_to(agent_id)
        self.state.count("agent_readmitted")
        self.state.bus.publish("agent_readmitted", agent_id=agent_id)
        self._unwritten[agent_id] = CLOSED
        self._something.set()
        self.on_free()

    def _count(self, agent_id: str) -> None:
        self._counted.add(agent_id)
        if self._count_timer is None:
            loop = asyncio.get_running_loop()
            self._count_timer = loop.call_later(self.write_every, self._counts_are_due)

    def _wake_in(self, agent_id: str, seconds: float) -> None:
        if (timer := self._timers.pop(agent_id, None)) is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[agent_id] = loop.call_later(seconds + MARGIN, self._expire, agent_id)

    def _expire(self, agent_id: str) -> None:
        del self._timers[agent_id]
        breaker = self._breakers.get(agent_id)
        if breaker is None or breaker.phase is not Phase.OPEN:
            return
        if agent_id in self._unwritten:  # the database is away: its clock has not even begun to count
            self._wake_in(agent_id, self.write_every)
            return
        self._set(agent_id, moved(breaker, Event.EXPIRE))
        self._apply_to(agent_id)
        self.on_free()

    def _pause_is_over(self) -> None:
        self._pause_timer = None
        self._is_pause_over = True
        self._something.set()

    def _counts_are_due(self) -> None:
        self._count_timer = None
        self._are_counts_due = True
        self._something.set()

    # --- the registry -----------------------------------------------------------------------

    async def run(self) -> None:
        """For ever: write down what changed, and end the pauses whose time is over."""
        while True:
            await self._something.wait()
            self._something.clear()
            try:
                await self.write()
            except DatabaseUnreachable as error:
                log.warning("cannot note who is excluded: %s", error)
                await asyncio.sleep(0.3)
                self._something.set()
            except Exception:
                log.exception("who is excluded could not be noted")

    async def write(self, *, everything: bool = False) -> None:
        """What is not stored yet; counts only where they are due, or with `everything`."""
        if self._probes:  # before what came of them
            await self._write_probes()
        unwritten = dict(self._unwritten)
        opened = {one: breaker for one, breaker in unwritten.items() if breaker.phase is Phase.OPEN}
        if opened:
            await self._write_exclusions(opened)
        if closed := [one for one in unwritten if one not in opened]:
            await self.store.db.fetch("readmit_agents", closed, self.store.node_id)
        for agent_id, breaker in unwritten.items():
            if self._unwritten.get(agent_id) is breaker:
                del self._unwritten[agent_id]
                self._stored_at[agent_id] = asyncio.get_running_loop().time()
        if self._counted and (self._are_counts_due or everything):
            await self._write_counts()
        if self._is_pause_over:
            self._is_pause_over = False  # another may end meanwhile
            await self._end_pauses()

    async def _end_pauses(self) -> None:
        try:
            ended = await self.store.db.fetch("end_pauses", self.store.node_id)
        except BaseException:
            self._is_pause_over = True
            raise
        for row in ended:
            log.info("the pause of agent %r is over", row["agent_id"], extra=facts(agent=row["agent_id"]))

    async def _write_exclusions(self, opened: Mapping[str, Breaker]) -> None:
        rows = await self.store.db.fetch(
            "exclude_agents",
            list(opened),
            [exclusion_seconds(one.trips, self.rules) for one in opened.values()],
            [one.failures for one in opened.values()],
            [array_literal(one.tasks) for one in opened.values()],
            [one.trips for one in opened.values()],
            [self._reasons.get(agent_id, "it kept failing") for agent_id in opened],
            self.store.node_id,
        )
        for row in rows:
            if row["agent_id"] in self._timers:
                self._wake_in(row["agent_id"], row["excluded_s"])

    async def _write_probes(self) -> None:
        probes, self._probes = self._probes, []
        try:
            await self.store.db.fetch(
                "note_probes",
                [one.task_id for one in probes],
                [one.agent_id for one in probes],
                [one.message_id for one in probes],
                self.store.node_id,
            )
        except BaseException:
            self._probes = probes + self._probes
            raise

    async def _write_counts(self) -> None:
        counted = {one: self._breakers.get(one, CLOSED) for one in sorted(self._counted)}
        self._are_counts_due = False
        try:
            await self.store.db.fetch(
                "count_failures",
                list(counted),
                [one.failures for one in counted.values()],
                [array_literal(one.tasks) for one in counted.values()],
            )
        except BaseException:
            self._are_counts_due = True
            raise
        for agent_id, breaker in counted.items():
            if self._breakers.get(agent_id, CLOSED) == breaker:  # else it has failed once more meanwhile
                self._counted.discard(agent_id)
                self._stored_at[agent_id] = asyncio.get_running_loop().time()
