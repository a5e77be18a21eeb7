"""From `register` to `ack`: the frames of a task's life, in order and shape."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fleet import Fleet

WORK = {"required_capabilities": ["work"], "retries": 3}


async def test_an_agent_registers_and_is_in_the_registry(fleet: Fleet, orchestrator: Any) -> None:
    agent = await fleet.connect("anna")

    welcome = await agent.register("count", "extract", slots=3, metadata={"model": "m"})

    assert welcome == {
        "type": "registered",
        "engineId": orchestrator.store.node_id,
        "agentId": "anna",
        "heartbeatInterval": 0.4,
        "resumed": [],
        "dropped": [],
    }
    [row] = await orchestrator.call("agent.list")
    assert (row.agent_id, row.type, row.status, row.slots) == ("anna", "plain", "online", 3)
    assert row.capabilities == ["count", "extract"]
    assert row.metadata == {"model": "m"}


async def test_work_has_exactly_the_shape_of_the_protocol_page(fleet: Fleet, submit: Any) -> None:
    agent = await fleet.join("anna", "count")

    before = datetime.now(UTC)
    task_id = await submit(
        type="words", required_capabilities=["count"], priority=7, timeout=60, data={"text": "zwölf €"}
    )
    work = await agent.expect("execute_task")

    deadline = work["data"].pop("deadline")
    assert deadline.endswith("Z")
    assert abs(datetime.fromisoformat(deadline) - before - timedelta(seconds=60)) < timedelta(seconds=5)
    assert work == {
        "type": "agent_message",
        "messageId": work["messageId"],
        "agentId": "anna",
        "messageType": "execute_task",
        "data": {
            "taskId": task_id,
            "attempt": 1,
            "task": {
                "type": "words",
                "priority": 7,
                "data": {"text": "zwölf €"},
                "requiredCapabilities": ["count"],
            },
            "inputs": {},
        },
    }


async def test_accepted_progress_result_ack(
    fleet: Fleet, submit: Any, outcome: Any, orchestrator: Any
) -> None:
    agent = await fleet.join()
    task_id = await submit(**WORK)
    work = await agent.expect("execute_task")

    await agent.accept(work)
    await agent.send(
        {"type": "task_progress", "messageId": work["messageId"], "progress": 0.5, "note": "half"}
    )
    await agent.quiet(0.1)
    task = await orchestrator.call("task.get", task_id=task_id)
    assert (task.status, task.attempts[0].status, task.attempts[0].progress) == ("running", "accepted", 0.5)
    assert task.attempts[0].note == "half"

    usage = {"inputTokens": 7, "outputTokens": 3, "costUsd": 0.25}
    await agent.finish(work, {"words": 12}, confidence=0.9, usage=usage)
    await agent.expect("ack", messageId=work["messageId"])

    task = await outcome(task_id)
    assert (task.status, task.result) == ("completed", {"words": 12})
    assert task.attempts[0].confidence == 0.9
    assert {k.replace("_", "").lower(): v for k, v in task.attempts[0].usage.items()} == {
        "inputtokens": 7,
        "outputtokens": 3,
        "costusd": 0.25,
    }


async def test_results_of_dependencies_arrive_as_inputs(fleet: Fleet, orchestrator: Any) -> None:
    agent = await fleet.join()
    await orchestrator.submit_all(
        [WORK | {"name": "first"}, WORK | {"name": "second", "depends_on": ["first"]}]
    )

    work = await agent.expect("execute_task")
    await agent.finish(work, [1, None, "two"])
    await agent.expect("ack")
    work = await agent.expect("execute_task")

    assert work["data"]["inputs"] == {"first": [1, None, "two"]}


async def test_a_result_may_be_any_json(fleet: Fleet, submit: Any, outcome: Any) -> None:
    agent = await fleet.join()
    for result in (None, False, 0, "", [], {}, -1.5, 2**64 - 1, "\x7f\u2028 𝄞", {"a": {"b": [None]}}):
        task_id = await submit(**WORK)
        await agent.finish(await agent.expect("execute_task"), result)
        await agent.expect("ack")

        task = await outcome(task_id)
        assert (task.status, task.result) == ("completed", result)


async def test_an_error_is_tried_again_and_one_that_is_final_is_not(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    agent = await fleet.join()
    task_id = await submit(**WORK)

    first = await agent.expect("execute_task")
    await agent.finish(first, error={"message": "try later", "code": "busy"})
    await agent.expect("ack", messageId=first["messageId"])
    second = await agent.expect("execute_task")
    assert (second["data"]["attempt"], second["data"]["taskId"]) == (2, task_id)
    assert second["messageId"] != first["messageId"]
    await agent.finish(second, error={"message": "never", "code": "hopeless", "retryable": False})
    await agent.expect("ack", messageId=second["messageId"])

    task = await outcome(task_id)
    assert task.status == "failed"
    assert (task.error["code"], task.error["message"]) == ("hopeless", "never")


async def test_a_repeated_result_gets_the_same_ack_and_changes_nothing(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    agent = await fleet.join()
    task_id = await submit(**WORK)
    work = await agent.expect("execute_task")

    await agent.finish(work, "first")
    await agent.finish(work, "second")
    await agent.finish(work, error={"message": "third"})
    for _ in range(3):
        await agent.expect("ack", messageId=work["messageId"])
    await agent.finish(work, "much later")
    await agent.expect("ack", messageId=work["messageId"])

    task = await outcome(task_id)
    assert (task.status, task.result, len(task.attempts)) == ("completed", "first", 1)
    assert [event.kind for event in task.events].count("task_completed") == 1


async def test_an_agent_gets_as_much_work_as_it_has_slots(fleet: Fleet, submit: Any) -> None:
    agent = await fleet.join("anna", slots=2)
    for _ in range(3):
        await submit(**WORK)

    works = [await agent.expect("execute_task") for _ in range(2)]
    await agent.quiet(0.2)
    await agent.finish(works[1])
    await agent.expect("ack")

    assert (await agent.expect("execute_task"))["data"]["taskId"] not in {w["data"]["taskId"] for w in works}


async def test_work_that_is_called_off_is_called_off_at_the_agent(
    fleet: Fleet, submit: Any, outcome: Any, orchestrator: Any
) -> None:
    agent = await fleet.join()
    task_id = await submit(**WORK)
    work = await agent.expect("execute_task")
    await agent.accept(work)

    await orchestrator.call("task.cancel", task_ids=[task_id], reason="not wanted any more")

    cancel = await agent.expect("cancel_task")
    assert cancel["data"]["taskId"] == task_id
    assert cancel["data"]["messageId"] == work["messageId"]
    assert cancel["messageId"] != work["messageId"]
    await agent.finish(work, "crossed on the wire")
    await agent.expect("ack", messageId=work["messageId"])
    assert (await outcome(task_id)).status == "cancelled"


async def test_work_that_takes_too_long_is_called_off_and_tried_again(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    agent = await fleet.join()
    task_id = await submit(**WORK | {"timeout": 0.3})
    work = await agent.expect("execute_task")
    await agent.accept(work)

    cancel = await agent.expect("cancel_task")
    assert cancel["data"]["messageId"] == work["messageId"]
    assert "0.3 s" in cancel["data"]["reason"]
    again = await agent.expect("execute_task")
    assert (again["data"]["taskId"], again["data"]["attempt"]) == (task_id, 2)
    await agent.finish(again, "in time")

    task = await outcome(task_id)
    assert [attempt.status for attempt in task.attempts] == ["timed_out", "completed"]


async def test_work_that_is_not_accepted_goes_elsewhere(
    start_engine: Any, fleet_of: Any, outcome_of: Any
) -> None:
    engine = await start_engine(engine={"response_timeout": 0.3})
    fleet = fleet_of(engine)
    deaf = await fleet.join("deaf")
    task_id = (await engine.submit(WORK)).task_id
    first = await deaf.expect("execute_task")
    other = await fleet.join("other")

    second = await other.expect("execute_task")
    assert second["data"]["taskId"] == task_id
    assert second["messageId"] != first["messageId"]
    await deaf.expect("cancel_task")
    await other.finish(second, "done")

    task = await outcome_of(engine, task_id)
    assert [(a.agent_id, a.status) for a in task.attempts] == [("deaf", "lost"), ("other", "completed")]


async def test_progress_counts_as_acceptance(start_engine: Any, fleet_of: Any) -> None:
    engine = await start_engine(engine={"response_timeout": 0.3})
    agent = await fleet_of(engine).join()
    await engine.submit(WORK)
    work = await agent.expect("execute_task")

    await agent.send({"type": "task_progress", "messageId": work["messageId"]})

    await agent.quiet(0.6)


async def test_several_agents_answer_one_task(fleet: Fleet, submit: Any, outcome: Any) -> None:
    agents = [await fleet.join(f"agent-{n}") for n in range(3)]
    task_id = await submit(**WORK, min_agents=3, max_agents=3, aggregate="all")

    works = [await agent.expect("execute_task") for agent in agents]
    assert len({work["messageId"] for work in works}) == 3
    for number, (agent, work) in enumerate(zip(agents, works, strict=True)):
        await agent.finish(work, number)
        await agent.expect("ack")

    task = await outcome(task_id)
    assert task.status == "completed"
    assert {attempt.agent_id for attempt in task.attempts} == {"agent-0", "agent-1", "agent-2"}
