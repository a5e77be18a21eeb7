"""Rates and concurrency keys on a running engine, over real sockets."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.errors import TaskFailed
from agentorch_cli.wiring import Orchestrator


class Watch:
    """A handler that knows how many run at once, of each key."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.now: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.seconds = seconds
        self.starts: list[float] = []

    async def __call__(self, work: Any) -> str:
        key = work.data["key"]
        self.starts.append(asyncio.get_running_loop().time())
        self.now[key] = self.now.get(key, 0) + 1
        self.most[key] = max(self.most.get(key, 0), self.now[key])
        await asyncio.sleep(self.seconds)  # work takes a while, or nothing could overlap
        self.now[key] -= 1
        return "done"


async def why(orchestrator: Orchestrator, task_id: str) -> list[tuple[str, str]]:
    found = await orchestrator.call("task.why", task_id=task_id)
    return [(link.code, link.sentence) for link in found.links]


async def test_no_more_run_at_once_than_their_key_allows(orchestrator: Orchestrator, crew: Crew) -> None:
    watch = Watch()
    await crew.join("a", does=watch, slots=20)
    await crew.join("b", does=watch, slots=20)

    handles = [
        await orchestrator.submit(
            {
                "required_capabilities": ["work"],
                "data": {"key": key},
                "concurrency_key": key,
                "concurrency_limit": limit,
            }
        )
        for key, limit in (("one", 1), ("three", 3)) * 12
    ]

    assert [await handle.result(20) for handle in handles] == ["done"] * 24
    assert watch.most["one"] == 1
    assert watch.most["three"] <= 3


async def test_as_many_run_at_once_as_their_key_allows(orchestrator: Orchestrator, crew: Crew) -> None:
    gate = Gate("done")
    await crew.join("a", does=gate, slots=20)

    handles = await orchestrator.submit_all(
        [
            {"required_capabilities": ["work"], "concurrency_key": "three", "concurrency_limit": 3}
            for _ in range(5)
        ]
    )

    running = {(await gate.work()).task_id for _ in range(3)}
    (fourth, fifth) = [handle.task_id for handle in handles if handle.task_id not in running]
    assert [code for code, _ in await why(orchestrator, fourth)] == ["key"]
    assert [code for code, _ in await why(orchestrator, fifth)] == ["key", "ahead"]
    assert gate.begun.empty()
    gate.is_open.set()
    assert [await handle.result(10) for handle in handles] == ["done"] * 5


