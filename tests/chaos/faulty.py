"""A database that fails by name: before a statement, after it, or only in what it says.

`before`  nothing was done, and it says so
`undone`  it was done, and the connection broke before the commit: nothing is stored
`stored`  it was done and is stored, and it says that it was not

Inside a transaction `stored` means that the whole transaction is.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg

from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.store.database import Database, Transaction

MODES = ("before", "undone", "stored")

Hit = Callable[[str, str], None]


class Faulty:
    """Stands before a database's methods; `arm` chooses the statement and the way in which it fails."""

    def __init__(self, database: Database) -> None:
        self.seen: Counter[str] = Counter()
        self.hits = 0
        self._point: tuple[str, str] | None = None
        self._database = database
        self._transaction = database.transaction
        place: Any = database
        for name in ("fetch", "fetch_one", "hot"):
            setattr(place, name, self._wrapped(getattr(place, name)))
        place.transaction = self._wrapped_transaction

    def arm(self, name: str, mode: str) -> None:
        """The next time that this statement is asked for it fails in this way, once."""
        self._point = (name, mode)

    def mode_for(self, name: str) -> str | None:
        """How the statement fails now; it is not asked twice."""
        self.seen[name] += 1
        if self._point is None or self._point[0] != name:
            return None
        mode, self._point = self._point[1], None
        self.hits += 1
        return mode

    def _wrapped(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(name: str, *arguments: Any, **options: Any) -> Any:
            mode = self.mode_for(name)
            if mode is None:
                return await method(name, *arguments, **options)
            if mode == "undone":
                await self._undo(name, *arguments)
            elif mode == "stored":
                await method(name, *arguments, **options)
            raise failure(name, mode)

        return call

    async def _undo(self, name: str, *arguments: Any) -> None:
        """Do it on a connection that then goes away."""
        connection = await asyncpg.connect(self._database.dsn)
        try:
            await connection.execute("begin")
            await connection.fetch(self._database._sql[name], *arguments)
        finally:
            connection.terminate()

    @contextlib.asynccontextmanager
    async def _wrapped_transaction(self) -> AsyncIterator[FaultyTransaction]:
        async with self._transaction() as transaction:
            wrapped = FaultyTransaction(self, transaction)
            yield wrapped
        if wrapped.lie is not None:
            raise wrapped.lie


class FaultyTransaction:
    """The same inside a transaction."""

    def __init__(self, faulty: Faulty, transaction: Transaction) -> None:
        self._faulty = faulty
        self._transaction = transaction
        self.lie: DatabaseUnreachable | None = None

    async def fetch(self, name: str, *arguments: Any) -> Any:
        return await self._call(self._transaction.fetch, name, *arguments)

    async def fetch_one(self, name: str, *arguments: Any) -> Any:
        return await self._call(self._transaction.fetch_one, name, *arguments)

    async def _call(self, method: Callable[..., Awaitable[Any]], name: str, *arguments: Any) -> Any:
        mode = self._faulty.mode_for(name)
        if mode == "before":
            raise failure(name, mode)
        found = await method(name, *arguments)
        if mode == "undone":
            raise failure(name, mode)
        if mode == "stored":
            self.lie = failure(name, mode)
        return found


def failure(name: str, mode: str) -> DatabaseUnreachable:
    return DatabaseUnreachable(f"the connection was lost: {name}, {mode}")
