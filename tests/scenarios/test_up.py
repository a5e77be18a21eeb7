"""`agentorch up`, with real processes: they come up, come up again, change, and none is ever left."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema_rs import validator_for

from agentorch_cli.cli.outputs import OUTPUTS, document_name, make_schema
from agentorch_cli.errors import Unreachable
from agentorch_cli.supervision.control import ask, supervisor_pid
from agentorch_cli.supervision.record import last_lines, names_in
from agentorch_cli.views import SCHEMA_VERSION
from agentorch_cli.wiring import Orchestrator
from bench.fleet.processes import new_data_dir, remove

LONG = 60.0
"""Seconds; nothing takes nearly as long."""

GREETER = """
import os, sys
from pathlib import Path

def greet(work):
    print("greeting", work.data["name"], flush=True)
    seen = sorted(name for name in os.environ if "SECRET" in name or "TOKEN" in name)
    return {"greeting": f"Hello, {work.data['name']}!", "cwd": os.getcwd(), "seen": seen}

def crash(work):
    if not Path("crashed " + work.data["who"]).exists():
        Path("crashed " + work.data["who"]).touch()
        os._exit(3)
"""

UNSTEADY = """
import sys
from pathlib import Path

lives = Path("lives")
lives.write_text(lives.read_text() + "x" if lives.exists() else "x")
if len(lives.read_text()) < 4:
    print("not yet \\x1b]0;evil\\x07", flush=True)
    sys.exit("the model is not loaded")

def work(work):
    return len(lives.read_text())
"""

STUBBORN = """
import os, signal, subprocess, sys, time

def work(work):
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    print("begun", flush=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    while True:
        time.sleep(1)
"""


class Told(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Place:
    """A project folder, and the commands that are given in it."""

    def __init__(self, folder: Path, server: str | None, environment: dict[str, str]) -> None:
        self.folder = folder
        self.data_dir = folder / ".agentorch"
        self.environment = environment
        self._server = ["--server", server] if server else []

    def agents(self, text: str, **modules: str) -> None:
        (self.folder / "agents.toml").write_text(text)
        for name, module in modules.items():
            (self.folder / f"{name}.py").write_text(module)

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agentorch_cli", "--data-dir", str(self.data_dir), *self._server, *words,
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def run(self, *words: str) -> Told:
        process = await self.start(*words)
        out, err = await asyncio.wait_for(process.communicate(), LONG)
        assert process.returncode is not None
        return Told(process.returncode, out.decode(), err.decode())

    async def told(self, *words: str) -> Any:
        """What a command that has to succeed answers."""
        done = await self.run("--json", *words)
        assert done.code == 0, done.err
        told = json.loads(done.out)
        outputs = OUTPUTS.get(words[0]) or OUTPUTS[" ".join(words[:2])]
        schemas = [validator_for(make_schema(document_name(one.kind))) for one in outputs]
        for one in told if isinstance(told, list) else [told]:
            assert any(schema.is_valid(one) for schema in schemas), one
            assert one.pop("schema_version") == SCHEMA_VERSION
        return told

    async def processes(self) -> dict[str, dict[str, Any]]:
        """What `up --status` asks."""
        try:
            told = await asyncio.to_thread(ask, self.data_dir, {"do": "status"}, LONG)
        except Unreachable:  # it has only just begun
            return {}
        return {row["name"]: row for row in told["processes"]}

    async def logs(self, *names: str) -> list[str]:
        """What `logs` shows."""
        files = names_in(self.data_dir)
        wanted = {name: files[name] for name in files if not names or name in names}
        return [line.line for line in last_lines(wanted, 1000)]

    def kill(self) -> None:
        if pid := supervisor_pid(self.data_dir):
            os.kill(pid, signal.SIGKILL)

    def left(self) -> list[str]:
        """Command lines of what was started in this folder and still runs."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                said = [process.joinpath(name).read_bytes() for name in ("cmdline", "environ")]
                is_dead = process.joinpath("stat").read_text().rpartition(") ")[2].startswith("Z")
            except OSError:
                continue
            mark = str(self.folder).encode()
            if any(mark in one for one in said) and not is_dead and int(process.name) != os.getpid():
                found.append(f"{process.name} {said[0]!r}")
        return found

    async def nobody_is_left(self) -> None:
        await until(lambda: not self.left() or None, lambda: self.left())


async def until(look: Callable[[], Any], why: Callable[[], object] = lambda: "it never came") -> Any:
    """Until the look finds something; it may be awaited."""
    try:
        async with asyncio.timeout(LONG):
            while True:
                found = look()
                found = await found if isinstance(found, Awaitable) else found
                if found:
                    return found
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(why()) from None


@pytest.fixture
def folder() -> Iterator[Path]:
    path = new_data_dir()
    path.mkdir(mode=0o755)
    yield path
    remove(path)


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AGENTORCH_", "DATABASE_"))
    }
    quick = {
        "AGENTORCH_UP_BACKOFF": "50ms",
        "AGENTORCH_UP_STOP_TIMEOUT": "20s",
        "AGENTORCH_ENGINE_DRAIN_TIMEOUT": "0",
    }
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**kept, **quick, "HOME": str(folder), "PYTHONPATH": paths}


