"""Agents that speak for others, or of what they do not have."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from fleet import Fleet

WORK = {"required_capabilities": ["work"], "retries": 0}


async def test_a_result_for_another_agents_work_is_not_allowed_and_changes_nothing(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    owner, thief = await fleet.join("owner"), await fleet.join("thief", "nothing")
    task_id = await submit(**WORK)
    work = await owner.expect("execute_task")

    await thief.finish(work, "stolen")
    assert "another agent" in await thief.refusal("not_allowed")
    await thief.finish(work, error={"message": "stolen"})
    error = await thief.expect("error")
    assert (error["code"], error["messageId"]) == ("not_allowed", work["messageId"])
    await thief.accept(work)
    assert "another agent" in await thief.refusal("not_allowed")
    await thief.send({"type": "task_progress", "messageId": work["messageId"], "note": "mine now"})
    assert "another agent" in await thief.refusal("not_allowed")
    await owner.finish(work, "earned")
    await owner.expect("ack")

    await thief.finish(work, "stolen after the end")
    await thief.refusal("not_allowed")
    task = await outcome(task_id)
    assert (task.result, task.attempts[0].note) == ("earned", None)
    assert (task.attempts[0].agent_id, len(task.attempts)) == ("owner", 1)


async def test_work_cannot_be_stolen_by_resume(fleet: Fleet, submit: Any) -> None:
    owner = await fleet.join("owner")
    await submit(**WORK)
    work = await owner.expect("execute_task")

    thief = await fleet.connect("thief")
    welcome = await thief.register("nothing", resume=[work["messageId"]])

    assert (welcome["resumed"], welcome["dropped"]) == ([], [work["messageId"]])


@pytest.mark.parametrize("kind", ["agent_heartbeat", "unregister", "consensus_vote"])
async def test_nobody_speaks_in_anothers_name(fleet: Fleet, kind: str) -> None:
    agent, other = await fleet.join("agent"), await fleet.join("other")

    vote = {"decisionId": str(uuid.uuid4()), "vote": "yes"}
    await agent.send({"type": kind, "agentId": "other"} | (vote if kind == "consensus_vote" else {}))

    assert "agentId" in await agent.refusal("not_allowed")
    await agent.alive()
    await other.alive()


@pytest.mark.parametrize(
    "message_id",
    [
        str(uuid.uuid4()),
        "no uuid",
        "",
        "x" * 100_000,
        "{" + str(uuid.uuid4()) + "}",
        "urn:uuid:" + str(uuid.uuid4()),
        "\u202e\x7f\x1b[31m",
        "[bold]",
    ],
    ids=range(8),
)
async def test_a_result_for_unknown_work_is_an_error(fleet: Fleet, message_id: str) -> None:
    agent = await fleet.join()

    for outcome in ({"result": 1}, {"error": {"message": "no"}}):
        await agent.send({"type": "task_result", "messageId": message_id, "taskId": "t"} | outcome)
        error = await agent.expect("error")
        assert error["code"] in ("not_found", "invalid_message")
        assert message_id.startswith(error["messageId"])
        assert len(error["messageId"]) <= 200
    await agent.alive()


async def test_progress_of_work_that_is_not_live_any_more_is_passed_over(fleet: Fleet, submit: Any) -> None:
    """It may have crossed a `cancel_task` on the wire, which is nobody's fault."""
    agent = await fleet.join()
    await submit(**WORK)
    work = await agent.expect("execute_task")
    await agent.finish(work)
    await agent.expect("ack")

    for message_id in (work["messageId"], str(uuid.uuid4())):
        await agent.send({"type": "task_accepted", "messageId": message_id})
        await agent.send({"type": "task_progress", "messageId": message_id, "progress": 1})

    await agent.alive()


async def test_one_spelling_of_a_message_id_is_taken(fleet: Fleet, submit: Any) -> None:
    agent = await fleet.join()
    await submit(**WORK)
    work = await agent.expect("execute_task")

    for other in (
        work["messageId"].upper(),
        "{" + work["messageId"] + "}",
        work["messageId"].replace("-", ""),
    ):
        await agent.finish(work | {"messageId": other})
        assert (await agent.refusal("not_found")).startswith("there is no work")

    await agent.finish(work)
    await agent.expect("ack")


async def test_a_result_that_names_another_task_is_refused(fleet: Fleet, submit: Any, outcome: Any) -> None:
    agent = await fleet.join("agent", slots=2)
    ids = [await submit(**WORK) for _ in range(2)]
    works = [await agent.expect("execute_task") for _ in range(2)]

    for work, other in zip(works, reversed(works), strict=True):
        await agent.finish(work, "mixed up", taskId=other["data"]["taskId"])
        assert "taskId" in await agent.refusal()
        await agent.finish(work, taskId=other["data"]["taskId"], error={"message": "mixed up"})
        assert "taskId" in await agent.refusal()
    for work in works:
        await agent.finish(work, "right")
        await agent.expect("ack")

    assert [(await outcome(task_id)).result for task_id in ids] == ["right", "right"]


async def test_registering_twice_on_one_connection_is_refused(fleet: Fleet, orchestrator: Any) -> None:
    agent = await fleet.join("anna")

    for agent_id in ("anna", "somebody else"):
        await agent.send({"type": "register", "agentId": agent_id})
        assert "registered already" in await agent.refusal()

    await agent.alive()
    assert [row.agent_id for row in await orchestrator.call("agent.list")] == ["anna"]


async def test_a_sub_task_of_work_that_one_does_not_hold_is_refused(
    fleet: Fleet, submit: Any, orchestrator: Any
) -> None:
    owner, thief = await fleet.join("owner"), await fleet.join("thief", "nothing")
    await submit(**WORK)
    work = await owner.expect("execute_task")

    await thief.send(
        {
            "type": "submit_task",
            "requestId": "r1",
            "parentMessageId": work["messageId"],
            "task": {"required_capabilities": ["work"]},
        }
    )

    error = await thief.expect("error")
    assert error["requestId"] == "r1"
    assert len(await orchestrator.call("task.list")) == 1
