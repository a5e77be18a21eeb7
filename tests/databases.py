"""Databases that tests make beside those that `database_url` gives: with the schema, or with nothing."""

from __future__ import annotations

import asyncpg

TEMPLATE = "agentorch_template"
"""The database that the run's server has from the start: the schema, and no rows."""

NOTHING = "template0"
"""PostgreSQL's own: not even a schema."""


def named(address: str, database: str) -> str:
    """The same server's address, for another database."""
    head, _, query = address.partition("?")
    return f"{head.rpartition('/')[0]}/{database}?{query}"


async def execute(address: str, statement: str) -> None:
    """One statement, over a connection of its own."""
    connection = await asyncpg.connect(address)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def new_database(address: str, name: str, template: str = TEMPLATE) -> str:
    """A database that was not there before, or is not any more what it was; gives its address."""
    await execute(address, f"drop database if exists {name} with (force)")
    await execute(address, f"create database {name} template {template}")
    return named(address, name)
