"""The program as a process: signals, pipes, terminals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest

STUB = str(Path(__file__).with_name("stub_program.py"))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "PYTHONPATH") if key in os.environ}
    return {**kept, "HOME": str(tmp_path), "AGENTORCH_DATA_DIR": str(tmp_path / "data"), "LC_ALL": "C.UTF-8"}


def start(environment: dict[str, str], *arguments: str, **rest: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, STUB, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **rest,
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_command_after_its_clean_up(
    environment: dict[str, str], number: int, code: int
) -> None:
    process = start(environment, "task", "show", "slow")
    assert process.stderr is not None
    assert process.stderr.readline() == "asked\n"

    process.send_signal(number)

    _, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert err == "cleaned up\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_serve_ends_gracefully_at_the_first_signal_and_at_once_at_the_second(
    environment: dict[str, str], number: int, code: int
) -> None:
    graceful = start(environment, "serve", "--json")
    slow = start(environment, "serve", "--port", "7", "-o", "jsonl")
    for process in (graceful, slow):
        assert process.stdout is not None
        ready = "".join(process.stdout.readline() for _ in range(6 if process is graceful else 1))
        assert json.loads(ready)["url"] == "ws://127.0.0.1:1/agents"

    graceful.send_signal(number)
    slow.send_signal(number)
    assert slow.stderr is not None
    assert "Once more stops at once" in slow.stderr.readline()
    slow.send_signal(number)

    graceful.communicate(timeout=10)
    slow.communicate(timeout=10)
    assert (graceful.returncode, slow.returncode) == (0, code)


def test_a_reader_that_has_seen_enough_is_no_failure(environment: dict[str, str]) -> None:
    with start(environment, "task", "list", "--limit", "99999") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("TASK\t")

        process.stdout.close()

        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_an_ascii_terminal_sees_ascii(environment: dict[str, str]) -> None:
    process = start({**environment, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}, "status")

    out, err = process.communicate(timeout=10)

    assert (process.returncode, err) == (0, "")
    assert out.isascii()


def spawn(environment: dict[str, str], *arguments: str, **rest: Any) -> pexpect.spawn:
    return pexpect.spawn(
        sys.executable, [STUB, *arguments], env=environment, encoding="utf-8", timeout=10, **rest
    )


@pytest.mark.parametrize("ending", ["q", "\x03"])
def test_watching_ends_by_key_and_leaves_the_terminal_as_it_was(
    environment: dict[str, str], ending: str
) -> None:
    child = spawn({**environment, "TERM": "xterm-256color"}, "status", "--watch", dimensions=(24, 80))
    before = termios.tcgetattr(child.child_fd)
    child.expect("q quits")
    assert termios.tcgetattr(child.child_fd)[3] & termios.ICANON == 0

    child.send(ending)

    child.expect(pexpect.EOF)
    assert "\x1b[?1049l" in child.before, "the screen is given back"
    assert "\x1b[?25h" in child.before, "the cursor is shown again"
    assert termios.tcgetattr(child.child_fd) == before
    child.close()
    assert child.exitstatus == (0 if ending == "q" else 130)


def test_watching_draws_at_most_four_frames_a_second(environment: dict[str, str]) -> None:
    child = spawn({**environment, "TERM": "xterm"}, "status", "--watch", dimensions=(24, 80))
    child.expect("q quits")
    start_time, frames = time.monotonic(), 0
    while time.monotonic() - start_time < 1.0:
        child.expect("q quits")
        frames += 1
    child.send("q")
    child.expect(pexpect.EOF)
    child.close()

    assert 1 <= frames <= 5


@pytest.mark.parametrize("term", ["dumb", "xterm"])
@pytest.mark.parametrize("size", [(24, 80), (3, 20)])
def test_small_and_dumb_terminals_do_not_crash(
    environment: dict[str, str], term: str, size: tuple[int, int]
) -> None:
    child = spawn({**environment, "TERM": term}, "task", "show", "x", dimensions=size)

    child.expect(pexpect.EOF)

    child.close()
    assert child.exitstatus == 0
    assert "Traceback" not in child.before


def test_watching_on_a_pipe_is_a_line_of_json_for_each_change(environment: dict[str, str]) -> None:
    process = start(environment, "status", "--watch")
    assert process.stdout is not None

    first = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=10)

    assert first["task_counts"]["pending"] == 12
    assert rest.count("\n") <= 20
    assert process.returncode == 130
