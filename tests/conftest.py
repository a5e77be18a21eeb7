"""One real PostgreSQL for the whole run, and in it an empty database for each test that asks.

The server is the embedded one, started once, in a directory that is made here and not by
`tmp_path`: root's server runs as another user, and pytest closes its own folder to others.
A test's database has the schema and no rows. Making one takes about 0.2 s, so it is emptied after
the test and handed to the next: some milliseconds.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from agentorch_cli.config import Settings
from agentorch_cli.logs import NOISY
from agentorch_cli.store.database import Database
from agentorch_cli.store.embedded import EmbeddedServer
from agentorch_cli.wiring import Orchestrator
from tests.databases import TEMPLATE, execute, named, new_database

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control has what it starts in the background ignore Ctrl-C, and what that starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` has the same done with the end of a terminal

# How long an example takes says what else the machine has to do.
hypothesis.settings.register_profile(
    "agentorch", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("agentorch")

HEARTBEAT = 0.4
"""Seconds, in place of 10: a lost agent's grace is three of these."""

EMPTY = """
do $$
declare one record;
begin
  perform pg_terminate_backend(pid)
    from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid();
  set local session_replication_role = replica;
  for one in
    select relname, pg_relation_size(oid) as bytes from pg_class
    where relkind = 'r' and relnamespace = 'public'::regnamespace and relname <> 'schema_migrations'
  loop
    -- small tables are quicker to delete from; large ones should not leave their dead rows behind
    execute format(
      case when one.bytes > 1000000 then 'truncate %I cascade' else 'delete from %I' end, one.relname);
  end loop;
end $$
"""
"""Ends what a test left connected, and takes all rows away."""

_numbers = itertools.count(1)
_free: list[str] = []
"""Databases that earlier tests have given back."""


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """What a command of this test says of its logs holds for this test."""
    ours = logging.getLogger("agentorch")
    before = (list(ours.handlers), ours.propagate, ours.level)
    levels = {name: logging.getLogger(name).level for name in NOISY}
    yield
    ours.handlers, ours.propagate = before[0], before[1]
    ours.setLevel(before[2])
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of the run's own server, with a template database that has the schema."""
    directory = Path(tempfile.mkdtemp(prefix="agentorch-tests-"))
    directory.chmod(0o711)
    server = EmbeddedServer(directory / "data")
    try:
        yield asyncio.run(_start(server))
    finally:
        # The files go first: a server that has lost them has nothing to save, and ends at once.
        shutil.rmtree(directory, ignore_errors=True)
        asyncio.run(server.release())
        shutil.rmtree(directory, ignore_errors=True)


async def _start(server: EmbeddedServer) -> str:
    address = await server.start()
    await execute(address, f"create database {TEMPLATE}")
    database = Database(named(address, TEMPLATE), node_id="tests", pool_size=2)
    await database.open()
    await database.migrate()
    await database.close()
    return address


@pytest.fixture
async def database_url(postgres: str) -> AsyncIterator[str]:
    """A database of the test's own, with the schema and nothing in it."""
    if _free:
        name = _free.pop()
    else:
        name = f"test_{next(_numbers)}"
        await new_database(postgres, name)
    yield named(postgres, name)
    await execute(named(postgres, name), EMPTY)
    _free.append(name)


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings of an engine that is quick to notice and to give up, on any free port."""
    return quick_settings(database_url)


def quick_settings(database_url: str, **changes: dict[str, Any]) -> Settings:
    """The same, with other values: `quick_settings(url, engine={"response_timeout": 0.2})`."""
    values: dict[str, dict[str, Any]] = {
        "database": {"url": database_url, "pool_size": 4},
        "engine": {
            "response_timeout": 5.0,
            "lease_seconds": 2.0,
            "poll_interval": 0.3,
            "drain_timeout": 0.0,
            "backoff": 0.01,
            "max_concurrent_tasks": 0,
        },
        "gateway": {"port": 0, "heartbeat_interval": HEARTBEAT, "register_timeout": 1.0},
    }
    for section, wanted in changes.items():
        values.setdefault(section, {}).update(wanted)
    return Settings.model_validate(values)


StartEngine = Callable[..., Awaitable[Orchestrator]]


@pytest.fixture
async def start_engine(database_url: str) -> AsyncIterator[StartEngine]:
    """Starts engines with chosen settings, and stops them after the test, last first."""
    async with AsyncExitStack() as stack:

        async def start(**changes: dict[str, Any]) -> Orchestrator:
            return await stack.enter_async_context(Orchestrator(quick_settings(database_url, **changes)))

        yield start


@pytest.fixture
async def orchestrator(settings: Settings) -> AsyncIterator[Orchestrator]:
    """A whole engine in this process: store, loops and gateway, on a fresh database."""
    async with Orchestrator(settings) as orchestrator:
        yield orchestrator


@pytest.fixture
def submit(orchestrator: Orchestrator) -> Callable[..., Awaitable[str]]:
    """Submits one task, written as in a task file; gives its id."""

    async def submit(**task: Any) -> str:
        return (await orchestrator.submit(task)).task_id

    return submit


@pytest.fixture
def outcome(orchestrator: Orchestrator) -> Callable[..., Awaitable[Any]]:
    """Waits until a task is final; gives it with its attempts and its story."""

    async def outcome(task_id: str, seconds: float = 10.0) -> Any:
        await orchestrator.call("task.wait", task_ids=[task_id], timeout_seconds=seconds)
        return await orchestrator.call("task.get", task_id=task_id)

    return outcome
