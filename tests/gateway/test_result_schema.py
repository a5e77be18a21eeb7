"""Results that do not fit are failed attempts with the reason; work that is declined goes to others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fleet import Fleet

from agentorch_cli.core.model import TaskSpec
from agentorch_cli.engine.inspector import Inspector, Undecided

SCHEMA = {
    "type": "object",
    "required": ["verdict", "note"],
    "properties": {"verdict": {"enum": ["yes", "no"]}, "note": {"type": "string"}},
}
WORK = {"required_capabilities": ["work"], "backoff": 0, "result_schema": SCHEMA}
RIGHT = {"verdict": "yes", "note": "seen"}


async def test_the_schema_goes_to_the_agent_as_it_was_written(
    fleet: Fleet, submit: Any, orchestrator: Any
) -> None:
    agent = await fleet.join()

    task_id = await submit(**WORK, name="look")
    work = await agent.expect("execute_task")

    assert work["data"]["task"]["resultSchema"] == SCHEMA
    assert list(work["data"]["task"]["resultSchema"]) == list(SCHEMA), "models answer in the order of keys"
    assert work["data"]["task"]["name"] == "look"
    assert "vote" not in work["data"]["task"]
    task = await orchestrator.call("task.get", task_id=task_id)
    assert list(task.options["result_schema"].items()) == list(SCHEMA.items())


async def test_it_is_there_again_when_the_work_is_sent_again(fleet: Fleet, submit: Any) -> None:
    agent = await fleet.join("anna")
    await submit(**WORK, name="look", requires_consensus=True, min_agents=1, max_agents=1)
    first = await agent.expect("execute_task")
    await agent.vanish()

    back = await fleet.join("anna")
    again = await back.expect("execute_task")

    assert again["data"]["task"] == first["data"]["task"]
    assert again["data"]["task"]["vote"] == {}


async def test_a_result_that_does_not_fit_is_a_failed_attempt_with_the_reason(
    fleet: Fleet, submit: Any, outcome: Any, orchestrator: Any
) -> None:
    agent = await fleet.join("anna")
    task_id = await submit(**WORK)

    await agent.finish(await agent.expect("execute_task"), {"verdict": "perhaps", "note": ""})
    await agent.expect("ack")
    await agent.finish(await agent.expect("execute_task"), RIGHT)
    await agent.expect("ack")

    task = await outcome(task_id)
    assert (task.status, task.result, task.failures) == ("completed", RIGHT, 1)
    assert [attempt.status for attempt in task.attempts] == ["failed", "completed"]
    assert task.attempts[0].error == {
        "code": "invalid_result",
        "message": 'the result does not fit its schema: /verdict: must be "yes" or "no", not "perhaps"',
        "pointer": "/verdict",
        "retryable": True,
    }
    assert task.attempts[0].result is None


async def test_without_retries_the_task_fails_with_that_reason(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    agent = await fleet.join("anna")
    task_id = await submit(**WORK | {"retries": 0})

    await agent.finish(await agent.expect("execute_task"), None)

    task = await outcome(task_id)
    assert task.status == "failed"
    assert task.error["message"] == "the result does not fit its schema: must be an object, not null"


async def test_a_schema_that_nobody_checked_fails_its_task_and_nothing_else(
    fleet: Fleet, outcome: Any, orchestrator: Any
) -> None:
    agent = await fleet.join()
    unread = TaskSpec("unread", required_capabilities=("work",), result_schema={"type": "nothing"})
    await orchestrator.call("task.submit", tasks=[unread])

    await agent.finish(await agent.expect("execute_task"), 1)

    task = await outcome("unread")
    assert (task.status, task.failures) == ("failed", 1)
    assert task.error["message"].startswith("the task's result_schema cannot be used: ")


async def test_each_result_of_several_agents_has_to_fit(fleet: Fleet, submit: Any, outcome: Any) -> None:
    anna, bert = await fleet.join("anna"), await fleet.join("bert")
    task_id = await submit(**WORK, min_agents=2, max_agents=2, aggregate="all")

    await anna.finish(await anna.expect("execute_task"), "yes")
    await anna.expect("ack")
    await bert.finish(await bert.expect("execute_task"), RIGHT)
    await bert.expect("ack")
    await anna.finish(await anna.expect("execute_task"), RIGHT)

    task = await outcome(task_id)
    assert (task.status, task.result) == ("completed", {"anna": RIGHT, "bert": RIGHT})
    assert sorted(attempt.status for attempt in task.attempts) == ["completed", "completed", "failed"]


async def test_a_ballot_that_does_not_fit_is_lost_and_null_abstains(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    voters = [await fleet.join(name) for name in ("anna", "bert", "carl", "dora")]
    vote = {"panel": 4, "vote_on": "/verdict", "options": ["yes", "no"]}
    task_id = await submit(**WORK, consensus=vote)
    asked = [await voter.expect("execute_task") for voter in voters[:3]]
    assert asked[0]["data"]["task"]["vote"] == {"options": ["yes", "no"], "voteOn": "/verdict"}

    await voters[0].finish(asked[0], {"verdict": "yes"})
    await voters[0].expect("ack")
    await voters[1].finish(asked[1], None)
    await voters[1].expect("ack")
    await voters[2].finish(asked[2], RIGHT)
    await voters[3].finish(await voters[3].expect("execute_task"), RIGHT)

    task = await outcome(task_id)
    assert (task.status, task.result) == ("completed", RIGHT)
    ballots = {vote["agent_id"]: vote["status"] for vote in task.decision.votes}
    assert ballots == {"anna": "lost", "bert": "abstained", "carl": "answered", "dora": "answered"}
    [refused] = [attempt for attempt in task.attempts if attempt.agent_id == "anna"]
    assert refused.error["message"] == 'the result does not fit its schema: lacks "note"'


@pytest.mark.parametrize("fits", [True, False])
async def test_a_late_result_has_to_fit_as_well(fleet: Fleet, submit: Any, outcome: Any, fits: bool) -> None:
    anna = await fleet.join("anna")
    task_id = await submit(**WORK, timeout=0.2, delay=0)
    first = await anna.expect("execute_task")
    await anna.accept(first)
    await anna.expect("cancel_task")
    second = await anna.expect("execute_task")
    await anna.accept(second)

    await anna.finish(first, RIGHT if fits else "late and wrong")
    await anna.expect("ack", messageId=first["messageId"])
    if not fits:
        await anna.finish(second, {"verdict": "no", "note": ""})

    task = await outcome(task_id)
    assert task.result == (RIGHT if fits else {"verdict": "no", "note": ""})


TWICE = {
    "$defs": {f"s{n}": {"anyOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(40)}
    | {"s40": {"type": "string"}},
    "$ref": "#/$defs/s0",
}
"""Asks for a trillion things."""

LIST = {"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]}


async def test_a_check_that_takes_long_keeps_nobody_waiting(
    fleet: Fleet, submit: Any, outcome: Any, orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector = orchestrator.engine.settler.checks._inspector
    inspector.check_seconds = 1.0
    look, others_are_done = inspector.fault, asyncio.Event()

    async def fault(schema: str, result: str) -> Any:
        try:
            return await look(schema, result)
        finally:
            await others_are_done.wait()

    monkeypatch.setattr(inspector, "fault", fault)
    anna, bert = await fleet.join("anna", "endless"), await fleet.join("bert")
    slow = await submit(required_capabilities=["endless"], retries=0, result_schema=TWICE)
    await anna.finish(await anna.expect("execute_task"), 7)

    for _ in range(5):
        await submit(required_capabilities=["work"])
        await bert.finish(await bert.expect("execute_task"), 1)
        await bert.expect("ack")
    others_are_done.set()

    task = await outcome(slow)
    assert task.error["code"] == "invalid_result"
    assert "takes longer than 1 s" in task.error["message"]


async def test_a_schema_that_refers_to_itself_is_checked_all_the_same(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    agent = await fleet.join()
    task_id = await submit(required_capabilities=["work"], backoff=0, result_schema=LIST)

    await agent.finish(await agent.expect("execute_task"), {"next": {"next": {}}})
    await agent.expect("ack")
    work = await agent.expect("execute_task")
    await agent.finish(work, {"next": {"next": None}})
    await agent.finish(work, {"next": {"next": None}})  # sent again while it is looked at

    task = await outcome(task_id)
    assert task.result == {"next": {"next": None}}
    assert 'lacks "next"' in task.attempts[0].error["message"]


async def test_a_large_result_is_checked_and_told(fleet: Fleet, submit: Any, outcome: Any) -> None:
    agent = await fleet.join()
    schema = {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    task_id = await submit(required_capabilities=["work"], backoff=0, result_schema=schema)
    rows: list[Any] = [{"n": n, "text": "x" * 20} for n in range(15_000)]

    await agent.finish(await agent.expect("execute_task"), [*rows, {"n": "one"}])
    await agent.expect("ack")
    await agent.finish(await agent.expect("execute_task"), rows)

    task = await outcome(task_id)
    assert task.result == rows
    assert task.attempts[0].error["pointer"] == "/15000/n"


async def test_the_inspector_survives_what_it_is_asked() -> None:
    inspector = Inspector(check_seconds=0.5)
    try:
        assert await inspector.fault("true", "1") is None
        with pytest.raises(Undecided, match=r"longer than 0\.5 s"):
            await inspector.fault(str(TWICE).replace("'", '"'), "7")
        with pytest.raises(Undecided, match="cannot be used"):
            await inspector.fault('{"type":"nothing"}', "7")
        assert inspector._process is not None
        inspector._process.kill()
        await inspector._process.wait()
        assert str(await inspector.fault('{"type":"null"}', "7")) == "must be null, not 7"
        asking = asyncio.create_task(inspector.fault(str(TWICE).replace("'", '"'), "7"))
        await asyncio.sleep(0.1)
        asking.cancel()
        assert await inspector.fault("true", "1") is None, "an answer is never taken for another's"
    finally:
        await inspector.close()


# --- work that is declined --------------------------------------------------------------------

DECLINED = {"message": "not my department", "code": "declined"}


async def test_declined_work_goes_to_others_and_never_back(
    fleet: Fleet, submit: Any, outcome: Any, orchestrator: Any
) -> None:
    anna = await fleet.join("anna")
    task_id = await submit(required_capabilities=["work"], retries=0)
    work = await anna.expect("execute_task")

    await anna.finish(work, error=DECLINED)
    await anna.expect("ack", messageId=work["messageId"])
    await anna.quiet(0.5)
    waiting = await orchestrator.call("task.get", task_id=task_id)
    assert (waiting.status, waiting.failures) == ("pending", 0)
    why = await orchestrator.call("task.why", task_id=task_id)
    assert {"anna": "declined it"} in [link.agents for link in why.links]

    bert = await fleet.join("bert")
    await bert.finish(await bert.expect("execute_task"), "done")
    task = await outcome(task_id)
    assert (task.status, task.result, task.failures) == ("completed", "done", 0)
    assert [(one.agent_id, one.status) for one in task.attempts] == [
        ("anna", "cancelled"),
        ("bert", "completed"),
    ]
    assert task.attempts[0].error["message"] == "agent anna declined it: not my department"


async def test_work_that_everybody_declined_says_so_and_is_offered_again_when_asked_for(
    fleet: Fleet, submit: Any, outcome: Any, orchestrator: Any
) -> None:
    anna = await fleet.join("anna")
    task_id = await submit(required_capabilities=["work"])
    work = await anna.expect("execute_task")

    await anna.finish(work, error=DECLINED)
    await anna.expect("ack", messageId=work["messageId"])

    why = await orchestrator.call("task.why", task_id=task_id)
    told = f"everybody who could do it has declined it: agentorch task retry {task_id} asks them again"
    assert told in [link.sentence for link in why.links if link.code == "declined"]
    (alarm,) = (await orchestrator.call("status.get")).alarms
    assert alarm == (
        f"task {task_id} waits: everybody who could do it has declined it (anna);"
        f" agentorch task retry {task_id} asks them again"
    )
    reply = await orchestrator.call("task.retry", task_ids=[task_id])
    assert (reply.changed, reply.unchanged) == ([task_id], {})
    await anna.finish(await anna.expect("execute_task"), "done after all")
    assert (await outcome(task_id)).result == "done after all"


async def test_declining_is_no_failure_of_the_agent(fleet: Fleet, submit: Any, orchestrator: Any) -> None:
    anna = await fleet.join("anna")
    await submit(required_capabilities=["work"])
    await anna.finish(await anna.expect("execute_task"), error=DECLINED)
    await anna.expect("ack")
    assert orchestrator.engine.state.tallies == {}


async def test_who_was_opened_again_by_a_person_may_be_asked_again(
    fleet: Fleet, submit: Any, orchestrator: Any
) -> None:
    anna = await fleet.join("anna")
    task_id = await submit(required_capabilities=["work"])
    await anna.finish(await anna.expect("execute_task"), error=DECLINED)
    await anna.expect("ack")

    await orchestrator.call("task.cancel", task_ids=[task_id])
    await orchestrator.call("task.retry", task_ids=[task_id])

    assert (await anna.expect("execute_task"))["data"]["taskId"] == task_id


async def test_a_voter_that_declines_leaves_the_vote_to_the_others(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    voters = [await fleet.join(name) for name in ("anna", "bert", "carl")]
    task_id = await submit(required_capabilities=["work"], consensus={"panel": 3})
    asked = [await voter.expect("execute_task") for voter in voters[:2]]

    await voters[0].finish(asked[0], error=DECLINED)
    await voters[1].finish(asked[1], "yes")
    await voters[2].finish(await voters[2].expect("execute_task"), "yes")

    task = await outcome(task_id)
    assert (task.status, task.result) == ("completed", "yes")
    assert {vote["agent_id"]: vote["status"] for vote in task.decision.votes}["anna"] == "lost"


async def test_a_member_of_a_team_that_declines_leaves_its_part_to_another(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    anna, bert = await fleet.join("anna", "paint"), await fleet.join("bert", "glue")
    task_id = await submit(required_capabilities=["paint", "glue"], coverage="team", aggregate="all")
    await bert.finish(await bert.expect("execute_task"), error=DECLINED)
    await bert.expect("ack")
    await bert.quiet()

    carl = await fleet.join("carl", "glue")
    work = await carl.expect("execute_task")
    assert work["data"]["task"]["role"] == "glue"
    await carl.finish(work, "glued")
    await anna.finish(await anna.expect("execute_task"), "painted")

    assert (await outcome(task_id)).result == {"paint": "painted", "glue": "glued"}


async def test_one_of_several_agents_that_declines_is_replaced(
    fleet: Fleet, submit: Any, outcome: Any
) -> None:
    anna, bert = await fleet.join("anna"), await fleet.join("bert")
    task_id = await submit(required_capabilities=["work"], min_agents=2, retries=0, aggregate="all")
    await anna.finish(await anna.expect("execute_task"), error=DECLINED)
    await bert.finish(await bert.expect("execute_task"), 1)
    await anna.expect("ack")
    await anna.quiet()

    carl = await fleet.join("carl")
    await carl.finish(await carl.expect("execute_task"), 2)

    assert (await outcome(task_id)).result == {"bert": 1, "carl": 2}
