"""What goes wrong between the program and PostgreSQL is one sentence; the schema is applied once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from agentorch_cli.config import Settings
from agentorch_cli.core.model import TaskSpec
from agentorch_cli.errors import DatabaseUnreachable, SchemaMismatch
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.events import list_events
from agentorch_cli.handlers.tasks import get_task, submit_tasks
from agentorch_cli.store.database import Database, shown_address
from agentorch_cli.store.store import Store
from agentorch_cli.wiring import Orchestrator


def named(address: str, database: str) -> str:
    """The same server's address, for another database."""
    head, _, query = address.partition("?")
    return f"{head.rpartition('/')[0]}/{database}?{query}"


async def _refused(dsn: str) -> DatabaseUnreachable:
    database = Database(dsn, node_id="tests", pool_size=2, command_timeout=5)
    with pytest.raises(DatabaseUnreachable) as caught:
        await database.open()
    await database.close()
    error = caught.value
    assert "\n" not in error.message and "Traceback" not in error.message
    assert error.hint
    return error


async def test_no_server_is_one_sentence_with_the_address() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    error = await _refused(f"postgresql://user:secret@127.0.0.1:{port}/db")

    assert f"127.0.0.1:{port}" in error.message
    assert "secret" not in str(error.to_json())


async def test_a_server_that_speaks_something_else_is_one_sentence() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await _refused(f"postgresql://user@127.0.0.1:{port}/db?sslmode=disable")


async def test_a_database_that_is_not_there_is_one_sentence(postgres: str) -> None:
    error = await _refused(named(postgres, "nowhere"))

    assert "nowhere" in error.message
    assert "createdb" in (error.hint or "")


