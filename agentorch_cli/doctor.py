"""What `agentorch doctor` looks at: everything that can be wrong here, and how to put it right.

The checks run beside each other, each with a time limit; what does not answer in time is a finding, so
the whole takes no longer than its slowest limit. Looking changes nothing but this: an embedded PostgreSQL
that is there and does not run is started, because that is what most often fails, and stopped again.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any

from agentorch_cli.config import Settings
from agentorch_cli.errors import OrchestratorError
from agentorch_cli.settings import redact_url
from agentorch_cli.store.condition import Condition, condition_of
from agentorch_cli.store.database import Database
from agentorch_cli.store.embedded import EmbeddedServer, Inspection, inspect

LOOK_SECONDS = 0.5
"""For a look at files and processes."""

DATABASE_SECONDS = 1.2
"""For the database to answer, its start included."""

LITTLE_ROOM = 1_000_000_000
FEW_FILES = 1024
OLD_BACKUP = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `doctor`."""

    name: str
    ok: bool | None
    """None: neither good nor bad."""
    text: str
    fix: str | None = None
    """What to do: there wherever it is not simply good."""


TAKEN = " is taken"


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything that can be wrong. Raises nothing: what fails is a finding."""
    machine = [_python(), _shell(), _files()]
    if settings.database.url:
        seen, embedded = None, [_named_database(settings)]
    else:
        seen, embedded = await _embedded(settings)
    can_ask = seen is None or seen.initialised
    port, database = await asyncio.gather(
        _within("port", LOOK_SECONDS, _port(settings)),
        _database(settings) if can_ask else _nothing_yet(),
    )
    return [*machine, *embedded, *_explained(port, database), *database, *_extras(settings)]


def _explained(port: list[Finding], database: list[Finding]) -> list[Finding]:
    """A port that is taken is as it should be where the database says that serve has it on this machine."""
    place, is_taken, _ = port[0].text.partition(TAKEN)
    serve = next((one for one in database if one.name == "serve" and one.ok), None)
    here = f"{socket.gethostname()}:{place.rpartition(':')[2]}"
    if not is_taken or serve is None or here not in serve.text.replace(",", "").split():
        return port
    return [Finding("port", True, f"{place}: serve listens there")]


async def _within(name: str, seconds: float, look: Coroutine[Any, Any, list[Finding]]) -> list[Finding]:
    try:
        async with asyncio.timeout(seconds):
            return await look
    except TimeoutError:
        return [Finding(name, False, f"there was no answer within {seconds:g} s", "look again in a while")]


# --- this machine -------------------------------------------------------------------------------


def _python() -> Finding:
    has_it = sys.version_info >= (3, 11)
    return Finding("python", has_it, f"Python {sys.version.split()[0]}", "use Python 3.11 or newer")


def _shell() -> Finding:
    has_it = shutil.which("sh") is not None
    return Finding(
        "shell", has_it, "sh runs exec agents" if has_it else "there is no sh", "install a POSIX shell"
    )


def _files() -> Finding:
    """serve raises the soft limit by itself, as far as the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_enough = hard == resource.RLIM_INFINITY or hard >= FEW_FILES
    most = "no limit" if hard == resource.RLIM_INFINITY else f"{hard:,} at once"
    return Finding(
        "open files", is_enough, f"{most}; each connection is one", "raise the limit: ulimit -Hn 65536"
    )


def _extras(settings: Settings) -> list[Finding]:
    if not settings.tracing.endpoint or find_spec("opentelemetry") is not None:
        return []
    fix = 'pip install "agentorch-cli[otel]", or leave tracing.endpoint empty'
    return [Finding("traces", False, "tracing.endpoint is set, and its libraries are not installed", fix)]


