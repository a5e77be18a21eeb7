"""A server on the network, with a certificate and tokens, and an operator who has nothing but the program."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.fleet.processes import Serve, new_data_dir, remove

PROGRAM = (sys.executable, "-m", "agentorch_cli")


class Operator:
    """Runs the program as a person elsewhere would: in a home of their own, without the database."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTORCH_")}
        kept.pop("DATABASE_URL", None)
        self.environment = {**kept, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "LC_ALL": "C.UTF-8"}

    def run(self, *words: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *words], input=stdin, capture_output=True, text=True, timeout=60, cwd=self.home,
            env={**self.environment, **environ}, check=False,
        )  # fmt: skip

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.home,
            env={**self.environment, **environ},
        )  # fmt: skip


@pytest.fixture
def data_dir() -> Iterator[Path]:
    folder = new_data_dir()
    yield folder
    remove(folder)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for this machine, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30"
        f" -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {key} -out {cert}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return cert, key


@pytest.fixture
def served(
    data_dir: Path, tmp_path: Path, certificate: tuple[Path, Path]
) -> Iterator[tuple[Operator, Serve]]:
    """A serve on every address, and an operator whose profile has a token with every scope."""
    operator = Operator(tmp_path)
    local = ("--data-dir", str(data_dir), "-q")
    made = operator.run(*local, "token", "create", "op", "--scope", "admin", "--scope", "agent:*")
    token = tmp_path / "op.token"
    token.write_text(made.stdout)
    token.chmod(0o600)
    settings = {
        "AGENTORCH_GATEWAY_HOST": "0.0.0.0",
        "AGENTORCH_GATEWAY_TLS_CERT": str(certificate[0]),
        "AGENTORCH_GATEWAY_TLS_KEY": str(certificate[1]),
        "AGENTORCH_ENGINE_DRAIN_TIMEOUT": "0",
        "AGENTORCH_ENGINE_LEASE_SECONDS": "2",
    }
    serve = Serve(data_dir, environment=settings)
    serve.start()
    url = serve.url.removesuffix("/agents")
    profile = ("profile", "add", "far", "--url", url, "--token-file", str(token), "--ca", str(certificate[0]))
    assert operator.run(*profile, "--use").returncode == 0
    yield operator, serve
    serve.send(signal.SIGTERM)
    serve.wait(20)


def test_an_operator_needs_no_database_and_loses_nothing_when_the_server_is_killed(
    served: tuple[Operator, Serve], certificate: tuple[Path, Path]
) -> None:
    operator, serve = served
    _refuses_strangers(operator, serve, certificate)
    tail = operator.start("event", "tail", "-f", "-o", "jsonl", "--kind", "task_submitted", "-n", "100")
    seen: list[str] = []
    reader = threading.Thread(
        target=lambda: seen.extend(json.loads(line)["task_id"] for line in tail.stdout or ()), daemon=True
    )
    reader.start()
    work = ("--exec", "cat >/dev/null; echo 3")
    agents = [operator.start("agent", "run", "crew-1", "-c", "count", *work)]
    try:
        first = operator.run("task", "submit", "-", "--wait", "--json", stdin=_task("t1"))
        waiting = operator.start("task", "submit", str(_file(operator, "slow")), "--wait", "--json")
        _until(lambda: operator.run("task", "show", "slow").returncode == 0)
        serve.send(signal.SIGKILL)
        serve.wait(10)
        gone = operator.run("status")
        serve.start()
        agents.append(operator.start("agent", "run", "crew-2", "-c", "late", *work))
        second = operator.run("task", "submit", "-", "--json", stdin=_task("t2", "nobody"))
        registered = operator.run("agent", "register", "x", "--exec", "true")
        out, err = waiting.communicate(timeout=30)
        _until(lambda: "t2" in seen)
    finally:
        for process in (tail, *agents):
            process.send_signal(signal.SIGINT)
        tail_err = tail.stderr.read() if tail.stderr else ""
        reader.join(20)
        for process in (tail, *agents):
            process.wait(20)
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                stream.close()

    assert first.returncode == 0 and json.loads(first.stdout)[0]["result"] == 3, first.stderr
    assert gone.returncode == 5 and "cannot be reached" in gone.stderr
    assert second.returncode == 0, second.stderr
    assert registered.returncode == 4 and "would run a command on the server" in registered.stderr
    assert waiting.returncode == 0 and json.loads(out)[0]["result"] == 3, err
    assert "trying again" in err and "again" in tail_err
    assert seen == ["t1", "slow", "t2"]


def _refuses_strangers(operator: Operator, serve: Serve, certificate: tuple[Path, Path]) -> None:
    url, ca = serve.url.removesuffix("/agents"), str(certificate[0])

    untrusted = operator.run("--server", url, "status")
    nameless = operator.run("--server", url, "--ca", ca, "status")
    wrong = operator.run("--server", url, "--ca", ca, "status", AGENTORCH_TOKEN="ao_wrong")
    plain = operator.run("--server", url.replace("wss", "ws"), "status")

    assert untrusted.returncode == 5 and "certificate is not trusted" in untrusted.stderr
    assert nameless.returncode == 4 and "wants a token" in nameless.stderr
    assert wrong.returncode == 4 and "no token" in wrong.stderr
    assert plain.returncode == 5
    for one in (untrusted, nameless, wrong, plain):
        assert "Traceback" not in one.stderr and "hint:" in one.stderr


def test_serve_does_not_open_the_door_by_mistake(
    data_dir: Path, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    operator = Operator(tmp_path)
    serve = ("--data-dir", str(data_dir), "serve", "--port", "0")
    tls = ("--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]))

    open_door = operator.run(*serve, "--host", "0.0.0.0")
    no_token = operator.run(*serve, "--host", "0.0.0.0", *tls)
    half = operator.run(*serve, *tls[:2])
    swapped = operator.run(*serve, "--tls-cert", str(certificate[1]), "--tls-key", str(certificate[0]))

    assert open_door.returncode == 4 and "--tls-cert" in open_door.stderr
    assert no_token.returncode == 4 and "token create" in no_token.stderr
    assert half.returncode == 2 and swapped.returncode == 2


def _task(task_id: str, capability: str = "count") -> str:
    return json.dumps({"id": task_id, "required_capabilities": [capability]})


def _file(operator: Operator, task_id: str) -> Path:
    """A task for an agent that is not there yet."""
    path = operator.home / f"{task_id}.json"
    path.write_text(_task(task_id, "late"))
    return path


def _until(condition: Any, seconds: float = 30.0) -> None:
    import time

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
