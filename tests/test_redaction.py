"""What opens doors is taken out of every text that leaves: logs, errors, crash files, bundles."""

from __future__ import annotations

import io
import json
import logging
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch_cli import logs, tokens
from agentorch_cli.__main__ import run
from agentorch_cli.cli import failure
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.redaction import redact, redact_value

TOKEN = tokens.make()[1]
SECRET = "s3cr3t-pAss.w0rd"


@pytest.mark.parametrize(
    "text",
    [
        f"the token {TOKEN} is wrong",
        f"Authorization: Bearer {SECRET}",
        f"GET /x HTTP/1.1\r\nauthorization: bearer {SECRET}\r\n",
        f"postgresql://user:{SECRET}@host:5432/db does not answer",
        f"connect('wss://u:{SECRET}@hub/x')",
        f"password={SECRET} host=/run",
        f"host=h PASSWORD = '{SECRET}' user=u",
        f'{{"password": "{SECRET}", "x": 1}}',
        f"AGENTORCH_TOKEN={SECRET}",
        f"api_key: {SECRET}",
        f"wss://hub/x?access_token={SECRET}&y=1",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
    ],
    ids=range(12),
)
def test_secrets_are_taken_out_of_text(text: str) -> None:
    assert SECRET not in redact(text)
    assert TOKEN not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "inputTokens: 500, output_tokens=20",
        "this token may not task.cancel: it has no scope 'submit'",
        "postgresql://user@host:5432/db",
        "the budget of 5 tokens",
        "key: value",
        "agentorch token create NAME --scope agent:alice",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_values_under_a_secrets_name_go_whole() -> None:
    assert redact_value({"token": "abc", "tokens": "5", "list": [{"password": "x"}], "token_file": "/x"}) == {
        "token": "***",
        "tokens": "5",
        "list": [{"password": "***"}],
        "token_file": "/x",
    }


@given(st.text(max_size=300))
def test_any_text_can_be_redacted(text: str) -> None:
    once = redact(text)
    assert redact(once) == once
    assert TOKEN not in redact(text + TOKEN + " " + text)


@pytest.mark.parametrize("form", ["text", "json"])
def test_logs_hold_no_secret(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logger = logging.getLogger("agentorch")
    before = list(logger.handlers), logger.propagate, logger.level
    try:
        logs.configure("info", form)
        try:
            raise ValueError(f"postgresql://u:{SECRET}@h/d")
        except ValueError:
            logging.getLogger("agentorch.test").exception("with %s", TOKEN)
    finally:
        logger.handlers, logger.propagate = before[0], before[1]
        logger.setLevel(before[2])

    assert "ValueError" in stream.getvalue()
    assert SECRET not in stream.getvalue() and TOKEN not in stream.getvalue()


def test_errors_and_crash_files_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTORCH_DATA_DIR", str(tmp_path))
    error = DatabaseUnreachable(
        f"postgresql://u:{SECRET}@h/d", hint=f"Bearer {SECRET}", dsn=f"password={SECRET}"
    )
    for is_json in (True, False):
        stream = io.StringIO()
        failure.report(error, is_json, stream)
        assert SECRET not in stream.getvalue() and "***" in stream.getvalue()

    bug = failure.from_bug(RuntimeError(f"token={TOKEN}"), Session())

    (crash,) = (tmp_path / "logs").glob("crash-*.txt")
    assert bug.hint is not None and crash.name in bug.hint
    assert TOKEN not in crash.read_text() and "RuntimeError" in crash.read_text()


def test_a_bundle_says_much_and_holds_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:{SECRET}@127.0.0.1:1/d")
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    (data / "logs").mkdir(parents=True)
    (data / "logs" / "crash-1.txt").write_text(f"Bearer {SECRET} and {TOKEN}\nthe end\n")
    (data / "postgres.log").write_text("x" * 1_000_000 + f"\npassword={SECRET}\nlast line\n")
    (data / "logs" / "agents").mkdir()
    for name in ("up.log", "agents/serve.log", "agents/reader-1.log"):
        (data / "logs" / name).write_text(f"token={SECRET} of {name}\n")
    monkeypatch.setenv("AGENTORCH_DATA_DIR", str(data))

    assert run(["doctor", "--bundle", "report.tar.gz"]) == 5  # the database does not answer
    assert run(["doctor", "--bundle", "report.tar.gz"]) == 8  # it is there already

    with tarfile.open("report.tar.gz") as archive:
        found = {
            member.name.removeprefix("agentorch-bundle/"): (
                archive.extractfile(member) or io.BytesIO()
            ).read()
            for member in archive.getmembers()
        }
    assert set(found) == {
        "doctor.json", "config.json", "versions.json",
        "logs/crash-1.txt", "logs/postgres.log", "logs/serve.log", "logs/up.log",
    }  # fmt: skip
    assert SECRET.encode() not in b"".join(found.values()) and TOKEN.encode() not in b"".join(found.values())
    assert b"the end" in found["logs/crash-1.txt"] and b"last line" in found["logs/postgres.log"]
    assert len(found["logs/postgres.log"]) < 300_000
    assert {"database.url", "gateway.port"} <= {row["name"] for row in json.loads(found["config.json"])}
    assert (tmp_path / "report.tar.gz").stat().st_mode & 0o077 == 0
    assert SECRET not in "".join(capsys.readouterr())
