"""A data directory with real processes on it, which a test may kill and start again.

Everything that is asked of the database is asked by this room's own connection and its own
statements, not by the engine's code; while the database is away, a question waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench.fleet.processes import AgentProcess, Serve, new_data_dir, remove
from bench.fleet.timed_agent import CAPABILITY
from bench.fleet.workflow import Workflow

QUICK = {
    "AGENTORCH_ENGINE_MAX_CONCURRENT_TASKS": "0",
    "AGENTORCH_ENGINE_LEASE_SECONDS": "2",
    "AGENTORCH_ENGINE_POLL_INTERVAL": "1",
    "AGENTORCH_ENGINE_DRAIN_TIMEOUT": "1",
    "AGENTORCH_GATEWAY_HEARTBEAT_INTERVAL": "1",
    "AGENTORCH_LOGGING_LEVEL": "info",
}
"""A node that is quick to notice; an agent's grace is three seconds."""

AWAY = (
    OSError,
    IndexError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what the driver makes of a server that dies between two messages
)

FIRST_ASSIGNMENT = """
  select extract(epoch from min(at))::float8 from events
  where kind = 'task_assigned' and at > greatest(to_timestamp($1), pg_postmaster_start_time())"""


@dataclass
class Outage:
    """A stretch in which the engine could not be expected to assign; seconds since the epoch."""

    what: str
    began: float
    restarted: float = 0.0
    answered: float = 0.0
    """The database answers, as far as it was away."""
    ended: float = 0.0
    """The first assignment after the restart."""

    def __str__(self) -> str:
        return (
            f"{self.what:32} restart to first assignment {self.ended - self.restarted:5.2f} s,"
            f" of that after the database answered {self.ended - max(self.answered, self.restarted):5.2f} s"
        )


