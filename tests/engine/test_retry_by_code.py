"""Retries by error code, as agents send them and the engine stores them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crew import Gate

from agentorch_cli import WorkFailed


def failing(*codes: str, **more: Any) -> Any:
    """An agent whose attempts fail with these codes, and then work."""
    left = list(codes)

    async def handler(work: Any) -> Any:
        if left:
            raise WorkFailed("not now", code=left.pop(0), **more)
        return "done"

    return handler


async def test_a_code_is_retried_as_its_rule_says(orchestrator: Any, crew: Any) -> None:
    await crew.join("a", does=failing(*["rate_limited"] * 4, retryable=False))

    task = await orchestrator.submit(
        {
            "required_capabilities": ["work"],
            "retries": 0,
            "retry": {"rate_limited": {"retries": 4, "backoff": 0.001}},
        }
    )

    assert await task.result(10) == "done"
    assert (await orchestrator.call("task.get", task_id=task.task_id)).failures == 4


async def test_what_its_rule_forbids_is_not_retried(orchestrator: Any, crew: Any) -> None:
    await crew.join("a", does=failing("bad_input"))

    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "retries": 9, "retry": {"bad_input": {"retries": 0}}}
    )
    ended = await task.wait(10)

    assert (ended.status, ended.attempts_made, ended.error["code"]) == ("failed", 1, "bad_input")


async def test_codes_are_counted_apart_also_across_a_restart(start_engine: Any, crew_of: Any) -> None:
    first = await start_engine()
    crew = crew_of(first)
    await crew.join("a", does=failing(*["busy"] * 3))
    rules = {"busy": {"retries": 3, "backoff": 0.001}, "late": {"backoff": "10m"}}
    task = await first.submit(
        {"required_capabilities": ["work"], "retries": 1, "backoff": 0.001, "retry": rules}
    )
    assert await task.result(10) == "done"
    other = await first.submit(
        {"required_capabilities": ["more"], "retries": 1, "backoff": 0.001, "retry": rules}
    )
    await crew.vanish()
    await first.stop()

    second = await start_engine()
    await crew_of(second).join("b", "more", does=failing("busy", "broken", "busy", "busy", "busy"))
    (ended,) = await second.call("task.wait", task_ids=[other.task_id], timeout_seconds=10)

    assert (ended.status, ended.error["code"], ended.attempts_made) == ("failed", "busy", 5)


async def test_the_wait_is_that_of_the_code(orchestrator: Any, crew: Any) -> None:
    orchestrator.engine.settler.jitter = lambda: 1.0
    await crew.join("a", does=failing("late", "never"))

    task = await orchestrator.submit(
        {
            "required_capabilities": ["work"],
            "backoff": 0.001,
            "retry": {"late": {"backoff": "10m", "maxBackoff": "5m"}},
        }
    )
    waits = None
    async with asyncio.timeout(10):
        while not waits:
            waits = await orchestrator.store.db.pool.fetchval(
                "select extract(epoch from run_at - now())::float8 from task_distributions"
                " where task_id = $1 and is_delayed",
                task.task_id,
            )

    assert 298 < waits <= 300


async def test_a_time_limit_may_have_a_rule(orchestrator: Any, crew: Any) -> None:
    gate = Gate(1)
    await crew.join("slow", does=gate)

    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "timeout": 0.1, "retry": {"timeout": {"retries": 0}}}
    )
    ended = await task.wait(10)

    assert (ended.status, ended.error["code"], ended.attempts_made) == ("failed", "timeout", 1)


async def test_what_must_not_run_twice_is_handed_to_one_agent(orchestrator: Any, crew: Any) -> None:
    gate = Gate(1)
    await crew.join("a", does=gate)
    task = await orchestrator.submit(
        {
            "required_capabilities": ["work"],
            "retry": {"agent_lost": {"retries": 0}, "no_answer": {"retries": 0}},
        }
    )
    await gate.work()
    await crew.join("b")

    orchestrator.engine.lifeline.lose("a")
    ended = await task.wait(10)

    assert (ended.status, ended.error["code"], ended.attempts_made) == ("failed", "agent_lost", 1)


async def test_the_setting_of_the_longest_wait_has_its_effect(start_engine: Any, crew_of: Any) -> None:
    orchestrator = await start_engine(engine={"backoff": 600.0, "max_backoff": 0.001})
    await crew_of(orchestrator).join("a", does=failing("broken"))

    task = await orchestrator.submit({"required_capabilities": ["work"]})

    assert await task.result(10) == "done"


async def test_success_takes_the_quick_way_also_with_rules(
    orchestrator: Any, crew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    settle_task = orchestrator.engine.settler.settle_task

    async def heard(task_id: str, *more: Any, **named: Any) -> None:
        asked.append(task_id)
        await settle_task(task_id, *more, **named)

    monkeypatch.setattr(orchestrator.engine.settler, "settle_task", heard)
    await crew.join("a")

    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "data": 1, "retry": {"busy": {"retries": 1}}}
    )

    assert await task.result(10) == 1
    assert asked == []
