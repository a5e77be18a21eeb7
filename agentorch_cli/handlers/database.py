"""The database itself: how it stands, and its backups. For the machine that has it, not from afar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentorch_cli import views
from agentorch_cli.frames import dumps
from agentorch_cli.handlers.context import Context
from agentorch_cli.store import backup
from agentorch_cli.store.condition import condition_of
from agentorch_cli.store.migrations import newest_version


async def get_database(context: Context) -> views.DatabaseView:
    """Version, size, tables, connections, and what was done for it."""
    found = await condition_of(context.db)
    return views.DatabaseView(**asdict(found), dead_share=found.dead_share, warnings=found.warnings())


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
        "database_version": archive.schema_version,
        "server_version": archive.server_version,
        "program": archive.program,
        "taken_at": archive.taken_at,
    }
