"""Who waits for many tasks asks the tables when the last of them has ended, and not for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentorch_cli.errors import DatabaseUnreachable, NotFound, WaitTimedOut
from agentorch_cli.handlers.context import Context
from agentorch_cli.handlers.tasks import wait_for_tasks
from agentorch_cli.store import waiting as waiting_module
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


LISTENERS = (
    "select count(*) from pg_stat_activity where datname = current_database() and query like 'LISTEN%'"
    " and application_name like '% listen'"
)


async def test_waits_one_after_the_other_hear_over_one_connection(
    store: Store, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(store)

    async def ended(task_id: str) -> str:
        wait = asyncio.create_task(wait_for_tasks(context, [task_id], 20))
        await asyncio.sleep(0.05)
        await store.db.pool.execute(END, [task_id])
        await store.notify("agentorch_done", task_id)
        (task,) = await wait
        return task.status

    for one in IDS[:3]:
        assert await ended(one) == "completed"
        assert await store.db.pool.fetchval(LISTENERS) == 1
    assert await asyncio.gather(*(ended(one) for one in IDS[3:6])) == ["completed"] * 3
    assert await store.db.pool.fetchval(LISTENERS) == 1

    monkeypatch.setattr(waiting_module, "KEPT_FOR", 0.0)
    await ended(IDS[6])
    await nobody_listens(store)
    monkeypatch.undo()
    assert await ended(IDS[7]) == "completed"
    await context.close()
    await nobody_listens(store)


async def nobody_listens(store: Store) -> None:
    async with asyncio.timeout(10):
        while await store.db.pool.fetchval(LISTENERS):
            await asyncio.sleep(0.01)


async def test_a_hint_that_is_wrong_is_not_believed(store: Store, looks: Looks) -> None:
    context = Context(store)
    wait = asyncio.create_task(wait_for_tasks(context, IDS[:2], 20))
    await asyncio.sleep(0.1)
    await store.notify("agentorch_done", "\n".join(IDS[:2]))
    await asyncio.sleep(0.1)
    assert not wait.done()
    await store.db.pool.execute(END, IDS[:2])
    await store.notify("agentorch_done", IDS[0])
    await store.notify("agentorch_done", IDS[1])
    assert [task.task_id for task in await wait] == IDS[:2]
    await context.close()


async def test_a_wait_without_time_knows_what_there_is_not_and_what_is_over(
    store: Store, looks: Looks
) -> None:
    context = Context(store)
    with pytest.raises(NotFound, match="nobody"):
        await wait_for_tasks(context, ["nobody"], 0.0)
    with pytest.raises(WaitTimedOut, match="1 of 1 tasks have not ended"):
        await wait_for_tasks(context, IDS[:1], 0.0)
    await store.db.pool.execute(END, IDS[:1])
    assert [task.status for task in await wait_for_tasks(context, IDS[:1], 0.0)] == ["completed"]
    await context.close()


async def test_who_ends_while_others_are_looked_at_is_looked_at_next(store: Store, looks: Looks) -> None:
    waiting = Waiting(looks)  # type: ignore[arg-type]
    await store.db.pool.execute(END, IDS[:1])
    slow, fetch = asyncio.Event(), looks.fetch_by_key

    async def answer_late(name: str, ids: list[str]) -> Any:
        rows = await fetch(name, ids)
        await slow.wait()
        return rows

    looks.fetch_by_key = answer_late  # type: ignore[method-assign]
    async with waits(waiting, looks, IDS[:2]):
        await store.db.pool.execute(END, IDS[1:2])
        waiting.hinted(IDS[1])
        slow.set()
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < waiting_module.LOOK_EVERY / 2


async def test_a_wait_that_is_not_heard_yet_ends_with_its_client(
    store: Store, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(store.db, "listen", never)
    context = Context(store)
    wait = asyncio.create_task(wait_for_tasks(context, IDS[:1]))
    await asyncio.sleep(0.05)
    assert not wait.done()
    await context.close()
    with pytest.raises(DatabaseUnreachable, match="is closed"):
        await asyncio.wait_for(wait, 10)
