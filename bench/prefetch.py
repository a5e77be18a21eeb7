"""What handing short work over before there is a slot for it gains: tasks per second, and moves.

`agentorch serve` with its embedded PostgreSQL in a process of its own; agents with one slot each in
another. Every agent takes as long for a task as the table says (awaiting, so that they share one
processor). The best that could be is the number of agents over the time of a task; with nothing
held ahead each agent idles from its result until the next task has come.

    python -m bench.prefetch --agents 8 --repeat 3
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from typing import Any

import uvloop

from agentorch_cli import Agent, Work
from agentorch_cli.core.model import TaskSpec
from agentorch_cli.identity import new_id_text
from bench.fleet.engine import engine
from bench.machine import describe
from bench.throughput import DONE, submit, until_done

SECONDS = (0.0, 0.01, 0.05)
PREFETCH = (0, 1, 2, 4)
MOVED = "select count(*) from events where kind = 'attempt_moved'"


def serve_agents(url: str, number: int, prefetch: int) -> None:
    """The process of the agents."""

    async def work(work: Work) -> None:
        await asyncio.sleep(work.data["seconds"])

    async def run() -> None:
        agents = [Agent(f"a{n}", capabilities=("work",), prefetch=prefetch) for n in range(number)]
        for agent in agents:
            agent.add_handler(work)
        await asyncio.gather(*(agent.run(url) for agent in agents))

    uvloop.run(run())


async def measure(agents: int, prefetch: int, number: int) -> dict[float, tuple[float, float]]:
    """By seconds of a task: tasks per second, and the share of them that was moved."""
    found = {}
    most = {"AGENTORCH_BALANCING_PREFETCH": str(max(PREFETCH))}
    async with engine(slots=1, environment=most) as one:
        client = one.client
        process = multiprocessing.get_context("spawn").Process(
            target=serve_agents, args=(one.url, agents, prefetch), daemon=True
        )
        process.start()
        try:
            while sum(agent.status == "online" for agent in await client.call("agent.list")) < agents:
                await asyncio.sleep(0.02)
            done = moved = 0
            for seconds in SECONDS:
                count = max(agents * 20, min(number, int(1.5 * agents / max(seconds, 0.002))))
                specs = [
                    TaskSpec(new_id_text(), required_capabilities=("work",), data={"seconds": seconds})
                    for _ in range(count)
                ]
                start = time.perf_counter()
                await submit(client, specs, 1000)
                done += count
                await until_done(client, done)
                took = time.perf_counter() - start
                now = await client.context.db.pool.fetchval(MOVED)
                found[seconds] = (count / took, (now - moved) / count)
                moved = now
        finally:
            process.terminate()
            process.join()
        assert await client.context.db.pool.fetchval(DONE) == done
    return found


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=4000, help="most tasks of one measurement")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    print(describe())
    runs: dict[int, list[dict[float, tuple[float, float]]]] = {prefetch: [] for prefetch in PREFETCH}
    for _ in range(args.repeat):
        for prefetch in PREFETCH:  # in turn, so that the noise of the machine is shared
            runs[prefetch].append(await measure(args.agents, prefetch, args.tasks))
    print(f"{args.agents} agents with one slot; tasks/s (share moved), medians of {args.repeat}")
    print("prefetch " + " ".join(f"{seconds * 1000:>13.0f} ms" for seconds in SECONDS))
    for prefetch, taken in runs.items():
        cells: list[Any] = []
        for seconds in SECONDS:
            rate = statistics.median(one[seconds][0] for one in taken)
            share = statistics.median(one[seconds][1] for one in taken)
            cells.append(f"{rate:>8.0f} ({share:>4.0%})")
        print(f"{prefetch:>8} " + "  ".join(cells))


if __name__ == "__main__":
    asyncio.run(main())
