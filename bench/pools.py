"""Tasks per second of one pool, and of several on one PostgreSQL, each with a `serve` and an agent.

What it shows is what nodes of different pools cost each other, and where PostgreSQL is the limit. All
processes share the machine, so on few cores several pools are no faster than one.

Besides, what does not depend on how busy the machine is: bytes of write-ahead log and of tables for each
task, and the sign of life of a node with 10,000 agents.

    python -m bench.pools [--tasks 4000] [--pools 1 2]
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import uvloop

from agentorch_cli.client import LocalClient
from agentorch_cli.config import load_settings
from agentorch_cli.core.model import AgentSpec
from agentorch_cli.wiring import open_client
from bench.fleet.processes import Serve, new_data_dir, remove
from bench.machine import describe
from bench.throughput import submit, tasks, until_done

SLOTS = 200


@contextlib.contextmanager
def nodes(data_dir: Path, names: list[str]) -> Iterator[list[Serve]]:
    """A node for each pool."""
    limits = {"AGENTORCH_ENGINE_MAX_CONCURRENT_TASKS": "0"}
    serving = [
        Serve(data_dir, name=name, environment={**limits, "AGENTORCH_ENGINE_POOL": name}) for name in names
    ]
    try:
        for node in serving:
            node.start()
        yield serving
    finally:
        for node in serving:
            node.stop()
        remove(data_dir)


WAL = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
SIZE = (
    "select sum(pg_total_relation_size(oid))::bigint from pg_class where relkind = 'r' and relname = any($1)"
)
HOT_TABLES = ["task_distributions", "task_attempts", "events", "task_dependencies"]
CROWD = 10_000


async def heartbeats(client: LocalClient) -> tuple[float, int]:
    """Milliseconds and bytes of log of one beat for 10,000 agents."""
    db = client.context.db
    agents = [f"crowd-{number}" for number in range(CROWD)]
    await db.pool.execute(
        "insert into agent_registry (agent_id, agent_type)"
        " select id, 'worker' from unnest($1::text[]) as i (id)",
        agents,
    )
    none = [0] * CROWD
    found = []
    for _ in range(5):
        log, began = await db.pool.fetchval(WAL), time.perf_counter()
        await db.fetch(
            "beat",
            "bench",
            "bench",
            "bench",
            None,
            1,
            None,
            "0",
            1.0,
            ["bench"],
            agents,
            none,
            none,
            True,
            "bench",
        )
        found.append(((time.perf_counter() - began) * 1000, await db.pool.fetchval(WAL) - log))
    return sorted(found)[len(found) // 2]


async def measure(number: int, names: list[str]) -> str:
    """Tasks per second of all pools together, `number` tasks in all; and what each task writes."""
    data_dir = new_data_dir()
    settings = load_settings({"data_dir": str(data_dir)}, {}, None, data_dir)
    agents: list[subprocess.Popen[bytes]] = []
    with nodes(data_dir, names) as serving:
        try:
            async with open_client(settings) as client:
                specs = [AgentSpec(f"agent-{pool}", capabilities=("noop",), pool=pool) for pool in names]
                await client.call("agent.register", agents=specs)
                work = tasks(number)
                log, size = await client.context.db.pool.fetchval(WAL), await sizes(client)
                for position, pool in enumerate(names):
                    own = [replace(one, pool=pool) for one in work[position :: len(names)]]
                    await submit(client, own, 1000)
                for node, pool in zip(serving, names, strict=True):
                    command = [sys.executable, "-m", "bench.noop_agent", node.url, f"agent-{pool}"]
                    agents.append(subprocess.Popen([*command, "--slots", str(SLOTS)]))
                await until_done(client, 1)
                began = time.perf_counter()
                await until_done(client, number)
                rate = number / (time.perf_counter() - began)
                log, size = await client.context.db.pool.fetchval(WAL) - log, await sizes(client) - size
                told = f"{rate:,.0f} tasks/s of all together; a task: {log / number:,.0f} bytes of log"
                milliseconds, beat = await heartbeats(client)
                return (
                    f"{told}, {size / number:,.0f} of tables and indexes\n"
                    f"   a beat for {CROWD:,} agents: {milliseconds:.0f} ms,"
                    f" {beat / CROWD:.0f} bytes of log each"
                )
        finally:
            for agent in agents:
                agent.terminate()
                agent.wait(10)


async def sizes(client: LocalClient) -> int:
    return int(await client.context.db.pool.fetchval(SIZE, HOT_TABLES))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--pools", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    print(describe())
    for number in options.pools:
        names = ["default", *(f"pool-{n}" for n in range(1, number))]
        print(f"{number} pools: {await measure(options.tasks, names)}", flush=True)


if __name__ == "__main__":
    uvloop.run(main())
