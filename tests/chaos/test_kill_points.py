"""`serve` is killed at every named point of the hot path, one after the other, while work goes on."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from long import IS_LONG, SEED
from waiting import all_over

from agentorch_cli.chaos.checker import check
from agentorch_cli.chaos.crew import Crew
from agentorch_cli.chaos.evidence import gather
from agentorch_cli.chaos.processes import Serve, observed

LAUNCHER = (sys.executable, str(Path(__file__).with_name("launcher.py")))

NAMES = (
    "insert_task",
    "ready_tasks_by_id",
    "assign_batch",
    "deliver",
    "accept_attempts",
    "settle_batch",
    "settle_and_unlock",
    "acknowledge",
    "unlock_dependents",
    "doom_dependents",
    "skip_dependents",
    "connect_agent",
    "held_work",
    "open_decision",
    "lock_tasks",
    "finish_attempts",
    "cast_ballots",
    "close_decision",
    "settle_tasks",
    "commit",
    "begin_wait",
    "end_wait",
    "beat",
)
SHORT = ("assign_batch:after", "settle_batch:after", "unlock_dependents:before", "commit:after")
RARE = {"insert_task"}
"""Asked for once or twice in a batch: for its sub-tasks, the rest being submitted by another process."""
POINTS = [f"{name}:{moment}" for name in NAMES for moment in ("before", "after")] if IS_LONG else SHORT

SECONDS = 20.0
"""For a point to be reached."""


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="agentorch-chaos-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found, ignore_errors=True)


@contextlib.asynccontextmanager
async def crew_of(folder: Path) -> AsyncIterator[Crew]:
    """A crew whose PostgreSQL stays when nobody uses it: this process says that it does."""
    crew = Crew(folder)
    held = -1
    try:
        await asyncio.to_thread(crew.serve.start)
        held = os.open(crew.data_dir / "postgres.users", os.O_RDWR)
        fcntl.flock(held, fcntl.LOCK_SH)
        crew.add_agents(4)
        await crew.until_online()
        yield crew
    finally:
        await crew.close()
        if held >= 0:
            os.close(held)


async def until_killed(serve: Serve) -> bool:
    """Whether it came to its point."""
    for _ in range(int(SECONDS / 0.05)):
        if not serve.is_alive:
            return True
        await asyncio.sleep(0.05)
    return False


def _which(point: str, chance: random.Random) -> int:
    """At which of the times that it comes there."""
    return 1 if point.split(":")[0] in RARE else chance.randint(1, 3)


async def test_work_goes_on_whatever_point_serve_is_killed_at(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    missed = []
    async with crew_of(folder) as crew:
        crew.add_clients(1, seed=SEED, tasks=150 * len(POINTS), batch=150)
        crew.serve.kill()
        for point in POINTS:
            serve = Serve(
                crew.data_dir,
                program=LAUNCHER,
                environment=crew.settings | {"CHAOS_POINT": f"{point}:{_which(point, chance)}"},
            )
            serve.url = crew.serve.url
            crew.serve = serve
            await asyncio.to_thread(serve.launch)
            crew.clients[0].ask()
            if not await until_killed(serve):
                missed.append(point)
                serve.kill()
            else:
                serve.wait(1)
        crew.serve.environment.pop("CHAOS_POINT")
        await asyncio.to_thread(crew.serve.start)
        await all_over(crew)
        connection = await asyncpg.connect(**observed(crew.data_dir))
        found = await gather(connection, crew.journals)
        await connection.close()

    with capsys.disabled():
        print(f"\nseed {SEED}: {len(found.tasks)} tasks, killed at {len(POINTS)} points")
    assert {name: faults[:5] for name, faults in check(found).items() if faults} == {}
    assert not missed
    assert len(found.tasks) >= 150
