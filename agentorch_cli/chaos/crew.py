"""Everybody who takes part in a trial, and how the harness sees the database: by its own connection."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from agentorch_cli.chaos.journal import SUFFIX, read
from agentorch_cli.chaos.processes import (
    Child,
    Serve,
    end_postgres,
    observed,
    postmaster_pid,
)

QUICK = {
    "AGENTORCH_ENGINE_MAX_CONCURRENT_TASKS": "0",
    "AGENTORCH_ENGINE_LEASE_SECONDS": "2",
    "AGENTORCH_ENGINE_POLL_INTERVAL": "1",
    "AGENTORCH_ENGINE_RESPONSE_TIMEOUT": "10",
    "AGENTORCH_ENGINE_DRAIN_TIMEOUT": "1",
    "AGENTORCH_GATEWAY_HEARTBEAT_INTERVAL": "1",
    "AGENTORCH_LOGGING_LEVEL": "info",
}
"""A node that is quick to notice: an agent's grace is three seconds."""

PROBE_SECONDS = 1.0
"""A database that takes longer to say 1 is away."""

AWAY = (
    OSError,
    IndexError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what the driver makes of a server that dies between two messages
)


class Client(Child):
    """A submitting client, which sends one batch for each line on its stdin."""

    def __init__(self, name: str, seed: int, tasks: int, batch: int, voters: int, crew: Crew) -> None:
        self.journal = crew.journals / f"{name}{SUFFIX}"
        self.tasks = tasks
        self.batch = batch
        self.given = 0
        """Batches that it was asked for."""
        command = [sys.executable, "-m", "agentorch_cli.chaos.client", name]
        command += ["--seed", str(seed), "--tasks", str(tasks), "--batch", str(batch)]
        command += ["--voters", str(voters), "--journal", str(self.journal)]
        command += ["--", "--data-dir", str(crew.data_dir)]
        super().__init__(name, command, log=crew.folder / "clients.log", environment=crew.settings)

    def start(self) -> None:
        """What it was asked for and has not answered, it is asked for again."""
        if self.journal.exists():
            self.given = len({one["batch"] for one in read(self.journal) if one["what"] == "submitted"})
        self.launch(stdin=subprocess.PIPE)

    def ask(self) -> None:
        """For one more batch."""
        assert self.process is not None and self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(b"\n")
            self.process.stdin.flush()
            self.given += 1

    @property
    def has_finished(self) -> bool:
        """All that it had is submitted. Raises RuntimeError where it broke instead."""
        if self.is_alive or self.process is None:
            return False
        if self.process.returncode != 0:
            assert self.log is not None
            raise RuntimeError(f"client {self.name} ended: {self.log.read_text(errors='replace')[-2000:]}")
        return True


class Crew:
    """Serve, agents and clients on one data directory."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.journals = folder / "journals"
        self.journals.mkdir(parents=True, exist_ok=True)
        self.settings = {**QUICK, **(settings or {})}
        self.serve = Serve(self.data_dir, environment=self.settings)
        self.agents: dict[str, Child] = {}
        self.clients: list[Client] = []
        self._db: asyncpg.Connection | None = None

    def add_agents(self, number: int, *, slots: int = 4, url: str | None = None) -> None:
        """Of every kind in turn: batched or not, with a memory or without, and one with the SDK."""
        kinds: Sequence[tuple[str, tuple[str, ...]]] = (
            ("agent", ()),
            ("sdk_agent", ()),
            ("agent", ("--forget",)),
            ("agent", ("--one-by-one",)),
        )
        for _ in range(number):
            name = f"agent-{len(self.agents)}"
            module, options = kinds[len(self.agents) % len(kinds)]
            command = [sys.executable, "-m", f"agentorch_cli.chaos.{module}", url or self.serve.url, name]
            command += ["--slots", str(slots), "--journal", str(self.journals / f"{name}{SUFFIX}"), *options]
            self.agents[name] = Child(name, command, log=self.folder / "agents.log")
            self.agents[name].start()

    def add_clients(self, number: int, *, seed: int, tasks: int, batch: int) -> None:
        """They share the tasks."""
        for place in range(number):
            share = tasks // number + (place < tasks % number)
            client = Client(f"client-{place}", seed, share, batch, min(5, len(self.agents)), self)
            self.clients.append(client)
            client.start()

    def lost_agents(self) -> list[str]:
        """Agents that ended although nobody killed them."""
        return [name for name, agent in self.agents.items() if not agent.is_alive]

    # --- the database, seen from outside ------------------------------------------------------

    async def ask(self, statement: str, *arguments: Any, seconds: float = 120.0) -> list[asyncpg.Record]:
        """Rows; waits for a database that is away."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self._db is None or self._db.is_closed():
                    self._db = await asyncpg.connect(**observed(self.data_dir), timeout=5)
                return list(await self._db.fetch(statement, *arguments, timeout=30))
            except AWAY:
                self.forget_connection()
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.02)

    async def ask_one(self, statement: str, *arguments: Any) -> Any:
        return (await self.ask(statement, *arguments))[0][0]

    def forget_connection(self) -> None:
        if self._db is not None:
            self._db.terminate()
        self._db = None

    async def until(self, what: str, condition: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        """Wait for a condition to hold. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not (found := await condition()):
            if time.monotonic() > end:
                raise TimeoutError(f"not in {seconds:g} s: {what}")
            await asyncio.sleep(0.02)
        return found

    async def until_online(self, seconds: float = 60.0) -> None:
        """All agents have connected."""

        async def all_there() -> bool:
            there = await self.ask_one("select count(*) from agent_registry where status = 'online'")
            return bool(there >= len(self.agents))

        await self.until("all agents are online", all_there, seconds)

    async def probe(self, answered: Callable[[float], None]) -> None:
        """For ever, on a connection of its own: tells each time that the database answers again."""
        connection: asyncpg.Connection | None = None
        was_away = False
        while True:
            try:
                connection = connection or await asyncpg.connect(
                    **observed(self.data_dir), timeout=PROBE_SECONDS
                )
                await connection.fetchval("select 1", timeout=PROBE_SECONDS)
                if was_away:
                    answered(time.time())
                was_away = False
            except AWAY:
                was_away = True
                if connection is not None:
                    connection.terminate()
                connection = None
            except asyncio.CancelledError:
                if connection is not None:
                    connection.terminate()
                raise
            await asyncio.sleep(0.02)

    def postmaster(self) -> int | None:
        return postmaster_pid(self.data_dir)

    async def backends(self) -> list[int]:
        """Of the program, not of this observer."""
        rows = await self.ask(
            "select pid from pg_stat_activity where application_name like 'orchestrator%' order by pid"
        )
        return [row["pid"] for row in rows]

    async def until_postgres_is_new(self, began: float) -> None:
        """It was started after that moment: by `serve`, or by a client that needed it."""

        async def is_new() -> bool:
            return bool(await self.ask_one("select pg_postmaster_start_time() > to_timestamp($1)", began))

        await self.until("PostgreSQL is back", is_new, 60)

    async def close(self) -> None:
        """End everybody; PostgreSQL goes with the last."""
        self.forget_connection()
        for child in (*self.clients, *self.agents.values(), self.serve):
            await asyncio.to_thread(child.stop)
        await asyncio.to_thread(end_postgres, self.data_dir)
