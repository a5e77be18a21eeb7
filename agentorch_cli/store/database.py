"""Connections to PostgreSQL: a pool, the schema's version, and listening.

Every call has a time limit, every error of the driver becomes one of ours with a sentence,
and a connection that breaks is replaced by the next call. An error at commit does not mean
that nothing was stored: callers guard by state and look again, they never repeat blindly.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit

import asyncpg

from agentorch_cli.errors import DatabaseUnreachable, OrchestratorError, SchemaMismatch
from agentorch_cli.store.listing import Clauses
from agentorch_cli.store.migrations import migrations, newest_version
from agentorch_cli.store.queries import statements

log = logging.getLogger("agentorch.store")

_MIGRATION_LOCK = 7_203_917_452
"""Key of the advisory lock that lets one `init-db` at a time work."""

_SESSION = {
    "timezone": "UTC",
    "jit": "off",
    "client_min_messages": "warning",
}

# The engine's statements find rows by key. On a table that has just grown, before its first
# ANALYZE, the planner would scan it; these settings keep it on the indexes, and in their order:
# a bitmap is read page by page, so all of it has to be sorted.
_BY_KEY = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

FAILURES = (*DRIVER_ERRORS, OSError, TimeoutError)
"""What a statement may fail with."""

KINDS = ("unreachable", "deadlock", "lock_timeout", "statement_timeout", "conflict", "other")
"""Of failed statements; `conflict` is a unique index that refused, which callers expect."""

ANALYZE_SECONDS = 300.0
"""Statistics take some seconds where the disk is slow."""

MOST_AT_HAND = 4
"""Connections that are kept out of the general pool between two uses."""

OnNotice = Callable[[str, str], None]
"""Called with channel and payload."""


class Database:
    """A pool of connections to one database, and the statements by name."""

    def __init__(
        self,
        dsn: str,
        *,
        node_id: str,
        pool_size: int = 20,
        command_timeout: float = 30.0,
        connect_timeout: float = 10.0,
        lock_timeout: float = 10.0,
        idle_in_transaction_timeout: float = 60.0,
    ) -> None:
        """The limits are in seconds."""
        self.dsn = dsn
        self._connect_timeout = connect_timeout
        self._session = _SESSION | {
            "lock_timeout": f"{lock_timeout * 1000:.0f}ms",
            "idle_in_transaction_session_timeout": f"{idle_in_transaction_timeout * 1000:.0f}ms",
        }
        self.node_id = node_id
        self._pool_size = pool_size
        self._command_timeout = command_timeout
        self._any: _AtHand | None = None
        self._by_key: _AtHand | None = None
        self._opening = asyncio.Lock()
        self.errors: dict[str, int] = dict.fromkeys(KINDS, 0)
        """Statements that failed, by kind."""
        self._sql = statements()

    async def open(self) -> None:
        """Connect. Raises DatabaseUnreachable with what PostgreSQL (or the network) said."""
        async with self._translated():
            pool = await self._create_pool(1, self._pool_size, self._session)
            self._any = _AtHand(pool, min(MOST_AT_HAND, self._pool_size // 2))

    async def _create_pool(self, least: int, most: int, session: dict[str, str]) -> asyncpg.Pool:
        pool: asyncpg.Pool = await asyncpg.create_pool(
            self.dsn,
            min_size=least,
            max_size=most,
            timeout=self._connect_timeout,
            command_timeout=self._command_timeout,
            max_inactive_connection_lifetime=0,
            max_cached_statement_lifetime=0,  # it would be a timer for each use
            reset=_keep_as_it_is,
            server_settings={"application_name": self.node_id, **session},
        )
        return pool

    async def close(self) -> None:
        """Close every connection; those in use are cut after a moment."""
        hands = (self._by_key, self._any)
        self._any = self._by_key = None
        for hand in hands:
            if hand is not None:
                try:
                    async with asyncio.timeout(2):
                        await hand.close()
                except (TimeoutError, OSError, asyncpg.PostgresError):
                    hand.pool.terminate()

    def connections(self) -> dict[str, float]:
        """How many connections are at work, and how many wait for some."""
        hands = [hand for hand in (self._any, self._by_key) if hand is not None]
        idle = sum(hand.pool.get_idle_size() + len(hand.spare) for hand in hands)
        return {"busy": float(sum(hand.pool.get_size() for hand in hands) - idle), "idle": float(idle)}

    @property
    def pool(self) -> asyncpg.Pool:
        return self._open.pool

    @property
    def _open(self) -> _AtHand:
        if self._any is None:
            raise DatabaseUnreachable("the database connection is closed")
        return self._any

    async def fetch(self, name: str, *args: Any, within: Clauses | None = None) -> list[asyncpg.Record]:
        """Run a named statement; all its rows. `within`: which of them, in which order."""
        sql = self._sql[name]
        if within is not None:
            sql = within.put_into(sql, len(args))
            args = (*args, *within.values)
        try:
            return await self._open.fetch(sql, args)
        except FAILURES as error:
            self._fail(error)

    async def fetch_one(self, name: str, *args: Any) -> asyncpg.Record | None:
        """Run a named statement; its first row."""
        async with self._translated(), self._open.connection() as connection:
            row: asyncpg.Record | None = await connection.fetchrow(self._sql[name], *args)
            return row

    async def analyze(self, tables: Sequence[str]) -> None:
        """Take statistics of tables, named as SQL names them; all connections make their plans anew then.

        Of a tenth of the usual number of rows: those of the server itself, who has time, follow.
        """
        async with self._translated(), self._open.connection() as connection, transacting(connection):
            await connection.execute("set local default_statistics_target = 10")
            await connection.execute(f"analyze (skip_locked) {', '.join(tables)}", timeout=ANALYZE_SECONDS)

    async def hot(self, name: str, *args: Any) -> list[asyncpg.Record]:
        """Run a named statement of the hot path, on a connection that plans by key."""
        try:
            hand = self._by_key or await self._open_by_key()
            return await hand.fetch(self._sql[name], args)
        except FAILURES as error:
            self._fail(error)

    async def fetch_by_key(self, name: str, *args: Any) -> list[asyncpg.Record]:
        """The same as `fetch`, of rows that are named by their keys: planned once and for all, by connections
        of the hot path, where this process has used it."""
        return await (self.fetch if self._by_key is None else self.hot)(name, *args)

    async def _open_by_key(self) -> _AtHand:
        async with self._opening:
            if self._by_key is None:
                most = 6
                self._by_key = _AtHand(await self._create_pool(1, most, self._session | _BY_KEY), most)
            return self._by_key

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Several statements, all or nothing."""
        async with self._translated(), self._open.connection() as connection, transacting(connection):
            yield Transaction(connection, self._sql)

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        """Several readings of one moment."""
        async with (
            self._translated(),
            self._open.connection() as connection,
            transacting(connection, isolation="repeatable_read", readonly=True),
        ):
            yield Transaction(connection, self._sql)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        """A connection of one's own for a while: for what is no named statement, such as a copy."""
        async with self._translated(), self._open.connection() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        """The driver's errors as ours."""
        try:
            yield
        except FAILURES as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        """Count it, and raise it in our words."""
        self.errors[_kind_of(error)] += 1
        self._translate(error)

    def _translate(self, failure: Exception) -> NoReturn:
        """Raises the error in our words; what nobody expects passes as it is."""
        try:
            raise failure
        except asyncpg.UndefinedTableError as error:
            raise SchemaMismatch(
                "the database has no agentorch schema yet", fix="agentorch init-db"
            ) from error
        except asyncpg.UniqueViolationError:
            raise
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise DatabaseUnreachable(
                f"PostgreSQL at {shown_address(self.dsn)} does not answer: {_reason(error)}",
                hint="is the server running, and does database.url (DATABASE_URL) name it?",
            ) from error
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            raise DatabaseUnreachable(
                f"PostgreSQL at {shown_address(self.dsn)} refused the login: {_reason(error)}",
                hint="check user and password in database.url (DATABASE_URL)",
            ) from error
        except asyncpg.InvalidCatalogNameError as error:
            raise DatabaseUnreachable(
                f"PostgreSQL at {shown_address(self.dsn)} has no such database: {_reason(error)}",
                hint="create it, for instance with createdb",
                fix="agentorch init-db",
            ) from error
        except (
            asyncpg.CannotConnectNowError,
            asyncpg.AdminShutdownError,
            asyncpg.CrashShutdownError,
            asyncpg.TooManyConnectionsError,
            asyncpg.QueryCanceledError,
            asyncpg.InsufficientResourcesError,
            asyncpg.OperatorInterventionError,
            asyncpg.ReadOnlySQLTransactionError,
            asyncpg.InsufficientPrivilegeError,
            asyncpg.LockNotAvailableError,
            asyncpg.DeadlockDetectedError,
            asyncpg.InvalidCachedStatementError,  # the schema was upgraded meanwhile
            asyncpg.InternalClientError,  # a server that dies between two messages confuses the driver
        ) as error:
            raise DatabaseUnreachable(
                f"PostgreSQL at {shown_address(self.dsn)} cannot serve now: {_reason(error)}"
            ) from error

    # --- the schema -------------------------------------------------------------------------

    async def schema_version(self) -> int | None:
        """The newest migration that is applied; None where there is no schema."""
        async with self._translated():
            known = await self.pool.fetchval("select to_regclass('schema_migrations') is not null")
            if not known:
                return None
            version: int | None = await self.pool.fetchval("select max(version) from schema_migrations")
            return version

    async def migrate(self) -> list[str]:
        """Apply what is missing, in one transaction; the names of what was applied.

        Two at once are safe: the second waits for the first and finds nothing to do.
        Raises SchemaMismatch where the schema is newer than this program.
        """
        async with self._translated(), self.pool.acquire() as connection, transacting(connection):
            await connection.execute("set local lock_timeout = '60s'")
            return await self.apply(connection)

    async def apply(self, connection: Any, up_to: int | None = None) -> list[str]:
        """The same inside the caller's transaction, as far as the migration of that number."""
        applied: list[str] = []
        await connection.execute("select pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
        await connection.execute(
            "create table if not exists schema_migrations ("
            " version integer primary key, name text not null,"
            " applied_at timestamptz not null default now())"
        )
        done = {row[0] for row in await connection.fetch("select version from schema_migrations")}
        if done and max(done) > newest_version():
            raise self._newer(max(done))
        for step in migrations():
            if step.version not in done and (up_to is None or step.version <= up_to):
                await connection.execute(step.sql, timeout=600)
                await connection.execute(
                    "insert into schema_migrations (version, name) values ($1, $2)",
                    step.version,
                    step.name,
                )
                applied.append(f"{step.version:04}_{step.name}")
        return applied

    async def require_schema(self) -> None:
        """Raises SchemaMismatch unless the schema is the one that this program needs."""
        current, wanted = await self.schema_version(), newest_version()
        if current is None:
            raise SchemaMismatch("the database has no agentorch schema yet", fix="agentorch init-db")
        if current < wanted:
            raise SchemaMismatch(
                f"the database schema is at version {current}, this program needs {wanted}",
                fix="agentorch init-db",
            )
        if current > wanted:
            raise self._newer(current)

    @staticmethod
    def _newer(current: int) -> SchemaMismatch:
        return SchemaMismatch(
            f"the database schema is at version {current}, newer than this program knows"
            f" ({newest_version()})",
            fix="pip install --upgrade agentorch-cli",
        )

    # --- listening --------------------------------------------------------------------------

    async def listen(
        self, channels: Iterable[str] | Ear, on_notice: OnNotice, on_connected: Callable[[], Awaitable[None]]
    ) -> None:
        """Hand on notifications for ever; connect again whenever the connection breaks. An `Ear` may be told
        of other channels meanwhile.

        Notifications are hints: whatever was said while nobody listened is lost, so
        `on_connected` is awaited after each (re)connection, to look at the tables.
        """
        ear = channels if isinstance(channels, Ear) else Ear(channels)
        while True:
            try:
                await self._listen_once(ear, on_notice, on_connected)
            except (OrchestratorError, *DRIVER_ERRORS, OSError, TimeoutError) as error:
                log.info("listening was interrupted: %s", _reason(error))
                await asyncio.sleep(0.3)
            except Exception:
                log.exception("listening was interrupted by a fault")
                await asyncio.sleep(0.3)

    async def _listen_once(
        self, ear: Ear, on_notice: OnNotice, on_connected: Callable[[], Awaitable[None]]
    ) -> None:
        broken = asyncio.Event()
        connection = await asyncpg.connect(
            self.dsn,
            timeout=self._connect_timeout,
            command_timeout=self._command_timeout,
            server_settings={"application_name": f"{self.node_id} listen", **self._session},
        )
        try:
            connection.add_termination_listener(lambda _: broken.set())
            await ear.open(connection, on_notice)
            await on_connected()
            while not broken.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(20):
                        await broken.wait()
                if not broken.is_set():
                    await ear.look(connection)
        finally:
            ear.close()
            connection.terminate()


class Ear:
    """Which channels a connection listens to. They may change while it does: what nobody here wants to know
    would wake this process all the same."""

    def __init__(self, channels: Iterable[str]) -> None:
        self._wanted = set(channels)
        self._connection: Any = None
        self._on_notice: Callable[..., None] | None = None
        self._heard: set[str] = set()
        self._one_at_a_time = asyncio.Lock()
        self._adjusting: set[asyncio.Task[None]] = set()

    def hears(self, channel: str) -> bool:
        """Whether it listens to that, or will as soon as there is a connection."""
        return channel in self._wanted

    async def hear(self, *channels: str) -> None:
        """Returns once these are listened to; or at once while there is no connection: whoever listens looks
        at the tables when there is one."""
        self._wanted.update(channels)
        if not self._heard.issuperset(channels):
            await self._adjust()

    async def ignore(self, *channels: str) -> None:
        """Nobody wants to know of these any more."""
        self._wanted.difference_update(channels)
        if not self._heard.isdisjoint(channels):
            await self._adjust()

    async def open(self, connection: Any, on_notice: OnNotice) -> None:
        """Listen over this connection from now on."""
        async with self._one_at_a_time:
            self._heard = set()
            self._connection = connection
            self._on_notice = lambda _connection, _pid, channel, payload: on_notice(channel, str(payload))
            await self._listen()

    async def look(self, connection: Any) -> None:
        """Notice if it is gone."""
        async with self._one_at_a_time:
            await connection.execute("select 1", timeout=5)

    def close(self) -> None:
        self._connection = None
        self._heard = set()

    async def _adjust(self) -> None:
        adjusting = asyncio.create_task(self._adjust_surely())
        self._adjusting.add(adjusting)
        adjusting.add_done_callback(self._adjusting.discard)
        await asyncio.shield(adjusting)  # who does not wait for it any more must not break the connection

    async def _adjust_surely(self) -> None:
        async with self._one_at_a_time:
            try:
                await self._listen()
            except Exception as error:  # a connection that is closed meanwhile confuses the driver
                log.info("listening was interrupted: %s", _reason(error))  # it is opened anew

    async def _listen(self) -> None:
        """Make what is heard what is wanted."""
        connection, on_notice = self._connection, self._on_notice
        if connection is None:
            return
        try:
            for channel in sorted(self._wanted - self._heard):
                await connection.add_listener(channel, on_notice)
                self._heard.add(channel)
            for channel in sorted(self._heard - self._wanted):
                self._heard.discard(channel)
                await connection.remove_listener(channel, on_notice)
        except BaseException:
            connection.terminate()  # nobody knows what it listens to
            raise


class _AtHand:
    """A pool, and some of its connections that nobody uses at the moment and that were not given back to it:
    to take one from the pool and to give it back takes as long as a small statement."""

    def __init__(self, pool: asyncpg.Pool, most: int) -> None:
        self.pool = pool
        self.spare: list[Any] = []
        self._most = most
        self._queue = 0
        """How many wait here for the pool to give them one."""
        self._is_closed = False

    def connection(self) -> _Use:
        """For the time of one statement, or one transaction."""
        return _Use(self)

    async def fetch(self, sql: str, args: Sequence[Any]) -> list[asyncpg.Record]:
        """One statement; by hand, for this is done for each."""
        connection = await self.take()
        try:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *args)
        except BaseException:
            await self.give(connection, is_sound=False)
            raise
        if not self._keep(connection):
            await self.pool.release(connection)
        return rows

    async def take(self) -> Any:
        while self.spare:
            connection = self.spare.pop()
            if _is_open(connection):
                return connection
            await self.pool.release(connection)
        self._queue += 1
        try:
            return await self.pool.acquire()
        finally:
            self._queue -= 1

    async def give(self, connection: Any, *, is_sound: bool) -> None:
        """Back; the pool looks whether one is of use yet that is not sound for certain."""
        if not is_sound or not self._keep(connection):
            await self.pool.release(connection)

    def _keep(self, connection: Any) -> bool:
        """Keep it at hand, unless somebody waits for it or there are enough."""
        is_wanted = not self._queue and not self._is_closed and len(self.spare) < self._most
        if is_wanted:
            self.spare.append(connection)
        return is_wanted

    async def close(self) -> None:
        """What is in use is waited for."""
        self._is_closed = True
        while self.spare:
            await self.pool.release(self.spare.pop())
        await self.pool.close()


