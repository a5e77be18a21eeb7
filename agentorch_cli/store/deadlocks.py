"""Who waits for whom, read in one moment; deadlocks written down; and what is done about them.

A look is read from one snapshot, so that it never sees half of a change. What it finds is
recorded first. Each step of the ladder is then one transaction that locks the tasks, compares them
with what was seen, acts, and closes the record: if the world moved on, nothing happens, and whoever
is killed in between leaves an open record that the next look finds again. Two monitors at once
record once and resolve once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import asyncpg

from agentorch_cli.core.deadlock import Kind, Report, detect
from agentorch_cli.core.ladder import (
    Act,
    Facts,
    Finding,
    Holding,
    Policy,
    Step,
    findings,
    is_left_to_people,
    some,
    step,
)
from agentorch_cli.core.settle import backoff
from agentorch_cli.core.system import Agent, Need, State, System, Task
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.frames import dumps
from agentorch_cli.identity import new_id
from agentorch_cli.store.database import Transaction
from agentorch_cli.store.literals import array_literal
from agentorch_cli.store.store import Store, hint

log = logging.getLogger("agentorch.deadlocks")

RINGS_AT_ONCE = 200
"""Rings of dependencies that fail in one transaction."""

CONFIRM = 0.9
"""Seconds for which what may be only passing is seen before it is recorded."""

_PASSING = (Kind.UNSATISFIABLE, Kind.MISSING_DEPENDENCY, Kind.FAILED_DEPENDENCY)

FAR = datetime(9000, 1, 1, tzinfo=UTC)

OWN_SLOT = "\x00slot of "
"""A capability that one agent has alone: parked work continues with that agent or not at all."""

_STATES = {
    "completed": State.DONE,
    "skipped": State.DONE,
    "failed": State.FAILED,
    "cancelled": State.CANCELLED,
    "running": State.RUNNING,
    "pending": State.PENDING,
    "blocked": State.PENDING,
}


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at everything that waits has found."""

    system: System
    facts: Facts
    report: Report
    found: tuple[Finding, ...]
    at: datetime | None = None
    """The moment that it shows, on the database's clock."""
    has_work: bool = True
    """Somebody was at work."""
    has_open: bool = True
    """There were open records."""


@dataclass(frozen=True, slots=True)
class _News:
    at: datetime | None = None
    has_work: bool = True
    has_open: bool = True
    has_arrived: bool = True


@dataclass(slots=True)
class Outcome:
    """What became of the findings of a look."""

    new: list[str] = field(default_factory=list)
    """Marks of those that nobody had seen before."""
    done: dict[str, Step] = field(default_factory=dict)
    """By mark, what was done."""
    dissolved: list[str] = field(default_factory=list)
    open: int = 0
    """Findings that stay as they are."""
    has_work: bool = False
    """Somebody was at work."""
    unsure: int = 0
    """Findings that may be only passing: look again in a second."""


