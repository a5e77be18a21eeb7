"""`agentorch doctor`: every line that is not simply good says what to do, and nothing is waited for long."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from agentorch_cli import doctor
from agentorch_cli.__main__ import run
from agentorch_cli.config import Settings
from agentorch_cli.doctor import Finding, _explained, examine
from tests.conftest import quick_settings


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a look may take longer than a person wants to wait."""
    monkeypatch.setattr(doctor, "LOOK_SECONDS", 30.0)
    monkeypatch.setattr(doctor, "DATABASE_SECONDS", 30.0)


def _by_name(findings: list[Finding]) -> dict[str, Finding]:
    assert all(one.fix for one in findings if one.ok is not True), findings
    return {one.name: one for one in findings}


async def test_a_served_database_is_fine(database_url: str) -> None:
    found = _by_name(await examine(quick_settings(database_url)))

    assert {name for name, one in found.items() if one.ok is False} == set()
    assert found["schema"].ok and found["serve"].fix == "start it with: agentorch serve"
    assert found["backup"].fix == "agentorch db backup FILE"


async def test_a_place_with_nothing_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "none")

    found = _by_name(await examine(settings))

    assert found["embedded PostgreSQL"].text == "there is none yet"
    assert not (tmp_path / "none").exists()


async def test_a_database_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection, and never says a word."""
    monkeypatch.setattr(doctor, "DATABASE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        found = await examine(quick_settings(f"postgresql://me:secret@127.0.0.1:{port}/x"))

    wrong = next(one for one in found if one.ok is False)
    _by_name(found)
    assert wrong.name == "database" and "answer" in wrong.text
    assert "secret" not in json.dumps([one.text for one in found])


async def test_a_taken_port_is_told(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = quick_settings(database_url, gateway={"port": port})

        found = _by_name(await examine(settings))

    assert found["port"].ok is None and "is taken" in found["port"].text
    serve = Finding("serve", True, f"2 running: other:{port + 1}, {socket.gethostname()}:{port}")
    told = _explained([found["port"]], [serve])
    assert told == [Finding("port", True, f"127.0.0.1:{port}: serve listens there")]
    assert _explained([found["port"]], [Finding("serve", None, "is not running")]) == [found["port"]]
    elsewhere = Finding("serve", True, f"1 running: {socket.gethostname()}:{port + 1}")
    assert _explained([found["port"]], [elsewhere]) == [found["port"]]


async def test_an_old_schema_and_dead_rows_are_told(database_url: str) -> None:
    from agentorch_cli.store.condition import MANY_DEAD, condition_of
    from agentorch_cli.store.database import Database

    db = Database(database_url, node_id="tests", pool_size=2)
    await db.open()
    condition = await condition_of(db)
    assert condition.warnings() == []
    condition.tables[0]["dead_rows"] = MANY_DEAD + 1
    condition.database_version = 1
    condition.connections = condition.max_connections
    condition.oldest_transaction_seconds = 3600.0
    condition.transaction_age = 2_000_000_000
    await db.close()

    told = condition.warnings()

    assert len(told) == 5
    assert "agentorch db upgrade" in told[0] and "60 min" in told[2] and "vacuum" in told[3]


def test_the_exit_code_says_whether_something_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("AGENTORCH_GATEWAY_PORT", "0")

    fine = run(["--data-dir", str(tmp_path / "d"), "--json", "doctor"])
    rows = json.loads(capsys.readouterr().out)
    wrong = run(["--database-url", "postgresql://127.0.0.1:1/x", "doctor"])

    assert (fine, wrong) == (0, 5)
    assert all(row["fix"] for row in rows if row["ok"] is not True)
    assert "1 of 6 checks found something wrong: database" in capsys.readouterr().err
