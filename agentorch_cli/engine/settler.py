"""Records how attempts ended, and moves their tasks.

Reports come from agents (by the gateway), from the lifeline (timeouts, losses) and from
agents that leave. They gather while the previous batch commits; its agents are told while the
next one commits (a `_Flight`). Most belong to tasks with
one agent: those are decided by `core.settle.settle_one` and stored in one statement for the
whole batch. The rest (several agents, votes, late results, anything unknown) takes the
careful path: lock the tasks, read all their attempts, decide, write, in one transaction.

A report is acknowledged once it is durable, or once it is known to change nothing. While the
database does not answer, reports wait here; agents keep their results until the ack anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from agentorch_cli.core.matching import skill_shown
from agentorch_cli.core.model import Aggregate, AttemptStatus, TaskStatus
from agentorch_cli.core.settle import MOST_BACKOFF, Case, Move, Tried, retry_rules, settle, settle_one
from agentorch_cli.engine.checks import Checks
from agentorch_cli.engine.relay import BADLY, GONE, WELL
from agentorch_cli.engine.scheduler import Scheduler
from agentorch_cli.engine.state import Courier, Report, State
from agentorch_cli.engine.votes import Votes
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.frames import dumps
from agentorch_cli.logs import facts
from agentorch_cli.store.database import Transaction
from agentorch_cli.store.literals import array_literal
from agentorch_cli.store.records import AttemptRow, Delivery, Ended, Ending, LockedTask, Unlocked
from agentorch_cli.store.store import Store, as_uuid, hint
from agentorch_cli.store.truth import note_comparison, verdict_of, verify
from agentorch_cli.text import visible

log = logging.getLogger("agentorch.settler")

BATCH = 1_000
BATCH_BYTES = 16 * 1024 * 1024
"""Bytes of results in one batch; a single larger one goes alone."""

LANES = 4
"""Tasks that are looked at one by one: so many at once, each in a transaction of its own."""

MOST_WAITING = 10_000
"""Reports that may wait here; above it the gateway stops reading from agents."""

MOST_BYTES = 64 * 1024 * 1024
"""Bytes of results that may wait here, likewise."""

_GAVE_UP = {
    AttemptStatus.LOST: "lost",
    AttemptStatus.TIMED_OUT: "timed_out",
    AttemptStatus.CANCELLED: "cancelled",
}


Simple = dict[str, tuple[Report, Delivery]]
"""Ends of attempts whose tasks have one agent, by message id."""


class Settled(NamedTuple):
    """What became of a batch."""

    endings: list[Ending]
    """What was to be stored."""
    ended: dict[str, Ended]
    """What the database made of it, by message id."""
    told: Unlocked | None
    """Which dependents it made ready in the same commit."""
    has_freed: bool
    """Whoever leads was told of their slots, if all were stored."""


@dataclass(slots=True)
class _Flight:
    """Ends of simple attempts that are being stored: nobody was told of them yet."""

    simple: Simple
    answer: asyncio.Task[Settled]
    began: float
    """Loop time."""


class Settler:
    """The loop that settles."""

    def __init__(self, state: State, store: Store, courier: Courier, scheduler: Scheduler) -> None:
        self.state = state
        self.store = store
        self.courier = courier
        self.scheduler = scheduler
        self.jitter = random.random
        self.on_ended: Callable[[Report, str, bool], None] = lambda report, task_id, is_probe: None
        """Told of each attempt whose end is stored, with its task, and whether it was a probe."""
        self._reports: deque[Report] = deque()
        self._bytes = 0
        self._sizes_aside: dict[str, int] = {}
        """Of results whose check takes long, by message id: they count in `_bytes` meanwhile."""
        self.votes = Votes(state, store)
        self.checks = Checks(self._put_checked)
        self._wake = asyncio.Event()
        self._began = 0.0
        """When the batch that is settled now was begun, on the loop's clock."""
        self._flight: _Flight | None = None
        self._is_in_doubt = False
        """Something was stored, and those who wait for it may not have been told."""
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._ended: list[tuple[str, str]] = []
        """Tasks whose dependents are told next."""
        self._ended_elsewhere: set[str] | None = set()
        """Tasks that others ended, whose dependents the next sweep looks after; None: it looks at all."""
        self._unlock_wake = asyncio.Event()
        self._has_unlocked = asyncio.Event()
        self._has_unlocked.set()

    # --- what others tell it ----------------------------------------------------------------

    def put(self, report: Report) -> None:
        """An attempt ended."""
        self._reports.append(report)
        self._bytes += _size(report)
        if len(self._reports) > MOST_WAITING or self._bytes > MOST_BYTES:
            self._has_room.clear()
        self._is_idle.clear()
        self._wake.set()

    def _put_checked(self, report: Report) -> None:
        """A report that was set aside comes back."""
        self._bytes += _size(report) - self._sizes_aside.pop(report.message_id, 0)
        self._reports.append(report)
        self._wake.set()

    async def room(self) -> None:
        """Returns once there is room for more: what makes a flood wait for itself."""
        await self._has_room.wait()

    async def idle(self) -> None:
        """Returns once everything that was put has been settled, and dependents know."""
        await self._is_idle.wait()
        await self._has_unlocked.wait()

    # --- the loop ---------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever. No error of one batch ends it."""
        try:
            while True:
                if self._reports or self._flight is not None:
                    await self._advance()
                    continue
                if self.checks.is_idle:
                    self._is_idle.set()
                self._wake.clear()
                await self._wake.wait()
        finally:
            if self._flight is not None:
                self._flight.answer.cancel()

    async def _advance(self) -> None:
        """Have stored what gathered while the last batch was; who waits for that one is told meanwhile."""
        before, self._flight = self._flight, None
        settled = await self._answer(before) if before is not None else None
        closer: list[Report] = []
        if self._reports:
            batch = self._next_batch()
            if len(self._reports) <= MOST_WAITING // 2 and self._bytes <= MOST_BYTES // 2:
                self._has_room.set()
            try:
                self._flight, closer = self._take_off(batch)
            except Exception:
                log.exception("a batch of %d results cannot be stored as it is", len(batch))
                closer = batch
            if self._flight is not None:
                await asyncio.sleep(0)  # the statement is on its way
        odd: list[Report] = []
        if before is not None and settled is not None:
            odd = self._finish(before, settled)
        if odd and self._flight is not None:  # one at a time locks what it changes
            after, self._flight = self._flight, None
            if (settled := await self._answer(after)) is not None:
                odd += self._finish(after, settled)
        if odd:
            in_doubt, self._is_in_doubt = self._is_in_doubt, False
            await self._settle_surely(odd, self._settle_carefully, is_repeated=in_doubt)
        if closer:
            await self._settle_surely(closer)

    def _take_off(self, batch: list[Report]) -> tuple[_Flight | None, list[Report]]:
        """Have a batch stored where it is simple throughout; what needs a closer look."""
        began = asyncio.get_running_loop().time()
        simple, careful = self._sorted(batch)
        if careful:
            return None, [*(report for report, _ in simple.values()), *careful]
        if not simple:
            return None, []
        return _Flight(simple, asyncio.create_task(self._store(simple)), began), []

    async def _store(self, simple: Simple) -> Settled:
        """With the dependents in the same commit, where there are any as far as is known."""
        endings = [self._ending(report, delivery) for report, delivery in simple.values()]
        has_freed = any(ending.mark is not None for ending in endings)
        if any(delivery.has_dependents for _, delivery in simple.values()):
            return Settled(endings, *await self.store.settle_and_unlock(endings), has_freed)
        return Settled(endings, await self.store.settle(endings), None, has_freed)

    async def _answer(self, flight: _Flight) -> Settled | None:
        """What the database made of these; None where it was settled in another way after a failure."""
        try:
            return await flight.answer
        except Exception:
            reports = [report for report, _ in flight.simple.values()]
            await self._settle_surely(reports, is_repeated=True)
            return None

    def _finish(self, flight: _Flight, settled: Settled) -> list[Report]:
        """Tell everybody; the reports that need a closer look."""
        self._began = flight.began
        try:
            odd = self._tell_simple(flight.simple, settled)
        except Exception:
            log.exception("what became of %d results could not be told; looking again", len(flight.simple))
            odd = [report for report, _ in flight.simple.values()]
            self._is_in_doubt = True
        self._measure(flight.began, len(flight.simple))
        return odd

    def _measure(self, began: float, size: int) -> None:
        self.state.meters.settle.observe(asyncio.get_running_loop().time() - began)
        self.state.meters.settle_size.observe(size)

    def _next_batch(self) -> list[Report]:
        batch = [self._reports.popleft()]
        size = _size(batch[0])
        while self._reports and len(batch) < BATCH:
            size += _size(self._reports[0])
            if size > BATCH_BYTES:
                break
            batch.append(self._reports.popleft())
        self._bytes -= sum(map(_size, batch))
        return batch

    async def _settle_surely(
        self,
        batch: list[Report],
        settle: Callable[[list[Report]], Awaitable[None]] | None = None,
        *,
        is_repeated: bool = False,
    ) -> None:
        """Settle a batch, by `step` or another way, whatever the database does: it may be away for a while.

        `is_repeated`: it was tried before, and nobody knows whether it was stored.
        """
        settle = settle or self.step
        wait = 0.05
        while True:
            try:
                await settle(batch)
                if is_repeated:
                    await self._catch_up()
                return
            except DatabaseUnreachable as error:
                is_repeated = True
                log.warning("cannot store %d results yet: %s", len(batch), error)
                await asyncio.sleep(wait)
                wait = min(1.0, wait * 2)
            except Exception:
                if len(batch) == 1:
                    log.exception(
                        "the result of attempt %s cannot be stored",
                        batch[0].message_id,
                        extra=_about(batch[0]),
                    )
                    self._quarantine(batch[0])
                    return
                log.exception("a batch of %d results failed; trying them one by one", len(batch))
                for report in batch:
                    await self._settle_surely([report], settle, is_repeated=is_repeated)
                return

    async def _catch_up(self) -> None:
        """A try that failed may have been stored: what became ready by it, nobody was told."""
        await self.unlock_missed()
        self.scheduler.look_again()

    async def unlock_missed(self) -> None:
        """Tell the dependents of tasks that ended on a node which died before it could tell them."""
        while missed := await self.store.missed_endings():
            await self.unlock(missed)

    def ended_elsewhere(self, task_ids: Iterable[str] | None) -> None:
        """Others ended these tasks (None: some, or nobody knows), and tell their dependents unless they die.

        Whoever becomes the chief looks at everything, so only the chief remembers.
        """
        if task_ids is None:
            self._ended_elsewhere = None
        elif self._ended_elsewhere is not None and self.state.is_chief:
            self._ended_elsewhere.update(task_ids)

    async def tell_for_others(self) -> None:
        """Tell the dependents of what others ended, where they did not come to it."""
        ids, self._ended_elsewhere = self._ended_elsewhere, set()
        try:
            if ids is None:
                await self.unlock_missed()
            elif ids and (missed := await self.store.endings_of(list(ids))):
                await self.unlock(missed)
        except BaseException:
            self._ended_elsewhere = None
            raise

    def _quarantine(self, report: Report) -> None:
        """One sick result: the agent is told, the attempt is left to its timeout."""
        self.state.bus.publish("error", agent_id=report.agent_id, message=f"attempt {report.message_id}")
        self.courier.refuse(
            report.agent_id,
            "not_stored",
            "the result cannot be stored; see the server's log",
            report.message_id,
        )

    async def step(self, batch: Sequence[Report]) -> None:
        """Settle one batch."""
        began = self._began = asyncio.get_running_loop().time()
        simple, careful = self._sorted(batch)
        if simple:
            careful = self._tell_simple(simple, await self._store(simple)) + careful
        if careful:
            await self._settle_carefully(careful)
        self._measure(began, len(batch))

    def _sorted(self, batch: Sequence[Report]) -> tuple[Simple, list[Report]]:
        """The simple ones, and those that need a closer look."""
        simple: Simple = {}
        careful: list[Report] = []
        for report in batch:
            delivery = self.state.deliveries.get(report.message_id)
            if delivery is not None and delivery.result_schema is not None:
                checked = self._checked(report, delivery.result_schema, delivery.is_ballot)
                if checked is None:
                    continue
                report = checked
            if (
                delivery is None
                or not delivery.is_simple
                or (delivery.has_retry_rules and report.status is not AttemptStatus.COMPLETED)
                or delivery.agent_id != report.agent_id
                or report.is_declined
                or report.task_id not in (None, delivery.task_id)
            ):
                careful.append(report)
            elif report.message_id not in simple:
                simple[report.message_id] = (report, delivery)
            elif report.from_agent:
                careful.append(report)  # the same result twice in one batch: acknowledged after the first
        return simple, careful

    def _checked(self, report: Report, schema: str, is_ballot: bool) -> Report | None:
        """The report, or the failure that it is because its result does not fit; None: it comes back."""
        checked = self.checks.check(report, schema, is_ballot=is_ballot)
        if checked is None and report.message_id not in self._sizes_aside:
            self._sizes_aside[report.message_id] = _size(report)
            self._bytes += _size(report)
        return checked

    async def _checked_late(self, reports: Sequence[Report]) -> list[Report]:
        """The same for results of attempts that are not live here any more."""
        unseen = [
            report.message_id
            for report in reports
            if report.status is AttemptStatus.COMPLETED
            and not report.is_checked
            and report.message_id not in self.state.deliveries
        ]
        if not unseen:
            return list(reports)
        rows = {str(row["message_id"]): row for row in await self.store.db.fetch("result_schemas", unseen)}
        found = []
        for report in reports:
            row = rows.get(report.message_id)
            checked = self._checked(report, row["result_schema"], row["is_ballot"]) if row else report
            if checked is not None:
                found.append(checked)
        return found

    # --- the common case --------------------------------------------------------------------

    def _tell_simple(self, simple: Simple, settled: Settled) -> list[Report]:
        """These are stored: tell agents, dependents and the mirror; the reports that need a closer look."""
        endings, ended, told, has_freed = settled
        if told is not None:
            self.scheduler.unlocked(told)
        odd: list[Report] = []
        acks: dict[str, list[str]] = {}
        unlocking: list[tuple[str, str]] = []
        requeued: list[str] = []
        is_delayed = False
        stored: list[tuple[Ending, Report, Delivery, str, bool]] = []
        for ending in endings:
            outcome = ended.get(ending.message_id)
            if outcome is None:
                odd.append(simple[ending.message_id][0])
            else:
                stored.append((ending, *simple[ending.message_id], outcome.status, outcome.has_dependents))
        has_freed &= len(stored) == len(endings)
        self._remember([(report, delivery) for _, report, delivery, _, _ in stored], is_told=has_freed)
        self.state.release_all([ending.message_id for ending, _, _, _, _ in stored], is_told=not has_freed)
        for ending, report, delivery, status, has_dependents in stored:
            if report.from_agent:
                acks.setdefault(report.agent_id, []).append(ending.message_id)
            elif report.status in _GAVE_UP:
                self._tell_off(delivery, report)
            if status == TaskStatus.PENDING:
                if ending.delay_seconds > 0:
                    is_delayed = True
                else:
                    requeued.append(ending.task_id)
            elif has_dependents:
                unlocking.append((ending.task_id, status))
            self._publish(ending.task_id, status, report)
        for agent_id, ids in acks.items():
            self.courier.acknowledge(agent_id, ids)
        if requeued or is_delayed:
            self.scheduler.hint(requeued, delayed=is_delayed)
        self.scheduler.wake()
        self._unlock_soon(unlocking)
        return odd

    def _ending(self, report: Report, delivery: Delivery) -> Ending:
        move = settle_one(
            report.status,
            report.error,
            retries=delivery.retries,
            failures=delivery.failures,
            losses=delivery.losses,
            backoff_seconds=delivery.backoff_seconds,
            max_backoff_seconds=delivery.max_backoff_seconds,
            jitter=self.jitter,
        )
        error = move.error if move.error is not None else report.error
        return Ending(
            report.message_id,
            delivery.task_id,
            delivery.agent_id,
            report.status,
            move.status,
            report.result,
            None if error is None else dumps(dict(error)),
            report.confidence,
            report.usage,
            move.delay_seconds,
            self._mark_for_others(report, delivery),
        )

    def _mark_for_others(self, report: Report, delivery: Delivery) -> str | None:
        """Told by the statement that stores the end: each commit that says something wakes all who listen."""
        relay = self.state.relay
        if relay is None or not relay.has_peers or not self.state.is_for_others(delivery):
            return None
        return _mark(report)

    def _remember(
        self, ended: Sequence[tuple[Report, Delivery]], *, is_ballot: bool = False, is_told: bool = False
    ) -> None:
        """Before their slots are given back: whoever chooses next knows how they went. `is_told`: on other
        nodes too.

        What was called off says nothing about its agent.
        """
        now = asyncio.get_running_loop().time()
        outcomes: dict[tuple[str, str, str], list[int]] = {}
        meters = self.state.meters.attempts
        for report, delivery in ended:
            if delivery.traceparent is not None and self.state.traces is not None:
                self._trace(report, delivery, now)
            if report.status is AttemptStatus.CANCELLED:
                continue
            self.on_ended(report, delivery.task_id, delivery.is_probe)
            went_well = report.status is AttemptStatus.COMPLETED
            self.state.tally(delivery.agent_id, went_well=went_well)
            self.state.paces(delivery, now, went_well=went_well)
            skill = skill_shown(delivery.required_capabilities, delivery.role)
            account = self.state.account(delivery.agent_id, skill, delivery.type)
            account.add(report.status, now - delivery.begun, report.usage, is_ballot=is_ballot)
            meter = meters.get(report.status)
            if meter is not None:
                meter.observe(now - delivery.begun)
            if is_ballot and went_well:
                continue  # the vote will say
            if not is_told and self.state.relay is not None and self.state.is_for_others(delivery):
                self.state.relay.mark(delivery.message_id, _mark(report))
            count = outcomes.setdefault((delivery.agent_id, skill, delivery.type), [0, 0])
            count[0] += went_well
            count[1] += 1
        for (agent_id, skill, type), (good, number) in outcomes.items():
            self.state.reputation.outcomes(agent_id, skill, type, good, number)

    def _trace(self, report: Report, delivery: Delivery, now: float) -> None:
        traces, told = self.state.traces, delivery.traceparent_told
        assert traces is not None and told is not None
        ended, error = time.time(), report.error or {}
        traces.end(
            "attempt",
            told,
            delivery.traceparent,
            ended - (now - delivery.begun),
            ended,
            kind="PRODUCER",
            error=None
            if report.status is AttemptStatus.COMPLETED
            else str(error.get("message", report.status)),
            task_id=delivery.task_id,
            task_type=delivery.type,
            agent_id=delivery.agent_id,
            attempt_id=delivery.message_id,
            attempt_number=delivery.attempt,
            attempt_status=report.status.value,
            error_code=error.get("code"),
        )
        traces.end(
            "settle", None, told, ended - (now - self._began), ended, kind="CLIENT", task_id=delivery.task_id
        )

    def _remember_stray(self, report: Report, task: LockedTask) -> None:
        """The same of an attempt that was given up although this node did not carry it.

        What an agent brings after its attempt was given up is not counted: that was.
        """
        if report.from_agent or report.status is AttemptStatus.CANCELLED:
            return
        self.on_ended(report, task.task_id, False)
        self.state.tally(report.agent_id, went_well=False)
        skill = skill_shown(task.required_capabilities, None)
        self.state.account(report.agent_id, skill, task.type).add(report.status, None, report.usage)
        self.state.reputation.outcomes(report.agent_id, skill, task.type, 0, 1)

    def _tell_off(self, delivery: Delivery, report: Report) -> None:
        """The engine gave the attempt up: its agent, if it still lives, should stop."""
        reason = (report.error or {}).get("message", str(report.status))
        self.courier.call_off(delivery.agent_id, delivery.message_id, delivery.task_id, reason)

    def _stop_elsewhere(self, message_ids: Sequence[str]) -> None:
        """Agents of other nodes may work on these in vain."""
        if message_ids and self.state.relay is not None and self.state.relay.has_peers:
            self.state.relay.stopped(message_ids)

    def _publish(self, task_id: str, status: str, report: Report) -> None:
        self.state.count(f"task_{status}")
        if self.state.bus.is_heard:
            kind = "task_requeued" if status == TaskStatus.PENDING else f"task_{status}"
            self.state.bus.publish(kind, task_id=task_id, agent_id=report.agent_id, error=report.error)

    def _unlock_soon(self, ended: Sequence[tuple[str, str]]) -> None:
        """Tell the dependents of these beside the next batch of results, not before it."""
        if ended:
            self._ended += ended
            self._has_unlocked.clear()
            self._unlock_wake.set()

    async def run_unlocks(self) -> None:
        """For ever, beside `run`: what gathered while the last one was stored goes together."""
        while True:
            if not self._ended:
                self._has_unlocked.set()
                self._unlock_wake.clear()
                await self._unlock_wake.wait()
            ended, self._ended = self._ended, []
            try:
                await self.unlock(ended)
            except Exception:
                log.exception("the dependents of %d tasks could not be told", len(ended))
                await asyncio.sleep(0.3)
                with contextlib.suppress(Exception):
                    await self._catch_up()

    async def unlock(self, ended: Iterable[tuple[str, str]]) -> None:
        """Tell the dependents of tasks that ended; again and again until the database has heard it."""
        ended = list(ended)
        while True:
            try:
                told = await self.store.unlock(ended)
                break
            except DatabaseUnreachable as error:
                self.scheduler.look_again()  # it may have been stored, and then nobody is told what is ready
                log.warning("cannot unlock dependents yet: %s", error)
                await asyncio.sleep(0.3)
        for task_id, status in told.ended:
            self.state.count(f"task_{status}")
            self.state.bus.publish(f"task_{status}", task_id=task_id)
        self.scheduler.unlocked(told)

    # --- the careful path -------------------------------------------------------------------

    async def _settle_carefully(self, reports: Sequence[Report]) -> None:
        known = await self.store.tasks_of([r.message_id for r in reports if as_uuid(r.message_id)])
        by_task: dict[str, list[Report]] = {}
        for report in reports:
            row = known.get(report.message_id)
            if row is None:
                self.courier.refuse(
                    report.agent_id, "not_found", "there is no work with this messageId", report.message_id
                )
            elif row["agent_id"] != report.agent_id:
                self.courier.refuse(
                    report.agent_id,
                    "not_allowed",
                    "this messageId is another agent's work",
                    report.message_id,
                )
            elif report.task_id not in (None, row["task_id"]):
                self.courier.refuse(
                    report.agent_id,
                    "invalid_message",
                    f"task_result: taskId: this messageId is work on task {row['task_id']}",
                    report.message_id,
                )
            else:
                by_task.setdefault(row["task_id"], []).append(report)
        tasks = iter(sorted(by_task.items()))
        lanes = [self._settle_some(tasks) for _ in range(min(LANES, len(by_task)))]
        # none is called off because another failed: what it does would be in doubt
        for failure in await asyncio.gather(*lanes, return_exceptions=True):
            if failure is not None:
                raise failure

    async def _settle_some(self, tasks: Iterator[tuple[str, list[Report]]]) -> None:
        """One after the other, until nobody has any left."""
        for task_id, reports in tasks:
            if checked := await self._checked_late(reports):
                await self.settle_task(task_id, checked)

    async def settle_task(
        self,
        task_id: str,
        reports: Sequence[Report] = (),
        *,
        ended_by: Mapping[str, Any] | None = None,
        gone: Collection[str] | None = None,
    ) -> None:
        """Look at one task under lock, with what these reports add.

        `ended_by`: the error with which it ends, because a time limit has passed (`DEADLINE`, or one of
        `queue_timeout`, which ends it only if it still stands). `gone`: look at its vote, without these
        voters. A task that cannot be decided upon fails: it must not stop the others, nor wait for ever.
        """
        try:
            await self._settle_task(task_id, reports, ended_by, gone)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            log.exception("task %s cannot be decided upon", task_id, extra=facts(task=task_id))
            await self.end_sick(task_id, str(error))
            self._tell(None, reports, None, [], set())

    async def end_sick(self, task_id: str, reason: str) -> None:
        """Fail a task that cannot be handled."""
        message = f"the task cannot be handled: {visible(reason, 500)}"
        if await self.end_early(task_id, {"code": "unreadable", "message": message, "retryable": False}):
            log.error("task %s failed: %s", task_id, message, extra=facts(task=task_id))

    async def end_early(self, task_id: str, error: dict[str, Any]) -> bool:
        """Fail a task whatever it does, and call its attempts off; False where it has ended already."""
        row = await self.store.end_sick(task_id, dumps(error))
        if row is None:
            return False
        message = str(error["message"])
        for agent_id, message_id in zip(row["agents"], row["messages"], strict=True):
            self.state.release(message_id)
            self.courier.call_off(agent_id, message_id, task_id, message)
        self._stop_elsewhere([m for m in row["messages"] if m not in self.state.deliveries])
        self.state.count("task_failed")
        self.state.bus.publish("task_failed", task_id=task_id, error=error)
        self.scheduler.wake()
        if row["has_dependents"]:
            await self.unlock([(task_id, "failed")])
        return True

    async def _settle_task(
        self,
        task_id: str,
        reports: Sequence[Report],
        ended_by: Mapping[str, Any] | None,
        gone: Collection[str] | None,
    ) -> None:
        performance = {member.agent_id: member.performance for member in self.state.roster.members.values()}
        called_off: list[AttemptRow] = []
        informed: str | None = None
        async with self.store.db.transaction() as tx:
            task = (await self.store.lock_tasks(tx, [task_id])).get(task_id)
            if task is None:
                move, finished = None, set[str]()
            else:
                finished = await _finish(tx, reports, is_open=not task.status.is_final)
                await _tell_usage(tx, reports, finished)
                attempts = (await self.store.attempts_of(tx, [task_id])).get(task_id, [])
                if task.status.is_final:
                    await self.votes.cast_late(tx, task, reports, attempts)
                move = await self._decide(tx, task, attempts, reports, finished, performance, ended_by, gone)
                if move is not None:
                    await _note_declined(tx, task_id, reports, finished)
                    called_off = await _call_off(tx, attempts, move)
                    informed = await self._inform(tx, task, move, attempts)
        self._tell(task, reports, move, called_off, finished)
        if task is not None and move is not None and move.status.is_final and task.has_dependents:
            await self.unlock([(task_id, move.status)])
        if informed is not None:
            await self.settle_task(informed, gone=())

    async def _decide(
        self,
        tx: Transaction,
        task: LockedTask,
        attempts: Sequence[AttemptRow],
        reports: Sequence[Report],
        finished: set[str],
        performance: dict[str, float],
        ended_by: Mapping[str, Any] | None,
        gone: Collection[str] | None,
    ) -> Move | None:
        """Decide what the task does, and write it; None where nothing changes."""
        if task.status.is_final or (task.status is TaskStatus.BLOCKED and ended_by is None):
            return None
        if ended_by is not None and ended_by["code"] == QUEUE_TIMEOUT and not task.is_starved:
            return None  # somebody took it meanwhile
        if not finished and ended_by is None and gone is None:
            return None
        poll = await self.votes.poll(tx, task)
        if gone is not None and poll is None:
            return None
        live = [a for a in attempts if a.status.is_live]
        counted = [r for r in reports if r.message_id in finished]
        case = Case(
            task_id=task.task_id,
            tried=[
                Tried(
                    message_id=a.message_id,
                    agent_id=a.agent_id,
                    status=a.status,
                    result=orjson.loads(a.result) if a.result is not None else None,
                    error=a.error,
                    confidence=a.confidence,
                    performance=performance.get(a.agent_id, 0.5),
                    seconds=a.seconds,
                    role=a.role,
                )
                for a in attempts
            ],
            min_agents=task.min_agents,
            max_agents=task.max_agents,
            retries=task.retries,
            failures=task.failures
            + sum(r.status in (AttemptStatus.FAILED, AttemptStatus.TIMED_OUT) for r in counted),
            losses=task.losses + sum(r.status is AttemptStatus.LOST for r in counted),
            backoff_seconds=task.options.get("backoff_seconds", 1.0),
            max_backoff_seconds=task.options.get("max_backoff_seconds", MOST_BACKOFF),
            retry=retry_rules(task.options.get("retry")),
            aggregate=Aggregate(task.options.get("aggregate", "first")),
            team=task.shared_out,
        )
        if ended_by is not None:
            if poll is not None:
                await self.votes.give_up(tx, poll, case, _DECIDED_BY[ended_by["code"]])
            move = Move(TaskStatus.FAILED, error=ended_by, call_off=tuple(a.message_id for a in live))
        elif poll is not None:
            move = await self.votes.decide(tx, task, poll, case, finished, gone or ())
        else:
            move = settle(case, self.jitter)
        await self._write(tx, task, case, move, is_vote=poll is not None)
        return move

    async def _inform(
        self, tx: Transaction, task: LockedTask, move: Move, attempts: Sequence[AttemptRow]
    ) -> str | None:
        """What the end of a task says about another: a check verifies it, a comparison counts in its vote.

        The id of the task whose vote is to be looked at again.
        """
        if not move.status.is_final:
            return None
        if "compares" in task.options:
            return await note_comparison(tx, task.options["compares"], move)
        if "verifies" in task.options and move.status is TaskStatus.COMPLETED:
            said = verdict_of(move.result)
            if said is not None:
                by = next((a.agent_id for a in attempts if a.status is AttemptStatus.COMPLETED), None)
                await verify(
                    tx,
                    task.options["verifies"],
                    said,
                    source="check",
                    said_by=by,
                    store=self.store,
                )
        return None

    async def _write(
        self, tx: Transaction, task: LockedTask, case: Case, move: Move, *, is_vote: bool
    ) -> None:
        failed = {
            t.agent_id
            for t in case.tried
            if t.status in (AttemptStatus.FAILED, AttemptStatus.TIMED_OUT, AttemptStatus.LOST)
        }
        holding = [t.agent_id for t in case.tried if t.status.is_live or t.status is AttemptStatus.COMPLETED]
        asked = [t.agent_id for t in case.tried] if is_vote else holding
        if move.status is TaskStatus.PENDING:
            asked = [t.agent_id for t in case.tried] if is_vote else []
        if task.status is TaskStatus.BLOCKED:
            await tx.fetch("fail_blocked", task.task_id, dumps(dict(move.error or {})))
        else:
            await tx.fetch(
                "settle_tasks",
                [task.task_id],
                [move.status],
                [dumps(move.result) if move.status is TaskStatus.COMPLETED else None],
                [dumps(dict(move.error)) if move.error is not None else None],
                [move.wanted],
                [move.delay_seconds],
                [case.failures],
                [case.losses],
                [array_literal(sorted({*task.tried_agents, *failed}))],
                [array_literal(asked)],
            )
        if move.status is not task.status or move.status.is_final:
            kind = "task_requeued" if move.status is TaskStatus.PENDING else f"task_{move.status}"
            await tx.fetch(
                "log_events",
                [kind],
                [task.task_id],
                [None],
                [None],
                [dumps(dict(move.error)) if move.error is not None else None],
                self.store.node_id,
            )
        if move.status.is_final:
            await tx.fetch("tell_done", hint([task.task_id]))

    def _tell(
        self,
        task: LockedTask | None,
        reports: Sequence[Report],
        move: Move | None,
        called_off: Sequence[AttemptRow],
        finished: set[str],
    ) -> None:
        """After the commit: free slots, acknowledge, call off, wake."""
        is_vote = task is not None and "consensus" in task.options
        for report in reports:
            delivery = self.state.deliveries.get(report.message_id)
            if report.message_id in finished:
                if delivery is not None:
                    self._remember([(report, delivery)], is_ballot=is_vote and delivery.role != "judge")
                elif task is not None:
                    self._remember_stray(report, task)
            self.state.release(report.message_id)
            if delivery is None and not report.from_agent:
                self._stop_elsewhere([report.message_id])
            if report.from_agent:
                self.courier.acknowledge(report.agent_id, [report.message_id])
            elif delivery is not None:
                self._tell_off(delivery, report)
        for attempt in called_off:
            self.state.release(attempt.message_id)
            self.courier.call_off(
                attempt.agent_id, attempt.message_id, attempt.task_id, "it is decided without you"
            )
        self._stop_elsewhere([a.message_id for a in called_off if a.node_id != self.state.node_id])
        if task is not None and move is not None:
            if move.status.is_final and not task.status.is_final:
                self.state.backlog.drop(task.task_id)
                self.state.count(f"task_{move.status}")
                self.state.bus.publish(f"task_{move.status}", task_id=task.task_id, error=move.error)
            if move.wanted:
                self.scheduler.hint([task.task_id], delayed=move.delay_seconds > 0)
        self.scheduler.wake()


