"""The program as it is run: `serve` on PostgreSQL with fsync on, agents in other processes, and a client.

Every measurement begins with a fresh database: an embedded one in a folder of its own, or one that is
made on the server that `use_server` names. All of it is taken away at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil

from agentorch_cli.chaos.processes import Serve, clean_environment, new_data_dir, remove
from agentorch_cli.client import LocalClient
from agentorch_cli.config import load_settings
from agentorch_cli.settings import Settings
from agentorch_cli.wiring import open_client

ROOT = Path(__file__).parents[2]

UNLIMITED = {"AGENTORCH_ENGINE_MAX_CONCURRENT_TASKS": "0"}
"""How many tasks may run at once is the agents' slots here."""

HOT_TABLES = ("task_distributions", "task_attempts", "events", "task_dependencies", "agent_registry")


class Observer(Protocol):
    """Looks at an engine from outside while it is measured: `bench.profile`."""

    async def begin(self, engine: Engine) -> None: ...
    async def end(self, engine: Engine) -> None: ...


@dataclass
class Surroundings:
    """What the runner says for all engines that are started."""

    server: str = ""
    """A PostgreSQL to make databases on; empty: the embedded one."""
    observer: Observer | None = None
    postgres_seconds: float = 0.0
    """CPU of embedded servers that are gone: no child of this process, so nobody else counts it."""
    engines: list[Engine] = field(default_factory=list)
    """Those that run now."""


SURROUNDINGS = Surroundings()