class Deadlocks:
    """Looks, records, resolves."""

    def __init__(self, store: Store, policy: Policy, *, grace: float) -> None:
        """`grace`: seconds for which an agent that went away still counts as there."""
        self.store = store
        self.policy = policy
        self.grace = grace
        self._suspects: dict[str, float] = {}
        """Marks of what may be only passing, and when each was seen first."""

    # --- looking ----------------------------------------------------------------------------

    async def look(self, *, least_away: float = 0.0) -> Look:
        """Read everything that waits, and find who never can move.

        `least_away`: agents that went away may still come back within this time, whatever the grace.
        """
        system, facts, news = await self.photograph(max(self.grace, least_away))
        if news.has_arrived:
            await self._welcome_arrived()
        report = detect(system)
        found = tuple(findings(report, system, facts))
        return Look(system, facts, report, found, news.at, news.has_work, news.has_open)

    async def photograph(self, grace: float) -> tuple[System, Facts, _News]:
        """The waiting system in one moment, read set by set."""
        async with self.store.db.snapshot() as tx:
            row = await tx.fetch_one("waiting_news")
            assert row is not None
            news = _News(row["at"], row["has_work"], row["has_open"], row["has_arrived"])
            attempts = await tx.fetch("waiting_attempts")
            edges = await tx.fetch("waiting_edges")
            waits = {row["task_id"]: tuple(row["depends_on"].split("\x1f")) for row in edges}
            awaited = {child for row in attempts for child in row["awaits"]}
            others = awaited.union(*waits.values())
            asked = awaited.union(waits, (row["task_id"] for row in attempts))
            tasks = await tx.fetch("waiting_tasks", list(asked), grace)
            if not tasks:
                return System(), Facts(), news
            agents = await tx.fetch("waiting_agents")
            others -= {row["task_id"] for row in tasks}
            ended = await tx.fetch("statuses", list(others)) if others else []
            missing = await tx.fetch("forward_ages") if len(ended) < len(others) else []
        return *_photograph(tasks, waits, attempts, agents, ended, missing, grace), news

    # --- recording and resolving ------------------------------------------------------------

    async def record(self, found: Sequence[Finding], at: datetime | None = None) -> set[str]:
        """Write down what was found at that moment; the marks of those that are new."""
        if not found:
            return set()
        async with self.store.db.transaction() as tx:
            await tx.fetch("lock_deadlocks")
            return await self._record(tx, found, at)

    async def _record(self, tx: Transaction, found: Sequence[Finding], at: datetime | None) -> set[str]:
        rows = await tx.fetch(
            "note_deadlocks",
            [new_id() for _ in found],
            [str(one.kind) for one in found],
            [stored_mark(one.mark) for one in found],
            [array_literal(one.members) for one in found],
            [dumps(list(one.edges)) for one in found],
            [one.reason for one in found],
            [one.waited_s for one in found],
            [array_literal(one.victims or one.doomed) for one in found],
            [dumps(dict(one.cost)) for one in found],
            self.store.node_id,
            at or FAR,
        )
        return {row["mark"] for row in rows if row["is_new"]}

    async def note_ended(self, found: Sequence[Finding], resolution: str) -> None:
        """Write down what is over already."""
        await self.record(found)
        marks = [stored_mark(one.mark) for one in found]
        await self.store.db.fetch(
            "resolve_deadlocks",
            marks,
            [resolution] * len(marks),
            [array_literal(one.members) for one in found],
            "monitor",
            self.store.node_id,
        )

    async def dissolve(self, found: Sequence[Finding], at: datetime) -> list[str]:
        """Close the records of what is not there any more."""
        marks = [stored_mark(one.mark) for one in found]
        return [row["mark"] for row in await self.store.db.fetch("dissolve_deadlocks", marks, at)]

    def steps(self, look: Look, *, by_person: bool = False) -> dict[str, tuple[Finding, Step]]:
        """What is to be done about each finding, by mark; a person may do what is left to people."""
        if not (self.policy.resolves or by_person):
            return {}
        chosen = {}
        for finding in look.found:
            if not by_person and is_left_to_people(finding, look.facts):
                continue
            one = step(finding, look.system, look.facts, self.policy)
            if one is not None:
                chosen[finding.mark] = (finding, one)
        return chosen

    async def resolve(
        self, look: Look, chosen: Mapping[str, tuple[Finding, Step]], by: str
    ) -> dict[str, Step]:
        """Perform steps. One that fails does not stop the others; those that were done, by mark."""
        done: dict[str, Step] = {}
        rings = [pair for pair in chosen.values() if pair[1].act is Act.FAIL and pair[0].doomed]
        for start in range(0, len(rings), RINGS_AT_ONCE):
            done |= await self._fail_rings(look, rings[start : start + RINGS_AT_ONCE], by)
        for mark, (finding, one) in chosen.items():
            if one.act is Act.FAIL and finding.doomed:
                continue
            try:
                if await self._perform(look, finding, one, by):
                    done[mark] = one
            except _MovedOnError:
                continue
            except DatabaseUnreachable:
                raise
            except Exception:
                log.exception("the deadlock of %s could not be resolved", some(finding.members))
        return done

    async def _fail_rings(
        self, look: Look, rings: Sequence[tuple[Finding, Step]], by: str
    ) -> dict[str, Step]:
        try:
            return await self._fail_together(look, rings, by)
        except DatabaseUnreachable:
            raise
        except Exception:
            if len(rings) == 1:
                log.exception("the ring of %s could not be failed", some(rings[0][0].members))
                return {}
        done: dict[str, Step] = {}
        for ring in rings:
            done |= await self._fail_rings(look, [ring], by)
        return done

    async def _fail_together(
        self, look: Look, rings: Sequence[tuple[Finding, Step]], by: str
    ) -> dict[str, Step]:
        """Rings fail in one transaction, those of them that are still as they were seen."""
        everybody = sorted({task for finding, one in rings for task in (*finding.members, *one.tasks)})
        async with self.store.db.transaction() as tx:
            await tx.fetch("lock_deadlocks")
            locked = await self.store.lock_tasks(tx, everybody)
            edges = {(row[0], row[1]) for row in await tx.fetch("edges_among", everybody)}
            intact = [
                (finding, one)
                for finding, one in rings
                if all(
                    task in locked
                    and locked[task].status == "blocked"
                    and locked[task].generation == look.facts.generation.get(task, 0)
                    for task in one.tasks
                )
                and all((edge["task"], edge["on"]) in edges for edge in finding.edges)
            ]
            failed = await tx.fetch(
                "fail_deadlocked",
                [task for _, one in intact for task in one.tasks],
                [dumps(_reason(finding)) for finding, one in intact for _ in one.tasks],
                self.store.node_id,
            )
            await self._close(tx, intact, by)
        await self._tell_failed(failed)
        return {finding.mark: one for finding, one in intact}

    async def _perform(self, look: Look, finding: Finding, one: Step, by: str) -> bool:
        """One step in one transaction; whether the world was still as it was seen."""
        if one.act is Act.FORGET:
            assert finding.culprit is not None
            await self.store.unlock([(finding.culprit, "failed")])
            async with self.store.db.transaction() as tx:
                await self._close(tx, [(finding, one)], by)
            return True
        failed: list[asyncpg.Record] = []
        stopped: list[str] = []
        parked: list[str] = []
        async with self.store.db.transaction() as tx:
            members = finding.everybody or finding.members
            await tx.fetch("lock_deadlocks")
            locked = await self.store.lock_tasks(tx, sorted({*members, *one.tasks}))
            if not await self._is_as_seen(tx, look, members, locked):
                return False
            await tx.fetch("lock_budgets", list(one.tasks))
            match one.act:
                case Act.PARK | Act.LEND:
                    rows = await tx.fetch("park_attempts", list(one.attempts), one.act is Act.LEND)
                    parked = [str(row[0]) for row in rows]
                    if len(parked) < len(one.attempts):
                        raise _MovedOnError
                case Act.REQUEUE:
                    for task in one.tasks:
                        stopped += await self._requeue(tx, look, finding, task)
                case Act.FAIL:
                    reason = dumps(_reason(finding))
                    for task in one.tasks:
                        rows = await tx.fetch("stop_attempts", task, reason)
                        stopped += [str(row[0]) for row in rows]
                    failed = await tx.fetch(
                        "fail_deadlocked", list(one.tasks), [reason] * len(one.tasks), self.store.node_id
                    )
            await self._close(tx, [(finding, one)], by)
        await self.store.notify("agentorch_cancel", hint(stopped))
        await self.store.notify("agentorch_slots", hint(parked))
        if one.act is Act.REQUEUE:
            await self.store.notify("agentorch_tasks", hint(list(one.tasks), delayed=True))
        await self._tell_failed(failed)
        return True

    async def _is_as_seen(
        self, tx: Transaction, look: Look, members: Sequence[str], locked: Mapping[str, Any]
    ) -> bool:
        """The tasks are there in the same generation, and their attempts hold and wait as they did."""
        for member in members:
            task = locked.get(member)
            if task is None or task.generation != look.facts.generation.get(member, 0):
                return False
            if task.status.is_final:
                return False
        seen = {one.message_id: one for member in members for one in look.facts.holdings.get(member, ())}
        rows = {str(row["message_id"]): row for row in await tx.fetch("waiting_attempts")}
        return all(
            message_id in rows
            and rows[message_id]["is_parked"] == one.is_parked
            and tuple(rows[message_id]["awaits"]) == one.awaits
            for message_id, one in seen.items()
        )

    async def _requeue(self, tx: Transaction, look: Look, finding: Finding, task: str) -> list[str]:
        restarts = look.system.tasks[task].restarts
        wait = backoff(1.0, restarts + 1, random.random)
        reason = dumps({**_reason(finding), "code": "deadlock", "retryable": True})
        rows = await tx.fetch("requeue_victim", task, wait, reason, self.store.node_id)
        if not rows:
            raise _MovedOnError
        return [str(message_id) for message_id in rows[0]["messages"]]

    async def _close(self, tx: Transaction, pairs: Sequence[tuple[Finding, Step]], by: str) -> None:
        await tx.fetch(
            "resolve_deadlocks",
            [stored_mark(finding.mark) for finding, _ in pairs],
            [one.sentence for _, one in pairs],
            [array_literal(one.tasks) for _, one in pairs],
            by,
            self.store.node_id,
        )

    async def _tell_failed(self, failed: Sequence[asyncpg.Record]) -> None:
        """After the commit: their dependents, and who waits for them. A sweep finds what is lost here."""
        if not failed:
            return
        ids = [row["task_id"] for row in failed]
        told = await self.store.unlock(
            [(row["task_id"], "failed") for row in failed if row["has_dependents"]]
        )
        await self.store.notify("agentorch_done", hint(ids))
        await self.store.notify("agentorch_tasks", hint(told.ready, delayed=told.delayed))

    async def _welcome_arrived(self) -> None:
        """Tasks that came while somebody noted that they did not exist: tell those who wait."""
        arrived = await self.store.db.fetch("arrived_references")
        over = [
            (row[0], row[1]) for row in arrived if row[1] in ("completed", "skipped", "failed", "cancelled")
        ]
        if over:
            await self.store.unlock(over)

    async def overdue(self) -> list[asyncpg.Record]:
        """Live attempts past twice their time limit."""
        return await self.store.db.fetch("overdue_attempts")

    async def pass_once(self, *, by: str = "monitor", least_away: float = 0.0) -> Outcome:
        """One look with all that follows from it."""
        look = await self.look(least_away=least_away)
        sure = self._confirmed(look.found, asyncio.get_running_loop().time())
        outcome = Outcome(unsure=len(look.found) - len(sure))
        look = replace(look, found=sure)
        outcome.has_work = look.has_work
        outcome.new = sorted(await self.record(sure, look.at))
        outcome.done = await self.resolve(look, self.steps(look), by)
        outcome.open = len(sure) - len(outcome.done)
        if look.has_open:
            outcome.dissolved = await self.dissolve(sure, look.at or FAR)
        return outcome

    def _confirmed(self, found: Sequence[Finding], now: float) -> tuple[Finding, ...]:
        """Circles stay; a dependency that has just ended, or an agent that is just coming, is no deadlock."""
        passing = {one.mark for one in found if one.kind in _PASSING}
        self._suspects = {mark: self._suspects.get(mark, now) for mark in passing}
        return tuple(
            one
            for one in found
            if now - self._suspects.get(one.mark, 0.0) >= CONFIRM or one.mark not in passing
        )


