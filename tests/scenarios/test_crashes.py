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
import sys
import time
from collections.abc import AsyncIterator

import pytest
from auditor import faults
from cluster import Cluster

from bench.fleet.workflow import Job, Workflow, load

IS_LONG = bool(os.environ.get("AGENTORCH_CHAOS"))
SEED = int(os.environ.get("AGENTORCH_CHAOS_SEED", "0")) or random.randrange(1, 2**31)


@pytest.fixture
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """Settings other than the quick ones come by `parametrize(..., indirect=True)`."""
    one = Cluster(**getattr(request, "param", {}))
    try:
        yield one
    finally:
        await one.close()


def short_tasks() -> Workflow:
    """A real graph of 1,121 tasks, half of them below 2 ms."""
    return load("wf_epigenomics_1121").with_median(0.002)


def alike(number: int, seconds: float) -> Workflow:
    """Tasks that wait for nothing."""
    return Workflow("alike", tuple(Job(f"t{one}", seconds, ()) for one in range(number)))


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
    async with cluster.outage("PostgreSQL killed") as outage:
        cluster.kill_postgres()
        outage.restarted = time.time()
        await cluster.until_postgres_is_back(outage)


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


KILLS = (
    kill_serve,
    kill_agents,
    kill_serve,
    kill_postgres,
    kill_serve_and_agents,
    kill_serve,
    kill_everything,
)


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
    await cluster.until_over(number)

    with capsys.disabled():
        print(f"\nseed {SEED}: {number} tasks, {len(kills)} kills, {time.time() - began:.1f} s")
        for outage in cluster.outages:
            print(f"  {outage}")
    assert (await faults(cluster))[:20] == []


@pytest.mark.parametrize("cluster", [{"AGENTORCH_GATEWAY_HEARTBEAT_INTERVAL": "0.5"}], indirect=True)
async def test_the_late_result_of_an_agent_that_was_stopped_changes_nothing(cluster: Cluster) -> None:
    await cluster.add_node()
    cluster.add_agents(2)
    await cluster.until_online()
    await cluster.submit(alike(2, 1.0))
    await cluster.until_live(2)

    stopped = await cluster.ask_one("select agent_id from task_attempts order by task_id limit 1")
    task_id = await cluster.ask_one("select task_id from task_attempts order by task_id limit 1")
    os.kill(cluster.agents[stopped].pid, signal.SIGSTOP)
    await cluster.until_over(2, 30)
    before = await cluster.ask("select * from task_distributions where task_id = $1", task_id)
    os.kill(cluster.agents[stopped].pid, signal.SIGCONT)
    await cluster.until_online()
    journal = cluster.agents[stopped].journal
    assert journal is not None

    async def has_ended() -> bool:
        return "ended" in journal.read_text()

    await cluster.until("the stopped agent ended its work", has_ended, 5)
    await asyncio.sleep(0.3)

    attempts = await cluster.ask(
        "select agent_id, status from task_attempts where task_id = $1 order by attempt", task_id
    )
    assert await cluster.ask("select * from task_distributions where task_id = $1", task_id) == before
    assert [(row["agent_id"] == stopped, row["status"]) for row in attempts] == [
        (True, "lost"),
        (False, "completed"),
    ]
    assert await faults(cluster) == []


@pytest.mark.parametrize("cluster", [{"AGENTORCH_ENGINE_DRAIN_TIMEOUT": "0.2"}], indirect=True)
async def test_work_goes_on_while_serve_is_stopped_in_good_order(cluster: Cluster) -> None:
    await cluster.add_node()
    cluster.add_agents(2)
    await cluster.until_online()
    await cluster.submit(alike(4, 1.5))
    await cluster.until_live(2)

    async with cluster.outage("serve stopped") as outage:
        cluster.serve.send(signal.SIGTERM)
        code = await asyncio.to_thread(cluster.serve.wait, 10)
        await asyncio.sleep(1.0)
        await cluster.restart_serve(outage)
    await cluster.until_over(4, 30)

    assert code == 0
    assert await cluster.ask_one("select count(*) from task_attempts") == 4
    assert await faults(cluster) == []


@pytest.mark.parametrize("cluster", [{"AGENTORCH_ENGINE_DRAIN_TIMEOUT": "60"}], indirect=True)
async def test_a_second_signal_stops_at_once(cluster: Cluster) -> None:
    await cluster.add_node()
    cluster.add_agents(1)
    await cluster.until_online()
    await cluster.submit(alike(1, 2.5))
    await cluster.until_live(1)

    cluster.serve.send(signal.SIGTERM)
    await asyncio.sleep(0.3)
    is_waiting = cluster.serve.is_alive
    cluster.serve.send(signal.SIGTERM)
    code = await asyncio.to_thread(cluster.serve.wait, 40)

    assert is_waiting
    assert code == 128 + signal.SIGTERM
    await asyncio.to_thread(cluster.serve.start)
    await cluster.until_over(1)
    assert await faults(cluster) == []


async def test_another_node_takes_over_from_one_that_is_killed(cluster: Cluster) -> None:
    first = await cluster.add_node()
    second = await cluster.add_node()
    cluster.add_agents(2, node=first, slots=3)
    cluster.add_agents(2, node=second, slots=3)
    await cluster.until_online()
    number = await cluster.submit(load("wf_chipseq").with_median(0.005))
    await cluster.until_completed(number // 4)

    async with cluster.outage("the leading node killed"):
        first.kill()
    await asyncio.to_thread(first.start)
    await cluster.until_over(number)

    by_node = await cluster.ask("select node_id, count(*) from task_attempts group by 1")
    assert len(by_node) >= 2, "each node led for a while"
    assert await faults(cluster, may_idle=["agent-0", "agent-1"]) == []


async def test_agents_of_a_node_that_was_taken_for_dead_work_again(cluster: Cluster) -> None:
    first = await cluster.add_node()
    second = await cluster.add_node()
    cluster.add_agents(2, node=first)
    await cluster.until_online()

    first.send(signal.SIGSTOP)

    async def has_noticed() -> bool:
        stranded = "select count(*) from agent_registry where node_id is null"
        return int(await cluster.ask_one(stranded)) == 2

    await cluster.until("the other node noticed", has_noticed, 15)
    first.send(signal.SIGCONT)
    await cluster.until_online()
    async with cluster.outage("the other node killed"):
        second.kill()
        await cluster.submit(alike(4, 0.01))
    await cluster.until_over(4)

    assert await faults(cluster) == []


async def test_an_agent_of_a_folder_finds_its_serve_again_on_another_port(cluster: Cluster) -> None:
    """It is there before any serve, and while one is killed; `serve --port 0` is never where it was."""
    agent = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "agentorch_cli", "--data-dir", str(cluster.data_dir)),
        *("agent", "run", "a", "-c", "work", "--exec", "cat"),
        stderr=subprocess.PIPE,
        env={**os.environ, **cluster.settings},
    )
    assert agent.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"unreachable" not in await agent.stderr.readline():
                pass
            for _ in range(2):
                node = await cluster.add_node()
                while b"connected" not in await agent.stderr.readline():
                    pass
                node.kill()
    finally:
        agent.kill()
        await agent.communicate()

    ports = [node.port for node in cluster.nodes]
    assert len(set(ports)) == 2
