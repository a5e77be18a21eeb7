"""The demonstration runs from nothing to results, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentorch_cli.cli.demo import _data_dir, _see_out
from agentorch_cli.cli.demo_page import in_brief
from agentorch_cli.cli.fleet import SCRIPTS, examples_folder
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.store.embedded import EmbeddedServer

DOCUMENTS = examples_folder() / "documents"
CLAIMS = DOCUMENTS / "claims.json"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home and a folder for temporary files of its own, so that what is left can be seen."""
    (tmp_path / "t").mkdir(mode=0o755)
    keep = {
        name: value for name, value in os.environ.items() if not name.startswith(("AGENTORCH_", "DATABASE_"))
    }
    return keep | {"TMPDIR": str(tmp_path / "t"), "HOME": str(tmp_path)}


@contextmanager
def running_demo(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demonstration as a process of its own; killed if a test leaves it running."""
    process = subprocess.Popen(
        [sys.executable, "-m", "agentorch_cli", "demo", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def processes_of(folder: str) -> list[str]:
    """Command lines and environments in which the folder is named: agents, PostgreSQL, shells."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if folder.encode() in said and process.name != str(os.getpid()):
            found.append(f"{process.name} {(process / 'cmdline').read_bytes()[:200]!r}")
    return found


def test_the_demo_does_every_task_and_leaves_nothing(environment: dict[str, str]) -> None:
    with running_demo(environment, "--json") as process:
        stdout, stderr = process.communicate(timeout=120)
    tasks: dict[str, Any] = {task["name"]: task for task in json.loads(stdout)}

    assert (process.returncode, {task["status"] for task in tasks.values()}) == (0, {"completed"}), stderr
    assert len(tasks) == 43
    assert {agent for task in tasks.values() for agent in task["assigned_agents"]} <= {*SCRIPTS, "stocktaker"}
    assert tasks["report"]["result"]["documents"] == 7
    assert tasks["inventory"]["result"]["words"] == sum(
        len(path.read_text().split()) for path in DOCUMENTS.glob("*.md")
    )
    assert tasks["transcribe the survey of 1934"]["attempts_made"] == 2
    assert tasks["transcribe the survey of 1934"]["result"]["encoding"] == "iso-8859-1"
    assert verdicts_of(tasks) == {claim["id"]: claim["truth"] for claim in json.loads(CLAIMS.read_text())}
    assert "43 tasks are submitted" in stderr
    assert "completed  report  by reporter" in stderr
    assert processes_of(environment["TMPDIR"]) == []
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def verdicts_of(tasks: dict[str, Any]) -> dict[str, str]:
    """What the checkers agreed on, by claim."""
    return {
        name.removeprefix("claim "): task["result"]["verdict"]
        for name, task in tasks.items()
        if name.startswith("claim ")
    }


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_stopped_leaves_nothing(
    environment: dict[str, str], number: signal.Signals, status: int
) -> None:
    with running_demo(environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "have connected" in line:
                break
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == status, stderr
    assert "Traceback" not in stderr
    assert processes_of(environment["TMPDIR"]) == []
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


async def test_agents_die_with_a_demo_that_is_killed(environment: dict[str, str]) -> None:
    kept = Path(environment["TMPDIR"]) / "kept"
    with running_demo(environment, "--data-dir", str(kept)) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "have connected" in line:
                break
        agents = agents_of(environment["TMPDIR"])
        process.kill()

    until_gone(lambda: agents_of(environment["TMPDIR"]))

    assert len(agents) == len(SCRIPTS)
    server = EmbeddedServer(kept)
    await server.start()
    await server.release()  # its last user stops it
    until_gone(lambda: processes_of(environment["TMPDIR"]))  # whoever ended the agents ends after them


def until_gone(left: Callable[[], list[str]]) -> None:
    """On a busy machine that takes a while."""
    deadline = time.monotonic() + 60
    while there := left():
        assert time.monotonic() < deadline, there
        time.sleep(0.02)


def test_the_demo_keeps_out_of_a_folder_that_is_served(environment: dict[str, str]) -> None:
    """Its agents would take the work of the fleet there, and cut off those of the same ids."""
    served = str(Path(environment["TMPDIR"]) / "served")
    words = [sys.executable, "-m", "agentorch_cli", "serve", "--data-dir", served, "--port", "0"]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as serve:
        try:
            assert serve.stderr is not None
            for line in serve.stderr:
                if "ws://" in line:
                    break
            with running_demo(environment, "--data-dir", served) as process:
                _, stderr = process.communicate(timeout=60)
            listed = subprocess.run(
                [*words[:3], "agent", "list", "--json", "--data-dir", served],
                env=environment,
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        finally:
            serve.terminate()
            serve.communicate(timeout=60)

    assert (process.returncode, json.loads(listed)) == (8, [])
    assert f"serve is running on {served}" in " ".join(stderr.split()), stderr
    assert f"(pid {serve.pid})" in stderr


def test_the_demo_keeps_out_of_a_folder_with_a_command_of_the_same_id(environment: dict[str, str]) -> None:
    """`serve` would run that command, and each of the two would cut the other off halfway."""
    kept = str(Path(environment["TMPDIR"]) / "kept")

    def agentorch(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "agentorch_cli", *words, "--data-dir", kept]
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)

    assert agentorch("agent", "register", "counter", "-c", "count", "--exec", "wc -w").returncode == 0

    demo = agentorch("demo")

    assert demo.returncode == 8, demo.stderr
    assert "has an agent counter with a command" in " ".join(demo.stderr.split())
    assert json.loads(agentorch("task", "list", "--json").stdout) == []


def agents_of(folder: str) -> list[str]:
    """Those that connect by themselves: what `serve` runs is a process for as long as each of its tasks."""
    return [
        process
        for process in processes_of(folder)
        if "examples/agents" in process and "inventory.sh" not in process
    ]


def test_a_result_is_told_in_brief() -> None:
    result = {"kind": "facts", "dates": [1, 2], "names": {"a": 1}, "verdict": "supported", "document": "x.md"}

    assert in_brief(result) == "2 dates, 1 names, verdict supported"


def test_what_is_removed_is_removed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    remove = shutil.rmtree

    def interrupted(folder: Any, **rest: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        remove(folder, **rest)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), _data_dir(Session()):
        assert len(list(tmp_path.iterdir())) == 1

    assert list(tmp_path.iterdir()) == []


async def test_an_engine_that_stops_is_not_cut_off() -> None:
    stop_now = asyncio.Event()
    is_whole = False

    async def stop_slowly() -> None:
        nonlocal is_whole
        await stop_now.wait()
        await asyncio.sleep(0.05)
        is_whole = True

    serving = asyncio.create_task(stop_slowly())
    seeing_out = asyncio.create_task(_see_out(serving, stop_now))
    await asyncio.sleep(0)
    seeing_out.cancel()
    await stop_now.wait()
    seeing_out.cancel()
    with pytest.raises(asyncio.CancelledError):
        await seeing_out

    assert is_whole and serving.done()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("is_long", [True, False])
def test_what_fails_because_it_was_interrupted_was_interrupted(number: signal.Signals, is_long: bool) -> None:
    async def work() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise DatabaseUnreachable("cut off") from None

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as caught:
        Session().run(work(), is_long=is_long)

    assert getattr(caught.value, "code", 130) == 128 + number
    assert signal.getsignal(number) is before, "the next Ctrl-C would be lost"
