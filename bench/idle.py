"""What an idle fleet costs: CPU of `serve` and PostgreSQL, commits per second, memory.

python -m bench.idle --agents 100 --seconds 20
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import uvloop

from agentorch_cli import Agent
from bench.fleet.engine import engine
from bench.machine import describe

SETTLE_SECONDS = 12
"""A PostgreSQL backend tells its counters late, at the latest after ten idle seconds."""

COMMITS = "select xact_commit from pg_stat_database where datname = current_database()"


async def measure(number: int, seconds: float) -> dict[str, Any]:
    """Connect idle agents from another process, wait until they are in, then watch."""
    async with engine() as one:
        memory, began = one.memory()["serve"], time.perf_counter()
        agents = subprocess.Popen(
            [sys.executable, "-m", "bench.idle", "--agents", str(number), "--connect", one.url]
        )
        try:
            await one.until_online(number)
            connected = time.perf_counter() - began
            await asyncio.sleep(SETTLE_SECONDS)
            before, commits = one.cpu_seconds(), await one.db.fetchval(COMMITS)
            await asyncio.sleep(seconds)
            after = one.cpu_seconds()
            made = await one.db.fetchval(COMMITS) - commits
            grown = one.memory()["serve"] - memory
        finally:
            agents.terminate()
            agents.wait()
        used = {
            name: round((after[name] - before[name]) / seconds, 4)
            for name in ("serve", "postgres")
            if name in after
        }
        return {
            "agents": number,
            "cores_used": used,
            "commits_per_s": round(made / seconds, 2),
            "kb_per_agent": round(grown / number, 1),
            "connect_seconds": round(connected, 2),
        }


async def connect(url: str, number: int) -> None:
    """Idle agents, all in this process."""
    await asyncio.gather(*(Agent(f"idle-{n}", capabilities=("nothing",)).run(url) for n in range(number)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--connect", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.connect:
        uvloop.run(connect(args.connect, args.agents))
    else:
        print(json.dumps({"machine": describe(), **uvloop.run(measure(args.agents, args.seconds))}, indent=2))


if __name__ == "__main__":
    main()
