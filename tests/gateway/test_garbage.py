"""Frames that are wrong in every way: each gets an error that says where, and the connection stays open."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fleet import Fleet
from frame_schema import SCHEMA, faults
from plain_client import called

WORK = {"required_capabilities": ["work"], "retries": 0}
DEEP = "[" * 100 + "]" * 100

# A frame, and a part of what the error must say.
NOT_JSON = [
    ("", "not valid JSON"),
    ("{", "not valid JSON"),
    ("hello", "not valid JSON"),
    ('{"type":"agent_heartbeat"} {}', "not valid JSON"),
    ("\x00", "not valid JSON"),
    ("NaN", "not valid JSON"),
    ('{"type":"task_result","messageId":"m","taskId":"t","result":NaN}', "not valid JSON"),
    ('{"type":"task_result","messageId":"m","taskId":"t","result":-Infinity}', "not valid JSON"),
    ('{"type":"task_result","messageId":"m","taskId":"t","result":1e400}', "not valid JSON"),
    ('{"type":"task_result","messageId":"m","taskId":"t","result":"\\ud800"}', "surrogate"),
    ('{"type":"task_result","messageId":"m","taskId":"t","result":{"a":["\\u0000"]}}', "/result/a/0"),
    ('{"type":"task_result","messageId":"m","taskId":"t","result":{"\\u0000":1}}', "NUL"),
    ('{"type":"task_result","messageId":"m","taskId":"t","result":18446744073709551616}', "/result"),
    (f'{{"type":"task_result","messageId":"m","taskId":"t","result":{"9" * 5000}}}', "not valid JSON"),
    (f'{{"type":"task_result","messageId":"m","taskId":"t","result":[{"9" * 300}]}}', "/result/0"),
    (f'{{"type":"task_result","messageId":"m","taskId":"t","result":{DEEP}}}', "64 levels"),
    ("[" * 100_000, "not valid JSON"),
    (DEEP, "64 levels"),
    ('"a string"', "a string"),
    ("null", "null"),
    ("true", "a boolean"),
    ("1", "a number"),
    (b'{"type":"agent_heartbeat"}', "not binary"),
    (b"\xff\xfe", "not binary"),
    ('[{"type":"agent_heartbeat"}]', "batch"),
    ("[]", "batch"),
]

RESULT = {"type": "task_result", "messageId": "m", "taskId": "t", "result": 1}

# A frame and the name of the field that is wrong. None of them fits the published schema.
WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({}, "type"),
    ({"type": None}, "type"),
    ({"type": 1}, "type"),
    ({"type": ["register"]}, "type"),
    ({"type": "unknown"}, "unknown"),
    ({"type": "Agent_Heartbeat"}, "Agent_Heartbeat"),
    ({"type": "ack", "messageId": "m"}, "ack"),
    ({"type": "agent_heartbeat", "load": 2}, "load"),
    ({"type": "agent_heartbeat", "load": "0.5"}, "load"),
    ({"type": "agent_heartbeat", "load": True}, "load"),
    ({"type": "agent_heartbeat", "agentId": "x" * 201}, "agentId"),
    ({"type": "agent_heartbeat", "agentId": 7}, "agentId"),
    ({"type": "task_accepted"}, "messageId"),
    ({"type": "task_accepted", "messageId": 1}, "messageId"),
    ({"type": "task_accepted", "messageId": ""}, "messageId"),
    ({"type": "task_accepted", "messageId": {}}, "messageId"),
    ({"type": "task_progress", "messageId": "m", "progress": -0.1}, "progress"),
    ({"type": "task_progress", "messageId": "m", "progress": "half"}, "progress"),
    ({"type": "task_progress", "messageId": "m", "note": ["n"]}, "note"),
    ({"type": "task_progress", "messageId": "m", "note": "n" * 10_001}, "note"),
    ({"type": "task_progress", "messageId": "m", "usage": {"costUsd": -1}}, "usage.costUsd"),
    (RESULT | {"messageId": None}, "messageId"),
    (RESULT | {"taskId": 5}, "taskId"),
    (RESULT | {"confidence": 1.1}, "confidence"),
    (RESULT | {"confidence": True}, "confidence"),
    (RESULT | {"confidence": "high"}, "confidence"),
    (RESULT | {"usage": []}, "usage"),
    (RESULT | {"usage": {"inputTokens": 1.5}}, "usage.inputTokens"),
    (RESULT | {"usage": {"outputTokens": 10**16}}, "usage.outputTokens"),
    (RESULT | {"error": "a string"}, "error"),
    (RESULT | {"error": {}}, "error.message"),
    (RESULT | {"error": {"message": "m", "retryable": "yes"}}, "error.retryable"),
    (RESULT | {"error": {"message": "m", "code": "c" * 201}}, "error.code"),
    ({"type": "consensus_vote", "vote": 1}, "decisionId"),
    ({"type": "consensus_vote", "decisionId": "d", "abstain": 1}, "abstain"),
    ({"type": "submit_task", "requestId": "r"}, "task"),
    ({"type": "submit_task", "requestId": "r", "task": []}, "task"),
    ({"type": "submit_task", "requestId": "r", "task": {}, "waitFor": "no"}, "waitFor"),
    ({"type": "unregister", "agentId": []}, "agentId"),
]

NAME = {"type": "register", "agentId": "new"}
WRONG_REGISTRATIONS: list[tuple[dict[str, Any], str]] = [
    ({"type": "register"}, "agentId"),
    (NAME | {"agentId": ""}, "agentId"),
    (NAME | {"agentId": 1}, "agentId"),
    (NAME | {"agentId": "x" * 201}, "agentId"),
    (NAME | {"agentId": "line\nbreak"}, "agentId"),
    (NAME | {"agentId": "\x1b[31mred"}, "agentId"),
    (NAME | {"agentId": " "}, "agentId must not be blank"),
    (NAME | {"agentId": "\u3000\u2003"}, "agentId must not be blank"),
    (NAME | {"agentId": "c1\x9b31m"}, "agentId"),
    (NAME | {"agentType": "  "}, "agentType"),
    (NAME | {"capabilities": ["count", " "]}, "capabilities.1"),
    (NAME | {"pool": " "}, "pool"),
    (NAME | {"agentType": None}, "agentType"),
    (NAME | {"agentType": "t" * 201}, "agentType"),
    (NAME | {"capabilities": "count"}, "capabilities"),
    (NAME | {"capabilities": ["count", 1]}, "capabilities.1"),
    (NAME | {"capabilities": ["c" * 201]}, "capabilities.0"),
    (NAME | {"capabilities": [""]}, "capabilities.0"),
    (NAME | {"capabilities": [f"c{n}" for n in range(10_000)]}, "capabilities"),
    (NAME | {"slots": 0}, "slots"),
    (NAME | {"slots": -1}, "slots"),
    (NAME | {"slots": 10**9}, "slots"),
    (NAME | {"slots": 1.5}, "slots"),
    (NAME | {"slots": True}, "slots"),
    (NAME | {"metadata": []}, "metadata"),
    (NAME | {"protocol": 2}, "protocol"),
    (NAME | {"protocol": "1"}, "protocol"),
    (NAME | {"batch": "yes"}, "batch"),
    (NAME | {"resume": "m"}, "resume"),
    (NAME | {"resume": [None]}, "resume.0"),
    (NAME | {"token": 1}, "token"),
]


async def test_what_is_no_frame_gets_an_error_that_says_why(fleet: Fleet, submit: Any) -> None:
    agent = await fleet.join()

    for raw, sentence in NOT_JSON:
        await agent.send_raw(raw)
        message = await agent.refusal()
        assert sentence in message, f"{raw[:80]!r}: {message}"
        assert len(message) < 500

    await submit(**WORK)
    await agent.finish(await agent.expect("execute_task"))
    await agent.expect("ack")


async def test_a_wrong_field_is_named(fleet: Fleet, submit: Any) -> None:
    agent = await fleet.join()

    for frame, field in WRONG_FIELDS:
        await agent.send(frame)
        error = await agent.expect("error")
        assert error["code"] == "invalid_message"
        assert field in error["message"], f"{frame}: {error}"
        if isinstance(frame.get("messageId"), str):
            assert error["messageId"] == frame["messageId"]
        if isinstance(frame.get("requestId"), str):
            assert error["requestId"] == frame["requestId"]

    await submit(**WORK)
    await agent.finish(await agent.expect("execute_task"))
    await agent.expect("ack")


async def test_a_wrong_registration_is_told_and_may_be_corrected(
    start_engine: Any, orchestrator: Any
) -> None:
    engine = await start_engine(gateway={"register_timeout": 10.0})
    async with called(engine.url, "new") as agent:
        for frame, field in WRONG_REGISTRATIONS:
            await agent.send(frame)
            message = await agent.refusal()
            assert field in message, f"{frame}: {message}"
        for raw, sentence in NOT_JSON[:-2]:
            await agent.send_raw(raw)
            assert sentence in await agent.refusal()
        await agent.send({"type": "task_accepted", "messageId": "m"})
        assert "first frame must be register" in await agent.refusal()
        assert await engine.call("agent.list") == []

        await agent.register("work")

        assert [row.agent_id for row in await engine.call("agent.list")] == ["new"]


@pytest.mark.parametrize(("frame", "field"), WRONG_FIELDS + WRONG_REGISTRATIONS)
def test_the_schema_refuses_what_the_engine_refuses(frame: dict[str, Any], field: str) -> None:
    assert faults({"$ref": "#/$defs/fromAgent"}, frame, SCHEMA)


async def test_names_may_be_anything_that_is_text(fleet: Fleet, orchestrator: Any) -> None:
    """Markup, other scripts, direction marks: data, as long as something is visible and nothing a control."""
    names = [
        "[bold]x[/]",
        "агент № 7",
        "\u202eevil",
        "a'; drop table agent_registry; --",
        "𝄞" * 200,
        "../..",
        " x ",
    ]
    for name in names:
        agent = await fleet.join(name, "[/red]", metadata={"[bold]": "\x1b[31m"})
        await agent.alive()

    assert sorted(row.agent_id for row in await orchestrator.call("agent.list")) == sorted(names)


async def test_metadata_and_resume_have_limits(fleet: Fleet, orchestrator: Any) -> None:
    agent = await fleet.connect("greedy")

    await agent.send(NAME | {"metadata": {"notes": "x" * 900_000}})
    assert "at most 65536" in await agent.refusal()
    await agent.send(NAME | {"resume": ["m"] * 100_001})
    assert "resume" in await agent.refusal()
    welcome = await agent.register(resume=[f"message-{n}" for n in range(50_000)])

    assert welcome["resumed"] == []
    assert len(welcome["dropped"]) == 50_000
    await agent.alive()


async def test_unknown_keys_are_ignored(fleet: Fleet, submit: Any) -> None:
    agent = await fleet.join("anna", "work", favouriteColour="green", agent_type="snake case is unknown too")
    await submit(**WORK)
    work = await agent.expect("execute_task")

    await agent.send({"type": "task_accepted", "messageId": work["messageId"], "why": {"not": ["?"]}})
    await agent.finish(work, mood="good")

    await agent.expect("ack")


async def test_arrays_go_both_ways_for_agents_that_asked(fleet: Fleet, orchestrator: Any) -> None:
    agent = await fleet.join("anna", slots=50, batch=True)
    await orchestrator.submit_all([dict(WORK)] * 50)
    works = [await agent.expect("execute_task") for _ in range(50)]
    assert agent.arrays > 0

    results = [
        {"type": "task_result", "messageId": w["messageId"], "taskId": w["data"]["taskId"], "result": n}
        for n, w in enumerate(works)
    ]
    await agent.send([{"type": "task_accepted", "messageId": w["messageId"]} for w in works])
    await agent.send([*results[:25], {"type": "nonsense"}, [results[0]], None, *results[25:]])
    frames = [await agent.receive() for _ in range(53)]

    assert {f["messageId"] for f in frames if f["type"] == "ack"} == {w["messageId"] for w in works}
    errors = [f["message"] for f in frames if f["type"] == "error"]
    assert len(errors) == 3
    assert "nonsense" in errors[0]
    assert "an array" in errors[1]
    assert "null" in errors[2]
    await agent.send([])
    await agent.send({"type": "nonsense"})
    assert "nonsense" in await agent.refusal()


async def test_agents_that_did_not_ask_get_no_arrays(fleet: Fleet, orchestrator: Any) -> None:
    agent = await fleet.join("anna", slots=50)
    await orchestrator.submit_all([dict(WORK)] * 50)

    works = [await agent.expect("execute_task") for _ in range(50)]
    await agent.send(*({"type": "task_result", "messageId": w["messageId"], "result": 0} for w in works))
    for _ in works:
        await agent.expect("ack")

    assert agent.arrays == 0


async def test_nothing_after_unregister_counts(fleet: Fleet, submit: Any, outcome: Any) -> None:
    agent = await fleet.join("anna", batch=True)
    task_id = await submit(**WORK | {"retries": 2})
    work = await agent.expect("execute_task")

    await agent.send(
        [{"type": "unregister"}, {"type": "task_result", "messageId": work["messageId"], "result": "after"}]
    )

    assert (await agent.closed())[0] == 1000
    other = await fleet.join("other")
    await other.finish(await other.expect("execute_task"), "right")
    assert (await outcome(task_id)).result == "right"


async def test_a_frame_over_the_limit_closes_the_connection(fleet: Fleet, submit: Any, outcome: Any) -> None:
    agent = await fleet.join()
    task_id = await submit(**WORK)
    work = await agent.expect("execute_task")

    await agent.finish(work, "x" * (1 << 20))
    assert (await agent.closed())[0] == 1009

    again = await fleet.connect()
    assert (await again.register("work", resume=[work["messageId"]]))["resumed"] == [work["messageId"]]
    room = (1 << 20) - len(json.dumps({"type": "task_result", "messageId": work["messageId"],
                                       "taskId": task_id, "result": ""}))  # fmt: skip
    await again.finish(work, "x" * room)
    await again.expect("ack")
    assert len((await outcome(task_id)).result) == room


async def test_a_connection_that_does_not_register_in_time_is_closed(fleet: Fleet) -> None:
    silent, babbling = await fleet.connect(), await fleet.connect()
    await babbling.send({"type": "agent_heartbeat"})
    await babbling.refusal()

    assert await silent.closed() == (1008, "register within the time limit")
    assert await babbling.closed() == (1008, "register within the time limit")