class _MovedOnError(Exception):
    """The world is not as it was seen; the transaction is rolled back."""


def stored_mark(mark: str) -> str:
    """A mark of any length as the index takes it."""
    if len(mark) <= 200:
        return mark
    return f"{mark[:100]}… {hashlib.sha256(mark.encode()).hexdigest()}"


def _reason(finding: Finding) -> dict[str, Any]:
    return {
        "code": "deadlock",
        "kind": str(finding.kind),
        "message": f"it can never run: {finding.reason}",
        "cycle": list(finding.members[:100]),
        "retryable": False,
    }


def _photograph(
    tasks: Sequence[asyncpg.Record],
    waits: Mapping[str, tuple[str, ...]],
    attempts: Sequence[asyncpg.Record],
    agents: Sequence[asyncpg.Record],
    ended: Sequence[asyncpg.Record],
    missing: Sequence[asyncpg.Record],
    grace: float,
) -> tuple[System, Facts]:
    """Rows as the detector sees them."""
    holdings: dict[str, list[Holding]] = {}
    at_work: set[str] = set()
    parks = {row["agent_id"]: row["park"] != "false" for row in agents}
    lent: dict[str, int] = {}
    for row in attempts:
        task_id, agent_id = row["task_id"], row["agent_id"]
        lent[agent_id] = lent.get(agent_id, 0) + row["is_lent"]
        if row["others_at_work"]:
            at_work.add(task_id)
        holdings.setdefault(task_id, []).append(
            Holding(
                str(row["message_id"]),
                task_id,
                agent_id,
                row["slot"],
                row["is_parked"],
                tuple(row["awaits"]),
                row["waited_s"],
                parks.get(agent_id, True),
            )
        )
    lent_ids = {str(row["message_id"]) for row in attempts if row["is_lent"]}
    fleet: dict[str, Agent] = {}
    for row in agents:
        agent_id, capabilities = row["agent_id"], frozenset(row["capabilities"])
        is_here = row["away_s"] is None or row["away_s"] < grace
        own_slot = frozenset((OWN_SLOT + agent_id,))
        # Also where it is paused or draining: whoever did that can end it, so what waits for it is not stuck.
        fleet[agent_id] = Agent(capabilities | own_slot, row["slots"], is_here, row["pool"])
    needs: dict[tuple[int, tuple[str, ...], int, str], Need] = {}
    found: dict[str, Task] = {row["task_id"]: Task(state=_STATES[row["status"]]) for row in ended}
    age: dict[str, float] = {}
    weight: dict[str, float] = {}
    generation: dict[str, int] = {}
    report_only: set[str] = set()
    for row in tasks:
        task_id, status, seconds = row["task_id"], row["status"], row["age_s"]
        age[task_id] = seconds
        if row["weight"] is not None:
            weight[task_id] = row["weight"]
        if row["generation"]:
            generation[task_id] = row["generation"]
        if row["on_deadlock"] == "report":
            report_only.add(task_id)
        own = holdings.get(task_id)
        if status == "running":
            if own is None or task_id in at_work:
                found[task_id] = _RUNNING
                continue
            found[task_id] = _awaiting(own, lent_ids, row)
            continue
        most = row["max_agents"] if row["coverage"] == "team" else 0
        key = (row["min_agents"], tuple(row["required_capabilities"]), most, row["pool"])
        need = needs.get(key)
        if need is None:
            need = Need(frozenset(key[1]), key[0], pool=key[3])
            need = needs[key] = replace(need, is_team=True, most=most) if most else need
        found[task_id] = Task(
            deps=waits.get(task_id, ()) if status == "blocked" else (),
            ignore_failure=row["on_dependency_failure"] != "fail",
            need=need,
            priority=row["priority"],
            restarts=row["restarts"],
            created_at=-seconds,
        )
    loans = {}
    for row in agents:
        allowed = row["lend"]
        if allowed is not None and allowed.isdecimal():
            loans[row["agent_id"]] = int(allowed[:6]) - lent.get(row["agent_id"], 0)
    facts = Facts(
        age,
        generation,
        frozenset(report_only),
        holdings,
        loans,
        {row["depends_on"]: row["waited_s"] for row in missing},
        weight,
    )
    return System(fleet, found), facts


_RUNNING = Task(state=State.RUNNING)


def _awaiting(own: Sequence[Holding], lent: set[str], row: asyncpg.Record) -> Task:
    """Work that has begun and waits: with the slots that it holds, or for the one that it gave back."""
    parked = [one for one in own if one.is_parked and one.message_id not in lent]
    return Task(
        state=State.AWAITING,
        deps=tuple(dict.fromkeys(child for one in own for child in one.awaits)),
        ignore_failure=True,
        need=Need(frozenset((OWN_SLOT + parked[0].agent_id,)), 1) if parked else Need(),
        holds=tuple(one.agent_id for one in own if not one.is_parked),
        priority=row["priority"],
        restarts=row["restarts"],
        work_seconds=row["work_s"],
        created_at=-row["age_s"],
    )
