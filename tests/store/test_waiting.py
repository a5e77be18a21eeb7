"""Who waits for many tasks asks the tables when the last of them has ended, and not for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentorch_cli.store.store import Store
from agentorch_cli.store.waiting import Waiting

NUMBER = 40
IDS = [f"task-{number}" for number in range(NUMBER)]

RUNNING = """
insert into task_distributions (task_id, task_type, status, submission_id, wanted)
select unnest($1::text[]), 'task', 'running', gen_random_uuid(), 0"""

END = (
    "update task_distributions set status = 'completed', completed_at = now() where task_id = any($1::text[])"
)


class Looks:
    """Counts the readings of a database."""

    def __init__(self, db: Any) -> None:
        self.db = db
        self.sizes: list[int] = []

    async def fetch_by_key(self, name: str, ids: list[str]) -> Any:
        self.sizes.append(len(ids))
        return await self.db.fetch_by_key(name, ids)


@pytest.fixture
async def looks(store: Store) -> Looks:
    await store.db.pool.execute(RUNNING, IDS)
    return Looks(store.db)


@contextlib.asynccontextmanager
async def waits(waiting: Waiting, looks: Looks, ids: list[str]) -> AsyncIterator[asyncio.Task[None]]:
    """Somebody who has looked once and rests."""
    task = asyncio.create_task(waiting.until_final(ids))
    try:
        async with asyncio.timeout(10):
            while not looks.sizes:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        yield task
        async with asyncio.timeout(10):
            await task
    finally:
        task.cancel()


async def test_only_the_end_of_the_last_one_is_looked_at(store: Store, looks: Looks) -> None:
    waiting = Waiting(looks)  # type: ignore[arg-type]

    async with waits(waiting, looks, IDS) as task:
        for one in IDS:
            assert not task.done()
            await store.db.pool.execute(END, [one])
            waiting.hinted(one)
            await asyncio.sleep(0.001)

    assert looks.sizes == [NUMBER, NUMBER]


async def test_a_hint_that_is_not_true_ends_no_wait(store: Store, looks: Looks) -> None:
    waiting = Waiting(looks)  # type: ignore[arg-type]
    liar, *others = IDS

    async with waits(waiting, looks, IDS) as task:
        await store.db.pool.execute(END, others)
        waiting.hinted("\n".join(IDS))
        async with asyncio.timeout(10):
            while len(looks.sizes) < 2:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert not task.done()
        await store.db.pool.execute(END, [liar])
        waiting.hinted(liar)

    assert looks.sizes == [NUMBER, NUMBER, 1]


async def test_a_hint_that_says_no_ids_is_looked_at(store: Store, looks: Looks) -> None:
    waiting = Waiting(looks)  # type: ignore[arg-type]

    async with waits(waiting, looks, IDS):
        await store.db.pool.execute(END, IDS)
        waiting.hinted("*")

    assert looks.sizes == [NUMBER, NUMBER]
