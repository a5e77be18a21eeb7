"""The database itself: how it stands, and its backups. For the machine that has it, not from afar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg

from agentorch_cli import views
from agentorch_cli.errors import OrchestratorError
from agentorch_cli.frames import dumps
from agentorch_cli.handlers.context import Context
from agentorch_cli.store import backup
from agentorch_cli.store.migrations import newest_version

MANY_DEAD = 10_000
"""Dead rows of one table below which nobody need care."""

DEAD_SHARE = 0.2
LONG_TRANSACTION = 300.0
"""Seconds."""

FROZEN_LATE = 1_000_000_000
"""Transactions: far beyond what PostgreSQL lets come to pass by itself, and half of what it can count."""


async def get_database(context: Context) -> views.DatabaseView:
    """Version, size, tables, connections, and what was done for it."""
    version = await context.db.schema_version()
    row = await context.db.fetch_one("show_database")
    assert row is not None  # a select without from has one row
    names = backup.tables_of(newest_version())
    tables = [views.TableView(**dict(one)) for one in await context.db.fetch("show_tables", names)]
    dead, all_rows = sum(one.dead_rows for one in tables), sum(one.rows for one in tables)
    view = views.DatabaseView(
        name=row["name"],
        server_version=row["server_version"].split()[0],
        schema_version=version,
        wanted_version=newest_version(),
        started_at=row["started_at"],
        size_bytes=row["size_bytes"],
        wal_bytes=await _wal_bytes(context),
        connections=row["connections"],
        max_connections=row["max_connections"],
        applications=json.loads(row["by_application"] or "{}"),
        oldest_transaction_seconds=row["oldest_transaction_seconds"],
        transaction_age=row["transaction_age"],
        dead_share=dead / (dead + all_rows) if dead else 0.0,
        tables=tables,
        maintenance=await _maintenance(context) if version == newest_version() else [],
    )
    view.warnings = _warnings(view)
    return view


async def _wal_bytes(context: Context) -> int | None:
    try:
        row = await context.db.fetch_one("show_wal")
    except (OrchestratorError, asyncpg.PostgresError):
        return None  # only a superuser, or who is in pg_monitor, may look there
    return row["bytes"] if row is not None else None


async def _maintenance(context: Context) -> list[views.MaintenanceView]:
    return [
        views.MaintenanceView(what=row["what"], at=row["at"], data=json.loads(row["data"]))
        for row in await context.db.fetch("show_maintenance")
    ]


def _warnings(view: views.DatabaseView) -> list[str]:
    """What deserves a look, each with what to do."""
    found = []
    if view.schema_version != view.wanted_version:
        found.append(
            f"the schema has version {view.schema_version or 'none'}, this program wants"
            f" {view.wanted_version}: agentorch db upgrade"
        )
    if view.connections > 0.8 * view.max_connections:
        found.append(
            f"{view.connections} of {view.max_connections} connections are taken:"
            " lower database.pool_size, or raise max_connections"
        )
    seconds = view.oldest_transaction_seconds
    if seconds is not None and seconds > LONG_TRANSACTION:
        found.append(
            f"a transaction has been open for {seconds / 60:.0f} min, and what died since is not cleaned up:"
            " look at pg_stat_activity"
        )
    found += [
        f"{one.name} has {one.dead_rows:,} dead rows to {one.rows:,} live ones: vacuum {one.name}"
        for one in view.tables
        if one.dead_rows > MANY_DEAD and one.dead_rows > DEAD_SHARE * (one.rows + one.dead_rows)
    ]
    if view.transaction_age > FROZEN_LATE:
        found.append(f"{view.transaction_age:,} transactions since the last freeze: vacuum freeze")
    return found


async def back_up_database(context: Context, file: str, force: bool = False) -> views.BackupView:
    """Write everything into a file, as it stands at one moment."""
    path = Path(file).absolute()  # noqa: ASYNC240  no look at the disk
    archive = await backup.back_up(context.db, path, force=force)
    view = views.BackupView(**_shown(archive))
    if await context.db.schema_version() == newest_version():
        noted = {"file": str(path), "size_bytes": archive.size_bytes, "rows": archive.rows}
        await context.db.fetch("note_maintenance", "backup", dumps(noted))
    return view


async def restore_database(context: Context, file: str, force: bool = False) -> views.RestoreView:
    """Replace everything by what a backup holds."""
    path = Path(file).absolute()  # noqa: ASYNC240  no look at the disk
    archive = backup.read_manifest(path)
    applied: Sequence[str] = await backup.restore(context.db, archive, force=force)
    noted = {"file": str(path), "taken_at": archive.taken_at.isoformat()}
    await context.db.fetch("note_maintenance", "restore", dumps(noted))
    return views.RestoreView(**_shown(archive), applied=list(applied))


def _shown(archive: backup.Archive) -> dict[str, Any]:
    return {
        "file": str(archive.path),
        "size_bytes": archive.size_bytes,
        "rows": archive.rows,
        "tables": {name: int(one["rows"]) for name, one in archive.tables.items()},
        "schema_version": archive.schema_version,
        "server_version": archive.server_version,
        "program": archive.program,
        "taken_at": archive.taken_at,
    }
