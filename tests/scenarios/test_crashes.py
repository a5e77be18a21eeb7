"""Whatever dies, and whenever: every task ends with one outcome.

Real processes on a real data directory; agents keep journals on the disk, and an independent
checker compares journals and tables at the end. `AGENTORCH_CHAOS=1` (`make chaos-short`) runs
more kills on more tasks; the seed of a run is printed, `AGENTORCH_CHAOS_SEED` repeats it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator

import pytest
from checker import faults
from cluster import Cluster

from bench.fleet.workflow import Workflow, load

IS_LONG = bool(os.environ.get("AGENTORCH_CHAOS"))
SEED = int(os.environ.get("AGENTORCH_CHAOS_SEED", "0")) or random.randrange(1, 2**31)
LEASE_SECONDS = 2.0
GRACE_SECONDS = 3.0


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    one = Cluster()
    try:
        yield one
    finally:
        await one.close()


def short_tasks() -> Workflow:
    """A real graph of 1,121 tasks, half of them below 2 ms."""
    return load("wf_epigenomics_1121").with_median(0.002)


async def kill_serve(cluster: Cluster) -> None:
    async with cluster.outage("serve killed") as outage:
        cluster.serve.kill()
        await cluster.restart_serve(outage)


async def kill_agents(cluster: Cluster) -> None:
    async with cluster.outage("two agents killed"):
        for agent in random.sample(sorted(cluster.agents.values(), key=lambda a: a.agent_id), 2):
            agent.kill()
            agent.start()


async def kill_postgres(cluster: Cluster) -> None:
    async with cluster.outage("PostgreSQL killed"):
        cluster.kill_postgres()


async def kill_serve_and_agents(cluster: Cluster) -> None:
    async with cluster.outage("serve and two agents killed") as outage:
        cluster.serve.kill()
        for name in ("agent-0", "agent-1"):
            cluster.agents[name].kill()
            cluster.agents[name].start()
        await cluster.restart_serve(outage)


async def kill_everything(cluster: Cluster) -> None:
    async with cluster.outage("everything killed at once") as outage:
        cluster.kill_postgres()
        cluster.serve.kill()
        for agent in cluster.agents.values():
            agent.kill()
        for agent in cluster.agents.values():
            agent.start()
        await cluster.restart_serve(outage)


KILLS = (kill_serve, kill_agents, kill_serve, kill_postgres, kill_serve_and_agents, kill_serve, kill_everything)


async def test_every_task_of_a_graph_has_one_outcome_whatever_is_killed(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    random.seed(SEED)
    kills = [*KILLS, *(random.choice(KILLS) for _ in range(23))] if IS_LONG else KILLS
    await cluster.add_node()
    cluster.add_agents(4, slots=2)
    await cluster.until_online()

    began = time.time()
    number = await cluster.submit(short_tasks())
    for position, kill in enumerate(kills, start=1):
        await cluster.until_completed(number * position // (len(kills) + 1))
        await asyncio.sleep(random.random() * 0.1)
        await kill(cluster)
    await cluster.until_completed(number)

    async def nothing_is_live() -> bool:
        return await cluster.live() == 0

    await cluster.until("nothing is live", nothing_is_live, 10)
    with capsys.disabled():
        print(f"\nseed {SEED}: {number} tasks, {len(kills)} kills, {time.time() - began:.1f} s")
        for outage in cluster.outages:
            print(f"  {outage}")
    assert (await faults(cluster))[:20] == []
