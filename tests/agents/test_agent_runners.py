"""Commands and functions as handlers: whatever a command does, its task ends and nothing is left over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from fake_engine import FakeEngine, Start, cancel, execute

from agentorch_cli.agents import Agent, Work, WorkFailed
from agentorch_cli.agents.guardian import Guardian
from agentorch_cli.agents.process import End, _Ended, _Intake
from agentorch_cli.agents.runners import exec_handler, python_handler
from agentorch_cli.agents.strays import Strays, new_mark
from agentorch_cli.errors import UsageError

Handler = Callable[[Work], Coroutine[Any, Any, Any]]


class NoDesk:
    """For work that reports nothing."""

    def report(self, work: Work, report: dict[str, Any]) -> None: ...

    async def room(self) -> None: ...

    async def submit(self, work: Work, task: dict[str, Any], wait: bool) -> Any: ...


def work(data: Any = None, message_id: str = "m1") -> Work:
    return Work(NoDesk(), message_id, execute(message_id, data=data, task_id="t1")["data"])


def python(script: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", textwrap.dedent(script)]


def is_alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet is dead enough."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_task_comes_on_stdin_and_the_result_on_stdout() -> None:
    handler = exec_handler(python("import json, sys; print(json.dumps(json.load(sys.stdin)))"))

    assert await handler(work({"n": [1, "ä"]})) == {
        "taskId": "t1",
        "attempt": 1,
        "messageId": "m1",
        "type": "work",
        "priority": 5,
        "data": {"n": [1, "ä"]},
        "inputs": {"before": 1},
        "role": None,
        "name": None,
        "resultSchema": None,
        "vote": None,
        "budget": {},
        "requiredCapabilities": ["c"],
        "deadline": "2031-02-03T04:05:06.789Z",
    }


async def test_a_string_is_a_shell_command() -> None:
    assert await exec_handler("echo 1 | tr 1 2")(work()) == 2


async def test_the_environment_is_small_and_the_descriptors_are_three(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET_KEY", "s")
    monkeypatch.setenv("MODEL_NAME", "m")
    script = """
        import json, os
        fds = [int(fd) for fd in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + fd)]
        print(json.dumps([dict(os.environ), fds, os.getcwd(), os.getsid(0) == os.getpid()]))
    """
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        handler = exec_handler(python(script), env_allow=("MODEL_NAME", "NOT_SET"), cwd=tmp_path)
        env, descriptors, directory, is_leader = await handler(work())

    assert env["MODEL_NAME"] == "m"
    assert env["AGENTORCH_TASK_ID"] == "t1"
    assert set(env) - {"LC_CTYPE", "PWD", "SHLVL", "_"} <= {
        "PATH",
        "HOME",
        "LANG",
        "TMPDIR",
        "MODEL_NAME",
        "AGENTORCH_TASK_ID",
        "AGENTORCH_TASK_TYPE",
        "AGENTORCH_MESSAGE_ID",
        "AGENTORCH_ATTEMPT",
        "AGENTORCH_ROLE",
        "AGENTORCH_RUN",
        "AGENTORCH_USAGE",
    }
    assert descriptors == [0, 1, 2]
    assert (directory, is_leader) == (str(tmp_path), True)


@pytest.mark.parametrize(
    ("written", "understood"),
    [
        ('{"costUsd": 0.0042, "inputTokens": 9}', {"costUsd": 0.0042, "inputTokens": 9}),
        ('{"costUsd": 1, "model": "x"}', {"costUsd": 1}),
        ('{"costUsd": -1}', None),
        ('{"costUsd": 1e10}', None),
        ('{"inputTokens": 1.5}', None),
        ('{"outputTokens": true}', None),
        ("[]", None),
        ("no JSON", None),
        ('{"costUsd": ' + "0" * 5000 + "}", None),
    ],
)
@pytest.mark.parametrize("status", [0, 1])
async def test_a_command_says_what_it_used_in_a_file(written: str, understood: Any, status: int) -> None:
    told = work()
    script = (
        f"import os; open(os.environ['AGENTORCH_USAGE'], 'w').write({written!r}); print(1); exit({status})"
    )
    with contextlib.suppress(WorkFailed):
        await exec_handler(python(script))(told)

    assert told.usage == understood
    assert not list(Path(tempfile.gettempdir()).glob(f"agentorch-usage-{told.message_id}*"))


async def test_a_link_in_place_of_the_usage_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text('{"costUsd": 1}')
    told = work()
    script = f"import os; os.symlink({str(tmp_path / 'other')!r}, os.environ['AGENTORCH_USAGE']); print(1)"

    assert await exec_handler(python(script))(told) == 1
    assert told.usage is None
    assert not list(Path(tempfile.gettempdir()).glob(f"agentorch-usage-{told.message_id}*"))
    assert (tmp_path / "other").exists()


FAILURES: dict[str, tuple[str | list[str], str, str]] = {
    "not JSON": ("printf 'hello \\033[31m'", "exec_not_json", r"not JSON .*began with 'hello \\\\x1b\[31m'"),
    "silent": ("true", "exec_not_json", "it was empty"),
    "NaN": ("echo NaN", "exec_not_json", "not JSON"),
    "two documents": ("echo 1; echo 2", "exec_not_json", "not JSON"),
    "exit 3": ("echo 1; echo 'no \033 page' >&2; exit 3", "exec_failed", r"status 3; .*:\nno \\x1b page"),
    "signal": ("kill -SEGV $$", "exec_failed", "ended by SIGSEGV"),
    "no such program": (["/no/such/program"], "exec_not_started", "/no/such/program cannot be started"),
    "NUL in the command": (["echo", "\x00"], "exec_not_started", "null byte"),
}


@pytest.mark.parametrize(("command", "code", "sentence"), FAILURES.values(), ids=FAILURES.keys())
async def test_what_a_command_does_wrong_is_said(command: str | list[str], code: str, sentence: str) -> None:
    with pytest.raises(WorkFailed, match=f"(?s){sentence}") as failed:
        await exec_handler(command)(work())

    assert failed.value.code == code
    assert failed.value.retryable


async def test_the_end_of_a_long_stderr_is_kept() -> None:
    script = "import sys; sys.stderr.write('x' * 200_000 + 'the reason'); sys.exit(1)"

    with pytest.raises(WorkFailed, match=r"the reason$") as failed:
        await exec_handler(python(script))(work())
    assert len(failed.value.message) < 2_000


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_flood_is_cut_off(stream: str) -> None:
    script = f"import sys\nwhile True: sys.{stream}.write('1' * 65536)"

    with pytest.raises(WorkFailed, match="more than 300,000 bytes") as failed:
        await exec_handler(python(script), output_limit=300_000)(work())
    assert failed.value.code == "exec_output_limit"


@pytest.mark.parametrize("size", [100, 101])
async def test_the_limit_is_exact_even_for_a_command_that_has_gone(size: int) -> None:
    """The end of the output is found in the pipe after the exit; half a number would be a wrong result."""
    handler = exec_handler(f"printf '%0{size}d' 0 | tr 0 1", output_limit=100)

    if size > 100:
        with pytest.raises(WorkFailed, match="more than 100 bytes"):
            await handler(work())
    else:
        assert await handler(work()) == float("1" * 100)


async def test_large_tasks_and_results_pass_in_both_directions_at_once() -> None:
    data = ["x" * 99] * 9_000
    handler = exec_handler(python("import sys\nfor line in sys.stdin: sys.stdout.write(line)"))

    assert (await handler(work(data)))["data"] == data


async def test_a_command_need_not_read_its_task() -> None:
    assert await exec_handler("exec <&-; echo 5")(work("x" * 1_000_000)) == 5


async def test_a_command_that_takes_too_long_is_killed() -> None:
    with pytest.raises(WorkFailed, match=r"killed after 0\.2 s; stderr ended with:\nhere") as failed:
        async with asyncio.timeout(60):
            await exec_handler("echo here >&2; sleep 3600", timeout=0.2)(work())
    assert failed.value.code == "exec_timeout"


async def test_a_command_may_not_leave_processes_behind(tmp_path: Path) -> None:
    """A background process keeps stdout open; waiting for the pipe's end would take an hour."""
    async with asyncio.timeout(60):
        pid = await exec_handler("sleep 3600 & echo $!")(work())

    await until(lambda: not is_alive(pid))


