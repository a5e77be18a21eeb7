"""A store on a database of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentorch_cli.store.database import Database
from agentorch_cli.store.store import Store


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    database = Database(database_url, node_id="tests", pool_size=12)
    await database.open()
    yield Store(database)
    await database.close()
