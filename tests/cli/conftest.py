"""The commands with a client of the test's own behind them, run in this process."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentorch_cli.__main__ import run
from agentorch_cli.views import ResolvedView
from tests.databases import execute


@dataclass
class Desk:
    """Stands where the operations are: answers as it is told, and remembers what was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    wiring: Any = None
    is_remote: bool = False

    async def call(self, method: str, **parameters: Any) -> Any:
        if method == "id.resolve" and method not in self.answers:  # every id is whole
            return ResolvedView(ids={one: one for one in parameters["ids"]})
        self.calls.append((method, parameters))
        answer = self.answers[method]
        if callable(answer):
            answer = answer(**parameters)
        if hasattr(answer, "__await__"):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to live and to work in: nobody's own settings take part."""
    for name in list(os.environ):
        if name.startswith("AGENTORCH_") or name in ("DATABASE_URL", "WEBSOCKET_URL", "COLUMNS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def desk(home: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Commands reach this desk in place of a database, and find an empty home and directory."""
    desk = Desk()

    @asynccontextmanager
    async def open_client(settings: Any, *, prepare: bool = True) -> Any:
        yield desk

    desk.wiring = types.ModuleType("agentorch_cli.wiring")
    desk.wiring.open_client = open_client
    monkeypatch.setitem(sys.modules, "agentorch_cli.wiring", desk.wiring)
    monkeypatch.setenv("AGENTORCH_DATA_DIR", str(home / "data"))
    return desk


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def agentorch(desk: Desk, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line; gives its exit code and what it printed."""

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        try:
            code = run(list(arguments))
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call


FILL = (Path(__file__).parents[1] / "data" / "some_of_everything.sql").read_text()


@pytest.fixture
async def full(database_url: str) -> str:
    """The address of a database with something of everything."""
    await execute(database_url, FILL)
    return database_url


@pytest.fixture
def agentorch_at(
    home: Path, full: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Run a command line on the full database."""
    monkeypatch.setenv("DATABASE_URL", full)

    def call(*arguments: str) -> Any:
        capsys.readouterr()
        code = run(list(arguments))
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call