@pytest.mark.parametrize("answer", ["default", "ignores SIGTERM"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_cancelling_kills_the_whole_group(loop: str, answer: str, tmp_path: Path) -> None:
    trap = "trap '' TERM; " if answer != "default" else ""
    pids = tmp_path / "pids"
    command = f"{trap}sleep 60 & sh -c 'sleep 60 & echo $! > {pids}.part; echo $$ >> {pids}.part; \
        mv {pids}.part {pids}; wait' & wait"

    async def scenario() -> list[int]:
        handling = asyncio.create_task(exec_handler(command, kill_grace=0.2)(work()))
        await until(pids.exists)
        found = [int(pid) for pid in pids.read_text().split()]
        assert all(is_alive(pid) for pid in found)
        handling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handling
        await until(lambda: not any(is_alive(pid) for pid in found))
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        assert len(runner.run(scenario())) == 2


async def test_a_command_may_clean_up_when_it_is_cancelled(tmp_path: Path) -> None:
    note = tmp_path / "cleaned"
    command = f"trap 'echo yes > {note}; exit' TERM; echo > {tmp_path}/up; while :; do sleep 0.02; done"
    handling = asyncio.create_task(exec_handler(command)(work()))
    await until((tmp_path / "up").exists)
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling

    assert note.read_text() == "yes\n"


RUNNER = """
import asyncio, sys
sys.path.insert(0, {tests!r})
from test_agent_runners import work
from agentorch_cli.agents.runners import exec_handler
command = (
    "echo $$ > {pids}.part; sleep 60 & echo $! >> {pids}.part;"
    " setsid sh -c 'echo $$ >> {pids}.part; mv {pids}.part {pids}; exec sleep 60' & wait"
)
asyncio.run(exec_handler(command)(work()))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_commands_die_with_their_runner(number: signal.Signals, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = RUNNER.format(tests=str(Path(__file__).parent), pids=pids)
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as runner:
        await until(pids.exists, 20)
        found = [int(pid) for pid in pids.read_text().split()]
        assert all(is_alive(pid) for pid in found)
        runner.send_signal(number)
        await until(lambda: not any(is_alive(pid) for pid in found))

    assert len(found) == 3


async def test_a_daemon_of_a_command_ends_with_its_task(tmp_path: Path) -> None:
    """It has left the group and the session, and its parent is gone."""
    pids = tmp_path / "pids"
    daemon = f"echo $$ > {pids}.part; mv {pids}.part {pids}; exec sleep 60"
    handler = exec_handler(
        f'(setsid sh -c "{daemon.replace("$", chr(92) + "$")}" >/dev/null 2>&1 </dev/null &)'
        f" ; while [ ! -e {pids} ]; do sleep 0.01; done; echo 1"
    )

    assert await handler(work()) == 1

    pid = int(pids.read_text())
    await until(lambda: not is_alive(pid))


async def test_the_processes_of_others_are_left_alone(sleepers: list[subprocess.Popen[bytes]]) -> None:
    assert Strays().hunt({new_mark()}) == 0
    assert all(is_alive(sleeper.pid) for sleeper in sleepers)


def ignores(pid: int, number: signal.Signals) -> bool:
    mask = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigIgn" in line)
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    sleepers = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(4)]
    yield sleepers
    for sleeper in sleepers:
        sleeper.kill()
        sleeper.wait()


async def test_the_guardian_forgets_what_is_released_and_comes_back_when_it_is_killed(
    sleepers: list[subprocess.Popen[bytes]],
) -> None:
    guardian = Guardian()
    for sleeper in sleepers:
        guardian.hold(sleeper.pid)
    guardian.release(sleepers[1].pid)
    first = guardian.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: not is_alive(first))
    guardian.release(sleepers[2].pid)
    second = guardian.pid
    assert second is not None
    guardian.release(sleepers[3].pid)
    await until(lambda: ignores(second, signal.SIGTERM))
    os.kill(second, signal.SIGTERM)

    assert second != first
    assert all(sleeper.poll() is None for sleeper in sleepers)
    guardian.close()
    assert sleepers[0].wait(5) == -signal.SIGKILL
    assert [sleeper.poll() for sleeper in sleepers[1:]] == [None, None, None]


@pytest.mark.parametrize(("size", "end"), [(100, End.EXIT), (101, End.FLOOD)])
async def test_what_is_in_the_pipe_after_the_exit_is_read_and_counted(size: int, end: End) -> None:
    read, write = os.pipe()
    os.write(write, b"x" * size)
    ended = _Ended()
    intake = _Intake(os.fdopen(read, "rb", buffering=0), 100, 100, ended)
    ended.by_exit()

    intake.close()

    os.close(write)
    assert ended.how == end
    assert end is End.FLOOD or intake.content() == b"x" * size


async def test_an_exec_agent_works_and_is_cancelled_over_the_wire(
    engine: FakeEngine, start: Start, tmp_path: Path
) -> None:
    agent = Agent("a1", slots=2)
    agent.add_handler(exec_handler("echo 1"), "quick")
    agent.add_handler(exec_handler(f"echo $$ > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid; sleep 60"))
    start(agent)
    connection = await engine.registered()
    await connection.send(execute("m1"), execute("m2", "quick"))
    assert (await connection.expect("task_result"))["result"] == 1

    await until((tmp_path / "pid").exists)
    pid = int((tmp_path / "pid").read_text())
    await connection.send(cancel("m1"))
    await until(lambda: not is_alive(pid))
    await connection.settled()

    assert len(connection.of("task_result")) == 1


def test_an_empty_command_is_refused() -> None:
    for command in ("", "  ", [], [""]):
        with pytest.raises(UsageError, match="empty"):
            exec_handler(command)


async def test_a_function_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "class Box:\n    @staticmethod\n    def twice(work): return work.data * 2\n"
        "async def thrice(work): return work.data * 3\nnumber = 5\n"
    )
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])

    assert python_handler("mine:Box.twice")(work(4)) == 8
    assert await python_handler("mine:thrice")(work(4)) == 12
    for name, sentence in {
        "mine": "does not name a function",
        "mine:": "does not name a function",
        "mine:four": "module mine has no four",
        "mine:number": "is not a function",
        "nowhere:f": "nowhere cannot be imported",
        "broken:f": "No module named 'no_such_module'",
    }.items():
        with pytest.raises(UsageError, match=sentence):
            python_handler(name)
