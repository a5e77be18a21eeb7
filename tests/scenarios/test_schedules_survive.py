"""Schedules on real nodes: each second once, whoever leads, and whoever is killed."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from cluster import Cluster

LEADER = """
  select n.pid from leases l join nodes n on n.node_id = l.node_id
  where l.name = 'scheduler' and l.expires_at > now()"""


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    one = Cluster()
    try:
        yield one
    finally:
        await one.close()


async def add(cluster: Cluster, *options: str) -> None:
    """A schedule of every second, as a person makes it; its tasks are for the agents of the cluster."""
    file = cluster.folder / "tick.toml"
    file.write_text(
        '[task]\nname = "tick"\ntype = "timed"\nrequired_capabilities = ["timed"]\ndata = { seconds = 0 }\n'
    )
    await cluster.command("schedule", "add", "tick", "--cron", "* * * * * *", *options, str(file))


async def times(cluster: Cluster) -> list[datetime]:
    """The times that were run, as the keys say it; a key stands for one task, so none comes twice."""
    rows = await cluster.ask("select idempotency_key from task_distributions order by idempotency_key")
    return [datetime.fromisoformat(row[0].removeprefix("schedule:tick:")) for row in rows]


async def until_runs(cluster: Cluster, number: int) -> None:
    async def enough() -> bool:
        return len(await times(cluster)) >= number

    await cluster.until(f"{number} runs", enough, 30)


def gaps(found: list[datetime]) -> list[timedelta]:
    return [b - a for a, b in itertools.pairwise(found)]


async def test_each_second_runs_once_on_two_nodes_also_when_the_leader_is_killed(cluster: Cluster) -> None:
    first, second = await cluster.add_node(), await cluster.add_node()
    cluster.add_agents(1, node=first)
    cluster.add_agents(1, node=second)
    await cluster.until_online()
    await add(cluster, "--missed", "all")
    await until_runs(cluster, 2)

    leader = await cluster.ask_one(LEADER)
    before = len(await times(cluster))
    (first if first.pid == leader else second).kill()
    await until_runs(cluster, before + 4)
    await cluster.command("schedule", "pause", "tick")
    found = await times(cluster)
    await cluster.until_completed(len(found))

    assert await cluster.ask_one(LEADER) in {one.pid for one in (first, second) if one.is_alive}
    assert set(gaps(found)) == {timedelta(seconds=1)}, "each second, and each once"
    by_time = await cluster.ask(
        "select data ->> 'at', count(*) from events where kind = 'schedule_ran' group by 1"
    )
    assert len(by_time) == len(found) and {row[1] for row in by_time} == {1}
    runs, skipped = (await cluster.ask("select runs, skipped from schedules"))[0]
    assert (runs, skipped) == (len(found), 0)
    nodes = await cluster.ask("select distinct node_id from events where kind = 'schedule_ran'")
    assert len(nodes) == 2