@pytest.fixture
async def place(
    folder: Path, environment: dict[str, str], orchestrator: Orchestrator
) -> AsyncIterator[Place]:
    """A fleet for an engine that somebody else runs."""
    place = Place(folder, orchestrator.url.removesuffix("/agents"), environment)
    yield place
    place.kill()
    await place.nobody_is_left()


@pytest.fixture
async def own(folder: Path, environment: dict[str, str]) -> AsyncIterator[Place]:
    """A fleet with an engine and a PostgreSQL of its own."""
    place = Place(folder, None, environment)
    yield place
    place.kill()
    await place.nobody_is_left()


# --- the whole way --------------------------------------------------------------------------------


README = Path(__file__).parents[2] / "README.md"


def told_by_the_readme() -> tuple[list[str], dict[str, str]]:
    """The commands of its first task, and the files that it shows there."""
    section = README.read_text().split("\n## A first task of your own\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```(?:python|toml)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    files = {text.split("\n")[0].strip("# ") if text[0] == "#" else "agents.toml": text for text in blocks}
    return re.findall(r"^\$ agentorch (.*)$", section, re.MULTILINE), files


async def test_the_first_task_of_the_readme_is_three_commands_away(own: Place) -> None:
    commands, files = told_by_the_readme()
    assert commands[:3] == ["init", "up -d", "task submit tasks/hello.toml --wait"]
    assert commands[3:5] == ["up", "task submit task.toml --wait"]

    await own.told("init")
    started = await own.told("up", "-d", "--port", "0")
    (task,) = await own.told(*commands[2].split())

    assert [(row["name"], row["state"]) for row in started] == [
        ("serve", "running"),
        ("greeter-1", "running"),
    ]
    assert (task["status"], task["result"]) == ("completed", {"greeting": "Hello, world!"})
    assert "greeting world" in [one["line"] for one in await own.told("logs", "greeter")]
    assert any("this node leads" in line for line in await own.logs("serve"))

    (own.folder / "count.py").write_text(files["count.py"])
    (own.folder / "task.toml").write_text(files["task.toml"])
    with (own.folder / "agents.toml").open("a") as file:
        file.write("\n" + files["agents.toml"])
    assert (await own.told("up"))["started"] == ["counter-1"]
    (task,) = await own.told(*commands[4].split())
    assert task["result"] == {"words": 6}

    assert [row["name"] for row in await own.told("up", "--status")] == ["serve", "greeter-1", "counter-1"]
    again = await own.told("up")
    more = await own.told("up", "--scale", "greeter=3")
    fewer = await own.told("up", "--scale", "greeter=1")
    assert (again["unchanged"], again["started"], again["stopped"]) == (2, [], [])
    assert (more["unchanged"], more["started"]) == (2, ["greeter-2", "greeter-3"])
    assert {one["name"] for one in fewer["stopped"]} == {"greeter-2", "greeter-3"}
    assert list(await own.processes()) == ["serve", "greeter-1", "counter-1"]

    ended = await own.told("down")
    assert ended == [{"name": name, "how": "stopped"} for name in ("greeter-1", "counter-1", "serve")]
    await own.nobody_is_left()
    assert await own.told("down") == []


async def test_a_killed_supervisor_leaves_nobody(own: Place) -> None:
    await own.run("init")
    started = await own.told("up", "-d", "--port", "0")
    (own.folder / "stray.toml").write_text(
        '[task]\nname = "x"\nrequired_capabilities = ["greet"]\ndata = {name = "x"}\n'
    )
    await own.run("task", "submit", "stray.toml", "--wait")
    pid = supervisor_pid(own.data_dir)
    assert pid and all(row["pid"] for row in started)

    os.kill(pid, signal.SIGKILL)

    await own.nobody_is_left()  # nor PostgreSQL: the engine was asked to end, not killed
    assert supervisor_pid(own.data_dir) is None


async def test_an_engine_of_its_own_may_be_encrypted(own: Place) -> None:
    asked = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=fleet"
    )
    subprocess.run(
        [*asked.split(), "-keyout", "key.pem", "-out", "cert.pem"],
        check=True,
        capture_output=True,
        cwd=own.folder,
    )
    await own.run("init")
    for name in ("cert", "key"):
        own.environment[f"AGENTORCH_GATEWAY_TLS_{name.upper()}"] = str(own.folder / f"{name}.pem")

    rows = await own.told("up", "-d", "--port", "0")
    (first,) = await own.told("task", "submit", "tasks/hello.toml", "--wait")
    os.kill(rows[0]["pid"], signal.SIGKILL)
    await until(lambda: _started_twice(own, "serve"))
    (again,) = await own.told("task", "submit", "tasks/hello.toml", "--wait")

    assert [row["state"] for row in rows] == ["running", "running"]
    assert [task["status"] for task in (first, again)] == ["completed", "completed"]
    assert (await own.processes())["greeter-1"]["starts"] == 1  # it dialled again
    nodes = await own.told("node", "list")
    port = next(node["port"] for node in nodes if node["is_live"])
    with pytest.raises(ConnectionError):  # who does not encrypt is not let in
        await asyncio.to_thread(_ask_plainly, port)
    await own.told("down")