class Cluster:
    """Nodes and agents on one data directory."""

    def __init__(self, **settings: str) -> None:
        self.data_dir = new_data_dir()
        self.folder = self.data_dir.parent
        self.settings = QUICK | settings
        self.nodes: list[Serve] = []
        self.agents: dict[str, AgentProcess] = {}
        self.outages: list[Outage] = []
        self._db: asyncpg.Connection | None = None

    @property
    def serve(self) -> Serve:
        return self.nodes[0]

    async def add_node(self) -> Serve:
        """Another `serve`, ready to take agents."""
        node = Serve(self.data_dir, name=f"serve-{len(self.nodes)}", environment=self.settings)
        self.nodes.append(node)
        await asyncio.to_thread(node.start)
        return node

    def add_agents(self, number: int, *, slots: int = 1, node: Serve | None = None) -> None:
        """Agents with journals."""
        url = (node or self.serve).url
        for _ in range(number):
            name = f"agent-{len(self.agents)}"
            self.agents[name] = AgentProcess(
                url,
                name,
                slots=slots,
                journal=self.folder / f"{name}.journal",
                log=self.folder / "agents.log",
            )
            self.agents[name].start()

    async def submit(self, workflow: Workflow, **fields: Any) -> int:
        """Submit a graph as a person does; how many tasks it has."""
        tasks = [
            {
                "name": job.name,
                "type": "timed",
                "required_capabilities": [CAPABILITY],
                "depends_on": list(job.depends_on),
                "data": {"seconds": job.seconds},
                **fields,
            }
            for job in workflow.jobs
        ]
        file = self.folder / "tasks.json"
        file.write_text(json.dumps({"tasks": tasks}))
        await self.command("task", "submit", str(file))
        return len(tasks)

    async def command(self, *arguments: str) -> str:
        """Run `agentorch` on this data directory; what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agentorch_cli",
            "--data-dir",
            str(self.data_dir),
            *arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **self.settings},
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    # --- the database, seen from outside ----------------------------------------------------

    async def ask(self, statement: str, *arguments: Any, seconds: float = 60.0) -> list[asyncpg.Record]:
        """Rows; waits for a database that is away."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self._db is None or self._db.is_closed():
                    self._db = await asyncpg.connect(**self.serve.dsn(), timeout=5)
                return await self._db.fetch(statement, *arguments, timeout=10)
            except AWAY:
                if self._db is not None:
                    self._db.terminate()
                self._db = None
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.02)

    async def ask_one(self, statement: str, *arguments: Any) -> Any:
        return (await self.ask(statement, *arguments))[0][0]

    async def until(self, what: str, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait for a condition (an async one) to hold; tells how things stand if it does not."""
        end = time.monotonic() + seconds
        while not (found := await condition()):
            if time.monotonic() > end:
                raise AssertionError(f"not in {seconds:g} s: {what}\n{await self.standing()}")
            await asyncio.sleep(0.02)
        return found

    async def completed(self) -> int:
        return int(await self.ask_one("select count(*) from task_distributions where status = 'completed'"))

    async def until_completed(self, number: int, seconds: float = 60.0) -> None:
        async def enough() -> bool:
            return await self.completed() >= number

        await self.until(f"{number} tasks completed", enough, seconds)

    async def until_over(self, number: int, seconds: float = 60.0) -> None:
        """That many tasks are completed, and nothing is live any more."""
        await self.until_completed(number, seconds)
        await self.until_live(0)

    async def until_live(self, number: int) -> None:
        async def as_many() -> bool:
            live = "select count(*) from task_attempts where status in ('sent', 'accepted')"
            return int(await self.ask_one(live)) == number

        await self.until(f"{number} live attempts", as_many, 10)

    async def until_online(self, number: int | None = None) -> None:
        wanted = len(self.agents) if number is None else number

        async def enough() -> bool:
            there = await self.ask_one("select count(*) from agent_registry where status = 'online'")
            return int(there) >= wanted

        await self.until(f"{wanted} agents online", enough, 30)

    async def standing(self) -> str:
        """Where everything is, for a test that waits in vain."""
        tasks = await self.ask(
            "select status, wanted, is_delayed, count(*) from task_distributions group by 1, 2, 3"
        )
        attempts = await self.ask(
            "select agent_id, status, count(*) from task_attempts group by 1, 2 order by 1, 2"
        )
        agents = await self.ask("select agent_id, status, node_id from agent_registry order by 1")
        logs = [node.log.read_text()[-2500:] for node in self.nodes]
        return "\n".join(map(str, [*tasks, *attempts, *agents, *logs]))

    # --- faults -----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def outage(self, what: str) -> AsyncIterator[Outage]:
        """Whatever is killed inside must be started again inside; waits for the next assignment."""
        outage = Outage(what, time.time())
        yield outage
        outage.restarted = outage.restarted or time.time()
        await self.ask("select 1")
        outage.answered = outage.answered or time.time()

        async def assigned() -> float | None:
            if (
                await self.ask_one(
                    "select count(*) from task_distributions where status in ('pending', 'blocked')"
                )
                == 0
            ):
                return time.time()
            found: float | None = await self.ask_one(FIRST_ASSIGNMENT, outage.restarted)
            return found

        outage.ended = await self.until(f"an assignment after: {what}", assigned, 30)
        self.outages.append(outage)

    async def restart_serve(self, outage: Outage) -> None:
        """On the same port and data directory."""
        outage.restarted = time.time()
        await asyncio.to_thread(self.serve.start)

    def kill_postgres(self) -> None:
        """SIGKILL the postmaster; its backends notice by themselves."""
        pid = self.serve.postmaster_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    async def until_postgres_is_back(self, outage: Outage) -> None:
        """Nobody but `serve` starts it again."""

        async def is_new() -> bool:
            age = "select pg_postmaster_start_time() > to_timestamp($1)"
            return bool(await self.ask_one(age, outage.began))

        await self.until("PostgreSQL is back", is_new, 30)
        outage.answered = time.time()

    async def close(self) -> None:
        if self._db is not None:
            self._db.terminate()
        for agent in self.agents.values():
            await asyncio.to_thread(agent.stop)
        for node in self.nodes:
            await asyncio.to_thread(node.stop)
        await asyncio.to_thread(remove, Path(self.data_dir))
