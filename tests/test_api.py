"""The engine in a program of one's own: what `from agentorch_cli import …` gives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentorch_cli import Agent, Orchestrator, TaskFailed, TaskSpec, WaitTimedOut
from agentorch_cli.config import Settings
from agentorch_cli.errors import Conflict, InvalidTask, NotFound, UsageError


@pytest.fixture
async def counter(orchestrator: Orchestrator) -> Any:
    """A connected agent that counts words, and fails where there are none."""
    agent = Agent("counter", capabilities=("count",), slots=8)

    @agent.handler()
    async def count(work: Any) -> int:
        return len(work.data.split())

    connected = asyncio.Event()
    running = asyncio.create_task(agent.run(orchestrator.url, on_connection=lambda *_: connected.set()))
    await connected.wait()
    yield agent
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_task_is_submitted_and_its_result_awaited(orchestrator: Orchestrator, counter: Agent) -> None:
    handle = await orchestrator.submit({"requiredCapabilities": ["count"], "data": "one two three"})

    assert await handle.result() == 3
    assert await handle.result(timeout=1) == 3


async def test_a_task_that_failed_raises_its_reason(orchestrator: Orchestrator, counter: Agent) -> None:
    handle = await orchestrator.submit({"required_capabilities": ["count"], "retries": 0, "data": 5})

    with pytest.raises(TaskFailed, match="split") as caught:
        await handle.result(10)

    assert caught.value.details["task_id"] == handle.task_id
    assert (await handle.wait()).status == "failed"


async def test_a_wait_that_is_too_short_says_how_many_are_left(orchestrator: Orchestrator) -> None:
    handle = await orchestrator.submit({"required_capabilities": ["nobody"]})

    with pytest.raises(WaitTimedOut, match="1 of 1 tasks"):
        await handle.wait(0.05)


async def test_hundreds_of_handles_are_awaited_at_once(orchestrator: Orchestrator, counter: Agent) -> None:
    handles = await orchestrator.submit_all(
        [{"required_capabilities": ["count"], "data": "x " * number} for number in range(300)]
    )

    results = await asyncio.gather(*(handle.result(20) for handle in handles))

    assert results == list(range(300))


async def test_a_submission_goes_in_whole_or_not_at_all(orchestrator: Orchestrator) -> None:
    await orchestrator.submit({"id": "taken", "required_capabilities": ["count"]})

    with pytest.raises(Conflict, match="'taken'"):
        await orchestrator.submit_all([*({"id": f"t{n}"} for n in range(99)), {"id": "taken"}])

    assert [task.task_id for task in await orchestrator.call("task.list")] == ["taken"]


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"data": float("nan")}, "finite|NaN"),
        ({"data": "\0"}, "NUL"),
        ({"data": "\ud800"}, "surrogate"),
        ({"id": "a\nb"}, "id"),
        ({"priorty": 1}, "priority"),
        ({"depends_on": ["x"], "id": "x"}, "itself"),
    ],
)
async def test_what_the_store_could_not_keep_is_refused(
    orchestrator: Orchestrator, task: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidTask, match=says):
        await orchestrator.submit(task)

    assert await orchestrator.call("task.list") == []


@pytest.mark.parametrize(
    "wrong", [{"agent_id": " "}, {"type": ""}, {"capabilities": ["a\n"]}, {"pool": "x" * 201}]
)
async def test_an_agent_that_no_file_could_name_is_refused(
    orchestrator: Orchestrator, wrong: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=r"no (id|type|capability|pool) of an agent"):
        await orchestrator.register_agent(**{"agent_id": "a", **wrong})

    assert await orchestrator.call("agent.list") == []


async def test_specs_and_mappings_do_not_mix(orchestrator: Orchestrator) -> None:
    with pytest.raises(UsageError, match="both"):
        await orchestrator.submit_all([TaskSpec("a"), {"id": "b"}])


async def test_tasks_and_agents_are_listed_and_shown(orchestrator: Orchestrator, counter: Agent) -> None:
    first = await orchestrator.submit({"type": "x", "required_capabilities": ["count"], "data": "a"})
    await first.result(10)
    await orchestrator.submit({"type": "y", "required_capabilities": ["nobody"]})

    listed = await orchestrator.call("task.list", status=["completed"])
    by_type = await orchestrator.call("task.list", type="y")
    by_agent = await orchestrator.call("task.list", agent="counter")
    agent = await orchestrator.call("agent.get", agent_id="counter")

    assert [task.task_id for task in listed] == [first.task_id] == [task.task_id for task in by_agent]
    assert [task.status for task in by_type] == ["pending"]
    assert (agent.status, agent.slots, agent.busy) == ("online", 8, 0)
    for method, names in (("task.get", {"task_id": "no"}), ("agent.get", {"agent_id": "no"})):
        with pytest.raises(NotFound, match="'no'"):
            await orchestrator.call(method, **names)
    with pytest.raises(NotFound):
        await orchestrator.call("task.wait", task_ids=["no"])
    with pytest.raises(UsageError):
        await orchestrator.call("no.such")


async def test_a_demand_that_nobody_meets_is_told_at_once_and_stays_visible(
    orchestrator: Orchestrator, counter: Agent
) -> None:
    reply = await orchestrator.call(
        "task.submit", tasks=orchestrator.read([{"required_capabilities": ["count", "fly"]}])
    )
    status = await orchestrator.call("status.get")

    assert reply.warnings == ["no registered agent has count and fly; the task waits until one comes"]
    assert any("count and fly" in alarm for alarm in status.alarms)
    assert status.task_counts == {"pending": 1}
    assert status.agent_counts == {"online": 1}


async def test_events_are_heard_from_the_start(settings: Settings) -> None:
    orchestrator = Orchestrator(settings)
    events = orchestrator.events()
    async with orchestrator:
        await orchestrator.register_agent("x", capabilities=["count"], exec="wc -w")
        await (await orchestrator.submit({"required_capabilities": ["count"], "data": "a b"})).result(10)
        first, second = await orchestrator.submit_all(
            [
                {"required_capabilities": ["nobody"], "id": "never"},
                {"depends_on": ["never"], "on_dependency_failure": "skip"},
            ]
        )
        await first.cancel()
        await second.wait(10)
    heard = [news.kind async for news in events]

    assert heard[0] == "initialized"
    for kind in ("agent_registered", "task_assigned", "task_completed", "agent_offline"):
        assert kind in heard, kind
    assert heard.index("agent_registered") < heard.index("task_assigned") < heard.index("task_completed")


async def test_a_listener_that_raises_or_sleeps_stops_nobody(
    orchestrator: Orchestrator, counter: Agent
) -> None:
    async def raises() -> None:
        async for _ in orchestrator.events():
            raise RuntimeError("a listener's own trouble")

    async def sleeps() -> None:
        async for _ in orchestrator.events():
            await asyncio.sleep(60)

    listeners = [asyncio.create_task(raises()), asyncio.create_task(sleeps())]
    await asyncio.sleep(0)

    for _ in range(3):
        handle = await orchestrator.submit({"required_capabilities": ["count"], "data": "a"})
        assert await handle.result(10) == 1
    for listener in listeners:
        listener.cancel()
    ended = await asyncio.gather(*listeners, return_exceptions=True)

    assert isinstance(ended[0], RuntimeError)


async def test_a_listener_that_does_not_keep_up_is_told_how_much_it_missed(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentorch_cli.engine import bus

    monkeypatch.setattr(bus, "MOST_KEPT", 3)
    listening = bus.Subscription()

    for number in range(5):
        listening.put(bus.News(str(number)))
    listening.close()

    assert [news.kind async for news in listening] == ["2", "3", "4"]
    assert listening.missed == 2


async def test_a_graceful_stop_lets_running_work_end_and_fails_nothing(
    start_engine: Any,
) -> None:
    orchestrator = await start_engine(engine={"drain_timeout": 5.0})
    agent, begun, done = Agent("a", capabilities=("work",)), asyncio.Event(), asyncio.Event()

    @agent.handler()
    async def work(work: Any) -> str:
        begun.set()
        await done.wait()
        return "done"

    running = asyncio.create_task(agent.run(orchestrator.url))
    first = await orchestrator.submit({"required_capabilities": ["work"]})
    second = await orchestrator.submit({"required_capabilities": ["work"]})
    await begun.wait()
    stopping = asyncio.create_task(orchestrator.stop())
    await asyncio.sleep(0.05)
    done.set()
    await stopping
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    again = await start_engine()
    stood = {task.task_id: task.status for task in await again.call("task.list")}
    assert stood == {first.task_id: "completed", second.task_id: "pending"}
