"""`agentorch top`: by Textual's own pilot, and once in a real terminal."""

from __future__ import annotations

import asyncio
import builtins
import importlib.util
import os
import re
import signal
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pexpect
import pytest
import sample_fleet as sample
from rich.text import Text
from terminal import STUB
from textual.geometry import Region
from textual.pilot import Pilot
from textual.widgets import Input, Static

from agentorch_cli.cli.cockpit.app import READ_ONLY, Cockpit
from agentorch_cli.cli.cockpit.grid import Grid
from agentorch_cli.cli.cockpit.pages import Detail, Help, Question
from agentorch_cli.errors import Conflict, DatabaseUnreachable
from agentorch_cli.text import one_line
from agentorch_cli.views import (
    BarView,
    ChangeReply,
    GraphEdgeView,
    GraphNodeView,
    GraphView,
    StatusView,
    TimelineView,
    WhyLink,
    WhyView,
)

SIZE = (120, 40)


class Client:
    """Answers with the sample fleet, and remembers what was asked to change."""

    is_remote = False

    def __init__(self) -> None:
        self.status: StatusView | BaseException = sample.status()
        self.status.deadlocks = [sample.deadlock()]
        self.changes: list[tuple[str, dict[str, Any]]] = []
        self.refusal: BaseException | None = None

    async def call(self, method: str, **parameters: Any) -> Any:
        match method:
            case "status.get":
                if isinstance(self.status, BaseException):
                    raise self.status
                return self.status.model_copy()
            case "task.list":
                return sample.tasks()
            case "task.get":
                story = sample.story()
                story.task_id = parameters["task_id"]
                return story
            case "task.why":
                link = WhyLink(task_id=parameters["task_id"], code="x", sentence="waits for the printer")
                return WhyView(task_id=link.task_id, status="pending", is_clear=False, links=[link])
            case "task.graph":
                nodes = [
                    GraphNodeView(task_id=one, name=one, status="completed", type="x")
                    for one in ("root", "leaf")
                ]
                return GraphView(nodes=nodes, edges=[GraphEdgeView(before="root", after="leaf")])
            case "task.timeline":
                bar = BarView(
                    task_id="t",
                    name="slow-part",
                    task_status="completed",
                    status="completed",
                    start=sample.ago(9),
                    end=sample.ago(2),
                    agent="reader-1",
                )
                return TimelineView(task_id="t", bars=[bar], start=sample.ago(9), end=sample.NOW)
            case "agent.get":
                return sample.agents()[0]
            case "consensus.get":
                return sample.decision()
            case "deadlock.get":
                return sample.deadlock()
        self.changes.append((method, parameters))
        if self.refusal is not None:
            raise self.refusal
        ids = parameters.get("task_ids") or parameters.get("agent_ids") or []
        return ChangeReply(changed=list(ids))


@asynccontextmanager
async def opened(client: Client, **rest: Any) -> AsyncIterator[tuple[Cockpit, Pilot[None]]]:
    cockpit = Cockpit(client, **rest)  # type: ignore[arg-type]
    async with cockpit.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: cockpit.query_one(Grid).row_count > 0)
        yield cockpit, pilot