class Engine:
    """A database, nodes on it, and agents that are connected to them."""

    def __init__(
        self, *, slots: int = 500, single: bool = False, environment: Mapping[str, str] | None = None
    ) -> None:
        """`single`: agents that get and send one message a frame."""
        self.data_dir = new_data_dir()
        self.slots, self.single = slots, single
        self.nodes: list[Serve] = []
        self.agents: list[subprocess.Popen[bytes]] = []
        self.database_url = ""
        self._environment = {**UNLIMITED, **(environment or {})}
        self._client: LocalClient | None = None

    # --- life -------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """Of a client beside the nodes."""
        flags = {"data_dir": str(self.data_dir), "database.url": self.database_url or None}
        return load_settings(flags, {}, None, self.data_dir.parent)

    @property
    def environment(self) -> dict[str, str]:
        """For another command on the same database."""
        url = {"DATABASE_URL": self.database_url} if self.database_url else {}
        return {**clean_environment(), **self._environment, **url}

    @property
    def client(self) -> LocalClient:
        assert self._client is not None
        return self._client

    @property
    def db(self) -> asyncpg.Pool:
        return self.client.context.db.pool

    @property
    def url(self) -> str:
        return self.nodes[0].url

    async def prepare(self) -> None:
        if SURROUNDINGS.server:
            self.database_url = await _new_database(SURROUNDINGS.server, self.data_dir.parent.name)
            setup = run_program(self, "init-db", stdout=subprocess.DEVNULL)
            if await asyncio.to_thread(setup.wait, 120):
                raise RuntimeError(f"init-db ended with {setup.returncode}")

    def start_node(self, environment: Mapping[str, str] | None = None) -> Serve:
        """One more `serve`."""
        given = {**self.environment, **(environment or {})}
        node = Serve(self.data_dir, name=f"serve-{len(self.nodes)}", environment=given)
        node.start()
        self.nodes.append(node)
        return node

    def start_agent(self, node: int = 0, agent_id: str = "", *, slots: int | None = None) -> None:
        """A process that answers every task at once."""
        agent_id = agent_id or f"bench-agent-{len(self.agents)}"
        command = [sys.executable, "-m", "bench.noop_agent", self.nodes[node].url, agent_id]
        command += ["--slots", str(slots or self.slots), *(["--single"] if self.single else [])]
        self.agents.append(subprocess.Popen(command, cwd=ROOT, env=clean_environment()))

    async def until_online(self, number: int) -> None:
        while await self.db.fetchval("select count(*) from agent_registry where status = 'online'") < number:
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        for agent in self.agents:
            agent.terminate()
        for agent in self.agents:
            with contextlib.suppress(subprocess.TimeoutExpired):
                agent.wait(10)
            agent.kill()
            agent.wait()
        with contextlib.suppress(psutil.Error, OSError, IndexError):
            SURROUNDINGS.postgres_seconds += self._postgres_seconds()
        for node in self.nodes:
            node.stop()
        remove(self.data_dir)

    async def clear(self) -> None:
        if self.database_url:
            await _drop_database(SURROUNDINGS.server, self.database_url)

    # --- what it uses -----------------------------------------------------------------------

    def pids(self) -> dict[str, int]:
        """By name: `serve`, `serve-2` and so on, `agent`, `agent-2`."""
        found = {"serve" if not n else f"serve-{n + 1}": node.pid for n, node in enumerate(self.nodes)}
        found |= {"agent" if not n else f"agent-{n + 1}": one.pid for n, one in enumerate(self.agents)}
        return found

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time used so far by each part: what the machine's noise does not change."""
        used = {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in self.pids().items()}
        if not self.database_url:
            used["postgres"] = self._postgres_seconds()
        used["client"] = sum(psutil.Process().cpu_times()[:2])
        return used

    def _postgres_seconds(self) -> float:
        if self.database_url:
            return 0.0
        pid = self.nodes[0].postmaster_pid() if self.nodes else None
        if pid is None:
            return 0.0
        postmaster = psutil.Process(pid)
        # The times of children that ended are in the postmaster's own account.
        used = sum(postmaster.cpu_times()[:4])
        for child in postmaster.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                used += sum(child.cpu_times()[:2])
        return float(used)

    def memory(self) -> dict[str, float]:
        """Resident bytes of each process, in kB."""
        return {name: psutil.Process(pid).memory_info().rss / 1024 for name, pid in self.pids().items()}

    async def wal_bytes(self) -> int:
        """Of the write-ahead log, since ever."""
        return int(await self.db.fetchval("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))

    async def tables(self) -> dict[str, dict[str, int]]:
        """Live and dead rows as PostgreSQL counts them, and bytes with indexes, of the tables that change."""
        rows = await self.db.fetch(
            "select relname, n_live_tup, n_dead_tup, n_tup_upd, n_tup_hot_upd, pg_table_size(relid) as heap,"
            " pg_indexes_size(relid) as indexes from pg_stat_user_tables where relname = any($1)",
            list(HOT_TABLES),
        )
        return {
            row["relname"]: {
                "live": row["n_live_tup"],
                "dead": row["n_dead_tup"],
                "updates": row["n_tup_upd"],
                "hot_updates": row["n_tup_hot_upd"],
                "heap_bytes": row["heap"],
                "index_bytes": row["indexes"],
            }
            for row in rows
        }


@contextlib.asynccontextmanager
async def engine(
    *,
    slots: int = 500,
    single: bool = False,
    nodes: Sequence[Mapping[str, str]] = ({},),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Engine]:
    """A running engine with a client; `nodes`: settings of each node on top of the common ones."""
    one = Engine(slots=slots, single=single, environment=environment)
    try:
        await one.prepare()
        for node in nodes:
            await asyncio.to_thread(one.start_node, node)
        async with open_client(one.settings) as client:
            one._client = client
            with _known(one):
                async with _observed(one):
                    yield one
    finally:
        await asyncio.to_thread(one.stop)
        await one.clear()


@contextlib.contextmanager
def _known(one: Engine) -> Iterator[None]:
    SURROUNDINGS.engines.append(one)
    try:
        yield
    finally:
        SURROUNDINGS.engines.remove(one)


@contextlib.asynccontextmanager
async def _observed(one: Engine) -> AsyncIterator[None]:
    observer = SURROUNDINGS.observer
    if observer is None:
        yield
        return
    await observer.begin(one)
    try:
        yield
    finally:
        await observer.end(one)


async def _new_database(server: str, name: str) -> str:
    name = f"bench_{name.replace('-', '_').lower()}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f'create database "{name}"')
    finally:
        await connection.close()
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


async def _drop_database(server: str, url: str) -> None:
    name = urlsplit(url).path.lstrip("/")
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f'drop database if exists "{name}" with (force)')
    finally:
        await connection.close()


def run_program(one: Engine, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """A command of the program beside the engine."""
    command = [sys.executable, "-m", "agentorch_cli", "--data-dir", str(one.data_dir), *arguments]
    return subprocess.Popen(command, env=one.environment, cwd=ROOT, **options)