def _ask_plainly(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), LONG) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if not connection.recv(100).startswith(b"HTTP/"):
            raise ConnectionAbortedError


# --- one fleet, an engine elsewhere ----------------------------------------------------------------


async def test_what_crashes_is_started_again_with_growing_waits(place: Place) -> None:
    place.agents('[[agents]]\nid = "a"\ncapabilities = ["a"]\npython = "unsteady:work"\n', unsteady=UNSTEADY)
    place.environment["AGENTORCH_UP_BACKOFF"] = "200ms"

    process = await place.start("up")
    assert process.stderr is not None
    said: list[str] = []
    async with asyncio.timeout(LONG):
        while "is connected" not in (line := (await process.stderr.readline()).decode()):
            assert line, said
            said.append(line)
    rows = await place.processes()
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), LONG)

    waits = [float(wait) for wait in re.findall(r"started again in ([\d.]+) s", "".join(said))]
    assert waits == pytest.approx([0.2, 0.4, 0.8], abs=0.11)
    assert "3 times in a row" in "".join(said) and "the model is not loaded" in "".join(said)
    assert (rows["a-1"]["starts"], rows["a-1"]["state"], process.returncode) == (4, "running", 0)
    lines = await place.logs("a-1")
    assert lines.count("-- ended with exit status 1") == 3
    assert "not yet \\x1b]0;evil\\x07" in lines
    assert "\x1b" not in (place.data_dir / "logs/agents/a-1.log").read_text()


async def test_a_crash_loop_is_shown_with_its_reason(place: Place) -> None:
    place.agents(
        '[[agents]]\nid = "a"\npython = "nothing:work"\n'
        '[[agents]]\nid = "b"\nexec = "true"\nrestart = "never"\n'
    )

    done = await place.run("up", "-d")

    assert done.code == 9, done.err
    assert "1 of 2 processes do not run: a-1" in done.err and "agentorch logs a-1" in done.err
    rows = {line.split("\t")[0]: line for line in done.out.splitlines()}
    assert "cannot be imported" in rows["a-1"] and "running" in rows["b-1"]
    crashing = await until(lambda: _with_state(place, "a-1", "crashing"))
    assert crashing["starts"] >= 3


async def _with_state(place: Place, name: str, state: str) -> Any:
    row = (await place.processes()).get(name)
    return row if row is not None and row["state"] == state else None


async def test_policies_say_whether_it_is_started_again(place: Place, orchestrator: Orchestrator) -> None:
    agent = '[[agents]]\nid = "{0}"\ncapabilities = ["{0}"]\npython = "greeter:crash"\nrestart = "{1}"\n'
    place.agents(agent.format("n", "never") + agent.format("f", "on-failure"), greeter=GREETER)
    await place.told("up", "-d")
    for name in ("n", "f"):
        await orchestrator.submit({"required_capabilities": [name], "retries": 0, "data": {"who": name}})

    failed = await until(lambda: _with_state(place, "n-1", "failed"))

    assert (failed["starts"], failed["exit"]) == (1, "exit status 3")
    await until(lambda: _started_twice(place, "f-1"))


