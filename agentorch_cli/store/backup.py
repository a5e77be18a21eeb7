"""Backup and restore: the rows of one moment in one file, for any PostgreSQL of any supported version.

    FILE        a zip archive, for its owner only (0600)
      TABLE.copy      the rows of each table as `COPY` writes them, in one repeatable-read snapshot
      manifest.json   last: version of the schema, and for each table its columns, rows and SHA-256

The schema is not in it: the migrations make it, up to the version that the rows were of, and after
them the rest. So a backup of the embedded server moves to a server of one's own and back, and an old
one into a newer program. The log's transaction ids mean nothing on another server, so events are
numbered anew, in their order ([0022](docs/decisions/0022-a-backup-is-rows.md)).

A restore is one transaction: everything is replaced, or nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import asyncpg

from agentorch_cli import __version__
from agentorch_cli.errors import Conflict, InvalidFile, SchemaMismatch, Unreachable
from agentorch_cli.store.database import Database, transacting
from agentorch_cli.store.migrations import migrations, newest_version

FORMAT = 1
"""Of the archive; goes up when older programs cannot read it any more."""

MANIFEST = "manifest.json"
LONGEST = 24 * 3600.0
"""Seconds that copying one table may take."""

CHUNK = 1 << 18

OLD_TX = "3"
"""What stands for the transactions of another server: lower than any that this one begins."""

EVENTS = f"""
  select '{OLD_TX}'::xid8 as tx, row_number() over (order by tx, event_id) as event_id,
    at, kind, task_id, agent_id, message_id, node_id, data
  from events order by tx, event_id"""  # noqa: S608  a constant

LEFT_OUT = frozenset({"nodes", "leases", "maintenance"})
"""Tables whose rows are about processes and servers that a restored database knows nothing of."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What a backup holds, as its manifest says."""

    path: Path
    size_bytes: int
    program: str
    schema_version: int
    server_version: str
    taken_at: datetime
    tables: Mapping[str, Mapping[str, Any]]
    """`columns`, `rows`, `bytes`, `sha256` of each."""
    sequences: Mapping[str, int]
    """`table.column` to the last number that was given out."""

    @property
    def rows(self) -> int:
        """Of all tables together."""
        return sum(int(one["rows"]) for one in self.tables.values())


def tables_of(version: int) -> list[str]:
    """The tables of the schema at a version, in the order in which they were made: parents first."""
    found: list[str] = []
    for step in migrations():
        if step.version > version:
            break
        found += re.findall(r"^create table (\w+)", step.sql, re.MULTILINE)
        for name in re.findall(r"^drop table (\w+)", step.sql, re.MULTILINE):
            found.remove(name)
    return found


