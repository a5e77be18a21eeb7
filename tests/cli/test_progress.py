"""How far long operations are: a line that moves on a terminal, plain lines on a pipe, nothing with -q."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import sample_fleet as sample

from agentorch_cli.cli import follow, progress
from agentorch_cli.cli.progress import Progress
from agentorch_cli.cli.session import FIRST_START, Session
from agentorch_cli.views import SubmitReply, SubmittedTask, TallyView


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operation is a long one."""
    monkeypatch.setattr(progress, "MOMENT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    monkeypatch.setattr(follow, "LINE_SECONDS", 0.01)
    monkeypatch.setattr(follow, "FRAME_SECONDS", 0.01)


class Stderr:
    """Remembers what is written, and tells when it holds something."""

    encoding = "utf-8"

    def __init__(self, is_terminal: bool = False) -> None:
        self.text = ""
        self._is_terminal = is_terminal
        self._written = threading.Condition()

    def write(self, text: str) -> int:
        with self._written:
            self.text += text
            self._written.notify_all()
        return len(text)

    def until(self, pattern: str) -> None:
        with self._written:
            assert self._written.wait_for(lambda: re.search(pattern, self.text), 20), self.text

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return self._is_terminal

    def fileno(self) -> int:
        raise OSError


def test_on_a_pipe_there_is_a_plain_line_now_and_then(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", err := Stderr())

    with Progress(Session(), "Storing tasks", 100_000) as shown:
        err.until(r"Storing tasks  100,000  0 s\n")
        shown.update(0)
        err.until(r"Storing tasks  0 of 100,000  0 s\n")
        shown.update(250)
        err.until(r"Storing tasks  250 of 100,000  0 s\n")
        shown.begin("Ordering", None)
        err.until(r"Ordering  0 s\n")
        shown.say("news")

    assert "news\n" in err.text
    assert "\x1b" not in err.text


def test_on_a_terminal_one_line_moves_and_is_gone_at_the_end(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", err := Stderr(is_terminal=True))

    with Progress(Session(), "Replaying [bold]evil[/bold]", 40) as shown:
        shown.update(10)
        err.until(r"Replaying \[bold\]evil.*10 of 40")
        shown.say("above \x1b[2J")
        err.until(r"above \\x1b\[2J")

    assert err.text.endswith("\x1b[2K")


@pytest.mark.parametrize("is_quiet", [True, False])
def test_what_is_over_in_a_moment_or_is_quiet_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, is_quiet: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", err := Stderr(is_terminal=not is_quiet))
    session = Session()
    session.is_quiet = is_quiet
    if is_quiet:
        monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)

    with Progress(session, "Reading"):
        pass

    assert err.text == ""


def test_a_wait_on_a_pipe_tells_how_many_are_in_each_state(
    quick: None, desk: Any, agentorch: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "tasks.json").write_text(json.dumps([{"name": "a"}, {"name": "b"}]))
    told = asyncio.Event()
    asked: list[dict[str, Any]] = []

    def submit(**parameters: Any) -> SubmitReply:
        ids = [task.task_id for task in parameters["tasks"]]
        submitted = [SubmittedTask(task_id=one, status="pending") for one in ids]
        return SubmitReply(submission_id="s1", tasks=submitted)

    def tally(**parameters: Any) -> TallyView:
        asked.append(parameters)
        if len(asked) > 3:
            told.set()
        return TallyView(counts={"completed": 1, "running": 2_000}, running=sample.tasks()[:1])

    async def wait(**parameters: Any) -> Any:
        await told.wait()
        return [sample.tasks()[1]]

    desk.answers |= {"task.submit": submit, "task.tally": tally, "task.wait": wait}

    outcome = agentorch("task", "submit", "tasks.json", "--wait", "--json")

    assert outcome.code == 0
    assert "2,000 running, 1 completed\n" in outcome.err
    json.loads(outcome.out)
    assert {one["submission_id"] for one in asked} == {"s1"}
    assert {len(one["task_ids"]) for one in asked} == {1}, "not all ids each time"


def test_results_name_their_tasks_at_80_columns(
    desk: Any, agentorch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    from agentorch_cli.cli import columns
    from agentorch_cli.cli.look import Look
    from agentorch_cli.cli.tables import Page

    stream = io.StringIO()
    page = Page(stream, Look(is_terminal=True, is_ascii=False, width=80, height=24, now=sample.NOW))

    page.table(columns.RESULTS, sample.tasks())

    for task in sample.tasks():
        assert task.task_id in stream.getvalue()


async def test_a_first_start_is_shown_until_it_is_over(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", err := Stderr())

    @contextlib.asynccontextmanager
    async def opening() -> AsyncIterator[str]:
        await asyncio.to_thread(err.until, FIRST_START)
        yield "a client"

    async with progress.shown_while_opening(Session(), FIRST_START, opening()) as opened:
        assert opened == "a client"
        assert "progress" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ("is_there", "database", "expected"),
    [(False, None, True), (True, None, False), (False, "postgresql://here/fleet", False)],
)
def test_only_where_the_files_of_the_database_are_missing_is_it_a_first_start(
    tmp_path: Path, is_there: bool, database: str | None, expected: bool
) -> None:
    (tmp_path / "postgres").mkdir()
    if is_there:
        (tmp_path / "postgres" / "PG_VERSION").write_text("18\n")
    session = Session()
    session.data_dir, session.database_url = str(tmp_path), database

    assert session.makes_database is expected


def test_a_folder_that_cannot_be_looked_into_is_left_to_whoever_opens_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    session = Session()
    session.data_dir = str(tmp_path)
    assert session.settings.data_dir == tmp_path
    monkeypatch.setattr(Path, "exists", refuse)

    assert session.makes_database is False
