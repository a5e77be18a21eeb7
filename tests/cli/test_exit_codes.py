"""Every exit code, brought about from the command line: one table."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentorch_cli import errors, handlers

HERE = "REFUSED"
"""Stands for an address where nobody listens."""

TABLE = [
    (0, "task list"),
    (0, "task list --status failed --limit 1 -o none"),
    (0, "task list --where name=nobody"),
    (0, "task cancel --where name=nobody"),
    (0, "task cancel --where status=pending --dry-run"),
    (0, "task wait 'task 2'"),
    (0, "task wait 'task 3' --for final"),
    (0, "task wait 'task 3' --for cancelled"),
    (0, "task wait 'task 1' 'task 2' --any"),
    (1, "node list"),
    (2, "task lst"),
    (2, "task list --status faild"),
    (2, "task list --where status="),
    (2, "task list --since yesterday"),
    (2, "task list --sort sice"),
    (2, "task list -o yaml"),
    (2, "status --watch -o csv"),
    (2, "task wait 'task 1' --for ever"),
    (2, "task wait 'task 1' --any --all"),
    (2, "task submit good.toml --timeout 3s"),
    (2, "task submit bad.toml"),
    (2, "task submit ''"),
    (2, "task submit good.toml good.toml"),
    (2, "task cancel"),
    (2, "task cancel 'task 1' --where status=pending"),
    (2, "task cancel --where status=pending"),
    (2, "--config bad.toml task list"),
    (3, "task wait 'task 3'"),
    (3, "task wait 'task 2' 'task 3'"),
    (3, "task wait 'task 2' --for failed"),
    (3, "task wait 'task 3' 'task 4' --any"),
    (3, "task wait 'task 4' --for running"),
    (4, "config init /proc/nowhere.toml"),
    (5, f"task list --server ws://{HERE}"),
    (5, f"--database-url postgresql://x@{HERE}/x task list"),
    (6, "task wait 'task 1' --timeout 0.05"),
    (6, "task wait 'task 1' 'task 5' --any --timeout 0.05"),
    (6, "task wait 'task 1' --for running --timeout 0.05"),
    (7, "task show nowhere"),
    (7, "task wait nowhere"),
    (7, "task cancel nowhere"),
    (7, "consensus show nowhere"),
    (7, "event list --cursor nonsense"),
    (8, "task cancel 'task 2'"),
    (8, "task show task"),
    (9, "task cancel 'task 1' nowhere"),
]


@pytest.mark.parametrize(("code", "line"), TABLE, ids=[f"{code} {line}" for code, line in TABLE])
def test_the_exit_code_says_what_came_of_it(
    code: int, line: str, agentorch_at: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shlex
    import socket

    async def broken(context: Any) -> None:
        raise RuntimeError("nobody expected that")

    monkeypatch.setitem(handlers.HANDLERS, "node.list", broken)
    (tmp_path / "good.toml").write_text('[task]\nname = "good"\n')
    (tmp_path / "bad.toml").write_text("[task]\npriority = 11\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        here = f"127.0.0.1:{taken.getsockname()[1]}"
        done = agentorch_at(*shlex.split(line.replace(HERE, here)))

    assert done.code == code, done.err
    assert "Traceback" not in done.err
    if code not in (0,):
        assert done.err.startswith("error: ") or "\nerror: " in done.err


def test_the_table_has_every_code_that_there_is() -> None:
    kinds = [one for one in vars(errors).values() if isinstance(one, type)]
    known = {one.exit_code for one in kinds if issubclass(one, errors.OrchestratorError)}

    assert {code for code, _ in TABLE} == known | {0}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_so(number: int, code: int, full: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "agentorch_cli", "--database-url", full, "event", "tail", "-f", "-o", "csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == (b"cursor,at,kind,task_id,agent_id,message_id,node_id,data\r\n")
        process.send_signal(number)
        assert process.stderr.read() == b""
    assert process.returncode == code
