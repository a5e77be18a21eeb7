"""Agents with a workload of their own as processes; the rest is shared with `agentorch chaos`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from agentorch_cli.chaos.processes import PROGRAM, Serve, clean_environment, new_data_dir, remove

__all__ = ["PROGRAM", "AgentProcess", "Serve", "new_data_dir", "remove"]


class AgentProcess:
    """One agent that does what tasks say: `bench.fleet.timed_agent`."""

    def __init__(
        self,
        url: str,
        agent_id: str,
        *,
        slots: int = 1,
        prefetch: int = 0,
        journal: Path | None = None,
        log: Path | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.slots = slots
        self.journal = journal
        self._command = [sys.executable, "-m", "bench.fleet.timed_agent", url, agent_id]
        self._command += ["--slots", str(slots), "--prefetch", str(prefetch)]
        self._command += ["--journal", str(journal)] if journal else []
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") if self._log else nullcontext(None) as log:
            self._process = subprocess.Popen(
                self._command,
                stderr=log,
                env=clean_environment(),
                cwd=Path(__file__).parents[2],
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """SIGCONT, in case it was stopped, then SIGTERM, then SIGKILL."""
        if not self.is_alive:
            return
        assert self._process is not None
        os.kill(self.pid, signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self.kill()
