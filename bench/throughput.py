"""Tasks per second, and latency on an idle engine, of the real program.

Three kinds of processes share the machine: `agentorch serve` with its embedded PostgreSQL
(fsync and synchronous_commit on), one agent process over WebSocket, and this one, which
submits through the same client as the command line does. A task counts as done when its
result is stored.

    python -m bench.throughput --tasks 5000 --repeat 3
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import uvloop

from agentorch_cli.client import LocalClient
from agentorch_cli.core.model import TaskSpec
from agentorch_cli.identity import new_id_text
from bench.fleet.engine import Engine, engine
from bench.machine import describe, percentiles

DONE = "select count(*) from task_distributions where status = 'completed'"
NEWEST = "select completed_at is not null from task_distributions order by seq desc limit 1"
OPEN_OF_THE_NEWEST = (
    "select count(*) from (select completed_at from task_distributions order by seq desc limit $1) as newest"
    " where completed_at is null"
)
PAYLOAD = {"task": "noop", "args": {"text": "x" * 60}, "n": 12345}
WARM_UP = 20
"""Tasks of a latency run that are not counted."""


def tasks(number: int) -> list[TaskSpec]:
    """Independent no-op tasks with a small payload."""
    return [
        TaskSpec(new_id_text(), type="noop", required_capabilities=("noop",), data=PAYLOAD)
        for _ in range(number)
    ]


@contextlib.asynccontextmanager
async def fleet(slots: int, single: bool) -> AsyncIterator[tuple[Engine, LocalClient]]:
    """A running engine, and a client of it."""
    async with engine(slots=slots, single=single) as one:
        yield one, one.client


async def submit(client: LocalClient, specs: list[TaskSpec], chunk: int) -> None:
    for start in range(0, len(specs), chunk):
        await client.call("task.submit", tasks=specs[start : start + chunk])


async def until_done(client: LocalClient, number: int) -> None:
    """Wait until this many tasks in all are completed; looks at the table every 20 ms."""
    while True:
        if await client.context.db.pool.fetchval(DONE) >= number:
            return
        await asyncio.sleep(0.02)


async def until_all_done(client: LocalClient, newest: int) -> None:
    """Wait until so many of the newest tasks are over, at a price that does not grow with the table."""
    pool = client.context.db.pool
    while not await pool.fetchval(NEWEST):
        await asyncio.sleep(0.01)
    while await pool.fetchval(OPEN_OF_THE_NEWEST, newest):
        await asyncio.sleep(0.01)


# --- what is measured -------------------------------------------------------------------------


async def submit_seconds(one: Engine, number: int, chunk: int = 1000) -> float:
    """Submit tasks by so many a call, one call after the other."""
    specs = tasks(number)
    start = time.perf_counter()
    await submit(one.client, specs, chunk)
    return time.perf_counter() - start


async def submit_each_seconds(one: Engine, number: int, lanes: int = 20) -> float:
    """Submit tasks one a call, with so many calls at once."""
    left = iter(tasks(number))

    async def lane() -> None:
        for spec in left:
            await one.client.call("task.submit", tasks=[spec])

    start = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(lanes)))
    return time.perf_counter() - start


async def drain_seconds(one: Engine, number: int) -> tuple[int, float, dict[str, float]]:
    """Start the agent on so many stored tasks: how many were counted, in what time, at what CPU.

    From the agent's being known to the last stored result; what was done before that is left out.
    """
    one.start_agent()
    await one.until_online(1)
    start, before = time.perf_counter(), one.cpu_seconds()
    open_tasks = await one.db.fetchval(OPEN_OF_THE_NEWEST, number)
    await until_all_done(one.client, number)
    seconds = time.perf_counter() - start
    return open_tasks, seconds, spent(before, one.cpu_seconds(), open_tasks)


async def both_seconds(one: Engine, number: int, chunk: int = 100) -> tuple[float, dict[str, float]]:
    """Submit by so many a call while the agent works, until the last result is stored."""
    specs = tasks(number)
    start, before = time.perf_counter(), one.cpu_seconds()
    await submit(one.client, specs, chunk)
    await until_all_done(one.client, number)
    return time.perf_counter() - start, spent(before, one.cpu_seconds(), number)


def spent(before: dict[str, float], after: dict[str, float], number: int) -> dict[str, float]:
    """CPU microseconds for each task, by process."""
    return {name: (used - before.get(name, 0.0)) / number * 1e6 for name, used in after.items()}


async def latencies(one: Engine, samples: int, warm_up: int = WARM_UP) -> list[float]:
    """Milliseconds from the call of submit to the stored result in the submitter's hands, one by one."""
    took = []
    for spec in tasks(samples + warm_up):
        start = time.perf_counter()
        await one.client.call("task.submit", tasks=[spec])
        (task,) = await one.client.call("task.wait", task_ids=[spec.task_id])
        took.append((time.perf_counter() - start) * 1e3)
        assert task.status == "completed", task
    return took[warm_up:]


async def measure(number: int, samples: int, slots: int, single: bool) -> dict[str, Any]:
    """All of it on one fresh database."""
    async with engine(slots=slots, single=single) as one:
        figures: dict[str, Any] = {"submit_per_s": number / await submit_seconds(one, number)}
        done, seconds, cpu = await drain_seconds(one, number)
        figures["drain_per_s"] = done / seconds
        figures["cpu_us_per_task"] = {name: round(value, 1) for name, value in cpu.items()}
        seconds, _ = await both_seconds(one, number)
        figures["both_per_s"] = number / seconds
        figures["latency_ms"] = percentiles(await latencies(one, samples))
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=500, help="tasks of the latency run")
    parser.add_argument("--slots", type=int, default=500)
    parser.add_argument("--single", action="store_true", help="one message a frame")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    runs = []
    for _ in range(args.repeat):
        runs.append(uvloop.run(measure(args.tasks, args.samples, args.slots, args.single)))
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    summary: dict[str, Any] = {"machine": describe(), "tasks": args.tasks, "one_message_a_frame": args.single}
    for key in ("submit_per_s", "drain_per_s", "both_per_s"):
        values = [run[key] for run in runs]
        summary[key] = {
            "median": round(statistics.median(values)),
            "min": round(min(values)),
            "max": round(max(values)),
        }
    summary["latency_ms"] = {
        key: round(statistics.median(run["latency_ms"][key] for run in runs), 2)
        for key in ("p50", "p95", "p99")
    }
    print(json.dumps(summary, indent=None if args.json else 2))


if __name__ == "__main__":
    main()
