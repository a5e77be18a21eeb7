"""What an agent does about its connection: nothing that it holds may be lost with one."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import orjson
import pytest
from fake_engine import Connection, FakeEngine, Start, cancel, envelope, execute

from agentorch_cli.agents import Agent, Work
from agentorch_cli.agents.outbox import pack
from agentorch_cli.errors import InvalidMessage, NotAllowed, Unauthorized


def echo(**options: Any) -> Agent:
    agent = Agent("a1", slots=100, **options)
    agent.add_handler(lambda work: work.data, "echo", inline=True)

    @agent.handler("wait")
    async def wait(work: Work) -> None:
        await work.cancelled.wait()

    return agent


async def test_a_result_is_sent_again_until_it_is_confirmed(engine: FakeEngine, start: Start) -> None:
    start(echo())
    first = await engine.registered()
    await first.send(execute("m1", "echo", 1), execute("m2", "echo", 2))
    await first.expect("task_result")
    await first.expect("task_result")
    await first.ack("m1")
    await first.settled()
    first.cut()

    second = await engine.connection()
    register = await second.welcome()
    again = await second.expect("task_result")
    await second.ack("m2")
    await second.settled()
    second.cut()
    third = await engine.connection()

    assert register["resume"] == ["m2"]
    assert (again["messageId"], again["result"], len(second.of("task_result"))) == ("m2", 2, 1)
    assert (await third.welcome())["resume"] == []


async def test_nothing_is_sent_again_before_the_welcome(engine: FakeEngine, start: Start) -> None:
    start(echo())
    first = await engine.registered()
    await first.send(execute("m1", "echo", 1))
    await first.expect("task_result")
    first.cut()

    second = await engine.connection()
    await second.expect("register")
    await second.settled()

    assert [message["type"] for message in second.messages] == ["register"]


async def test_running_work_is_resumed_and_dropped_work_is_stopped(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1", slots=3)
    works: dict[str, Work] = {}
    go = asyncio.Event()

    @agent.handler()
    async def handle(work: Work) -> str:
        works[work.message_id] = work
        await go.wait()
        return "done"

    start(agent)
    first = await engine.registered()
    await first.send(execute("m1"), execute("m2"))
    await first.expect("task_accepted")
    await first.expect("task_accepted")
    first.cut()

    second = await engine.connection()
    register = await second.welcome(dropped=("m1",))
    await second.settled()
    go.set()
    result = await second.expect("task_result")
    await second.settled()

    assert register["resume"] == ["m1", "m2"]
    assert works["m1"].cancelled.is_set()
    assert (result["messageId"], len(second.of("task_result"))) == ("m2", 1)


async def test_work_that_ends_without_a_connection_is_told_later(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1")
    go = asyncio.Event()

    @agent.handler()
    async def handle(work: Work) -> str:
        await go.wait()
        await work.progress(0.9)
        return "done"

    start(agent)
    first = await engine.registered()
    await first.send(execute("m1"))
    await first.expect("task_accepted")
    port = engine.port
    await engine.close()
    go.set()
    await asyncio.sleep(0.05)
    await engine.listen(port)

    second = await engine.registered()
    assert (await second.expect("task_result"))["result"] == "done"


async def test_a_sub_task_is_asked_for_again_after_a_cut(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1")

    @agent.handler()
    async def handle(work: Work) -> Any:
        return await work.submit({"type": "part"})

    start(agent)
    first = await engine.registered()
    await first.send(execute("m1"))
    asked = await first.expect("submit_task")
    first.cut()

    second = await engine.registered()
    assert await second.expect("submit_task") == asked
    await second.send(
        envelope(
            "subtask_finished", "e", requestId=asked["requestId"], taskId="t", status="completed", result=1
        )
    )
    assert (await second.expect("task_result"))["result"] == 1


async def test_the_agent_waits_for_an_engine_that_is_not_there_yet(start: Start) -> None:
    engine = FakeEngine()
    await engine.listen()
    port = engine.port
    await engine.close()
    states: list[tuple[str, str]] = []
    start(echo(), url=engine.url, on_connection=lambda state, reason: states.append((state, reason)))

    await asyncio.sleep(0.15)
    assert states[0][0] == "unreachable"
    assert str(port) in states[0][1]

    await engine.listen(port)
    await engine.registered()
    await asyncio.sleep(0.02)
    assert states[-1] == ("connected", "engine-1")
    await engine.close()


async def test_a_raising_callback_does_not_end_the_agent(engine: FakeEngine, start: Start) -> None:
    def on_connection(state: str, reason: str) -> None:
        raise ValueError(state)

    start(echo(), on_connection=on_connection)
    connection = await engine.registered()
    await connection.send(execute("m1", "echo", 1))

    assert (await connection.expect("task_result"))["result"] == 1


GARBAGE: list[bytes] = [
    b"",
    b"not json",
    b"[1, null, [], {}]",
    b"42",
    b'{"type":"agent_message"}',
    b'{"type":"agent_message","messageType":"execute_task","messageId":["x"],"data":{"task":{"type":"echo"}}}',
    b'{"type":"agent_message","messageType":"execute_task","messageId":"g","data":{"task":null}}',
    b'{"type":"agent_message","messageType":"execute_task","messageId":"g","data":{"task":{"type":"echo"}}}',
    b'{"type":"agent_message","messageType":"cancel_task","messageId":"g","data":[]}',
    b'{"type":"agent_message","messageType":"subtask_finished","messageId":"g","data":{}}',
    b'{"type":"agent_message","messageType":"consensus_request","messageId":"g","data":{}}',
    b'{"type":"agent_message","messageType":"from_the_future","messageId":"g","data":{}}',
    b'{"type":"from_the_future"}',
    b'{"type":"ack","messageId":{}}',
    b'{"type":"ack"}',
    b'{"type":"error"}',
    b'{"type":"error","code":1,"message":null,"messageId":[1],"requestId":"unknown"}',
    b'{"type":"registered"}',
    b"[" * 5000,
]


async def test_garbage_from_the_engine_does_not_stop_the_agent(engine: FakeEngine, start: Start) -> None:
    running = start(echo())
    connection = await engine.registered()
    for garbage in GARBAGE:
        await connection.socket.send(garbage, text=True)
        await connection.socket.send(garbage, text=False)
    await connection.send(execute("m1", "echo", "still here"))

    assert (await connection.expect("task_result"))["result"] == "still here"
    assert not running.done()


async def test_invalid_utf8_costs_only_a_frame_or_a_connection(engine: FakeEngine, start: Start) -> None:
    start(echo())
    connection = await engine.registered()
    await connection.socket.send(b'{"type":"\xff\xfe"}', text=True)
    await connection.send(execute("m1", "echo", 1))

    assert (await connection.expect("task_result"))["result"] == 1


async def test_arrays_are_packed_and_taken_in_batch_mode(engine: FakeEngine, start: Start) -> None:
    start(echo())
    connection = await engine.registered()
    await connection.send_array(*(execute(f"m{n}", "echo", n) for n in range(50)))
    results = [await connection.expect("task_result") for _ in range(50)]

    assert [result["result"] for result in results] == list(range(50))
    assert isinstance(connection.frames[-1], list)
    assert len(connection.frames) == 2


async def test_without_batch_every_message_is_a_frame(engine: FakeEngine, start: Start) -> None:
    start(echo(batch=False))
    connection = await engine.registered()
    for n in range(20):
        await connection.send(execute(f"m{n}", "echo", n))
    for n in range(20):
        assert (await connection.expect("task_result"))["result"] == n

    assert connection.messages[0]["batch"] is False
    assert len(connection.frames) == 21
    assert all(isinstance(frame, dict) for frame in connection.frames)


async def test_what_follows_the_welcome_in_its_frame_is_not_lost(engine: FakeEngine, start: Start) -> None:
    start(echo())
    connection = await engine.connection()
    await connection.expect("register")
    await connection.send_array(
        {"type": "registered", "engineId": "e", "agentId": "a1", "heartbeatInterval": 10},
        execute("m1", "echo", 1),
    )

    assert (await connection.expect("task_result"))["result"] == 1


async def test_hearts_beat_with_the_load(engine: FakeEngine, start: Start) -> None:
    agent = echo()
    agent.slots = 4
    start(agent)
    connection = await engine.connection()
    await connection.welcome(heartbeat=0.06)
    await connection.send(execute("m1", "wait"))
    await connection.expect("task_accepted")
    await connection.expect("agent_heartbeat")

    beat = await connection.expect("agent_heartbeat")
    assert beat == {"type": "agent_heartbeat", "agentId": "a1", "load": 0.25}


async def test_a_refusal_ends_the_agent(engine: FakeEngine, start: Start) -> None:
    for code, error in (
        ("unauthorized", Unauthorized),
        ("not_allowed", NotAllowed),
        ("invalid_message", InvalidMessage),
    ):
        running = start(echo())
        connection = await engine.connection()
        await connection.expect("register")
        await connection.send({"type": "error", "code": code, "message": "no, you may not"})
        await connection.socket.close(1008)

        with pytest.raises(error, match="no, you may not") as refusal:
            await running
        if error is NotAllowed:
            assert refusal.value.fix == "agentorch token create a1 --scope agent:a1"


async def test_a_close_with_1008_is_final_after_the_welcome(engine: FakeEngine, start: Start) -> None:
    running = start(echo())
    connection = await engine.registered()
    await connection.socket.close(1008, "token revoked")

    with pytest.raises(NotAllowed, match="token revoked"):
        await running


async def test_a_close_with_1008_before_the_welcome_is_tried_three_times(
    engine: FakeEngine, start: Start
) -> None:
    running = start(echo())
    for _ in range(3):
        await (await engine.connection()).socket.close(1008, "no register in time")

    with pytest.raises(NotAllowed, match="no register in time"):
        await running


async def test_a_result_that_is_too_long_becomes_an_error(start: Start) -> None:
    engine = FakeEngine()
    await engine.listen(max_size=100_000)
    agent = echo()
    agent.add_handler(lambda work: "x" * 200_000, "long", inline=True)
    start(agent, url=engine.url)
    first = await engine.registered()
    await first.send(execute("m1", "long"))

    second = await engine.registered()
    result = await second.expect("task_result")

    assert (result["error"]["code"], result["error"]["retryable"]) == ("result_too_big", False)
    await engine.close()


async def test_many_results_that_are_too_long_together_are_sent_in_smaller_frames(start: Start) -> None:
    engine = FakeEngine()
    await engine.listen(max_size=100_000)
    start(echo(), url=engine.url)
    connection: Connection = await engine.registered()
    await connection.send_array(*(execute(f"m{n}", "echo", f"{n:02}" + "x" * 9_000) for n in range(30)))
    got: set[str] = set()
    async with asyncio.timeout(5):
        while len(got) < 30:
            connection = await engine.registered()
            await connection.settled()
            got |= {message["messageId"] for message in connection.of("task_result")}

    assert got == {f"m{n}" for n in range(30)}
    await engine.close()


async def test_a_result_that_the_engine_refuses_becomes_an_error_once(
    engine: FakeEngine, start: Start
) -> None:
    start(echo())
    connection = await engine.registered()
    await connection.send(execute("m1", "echo", "too much for this engine"))
    await connection.expect("task_result")
    refusal = {"type": "error", "code": "invalid_message", "message": "/result: too much", "messageId": "m1"}
    await connection.send(refusal)
    second = await connection.expect("task_result")
    await connection.send(refusal)
    await connection.settled()

    assert second["error"]["code"] == "result_refused"
    assert len(connection.of("task_result")) == 2


async def test_stop_finishes_what_runs_and_unregisters(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1", slots=4)
    go = asyncio.Event()

    @agent.handler()
    async def handle(work: Work) -> str:
        await go.wait()
        return "done"

    stop = asyncio.Event()
    running = start(agent, stop=stop)
    connection = await engine.registered()
    await connection.send(execute("m1"))
    await connection.expect("task_accepted")
    stop.set()
    await asyncio.sleep(0.02)
    await connection.send(execute("m2"))
    await connection.settled()
    go.set()
    await connection.expect("task_result")
    await connection.settled()
    assert not running.done(), "the result is not confirmed yet"

    await connection.ack("m1")
    await connection.expect("unregister")
    await asyncio.wait_for(running, 2)
    assert [m["messageId"] for m in connection.of("task_accepted")] == ["m1"]
    assert connection.socket.close_code == 1000


async def test_stop_gives_back_what_takes_too_long(engine: FakeEngine, start: Start) -> None:
    agent = Agent("a1", slots=2)
    cleaned: list[str] = []

    @agent.handler()
    async def handle(work: Work) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned.append(work.message_id)

    @agent.handler("plain")
    def plain_handler(work: Work) -> int:
        return 1

    stop = asyncio.Event()
    running = start(agent, stop=stop, drain_timeout=0.05)
    connection = await engine.registered()
    await connection.send(execute("m1"), execute("m2", "plain"))
    await connection.expect("task_result")
    await connection.ack("m2")
    stop.set()

    await connection.expect("unregister")
    assert cleaned == ["m1"], "it had time to clean up before others were given its work"
    await asyncio.wait_for(running, 2)
    assert len(connection.of("task_result")) == 1
    await asyncio.sleep(0.05)
    assert [t.name for t in threading.enumerate() if t.name.startswith("agent-a1")] == []


async def test_stop_without_an_engine_is_immediate(engine: FakeEngine, start: Start) -> None:
    await engine.close()
    stop = asyncio.Event()
    running = start(echo(), stop=stop)
    await asyncio.sleep(0.02)
    stop.set()

    await asyncio.wait_for(running, 1)


async def test_cancelling_the_agent_cancels_its_work_and_unregisters(
    engine: FakeEngine, start: Start
) -> None:
    running = start(echo())
    connection = await engine.registered()
    await connection.send(execute("m1", "wait"))
    await connection.expect("task_accepted")
    running.cancel()

    await connection.expect("unregister")
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_drain_is_told_and_the_agent_stays(engine: FakeEngine, start: Start) -> None:
    states: list[str] = []
    running = start(echo(), on_connection=lambda state, reason: states.append(state))
    connection = await engine.registered()
    await connection.send(envelope("drain", "e1"), execute("m1", "echo", 1))
    await connection.expect("task_result")
    await connection.ack("m1")
    await connection.settled()

    assert states == ["connected", "draining"]
    assert not running.done()


async def test_a_cancel_that_crosses_the_result_ends_the_matter(engine: FakeEngine, start: Start) -> None:
    start(echo())
    first = await engine.registered()
    await first.send(execute("m1", "echo", 1))
    await first.expect("task_result")
    await first.send(cancel("m1"))
    await first.settled()
    first.cut()

    second = await engine.connection()
    assert (await second.welcome())["resume"] == []


def test_packing_is_the_same_as_joining_but_bounded() -> None:
    frames = [orjson.dumps({"n": n, "x": "y" * (n * 37 % 90)}) for n in range(200)]

    for limit in (1, 50, 101, 500, 10**6):
        packed = list(pack(frames, sum(map(len, frames)), limit))
        unpacked = [orjson.loads(part) for part in packed]
        flat = [m for part in unpacked for m in (part if isinstance(part, list) else [part])]

        assert flat == [orjson.loads(frame) for frame in frames]
        assert all(len(p) <= limit or not isinstance(u, list) for p, u in zip(packed, unpacked, strict=True))
