"""The real program, with a fleet of samples in place of a database: for tests that need a process."""

from __future__ import annotations

import asyncio
import os
import sys
import types
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import sample_fleet as sample

from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.views import ChangeReply, ResolvedView, TaskRef


class Desk:
    is_remote = False
    looks = 0

    async def call(self, method: str, **parameters: Any) -> Any:
        match method:
            case "id.resolve":
                return ResolvedView(ids={one: one for one in parameters["ids"]})
            case "task.match":
                number = 3 if parameters["where"] == "name=few" else 250
                return [
                    TaskRef(task_id=f"task-{n}", type="t", status="pending", cursor=str(n))
                    for n in range(number)
                ]
            case "task.cancel":
                return ChangeReply(changed=parameters["task_ids"])
            case "status.get":
                self.looks += 1
                if self.looks > int(os.environ.get("STUB_LOOKS", "1000000")):
                    raise DatabaseUnreachable("the database went away")
                sample.NOW = datetime.now(UTC)
                return sample.status()
            case "task.list":
                return sample.tasks() * 5_000 if parameters["limit"] == 99_999 else sample.tasks()
            case "task.get" if parameters["task_id"] == "slow":
                print("asked", file=sys.stderr, flush=True)
                try:
                    await asyncio.sleep(60)
                finally:
                    print("cleaned up", file=sys.stderr, flush=True)
            case "task.get":
                return sample.story()
        raise KeyError(method)


@asynccontextmanager
async def open_client(settings: Any, *, prepare: bool = True) -> Any:
    yield Desk()


async def serve(settings: Any, *, on_ready: Any, stop: asyncio.Event, stop_now: asyncio.Event) -> None:
    on_ready("ws://127.0.0.1:1/agents")
    await stop.wait()
    if settings.gateway.port == 7:  # a drain that takes its time
        await stop_now.wait()


wiring: Any = types.ModuleType("agentorch_cli.wiring")
wiring.open_client, wiring.serve = open_client, serve
sys.modules["agentorch_cli.wiring"] = wiring

if __name__ == "__main__":
    from agentorch_cli.__main__ import main

    main()
