"""Gives work that lasts far longer than other work of its kind a backup with another agent.

While a backup is out, the task has two agents and wants the first valid result: the machinery of tasks
with several agents settles it, and calls the other off. Only the node that leads looks, on a clock, and
only where this is turned on; what lasts long is told from memory, and the tables are asked only where
something does. A task gets one backup, only from an agent that is free, and never if it is on a budget,
for then it costs twice.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace

from agentorch_cli.core.ledger import quantile
from agentorch_cli.core.matching import skill_of
from agentorch_cli.core.purses import BUDGET
from agentorch_cli.engine.scheduler import Scheduler
from agentorch_cli.engine.state import State
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.frames import dumps
from agentorch_cli.store.store import Store, is_simple

log = logging.getLogger("agentorch.stragglers")

Cohort = tuple[str, str]
"""Skill and task type."""

SHARE = 0.95
"""The quantile of a cohort's durations that a straggler is compared with."""

MOST_SEEN = 200
"""Attempts that one look considers."""

COHORT_SECONDS = 10.0
"""What is known of a cohort is read again after this."""


@dataclass(frozen=True, slots=True)
class Patience:
    """The settings; durations in seconds."""

    is_enabled: bool = False
    factor: float = 3.0
    """Times the cohort's quantile that an attempt may last."""
    least_samples: float = 20.0
    """Completed attempts of which something must be known, after fading."""
    least_seconds: float = 1.0
    """No attempt that lasted for less is a straggler."""


class Stragglers:
    """The loop that backs up."""

    def __init__(self, state: State, store: Store, scheduler: Scheduler, rules: Patience) -> None:
        self.state = state
        self.store = store
        self.scheduler = scheduler
        self.rules = rules
        self._limits: dict[Cohort, tuple[float, float | None]] = {}
        """When it is read again, and after how many seconds one straggles; None: too little is known."""
        self._backed_up: set[str] = set()
        """Tasks that are not looked at again."""

    async def run(self) -> None:
        """For ever, or not at all."""
        if not self.rules.is_enabled:
            return
        while True:
            await asyncio.sleep(min(1.0, self.rules.least_seconds / 2))
            try:
                if self.state.is_leader and not self.state.is_stopping and self.state.running:
                    await self.look()
            except DatabaseUnreachable as error:
                log.warning("cannot look for stragglers: %s", error)
            except Exception:
                log.exception("a look for stragglers failed; the next one tries again")

    async def look(self) -> int:
        """One look; how many tasks were given a backup."""
        now = asyncio.get_running_loop().time()
        self._backed_up &= self.state.running.keys()
        old = self._old(now)
        if not old:
            return 0
        limits = await self._limits_of({cohort for cohort, _ in old.values()}, now)
        late = [
            message_id
            for message_id, (cohort, seconds) in old.items()
            if (limit := limits[cohort]) is not None and seconds > limit
        ]
        return await self._back_up(late, limits) if late else 0

    def _old(self, now: float) -> dict[str, tuple[Cohort, float]]:
        """Attempts that last for long enough to be looked at, with their cohorts and seconds."""
        found: dict[str, tuple[Cohort, float]] = {}
        for message_id, delivery in self.state.deliveries.items():
            seconds = now - delivery.begun
            if (
                seconds > self.rules.least_seconds
                and delivery.is_accepted
                and delivery.is_simple
                and not delivery.is_waiting
                and delivery.pool == self.state.pool
                and delivery.task_id not in self._backed_up
            ):
                cohort = (skill_of(frozenset(delivery.required_capabilities)), delivery.type)
                found[message_id] = (cohort, seconds)
        for message_id, attempt in self.state.elsewhere.items():
            seconds = now - attempt.begun
            if (
                seconds > self.rules.least_seconds
                and not (attempt.is_ahead or attempt.is_parked)
                and attempt.pool == self.state.pool
                and attempt.task_id not in self._backed_up
            ):
                found[message_id] = ((attempt.skill, attempt.type), seconds)
        return found

    async def _limits_of(self, cohorts: set[Cohort], now: float) -> dict[Cohort, float | None]:
        """After how many seconds an attempt of these cohorts is a straggler; None: too little is known."""
        unknown = [one for one in cohorts if one not in self._limits or self._limits[one][0] <= now]
        if unknown:
            rows = await self.store.db.fetch(
                "cohorts", [skill for skill, _ in unknown], [type for _, type in unknown]
            )
            read = {(row["skill"], row["task_type"]): list(row["latency"]) for row in rows}
            if len(self._limits) > 10_000:
                self._limits.clear()
            for one in unknown:
                self._limits[one] = (now + COHORT_SECONDS, self._limit(read.get(one, [])))
        return {one: self._limits[one][1] for one in cohorts}

    def _limit(self, latency: list[float]) -> float | None:
        seconds = quantile(latency, SHARE) if sum(latency) >= self.rules.least_samples else None
        return None if seconds is None else max(self.rules.least_seconds, self.rules.factor * seconds)

    async def _back_up(self, message_ids: list[str], limits: dict[Cohort, float | None]) -> int:
        """Ask for one more agent for each of these, as far as agents are free for them."""
        tasks: list[str] = []
        stories: list[str] = []
        agents: list[str] = []
        for agent_id, seconds, task in await self.store.straggling(message_ids[:MOST_SEEN]):
            limit = limits.get((skill_of(task.want.required), task.type))
            self.state.gates.place(task)
            on_budget = any(name.startswith(f"{BUDGET}:") for name in task.want.gates)
            if on_budget:
                self._backed_up.add(task.task_id)
            if limit is None or seconds <= limit or on_budget or not is_simple(1, task.options):
                continue
            if self.state.gates.closed(task, 1) is not None:
                continue
            want = replace(task.want, closed_to=task.want.closed_to | {agent_id}, may_wait=False)
            if self.state.roster.choose(want) is None:
                continue  # nobody is free for it: the next look tries again
            tasks.append(task.task_id)
            agents.append(agent_id)
            story = {"agent": agent_id, "seconds": round(seconds, 3), "limit_seconds": round(limit, 3)}
            stories.append(dumps(story))
        if not tasks:
            return 0
        rows = await self.store.db.fetch("back_up_tasks", tasks, agents, stories, self.store.node_id)
        begun = {row["task_id"] for row in rows}
        self._backed_up |= set(tasks)
        for delivery in self.state.deliveries.values():
            if delivery.task_id in begun:
                delivery.is_simple = False
        self.state.count("straggler_backed_up", len(begun))
        if self.state.bus.is_heard:
            for task_id in begun:
                self.state.bus.publish("straggler_backed_up", task_id=task_id)
        self.scheduler.hint(begun)
        return len(begun)
