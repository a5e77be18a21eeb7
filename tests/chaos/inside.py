"""A whole engine and its agents in this process, on real sockets and a real database; journals in memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import asyncpg

from agentorch_cli import Orchestrator
from agentorch_cli.chaos.agent import ChaosAgent
from agentorch_cli.chaos.checker import check
from agentorch_cli.chaos.evidence import Evidence, gather
from agentorch_cli.chaos.journal import Entry
from agentorch_cli.chaos.workload import Batch, Workload
from agentorch_cli.errors import DatabaseUnreachable

OPEN = """
select (select count(*) from task_distributions where completed_at is null)
  + (select count(*) from task_attempts where status in ('sent', 'accepted'))
"""


class Notes:
    """A journal that nobody kills."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def write(self, *entries: Entry) -> None:
        self.entries += [{"at": time.time(), **entry} for entry in entries]


class Inside:
    """Agents and a client around an engine."""

    def __init__(self, url: str) -> None:
        self.database_url = url
        self.notes: dict[str, Notes] = {"client": Notes()}
        self.agents: dict[str, ChaosAgent] = {}
        self._running: list[asyncio.Task[None]] = []

    def add_agents(self, url: str, number: int = 5, slots: int = 3) -> None:
        for _ in range(number):
            name = f"agent-{len(self.agents)}"
            notes = self.notes[name] = Notes()
            agent = self.agents[name] = ChaosAgent(name, notes, slots=slots, batch=len(self.agents) % 2 == 0)
            self._running.append(asyncio.create_task(agent.run(url)))

    async def until_registered(self) -> None:
        for agent in self.agents.values():
            await asyncio.wait_for(agent.is_registered.wait(), 10)

    async def submit(self, orchestrator: Orchestrator, batch: Batch) -> list[str]:
        """As a client does: again and again until there is an answer; the ids."""
        client = self.notes["client"]
        client.write({"what": "submitting", "batch": 0, "names": [task["name"] for task in batch]})
        while True:
            try:
                handles = await orchestrator.submit_all(batch)
                break
            except DatabaseUnreachable:
                await asyncio.sleep(0.02)
        told = [(task["name"], one.task_id, True) for task, one in zip(batch, handles, strict=True)]
        client.write({"what": "submitted", "batch": 0, "tasks": told})
        return [one.task_id for one in handles]

    async def submit_while(self, orchestrator: Orchestrator, lasting: asyncio.Task[Any], seed: int) -> None:
        """Some tasks of every kind, again and again, until something is over; and once more."""
        for part in range(1000):
            is_last = lasting.done()
            await self.submit(orchestrator, some_of_each(seed + part, name=f"part{part}"))
            if is_last:
                break
            await asyncio.sleep(0.2)
        await lasting

    async def until_over(self, seconds: float = 20.0) -> None:
        """Nothing is open and nothing is live. Raises TimeoutError with how things stand."""
        connection = await asyncpg.connect(self.database_url)
        end = time.monotonic() + seconds
        try:
            while await connection.fetchval(OPEN):
                if time.monotonic() > end:
                    raise TimeoutError(await _standing(connection))
                await asyncio.sleep(0.02)
        finally:
            await connection.close()

    async def evidence(self) -> Evidence:
        connection = await asyncpg.connect(self.database_url)
        try:
            return await gather(connection, self.journals)
        finally:
            await connection.close()

    async def faults(self) -> dict[str, list[str]]:
        """What is wrong, by rule; empty where nothing is."""
        found = check(await self.evidence())
        return {name: sentences[:5] for name, sentences in found.items() if sentences}

    @property
    def journals(self) -> dict[str, list[Entry]]:
        return {name: notes.entries for name, notes in self.notes.items()}

    async def stop(self) -> None:
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


@contextlib.asynccontextmanager
async def inside(url: str, agents_at: str | None = None, **many: int) -> AsyncIterator[Inside]:
    """Agents that are there for the length of a block, where an address for them is known."""
    crew = Inside(url)
    try:
        if agents_at is not None:
            crew.add_agents(agents_at, **many)
            await crew.until_registered()
        yield crew
    finally:
        await crew.stop()


def some_of_each(seed: int, *stories: str, name: str = "inside") -> Batch:
    """One story of each kind; of all kinds where none is named."""
    workload = Workload(name, seed, 100)
    names: Iterable[str] = stories or (
        "flat", "chain", "diamond", "failing", "retried", "vote", "team", "parent", "funded", "called_off",
    )  # fmt: skip
    found: Batch = []
    for name in names:
        story: Any = getattr(workload, name)
        found += story()
    return found


async def _standing(connection: asyncpg.Connection) -> str:
    rows = [
        *await connection.fetch(
            "select name, status, wanted, is_delayed, waiting_on, attempts_made, error"
            " from task_distributions where completed_at is null"
        ),
        *await connection.fetch(
            "select task_id, agent_id, attempt, status, is_parked from task_attempts"
            " where status in ('sent', 'accepted')"
        ),
    ]
    return "not over:\n" + "\n".join(str(dict(row)) for row in rows)