async def until(pilot: Pilot[None], is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await pilot.pause(0.02)


def rows(cockpit: Cockpit) -> list[str]:
    grid = cockpit.screen_stack[0].query_one(Grid)
    return ["|".join(str(cell) for cell in grid.get_row_at(n)) for n in range(grid.row_count)]


def paper(cockpit: Cockpit) -> str:
    content = cockpit.screen.query_one("#paper", Static).content
    return content.plain if isinstance(content, Text) else str(content)


def is_listed(cockpit: Cockpit, text: str) -> bool:
    return text in "".join(rows(cockpit))


def is_written(cockpit: Cockpit, text: str) -> bool:
    return text in paper(cockpit)


async def open_tasks(cockpit: Cockpit, pilot: Pilot[None]) -> None:
    await pilot.press("2")
    await until(pilot, lambda: len(rows(cockpit)) == len(sample.tasks()))


async def test_four_tables_are_a_key_away() -> None:
    async with opened(Client()) as (cockpit, pilot):
        assert [re.findall(r"writer|reader|evil", row)[0] for row in rows(cockpit)] == [
            "writer",
            "reader",
            "evil",
        ]

        for key, text in (
            ("2", "summarise the annual"),
            ("3", "is the statement"),
            ("4", "circular"),
            ("1", "reader-1"),
        ):
            await pilot.press(key)
            await until(pilot, partial(is_listed, cockpit, text))

        await pilot.press("tab")
        await until(pilot, lambda: "summarise the annual" in "".join(rows(cockpit)))


async def test_a_filter_leaves_the_rows_that_hold_all_of_its_words() -> None:
    async with opened(Client()) as (cockpit, pilot):
        await open_tasks(cockpit, pilot)

        await pilot.press("slash", *"FAILED")
        await until(pilot, lambda: len(rows(cockpit)) == 1)
        assert "failed" in rows(cockpit)[0]
        await pilot.press("enter")
        assert cockpit.query_one(Input).value == "FAILED"
        assert "1 of" in str(cockpit.query_one("#state", Static).content)

        await pilot.press("escape")
        await until(pilot, lambda: len(rows(cockpit)) == len(sample.tasks()))
        await pilot.press("slash", *"!failed")
        await until(pilot, lambda: len(rows(cockpit)) == len(sample.tasks()) - 1)


async def test_a_filter_finds_what_no_column_shows() -> None:
    async with opened(Client()) as (cockpit, pilot):
        await pilot.press("slash", *"translate")

        await until(pilot, lambda: len(rows(cockpit)) == 1)
        assert "writer" in rows(cockpit)[0]


async def test_s_sorts_by_the_next_column_and_turns_round() -> None:
    async with opened(Client()) as (cockpit, pilot):
        grid = cockpit.query_one(Grid)
        while grid.sorted_by.get("Agents", ("", False))[0] != "SCORE":
            await pilot.press("s")
        largest_first = rows(cockpit)

        await pilot.press("S")

        assert rows(cockpit) == largest_first[::-1]
        assert any("SCORE ▲" in str(column.label) for column in grid.ordered_columns)
        assert "by score" in str(cockpit.query_one("#state", Static).content)


async def test_the_cursor_stays_on_its_row_while_others_come() -> None:
    client = Client()
    async with opened(client) as (cockpit, pilot):
        grid = cockpit.query_one(Grid)
        await pilot.press("down")
        chosen = grid.chosen
        assert isinstance(client.status, StatusView)
        newcomer = sample.agents()[0].model_copy(update={"agent_id": "aaa", "load": 1.0})
        client.status.agents = [newcomer, *client.status.agents]

        await until(pilot, lambda: grid.row_count == 4)

        assert grid.chosen == chosen
        assert grid.cursor_row == 2


async def test_enter_opens_a_task_with_its_story_why_votes_and_graph() -> None:
    async with opened(Client()) as (cockpit, pilot):
        await open_tasks(cockpit, pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(cockpit.screen, Detail))

        for key, text in (
            ("1", "STORY"),
            ("2", "waits for the printer"),
            ("3", "BALLOTS"),
            ("4", "leaf"),
            ("5", "slow-part"),
        ):
            await pilot.press(key)
            await until(pilot, partial(is_written, cockpit, text))

        await pilot.press("q")
        await until(pilot, lambda: not isinstance(cockpit.screen, Detail))
        assert cockpit.is_running


@pytest.mark.parametrize(
    ("table", "text"), [("1", "1,204 completed"), ("3", "BALLOTS"), ("4", "ring-a waits for ring-b")]
)
async def test_enter_opens_agents_votes_and_deadlocks(table: str, text: str) -> None:
    async with opened(Client()) as (cockpit, pilot):
        await pilot.press(table)
        await until(pilot, lambda: cockpit.query_one(Grid).row_count > 0)

        await pilot.press("enter")

        await until(pilot, lambda: isinstance(cockpit.screen, Detail) and text in paper(cockpit))


async def test_an_answer_that_comes_while_the_screen_is_taken_away_is_dropped() -> None:
    """Else whoever leaves at that moment is shown how the program is made."""
    async with opened(Client()) as (cockpit, _):
        await cockpit.query_one("#state").remove()

        cockpit.show()

        assert cockpit.is_running


async def test_nothing_is_changed_without_being_allowed_to() -> None:
    client = Client()
    async with opened(client) as (cockpit, pilot):
        await open_tasks(cockpit, pilot)

        await pilot.press("C", "R")
        await pilot.press("y")

        assert not isinstance(cockpit.screen, Question)
        assert {one.message for one in cockpit._notifications} == {READ_ONLY}
        assert client.changes == []


@pytest.mark.parametrize(
    ("table", "key", "method", "parameter"),
    [
        ("2", "C", "task.cancel", "task_ids"),
        ("2", "R", "task.retry", "task_ids"),
        ("1", "P", "agent.resume", "agent_ids"),
    ],
)
async def test_a_change_is_made_after_a_yes_and_only_then(
    table: str, key: str, method: str, parameter: str
) -> None:
    client = Client()
    async with opened(client, may_write=True) as (cockpit, pilot):
        await pilot.press(table)
        await until(pilot, lambda: cockpit.query_one(Grid).row_count > 1)
        chosen = cockpit.query_one(Grid).chosen

        await pilot.press(key)
        await until(pilot, lambda: isinstance(cockpit.screen, Question))
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(cockpit.screen, Question))
        assert client.changes == []

        await pilot.press(key)
        await until(pilot, lambda: isinstance(cockpit.screen, Question))
        await pilot.press("y")
        await until(pilot, lambda: bool(client.changes))
        assert client.changes == [(method, {parameter: [chosen]})]


