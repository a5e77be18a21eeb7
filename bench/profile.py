"""Where the time of a scenario goes: samples of `serve` and of PostgreSQL, and the costly statements.

* py-spy, where it is installed, samples the Python of each node; otherwise perf, where it is allowed,
  samples the native code of each node. perf also samples the server processes of an embedded PostgreSQL.
* Statements come from pg_stat_statements where the server has loaded it. The embedded server does not have
  that extension: there every statement is written to its log with its time, and the log is added up.
* Rows changed, and how many changes were HOT, come from pg_stat_user_tables.

A profile costs something itself: rates that were measured under it are lower.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from agentorch_cli.store.queries import statements
from bench.fleet.engine import HOT_TABLES, Engine

TOP = 12
RATE = 200
"""Samples a second."""

LOGGED = re.compile(r"duration: ([\d.]+) ms  (?:(?:parse|bind|(execute)) [^:]*|(statement)): ")


@dataclass
class Profile:
    """What was found about one engine."""

    functions: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    """By process: functions with their own share of its samples, the largest first."""
    statements: list[dict[str, Any]] = field(default_factory=list)
    statements_from: str = ""
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        said = list(self.remarks)
        for process, functions in self.functions.items():
            said += [f"{process}, own share of samples"]
            said += [f"  {share:5.1%}  {name}" for name, share in functions]
        if self.statements:
            said.append(f"statements, from {self.statements_from}")
            said.append(f"  {'ms in all':>10}{'calls':>8}{'ms each':>9}  statement")
            for one in self.statements:
                each = one["total_ms"] / max(1, one["calls"])
                said.append(f"  {one['total_ms']:>10.1f}{one['calls']:>8}{each:>9.3f}  {one['name']}")
        for table, counts in self.tables.items():
            hot = counts["hot_updates"] / counts["updates"] if counts["updates"] else 0.0
            said.append(
                f"{table}: {counts['live']:,} live and {counts['dead']:,} dead rows,"
                f" {counts['updates']:,} updates, of them {hot:.0%} HOT"
            )
        return said


class Profiler:
    """The observer of the runner; keeps the last profile, and raw samples in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scenario = ""
        self.found: list[Profile] = []
        self._samplers: list[tuple[str, str, Path, subprocess.Popen[bytes]]] = []
        self._has_statistics = False
        self._log_from = 0

    async def begin(self, engine: Engine) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        await self._begin_statements(engine)
        self._begin_samples(engine)

    async def end(self, engine: Engine) -> None:
        profile = Profile()
        await asyncio.to_thread(self._end_samples, profile)
        await self._end_statements(engine, profile)
        profile.tables = {
            name: counts for name, counts in (await engine.tables()).items() if name in HOT_TABLES
        }
        self.found.append(profile)

    # --- samples ----------------------------------------------------------------------------

    def _begin_samples(self, engine: Engine) -> None:
        self._samplers = []
        nodes = {name: pid for name, pid in engine.pids().items() if name.startswith("serve")}
        for name, pid in nodes.items():
            if spy := _py_spy():
                self._sample(name, "py-spy", [spy, "record", "--pid", str(pid), "--rate", str(RATE)])
            elif shutil.which("perf"):
                self._sample(name, "perf", ["perf", "record", "-F", str(RATE), "-p", str(pid)])
        postmaster = None if engine.database_url else engine.nodes[0].postmaster_pid()
        if postmaster is not None and shutil.which("perf"):
            pids = [postmaster, *(one.pid for one in psutil.Process(postmaster).children())]
            # What is started later is a child of the postmaster, and perf follows those.
            self._sample(
                "postgres", "perf", ["perf", "record", "-F", str(RATE), "-p", ",".join(map(str, pids))]
            )

    def _sample(self, name: str, kind: str, command: list[str]) -> None:
        path = self.folder / f"{self.scenario}.{len(self.found)}.{name}.{kind}"
        path.unlink(missing_ok=True)
        if kind == "py-spy":
            command = [
                *command,
                "--format",
                "raw",
                "--output",
                str(path),
                "--duration",
                "100000",
                "--nonblocking",
            ]
        else:
            command = [*command, "--output", str(path)]
        log = path.with_name(path.name + ".log").open("wb")
        with log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._samplers.append((name, kind, path, process))

    def _end_samples(self, profile: Profile) -> None:
        if not self._samplers:
            profile.remarks.append("no samples: neither py-spy nor perf is installed")
        for name, kind, path, process in self._samplers:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
            process.wait()
            top = _of_py_spy(path) if kind == "py-spy" else _of_perf(path)
            if top:
                profile.functions[f"{name} ({kind})"] = top
            else:
                log = path.with_name(path.name + ".log").read_text(errors="replace").strip().splitlines()
                profile.remarks.append(f"no samples of {name}: {kind} said {log[-1] if log else 'nothing'}")

    # --- statements -------------------------------------------------------------------------

    async def _begin_statements(self, engine: Engine) -> None:
        self._has_statistics = await _load_statistics(engine.db)
        if self._has_statistics:
            await engine.db.execute("select pg_stat_statements_reset()")
        elif not engine.database_url:
            for setting in ("log_min_duration_statement = 0", "log_parameter_max_length = 0"):
                await engine.db.execute(f"alter system set {setting}")
            await engine.db.execute("select pg_reload_conf()")
            self._log_from = _log_of(engine).stat().st_size

    async def _end_statements(self, engine: Engine, profile: Profile) -> None:
        if self._has_statistics:
            rows = await engine.db.fetch(
                "select query, calls, total_exec_time + total_plan_time as total_ms from pg_stat_statements"
                " where dbid = (select oid from pg_database where datname = current_database())"
                " order by total_ms desc limit $1",
                TOP,
            )
            profile.statements = [
                {
                    "name": _name(row["query"]),
                    "calls": row["calls"],
                    "total_ms": round(row["total_ms"], 2),
                }
                for row in rows
            ]
            profile.statements_from = "pg_stat_statements"
        elif engine.database_url:
            profile.remarks.append("no statements: this server has not loaded pg_stat_statements")
        else:
            with _log_of(engine).open(errors="replace") as log:
                log.seek(self._log_from)
                profile.statements = added_up(log.read())
            profile.statements_from = "the server's log"


