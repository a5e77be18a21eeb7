"""Rates and concurrency keys: the tables that decide what `core.limits` only mirrors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import asyncpg

from agentorch_cli.core.limits import Bucket, LimitGates, Rate, Scope
from agentorch_cli.store.database import Database, Transaction


async def read_limits(db: Database, limits: LimitGates, now: float) -> None:
    """Make the mirror what the tables say; `now` is this moment on the mirror's clock."""
    limits.rates.now = now
    limits.set_rates(buckets_of(await db.fetch("limits"), now))
    await read_keys(db, limits, None)


def buckets_of(rows: Iterable[asyncpg.Record], now: float) -> dict[str, Bucket]:
    """The buckets of rates as they were read."""
    return {
        f"{row['scope']}:{row['name']}": Bucket(
            Rate(row["number"], row["per_seconds"]), row["burst"], row["level"], now
        )
        for row in rows
    }


async def read_keys(db: Database, limits: LimitGates, keys: Sequence[str] | None) -> None:
    """Who owns slots of these concurrency keys; None: of any."""
    rows = await db.fetch("key_owners", keys)
    limits.keys.replace(list(limits.keys.held) if keys is None else keys, owners_of(rows))


def owners_of(rows: Iterable[asyncpg.Record]) -> dict[tuple[str, int], str]:
    """Tasks by key and slot, as they were read."""
    return {(row["concurrency_key"], row["concurrency_slot"]): row["task_id"] for row in rows}


async def take_tokens(tx: Transaction, needs: Mapping[str, int]) -> set[str]:
    """Take tokens by `scope:name`; the rates that had too few: then the caller takes all back.

    A rate that was removed meanwhile is in nobody's way.
    """
    parts = [name.partition(":") for name in needs]
    rows = await tx.fetch(
        "take_tokens", [part[0] for part in parts], [part[2] for part in parts], list(needs.values())
    )
    missing = set(needs) - {f"{row['scope']}:{row['name']}" for row in rows}
    if not missing:
        return missing
    return missing & {f"{row['scope']}:{row['name']}" for row in await tx.fetch("limits")}


async def take_keys(tx: Transaction, owned: Mapping[str, tuple[str, int]]) -> None:
    """Tasks are about to run with these slots of their keys. The unique index refuses a slot that is
    taken, at the statement that makes the task run."""
    await tx.fetch(
        "take_keys", list(owned), [one[0] for one in owned.values()], [one[1] for one in owned.values()]
    )


async def set_limit(db: Database, scope: Scope, name: str, rate: Rate, burst: int) -> None:
    """Set a rate."""
    await db.fetch("set_limit", scope, name, rate.number, rate.per_seconds, burst)


async def remove_limits(db: Database, limits: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Take rates away; those that were there."""
    pairs = list(limits)
    rows = await db.fetch("remove_limits", [one[0] for one in pairs], [one[1] for one in pairs])
    return [(row["scope"], row["name"]) for row in rows]