async def _port(settings: Settings) -> list[Finding]:
    """Whether `serve` could listen; a serve that does so already is found by the database."""
    gateway = settings.gateway
    place = f"{gateway.host}:{gateway.port}"
    if not gateway.port:
        return [Finding("port", True, "serve takes any free one")]
    family = socket.AF_INET6 if ":" in gateway.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((gateway.host, gateway.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                fix = "if that is not agentorch: serve --port ANOTHER, or --port 0"
                return [Finding("port", None, f"{place}{TAKEN}; by serve, if it runs", fix)]
            reason = (error.strerror or str(error)).lower()
            return [
                Finding(
                    "port", False, f"{place} cannot be used: {reason}", "set gateway.host and gateway.port"
                )
            ]
    return [Finding("port", True, f"{place} is free for serve")]


# --- the embedded server ------------------------------------------------------------------------


async def _embedded(settings: Settings) -> tuple[Inspection | None, list[Finding]]:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            seen = await inspect(settings.data_dir)
    except TimeoutError:
        fix = f"look into {settings.data_dir / 'postgres.log'}"
        return None, [Finding("data directory", False, f"no answer within {LOOK_SECONDS:g} s", fix)]
    except OrchestratorError as error:
        return None, [Finding("data directory", False, str(error), error.hint or "choose another --data-dir")]
    findings = [
        Finding("data directory", True, f"{seen.data_dir}, {seen.size_bytes / 1e6:.0f} MB"),
        Finding(
            "disk",
            seen.free_bytes > LITTLE_ROOM,
            f"{seen.free_bytes / 1e9:.1f} GB free",
            "make room: PostgreSQL stops when the disk is full",
        ),
        _server(seen),
    ]
    if seen.note:
        findings.append(
            Finding("account", None, seen.note, "none needed; run agentorch as another user to change it")
        )
    return seen, findings


def _server(seen: Inspection) -> Finding:
    if not seen.initialised:
        return Finding(
            "embedded PostgreSQL",
            None,
            "there is none yet",
            "agentorch init-db, or any other command, makes it",
        )
    if not seen.running:
        fix = "nothing to do: whoever needs it starts it, and agentorch serve keeps it running"
        return Finding("embedded PostgreSQL", None, "is not running", fix)
    held = seen.holders or ()
    users = f"{len(held)} process{'' if len(held) == 1 else 'es'}"
    if not held and seen.holders is not None:
        fix = "agentorch db stop"
        return Finding("embedded PostgreSQL", None, f"runs (pid {seen.pid}), and nobody uses it", fix)
    text = f"version {seen.version} runs as {seen.runs_as} (pid {seen.pid}), used by {users}"
    return Finding("embedded PostgreSQL", True, text)


# --- the database -------------------------------------------------------------------------------


def _named_database(settings: Settings) -> Finding:
    shown = redact_url(settings.database.url)
    return Finding("database", True, f"PostgreSQL at {shown} ({settings.origin('database.url')})")


async def _nothing_yet() -> list[Finding]:
    return [Finding("serve", None, "is not running", "start it with: agentorch serve")]


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Database]:
    """The database as it is, without the rest of the program: importing that takes longer than the look."""
    async with AsyncExitStack() as stack:
        dsn = settings.database.url
        if not dsn:
            server = EmbeddedServer(settings.data_dir, start_seconds=DATABASE_SECONDS)
            dsn = await server.start()
            stack.push_async_callback(server.release)
        database = Database(
            dsn,
            node_id="orchestrator_doctor",
            pool_size=2,
            connect_timeout=DATABASE_SECONDS,
            command_timeout=DATABASE_SECONDS,
        )
        stack.push_async_callback(database.close)
        await database.open()
        yield database


async def _database(settings: Settings) -> list[Finding]:
    try:
        async with asyncio.timeout(DATABASE_SECONDS), _opened(settings) as database:
            view = await condition_of(database)
            has_nodes = view.database_version == view.wanted_version
            nodes = [dict(row) for row in await database.fetch("show_nodes")] if has_nodes else []
    except TimeoutError:
        text = f"there was no answer within {DATABASE_SECONDS:g} s: it is starting, recovering, or too busy"
        fix = f"look into {settings.data_dir / 'postgres.log'}, and try again in a while"
        return [Finding("database", False, text, fix if not settings.database.url else "look at its own log")]
    except OrchestratorError as error:
        return [Finding("database", False, str(error), error.hint or "is database.url right?")]
    found = [_schema(view), *_warnings(view), _backup(view), _serve(nodes)]
    return [one if one.ok is True else replace(one, fix=one.fix or "agentorch db status") for one in found]


def _schema(view: Condition) -> Finding:
    text = f"version {view.database_version}, this program wants {view.wanted_version}"
    if view.database_version is not None and view.database_version > view.wanted_version:
        return Finding("schema", False, text, "upgrade this program: pip install --upgrade agentorch-cli")
    return Finding("schema", view.database_version == view.wanted_version, text, "run: agentorch init-db")


def _warnings(view: Condition) -> list[Finding]:
    told = [warning for warning in view.warnings() if not warning.startswith("the schema ")]
    return [Finding("database", None, *warning.rpartition(": ")[::2]) for warning in told]


def _backup(view: Condition) -> Finding:
    last = next((one for one in view.maintenance if one["what"] == "backup"), None)
    fix = "agentorch db backup FILE"
    if last is None:
        return Finding("backup", None, "never, by this program", fix)
    age = datetime.now(UTC) - last["at"]
    text = f"{age.days} day{'' if age.days == 1 else 's'} ago" if age.days else "within the last day"
    return Finding("backup", True if age < OLD_BACKUP else None, text, fix)


def _serve(nodes: list[dict[str, Any]]) -> Finding:
    live = [node for node in nodes if node["is_live"]]
    if not live:
        return Finding("serve", None, "is not running", "start it with: agentorch serve")
    return Finding(
        "serve", True, f"{len(live)} running: " + ", ".join(f"{n['host']}:{n['port']}" for n in live)
    )
