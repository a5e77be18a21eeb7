"""Terminals that can little, pipes that end, disks that are full, keys at the wrong moment."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from test_everywhere import CORPUS, write_files

from agentorch_cli.__main__ import run
from bench.fleet.processes import Serve, new_data_dir, remove
from tests.databases import new_database

STUB = str(Path(__file__).with_name("stub_program.py"))
CODES = {0, 2, 3, 4, 5, 6, 7, 8, 9}
"""Every answer but a bug."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    return {**kept, "HOME": str(tmp_path), "AGENTORCH_DATA_DIR": str(tmp_path / "data"), "LC_ALL": "C.UTF-8"}


# --- every command, on the poorest terminal -------------------------------------------------------


class Terminal(io.TextIOWrapper):
    """Letters of ASCII only, and 20 columns; it says that it is a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii", errors="backslashreplace", write_through=True)

    def isatty(self) -> bool:
        return True

    def written(self) -> str:
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode("ascii")


@pytest.fixture
def served(postgres: str, home: Path) -> Iterator[str]:
    """The address of a database with a serve on it, and the files of the corpus."""
    write_files(home)
    url = asyncio.run(new_database(postgres, "terminals"))
    folder = new_data_dir()
    environment = {"DATABASE_URL": url, "AGENTORCH_ENGINE_DRAIN_TIMEOUT": "0", "HOME": str(home)}
    serve = Serve(folder, name="terminals", environment=environment)
    serve.launch()
    serve.wait_ready()
    yield url
    serve.send(signal.SIGTERM)
    serve.wait(20)
    remove(folder)


def test_no_command_crashes_in_ascii_and_twenty_columns(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    decision = "none"
    bad = []
    for line in [*CORPUS, "db status", "db url", "doctor", "status --limit 1", "node list"]:
        words = shlex.split(line.replace("$DECISION", decision))
        out, err = Terminal(), Terminal()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        code = run(["--database-url", served, *words])
        told = out.written() + err.written()
        if code not in CODES or "Traceback" in told or "this is a bug" in told or "\x1b" in told:
            bad.append((line, code, told[-300:]))
        if words[:2] == ["consensus", "open"]:
            decision = _newest_decision(served, monkeypatch)
    assert bad == []


def _newest_decision(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    run(["--database-url", url, "--json", "consensus", "list"])
    return str(json.loads(out.written())[0]["decision_id"])


# --- pipes and full disks -------------------------------------------------------------------------


def _shell(environment: dict[str, str], line: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `ao` is the program."""
    program = f'ao() {{ {shlex.quote(sys.executable)} {shlex.quote(STUB)} "$@"; }}; set -o pipefail; {line}'
    return subprocess.run(
        ["bash", "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )


FULL = (
    "error: the output cannot be written: no space left on device\n"
    "hint: make room there, or write elsewhere\n"
)


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        ("ao task list --limit 99999 | head -1 | cut -f1", 0, "TASK\n", ""),
        ("ao --help | head -1", 0, "  $ agentorch demo\n", ""),
        ("ao task list >&-", 0, "", ""),
        ("ao task list <&- | head -1 | cut -f1", 0, "TASK\n", ""),
        ("ao task list 2>&- | head -1 | cut -f1", 0, "TASK\n", ""),
        ("ao task lst >&- 2>&-", 2, "", ""),
        ("ao task lst 2> /dev/full", 2, "", ""),
        (
            "ao task list > /dev/full",
            5,
            "",
            FULL,
        ),
        (
            "ao --help > /dev/full",
            5,
            "",
            FULL,
        ),
        ("ao task list > /dev/full 2>&1", 5, "", ""),
    ],
)
def test_pipes_that_end_and_disks_that_are_full(
    environment: dict[str, str], line: str, code: int, out: str, err: str
) -> None:
    done = _shell(environment, line)

    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def test_watching_ends_when_nobody_reads_any_more(environment: dict[str, str]) -> None:
    """Without a change there is no further line at which it would notice."""
    done = _shell(environment, "ao status --watch | head -1 | cut -c1-17; echo ${PIPESTATUS[0]}")

    assert done.stdout == '{"schema_version"\n0\n'
    assert done.stderr == ""


# --- Ctrl-C ---------------------------------------------------------------------------------------

LAUNCHER = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("go", flush=True)
sys.argv = [{STUB!r}, *sys.argv[1:]]
sys.path.insert(0, {str(Path(STUB).parent)!r})
import stub_program
from agentorch_cli.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
print("now", flush=True)
main()
"""
"""The program, from a moment on at which a signal is its own affair and not that of the interpreter."""


@pytest.mark.parametrize("line", ["task show slow", "status", "status --watch", "task list --limit 99999"])
def test_ctrl_c_at_any_moment_leaves_the_terminal_as_it_was(environment: dict[str, str], line: str) -> None:
    seed = random.randrange(1 << 30)
    moments = random.Random(seed)
    for _ in range(3):
        child = pexpect.spawn(
            sys.executable,
            ["-c", LAUNCHER, *line.split()],
            env={**environment, "TERM": "xterm-256color"},
            encoding="utf-8",
            timeout=20,
            dimensions=(24, 80),
        )
        before = termios.tcgetattr(child.child_fd)
        child.expect("now")
        time.sleep(moments.uniform(0, 0.6))

        child.send("\x03")

        child.expect(pexpect.EOF)
        child.close()
        shown = str(child.before)
        assert "Traceback" not in shown and "Exception ignored" not in shown, (seed, shown)
        assert child.exitstatus in (0, 130), (seed, child.exitstatus, child.signalstatus, shown)
        assert shown.count("\x1b[?1049h") <= shown.count("\x1b[?1049l"), (seed, shown)
        assert shown.count("\x1b[?25l") <= shown.count("\x1b[?25h"), (seed, shown)
        assert before[3] & termios.ICANON and before[3] & termios.ECHO


def test_a_question_without_a_terminal_is_not_waited_for(environment: dict[str, str], tmp_path: Path) -> None:
    from agentorch_cli.cli.consent import ask_first
    from agentorch_cli.cli.session import Session
    from agentorch_cli.errors import UsageError

    with pytest.raises(UsageError, match="There is no terminal to ask at"):
        ask_first(Session(), "Everything goes.", yes=False)
    ask_first(Session(), "Everything goes.", yes=True)


ASK = """
import sys
from agentorch_cli.cli.consent import ask_first
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import NotAllowed
try:
    ask_first(Session(), "Everything goes.", yes=False, word=sys.argv[1])
except NotAllowed as refusal:
    print("kept" if "--yes" in str(refusal.hint) else "nobody says how")
else:
    print("gone")
"""


@pytest.mark.parametrize(
    ("word", "typed", "outcome"),
    [
        ("y", "y", "gone"),
        ("y", "YES", "gone"),
        ("y", "", "kept"),
        ("replace", "y", "kept"),
        ("replace", "replace", "gone"),
    ],
)
def test_a_question_wants_the_word(environment: dict[str, str], word: str, typed: str, outcome: str) -> None:
    child = pexpect.spawn(sys.executable, ["-c", ASK, word], env=environment, encoding="utf-8", timeout=20)
    child.expect("Everything goes.")
    child.expect(f"Type {word} to go on: ")
    child.sendline(typed)
    child.expect(outcome)
    child.expect(pexpect.EOF)
    child.close()
