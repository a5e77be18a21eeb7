"""One town for the tests of a module, and nobody in it when a test begins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from townspeople import Town

from bench.fleet.processes import Serve, new_data_dir, remove


@pytest.fixture(scope="module")
def whole_town() -> Iterator[Town]:
    data_dir = new_data_dir()
    quick = {
        "AGENTORCH_GATEWAY_HEARTBEAT_INTERVAL": "1",
        "AGENTORCH_ENGINE_POLL_INTERVAL": "1",
        "AGENTORCH_ENGINE_LEASE_SECONDS": "2",
        "AGENTORCH_ENGINE_DRAIN_TIMEOUT": "0",
    }
    serve = Serve(data_dir, environment=quick)
    try:
        serve.start()
        town = Town(serve)
        yield town
        town.close()
    finally:
        if serve.is_alive:
            serve.kill()
        remove(Path(data_dir))


@pytest.fixture
def town(whole_town: Town) -> Iterator[Town]:
    yield whole_town
    whole_town.everybody_leaves()


@pytest.fixture
def editor(tmp_path: Path) -> str:
    """An editor that writes the answer in place of a person."""
    script = tmp_path / "editor.py"
    script.write_text(
        "import pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "print('the editor has the terminal; it was given', repr(path.read_text()), flush=True)\n"
        "path.write_text(input('write> '))\n"
    )
    return f"{sys.executable} {script}"
