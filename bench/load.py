"""A submitter in a process of its own, until it is told to stop: evenly, or as fast as the engine ends tasks.

    python -m bench.load --data-dir DIR --rate 3000
    python -m bench.load --data-dir DIR --open 1000

With --rate it brings so many tasks a second; with --open it keeps so many waiting or running. It prints
`begun` when the first tasks are in, and at the end a line of JSON: how many it brought, and by how many
milliseconds it was late at most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from pathlib import Path

import uvloop

from agentorch_cli.config import load_settings
from agentorch_cli.wiring import open_client
from bench.throughput import tasks

STEP_SECONDS = 0.01
CHUNK = 100
OPEN = "select count(*) from task_distributions where seq > $1 and completed_at is null"
OVER = """
  select coalesce(min(seq) filter (where completed_at is null) - 1, max(seq), $1)
  from (select seq, completed_at from task_distributions where seq > $1 order by seq limit 2000) as t"""


async def bring(data_dir: Path, rate: float) -> None:
    """Each step's tasks at its own moment; a late step is made up for."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock = asyncio.get_running_loop().time
    flags = {"data_dir": str(data_dir), "database.url": os.environ.get("DATABASE_URL")}
    async with open_client(load_settings(flags, {}, None, data_dir.parent)) as client:
        began, brought, latest, steps = clock(), 0, 0.0, 0
        while not stop.is_set():
            latest = max(latest, clock() - began - steps * STEP_SECONDS)
            steps = max(steps, int((clock() - began) / STEP_SECONDS)) + 1
            due = int(steps * STEP_SECONDS * rate) - brought
            if due > 0:
                await client.call("task.submit", tasks=tasks(due))
                if not brought:
                    print("begun", flush=True)
                brought += due
            await asyncio.sleep(max(0.0, began + steps * STEP_SECONDS - clock()))
    print(json.dumps({"brought": brought, "latest_ms": round(latest * 1e3, 1)}), flush=True)


async def keep(data_dir: Path, most: int) -> None:
    """Bring tasks whenever fewer than so many are open."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    flags = {"data_dir": str(data_dir), "database.url": os.environ.get("DATABASE_URL")}
    async with open_client(load_settings(flags, {}, None, data_dir.parent)) as client:
        db = client.context.db.pool
        floor, brought = await db.fetchval("select coalesce(max(seq), 0) from task_distributions"), 0
        print("begun", flush=True)
        while not stop.is_set():
            missing = most - await db.fetchval(OPEN, floor)
            for _ in range(0, missing, CHUNK):
                await client.call("task.submit", tasks=tasks(CHUNK))
                brought += CHUNK
            # What is over need not be looked at again.
            floor = await db.fetchval(OVER, floor)
            if missing < CHUNK:
                await asyncio.sleep(STEP_SECONDS)
    print(json.dumps({"brought": brought, "latest_ms": 0.0}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--rate", type=float, help="tasks a second")
    how.add_argument("--open", type=int, help="tasks that wait or run at any moment")
    args = parser.parse_args()
    uvloop.run(keep(args.data_dir, args.open) if args.open else bring(args.data_dir, args.rate))


if __name__ == "__main__":
    main()