async def test_a_wrong_password_is_one_sentence() -> None:
    """The embedded server asks nobody for a password, so this one is a server that only says no."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        fields = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "eve"\0\0'
        writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        error = await _refused(f"postgresql://eve:wrong@127.0.0.1:{port}/db?sslmode=disable")

    assert "refused the login" in error.message
    assert "password" in (error.hint or "")


# --- the schema -------------------------------------------------------------------------------


@pytest.fixture
async def empty_url(postgres: str) -> AsyncIterator[str]:
    """A database without a schema."""
    connection = await asyncpg.connect(postgres)
    await connection.execute("drop database if exists bare")
    await connection.execute("create database bare")
    yield named(postgres, "bare")
    await connection.execute("drop database bare with (force)")
    await connection.close()


async def _open(url: str) -> Database:
    database = Database(url, node_id="tests", pool_size=3)
    await database.open()
    return database


async def test_two_who_apply_the_schema_at_once_apply_it_once(empty_url: str) -> None:
    databases = [await _open(empty_url) for _ in range(4)]

    applied = await asyncio.gather(*(database.migrate() for database in databases))

    assert sorted(len(names) for names in applied)[:3] == [0, 0, 0]
    assert sum(map(len, applied)) >= 1
    assert await databases[0].migrate() == []
    for database in databases:
        await database.require_schema()
        await database.close()


async def test_an_engine_on_a_database_without_a_schema_says_init_db(empty_url: str) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        async with Orchestrator(
            Settings.model_validate({"database": {"url": empty_url}, "gateway": {"port": 0}})
        ):
            pass

    assert caught.value.fix == "agentorch init-db"


async def test_a_newer_schema_is_left_alone(empty_url: str) -> None:
    database = await _open(empty_url)
    await database.migrate()
    await database.pool.execute("insert into schema_migrations (version, name) values (999, 'future')")

    for step in (database.migrate, database.require_schema):
        with pytest.raises(SchemaMismatch, match="999") as caught:
            await step()
        assert "--upgrade" in caught.value.fix
    await database.close()


async def test_an_older_schema_says_init_db(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await _open(empty_url)
    await database.migrate()
    monkeypatch.setattr("agentorch_cli.store.database.newest_version", lambda: 998)

    with pytest.raises(SchemaMismatch, match="998") as caught:
        await database.require_schema()

    assert caught.value.fix == "agentorch init-db"
    await database.close()


# --- while it runs ----------------------------------------------------------------------------


async def test_the_hot_connections_are_opened_once(store: Store, database_url: str) -> None:
    await asyncio.gather(*(store.ready_tasks(1) for _ in range(20)))

    await store.db.close()
    left = await _count(
        database_url, "select count(*) from pg_stat_activity where application_name = 'tests'"
    )

    assert left == 0


async def _count(url: str, query: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        number: int = await connection.fetchval(query)
        return number
    finally:
        await connection.close()


async def test_a_hint_that_cannot_be_sent_is_an_error_of_ours(store: Store) -> None:
    await store.db.pool.execute("select 1")
    store.db.pool.terminate()

    with pytest.raises(DatabaseUnreachable):
        await store.notify("agentorch_tasks", "x")


# --- the log ----------------------------------------------------------------------------------


async def test_a_follower_never_misses_the_event_of_a_slow_transaction(
    store: Store, database_url: str
) -> None:
    context = Context(store)
    slow = await asyncpg.connect(database_url)
    await slow.execute("begin; insert into events (kind, task_id) values ('slow', 'first')")

    await submit_tasks(context, [TaskSpec("second")])
    seen = await list_events(context)
    await slow.execute("commit")
    after = await list_events(context, cursor=seen[-1].cursor if seen else None)
    rest = await list_events(context, cursor=after[-1].cursor)
    await slow.close()

    assert [event.task_id for event in seen] == []
    assert [event.task_id for event in after] == ["first", "second"]
    assert rest == []


async def test_events_are_in_order_where_transaction_numbers_get_a_digit_more(store: Store) -> None:
    await store.db.pool.execute(
        "insert into events (tx, kind, task_id)"
        " select n::text::xid8, 'noted', n::text from unnest(array[8, 9, 10, 11, 99, 100]) n"
    )
    context, cursor, seen = Context(store), None, []
    while page := await list_events(context, cursor=cursor, limit=2):
        seen += [event.task_id for event in page]
        cursor = page[-1].cursor
    newest = await list_events(context, newest=True, limit=3)

    assert seen == ["8", "9", "10", "11", "99", "100"]
    assert [event.task_id for event in newest] == ["11", "99", "100"]


async def test_many_writers_and_a_follower_that_reads_pages(store: Store) -> None:
    context = Context(store)
    seen: list[str] = []
    cursor: str | None = None
    writing = asyncio.gather(
        *(submit_tasks(context, [TaskSpec(f"t{n}-{m}") for m in range(5)]) for n in range(40))
    )

    async def follow() -> None:
        nonlocal cursor
        for event in await list_events(context, cursor=cursor, limit=7):
            seen.append(event.task_id or "")
            cursor = event.cursor

    while not writing.done():
        await follow()
        await asyncio.sleep(0)
    await writing
    async with asyncio.timeout(10):  # a transaction of the server's own may hold the horizon for a moment
        while len(seen) < 200:
            await follow()
            await asyncio.sleep(0.01)

    assert len(seen) == len(set(seen)) == 200


async def test_the_story_of_a_task_does_not_wait_for_other_transactions(
    store: Store, database_url: str
) -> None:
    slow = await asyncpg.connect(database_url)
    await slow.execute("begin; insert into events (kind) values ('slow')")
    await submit_tasks(Context(store), [TaskSpec("a")])

    task: Any = await get_task(Context(store), "a")
    await slow.close()

    assert [event.kind for event in task.events] == ["task_submitted"]


def test_the_address_that_is_shown_has_no_password() -> None:
    assert shown_address("postgresql://u:p@h:1/d") == "h:1"
    assert shown_address("postgresql:///d?host=/tmp") == "its socket"


async def test_more_statements_of_the_hot_path_than_it_has_connections_all_get_their_turn(
    store: Store,
) -> None:
    async with asyncio.timeout(20):
        for _ in range(20):
            await asyncio.gather(*(store.db.hot("ready_tasks_by_id", [], "default") for _ in range(50)))

    busy = store.db.connections()
    assert busy["busy"] == 0 and busy["idle"] > 1


async def test_statements_and_transactions_share_the_general_connections_and_all_get_their_turn(
    store: Store,
) -> None:
    async def within() -> None:
        async with store.db.transaction() as tx:
            await tx.fetch("clock")

    async with asyncio.timeout(20):
        for _ in range(5):
            await asyncio.gather(
                *(store.db.fetch("clock") for _ in range(50)), *(within() for _ in range(50))
            )

    assert store.db.connections()["busy"] == 0
    assert store.db.pool.get_size() <= 20


async def test_rows_named_by_keys_are_read_as_the_hot_path_reads_where_it_is_open(store: Store) -> None:
    store.db._sql = {**store.db._sql, "clock": "select current_setting('plan_cache_mode')"}

    before = await store.db.fetch_by_key("clock")
    await store.db.hot("ready_tasks_by_id", [], "default")
    after = await store.db.fetch_by_key("clock")

    assert (before[0][0], after[0][0]) == ("auto", "force_generic_plan")


async def test_a_connection_of_the_hot_path_that_breaks_is_replaced(store: Store) -> None:
    await asyncio.gather(*(store.db.hot("ready_tasks_by_id", [], "default") for _ in range(6)))
    await store.db.pool.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )

    failures = 0
    async with asyncio.timeout(20):
        for _ in range(20):
            try:
                await store.db.hot("ready_tasks_by_id", [], "default")
            except DatabaseUnreachable:
                failures += 1

    assert failures <= 6
    assert await store.db.hot("ready_tasks_by_id", [], "default") == []


async def test_a_statement_of_the_hot_path_that_is_given_up_leaves_its_connection_of_use(
    store: Store,
) -> None:
    slow = "select pg_sleep(60), $1::text[], $2::text"
    store.db._sql = {**store.db._sql, "ready_tasks_for": slow}
    for _ in range(12):
        waiting = asyncio.create_task(store.db.hot("ready_tasks_for", [], ""))
        async with asyncio.timeout(20):
            while not await store.db.pool.fetchval(
                "select exists (select from pg_stat_activity where query = $1 and state = 'active')", slow
            ):
                await asyncio.sleep(0.005)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    async with asyncio.timeout(20):
        assert await store.db.hot("ready_tasks_by_id", [], "default") == []


@pytest.mark.parametrize(
    "error", [asyncpg.InternalClientError("odd"), OSError("gone"), RuntimeError("a fault")]
)
async def test_listening_goes_on_whatever_broke_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A server that dies between two messages confuses the driver."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    listen, errors = store.db._listen_once, [error]

    async def once(*args: Any) -> None:
        if errors:
            raise errors.pop()
        await listen(*args)

    async def connected() -> None:
        await store.notify("tests", "hello")

    monkeypatch.setattr(store.db, "_listen_once", once)
    listening = asyncio.create_task(
        store.db.listen(["tests"], lambda _, payload: heard.put_nowait(payload), connected)
    )

    async with asyncio.timeout(20):
        assert await heard.get() == "hello"
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


# --- transactions that are cancelled ----------------------------------------------------------


@pytest.fixture
async def single(database_url: str) -> AsyncIterator[Database]:
    """Whoever comes next gets the connection of whoever came before."""
    database = Database(database_url, node_id="tests", pool_size=1, command_timeout=20)
    await database.open()
    yield database
    await database.close()


OPEN = "select count(*) from pg_stat_activity where state like 'idle in transaction%'"


class Stopped:
    """A statement that ends a transaction, or begins it, and is cancelled at the server before it is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
        self.is_under_way = asyncio.Event()
        execute, slow = asyncpg.Connection.execute, "select pg_sleep(60)"

        async def stopped(connection: Any, query: str, *args: Any, **options: Any) -> Any:
            if query == statement and not self.is_under_way.is_set():
                self.is_under_way.set()
                query = f"begin; {slow}" if statement == "BEGIN;" else slow
            return await execute(connection, query, *args, **options)

        monkeypatch.setattr(asyncpg.Connection, "execute", stopped)