async def test_a_refused_change_is_told_and_the_view_goes_on() -> None:
    client = Client()
    client.refusal = Conflict("it has ended already\x1b[2J")
    async with opened(client, may_write=True) as (cockpit, pilot):
        await open_tasks(cockpit, pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(cockpit.screen, Detail))

        await pilot.press("C")
        await until(pilot, lambda: isinstance(cockpit.screen, Question))
        await pilot.press("y")

        await until(pilot, lambda: bool(cockpit._notifications))
        assert [one.message for one in cockpit._notifications] == ["it has ended already\\x1b[2J"]
        assert cockpit.is_running


async def test_p_pauses_and_question_mark_lists_the_keys() -> None:
    client = Client()
    async with opened(client) as (cockpit, pilot):
        await pilot.press("p")
        assert "paused" in str(cockpit.query_one("#head", Static).content)
        assert isinstance(client.status, StatusView)
        client.status.agents = []
        await pilot.pause(0.6)
        assert cockpit.query_one(Grid).row_count == 3

        await pilot.press("p")
        await until(pilot, lambda: cockpit.query_one(Grid).row_count == 0)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(cockpit.screen, Help))


async def test_an_error_ends_the_view_and_is_the_programs() -> None:
    client = Client()
    cockpit = Cockpit(client)  # type: ignore[arg-type]
    client.status = DatabaseUnreachable("the database went away")

    async with cockpit.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: cockpit._error is not None)

    assert cockpit._error is client.status


@pytest.mark.parametrize("size", [(20, 5), (40, 10), (200, 60)])
async def test_it_fits_terminals_of_any_size(size: tuple[int, int]) -> None:
    cockpit = Cockpit(Client())  # type: ignore[arg-type]
    async with cockpit.run_test(size=size) as pilot:
        await until(pilot, lambda: cockpit.state is not None)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: cockpit.query_one(Grid).row_count == 3)


async def test_it_takes_the_size_that_the_terminal_has_now() -> None:
    async with opened(Client()) as (cockpit, pilot):
        await pilot.press("p")  # nothing else draws it anew
        wide = rows(cockpit)

        await pilot.resize_terminal(50, 20)
        await until(pilot, lambda: len(rows(cockpit)[0]) < len(wide[0]))
        await pilot.resize_terminal(*SIZE)
        await until(pilot, lambda: rows(cockpit) == wide)


async def test_a_question_names_the_task_as_people_do_and_so_does_the_answer() -> None:
    client = Client()
    async with opened(client, may_write=True) as (cockpit, pilot):
        await open_tasks(cockpit, pilot)
        task_id = cockpit.query_one(Grid).chosen
        name = next(task.name for task in sample.tasks() if task.task_id == task_id)
        assert name is not None

        await pilot.press("C")
        await until(pilot, lambda: isinstance(cockpit.screen, Question))
        asked = str(cockpit.screen.query_one("#ask", Static).content)
        assert f"Cancel the task {one_line(name)}?\n{task_id}\n" in asked

        await pilot.press("y")
        await until(pilot, lambda: bool(cockpit._notifications))
        assert [one.message for one in cockpit._notifications] == [f"{one_line(name)}: cancelled"]


