"""Peers on the same machine in the same run: a harness of theirs, in an environment of its own.

The folder holds a `run.py` that takes `--peers a,b --cases main --reps N --out FILE` and writes a line
of JSON for each figure: `peer`, `case`, and `per_s`, or `p50_ms`, `p95_ms` and `p99_ms`. Nothing of it is
imported here, and nothing of ours is known there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.figures import Findings, summary

USUAL = ("procrastinate", "pgqueuer")
LIMIT_SECONDS = 900.0
"""For one peer."""


def run(folder: Path, names: list[str], python: str, repeat: int) -> dict[str, dict[str, Any]]:
    """By peer: figures as the scenarios have them. A peer that cannot be measured is told and left out."""
    beside = folder / "venv" / "bin" / "python"
    python = python or (str(beside) if beside.exists() else sys.executable)
    found = {}
    for name in names or USUAL:
        with tempfile.TemporaryDirectory(prefix="agentorch-peers-") as place:
            lines = Path(place) / "lines.jsonl"
            command = [python, "-B", str((folder / "run.py").absolute()), "--peers", name, "--cases", "main"]
            command += ["--reps", str(repeat), "--out", str(lines)]
            try:
                subprocess.run(
                    command, check=True, cwd=place, timeout=LIMIT_SECONDS, stdout=subprocess.DEVNULL
                )
            except (OSError, subprocess.SubprocessError) as error:
                print(f"peer {name}: {error}", file=sys.stderr)
            if figures := summary(read(lines)):
                found[name] = figures
            else:
                print(f"peer {name} brought no figures", file=sys.stderr)
    return found


def read(lines: Path) -> list[Findings]:
    """The figures of a file, each line by itself."""
    runs = []
    for text in lines.read_text().splitlines() if lines.exists() else ():
        one, found = json.loads(text), Findings()
        if "per_s" in one:
            found.add(one["case"], one["per_s"], "tasks/s", "more")
        for share in ("p50", "p95", "p99"):
            if f"{share}_ms" in one:
                found.add(f"{one['case']} {share}", one[f"{share}_ms"], "ms", "less")
        runs.append(found)
    return runs
