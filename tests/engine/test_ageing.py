"""No task starves while tasks of higher priority keep coming: the bound in numbers, on a real engine."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

AGING = 0.2
"""Seconds, in place of 60."""

BOUND = timedelta(seconds=(10 - 0 + 1) * AGING)
"""What came this much later with priority 10 does not go before a task of priority 0."""

DEPTH = 100
"""Tasks of the stream that are ready at once, so that it has no gaps where the machine is slow."""


async def test_a_constant_stream_of_the_highest_priority_overtakes_the_lowest_for_a_bounded_time(
    start_engine: Any, crew_of: Any, sql_of: Any
) -> None:
    orchestrator = await start_engine(engine={"aging_seconds": AGING})

    async def work(work: Any) -> None:
        await asyncio.sleep(0.003)

    await crew_of(orchestrator).join("a", does=work)
    is_over = asyncio.Event()

    async def stream() -> None:
        """There are always some ready tasks of priority 10."""
        ids: list[str] = []
        while not is_over.is_set():
            handles = await orchestrator.submit_all(
                [{"priority": 10, "required_capabilities": ["work"]} for _ in range(5)]
            )
            ids += [handle.task_id for handle in handles]
            if len(ids) > DEPTH:
                await orchestrator.call("task.wait", task_ids=[ids[-DEPTH]], timeout_seconds=10)

    streaming = asyncio.create_task(stream())
    try:
        await asyncio.sleep(3 * AGING)  # the stream runs before the other comes
        low = await orchestrator.submit({"priority": 0, "required_capabilities": ["work"]})
        ended = await low.wait(20)
    finally:
        is_over.set()
        await streaming

    rows = await sql_of(
        orchestrator,
        "select created_at, started_at from task_distributions where priority = 10 and created_at > $1",
        ended.created_at,
    )
    ahead = [row["created_at"] for row in rows if row["started_at"] and row["started_at"] < ended.started_at]
    behind = [row["created_at"] for row in rows if row["created_at"] not in ahead]
    assert ended.status == "completed"
    assert len(ahead) > 10
    assert max(ahead) <= ended.created_at + BOUND
    # What came sooner went first, as far as there was time to hear of it.
    sooner = min(
        ended.created_at + BOUND - timedelta(seconds=2 * AGING), ended.started_at - timedelta(seconds=1)
    )
    assert not [created for created in behind if created < sooner]