async def back_up(db: Database, path: Path, *, force: bool = False) -> Archive:
    """Write everything into a new file, as it stands at one moment; whoever works goes on.

    Raises Conflict where the file is there already, unless `force`.
    """
    version = await db.schema_version()
    if version is None:
        raise SchemaMismatch("the database has no agentorch schema yet", hint="agentorch init-db")
    if version > newest_version():
        await db.require_schema()
    if path.exists() and not force:  # noqa: ASYNC240  one look
        raise Conflict(f"{path} is there already", hint="choose another name, or say --force")
    with _written(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        async with db.connected() as connection:
            manifest = await _copy_out(connection, archive, version)
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
    return read_manifest(path)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """A file for its owner only, which is there under its name once it is whole and on the disk."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise Unreachable(
            f"the backup cannot be written to {path}: {(error.strerror or str(error)).lower()}",
            hint="choose another place with enough room",
        ) from error
    finally:
        part.unlink(missing_ok=True)


async def _copy_out(connection: Any, archive: zipfile.ZipFile, version: int) -> dict[str, Any]:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        moment = await connection.fetchrow(
            "select now() as now, current_setting('server_version') as server, pg_current_snapshot()::text"
        )
        tables = {
            table: await _copy_table(connection, archive, table)
            for table in tables_of(version)
            if table not in LEFT_OUT
        }
    numbers = await connection.fetch(SEQUENCES, list(tables))
    return {
        "format": FORMAT,
        "program": __version__,
        "schema_version": version,
        "server_version": moment["server"],
        "taken_at": moment["now"].isoformat(),
        "tables": tables,
        "sequences": {
            f"{row['table']}.{row['column']}": await connection.fetchval(
                f"select last_value from {row['sequence']}"  # noqa: S608  its name, as the server quotes it
            )
            for row in numbers
        },
    }


SEQUENCES = """
select
  c.relname as table, a.attname as column,
  pg_get_serial_sequence(c.oid::regclass::text, a.attname) as sequence
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = current_schema()::regnamespace and c.relname = any($1::text[])
  and a.attidentity <> '' and not a.attisdropped
order by 1, 2
"""

COLUMNS = """
select attname::text as name from pg_attribute
where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attgenerated = ''
order by attnum
"""


async def _copy_table(connection: Any, archive: zipfile.ZipFile, table: str) -> dict[str, Any]:
    columns = [row["name"] for row in await connection.fetch(COLUMNS, table)]
    query = EVENTS if table == "events" else f"select {_quoted(columns)} from {table}"  # noqa: S608  our own names
    digest, size = hashlib.sha256(), 0
    with archive.open(f"{table}.copy", "w", force_zip64=True) as member:

        async def take(data: bytes) -> None:
            nonlocal size
            member.write(data)
            digest.update(data)
            size += len(data)

        told = await connection.copy_from_query(query, output=take, timeout=LONGEST)
    return {
        "columns": columns,
        "rows": int(told.rpartition(" ")[2]),
        "bytes": size,
        "sha256": digest.hexdigest(),
    }


# --- the way back -------------------------------------------------------------------------------


def read_manifest(path: Path) -> Archive:
    """What a file holds. Raises InvalidFile where it is no backup."""
    try:
        with zipfile.ZipFile(path) as archive:
            said = json.loads(archive.read(MANIFEST))
        if not isinstance(said, dict) or said["format"] > FORMAT:
            raise InvalidFile(
                f"{path} was made by a newer program ({said.get('program', 'unknown')})",
                hint="pip install --upgrade agentorch-cli",
            )
        return Archive(
            path,
            path.stat().st_size,
            str(said["program"]),
            int(said["schema_version"]),
            str(said["server_version"]),
            datetime.fromisoformat(said["taken_at"]),
            dict(said["tables"]),
            dict(said["sequences"]),
        )
    except OSError as error:
        raise InvalidFile(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidFile(f"{path} is no backup of agentorch, or only a part of one") from error


def verify(archive: Archive) -> None:
    """Read all of it and compare. Raises InvalidFile for a byte that is not as it was written."""
    if archive.schema_version > newest_version():
        raise SchemaMismatch(
            f"{archive.path} holds a schema of version {archive.schema_version}, this program knows"
            f" {newest_version()}",
            hint="pip install --upgrade agentorch-cli",
        )
    expected = [table for table in tables_of(archive.schema_version) if table not in LEFT_OUT]
    if set(expected) != set(archive.tables):
        raise InvalidFile(f"{archive.path} does not hold the tables of its schema version")
    for table, said in archive.tables.items():
        digest = hashlib.sha256()
        for data in _pieces(archive, table):
            digest.update(data)
        if digest.hexdigest() != said["sha256"]:
            raise InvalidFile(f"{archive.path} is damaged: {table} does not hold the rows that were saved")


def _pieces(archive: Archive, table: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(archive.path) as file, file.open(f"{table}.copy") as member:
            while data := member.read(CHUNK):
                yield data
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, ValueError) as error:
        raise InvalidFile(f"{archive.path} is damaged: {table} cannot be read") from error
    except Exception as error:  # zlib has an error of its own
        raise InvalidFile(f"{archive.path} is damaged: {table} cannot be unpacked") from error


async def rows_there(db: Database) -> dict[str, int]:
    """Tables of the schema that is there which hold rows, and about how many."""
    version = await db.schema_version()
    if version is None:
        return {}
    known = tables_of(min(version, newest_version()))
    found = {}
    async with db.connected() as connection:
        for table in known:
            if table in LEFT_OUT:
                continue
            number = await connection.fetchval(f"select count(*) from {table}")  # noqa: S608  our own names
            if number:
                found[table] = int(number)
    return found


async def nodes_there(db: Database) -> list[str]:
    """The serve processes that use this database now."""
    if await db.schema_version() is None:
        return []
    async with db.connected() as connection:
        rows = await connection.fetch(
            "select host, pid from nodes where expires_at > now() order by host, pid"
        )
    return [f"{row['host']} (pid {row['pid']})" for row in rows]


async def restore(db: Database, archive: Archive, *, force: bool = False) -> list[str]:
    """Replace everything in the database by what the archive holds; migrations that were applied after it.

    Raises Conflict where something is there already, unless `force`, or while somebody serves it.
    """
    verify(archive)
    nodes = await nodes_there(db)
    if nodes:
        raise Conflict(
            f"serve is running on this database: {', '.join(nodes)}",
            hint="stop it, then restore: Ctrl-C there, or agentorch down where agentorch up started it",
        )
    rows = await rows_there(db)
    if rows and not force:
        counted = ", ".join(f"{number:,} in {table}" for table, number in list(rows.items())[:3])
        raise Conflict(
            f"the database is not empty: {counted}",
            hint="restore into a new --data-dir or database, or say --force: what is there is gone then",
        )
    async with db.connected() as connection, transacting(connection):
        await connection.execute("set local lock_timeout = '30s'")
        await _clear(connection)
        await db.apply(connection, archive.schema_version)
        for table in tables_of(archive.schema_version):
            if table not in LEFT_OUT:
                await _copy_in(connection, archive, table)
        await _set_sequences(connection, archive)
        applied = await db.apply(connection)
    async with db.connected() as connection:
        for table in tables_of(newest_version()):
            await connection.execute(f"analyze {table}", timeout=600)
    return applied


async def _clear(connection: Any) -> None:
    """Drops what the migrations made, of whatever version, and nothing else."""
    names = [*tables_of(newest_version()), "schema_migrations"]
    there = await connection.fetch(
        "select relname from pg_class where relkind = 'r'"
        " and relnamespace = current_schema()::regnamespace and relname = any($1::text[])",
        names,
    )
    if there:
        await connection.execute(f"drop table {', '.join(row['relname'] for row in there)}")
    functions = await connection.fetch(
        "select oid::regprocedure::text as name from pg_proc"
        " where pronamespace = current_schema()::regnamespace and proname like 'agentorch\\_%'"
    )
    if functions:
        await connection.execute(f"drop function {', '.join(row['name'] for row in functions)}")
    # tables have types too: theirs are gone with them
    types = await connection.fetch(
        "select typname from pg_type where typtype in ('c', 'd')"
        " and typnamespace = current_schema()::regnamespace and typname like 'agentorch\\_%'"
    )
    if types:
        await connection.execute(f"drop type {', '.join(row['typname'] for row in types)}")


async def _copy_in(connection: Any, archive: Archive, table: str) -> None:
    said = archive.tables[table]

    async def pieces() -> AsyncIterator[bytes]:
        for data in _pieces(archive, table):
            yield data

    try:
        told = await connection.copy_to_table(
            table, source=pieces(), columns=list(said["columns"]), timeout=LONGEST
        )
    except asyncpg.DataError as error:
        raise InvalidFile(f"{archive.path} is damaged: {table}: {error}") from error
    if int(told.rpartition(" ")[2]) != int(said["rows"]):
        raise InvalidFile(f"{archive.path} is damaged: {table} has not as many rows as were saved")


async def _set_sequences(connection: Any, archive: Archive) -> None:
    """Numbers go on after those that were given out, and after those that are there."""
    for row in await connection.fetch(SEQUENCES, list(archive.tables)):
        last = archive.sequences.get(f"{row['table']}.{row['column']}", 1)
        highest = await connection.fetchval(f"select max({row['column']}) from {row['table']}")  # noqa: S608
        await connection.execute(f"select setval('{row['sequence']}', {max(int(last), highest or 1)})")


def _quoted(columns: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)