async def test_a_key_is_free_again_after_a_failure_a_cancel_and_a_loss(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    begun = asyncio.Queue[str]()

    async def act(work: Any) -> str:
        await begun.put(work.data)
        if work.data == "fails":
            raise ValueError("no")
        if work.data != "ends":
            await asyncio.Event().wait()
        return "done"

    hand = await crew.join("a", does=act, slots=4)

    async def submit(what: str) -> Any:
        fields = {"required_capabilities": ["work"], "data": what, "concurrency_key": "k", "retries": 0}
        return await orchestrator.submit(fields)

    fails, cancelled, lost, ends = [await submit(w) for w in ("fails", "cancelled", "lost", "ends")]
    async with asyncio.timeout(20):
        assert await begun.get() == "fails"
        assert await begun.get() == "cancelled"
        assert ("key", f"its concurrency key 'k' is held by {cancelled.task_id} (one may run at a time)") in (
            await why(orchestrator, lost.task_id)
        )
        await cancelled.cancel()
        assert await begun.get() == "lost"
        await hand.leave()  # its work goes elsewhere; whoever comes first of the two that wait is free to
        await crew.join("b", does=act, slots=4)
        assert await begun.get() == "lost"
        await lost.cancel()
        assert await begun.get() == "ends"
        assert await ends.result() == "done"
        try:
            await fails.result()
        except TaskFailed as error:
            assert "no" in str(error)


async def test_a_sub_task_shares_the_key_of_its_parent(orchestrator: Orchestrator, crew: Crew) -> None:
    async def parent(work: Any) -> Any:
        return await work.submit(
            {"required_capabilities": ["child"], "concurrency_key": "k", "data": 1}, wait=True
        )

    await crew.join("a", "parent", does=parent)
    await crew.join("b", "child")

    handle = await orchestrator.submit({"required_capabilities": ["parent"], "concurrency_key": "k"})

    await handle.result(10)


async def test_a_rate_bounds_starts_until_it_is_removed(orchestrator: Orchestrator, crew: Crew) -> None:
    await crew.join("a", does=Watch(0.0), slots=50)
    rate = partial(orchestrator.call, "limit.set", scope="capability", name="work", burst=4)
    await rate(number=1, per_seconds=3600.0)

    handles = await orchestrator.submit_all(
        [{"required_capabilities": ["work"], "data": {"key": "x"}} for _ in range(14)]
    )
    waiting = handles[-1].task_id
    async with asyncio.timeout(20):
        while not (reasons := [one for one in await why(orchestrator, waiting) if one[0] == "rate"]):
            await asyncio.sleep(0)
        assert reasons == [("rate", "the rate of capability work is used up (1/h)")]
        await rate(number=20, per_seconds=1.0)
        for handle in handles:
            await handle.result()
    tasks = [await orchestrator.call("task.get", task_id=handle.task_id) for handle in handles]
    # By the clock of the tables: starts bunch up on their way to an agent that is kept from running.
    starts = sorted(task.attempts[0].sent_at.timestamp() for task in tasks)
    for first in range(14):
        for last in range(first, 14):
            assert last - first + 1 <= 4 + 20 * (starts[last] - starts[first] + 0.05)
    assert starts[-1] - starts[0] > 0.25, "14 starts at 20/s with 4 at once take half a second"

    await rate(number=1, per_seconds=3600.0, burst=1)
    handles = [
        await orchestrator.submit({"required_capabilities": ["work"], "data": {"key": "x"}}) for _ in range(5)
    ]
    await orchestrator.call("limit.remove", limits_named=[("capability", "work")])

    assert [await handle.result(10) for handle in handles] == ["done"] * 5


async def test_work_goes_past_an_agent_that_used_up_its_rate(orchestrator: Orchestrator, crew: Crew) -> None:
    first, second = Watch(0.0), Watch(0.0)
    await crew.join("a", does=first, slots=50)
    await crew.join("b", does=second, slots=1)
    await orchestrator.call("limit.set", scope="agent", name="a", number=1, per_seconds=3600.0, burst=3)

    handles = [
        await orchestrator.submit({"required_capabilities": ["work"], "data": {"key": "x"}})
        for _ in range(12)
    ]

    assert [await handle.result(10) for handle in handles] == ["done"] * 12
    assert (len(first.starts), len(second.starts)) == (3, 9)


async def test_the_table_refuses_what_the_mirror_does_not_know(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    """Tokens that somebody else took: the start is taken back, and comes when the bucket has filled."""
    watch = Watch(0.0)
    await crew.join("a", does=watch)
    await orchestrator.call("limit.set", scope="type", name="task", number=2, per_seconds=1.0, burst=1)
    handle = await orchestrator.submit({"required_capabilities": ["work"], "data": {"key": "x"}})
    await handle.result(10)
    async with orchestrator.store.db.transaction() as tx:
        await tx.fetch("take_tokens", ["type"], ["task"], [1])

    for _ in range(3):
        handle = await orchestrator.submit({"required_capabilities": ["work"], "data": {"key": "x"}})
        await handle.result(10)

    rows = await orchestrator.store.db.fetch("limits")
    assert rows[0]["level"] > -1e-6


async def test_an_agent_that_used_up_its_rate_is_named_and_is_no_free_slot_beside_work(
    orchestrator: Orchestrator, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentorch_cli.store.why.IDLE_SECONDS", 0.0)
    await crew.join("a", slots=5)
    await orchestrator.call("limit.set", scope="agent", name="a", number=1, per_seconds=3600.0, burst=1)
    first = await orchestrator.submit({"required_capabilities": ["work"]})
    await first.result(10)

    waiting = await orchestrator.submit({"required_capabilities": ["work"]})
    found = await orchestrator.call("task.why", task_id=waiting.task_id)

    assert not found.is_clear
    assert [link.agents for link in found.links if link.code == "agents"] == [
        {"a": "has used up its rate of 1/h"}
    ]
    assert (await orchestrator.call("status.get")).alarms == []


async def test_a_rate_set_while_tasks_are_read_holds_for_those_that_came_after_it(
    orchestrator: Orchestrator, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, scheduler = orchestrator.engine.store, orchestrator.engine.scheduler
    read, reading, go_on = store.ready_tasks, asyncio.Event(), asyncio.Event()

    async def slow(*asked: Any) -> Any:
        reading.set()
        await go_on.wait()
        return await read(*asked)

    await crew.join("a", slots=5)
    monkeypatch.setattr(store, "ready_tasks", slow)
    scheduler.look_again()
    async with asyncio.timeout(10):
        await reading.wait()
        await orchestrator.call("limit.set", scope="agent", name="a", number=1, per_seconds=3600.0, burst=1)
        handle = await orchestrator.submit({"required_capabilities": ["work"]})
        while not scheduler._are_limits_stale:  # it has been told
            await asyncio.sleep(0.005)
        go_on.set()
        await handle.result()

    assert (await store.db.fetch("limits"))[0]["level"] < 1


async def test_a_rate_holds_for_a_younger_task_that_is_found_before_the_rate_was_heard_of(
    orchestrator: Orchestrator, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = orchestrator.engine.scheduler
    await crew.join("a", slots=5)
    for heard in ("look_at_limits", "hinted", "came"):  # notices that are on their way
        monkeypatch.setattr(scheduler, heard, lambda *_, **__: None)
    await orchestrator.call("limit.set", scope="agent", name="a", number=1, per_seconds=3600.0, burst=1)
    handle = await orchestrator.submit({"required_capabilities": ["work"]})

    scheduler.look_again_here()
    await handle.result(10)

    assert (await orchestrator.engine.store.db.fetch("limits"))[0]["level"] < 1
