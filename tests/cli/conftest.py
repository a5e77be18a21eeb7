"""The commands with a client of the test's own behind them, run in this process."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from agentorch_cli.__main__ import run
from agentorch_cli.views import ResolvedView


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
def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Desk:
    """Commands reach this desk in place of a database, and find an empty home and directory."""
    desk = Desk()

    @asynccontextmanager
    async def open_client(settings: Any, *, prepare: bool = True) -> Any:
        yield desk

    desk.wiring = types.ModuleType("agentorch_cli.wiring")
    desk.wiring.open_client = open_client
    monkeypatch.setitem(sys.modules, "agentorch_cli.wiring", desk.wiring)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AGENTORCH_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("AGENTORCH_DEBUG", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
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
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(FILL)
    finally:
        await connection.close()
    return database_url


@pytest.fixture
def agentorch_at(
    full: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> Callable[..., Any]:
    """Run a command line on the full database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", full)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def call(*arguments: str) -> Any:
        capsys.readouterr()
        code = run(list(arguments))
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call
