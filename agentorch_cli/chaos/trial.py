"""One trial: a fleet on a fresh database, tasks of every kind, kills at random, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from agentorch_cli.chaos.checker import RULES, check
from agentorch_cli.chaos.crew import Crew
from agentorch_cli.chaos.evidence import gather
from agentorch_cli.chaos.injectors import FAULTS, Outage, chosen
from agentorch_cli.chaos.processes import observed

STUCK_SECONDS = 60.0
"""Without the end of a single task, outside of faults, nobody believes in it any more."""

WINDOW = 3_000
"""Open tasks that clients work ahead."""

MOST_KEPT = 20
"""Sentences of one rule that a report keeps."""

STANDING = """
select count(*) filter (where completed_at is not null and parent_id is null) as done,
  count(*) filter (where parent_id is null) as stored, count(*) filter (where completed_at is null) as open
from task_distributions
"""
FIRST_ASSIGNMENT = """
select extract(epoch from min(at))::float8
from (select at, kind from events order by tx desc, event_id desc limit 20000) as late
where kind = 'task_assigned' and at > to_timestamp($1)
"""
OPEN = "select count(*) from task_distributions where status in ('pending', 'blocked')"


@dataclass(frozen=True)
class Plan:
    """What is tried."""

    tasks: int = 1_000
    kills: int = 10
    agents: int = 8
    slots: int = 4
    clients: int = 2
    batch: int = 200
    seed: int = 1
    faults: tuple[str, ...] = ()
    """Names of `FAULTS`, in this order; empty: as many as there are kills, at random."""


@dataclass
class Verdict:
    """What came of it."""

    plan: Plan
    seconds: float = 0.0
    stored: int = 0
    """Tasks in the table at the end, sub-tasks among them."""
    outcomes: dict[str, int] = field(default_factory=dict)
    attempts: int = 0
    outages: list[Outage] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """What is wrong, by rule."""
    trouble: str | None = None
    """Why the trial could not be brought to its end."""

    @property
    def lost(self) -> int:
        return len(self.faults.get("submissions", ()))

    @property
    def doubled(self) -> int:
        return len(self.faults.get("outcomes", ()))

    @property
    def stuck(self) -> int:
        return len(self.faults.get("ends", ()))

    @property
    def slowest(self) -> Outage:
        """The one from which it took longest to recover."""
        return max(self.outages, key=lambda outage: outage.recovery, default=Outage("nothing"))

    @property
    def longest_recovery(self) -> float:
        return self.slowest.recovery

    @property
    def holds(self) -> bool:
        """Every rule does, and the trial came to its end."""
        return self.trouble is None and not any(self.faults.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "seed": self.plan.seed,
            "tasks": self.plan.tasks,
            "kills": len(self.outages),
            "stored": self.stored,
            "attempts": self.attempts,
            "outcomes": self.outcomes,
            "seconds": round(self.seconds, 1),
            "lost": self.lost,
            "double_outcomes": self.doubled,
            "stuck": self.stuck,
            "longest_recovery_seconds": round(self.longest_recovery, 3),
            "recoveries": [
                {"what": outage.what, "seconds": round(outage.recovery, 3)} for outage in self.outages
            ],
            "rules": {
                name: {"faults": len(found), "first": found[:MOST_KEPT]}
                for name, found in self.faults.items()
            },
            "trouble": self.trouble,
        }


Tell = Callable[[int, int, str | None], None]
"""Called with tasks done, tasks wanted, and a sentence where there is news."""


class Trial:
    """Runs a plan in a folder of its own."""

    def __init__(self, plan: Plan, folder: Path, tell: Tell = lambda done, wanted, news: None) -> None:
        self.plan = plan
        self.crew = Crew(folder)
        self.verdict = Verdict(plan)
        self._tell = tell
        self._chance = random.Random(plan.seed)
        self._done = 0
        self._stored = 0
        self._open = 0
        self._moved = time.monotonic()

    async def run(self) -> Verdict:
        """The whole story; the fleet has ended afterwards."""
        began = time.monotonic()
        try:
            try:
                await self._start()
                await self._go_through()
            except (TimeoutError, RuntimeError) as error:
                self.verdict.trouble = str(error)
            self.verdict.seconds = time.monotonic() - began
            await self._judge()
        finally:
            await self.crew.close()
        return self.verdict

    async def _start(self) -> None:
        plan, crew = self.plan, self.crew
        self._news("starting PostgreSQL, serve and the agents")
        await asyncio.to_thread(crew.serve.start)
        crew.add_agents(plan.agents, slots=plan.slots)
        await crew.until_online()
        crew.add_clients(plan.clients, seed=plan.seed, tasks=plan.tasks, batch=plan.batch)

    async def _go_through(self) -> None:
        names = list(self.plan.faults) or chosen(self.plan.kills, self._chance)
        for number, name in enumerate(names, start=1):
            await self._until_done(self.plan.tasks * number // (len(names) + 1))
            await asyncio.sleep(self._chance.random() * 0.2)
            await self._break(name, f"kill {number} of {len(names)}: {name}")
        await self._until_done(None)

    # --- progress ---------------------------------------------------------------------------

    async def _until_done(self, wanted: int | None) -> None:
        """So many tasks have ended; None: all, and nobody submits any more. Raises TimeoutError."""
        while True:
            await self._look()
            if wanted is not None and self._done >= wanted:
                return
            is_over = all(client.has_finished for client in self.crew.clients)
            if is_over and not self._open and self._stored >= self.plan.tasks:
                return
            if time.monotonic() - self._moved > STUCK_SECONDS:
                raise TimeoutError(f"nothing has ended for {STUCK_SECONDS:g} s, {self._open} tasks are open")
            await asyncio.sleep(0.2)

    async def _look(self) -> None:
        """How far it is; clients get to do what the window admits."""
        row = (await self.crew.ask(STANDING))[0]
        if row["done"] != self._done:
            self._moved = time.monotonic()
        self._done, self._stored, self._open = row["done"], row["stored"], row["open"]
        for client in self.crew.clients:
            share = (self._done + WINDOW) / len(self.crew.clients)
            while not client.has_finished and client.given * client.batch < min(share, client.tasks + 1):
                before = client.given
                client.ask()
                if client.given == before:
                    break
        self._tell_of(None)

    def _news(self, sentence: str) -> None:
        self._tell_of(sentence)

    def _tell_of(self, news: str | None) -> None:
        """Agents add sub-tasks of their own, so that in the end there are more than were planned."""
        self._tell(self._done, max(self.plan.tasks, self._stored), news)

    # --- faults -----------------------------------------------------------------------------

    async def _break(self, name: str, label: str) -> None:
        """Inject one fault and wait for the next assignment."""
        self._news(label)
        async with self._outage(name) as outage:
            await FAULTS[name][0](self.crew, outage, self._chance)
        self._news(f"first assignment {outage.recovery:.2f} s after all could work again")

    @contextlib.asynccontextmanager
    async def _outage(self, name: str) -> AsyncIterator[Outage]:
        outage = Outage(name, time.time())

        def answered(at: float) -> None:
            outage.answered = at

        probing = asyncio.create_task(self.crew.probe(answered))
        try:
            yield outage
            outage.restored = outage.restored or time.time()
            await self._until_assigned(outage)
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
        self.verdict.outages.append(outage)

    async def _until_assigned(self, outage: Outage) -> None:

        async def assigned() -> float | None:
            since = max(outage.restored, outage.answered)
            found: float | None = await self.crew.ask_one(FIRST_ASSIGNMENT, since)
            if found is None and not await self.crew.ask_one(OPEN):
                return time.time()
            await self._look()
            return found

        what = f"an assignment after: {outage.what}"
        outage.assigned = await self.crew.until(what, assigned, STUCK_SECONDS)
        self._moved = time.monotonic()

    # --- the end ----------------------------------------------------------------------------

    async def _judge(self) -> None:
        """Let what is on its way arrive, then read everything."""
        self._news("checking")
        with contextlib.suppress(TimeoutError):
            await self.crew.until("nothing is live", self._is_quiet, 10)
        connection = await asyncpg.connect(**observed(self.crew.data_dir))
        try:
            evidence = await gather(connection, self.crew.journals)
        finally:
            await connection.close()
        self.verdict.stored = len(evidence.tasks)
        self.verdict.attempts = len(evidence.attempts)
        self.verdict.outcomes = dict(
            sorted(Counter(task["status"] for task in evidence.tasks.values()).items())
        )
        self.verdict.faults = {name: [] for name in RULES} | await asyncio.to_thread(check, evidence)
        lost = self.crew.lost_agents()
        if lost and self.verdict.trouble is None:
            self.verdict.trouble = f"agents ended by themselves: {', '.join(lost)}"

    async def _is_quiet(self) -> bool:
        live = "select count(*) from task_attempts where status in ('sent', 'accepted')"
        return not await self.crew.ask_one(live)