def _is_open(connection: Any) -> bool:
    """Of one at hand: where its server went away the pool has taken it back by itself, and then even to ask
    it is an error."""
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False


class _Use:
    """A context manager by hand, for it is entered for each statement."""

    __slots__ = ("_connection", "_hand")

    def __init__(self, hand: _AtHand) -> None:
        self._hand = hand

    async def __aenter__(self) -> Any:
        self._connection = await self._hand.take()
        return self._connection

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self._hand.give(self._connection, is_sound=kind is None)


class Transaction:
    """Named statements on one connection, inside one transaction."""

    def __init__(self, connection: Any, sql: dict[str, str]) -> None:
        self._connection = connection
        self._sql = sql

    async def fetch(self, name: str, *args: Any) -> list[asyncpg.Record]:
        """All rows."""
        rows: list[asyncpg.Record] = await self._connection.fetch(self._sql[name], *args)
        return rows

    async def fetch_one(self, name: str, *args: Any) -> asyncpg.Record | None:
        """The first row."""
        row: asyncpg.Record | None = await self._connection.fetchrow(self._sql[name], *args)
        return row

    async def copy(self, table: str, columns: Sequence[str], lines: bytes) -> None:
        """Many rows of a table at once, as lines of PostgreSQL's text format."""
        await self._connection.copy_to_table(table, source=io.BytesIO(lines), columns=columns)


