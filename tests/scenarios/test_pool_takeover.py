"""Pools as processes: one whose node is killed is led by its other node, and the others do not notice."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster import Cluster

from bench.fleet.timed_agent import CAPABILITY
from bench.fleet.workflow import Job, Workflow

LEASE_SECONDS = 2.0

LED = "select node_id from leases where name = $1 and expires_at > now()"


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster(AGENTORCH_ENGINE_LEASE_SECONDS=str(LEASE_SECONDS))
    yield cluster
    await cluster.close()


def chain(name: str, number: int, seconds: float) -> Workflow:
    """Tasks one after the other, each as long."""
    jobs = [Job(f"{name}-{n}", seconds, (f"{name}-{n - 1}",) if n else ()) for n in range(number)]
    return Workflow(name, tuple(jobs))


async def pid_of(cluster: Cluster, lease: str) -> int:
    async def led() -> Any:
        return await cluster.ask(LED, lease)

    (row,) = await cluster.until(f"{lease} is held", led)
    return int(await cluster.ask_one("select pid from nodes where node_id = $1", row["node_id"]))


async def test_a_pool_whose_node_is_killed_is_led_by_another_and_other_pools_go_on(cluster: Cluster) -> None:
    first = await cluster.add_node()
    cluster.settings["AGENTORCH_ENGINE_POOL"] = "gpu"
    second, third = await cluster.add_node(), await cluster.add_node()
    await cluster.command("agent", "register", "agent-0", "-c", CAPABILITY, "--pool", "gpu")
    cluster.add_agents(2, node=first)  # agent-0 is of pool gpu, on a node of the default pool
    await cluster.until_online()
    assert await pid_of(cluster, "scheduler") == await pid_of(cluster, "monitor") == first.pid
    assert await pid_of(cluster, "scheduler:gpu") == second.pid
    await cluster.submit(chain("theirs", 40, 0.005))
    await cluster.submit(chain("ours", 20, 0.3), pool="gpu")
    await cluster.until_completed(42)

    second.kill()
    killed = time.time()

    async def assigned() -> Any:
        """Seconds from the kill to the first assignment in the pool afterwards."""
        return await cluster.ask_one(
            "select extract(epoch from min(e.at))::float8 - $1 from events e"
            " join task_distributions t on t.task_id = e.task_id"
            " join leases l on l.name = 'scheduler:gpu' and l.node_id <> $2"
            " where e.kind = 'task_assigned' and t.pool = 'gpu'"
            " and e.at > to_timestamp($1) + interval '0.1 s'",
            killed,
            gpu_node,
        )

    (row,) = await cluster.ask("select node_id from nodes where pid = $1", second.pid)
    gpu_node = row["node_id"]
    await cluster.until("pool gpu goes on", assigned)
    await cluster.until_over(60)
    assert await pid_of(cluster, "scheduler:gpu") == third.pid
    by_agent = await cluster.ask(
        "select pool, assigned_agents[1], count(*) from task_distributions group by 1, 2"
    )
    assert {tuple(row) for row in by_agent} == {("gpu", "agent-0", 20), ("default", "agent-1", 40)}
    live = {
        node["pid"]: node
        for node in json.loads(await cluster.command("node", "list", "--json"))
        if node["is_live"]
    }
    assert live.keys() == {first.pid, third.pid}
    assert (live[third.pid]["pool"], live[third.pid]["is_leader"]) == ("gpu", True)
    assert (live[first.pid]["agents"], live[first.pid]["is_chief"]) == (2, True)

    await cluster.submit(
        chain("overdue", 1, 0.0), deadline=LEASE_SECONDS, required_capabilities=["nobody has it"]
    )
    first.kill()

    async def follows() -> bool:
        rows = await cluster.ask(LED, "monitor")
        return bool(rows) and await pid_of(cluster, "monitor") == third.pid

    await cluster.until("another chief", follows)

    async def failed() -> Any:
        return await cluster.ask_one("select count(*) from task_distributions where status = 'failed'")

    await cluster.until("the new chief ends what is overdue", failed)
