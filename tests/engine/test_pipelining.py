"""While a batch is being stored the next is matched or gathered, and nothing is done twice or lost by it."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from agentorch_cli.engine.scheduler import BATCH
from agentorch_cli.errors import DatabaseUnreachable

TASK = {"required_capabilities": ["work"], "data": 1}
MANY = BATCH + 50


class Slow:
    """Methods of the store whose calls wait to be let through."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.at_once = 0
        self.most_at_once = 0
        self.gate = asyncio.Event()
        self.faults: dict[int, Exception] = {}
        """What the n-th call fails with, before or (where it is lost on the way) after it was stored."""
        self.is_stored = False

    def of(self, method: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def slow(batch: Any) -> Any:
            return await self._call(method, batch)

        return slow

    async def _call(self, method: Callable[[Any], Any], batch: Any) -> Any:
        number = len(self.sizes)
        self.sizes.append(len(batch))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
            fault = self.faults.get(number)
            if fault is not None and not self.is_stored:
                raise fault
            answer = await method(batch)
            if fault is not None:
                raise fault
            return answer
        finally:
            self.at_once -= 1


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def assigning(orchestrator: Any, monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr(orchestrator.store, "assign", slow.of(orchestrator.store.assign))
    return slow


@pytest.fixture
def settling(orchestrator: Any, monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow, store = Slow(), orchestrator.store
    monkeypatch.setattr(store, "settle", slow.of(store.settle))
    monkeypatch.setattr(store, "settle_and_unlock", slow.of(store.settle_and_unlock))
    return slow


async def done_once(sql: Any, number: int) -> None:
    """All are completed, each by one attempt."""
    assert await sql("select status, attempts_made, count(*) from task_distributions group by 1, 2") == [
        ("completed", 1, number)
    ]
    assert await sql("select status, count(*) from task_attempts group by 1") == [("completed", number)]


async def submitted(orchestrator: Any, number: int) -> list[Any]:
    """By so many a call that each hint holds the ids: else the window is read anew, which waits."""
    return [
        one
        for start in range(0, number, 50)
        for one in await orchestrator.submit_all([TASK] * min(50, number - start))
    ]


async def finished(orchestrator: Any, handles: list[Any]) -> None:
    await orchestrator.call("task.wait", task_ids=[one.task_id for one in handles], timeout_seconds=30)


async def test_the_next_batch_is_matched_while_one_is_being_stored(
    orchestrator: Any, crew: Any, assigning: Slow, sql: Any
) -> None:
    handles = await submitted(orchestrator, MANY)
    await crew.join("a", slots=MANY)
    member = orchestrator.engine.state.roster.members["a"]

    await until(lambda: member.busy == MANY)
    assert (assigning.sizes, orchestrator.engine.state.deliveries) == ([BATCH], {})
    assigning.gate.set()
    await finished(orchestrator, handles)

    assert assigning.sizes == [BATCH, MANY - BATCH]
    assert assigning.most_at_once == 1
    await done_once(sql, MANY)


async def test_a_hint_of_what_is_being_stored_does_not_have_it_assigned_twice(
    orchestrator: Any, crew: Any, assigning: Slow, sql: Any
) -> None:
    """Until the commit its row looks ready."""
    scheduler = orchestrator.engine.scheduler
    handles = await submitted(orchestrator, MANY)
    await crew.join("a", slots=2 * MANY)
    await until(lambda: orchestrator.engine.state.roster.members["a"].busy == MANY)

    more = await orchestrator.submit_all([TASK])  # its own hint may come late, so it is not named in another
    scheduler.hint([one.task_id for one in handles])
    await asyncio.sleep(0)
    assigning.gate.set()
    await finished(orchestrator, [*handles, *more])

    assert sum(assigning.sizes) == MANY + 1
    await done_once(sql, MANY + 1)


async def test_no_more_run_at_once_than_may_while_some_are_being_stored(
    orchestrator: Any, crew: Any, assigning: Slow
) -> None:
    orchestrator.engine.scheduler.most_running = BATCH + 7
    handles = await submitted(orchestrator, 2 * MANY)
    await crew.join("a", slots=2 * MANY)
    member = orchestrator.engine.state.roster.members["a"]

    await until(lambda: member.busy == BATCH + 7)
    await asyncio.sleep(0.05)
    assert member.busy == BATCH + 7
    assigning.gate.set()
    await finished(orchestrator, handles)


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize(
    "fault", [DatabaseUnreachable("gone"), asyncpg.UniqueViolationError("taken"), RuntimeError("a fault")]
)
async def test_a_batch_that_fails_while_the_next_is_matched_takes_neither_along(
    orchestrator: Any, crew: Any, assigning: Slow, sql: Any, noise: Any, fault: Exception, is_stored: bool
) -> None:
    assigning.faults, assigning.is_stored = {0: fault}, is_stored
    handles = await submitted(orchestrator, MANY)
    await crew.join("a", slots=MANY)
    await until(lambda: orchestrator.engine.state.roster.members["a"].busy == MANY)

    assigning.gate.set()
    await finished(orchestrator, handles)

    await done_once(sql, MANY)
    await until(lambda: orchestrator.engine.state.roster.members["a"].busy == 0)
    assert all("a fault" in told for told in noise.take())


async def test_a_task_that_cannot_be_assigned_does_not_stop_the_batch_behind_it(
    orchestrator: Any, crew: Any, assigning: Slow, sql: Any
) -> None:
    assigning.faults = {0: asyncpg.DataError("sick")}
    handles = await submitted(orchestrator, MANY)
    await crew.join("a", slots=MANY)
    await until(lambda: orchestrator.engine.state.roster.members["a"].busy == MANY)

    assigning.gate.set()
    await finished(orchestrator, handles)

    assert Counter(assigning.sizes)[1] == BATCH, "one by one, to find what is sick"
    await done_once(sql, MANY)


async def test_an_engine_that_stops_while_a_batch_is_being_stored_loses_nothing(
    start_engine: Any, crew_of: Any, sql_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start_engine()
    assigning = Slow()
    monkeypatch.setattr(first.store, "assign", assigning.of(first.store.assign))
    handles = await submitted(first, MANY)
    await crew_of(first).join("a", slots=MANY)
    await until(lambda: first.engine.state.roster.members["a"].busy == MANY)
    assert (assigning.sizes, assigning.at_once) == ([BATCH], 1)
    await first.stop()

    second = await start_engine()
    await crew_of(second).join("b", slots=MANY)
    await finished(second, handles)

    await done_once(functools.partial(sql_of, second), MANY)


# --- results ----------------------------------------------------------------------------------


async def test_results_gather_while_some_are_being_stored_and_one_statement_stores_them(
    orchestrator: Any, crew: Any, settling: Slow, sql: Any
) -> None:
    await crew.join("a", slots=10)
    first = await orchestrator.submit_all([TASK])
    await until(lambda: settling.sizes == [1])
    more = await orchestrator.submit_all([TASK] * 9)
    await until(lambda: len(orchestrator.engine.settler._reports) == 9)

    settling.gate.set()
    await finished(orchestrator, [*first, *more])

    assert settling.sizes == [1, 9]
    await done_once(sql, 10)


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("fault", [DatabaseUnreachable("gone"), RuntimeError("a fault")])
async def test_results_whose_storing_fails_are_stored_again_with_those_behind_them(
    orchestrator: Any, crew: Any, settling: Slow, sql: Any, fault: Exception, is_stored: bool
) -> None:
    settling.faults, settling.is_stored = {0: fault}, is_stored
    await crew.join("a", slots=10)
    handles = await orchestrator.submit_all([TASK] * 5 + [TASK | {"id": "first"}])
    after = await orchestrator.submit(TASK | {"depends_on": ["first"]})
    await until(lambda: sum(settling.sizes) + len(orchestrator.engine.settler._reports) >= 6)

    settling.gate.set()
    await finished(orchestrator, [*handles, after])

    await done_once(sql, 7)
    assert await sql("select count(*) from events where kind = 'task_completed'") == [(7,)]


async def test_a_fault_after_results_were_stored_leaves_no_agent_without_its_ack(
    orchestrator: Any, crew: Any, sql: Any, noise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settler = orchestrator.engine.settler
    tell, faults = settler._tell_simple, [RuntimeError("a fault")]

    def faulty(*args: Any) -> Any:
        if faults:
            raise faults.pop()
        return tell(*args)

    monkeypatch.setattr(settler, "_tell_simple", faulty)
    hand = await crew.join("a", slots=1)
    handles = await orchestrator.submit_all([TASK | {"id": "first"}, TASK, TASK])
    after = await orchestrator.submit(TASK | {"depends_on": ["first"]})

    await finished(orchestrator, [*handles, after])

    await done_once(sql, 4)
    await until(lambda: orchestrator.engine.state.roster.members["a"].busy == 0)
    assert not hand.running.done()
    assert all("a fault" in told for told in noise.take())


async def test_agents_do_not_wait_for_what_the_loop_reads(
    orchestrator: Any, crew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More became ready while a batch was stored, and reading that takes long: the batch is sent before."""
    store = orchestrator.store
    read, reading, go_on = store.ready_tasks, asyncio.Event(), asyncio.Event()

    async def slow(limit: int, pool: str, **where: Any) -> Any:
        if where:
            reading.set()
            await go_on.wait()
        return await read(limit, pool, **where)

    monkeypatch.setattr("agentorch_cli.engine.scheduler.WINDOW", 400)
    monkeypatch.setattr(store, "ready_tasks", slow)
    handles = await submitted(orchestrator, 3 * BATCH)
    orchestrator.engine.scheduler.look_again_here()
    await crew.join("a", slots=3 * BATCH)

    await reading.wait()
    await until(lambda: len(orchestrator.engine.state.deliveries) > 0)
    go_on.set()
    await finished(orchestrator, handles)