@contextlib.asynccontextmanager
async def transacting(connection: Any, **options: Any) -> AsyncIterator[None]:
    """A transaction on a connection of a pool.

    Who is cancelled, or loses patience, while it ends cannot know whether it is over. Such a connection is
    closed, which ends it: the pool would take an open transaction for a mistake of ours, and say so.
    """
    try:
        async with connection.transaction(**options):
            yield
    except BaseException:
        with contextlib.suppress(asyncpg.InterfaceError):  # it is closed, and the pool knows
            if connection.is_in_transaction():
                connection.terminate()
        raise


def _kind_of(error: Exception) -> str:
    match error:
        case asyncpg.DeadlockDetectedError():
            return "deadlock"
        case asyncpg.LockNotAvailableError():
            return "lock_timeout"
        case asyncpg.QueryCanceledError() | TimeoutError():
            return "statement_timeout"
        case asyncpg.UniqueViolationError():
            return "conflict"
        case asyncpg.PostgresConnectionError() | asyncpg.InterfaceError() | OSError():
            return "unreachable"
        case asyncpg.CannotConnectNowError() | asyncpg.AdminShutdownError() | asyncpg.CrashShutdownError():
            return "unreachable"
        case _:
            return "other"


async def _keep_as_it_is(connection: Any) -> None:
    """No statement here leaves anything behind in its session, so none is sent to clean it up:
    that would be a second round trip for each."""


def shown_address(dsn: str) -> str:
    """Where a DSN points, without its password."""
    parts = urlsplit(dsn)
    if not parts.hostname:
        return "its socket"
    return f"{parts.hostname}:{parts.port or 5432}"


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
