"""How the database stands: its size, its tables, its connections, and what of that deserves a look."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from agentorch_cli.errors import OrchestratorError
from agentorch_cli.store.backup import tables_of
from agentorch_cli.store.database import Database
from agentorch_cli.store.migrations import newest_version

MANY_DEAD = 10_000
"""Dead rows of one table below which nobody need care."""

DEAD_SHARE = 0.2
LONG_TRANSACTION = 300.0
"""Seconds."""

FROZEN_LATE = 1_000_000_000
"""Transactions: far beyond what PostgreSQL lets come to pass by itself, and half of what it can count."""


@dataclass(slots=True)
class Condition:
    """The database as a whole; the fields are those of `views.DatabaseView`."""

    name: str
    server_version: str
    database_version: int | None
    started_at: datetime
    size_bytes: int
    wal_bytes: int | None
    connections: int
    max_connections: int
    oldest_transaction_seconds: float | None
    transaction_age: int
    applications: dict[str, int]
    wanted_version: int = field(default_factory=newest_version)
    tables: list[dict[str, Any]] = field(default_factory=list)
    maintenance: list[dict[str, Any]] = field(default_factory=list)

    @property
    def dead_share(self) -> float:
        """Of all rows, 0..1."""
        dead, live = (sum(one[name] for one in self.tables) for name in ("dead_rows", "rows"))
        return dead / (dead + live) if dead else 0.0

    def warnings(self) -> list[str]:
        """What deserves a look, each with what to do behind its last colon."""
        found = []
        if self.database_version != self.wanted_version:
            found.append(
                f"the schema has version {self.database_version or 'none'}, this program wants"
                f" {self.wanted_version}: agentorch db upgrade"
            )
        if self.connections > 0.8 * self.max_connections:
            found.append(
                f"{self.connections} of {self.max_connections} connections are taken:"
                " lower database.pool_size, or raise max_connections"
            )
        seconds = self.oldest_transaction_seconds
        if seconds is not None and seconds > LONG_TRANSACTION:
            found.append(
                f"a transaction has been open for {seconds / 60:.0f} min, and what died since is not cleaned"
                " up: look at pg_stat_activity"
            )
        for one in self.tables:
            name, dead, live = one["name"], one["dead_rows"], one["rows"]
            if dead > MANY_DEAD and dead > DEAD_SHARE * (live + dead):
                found.append(f"{name} has {dead:,} dead rows to {live:,} live ones: vacuum {name}")
        if self.transaction_age > FROZEN_LATE:
            found.append(f"{self.transaction_age:,} transactions since the last freeze: vacuum freeze")
        return found


async def condition_of(db: Database) -> Condition:
    """Look at the database that is there, whatever its schema."""
    row = await db.fetch_one("show_database")
    assert row is not None  # a select without from has one row
    found = Condition(
        name=row["name"],
        server_version=row["server_version"].split()[0],
        database_version=await db.schema_version(),
        started_at=row["started_at"],
        size_bytes=row["size_bytes"],
        wal_bytes=await _wal_bytes(db),
        connections=row["connections"],
        max_connections=row["max_connections"],
        oldest_transaction_seconds=row["oldest_transaction_seconds"],
        transaction_age=row["transaction_age"],
        applications=json.loads(row["by_application"] or "{}"),
    )
    found.tables = [dict(one) for one in await db.fetch("show_tables", tables_of(newest_version()))]
    if found.database_version == found.wanted_version:
        found.maintenance = [
            {"what": one["what"], "at": one["at"], "data": json.loads(one["data"])}
            for one in await db.fetch("show_maintenance")
        ]
    return found


async def _wal_bytes(db: Database) -> int | None:
    try:
        row = await db.fetch_one("show_wal")
    except (OrchestratorError, asyncpg.PostgresError):
        return None  # only a superuser, or who is in pg_monitor, may look there
    return row["bytes"] if row is not None else None
