"""How long `--help` takes, beside an empty Typer application of two commands.

    .venv/bin/python bench/startup.py [--rounds N] [--limit RATIO]

The programs run in turn, so that a busy machine slows all of them alike; medians of
wall-clock seconds are printed, with their ratio to the empty application. A second empty
application, without Rich, is what the same would take with plain help pages. The exit
code is 1 if a page takes longer than the limit (1.5).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EMPTY = """\
import typer

app = typer.Typer({options})


@app.command()
def first() -> None:
    "The first."


@app.command()
def second() -> None:
    "The second."


app()
"""

PAGES = ("--help", "task --help", "task submit --help", "agent run --help", "serve --help", "--version")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--limit", type=float, default=1.5, help="times the empty application")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = measure(programs(Path(folder)), arguments.rounds)
    base = statistics.median(times["empty Typer application"])
    worst = 0.0
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:<42} {median * 1000:7.1f} ms   {median / base:5.2f} x")
        worst = max(worst, median / base if name.startswith("agentorch") else 0.0)
    verdict = "within" if worst <= arguments.limit else "above"
    print(f"slowest page: {worst:.2f} x the empty application, {verdict} the limit of {arguments.limit:g} x")
    return 0 if worst <= arguments.limit else 1


def programs(folder: Path) -> dict[str, list[str]]:
    """The command lines by name; the applications to compare with are written to the folder."""
    (folder / "empty.py").write_text(EMPTY.format(options=""))
    (folder / "plain.py").write_text(EMPTY.format(options="rich_markup_mode=None"))
    found = {
        "empty Typer application": [sys.executable, str(folder / "empty.py"), "--help"],
        "empty Typer application, without Rich": [sys.executable, str(folder / "plain.py"), "--help"],
    }
    for page in PAGES:
        found[f"agentorch {page}"] = [sys.executable, "-m", "agentorch_cli", *page.split()]
    return found


def measure(found: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each program in each round; a first round warms the caches and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 1):
        for name, command in found.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if number:
                times[name].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    sys.exit(main())
