"""The fleet of the examples as processes: started together, watched, and ended together.

Each agent is a script of its own in a session of its own, so that Ctrl-C reaches it only
through us. The guardian sees to it that none is left when this process is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import agentorch_cli
from agentorch_cli.agents.guardian import guardian
from agentorch_cli.core.model import AgentSpec
from agentorch_cli.errors import NotFound, OrchestratorError

SCRIPTS: Final[Mapping[str, tuple[str, ...]]] = {
    "counter": ("counter.py",),
    "extractor": ("extractor.py",),
    "summariser": ("summariser.py",),
    "reporter": ("reporter.py",),
    "checker-nearest": ("checker.py", "nearest"),
    "checker-numbers": ("checker.py", "numbers"),
    "checker-weigher": ("checker.py", "weigher"),
    "reader-modern": ("reader.py", "modern"),
    "reader-old": ("reader.py", "old"),
    "estimator": ("estimator.py",),
    "optimiser": ("optimiser.py",),
}
"""The agents that connect by themselves, and the arguments that start them."""

END_SECONDS = 3.0
"""From SIGTERM to SIGKILL; an agent without work leaves at once."""


def examples_folder() -> Path:
    """Where the examples are: inside an installed package, or beside it in a checkout. Raises NotFound."""
    package = Path(agentorch_cli.__file__).parent
    for folder in (package / "examples", package.parent / "examples"):
        if (folder / "tasks").is_dir():
            return folder
    raise NotFound(
        f"the examples are neither in {package} nor beside it", hint="Install agentorch-cli again."
    )


def served_agent(folder: Path) -> AgentSpec:
    """The agent that `serve` runs itself."""
    command = shlex.join(["sh", str(folder / "agents" / "inventory.sh")])
    return AgentSpec(agent_id="stocktaker", type="shell", capabilities=("inventory",), exec=command)


class Fleet:
    """The processes of the agents."""

    def __init__(self, processes: Mapping[str, asyncio.subprocess.Process], log: Path) -> None:
        self._processes = processes
        self._log = log

    def check(self) -> None:
        """Raises OrchestratorError if an agent has ended: it should run until it is told to stop."""
        for agent_id, process in self._processes.items():
            if process.returncode is not None:
                said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                why = said[-1] if said else "it said nothing"
                raise OrchestratorError(
                    f"the agent {agent_id} ended with exit status {process.returncode}: {why}"
                )


@contextlib.asynccontextmanager
async def run_fleet(folder: Path, url: str, log: Path) -> AsyncIterator[Fleet]:
    """Start the agents of the examples; they connect to `url`, and write what goes wrong into `log`."""
    processes: dict[str, asyncio.subprocess.Process] = {}
    guardian.prepare()
    try:
        with log.open("ab") as stderr:
            for agent_id, (script, *arguments) in SCRIPTS.items():
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    str(folder / "agents" / script),
                    *arguments,
                    "--url",
                    url,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=stderr,
                    start_new_session=True,
                )
                guardian.hold(process.pid)
                processes[agent_id] = process
        yield Fleet(processes, log)
    finally:
        await _end(list(processes.values()))


async def _end(processes: list[asyncio.subprocess.Process]) -> None:
    for process in processes:
        _signal(process, signal.SIGTERM)
    ends = [asyncio.ensure_future(process.wait()) for process in processes]
    try:
        if ends:
            await asyncio.wait(ends, timeout=END_SECONDS)
    finally:
        for process in processes:
            _signal(process, signal.SIGKILL)
            guardian.release(process.pid)
        await asyncio.gather(*ends)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
