"""Measure the program: named scenarios, medians and spread, ratios, profiles, comparison.

python -m bench                                  the default scenarios
python -m bench --list
python -m bench --only drain --only latency --repeat 5 --output now.json
python -m bench --only soak --minutes 10
python -m bench --only finished --finished 1000000
python -m bench --only drain --profile
python -m bench --compare before.json now.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import uvloop

from bench import peers
from bench.figures import Findings, compared, line, shown, summary
from bench.fleet.engine import SURROUNDINGS
from bench.machine import Noise, describe, until_quiet
from bench.profile import Profiler
from bench.ratios import ratios
from bench.scenarios import Scenario, Sizes, scenarios

FORM = 1
"""Of the JSON document."""


def main() -> int:
    args = _parser().parse_args()
    if args.compare:
        first, second = (json.loads(Path(name).read_text()) for name in args.compare)
        print("\n".join(compared(first, second)))
        return 0
    known = scenarios()
    if args.list:
        for one in known.values():
            print(f"{one.name:<14}{'' if one.is_default else '(only by name) '}{one.about}")
        return 0
    if unknown := [name for name in args.only if name not in known]:
        print(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in args.only] or [
        one for one in known.values() if one.is_default and one.name not in args.skip
    ]
    SURROUNDINGS.server = args.database
    run = Run(chosen, args)
    try:
        uvloop.run(run.all())
    except KeyboardInterrupt:
        print("interrupted: what was measured so far follows", file=sys.stderr)
    document = run.document()
    _show(document)
    if args.output:
        args.output.write_text(json.dumps(document, indent=1, default=str) + "\n")
        print(f"written to {args.output}", file=sys.stderr)
    return 1 if document["failures"] else 0


class Run:
    """All rounds of all chosen scenarios."""

    def __init__(self, chosen: list[Scenario], args: argparse.Namespace) -> None:
        self.chosen = chosen
        self.args = args
        self.sizes = Sizes(**{field.name: _as_size(getattr(args, field.name)) for field in fields(Sizes)})
        self.machine = describe()
        self.began = time.time()
        self.runs: dict[str, list[Findings]] = {one.name: [] for one in chosen}
        self.noise: dict[str, list[float]] = {one.name: [] for one in chosen}
        self.stolen: dict[str, list[float]] = {one.name: [] for one in chosen}
        self.seconds: dict[str, list[float]] = {one.name: [] for one in chosen}
        self.profiles: dict[str, list[str]] = {}
        self.peers: dict[str, Any] = {}
        self.failures: list[str] = []

    async def all(self) -> None:
        """In rounds: a noisy spell meets all of them alike, and ratios are of figures that lie close."""
        repeats = {one.name: self.args.repeat or one.repeat for one in self.chosen}
        for number in range(max(repeats.values())):
            for one in self.chosen:
                if number < repeats[one.name]:
                    await self.measure(one, f"{number + 1} of {repeats[one.name]}")
        if self.args.peers:
            self.peers = await asyncio.to_thread(
                peers.run, self.args.peers, self.args.peer, self.args.peers_python, self.args.repeat or 3
            )

    async def measure(self, one: Scenario, which: str) -> None:
        """One run; a failure is told and does not end the others."""
        if self.args.quiet:
            await asyncio.to_thread(until_quiet, self.args.quiet)
        profiler = Profiler(self.args.profile) if self.args.profile else None
        if profiler is not None:
            profiler.scenario = one.name
        SURROUNDINGS.observer = profiler
        noise, start = Noise(lambda: SURROUNDINGS.postgres_seconds), time.perf_counter()
        try:
            found = await one.run(self.sizes)
        except Exception as error:
            self.failures.append(f"{one.name}, {which}: {type(error).__name__}: {error}")
            print(
                f"{one.name} ({which}) failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True
            )
            return
        finally:
            SURROUNDINGS.observer = None
        self.runs[one.name].append(found)
        self.noise[one.name].append(round(noise.share(), 3))
        self.stolen[one.name].append(round(noise.stolen(), 3))
        self.seconds[one.name].append(round(time.perf_counter() - start, 1))
        if profiler is not None:
            self.profiles[one.name] = [row for profile in profiler.found for row in profile.lines()]
        told = ", ".join(f"{figure.name} {shown(figure.value)} {figure.unit}" for figure in found.figures[:4])
        print(
            f"{one.name} ({which}, {self.seconds[one.name][-1]:.0f} s,"
            f" {_disturbance(self.noise[one.name][-1], self.stolen[one.name][-1])}): {told}",
            file=sys.stderr,
            flush=True,
        )

    def document(self) -> dict[str, Any]:
        """Everything, for a file."""
        done = {
            one.name: {
                "about": one.about,
                "figures": summary(self.runs[one.name]),
                "runs": [
                    {figure.name: figure.value for figure in run.figures} for run in self.runs[one.name]
                ],
                "notes": self.runs[one.name][-1].notes,
                "noise": self.noise[one.name],
                "stolen": self.stolen[one.name],
                "seconds": self.seconds[one.name],
                "profile": self.profiles.get(one.name, []),
            }
            for one in self.chosen
            if self.runs[one.name]
        }
        return {
            "form": FORM,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.began)),
            "machine": self.machine,
            "sizes": {field.name: getattr(self.sizes, field.name) for field in fields(Sizes)},
            "profiled": bool(self.args.profile),
            "scenarios": done,
            "peers": self.peers,
            "ratios": ratios(done, self.peers),
            "failures": self.failures,
        }


def _show(document: dict[str, Any]) -> None:
    """For people: machine, figures, ratios."""
    print(", ".join(f"{name} {value}" for name, value in document["machine"].items()))
    for name, one in document["scenarios"].items():
        print(
            f"\n{name}: {one['about']}; {len(one['runs'])} runs,"
            f" at most {_disturbance(max(one['noise']), max(one['stolen']))}"
        )
        for figure, values in one["figures"].items():
            print(line(figure, values))
        for note in one["notes"]:
            print(f"  {note}")
        for row in one["profile"]:
            print(f"    {row}")
    for name, figures in document["peers"].items():
        print(f"\npeer {name}")
        for figure, values in figures.items():
            print(line(figure, values))
    if document["ratios"]:
        print("\nratios of the same run")
        for name, values in document["ratios"].items():
            print(line(name, values))
    for failure in document["failures"]:
        print(f"FAILED {failure}")


def _disturbance(noise: float, stolen: float) -> str:
    return f"others used {noise:.0%} of the machine, its host kept {stolen:.0%}"


def _as_size(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="the scenarios")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="this scenario; may be said again"
    )
    parser.add_argument(
        "--skip", action="append", default=[], metavar="NAME", help="not this one of the default ones"
    )
    parser.add_argument("--repeat", type=int, help="runs of each scenario, in place of its own number")
    parser.add_argument(
        "--quiet",
        type=float,
        default=0,
        metavar="SECONDS",
        help="wait at most so long before each run for other work on the machine to stop",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write everything there")
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar="FILE.json",
        help="two of those files beside each other; measures nothing",
    )
    parser.add_argument(
        "--profile",
        nargs="?",
        type=Path,
        const=Path("bench-profile"),
        metavar="FOLDER",
        help="sample serve, and add up statements; raw samples go to the folder (bench-profile)",
    )
    parser.add_argument(
        "--database",
        default="",
        metavar="URL",
        help="make databases on this server, in place of an embedded one",
    )
    parser.add_argument(
        "--peers", type=Path, metavar="FOLDER", help="a harness of peers whose run.py writes lines of JSON"
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME",
        help="this peer; may be said again (default: procrastinate, pgqueuer)",
    )
    parser.add_argument(
        "--peers-python",
        default="",
        metavar="PATH",
        help="the Python that has the peers (default: venv/bin/python in their folder, else this one)",
    )
    sizes = parser.add_argument_group("sizes")
    usual = Sizes()
    for field in fields(Sizes):
        value = getattr(usual, field.name)
        many = {"nargs": "+", "type": int} if isinstance(value, tuple) else {"type": type(value)}
        if isinstance(value, Path):
            many = {"type": Path}
        text = {
            "tasks": "no-op tasks of one measurement",
            "samples": "tasks of a latency run",
            "file_tasks": "tasks of the file",
            "graph_tasks": "tasks of the large graph",
            "graph_edges": "its edges",
            "finished": "finished tasks that are stored beforehand",
            "backlog": "tasks of the backlog",
            "idle_agents": "agents with nothing to do",
            "idle_seconds": "how long they are watched",
            "registered": "registered agents",
            "minutes": "of the soak",
            "nodes": "numbers of nodes, and of pools",
            "dags": "a folder of graphs",
        }[field.name]
        shown_value = (
            " ".join(map(str, value))
            if isinstance(value, tuple)
            else os.path.relpath(value)
            if isinstance(value, Path)
            else value
        )
        sizes.add_argument(
            f"--{field.name.replace('_', '-')}", default=value, help=f"{text} ({shown_value})", **many
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
