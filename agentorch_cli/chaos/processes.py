"""`serve`, agents and clients as processes of their own, to be stopped, killed and started again."""

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

START_SECONDS = 60.0
"""A process that has not said by then that it is ready is killed."""

PROGRAM = (sys.executable, "-m", "agentorch_cli")


class Child:
    """A process that may be killed at any moment, and started again."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` comes on top of what this process was given, without settings of the program."""
        self.name = name
        self.log = log
        self.command = list(command)
        self.environment = {**clean_environment(), **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        self.launch()

    def launch(self, *, stdin: int | None = None, stdout: int | None = None) -> None:
        """Start the process; it may take a while to be ready."""
        with self.log.open("ab") if self.log else contextlib.nullcontext(None) as log:
            self.process = subprocess.Popen(
                self.command, stdin=stdin, stdout=stdout, stderr=log, env=self.environment
            )

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and the corpse is taken away."""
        assert self.process is not None
        self.process.kill()
        self.wait(20)

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        assert self.process is not None
        code = self.process.wait(seconds)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return code

    def stop(self) -> None:
        """SIGCONT, in case it was stopped; SIGTERM, twice if need be; then SIGKILL."""
        if not self.is_alive:
            return
        self.send(signal.SIGCONT)
        for _ in range(2):
            self.send(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(3)
                return
        self.kill()


class Serve(Child):
    """One node. `start` again after a kill keeps its port."""

    def __init__(
        self,
        data_dir: Path,
        *,
        name: str = "serve",
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
        options: Sequence[str] = (),
    ) -> None:
        """`program` runs it, `options` stand before `serve` on its command line."""
        super().__init__(name, (), log=data_dir.parent / f"{name}.log", environment=environment)
        self.data_dir = data_dir
        self.url = ""
        self._program = [*program, "--json", "--data-dir", str(data_dir), *options, "serve"]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1].split("/")[0]) if self.url else 0

    def launch(self, *, stdin: int | None = None, stdout: int | None = subprocess.PIPE) -> None:
        """Start the process; it is not ready yet."""
        self.command = [*self._program, "--port", str(self.port)]
        super().launch(stdin=stdin, stdout=stdout)

    def wait_ready(self) -> None:
        """Returns once it takes agents. Raises RuntimeError with its log if it ended."""
        assert self.process is not None and self.process.stdout is not None
        watchdog = threading.Timer(START_SECONDS, self.process.kill)
        watchdog.start()
        said = b""
        try:
            while not said.rstrip().endswith(b"}"):
                line = self.process.stdout.readline()
                if not line:
                    code = self.wait(20)
                    raise RuntimeError(f"serve ended with {code}: {self.said()}")
                said += line
        finally:
            watchdog.cancel()
        self.url = json.loads(said)["url"]

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def said(self) -> str:
        """The end of its log."""
        assert self.log is not None
        return self.log.read_text(errors="replace")[-3000:]

    def metrics(self) -> dict[str, float]:
        """The numbers of its /metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines if line[0] != "#")}

    def postmaster_pid(self) -> int | None:
        """The embedded PostgreSQL of the data directory."""
        return postmaster_pid(self.data_dir)

    def dsn(self) -> dict[str, Any]:
        """Where an observer connects, without the engine's code."""
        return observed(self.data_dir)


def postmaster_pid(data_dir: Path) -> int | None:
    """The process of the embedded PostgreSQL of a data directory, as its files say."""
    try:
        return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return None


def observed(data_dir: Path) -> dict[str, Any]:
    """How to connect to it. Raises OSError or IndexError while it is not there."""
    lines = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
    return {"host": lines[4], "port": int(lines[3]), "user": "postgres", "database": "agentorch"}


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def new_data_dir() -> Path:
    """A data directory inside a folder of its own, which holds logs and journals too."""
    return Path(tempfile.mkdtemp(prefix="agentorch-")) / "data"


def end_postgres(data_dir: Path) -> None:
    """Stop a PostgreSQL that killed processes left behind."""
    pid_file = data_dir / "postgres" / "postmaster.pid"
    with contextlib.suppress(OSError, IndexError, ValueError):
        pid = int(pid_file.read_text().split()[0])
        for child in children_of(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGCONT)
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGQUIT)
        end = time.monotonic() + 10
        while pid_file.exists() and time.monotonic() < end:
            time.sleep(0.02)


def remove(data_dir: Path) -> None:
    """Stop what is left of it and take everything away."""
    end_postgres(data_dir)
    shutil.rmtree(data_dir.parent, ignore_errors=True)


def clean_environment() -> dict[str, str]:
    """What this process was given, without settings of the program under test."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AGENTORCH_") and name not in ("DATABASE_URL", "WEBSOCKET_URL")
    }
