"""From nothing to a finished task of one's own: the three commands, and how long each takes.

    .venv/bin/python bench/first_task.py [--rounds N] [--limit SECONDS]

Each round has an empty home and an empty folder: no database, no settings, nothing that runs. The
median of all rounds is printed with the load of the machine; the exit code is 1 if the three
commands together took longer than the limit (10 s).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = ("init", "up -d --port 0", "task submit tasks/hello.toml --wait")
"""A free port, so that an engine that runs on this machine is not in the way."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=10.0, help="seconds for the three commands together")
    arguments = parser.parse_args()
    times = [once() for _ in range(arguments.rounds)]
    for number, command in enumerate(COMMANDS):
        median = statistics.median(round_[number] for round_ in times)
        print(f"agentorch {command:<42} {median:6.2f} s")
    total = statistics.median(map(sum, times))
    verdict = "within" if total <= arguments.limit else "above"
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"together {total:.2f} s, {verdict} the limit of {arguments.limit:g} s ({load})")
    return 0 if total <= arguments.limit else 1


def once() -> list[float]:
    """Seconds of each command in a place where nothing is yet; nothing is left behind."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AGENTORCH_", "DATABASE_"))
    }
    with tempfile.TemporaryDirectory(prefix="agentorch-first-") as home:
        Path(home).chmod(0o711)
        project = Path(home) / "project"
        project.mkdir()
        environment = kept | {"HOME": home, "PYTHONPATH": str(Path(__file__).parents[1])}
        try:
            return [run(command, project, environment) for command in COMMANDS]
        finally:
            run("down", project, environment)


def run(command: str, folder: Path, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "agentorch_cli", *command.split()],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
