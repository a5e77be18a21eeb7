"""`agentorch serve` and agents as processes of their own, to be measured, stopped and killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROGRAM = (sys.executable, "-m", "agentorch_cli")

START_SECONDS = 60.0
"""A process that has not said by then that it is ready is killed."""


class Serve:
    """One node. `start` again after a kill keeps its port."""

    def __init__(
        self, data_dir: Path, *, name: str = "serve", environment: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{name}.log"
        self.url = ""
        self._environment = {**_clean_environment(), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1].split("/")[0]) if self.url else 0

    def launch(self) -> None:
        """Start the process; it is not ready yet."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*PROGRAM, "--json", "--data-dir", str(self.data_dir), "serve", "--port", str(self.port)],
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )

    def wait_ready(self) -> None:
        """Returns once it takes agents. Raises RuntimeError with its log if it ended."""
        assert self._process is not None and self._process.stdout is not None
        watchdog = threading.Timer(START_SECONDS, self._process.kill)
        watchdog.start()
        said = b""
        try:
            while not said.rstrip().endswith(b"}"):
                line = self._process.stdout.readline()
                if not line:
                    code = self._process.wait()
                    raise RuntimeError(f"serve ended with {code}: {self.log.read_text()[-3000:]}")
                said += line
        finally:
            watchdog.cancel()
        self.url = json.loads(said)["url"]

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and the corpse is taken away."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        code = self._process.wait(seconds)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """SIGTERM, twice if need be, then SIGKILL."""
        if not self.is_alive:
            return
        for _ in range(2):
            self.send(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(2)
                return
        self.kill()

    def metrics(self) -> dict[str, float]:
        """The numbers of its /metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines if line[0] != "#")}

    def postmaster_pid(self) -> int | None:
        """The embedded PostgreSQL of the data directory."""
        try:
            return int((self.data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
        except (OSError, IndexError, ValueError):
            return None

    def dsn(self) -> dict[str, Any]:
        """Where an observer connects, without the engine's code."""
        lines = (self.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
        return {"host": lines[4], "port": int(lines[3]), "user": "postgres", "database": "agentorch"}


class AgentProcess:
    """One agent that does what tasks say: `bench.fleet.timed_agent`."""

    def __init__(
        self, url: str, agent_id: str, *, slots: int = 1, journal: Path | None = None, log: Path | None = None
    ) -> None:
        self.agent_id = agent_id
        self.slots = slots
        self.journal = journal
        self._command = [sys.executable, "-m", "bench.fleet.timed_agent", url, agent_id]
        self._command += ["--slots", str(slots), *(["--journal", str(journal)] if journal else [])]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") if self._log else contextlib.nullcontext(None) as log:
            self._process = subprocess.Popen(
                self._command,
                stderr=log,
                env=_clean_environment(),
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


def new_data_dir() -> Path:
    """A data directory inside a folder of its own, which holds logs and journals too."""
    return Path(tempfile.mkdtemp(prefix="agentorch-")) / "data"


def remove(data_dir: Path) -> None:
    """Stop a PostgreSQL that killed processes left behind, and take everything away."""
    pid_file = data_dir / "postgres" / "postmaster.pid"
    with contextlib.suppress(OSError, IndexError, ValueError):
        pid = int(pid_file.read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        end = time.monotonic() + 10
        while pid_file.exists() and time.monotonic() < end:
            time.sleep(0.02)
    shutil.rmtree(data_dir.parent, ignore_errors=True)


def _clean_environment() -> dict[str, str]:
    """What this process was given, without settings of the program under test."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AGENTORCH_") and name not in ("DATABASE_URL", "WEBSOCKET_URL")
    }