@pytest.mark.parametrize("statement", ["BEGIN;", "COMMIT;", "ROLLBACK;"])
async def test_a_transaction_that_is_cancelled_at_its_ends_is_over_and_nobody_is_told_of_an_error(
    single: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    stopped = Stopped(monkeypatch, statement)

    async def transact() -> None:
        async with single.transaction() as tx:
            await tx.fetch("notify", "tests", "hello")
            if statement == "ROLLBACK;":
                raise KeyError

    for _ in range(3):
        transacting = asyncio.create_task(transact())
        async with asyncio.timeout(20):
            await stopped.is_under_way.wait()
        transacting.cancel()
        with pytest.raises((asyncio.CancelledError, KeyError)):
            await transacting

        async with asyncio.timeout(20), single.connected() as connection:
            assert not connection.is_in_transaction()
            while await connection.fetchval(OPEN):
                await asyncio.sleep(0.005)

    assert [one.message for one in caplog.records] == []


async def test_a_transaction_that_is_cancelled_between_its_ends_keeps_its_connection(
    single: Database, caplog: pytest.LogCaptureFixture
) -> None:
    began = asyncio.Event()

    async def transact() -> None:
        async with single.transaction() as tx:
            await tx.fetch("notify", "tests", "hello")
            began.set()
            await asyncio.Event().wait()

    async with single.connected() as connection:
        before = connection.get_server_pid()
    transacting = asyncio.create_task(transact())
    await began.wait()
    transacting.cancel()
    await asyncio.gather(transacting, return_exceptions=True)

    async with single.connected() as connection:
        assert connection.get_server_pid() == before
        assert not connection.is_in_transaction()
    assert caplog.records == []


async def test_a_connection_at_hand_whose_server_ended_it_is_not_used(database_url: str) -> None:
    database = Database(database_url, node_id="ended-meanwhile", pool_size=2)
    await database.open()
    other = await asyncpg.connect(database_url)
    try:
        assert await database.fetch_one("clock")
        ended = await other.fetch(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = $1",
            "ended-meanwhile",
        )
        assert ended
        await asyncio.sleep(0.1)  # it is noticed
        assert await database.fetch_one("clock")
    finally:
        await other.close()
        await database.close()
