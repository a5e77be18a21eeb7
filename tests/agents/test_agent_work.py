"""What an agent does with the tasks that it is given."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from fake_engine import FakeEngine, Start, cancel, envelope, execute

from agentorch_cli.agents import Agent, Question, Vote, Work, WorkFailed
from agentorch_cli.errors import Conflict, UsageError


async def test_an_agent_registers_with_all_that_it_is(engine: FakeEngine, start: Start) -> None:
    start(Agent("a1", type="reader", capabilities=("read", "count"), slots=3, metadata={"gpu": 0}), token="s")

    connection = await engine.connection()

    assert await connection.expect("register") == {
        "type": "register",
        "agentId": "a1",
        "agentType": "reader",
        "capabilities": ["read", "count"],
        "slots": 3,
        "prefetch": 0,
        "metadata": {"gpu": 0},
        "protocol": 1,
        "batch": True,
        "resume": [],
    }
    assert connection.headers["Authorization"] == "Bearer s"


async def test_a_handler_sees_the_whole_task(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1")
    seen: dict[str, Any] = {}

    @agent.handler("work")
    async def handle(work: Work) -> str:
        for name in ("task_id", "message_id", "attempt", "type", "data", "inputs", "role", "priority"):
            seen[name] = getattr(work, name)
        seen["deadline"], seen["caps"] = work.deadline, work.required_capabilities
        return "done"

    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1", data={"n": [1]}, task_id="t1", role="writer"))
    await connection.expect("task_result")

    assert seen == {
        "task_id": "t1",
        "message_id": "m1",
        "attempt": 1,
        "type": "work",
        "data": {"n": [1]},
        "inputs": {"before": 1},
        "role": "writer",
        "priority": 5,
        "deadline": datetime(2031, 2, 3, 4, 5, 6, 789000, UTC),
        "caps": ["c"],
    }


@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
async def test_a_task_is_accepted_and_its_result_sent(engine: FakeEngine, start: Start, kind: str) -> None:
    agent = Agent("a1")
    threads: list[str] = []

    def plain_handler(work: Work) -> dict[str, Any]:
        threads.append(threading.current_thread().name)
        return {"twice": work.data * 2}

    async def async_handler(work: Work) -> dict[str, Any]:
        return plain_handler(work)

    agent.add_handler(async_handler if kind == "async" else plain_handler, inline=kind == "inline")
    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1", data=21))
    result = await connection.expect("task_result")

    assert result == {
        "type": "task_result",
        "messageId": "m1",
        "taskId": "task-of-m1",
        "result": {"twice": 42},
    }
    assert [m["messageId"] for m in connection.of("task_accepted")] == ([] if kind == "inline" else ["m1"])
    assert (threads[0] != threading.main_thread().name) == (kind == "thread")


async def test_confidence_and_usage_go_with_the_result(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1")

    @agent.handler()
    async def handle(work: Work) -> None:
        work.confidence, work.usage = 0.75, {"inputTokens": 3}

    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1"))
    result = await connection.expect("task_result")

    assert (result["result"], result["confidence"], result["usage"]) == (None, 0.75, {"inputTokens": 3})


def _raise(error: BaseException) -> Any:
    raise error


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


FAILURES: list[tuple[str, Any, dict[str, Any]]] = [
    (
        "work failed",
        lambda: _raise(WorkFailed("no such page", code="gone", retryable=False)),
        {"message": "no such page", "code": "gone", "retryable": False},
    ),
    ("bare", lambda: _raise(WorkFailed("later")), {"message": "later", "retryable": True}),
    (
        "any exception",
        lambda: _raise(KeyError("x\x00\x1b[31m")),
        {"message": "KeyError: 'x\\x00\\x1b[31m'", "code": "exception", "retryable": True},
    ),
    (
        "exit",
        lambda: _raise(SystemExit(3)),
        {"message": "SystemExit: 3", "code": "exception", "retryable": True},
    ),
    (
        "no words",
        lambda: _raise(_Unspeakable()),
        {"message": "_Unspeakable", "code": "exception", "retryable": True},
    ),
    (
        "no json",
        lambda: {"a": object()},
        {
            "message": "the result is not JSON: /result/a: is not JSON: object",
            "code": "result_not_json",
            "retryable": True,
        },
    ),
    (
        "what the store refuses",
        lambda: {"a": "b\x00"},
        {
            "message": "the result is not JSON: /result/a: contains a NUL character",
            "code": "result_not_json",
            "retryable": True,
        },
    ),
]


@pytest.mark.parametrize(("act", "error"), [case[1:] for case in FAILURES], ids=[c[0] for c in FAILURES])
@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
async def test_a_failure_is_told_in_the_shape_of_the_protocol(
    engine: FakeEngine, start: Start, kind: str, act: Any, error: dict[str, Any]
) -> None:
    agent = Agent("a1")

    async def async_handler(work: Work) -> Any:
        return act()

    agent.add_handler(async_handler if kind == "async" else lambda work: act(), inline=kind == "inline")
    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1"))
    result = await connection.expect("task_result")

    assert result == {"type": "task_result", "messageId": "m1", "taskId": "task-of-m1", "error": error}


async def test_a_long_message_keeps_its_ends(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1")
    agent.add_handler(lambda work: _raise(WorkFailed("head" + "x" * 100_000 + "tail")), inline=True)

    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1"))
    message = (await connection.expect("task_result"))["error"]["message"]

    assert len(message) == 2_000
    assert message.startswith("head")
    assert message.endswith("tail")


async def test_a_type_without_a_handler_fails_at_once(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1")
    agent.add_handler(lambda work: 1, "known", inline=True)

    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1", "strange"), execute("m2", "known"))

    assert (await connection.expect("task_result"))["error"]["code"] == "no_handler"
    assert (await connection.expect("task_result"))["result"] == 1


async def test_the_same_message_is_done_once(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1", slots=2)
    calls: list[str] = []
    go = asyncio.Event()

    @agent.handler()
    async def handle(work: Work) -> int:
        calls.append(work.message_id)
        await go.wait()
        return 7

    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1"), execute("m1"))
    await connection.settled()
    assert [m["messageId"] for m in connection.of("task_accepted")] == ["m1", "m1"]

    go.set()
    first = await connection.expect("task_result")
    await connection.send(execute("m1"))
    assert await connection.expect("task_result") == first

    await connection.ack("m1")
    await connection.send(execute("m1"))
    await connection.settled()
    assert len(connection.of("task_result")) == 2
    assert calls == ["m1"]


async def test_a_cancelled_task_stops_and_says_nothing(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1", slots=2)
    stopped = asyncio.Event()

    @agent.handler()
    async def handle(work: Work) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await work.progress(1.0, "too late")
            stopped.set()
        return "a result that nobody wants"

    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1"))
    await connection.expect("task_accepted")
    await connection.send(cancel("m1"), cancel("unknown"))
    async with asyncio.timeout(2):
        await stopped.wait()
    await connection.settled()

    assert {m["type"] for m in connection.messages} == {"register", "task_accepted"}


async def test_a_handler_in_a_thread_sees_that_it_is_cancelled(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1", slots=2)
    seen = threading.Event()

    @agent.handler("work")
    def handle(work: Work) -> str:
        work.progress(0.5)
        while not work.cancelled.is_set():
            time.sleep(0.005)
        seen.set()
        return "unwanted"

    @agent.handler("next")
    def next_handler(work: Work) -> str:
        return "next"

    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1"))
    assert (await connection.expect("task_progress"))["progress"] == 0.5
    await connection.send(cancel("m1"), execute("m2", "next"))
    result = await connection.expect("task_result")

    assert await asyncio.to_thread(seen.wait, 2)
    await connection.settled()
    assert (result["messageId"], len(connection.of("task_result"))) == ("m2", 1)


async def test_a_cancellation_from_inside_is_a_failure(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1")

    @agent.handler()
    async def handle(work: Work) -> None:
        raise asyncio.CancelledError

    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1"))

    assert (await connection.expect("task_result"))["error"]["code"] == "cancelled"


async def test_progress_is_shown_in_order_and_within_bounds(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1")

    @agent.handler()
    async def handle(work: Work) -> None:
        await work.progress(0.5, note="half\x07", usage={"costUsd": 0.1})
        await work.progress(1.5)

    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1"))
    await connection.expect("task_result")

    assert connection.of("task_progress") == [
        {
            "type": "task_progress",
            "messageId": "m1",
            "progress": 0.5,
            "note": "half\\x07",
            "usage": {"costUsd": 0.1},
        },
        {"type": "task_progress", "messageId": "m1", "progress": 1.0},
    ]


async def test_work_waits_for_its_sub_task(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1")

    @agent.handler()
    async def handle(work: Work) -> Any:
        return [await work.submit({"type": "part"}), await work.submit({"type": "other"}, wait=False)]

    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1"))

    first = await connection.expect("submit_task")
    asked = {key: first[key] for key in ("requestId", "parentMessageId", "waitFor", "task")}
    assert asked == {
        "requestId": first["requestId"],
        "parentMessageId": "m1",
        "waitFor": True,
        "task": {"type": "part", "idempotency_key": first["requestId"]},
    }
    about = {"requestId": first["requestId"], "taskId": "t2"}
    await connection.send(
        envelope("subtask_submitted", "e1", **about, status="pending"),
        envelope("subtask_finished", "e2", **about, status="completed", result=[5]),
    )
    second = await connection.expect("submit_task")
    about = {"requestId": second["requestId"], "taskId": "t3"}
    await connection.send(envelope("subtask_submitted", "e3", **about, status="pending"))

    assert (await connection.expect("task_result"))["result"] == [[5], "t3"]


async def test_a_sub_task_that_fails_or_is_refused_fails_its_work(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1", slots=2)

    @agent.handler()
    async def handle(work: Work) -> Any:
        return await work.submit({"type": "part"})

    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1"))
    request = await connection.expect("submit_task")
    about = {"requestId": request["requestId"], "taskId": "t2"}
    await connection.send(envelope("subtask_finished", "e1", **about, status="failed"))
    failed = (await connection.expect("task_result"))["error"]

    await connection.send(execute("m2"))
    request = await connection.expect("submit_task")
    refusal = {"code": "invalid_task", "message": "no type", "requestId": request["requestId"]}
    await connection.send({"type": "error", **refusal})
    refused = (await connection.expect("task_result"))["error"]

    assert failed == {"message": "sub-task t2 ended as failed", "code": "subtask_failed", "retryable": True}
    assert refused == {
        "message": "the engine refused the sub-task: no type",
        "code": "invalid_task",
        "retryable": False,
    }


async def test_a_voter_answers_with_a_value_or_a_vote(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1")

    @agent.voter
    async def vote(question: Question) -> Any:
        match question.topic:
            case "sure":
                return Vote("yes", confidence=0.9)
            case "plain":
                return question.options and question.options[0]
        raise ValueError("no idea")

    start(agent)
    connection = await engine.registered()
    answers = []
    for topic in ("sure", "plain", "broken", "sure"):
        ask = {"decisionId": f"d-{topic}", "topic": topic, "question": "?", "options": ["a", "b"]}
        await connection.send(envelope("consensus_request", f"e-{topic}", **ask))
        answers.append(await connection.expect("consensus_vote"))

    common = {"type": "consensus_vote", "agentId": "a1"}
    assert answers == [
        {**common, "decisionId": "d-sure", "vote": "yes", "confidence": 0.9},
        {**common, "decisionId": "d-plain", "vote": "a"},
        {**common, "decisionId": "d-broken", "vote": None, "abstain": True},
        answers[0],
    ]


async def test_an_agent_without_a_voter_abstains(engine: FakeEngine, start: Start) -> None:
    start(Agent("a1"))
    connection = await engine.registered()
    await connection.send(envelope("consensus_request", "e1", decisionId="d1", topic="t", question=1))

    assert (await connection.expect("consensus_vote"))["abstain"] is True


def test_mistakes_in_the_declaration_are_told_at_once() -> None:
    agent = Agent("a1")
    agent.add_handler(lambda work: 1, "x")

    async def asynchronous(work: Work) -> None: ...

    with pytest.raises(Conflict, match="two handlers for x"):
        agent.add_handler(lambda work: 1, "x")
    with pytest.raises(UsageError, match="cannot be async"):
        agent.add_handler(asynchronous, inline=True)
    with pytest.raises(UsageError, match="one string"):
        Agent("a1", capabilities="read")
    with pytest.raises(UsageError, match="0 slots"):
        Agent("a1", slots=0)
    with pytest.raises(UsageError, match="no id of an agent"):
        Agent("")