async def test_a_table_says_of_how_many_tasks_it_shows_some() -> None:
    client = Client()
    assert isinstance(client.status, StatusView)
    client.status.task_counts = {"completed": 2_000}
    async with opened(client) as (cockpit, pilot):
        await open_tasks(cockpit, pilot)

        line = str(cockpit.query_one("#state", Static).content)
        assert line.startswith(f"{len(rows(cockpit))} of 2,000 tasks")


async def test_a_long_word_about_a_key_goes_on_below_itself() -> None:
    async with opened(Client()) as (cockpit, pilot):
        await pilot.resize_terminal(70, 30)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(cockpit.screen, Help))
        await pilot.pause()
        strips = [strip.text for strip in cockpit.screen.query_one("#ask").render_lines(Region(0, 0, 70, 20))]

    begin = next(line.index("filter: every") for line in strips if "filter: every" in line)
    after = strips[next(n for n, line in enumerate(strips) if "filter: every" in line) + 1]
    assert after[:begin].strip("│ ") == ""


# --- the command --------------------------------------------------------------------------------


def test_without_the_extra_it_says_which_to_install(
    agentorch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "agentorch_cli.cli.top.find_spec", lambda name: None if name == "textual" else find(name)
    )

    outcome = agentorch("top")

    assert outcome.code == 2
    assert 'the extra "tui"' in outcome.err
    assert "pip install 'agentorch-cli[tui]'" in outcome.err


def test_on_a_pipe_it_says_what_to_use(agentorch: Callable[..., Any]) -> None:
    outcome = agentorch("top")

    assert outcome.code == 2
    assert "status --watch" in outcome.err


def test_no_other_command_loads_textual(
    agentorch: Callable[..., Any], desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        assert name.partition(".")[0] != "textual"
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    desk.answers["status.get"] = sample.status()

    assert agentorch("status").code == 0
    assert agentorch("top", "--help").code == 0


def in_a_terminal(home: Path, **options: Any) -> pexpect.spawn[str]:
    """`agentorch top` as a process of its own."""
    kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    return pexpect.spawn(
        sys.executable,
        [STUB, "top"],
        env={**kept, "HOME": str(home), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
        encoding="utf-8",
        timeout=30,
        dimensions=(30, 100),
        **options,
    )


@pytest.mark.parametrize("hangup", [signal.SIG_DFL, signal.SIG_IGN], ids=["heard", "ignored"])
def test_a_terminal_that_goes_away_ends_it(tmp_path: Path, hangup: signal.Handlers) -> None:
    """Also under `nohup`, where the signal of it is ignored."""
    child = in_a_terminal(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup))
    child.expect_exact("reader-1")

    os.close(child.child_fd)

    pid, status = os.waitpid(child.pid, 0)
    assert pid == child.pid
    assert os.waitstatus_to_exitcode(status) in (129, 120), "120: what was left could not be written"
    child.closed, child.child_fd, child.terminated = True, -1, True


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux shows them")
def test_after_a_stop_that_nobody_announced_it_goes_on_as_before(tmp_path: Path) -> None:
    child = in_a_terminal(tmp_path)
    child.expect_exact("reader-1")
    threads = Path(f"/proc/{child.pid}/task")
    before = len(list(threads.iterdir()))

    child.kill(signal.SIGSTOP)
    child.kill(signal.SIGCONT)
    child.expect_exact("\x1b[?1049l")
    child.expect_exact("\x1b[?1049h")
    child.send("2")
    child.expect_exact("summarise the annual")

    assert len(list(threads.iterdir())) == before
    child.send("q")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.parametrize(("ending", "code"), [("q", 0), ("\x03", 130), (signal.SIGTERM, 143)])
def test_in_a_real_terminal_it_leaves_everything_as_it_was(
    tmp_path: Path, ending: str | signal.Signals, code: int
) -> None:
    child = in_a_terminal(tmp_path)
    before = termios.tcgetattr(child.child_fd)
    child.expect_exact("reader-1")
    if ending == "q":
        child.send("2")
        child.expect_exact("summarise the annual")
        child.setwinsize(20, 60)
        child.send("\r")
        child.expect_exact("STORY")
        child.send("q")
        child.expect_exact("filter")

    if isinstance(ending, signal.Signals):
        child.kill(ending)
    else:
        child.send(ending)

    child.expect(pexpect.EOF)
    assert "\x1b[?1049l" in child.before
    assert "\x1b[?25h" in child.before
    assert "Traceback" not in child.before
    assert termios.tcgetattr(child.child_fd) == before
    child.close()
    assert child.exitstatus == code
