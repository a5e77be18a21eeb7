"""No task starves while tasks of higher priority keep coming: the bound in numbers, on a real engine."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

AGING = 0.2
"""Seconds, in place of 60."""

BOUND = timedelta(seconds=(10 - 0 + 1) * AGING)
"""What came this much later with priority 10 does not go before a task of priority 0."""


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
            if len(ids) > 15:
                await orchestrator.call("task.wait", task_ids=[ids[-15]], timeout_seconds=10)

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
        "select created_at from task_distributions"
        " where priority = 10 and started_at < $1 and created_at > $2",
        ended.started_at,
        ended.created_at,
    )
    ahead = [row["created_at"] - ended.created_at for row in rows]
    assert ended.status == "completed"
    assert max(ahead) <= BOUND
    assert max(ahead) >= BOUND - timedelta(seconds=2.5 * AGING), (
        "the stream had gaps, or priority counts for nothing"
    )
    assert len(ahead) > 10, "what is a stream depends on the machine, but this is none"