async def _started_twice(place: Place, name: str) -> bool:
    row = (await place.processes())[name]
    return bool(row["starts"] >= 2 and row["state"] == "running")


async def test_a_second_up_applies_the_difference(place: Place) -> None:
    def agent(name: str, more: str = "") -> str:
        return f'[[agents]]\nid = "{name}"\nexec = "cat"\n{more}\n'

    place.agents(agent("same") + agent("other") + agent("gone"))
    await place.told("up", "-d")
    before = await place.processes()

    place.agents(agent("same") + agent("other", "slots = 2") + agent("new", "replicas = 2"))
    reply = await place.told("up")
    after = await place.processes()

    assert reply["started"] == ["new-1", "new-2"] and reply["changed"] == ["other-1"]
    assert reply["stopped"] == [{"name": "gone-1", "how": "stopped"}] and reply["unchanged"] == 1
    assert list(after) == ["same-1", "other-1", "new-1", "new-2"]
    assert after["same-1"]["pid"] == before["same-1"]["pid"]
    assert after["other-1"]["pid"] != before["other-1"]["pid"]
    (place.folder / "b.toml").write_text(agent("b"))
    assert (await place.run("up", "b.toml")).code == 8
    place.agents("[[agents]]\nid = 5\n")
    wrong = await place.run("up")
    assert wrong.code == 2 and "agents.toml:2:1" in wrong.err
    assert list(await place.processes()) == list(after)


async def test_code_that_has_changed_is_loaded_by_a_restart(place: Place, orchestrator: Orchestrator) -> None:
    place.agents(
        '[[agents]]\nid = "a"\ncapabilities = ["a"]\npython = "greeter:greet"\nreplicas = 2\n'
        '[[agents]]\nid = "b"\nexec = "cat"\n',
        greeter=GREETER,
    )
    await place.told("up", "-d")
    before = await place.processes()
    (place.folder / "greeter.py").write_text(GREETER.replace("Hello", "Good morning"))

    same = await place.run("up")
    one = await place.told("up", "--restart", "a-2")
    both = await place.told("up", "--restart", "a")
    handle = await orchestrator.submit({"required_capabilities": ["a"], "data": {"name": "x"}})

    assert "Nothing has changed: 3 processes run. Where code has: agentorch up --restart NAME" in same.err
    assert (one["changed"], one["unchanged"]) == (["a-2"], 2)
    assert (both["changed"], both["unchanged"]) == (["a-1", "a-2"], 1)
    assert (await handle.result(LONG))["greeting"] == "Good morning, x!"
    assert (await place.processes())["b-1"]["pid"] == before["b-1"]["pid"]
    wrong = await place.run("up", "--restart", "aa")
    assert wrong.code == 2 and 'did you mean "a"' in wrong.err


async def test_an_agent_sees_its_folder_and_only_what_it_may(
    place: Place, orchestrator: Orchestrator
) -> None:
    (place.folder / "deep").mkdir()
    place.agents(
        '[[agents]]\nid = "p"\ncapabilities = ["p"]\npython = "greeter:greet"\n'
        'cwd = "deep"\nenv = ["MY_SECRET"]\n'
        '[[agents]]\nid = "e"\ncapabilities = ["e"]\nenv = ["MY_SECRET"]\n'
        'exec = \'cat > /dev/null; echo "[\\"$MY_SECRET\\", \\"$OTHER_SECRET$AGENTORCH_TOKEN\\"]"\'\n'
    )
    (place.folder / "deep" / "greeter.py").write_text(GREETER)
    made = await orchestrator.call("token.create", name="fleet", scopes=["agent:*"])
    place.environment |= {"MY_SECRET": "mine", "OTHER_SECRET": "no", "AGENTORCH_TOKEN": made.token}
    await place.told("up", "-d")

    by_python = await orchestrator.submit({"required_capabilities": ["p"], "data": {"name": "x"}})
    by_command = await orchestrator.submit({"required_capabilities": ["e"]})

    result = await by_python.result(LONG)
    assert (result["cwd"], result["seen"]) == (str(place.folder / "deep"), ["MY_SECRET"])
    assert await by_command.result(LONG) == ["mine", ""]


