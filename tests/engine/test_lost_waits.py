"""Work that waits for its sub-tasks goes on, whatever is lost between the engine and its database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from crew import Crew, Gate

from agentorch_cli.agents.work import Work
from agentorch_cli.errors import DatabaseUnreachable

PARENT = {"type": "parent", "required_capabilities": ["parent"], "retries": 0}
CHILD = {"type": "child", "required_capabilities": ["child"]}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def waiting(work: Work) -> Any:
    """A parent: its sub-task's result is its own."""
    return await work.submit(CHILD)


class Failing:
    """A statement of the engine's database that fails as often as it is told to."""

    def __init__(self, db: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = name
        self.faults: list[BaseException] = []
        self.is_stored = False
        """It was done, and only its answer is lost."""
        for method in ("fetch", "fetch_one", "hot"):
            monkeypatch.setattr(db, method, self._of(getattr(db, method)))

    def _of(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(name: str, *args: Any, **options: Any) -> Any:
            if name != self.name or not self.faults:
                return await method(name, *args, **options)
            fault = self.faults.pop(0)
            if self.is_stored:
                await method(name, *args, **options)
            raise fault

        return call


async def parent_and_child(crew: Crew, other: Crew | None = None) -> Gate:
    """Two agents of one slot: a does parents, and b, of the other crew, their children."""
    await crew.join("a", "parent", does=waiting, slots=1)
    child = Gate("done")
    await (other or crew).join("b", "child", does=child, slots=1)
    return child


@pytest.fixture
def failing(orchestrator: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Failing]:
    return lambda name: Failing(orchestrator.store.db, name, monkeypatch)


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize(
    "name", ["lineage_up", "begin_wait", "results", "end_wait", "continuations", "grant_slots"]
)
async def test_a_parent_goes_on_although_the_database_was_away_for_a_statement(
    orchestrator: Any, crew: Crew, failing: Any, name: str, is_stored: bool
) -> None:
    fault = failing(name)
    fault.faults, fault.is_stored = [DatabaseUnreachable("gone")], is_stored
    child = await parent_and_child(crew)
    handle = await orchestrator.submit(PARENT)
    await child.work()
    child.is_open.set()

    task = await handle.wait(timeout=30)

    assert (task.status, task.result) == ("completed", "done")
    assert not fault.faults
    await until(lambda: not orchestrator.engine.state.roster.members["a"].used)


async def test_a_parent_whose_sub_tasks_end_cannot_be_read_is_told_so(
    orchestrator: Any, crew: Crew, failing: Any, noise: Any
) -> None:
    """Not by silence: nobody would look again."""
    child = await parent_and_child(crew)
    handle = await orchestrator.submit(PARENT)
    await child.work()
    await until(lambda: orchestrator.engine.state.waiting)
    failing("results").faults = [RuntimeError("a fault")]
    child.is_open.set()

    task = await handle.wait(timeout=30)

    assert task.status == "failed"
    assert "a fault" in noise.take()[0]


# --- slots ------------------------------------------------------------------------------------


def held_slots(orchestrator: Any) -> dict[str, set[int]]:
    """By agent, the slots that are taken in the mirror."""
    return {one.agent_id: set(one.used) for one in orchestrator.engine.state.roster.members.values()}


async def test_a_slot_that_comes_for_work_which_has_ended_meanwhile_is_free_again(
    orchestrator: Any, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given, and before the answer is there the work is called off."""
    child = await parent_and_child(crew)
    grant = orchestrator.store.grant_slots
    calls: list[dict[str, int]] = []

    async def slow(slots: dict[str, int]) -> set[str]:
        granted: set[str] = await grant(slots)
        if not calls:
            calls.append(slots)
            await orchestrator.call("task.cancel", task_ids=[handle.task_id])
            await until(lambda: not orchestrator.engine.state.deliveries)
        return granted

    monkeypatch.setattr(orchestrator.store, "grant_slots", slow)
    handle = await orchestrator.submit(PARENT)
    await child.work()
    child.is_open.set()
    task = await handle.wait(timeout=30)

    assert task.status == "cancelled" and calls
    await until(lambda: held_slots(orchestrator) == {"a": set(), "b": set()})
    assert await (await orchestrator.submit(PARENT)).result(timeout=30) == "done"


@pytest.mark.parametrize("fault", [asyncpg.InternalServerError("a fault"), RuntimeError("a fault")])
async def test_a_slot_that_could_not_be_given_to_work_that_waits_is_free_again(
    orchestrator: Any, crew: Crew, noise: Any, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    child = await parent_and_child(crew)
    grant, faults = orchestrator.store.grant_slots, [fault]

    async def faulty(slots: dict[str, int]) -> set[str]:
        if faults:
            raise faults.pop()
        return await grant(slots)  # type: ignore[no-any-return]

    monkeypatch.setattr(orchestrator.store, "grant_slots", faulty)
    handle = await orchestrator.submit(PARENT)
    await child.work()
    child.is_open.set()

    assert await handle.result(timeout=30) == "done"
    assert "a fault" in noise.take()[0]
    await until(lambda: held_slots(orchestrator) == {"a": set(), "b": set()})


async def test_slots_are_what_the_tables_say_after_a_doubt(orchestrator: Any, crew: Crew) -> None:
    """One is taken that nobody owns, and one is free that somebody owns."""
    gate = Gate()
    await crew.join("a", "child", does=gate, slots=2)
    held = await orchestrator.submit(CHILD)
    await gate.work()
    state, scheduler = orchestrator.engine.state, orchestrator.engine.scheduler
    member, (delivery,) = state.roster.members["a"], state.deliveries.values()

    state.roster.give_back("a", delivery.slot)
    state.roster.hold(member, 1 - delivery.slot)
    scheduler.doubt()
    await until(lambda: member.used == {delivery.slot})

    gate.is_open.set()
    assert (await held.wait(timeout=30)).status == "completed"
    assert (await (await orchestrator.submit(CHILD)).wait(timeout=30)).status == "completed"


async def test_what_fails_while_the_tables_are_read_again_is_in_doubt_again(
    orchestrator: Any, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler, engine = orchestrator.engine.scheduler, orchestrator.engine
    readings: list[None] = []
    await crew.join("a", "child")

    async def resync() -> None:
        readings.append(None)
        if len(readings) == 1:
            scheduler.doubt()
        await engine.resync()

    monkeypatch.setattr(scheduler, "on_doubt", resync)
    scheduler.doubt()

    await until(lambda: len(readings) == 2)


# --- statements that are carried out late ---------------------------------------------------


async def test_a_slot_that_was_given_behind_the_engines_back_is_found(
    orchestrator: Any, crew: Crew, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection broke, the mirror was compared with the tables, and then the statement was done."""
    child = await parent_and_child(crew)

    async def late(slots: dict[str, int]) -> set[str]:
        ((message_id, slot),) = slots.items()
        await sql(
            "update task_attempts set is_parked = false, slot = $2, wants_slot_since = null"
            " where message_id = $1",
            message_id,
            slot,
        )
        return set()

    monkeypatch.setattr(orchestrator.store, "grant_slots", late)
    handle = await orchestrator.submit(PARENT)
    await child.work()
    child.is_open.set()

    assert await handle.result(timeout=30) == "done"
    await until(lambda: held_slots(orchestrator) == {"a": set(), "b": set()})


async def test_a_wait_that_begins_again_behind_the_engines_back_does_not_hold_up_what_came(
    orchestrator: Any, crew: Crew, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try of the statement that begins it is carried out when all is over."""
    child = await parent_and_child(crew)
    end = orchestrator.store.end_wait

    async def ended(message_id: str, task_id: str) -> tuple[bool, bool]:
        stands: tuple[bool, bool] = await end(message_id, task_id)
        await sql(
            "update task_attempts set awaits = array[$2], waits_since = now(), wants_slot_since = null"
            " where message_id = $1",
            message_id,
            task_id,
        )
        return stands

    monkeypatch.setattr(orchestrator.store, "end_wait", ended)
    handle = await orchestrator.submit(PARENT)
    await child.work()
    child.is_open.set()

    assert await handle.result(timeout=30) == "done"


async def test_the_end_of_a_sub_task_that_nobody_hinted_at_is_found(
    orchestrator: Any, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator.engine.subtasks, "hinted", lambda _: None)
    child = await parent_and_child(crew)
    handle = await orchestrator.submit(PARENT)
    await child.work()
    await until(lambda: orchestrator.engine.state.waiting)
    child.is_open.set()

    assert await handle.result(timeout=30) == "done"


@pytest.mark.parametrize("is_stored", [False, True])
async def test_a_parent_on_another_node_goes_on_although_the_leader_was_cut_off(
    start_engine: Any, crew_of: Any, monkeypatch: pytest.MonkeyPatch, is_stored: bool
) -> None:
    leader, follower = await start_engine(), await start_engine()
    fault = Failing(leader.store.db, "grant_slots", monkeypatch)
    fault.faults, fault.is_stored = [DatabaseUnreachable("gone")], is_stored
    child = await parent_and_child(crew_of(follower), crew_of(leader))
    handle = await leader.submit(PARENT)
    await child.work()
    child.is_open.set()

    assert await handle.result(timeout=30) == "done"
    assert not fault.faults
    await until(lambda: held_slots(leader) == {"a": set(), "b": set()})
    assert not leader.engine.state.running
    assert await (await leader.submit(PARENT)).result(timeout=30) == "done"


async def test_an_assignment_that_is_stored_after_the_tables_were_looked_at_is_sent(
    orchestrator: Any, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a statement whose connection broke. Nobody else needs the slot, so nothing collides with it."""
    scheduler, engine, assign = orchestrator.engine.scheduler, orchestrator.engine, orchestrator.store.assign
    batches: list[Any] = []

    async def lost(batch: Any) -> Any:
        if batches:
            return await assign(batch)
        batches.append(batch)
        raise DatabaseUnreachable("gone")

    async def resync() -> None:
        await engine.resync()
        if batches:
            await assign(batches[0])

    monkeypatch.setattr(orchestrator.store, "assign", lost)
    monkeypatch.setattr(scheduler, "on_doubt", resync)
    monkeypatch.setattr("agentorch_cli.engine.lifeline.UNSENT_AFTER", 0.1)
    await crew.join("a", "child", slots=2)
    handle = await orchestrator.submit(CHILD | {"data": "done"})

    assert await handle.result(timeout=30) == "done"
    task = await orchestrator.call("task.get", task_id=handle.task_id)
    assert len(task.attempts) == 1
    await until(lambda: held_slots(orchestrator) == {"a": set()})
