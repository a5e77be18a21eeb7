"""Deadlocks in a living fleet: each is found in time, written down once, resolved once, and explained.

From the block to its record less than two seconds are usual, and to progress again less than four, with the
default settings. The limits here are wider, for busy machines, but below the 30 s of the sweep: what is found
within them was looked for. What is merely busy is never accused.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from test_subtasks import running
from websockets.asyncio.client import connect

from agentorch_cli import Agent
from agentorch_cli.agents.work import Work
from agentorch_cli.core.ladder import Policy
from agentorch_cli.errors import Conflict
from agentorch_cli.store.database import Database
from agentorch_cli.store.deadlocks import Deadlocks
from agentorch_cli.store.store import Store
from agentorch_cli.wiring import Orchestrator

StartEngine = Callable[..., Awaitable[Orchestrator]]

DETECTED_WITHIN = 20.0
MOVING_WITHIN = 25.0


async def submit(orchestrator: Orchestrator, *tasks: dict[str, Any]) -> None:
    """Submit tasks that may depend on ids that nobody has yet."""
    specs = orchestrator.read(tasks)
    await orchestrator.call("task.submit", tasks=specs, allow_forward=True)


def link(task_id: str, *needed: str, **fields: Any) -> dict[str, Any]:
    return {"id": task_id, "required_capabilities": ["work"], "depends_on": list(needed), **fields}


async def ring(orchestrator: Orchestrator, name: str, size: int) -> list[str]:
    """Tasks that wait for each other in a circle, submitted one by one."""
    ids = [f"{name}-{n}" for n in range(size)]
    for n, task_id in enumerate(ids):
        await submit(orchestrator, link(task_id, ids[(n + 1) % size]))
    return ids


async def deadlocks(orchestrator: Orchestrator, **which: Any) -> list[Any]:
    return list(await orchestrator.call("deadlock.list", limit=5000, **which))


async def until(what: str, condition: Callable[[], Awaitable[Any]], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < end, f"not in {seconds:g} s: {what}"
        await asyncio.sleep(0.02)
    return found


def worker(agent_id: str = "worker", *, seconds: float = 0.0, **options: Any) -> Agent:
    """An agent that does the work, whatever it is."""
    agent = Agent(agent_id, capabilities=["work"], **options)

    async def work(work: Work) -> str:
        await asyncio.sleep(seconds)
        return work.task_id

    agent.add_handler(work)
    return agent


def parent(agent_id: str = "worker", **metadata: Any) -> Agent:
    """An agent whose work of type `parent` waits for work of the same capability."""
    agent = Agent(agent_id, capabilities=["work"], slots=1, metadata=metadata)

    async def work(work: Work) -> str:
        if work.type != "parent":
            return "child"
        child = {
            "type": "child",
            "required_capabilities": ["work"],
            "idempotency_key": f"child of {work.task_id}",
        }
        return f"parent of {await work.submit(child)}"

    agent.add_handler(work)
    return agent


# --- dependencies ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 7, 50])
async def test_a_ring_of_forward_references_fails_with_the_ring_as_the_reason(
    orchestrator: Orchestrator, size: int
) -> None:
    await orchestrator.register_agent("away", capabilities=["work"])
    ids = await ring(orchestrator, "ring", size)
    await submit(orchestrator, link("behind", ids[0]), link("goes-on", ids[1], on_dependency_failure="run"))

    async with running(orchestrator, worker()):
        ended = await orchestrator.call(
            "task.wait", task_ids=[*ids, "behind", "goes-on"], timeout_seconds=MOVING_WITHIN
        )

    assert {task.status for task in ended[:-1]} == {"failed"}
    assert ended[-1].status == "completed"
    assert ended[0].error["code"] == "deadlock"
    assert " -> " in ended[0].error["message"]
    (one,) = await deadlocks(orchestrator)
    assert (one.kind, one.resolved_by) == ("circular_dependency", "monitor")
    assert sorted(one.members) == sorted(ids)
    assert all(
        edge["task"] == task and edge["reason"] == f"{task} depends on {edge['on']}"
        for edge, task in zip(one.edges, one.members, strict=True)
    )
    kinds = [event.kind for event in await orchestrator.call("event.list", task_id=ids[0])]
    assert kinds.count("deadlock_detected") == kinds.count("deadlock_resolved") == 1


async def test_a_near_ring_dissolves_by_itself(orchestrator: Orchestrator) -> None:
    await orchestrator.register_agent("worker", capabilities=["work"])
    await submit(orchestrator, link("a", "b"))
    await submit(orchestrator, link("b", "c"))
    async with running(orchestrator, worker()):
        await submit(orchestrator, link("c"))
        ended = await orchestrator.call("task.wait", task_ids=["a", "b", "c"], timeout_seconds=MOVING_WITHIN)

    assert {task.status for task in ended} == {"completed"}
    assert await deadlocks(orchestrator) == []


async def test_a_ring_that_ignores_failure_loses_one_member_only(orchestrator: Orchestrator) -> None:
    await submit(orchestrator, link("a", "b", on_dependency_failure="run"))
    await submit(orchestrator, link("b", "a"))

    async with running(orchestrator, worker()):
        a, b = await orchestrator.call("task.wait", task_ids=["a", "b"], timeout_seconds=MOVING_WITHIN)

    assert (a.status, b.status) == ("completed", "failed")


async def test_a_thousand_rings_at_once_are_resolved_together(orchestrator: Orchestrator) -> None:
    await orchestrator.register_agent("away", capabilities=["work"])
    half = [link(f"r{n}-0", f"r{n}-1") for n in range(1000)]
    other = [link(f"r{n}-1", f"r{n}-0") for n in range(1000)]
    await submit(orchestrator, *half)
    await submit(orchestrator, *other)

    async def all_recorded() -> bool:
        return bool(await orchestrator.store.db.pool.fetchval("select count(*) >= 1000 from deadlocks"))

    async def all_resolved() -> bool:
        return not await deadlocks(orchestrator, only_open=True)

    await until("recorded", all_recorded, DETECTED_WITHIN)
    await until("resolved", all_resolved, MOVING_WITHIN)

    rows = [one for one in await deadlocks(orchestrator) if one.kind == "circular_dependency"]
    assert len(rows) == 1000
    counts = {row["status"]: row["number"] for row in await orchestrator.store.db.fetch("count_tasks")}
    assert counts == {"failed": 2000}


async def test_a_dependency_that_never_comes_counts_as_failed_after_a_time(start_engine: StartEngine) -> None:
    orchestrator = await start_engine(
        deadlocks={"missing_dependency_after": 0.5}, engine={"deadlock_sweep_interval": 0.5}
    )
    await orchestrator.register_agent("away", capabilities=["work"])
    await submit(orchestrator, link("a", "never"), link("b", "never", on_dependency_failure="skip"))

    a, b = await orchestrator.call("task.wait", task_ids=["a", "b"], timeout_seconds=MOVING_WITHIN)

    assert (a.status, b.status) == ("failed", "skipped")
    (one,) = await deadlocks(orchestrator)
    assert one.kind == "missing_dependency"
    assert "never" in one.reason


async def test_a_dependency_between_old_tasks_is_checked_for_cycles(orchestrator: Orchestrator) -> None:
    await submit(orchestrator, link("a"), link("b", "a"), link("c", "b"))

    with pytest.raises(Conflict, match="a -> c -> b -> a"):
        await orchestrator.call("task.depend", task_id="a", on="c")
    await submit(orchestrator, link("d"))
    task = await orchestrator.call("task.depend", task_id="a", on="d")
    assert (task.status, task.waiting_on) == ("blocked", 1)

    async with running(orchestrator, worker()):
        ended = await orchestrator.call(
            "task.wait", task_ids=["a", "b", "c", "d"], timeout_seconds=MOVING_WITHIN
        )
    assert {task.status for task in ended} == {"completed"}
    assert ended[3].completed_at <= ended[0].started_at


async def test_dependents_of_cancelled_and_failed_tasks_follow_their_policy(
    orchestrator: Orchestrator,
) -> None:
    await submit(
        orchestrator,
        link("root"),
        link("fails", "root"),
        link("skips", "root", on_dependency_failure="skip"),
        link("runs", "root", on_dependency_failure="run"),
    )
    await orchestrator.call("task.cancel", task_ids=["root"])
    async with running(orchestrator, worker()):
        ended = await orchestrator.call(
            "task.wait", task_ids=["fails", "skips", "runs"], timeout_seconds=MOVING_WITHIN
        )

    assert [task.status for task in ended] == ["failed", "skipped", "completed"]


# --- slots ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "parking", "how"),
    [
        ({}, "on_deadlock", "parked"),
        ({"park": False, "lend": 1}, "at_once", "lent"),
        ({"park": False}, "at_once", "stopped"),
    ],
)
async def test_a_parent_that_keeps_its_slot_is_helped_by_the_gentlest_step(
    start_engine: StartEngine, metadata: dict[str, Any], parking: str, how: str
) -> None:
    orchestrator = await start_engine(deadlocks={"parking": parking})
    async with running(orchestrator, parent(**metadata)):
        handle = await orchestrator.submit({"type": "parent", "required_capabilities": ["work"]})

        async def recorded() -> list[Any]:
            return await deadlocks(orchestrator)

        await until("recorded", recorded, DETECTED_WITHIN)
        assert await handle.result(timeout=MOVING_WITHIN) == "parent of child"

    (one,) = await deadlocks(orchestrator)
    assert one.kind == "hold_and_wait"
    assert one.resolution.startswith(how)
    assert set(one.members) >= {handle.task_id}
    assert any(edge["agent"] == "worker" for edge in one.edges)


async def test_two_gangs_take_all_their_agents_or_none(orchestrator: Orchestrator) -> None:
    async with running(orchestrator, *(worker(f"w{n}", seconds=0.02) for n in range(3))):
        gangs = [
            {"required_capabilities": ["work"], "min_agents": 2, "max_agents": 2, "aggregate": "all"}
            for _ in range(10)
        ]
        for handle in await orchestrator.submit_all(gangs):
            assert len(await handle.result(timeout=10)) == 2
    assert await deadlocks(orchestrator) == []


# --- agents ---------------------------------------------------------------------------------


async def test_a_demand_that_nobody_meets_is_named_at_once_and_ends_when_somebody_comes(
    orchestrator: Orchestrator,
) -> None:
    handle = await orchestrator.submit({"required_capabilities": ["work"]})

    async def recorded() -> list[Any]:
        return await deadlocks(orchestrator, only_open=True)

    (one,) = await until("recorded", recorded, DETECTED_WITHIN)
    assert (one.kind, one.members) == ("unsatisfiable", [handle.task_id])
    async with running(orchestrator, worker()):
        await handle.result(timeout=5)

        async def dissolved() -> bool:
            return not await deadlocks(orchestrator, only_open=True)

        await until("dissolved", dissolved, 3)


async def test_a_capability_that_disappears_is_noticed(orchestrator: Orchestrator) -> None:
    async with running(orchestrator, worker(seconds=0.5)):
        await asyncio.sleep(0.2)
        await submit(orchestrator, *(link(f"t{n}") for n in range(3)))
        await asyncio.sleep(0.1)
        await orchestrator.call("agent.remove", agent_ids=["worker"], force=True)

        async def recorded() -> list[Any]:
            return [one for one in await deadlocks(orchestrator) if one.kind == "unsatisfiable"]

        await until("recorded", recorded, DETECTED_WITHIN)


async def test_an_agent_that_goes_silent_is_recorded_and_its_work_goes_elsewhere(
    orchestrator: Orchestrator,
) -> None:
    async with connect(orchestrator.url) as sick:
        await sick.send('{"type": "register", "agentId": "sick", "capabilities": ["work"]}')
        await sick.recv()
        handle = await orchestrator.submit({"required_capabilities": ["work"]})
        work = json.loads(await sick.recv())
        await sick.send(json.dumps({"type": "task_accepted", "messageId": work["messageId"]}))
        await (await sick.ping())  # it is heard; now the agent falls silent
        sick.transport.abort()
    async with running(orchestrator, worker("well")):
        assert await handle.result(timeout=10) == handle.task_id

    async def recorded() -> list[Any]:
        return [one for one in await deadlocks(orchestrator) if one.kind == "timeout"]

    (one,) = await until("recorded", recorded, 3)
    assert one.members == [handle.task_id]
    assert "sick has been silent" in one.reason


# --- the monitor itself ---------------------------------------------------------------------


async def monitor(database_url: str, name: str) -> Deadlocks:
    database = Database(database_url, node_id=name, pool_size=2)
    await database.open()
    return Deadlocks(Store(database), Policy(), grace=30)


async def two_rings(store: Store) -> None:
    async with store.db.transaction() as tx:
        await tx._connection.execute(
            "insert into task_distributions"
            " (task_id, task_type, status, waiting_on, depends_on, submission_id)"
            " select i || '', 't', 'blocked', 1, array[(i + 1 - 2 * (i % 2)) || ''], gen_random_uuid()"
            " from generate_series(0, 3) i"
        )
        await tx._connection.execute(
            "insert into task_dependencies (depends_on, task_id)"
            " select depends_on[1], task_id from task_distributions"
        )


async def test_a_monitor_that_dies_between_choosing_and_acting_leaves_nothing_half_done(
    database_url: str,
) -> None:
    first, second = await monitor(database_url, "first"), await monitor(database_url, "second")
    try:
        await two_rings(first.store)
        look = await first.look()
        await first.record(look.found, look.at)
        assert len(first.steps(look)) == 2  # chosen; and here it dies

        outcome = await second.pass_once()

        assert outcome.new == []
        assert len(outcome.done) == 2
        rows = await second.store.db.fetch("show_deadlocks", None, False, None, 10)
        assert len(rows) == 2
        assert all(row["resolved_at"] for row in rows)
        assert await first.resolve(look, first.steps(look), "first") == {}
    finally:
        await first.store.db.close()
        await second.store.db.close()


async def test_two_monitors_at_once_record_once_and_resolve_once(database_url: str) -> None:
    monitors = [await monitor(database_url, f"node-{n}") for n in range(2)]
    try:
        await two_rings(monitors[0].store)

        outcomes = await asyncio.gather(*(one.pass_once(by=one.store.node_id) for one in monitors))

        assert sum(len(outcome.new) for outcome in outcomes) == 2
        assert sum(len(outcome.done) for outcome in outcomes) == 2
        events = await monitors[0].store.db.pool.fetch("select kind from events where kind = 'task_failed'")
        assert len(events) == 4
    finally:
        for one in monitors:
            await one.store.db.close()


async def test_one_sick_set_does_not_stop_the_pass(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = await monitor(database_url, "node")
    try:
        await two_rings(one.store)
        await one.store.db.pool.execute(
            "create function sick() returns trigger language plpgsql as $$ begin"
            " if new.task_id = '0' then raise exception 'sick'; end if; return new; end $$;"
            " create trigger sick before update on task_distributions for each row execute function sick()"
        )

        outcome = await one.pass_once()

        assert [finding.tasks for finding in outcome.done.values()] == [("2", "3")]
    finally:
        await one.store.db.pool.execute("drop function sick cascade")
        await one.store.db.close()


async def test_a_world_that_moved_on_is_left_alone(database_url: str) -> None:
    one = await monitor(database_url, "node")
    try:
        await two_rings(one.store)
        look = await one.look()
        await one.store.db.pool.execute("delete from task_dependencies where task_id = '0'")

        done = await one.resolve(look, one.steps(look), "monitor")

        assert [step.tasks for step in done.values()] == [("2", "3")]
    finally:
        await one.store.db.close()


async def test_what_says_report_is_left_to_a_person(orchestrator: Orchestrator) -> None:
    await submit(orchestrator, link("a", "b", on_deadlock="report"))
    await submit(orchestrator, link("b", "a"))

    async def recorded() -> list[Any]:
        return await deadlocks(orchestrator, only_open=True)

    (one,) = [
        row for row in await until("recorded", recorded, DETECTED_WITHIN) if row.kind == "circular_dependency"
    ] or [None]
    while one is None:
        await asyncio.sleep(0.1)
        one = next((row for row in await recorded() if row.kind == "circular_dependency"), None)
    (planned,) = await orchestrator.call("deadlock.resolve", deadlock_id=one.deadlock_id, dry_run=True)
    assert (planned.act, planned.is_done) == ("fail", False)
    assert (await orchestrator.call("task.get", task_id="a")).status == "blocked"
    (done,) = await orchestrator.call("deadlock.resolve", deadlock_id=one.deadlock_id, by="ada")
    assert done.is_done
    assert (await orchestrator.call("deadlock.get", deadlock_id=one.deadlock_id)).resolved_by == "ada"


async def test_a_busy_fleet_is_never_accused(start_engine: StartEngine) -> None:
    orchestrator = await start_engine(engine={"deadlock_sweep_interval": 0.1})
    agents = [parent(f"p{n}") for n in range(2)]
    async with running(orchestrator, *agents):
        await asyncio.sleep(0.2)
        tasks: list[dict[str, Any]] = [
            {"id": f"t{n}", "type": "parent" if n % 3 == 0 else "leaf", "required_capabilities": ["work"],
             "depends_on": [f"t{n - d}" for d in (1, 7) if n >= d and n % 5]}
            for n in range(120)
        ]  # fmt: skip
        await submit(orchestrator, *tasks)
        await orchestrator.call("task.wait", task_ids=[task["id"] for task in tasks], timeout_seconds=20)

    assert await deadlocks(orchestrator) == []
    assert orchestrator.engine.state.counters["deadlock_looks"] > 1