async def test_down_ends_what_will_not_end(place: Place, orchestrator: Orchestrator) -> None:
    place.agents('[[agents]]\nid = "a"\ncapabilities = ["a"]\npython = "stubborn:work"\n', stubborn=STUBBORN)
    await place.told("up", "-d")
    handle = await orchestrator.submit({"required_capabilities": ["a"]})
    await until(lambda: _has_said(place, "begun"))

    ended = await place.told("down", "--timeout", "100ms")

    assert ended == [{"name": "a-1", "how": "cut short"}] or ended == [{"name": "a-1", "how": "killed"}]
    await place.nobody_is_left()  # nor the process that left the group
    assert (await orchestrator.call("task.get", task_id=handle.task_id)).status in ("pending", "running")


async def _has_said(place: Place, line: str) -> bool:
    return line in await place.logs()


async def test_a_second_signal_waits_for_nothing(place: Place, orchestrator: Orchestrator) -> None:
    place.agents('[[agents]]\nid = "a"\ncapabilities = ["a"]\nexec = "sleep 1000"\n')
    process = await place.start("up")
    await until(lambda: _with_state(place, "a-1", "running"))
    handle = await orchestrator.submit({"required_capabilities": ["a"]})
    await until(lambda: _is_begun(orchestrator, handle.task_id))

    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    while b"Once more" not in (line := await asyncio.wait_for(process.stderr.readline(), LONG)):
        assert line
    process.send_signal(signal.SIGTERM)

    await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 143
    await place.nobody_is_left()


async def _is_begun(orchestrator: Orchestrator, task_id: str) -> bool:
    task = await orchestrator.call("task.get", task_id=task_id)
    return any(attempt.status == "accepted" for attempt in task.attempts)


async def test_an_engine_that_runs_already_is_used_and_stays(
    folder: Path, environment: dict[str, str], orchestrator: Orchestrator, database_url: str
) -> None:
    place = Place(folder, None, environment | {"DATABASE_URL": database_url})
    place.agents('[[agents]]\nid = "a"\ncapabilities = ["a"]\npython = "greeter:greet"\n', greeter=GREETER)

    rows = await place.told("up", "-d", "--port", "0")
    handle = await orchestrator.submit({"required_capabilities": ["a"], "data": {"name": "x"}})

    assert [row["name"] for row in rows] == ["a-1"]
    assert (await handle.result(LONG))["greeting"] == "Hello, x!"
    assert await place.told("down") == [{"name": "a-1", "how": "stopped"}]


async def test_a_port_that_is_taken_is_told_at_once(
    folder: Path, environment: dict[str, str], database_url: str
) -> None:
    place = Place(folder, None, environment | {"DATABASE_URL": database_url})
    place.agents('[[agents]]\nid = "a"\nexec = "cat"\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        done = await place.run("up", "-d", "--port", port)

    assert done.code == 5, done.err
    assert "the engine cannot start" in done.err and port in done.err

    await place.nobody_is_left()
    assert supervisor_pid(place.data_dir) is None


async def test_logs_are_put_aside_and_followed(place: Place, orchestrator: Orchestrator) -> None:
    place.environment |= {"AGENTORCH_UP_LOG_BYTES": "1024", "AGENTORCH_UP_LOG_FILES": "1"}
    place.agents('[[agents]]\nid = "a/b"\ncapabilities = ["a"]\npython = "greeter:greet"\n', greeter=GREETER)
    await place.told("up", "-d")
    follower = await place.start("logs", "a/b", "-f", "-n", "0", "-o", "jsonl")

    for number in range(60):
        handle = await orchestrator.submit({"required_capabilities": ["a"], "data": {"name": f"n{number}"}})
        await handle.result(LONG)

    files = sorted(path.name for path in (place.data_dir / "logs/agents").iterdir())
    assert files == ["a%2Fb-1.log", "a%2Fb-1.log.1"]
    kept = await place.logs("a/b-1")
    assert kept[-1] == "greeting n59" and "greeting n0" not in kept
    assert follower.stdout is not None
    seen: list[str] = []
    async with asyncio.timeout(LONG):
        while "greeting n59" not in seen:
            seen.append(json.loads(await follower.stdout.readline())["line"])
    follower.kill()
    await follower.communicate()
    assert (await place.run("logs", "a/c")).code == 7


async def test_what_cannot_be_run_is_refused(place: Place) -> None:
    assert "agentorch init" in (await place.run("up")).err
    place.agents('[[agents]]\nid = "a"\n')
    assert (await place.run("up")).code == 2
    place.agents('[[agents]]\nid = "greeter"\nexec = "cat"\n')
    done = await place.run("up", "--scale", "greter=2")
    assert done.code == 2 and 'did you mean "greeter"' in done.err
    assert not place.data_dir.exists()