async def _load_statistics(db: asyncpg.Pool) -> bool:
    """Whether the server counts statements; it must have loaded the library when it started."""
    try:
        if "pg_stat_statements" not in await db.fetchval("show shared_preload_libraries"):
            return False
        await db.execute("create extension if not exists pg_stat_statements")
    except asyncpg.PostgresError:
        return False
    return True


def added_up(log: str) -> list[dict[str, Any]]:
    """Calls and milliseconds by statement, from lines that log_min_duration_statement wrote."""
    calls: Counter[str] = Counter()
    total: defaultdict[str, float] = defaultdict(float)
    for entry in re.split(r"\n(?!\t)", log):
        found = LOGGED.search(entry)
        if found is None:
            continue
        name = _name(entry[found.end() :])
        total[name] += float(found[1])
        calls[name] += bool(found[2] or found[3])
    rows = [{"name": name, "calls": calls[name], "total_ms": round(ms, 2)} for name, ms in total.items()]
    return sorted(rows, key=lambda one: -float(str(one["total_ms"])))[:TOP]


def _name(text: str) -> str:
    """What the program calls a statement; the beginning of its text if it is not the program's."""
    by_text, by_shape = _names()
    return by_text.get(_plain(text)) or by_shape.get(_shape(text)) or _plain(text)[:80]


@lru_cache
def _names() -> tuple[dict[str, str], dict[str, str]]:
    """The program's own statements, by their text and by their shape."""
    own = statements()
    return {_plain(text): name for name, text in own.items()}, {
        _shape(text): name for name, text in own.items()
    }


def _plain(text: str) -> str:
    """A statement on one line, without comments."""
    text = re.sub(r"--[^\n]*", " ", text)
    return re.sub(r"\s+", " ", text).strip().rstrip(";").strip()


def _shape(text: str) -> str:
    """The same with its constants left out, as pg_stat_statements leaves them out."""
    return re.sub(r"'(?:[^']|'')*'|\$\d+|\b\d+(?:\.\d+)?\b|\b(?:true|false|null)\b", "$", _plain(text))


def _log_of(engine: Engine) -> Path:
    return engine.data_dir / "postgres.log"


# --- what the samplers wrote --------------------------------------------------------------------


def _py_spy() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def _of_py_spy(path: Path) -> list[tuple[str, float]]:
    """Functions with their own share; each line is a stack, outermost first, and its number."""
    own: Counter[str] = Counter()
    with contextlib.suppress(OSError):
        for row in path.read_text().splitlines():
            stack, _, number = row.rpartition(" ")
            own[stack.rpartition(";")[2]] += int(number)
    return _top(own)


def _of_perf(path: Path) -> list[tuple[str, float]]:
    """Symbols with their own share."""
    command = [
        "perf",
        "report",
        "--stdio",
        "--no-children",
        "-g",
        "none",
        "-i",
        str(path),
        "-F",
        "sample,dso,symbol",
    ]
    report = subprocess.run(command, capture_output=True, text=True, check=False)
    own: Counter[str] = Counter()
    for row in report.stdout.splitlines():
        found = re.match(r"\s*(\d+)\s+(\S+)\s+\[[.k]\]\s+(.+)", row)
        if found:
            own[f"{found[3].strip()} ({found[2]})"] += int(found[1])
    return _top(own)


def _top(own: Counter[str]) -> list[tuple[str, float]]:
    whole = sum(own.values())
    return [(name, number / whole) for name, number in own.most_common(TOP)]