def _about(report: Report) -> dict[str, Any]:
    return facts(task=report.task_id, agent=report.agent_id, attempt=report.message_id)


def _mark(report: Report) -> str:
    if report.status is AttemptStatus.CANCELLED:
        return GONE
    return WELL if report.status is AttemptStatus.COMPLETED else BADLY


def _size(report: Report) -> int:
    return len(report.result) if report.result is not None else 0


DEADLINE: dict[str, Any] = {
    "code": "deadline_exceeded",
    "message": "the task's deadline passed before it had a result",
    "retryable": False,
}

QUEUE_TIMEOUT = "queue_timeout"

_DECIDED_BY = {"deadline_exceeded": "deadline", QUEUE_TIMEOUT: QUEUE_TIMEOUT}
"""What a vote says of its end when its task's time is up."""


async def _finish(tx: Transaction, reports: Sequence[Report], *, is_open: bool) -> set[str]:
    """Record what the reports bring; the message ids that were recorded now, for the first time.

    Late results change nothing once the task is not `is_open` any more.
    """
    if not reports:
        return set()
    rows = await tx.fetch(
        "finish_attempts",
        [r.message_id for r in reports],
        [r.status for r in reports],
        [r.result for r in reports],
        [dumps(r.error) if r.error is not None else None for r in reports],
        [r.confidence for r in reports],
        [r.usage for r in reports],
        is_open,
    )
    return {str(row[0]) for row in rows}


async def _note_declined(
    tx: Transaction, task_id: str, reports: Sequence[Report], finished: Collection[str]
) -> None:
    """Who does not want the task is not asked for it again."""
    agents = [one.agent_id for one in reports if one.is_declined and one.message_id in finished]
    if agents:
        await tx.fetch("note_declined", task_id, agents)


async def _tell_usage(tx: Transaction, reports: Sequence[Report], finished: Collection[str]) -> None:
    """What attempts used that had ended before: their results do not count, what they cost does."""
    late = [r for r in reports if r.usage is not None and r.message_id not in finished]
    if late:
        await tx.fetch("tell_usage", [r.message_id for r in late], [r.usage for r in late])


async def _call_off(tx: Transaction, attempts: Sequence[AttemptRow], move: Move) -> list[AttemptRow]:
    if not move.call_off:
        return []
    await tx.fetch("give_up_attempts", list(move.call_off), "cancelled", None)
    return [a for a in attempts if a.message_id in move.call_off]
