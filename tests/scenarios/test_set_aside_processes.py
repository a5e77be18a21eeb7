"""Pause, drain and exclusion from the command line, with real processes that are killed in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster import Cluster

SCRIPT = """
read -r task
echo started >> "$1"
if [ -e "$2" ]; then echo "no paper" >&2; exit 1; fi
while [ -e "$3" ]; do sleep 0.05; done
echo 1
"""

BREAKER = {
    "AGENTORCH_BREAKER_FAILURES": "3",
    "AGENTORCH_BREAKER_TASKS": "2",
    "AGENTORCH_BREAKER_BACKOFF": "1h",
}


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster(**BREAKER, AGENTORCH_BREAKER_MAX_BACKOFF="2h")
    try:
        yield cluster
    finally:
        await cluster.close()


class Printer:
    """An agent that serve runs: it can break, and be slow."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        folder = Path(cluster.folder)
        self.starts, self.broken, self.slow = folder / "starts", folder / "broken", folder / "slow"
        self.script = folder / "printer.sh"
        self.script.write_text(SCRIPT)

    @property
    def started(self) -> int:
        return len(self.starts.read_text().splitlines()) if self.starts.exists() else 0

    async def register(self) -> None:
        command = f"sh {self.script} {self.starts} {self.broken} {self.slow}"
        await self.cluster.command("agent", "register", "printer", "-c", "print", "--exec", command)

    async def submit(self, *names: str) -> None:
        file = Path(self.cluster.folder) / "print.json"
        # long enough that a task is not retried before the next one was tried: the older goes first
        task = {"required_capabilities": ["print"], "backoff": 1.0, "retries": 2}
        file.write_text(json.dumps({"tasks": [{"id": name, **task} for name in names]}))
        await self.cluster.command("task", "submit", str(file))

    async def kill_serve(self) -> None:
        self.cluster.serve.kill()
        await asyncio.to_thread(self.cluster.serve.start)
        await self.until_online()

    async def until_online(self) -> None:
        async def is_there() -> bool:
            there = "select count(*) from agent_registry join nodes using (node_id) where expires_at > now()"
            return bool(await self.cluster.ask_one(there))

        await self.cluster.until("the printer is there", is_there, 20)


async def test_exclusion_pause_and_drain_hold_through_a_kill_and_say_why(cluster: Cluster) -> None:
    printer = Printer(cluster)
    await cluster.add_node()
    await printer.register()
    await printer.until_online()

    # excluded: with an expiry, also after a kill; a probe lets it back once it is repaired
    printer.broken.touch()
    await printer.submit("a", "b")

    async def is_excluded() -> bool:
        return bool(await cluster.ask_one("select count(*) from agent_registry where excluded_until > now()"))

    await cluster.until("the printer is excluded", is_excluded, 20)
    await printer.kill_serve()

    async def is_due() -> bool:
        return "is due in " not in await cluster.command("task", "why", "b")

    await cluster.until("the retry of b is due", is_due, 20)
    why = await cluster.command("task", "why", "b")
    assert "printer is excluded until " in why
    assert " after 3 failures in a row, the last: " in why
    assert "no paper" in why
    assert "excluded until" in await cluster.command("agent", "list")
    assert printer.started == 3
    printer.broken.unlink()

    # paused for a while, and killed meanwhile: the pause ends when it was said to
    await cluster.ask("update agent_registry set excluded_until = now() returning agent_id")
    await cluster.command("agent", "pause", "printer", "--for", "1h", "--reason", "paper is low")
    await printer.kill_serve()
    why = await cluster.command("task", "why", "b")
    assert "printer is paused since " in why
    assert "UTC: paper is low" in why
    printer.slow.touch()
    await cluster.ask("update agent_registry set status_until = now() + interval '10 ms' returning agent_id")
    await cluster.ask("select pg_notify('agentorch_fleet', '*')")

    async def begun() -> bool:
        return printer.started == 4

    await cluster.until("the probe has begun", begun, 20)

    # drained: what it holds is finished, and then it holds nothing
    drain = asyncio.create_task(cluster.command("agent", "drain", "printer", "--wait", "--timeout", "20s"))

    async def is_draining() -> bool:
        return bool(await cluster.ask_one("select count(*) from agent_registry where status = 'draining'"))

    await cluster.until("the printer is draining", is_draining, 20)
    printer.slow.unlink()
    assert "drained" in await drain
    assert await cluster.ask_one("select count(*) from task_attempts where status = 'completed'") == 1
    assert printer.started == 4

    kinds = await cluster.ask(
        "select kind from events where kind like 'agent_%' and kind not in"
        " ('agent_registered', 'agent_online', 'agent_offline') order by event_id"
    )
    assert [row["kind"].removeprefix("agent_") for row in kinds] == [
        "excluded",
        "paused",
        "resumed",
        "probed",
        "draining",
        "readmitted",
    ]
