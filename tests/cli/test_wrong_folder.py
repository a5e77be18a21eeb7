"""Ordinary mistakes about places: a folder that is not the project's, and work where no engine runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentorch_cli.cli import session as sessions
from agentorch_cli.cli.target import project_above
from agentorch_cli.config import load_settings


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "my" / "agents").mkdir(parents=True)
    (tmp_path / "my" / "agentorch.toml").write_text('data_dir = ".agentorch"\n')
    return tmp_path / "my"


def test_a_project_in_a_folder_above_is_told(project: Path) -> None:
    inside = project / "agents"
    note = project_above(load_settings({}, {}, None, inside), inside, {})

    assert note is not None
    assert f"not about the project in {project}" in note
    assert f"--config {project / 'agentorch.toml'}" in note


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        ({"data_dir": "/elsewhere"}, {}),
        ({"database.url": "postgresql://h/d"}, {}),
        ({"server": "wss://h:1"}, {}),
        ({}, {"AGENTORCH_DATA_DIR": "/elsewhere"}),
        ({}, {"DATABASE_URL": "postgresql://h/d"}),
    ],
)
def test_who_says_where_is_told_nothing(
    project: Path, flags: dict[str, Any], environ: dict[str, str]
) -> None:
    inside = project / "agents"

    assert project_above(load_settings(flags, environ, None, inside), inside, environ) is None


def test_in_the_folder_of_a_project_nothing_is_told(project: Path) -> None:
    assert project_above(load_settings({}, {}, None, project), project, {}) is None
    assert project_above(load_settings({}, {}, None, project.parent), project.parent, {}) is None


def test_the_note_is_for_people_and_comes_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project / "agents")
    for name in ("AGENTORCH_DATA_DIR", "DATABASE_URL", "AGENTORCH_SERVER", "AGENTORCH_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    session = sessions.Session()
    assert session.data_dir_here == session.data_dir_here
    assert capsys.readouterr().err.count("note: ") == 1

    for_a_program = sessions.Session()
    for_a_program.as_json = True
    assert for_a_program.data_dir_here
    assert capsys.readouterr().err == ""


def test_work_that_is_brought_where_nobody_serves_is_told_so(
    full: str, agentorch_at: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "one.toml").write_text('[task]\nid = "alone"\n')
    outcome = agentorch_at("task", "submit", "one.toml")

    assert outcome.code == 0
    assert "so nothing moves: run agentorch serve, or agentorch up" in outcome.err
    assert "  agentorch task wait alone\n" in outcome.err


def test_a_sentence_is_broken_between_words_and_never_within_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "40")
    path = "/a/rather/long/path-with-hyphens/that/is/longer/than/a/line"
    lines = sessions._lines(f"warning: there is nothing in the folder {path}, so look", Terminal())  # type: ignore[arg-type]

    assert lines == ["warning: there is nothing in the folder", f"  {path},", "  so look"]
    assert sessions._lines("a " * 60, io.StringIO()) == ["a " * 60]
