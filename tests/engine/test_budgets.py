"""Budgets on a running engine: what is paid, what is not started, and what both say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crew import Gate

from agentorch_cli import WorkFailed


def uses(cost: float | None = None, tokens: int | None = None, result: Any = "done") -> Any:
    """A handler that tells what it used."""

    async def handler(work: Any) -> Any:
        told: dict[str, Any] = {}
        if cost is not None:
            told["costUsd"] = cost
        if tokens is not None:
            told |= {"inputTokens": tokens - tokens // 3, "outputTokens": tokens // 3}
        work.usage = told or None
        return result

    return handler


async def settled(orchestrator: Any, key: str, **wanted: Any) -> Any:
    """The budget, once it stands like this."""
    async with asyncio.timeout(10):
        while True:
            found = await orchestrator.call("budget.get", key=key)
            if all(getattr(found, name) == value for name, value in wanted.items()):
                return found
            await asyncio.sleep(0.01)


async def test_what_was_used_takes_the_place_of_what_was_reserved(orchestrator: Any, crew: Any) -> None:
    gate = Gate()

    async def handler(work: Any) -> Any:
        result = await gate(work)
        work.usage = {"costUsd": 0.25, "inputTokens": 7, "outputTokens": 3}
        return result

    await crew.join("a", does=handler)
    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "budget": {"cost_usd": 1, "tokens": 100}, "data": 1}
    )
    work = await gate.work()
    running = await orchestrator.call("budget.get", key=task.task_id)
    gate.is_open.set()
    await task.result(10)
    ended = await orchestrator.call("budget.get", key=task.task_id)

    assert work.budget == {"costUsd": 1.0, "tokens": 100}
    assert (running.spent_usd, running.reserved_usd, running.reserved_tokens) == (0, 1, 100)
    assert (ended.spent_usd, ended.spent_tokens) == (0.25, 10)
    assert (ended.reserved_usd, ended.reserved_tokens) == (0, 0)
    shown = await orchestrator.call("task.get", task_id=task.task_id)
    assert (shown.usage.cost_usd, shown.usage.tokens, shown.usage.unknown_attempts) == (0.25, 10, 0)
    assert [event.kind for event in shown.events if event.kind.startswith("budget")] == [
        "budget_reserved",
        "budget_settled",
    ]
