"""Clocks that jump by an hour: of a node with its agents, and of the database."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from inside import inside
from long import SEED, long_only
from waiting import all_over

from agentorch_cli import Orchestrator
from agentorch_cli.chaos.checker import RULES, check
from agentorch_cli.chaos.crew import Crew
from agentorch_cli.chaos.evidence import gather
from agentorch_cli.chaos.processes import observed
from agentorch_cli.store import postmaster
from agentorch_cli.store.embedded import EmbeddedServer
from agentorch_cli.wiring import open_client
from tests.conftest import quick_settings

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
JUMPS = ("+1h", "-1h", "+0", "+3h", "-2d")

pytestmark = [
    long_only,
    pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed (apt-get install faketime)"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="agentorch-chaos-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found, ignore_errors=True)


def faked(file: Path) -> dict[str, str]:
    """The clock on the wall is what the file says; the monotonic clock goes on, as it does in a real jump."""
    return {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def set_clock(file: Path, offset: str) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(offset + "\n")
    fresh.chmod(0o644)
    fresh.rename(file)


async def test_the_clocks_of_a_node_and_its_agents_may_jump(folder: Path) -> None:
    """Time that is stored or compared is the database's."""
    print(f"seed {SEED}")
    clocks = [folder / "serve.clock", folder / "agents.clock"]
    for clock in clocks:
        set_clock(clock, "+0")
    crew = Crew(folder)
    crew.serve.environment |= faked(clocks[0])
    try:
        await asyncio.to_thread(crew.serve.start)
        crew.add_agents(4)
        for agent in crew.agents.values():
            agent.kill()
            agent.environment |= faked(clocks[1])
            agent.start()
        await crew.until_online()
        crew.add_clients(1, seed=SEED, tasks=600, batch=60)
        for number, jump in enumerate(JUMPS):
            crew.clients[0].ask()
            crew.clients[0].ask()
            set_clock(clocks[number % 2], jump)
            await asyncio.sleep(1.5)
        await all_over(crew)
        connection = await asyncpg.connect(**observed(crew.data_dir))
        found = await gather(connection, crew.journals)
        spread = await connection.fetchval("select max(at) - min(at) < interval '10 minutes' from events")
        await connection.close()
    finally:
        await crew.close()

    assert spread, "what was stored came from the database's clock"
    assert {name: faults[:5] for name, faults in check(found).items() if faults} == {}


@pytest.mark.parametrize("jumps", [("+1h", "+2h"), ("-1h", "+0")], ids=["forward", "back"])
async def test_the_databases_own_clock_may_jump(
    jumps: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward, every rule holds; back, all but those that compare two moments on that clock."""
    print(f"seed {SEED}")
    clock = folder / "clock"
    set_clock(clock, "+0")
    monkeypatch.setattr(postmaster, "_ENVIRONMENT", postmaster._ENVIRONMENT | faked(clock))
    server = EmbeddedServer(folder / "data")
    url = await server.start()
    settings = quick_settings(url)
    try:
        async with open_client(settings, prepare=False) as client:
            await client.context.db.migrate()
        async with Orchestrator(settings) as orchestrator, inside(url, orchestrator.url) as crew:

            async def jump() -> None:
                for offset in jumps:
                    await asyncio.sleep(1.0)
                    set_clock(clock, offset)
                await asyncio.sleep(2.0)

            await crew.submit_while(orchestrator, asyncio.create_task(jump()), SEED)
            await crew.until_over(60)
            await asyncio.sleep(0.1)
            found = check(await crew.evidence())
    finally:
        await server.release()

    compared = {"leases", "order", "slots"} if jumps[0].startswith("-") else set()
    assert {name: faults[:5] for name, faults in found.items() if faults and name not in compared} == {}
    assert set(RULES) > compared
