"""The disk under the database fills up; nothing that was acknowledged is gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from long import SEED, long_only
from waiting import all_over

from agentorch_cli.chaos.checker import check
from agentorch_cli.chaos.crew import Crew
from agentorch_cli.chaos.evidence import gather
from agentorch_cli.chaos.journal import read
from agentorch_cli.chaos.processes import observed

MEGABYTES = 200
FULL_SECONDS = 2.0
"""From the first complaint until there is room again."""

pytestmark = [long_only, pytest.mark.skipif(os.geteuid() != 0, reason="to mount a tmpfs needs root")]


@pytest.fixture
def small_disk() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="agentorch-chaos-"))
    folder.chmod(0o755)
    options = f"size={MEGABYTES}m,mode=755"
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        folder.rmdir()
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x")
    return ballast


async def test_a_full_disk_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    """The data directory is on the small disk; journals and logs are not."""
    print(f"seed {SEED}")
    crew = Crew(tmp_path)
    crew.data_dir = small_disk / "data"
    crew.serve.data_dir = crew.data_dir
    crew.serve._program[crew.serve._program.index("--data-dir") + 1] = str(crew.data_dir)
    try:
        await asyncio.to_thread(crew.serve.start)
        crew.add_agents(4)
        await crew.until_online()
        crew.add_clients(1, seed=SEED, tasks=3_000, batch=300)
        for part in range(1, 3):
            for _ in range(4):
                crew.clients[0].ask()
            await crew.until("there is work", lambda part=part: is_stored(crew, 1_200 * part - 900), 60)
            before = complaints(crew)
            ballast = fill(small_disk)
            await crew.until("serve complains", lambda before=before: is_more(crew, before), 60)
            await asyncio.sleep(FULL_SECONDS)
            ballast.unlink()
            await crew.ask("select 1")
        await all_over(crew)
        connection = await asyncpg.connect(**observed(crew.data_dir))
        found = await gather(connection, crew.journals)
        await connection.close()
    finally:
        await crew.close()

    assert complaints(crew) >= 2
    assert {name: faults[:5] for name, faults in check(found).items() if faults} == {}


async def is_stored(crew: Crew, number: int) -> bool:
    return bool(await crew.ask_one("select count(*) >= $1 from task_distributions", number))


def complaints(crew: Crew) -> int:
    """How often serve or a client had no answer. PostgreSQL's own log is on the full disk."""
    said = (crew.folder / "serve.log").read_text(errors="replace").count("No space left")
    return said + sum(entry["what"] == "unanswered" for entry in read(crew.clients[0].journal))


async def is_more(crew: Crew, before: int) -> bool:
    return complaints(crew) > before
