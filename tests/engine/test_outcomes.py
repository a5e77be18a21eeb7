"""How tasks end: results put together, votes, retries, time limits, cancellation. And the story told."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from crew import Gate

from agentorch_cli import TaskFailed, WorkFailed


def _answers(answer: Any, confidence: float | None = None) -> Any:
    async def handler(work: Any) -> Any:
        work.confidence = confidence
        return answer

    return handler


async def fails(work: Any) -> None:
    raise WorkFailed("it went wrong", code="wrong")


# --- several results --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aggregate", "answers", "expected"),
    [
        ("all", {"a": 1, "b": [2]}, {"a": 1, "b": [2]}),
        ("merge", {"a": {"x": 1, "y": 1}, "b": {"y": 2}}, {"x": 1, "y": 2}),
        ("merge", {"a": [1, 2], "b": [3]}, [1, 2, 3]),
        ("median", {"a": 1, "b": 10, "c": 2}, 2),
        ("best", {"a": "unsure", "b": "sure", "c": "silent"}, "sure"),
    ],
)
async def test_results_of_several_agents_become_one(
    orchestrator: Any, crew: Any, aggregate: str, answers: dict[str, Any], expected: Any
) -> None:
    confidence = {"unsure": 0.2, "sure": 0.9}
    for agent_id, answer in answers.items():
        sure = confidence.get(answer) if isinstance(answer, str) else None
        await crew.join(agent_id, does=_answers(answer, sure))

    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "min_agents": len(answers), "aggregate": aggregate}
    )

    assert await task.result(10) == expected


async def test_results_that_do_not_go_together_fail_the_task_with_a_reason(
    orchestrator: Any, crew: Any
) -> None:
    await crew.join("a", does=_answers(1))
    await crew.join("b", does=_answers({}))

    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "min_agents": 2, "aggregate": "merge"}
    )

    assert (await task.wait(10)).error["code"] == "cannot_merge"


async def test_two_of_three_decide_a_vote_and_the_third_is_not_asked(orchestrator: Any, crew: Any) -> None:
    for agent_id in "abc":
        await crew.join(agent_id, does=_answers("yes"))

    task = await orchestrator.submit({"required_capabilities": ["work"], "requires_consensus": True})

    assert await task.result(10) == "yes"
    shown = await orchestrator.call("task.get", task_id=task.task_id)
    assert len(shown.attempts) == 2
    vote = shown.decision
    assert (vote.status, vote.consensus_reached, vote.final_decision) == ("reached", True, "yes")
    assert (vote.electorate, vote.votes_used, vote.votes_not_asked) == (3, 2, 1)
    assert {ballot["agent_id"] for ballot in vote.votes} == {a.agent_id for a in shown.attempts}
    assert await orchestrator.call("consensus.get", decision_id=task.task_id) == vote


async def test_a_vote_that_is_split_asks_the_third(orchestrator: Any, crew: Any) -> None:
    for agent_id, answer in {"a": "yes", "b": "no", "c": "yes"}.items():
        await crew.join(agent_id, does=_answers(answer))

    task = await orchestrator.submit({"required_capabilities": ["work"], "requires_consensus": True})

    assert await task.result(10) == "yes"
    vote = await orchestrator.call("consensus.get", decision_id=task.task_id)
    assert (vote.votes_used, vote.votes_not_asked) == (3, 0)
    assert [one["agent_id"] for one in vote.dissent] == ["b"]


async def test_a_vote_that_nothing_can_decide_fails_and_says_so(orchestrator: Any, crew: Any) -> None:
    for agent_id, answer in {"a": "red", "b": "green", "c": "blue"}.items():
        await crew.join(agent_id, does=_answers(answer))

    task = await orchestrator.submit({"required_capabilities": ["work"], "requires_consensus": True})
    ended = await task.wait(10)

    assert ended.error["code"] == "consensus_not_reached"
    vote = await orchestrator.call("consensus.get", decision_id=task.task_id)
    assert (vote.status, vote.consensus_reached) == ("failed", False)


# --- retries ----------------------------------------------------------------------------------


async def test_a_failed_attempt_is_repeated_by_another_agent(
    orchestrator: Any, crew: Any, story: Any
) -> None:
    await crew.join("a", does=fails)
    task = await orchestrator.submit({"required_capabilities": ["work"], "backoff": 0.01, "data": 3})
    await crew.join("b")

    assert await task.result(10) == 3
    shown = await orchestrator.call("task.get", task_id=task.task_id)
    assert [attempt.status for attempt in shown.attempts][-1] == "completed"
    assert shown.attempts[-1].agent_id == "b"
    kinds = await story(task.task_id)
    assert kinds[0] == "task_submitted" and kinds[-1] == "task_completed"
    assert kinds.count("task_assigned") == len(shown.attempts)
    assert kinds.count("task_requeued") == len(shown.attempts) - 1


async def test_retries_end_and_the_last_error_is_the_reason(orchestrator: Any, crew: Any) -> None:
    await crew.join("a", does=fails)

    task = await orchestrator.submit({"required_capabilities": ["work"], "retries": 2, "backoff": 0.001})

    with pytest.raises(TaskFailed, match="it went wrong"):
        await task.result(10)
    shown = await orchestrator.call("task.get", task_id=task.task_id)
    assert (len(shown.attempts), shown.failures) == (3, 3)
    assert (shown.error["code"], shown.error["attempts_failed"]) == ("wrong", 3)


async def test_what_is_not_retryable_is_not_repeated(orchestrator: Any, crew: Any) -> None:
    async def never(work: Any) -> None:
        raise WorkFailed("never", retryable=False)

    await crew.join("a", does=never)

    task = await (await orchestrator.submit({"required_capabilities": ["work"], "retries": 9})).wait(10)

    assert (task.status, task.attempts_made) == ("failed", 1)


async def test_the_backoff_doubles_and_is_stored(orchestrator: Any, crew: Any, sql: Any) -> None:
    orchestrator.engine.settler.jitter = lambda: 1.0
    await crew.join("a", does=fails)

    task = await orchestrator.submit({"required_capabilities": ["work"], "retries": 3, "backoff": 0.05})
    await task.wait(10)
    rows = await sql(
        "select extract(epoch from sent_at - lag(finished_at) over (order by attempt))::float8 as pause"
        " from task_attempts where task_id = $1",
        task.task_id,
    )

    pauses = [row["pause"] for row in rows][1:]
    assert len(pauses) == 3
    for pause, wanted in zip(pauses, (0.05, 0.1, 0.2), strict=True):
        assert wanted <= pause < wanted + 5


async def test_a_backoff_survives_a_restart(start_engine: Any, crew_of: Any) -> None:
    first = await start_engine()
    first.engine.settler.jitter = lambda: 1.0
    crew = crew_of(first)
    await crew.join("a", does=fails)
    task = await first.submit({"required_capabilities": ["work"], "backoff": 0.6, "data": 1})
    while (await first.call("task.get", task_id=task.task_id)).failures == 0:
        await asyncio.sleep(0.01)
    due = (await first.call("task.get", task_id=task.task_id)).run_at
    await crew.vanish()
    await first.stop()

    second = await start_engine(engine={"poll_interval": 600})
    await crew_of(second).join("b")
    (ended,) = await second.call("task.wait", task_ids=[task.task_id], timeout_seconds=10)
    shown = await second.call("task.get", task_id=task.task_id)

    assert ended.result == 1
    assert 0 <= (shown.attempts[-1].sent_at - due).total_seconds() < 60, (
        "nothing else would look before 600 s"
    )


# --- time limits ------------------------------------------------------------------------------


async def test_work_that_takes_too_long_is_called_off_and_tried_again(
    orchestrator: Any, crew: Any, story: Any
) -> None:
    gate = Gate()
    await crew.join("slow", does=gate)
    task = await orchestrator.submit({"required_capabilities": ["work"], "timeout": 0.1, "data": 2})
    await gate.work()
    await crew.join("quick")

    assert await task.result(10) == 2
    shown = await orchestrator.call("task.get", task_id=task.task_id)
    assert (shown.attempts[0].agent_id, shown.attempts[0].status) == ("slow", "timed_out")
    assert gate.stopped == [task.task_id]


async def test_work_that_nobody_accepts_goes_elsewhere(start_engine: Any, crew_of: Any) -> None:
    orchestrator = await start_engine(engine={"response_timeout": 0.2})
    crew = crew_of(orchestrator)
    deaf = await crew.join("a deaf one")
    session = orchestrator._gateway.sessions["a deaf one"]
    session.execute = lambda delivery: None  # what is sent never arrives
    task = await orchestrator.submit({"required_capabilities": ["work"], "data": 2})
    await asyncio.sleep(0.02)
    await crew.join("b")

    assert await task.result(10) == 2
    shown = await orchestrator.call("task.get", task_id=task.task_id)
    assert [(a.agent_id, a.status) for a in shown.attempts] == [("a deaf one", "lost"), ("b", "completed")]
    assert deaf.states == ["connected"]


@pytest.mark.parametrize("where", ["blocked", "pending", "running"])
async def test_a_deadline_ends_a_task_wherever_it_waits(
    orchestrator: Any, crew: Any, story: Any, where: str
) -> None:
    gate = Gate()
    first = await orchestrator.submit({"required_capabilities": ["nobody"]})
    if where == "running":
        await crew.join("a", does=gate)

    task = await orchestrator.submit(
        {
            "required_capabilities": ["work"],
            "deadline": 0.2,
            "depends_on": [first.task_id] if where == "blocked" else [],
        }
    )
    after = await orchestrator.submit({"required_capabilities": ["work"], "depends_on": [task.task_id]})
    if where == "running":
        await gate.work()
    ended = await task.wait(10)

    assert (ended.status, ended.error["code"]) == ("failed", "deadline_exceeded")
    assert (await after.wait(10)).error["code"] == "dependency_failed"
    assert (await story(task.task_id))[-1] == "task_failed"
    if where == "running":
        async with asyncio.timeout(2):
            while not gate.stopped:
                await asyncio.sleep(0.01)


# --- cancellation -----------------------------------------------------------------------------


async def test_a_cancellation_reaches_the_agent_that_works(orchestrator: Any, crew: Any, story: Any) -> None:
    gate = Gate()
    await crew.join("a", does=gate)
    task = await orchestrator.submit({"required_capabilities": ["work"]})
    await gate.work()

    await task.cancel("not needed any more")
    ended = await task.wait(10)

    assert (ended.status, ended.error["message"]) == ("cancelled", "not needed any more")
    async with asyncio.timeout(2):
        while not gate.stopped:
            await asyncio.sleep(0.01)
    assert [kind for kind in await story(task.task_id) if kind.startswith("task_")] == [
        "task_submitted",
        "task_assigned",
        "task_cancelled",
    ]
    async with asyncio.timeout(2):
        while orchestrator.engine.state.roster.members["a"].busy:
            await asyncio.sleep(0.01)


async def test_cancelling_says_of_each_task_what_it_did(orchestrator: Any, crew: Any) -> None:
    await crew.join("a")
    done = await orchestrator.submit({"required_capabilities": ["work"]})
    await done.result(10)
    waiting = await orchestrator.submit({"required_capabilities": ["nobody"]})
    blocked = await orchestrator.submit({"depends_on": [waiting.task_id]})

    reply = await orchestrator.call("task.cancel", task_ids=[done.task_id, waiting.task_id, "nobody's"])

    assert reply.changed == [waiting.task_id]
    assert reply.unchanged == {done.task_id: "it is completed already", "nobody's": "there is no such task"}
    assert (await blocked.wait(10)).status == "failed"


async def test_a_cancelled_task_can_be_tried_again(orchestrator: Any, crew: Any) -> None:
    task = await orchestrator.submit({"required_capabilities": ["work"], "data": 4})
    await task.cancel()

    reply = await orchestrator.call("task.retry", task_ids=[task.task_id])
    await crew.join("a")

    assert reply.changed == [task.task_id]
    assert await task.result(10) == 4


# --- payloads ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        [],
        "",
        0,
        -0.0,
        1e308,
        5e-324,
        2**63,
        -(2**63),
        "ünï 🦀 \u202e\u2028",
        {"": {"a.b": [None, True, {"\u0001": "\t\n"}]}},
        "x" * 900_000,
    ],
    ids=lambda data: repr(data)[:20],
)
async def test_data_comes_back_as_it_went_in(orchestrator: Any, crew: Any, data: Any) -> None:
    await crew.join("a")

    task = await orchestrator.submit({"required_capabilities": ["work"], "data": data})
    result = await task.result(10)
    shown = await orchestrator.call("task.get", task_id=task.task_id)

    assert result == data and type(result) is type(data)
    assert shown.data == data
    if isinstance(data, float):
        assert math.copysign(1, result) == math.copysign(1, data)
