"""`status --watch` in real terminals: keys, sizes, signals, near and far."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pexpect
import pytest
import sample_fleet as sample
from rich.cells import cell_len
from terminal import ESCAPES, STUB, Watched

from agentorch_cli.cli import board, crew
from agentorch_cli.cli.frame import frame
from agentorch_cli.cli.look import Look
from agentorch_cli.cli.sparks import History, rate, spark
from agentorch_cli.cli.tables import Page
from agentorch_cli.client.remote import RemoteClient, Target
from agentorch_cli.core.model import TaskSpec
from agentorch_cli.views import FlowView, StatusView
from bench.fleet.processes import PROGRAM, Serve, new_data_dir, remove

TERMINAL = Look(is_terminal=True, is_ascii=False, width=80, height=24, now=sample.NOW)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "PYTHONPATH") if key in os.environ}
    return {**kept, "HOME": str(tmp_path), "AGENTORCH_DATA_DIR": str(tmp_path / "data"), "LC_ALL": "C.UTF-8"}


@pytest.fixture
def watched(environment: dict[str, str]) -> Iterator[Watched]:
    one = Watched([STUB, "status", "--watch"], environment)
    yield one
    if not one.child.closed:
        one.child.close(force=True)


def is_high(rows: int, lines: list[str]) -> bool:
    return len(lines) == rows


# --- keys, sizes, signals -----------------------------------------------------------------------


def test_p_stops_the_clock_of_the_view_and_starts_it_again(watched: Watched) -> None:
    watched.until("q quits")

    watched.send("p")
    paused = watched.until(" paused ")
    with pytest.raises(pexpect.TIMEOUT):  # the fleet's clock goes on, and nothing is drawn
        watched.child.expect_exact("\x1b[?2026l", timeout=1.5)
    watched.send("p")
    going = watched.until("p pauses")

    assert "p goes on" in paused[-1]
    assert paused[0].split()[-1] != going[0].split()[-1]
    watched.send("q")
    assert watched.end() == 0
    assert watched.is_given_back


def test_the_view_takes_the_size_that_the_terminal_has_now(watched: Watched) -> None:
    watched.until("RUNNING")

    for rows, columns in ((5, 20), (60, 200), (10, 40), (24, 80)):
        watched.resize(rows, columns)
        lines = watched.until(partial(is_high, rows))

        assert {cell_len(line) for line in lines[:-1]} == {columns}

    watched.send("q")
    assert watched.end() == 0


def test_ctrl_z_gives_the_terminal_back_until_the_view_goes_on(environment: dict[str, str]) -> None:
    shell = pexpect.spawn(
        "bash",
        ["--norc", "-i"],
        env={**environment, "TERM": "xterm-256color", "PS1": "ready> "},
        encoding="utf-8",
        timeout=30,
        dimensions=(24, 80),
    )
    shell.expect_exact("ready> ")
    shell.sendline(f"{sys.executable} {STUB} status --watch")
    shell.expect_exact("q quits")

    shell.send("\x1a")
    shell.expect("Stopped")
    left = shell.before
    shell.sendline("stty -a")
    shell.expect_exact("ready> ")
    shell.expect_exact("ready> ")
    modes = shell.before
    shell.sendline("fg")
    shell.expect_exact("\x1b[?1049h")
    shell.expect_exact("q quits")
    shell.send("q")
    shell.expect_exact("\x1b[?1049l")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    shell.close()

    assert "\x1b[?1049l" in left
    assert "\x1b[?25h" in left
    assert re.search(r"(?<!-)icanon", modes)
    assert re.search(r"(?<!-)\becho\b", modes)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_view_with_the_terminal_as_it_was(watched: Watched, number: int, code: int) -> None:
    watched.until("q quits")

    watched.child.kill(number)

    assert watched.end() == code
    assert watched.is_given_back


def test_a_terminal_that_goes_away_ends_the_view(watched: Watched) -> None:
    watched.until("q quits")

    os.close(watched.child.child_fd)

    _, status = os.waitpid(watched.child.pid, 0)
    watched.child.closed, watched.child.child_fd, watched.child.terminated = True, -1, True
    assert os.waitstatus_to_exitcode(status) in (129, 120), "120: what was left could not be written"


def test_an_error_ends_the_view_with_the_terminal_as_it_was(environment: dict[str, str]) -> None:
    watched = Watched([STUB, "status", "--watch"], {**environment, "STUB_LOOKS": "2"})
    watched.until("q quits")

    assert watched.end() == 5
    assert watched.is_given_back
    after = ESCAPES.sub("", watched.raw[watched.raw.rfind("\x1b[?1049l") :])
    assert "error: the database went away" in after
    assert "Traceback" not in watched.raw


def test_a_plain_terminal_gets_pages_without_a_screen(environment: dict[str, str]) -> None:
    child = pexpect.spawn(
        sys.executable,
        [STUB, "status", "--watch"],
        env={**environment, "TERM": "dumb", "STUB_LOOKS": "2"},
        encoding="utf-8",
        timeout=30,
    )
    child.expect(pexpect.EOF)

    assert "RUNNING" in child.before
    assert "\x1b" not in child.before


def test_colours_are_left_out_where_nobody_wants_them(environment: dict[str, str]) -> None:
    watched = Watched([STUB, "status", "--watch"], {**environment, "NO_COLOR": "1"})
    watched.until("RUNNING")
    watched.send("q")
    watched.end()

    codes = {code for codes in re.findall(r"\x1b\[([0-9;]*)m", watched.raw) for code in codes.split(";")}
    assert not [code for code in codes if code.isdecimal() and 30 <= int(code) <= 107]


# --- a real fleet, near and far -----------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet() -> Iterator[Serve]:
    folder = new_data_dir()
    serve = Serve(folder, name="watched", environment={"AGENTORCH_ENGINE_DRAIN_TIMEOUT": "0"})
    serve.launch()
    try:
        serve.wait_ready()
        yield serve
    finally:
        serve.send(signal.SIGTERM)
        serve.wait(20)
        remove(folder)


def ask(serve: Serve, method: str, **parameters: Any) -> Any:
    async def call() -> Any:
        async with RemoteClient(Target(serve.url)) as client:
            return await client.call(method, **parameters)

    return asyncio.run(call())


@pytest.mark.parametrize("where", ["here", "there"])
def test_the_view_follows_a_real_fleet(fleet: Serve, environment: dict[str, str], where: str) -> None:
    server = fleet.url.removesuffix("/agents")
    place = ["--data-dir", str(fleet.data_dir)] if where == "here" else ["--server", server]
    watched = Watched([*PROGRAM[1:], "status", "--watch", *place], environment)
    watched.until("q quits")
    alarm = f"1 ready task wants an agent with {where}"

    ask(fleet, "task.submit", tasks=[TaskSpec(where, required_capabilities=(where,))])
    lines = watched.until(alarm)
    ask(fleet, "task.cancel", task_ids=[where])
    watched.until(lambda lines: "cancelled" in "".join(lines) and alarm not in "".join(lines))

    assert (server in lines[0]) == (where == "there")
    watched.send("q")
    assert watched.end() == 0
    assert watched.is_given_back


def test_a_server_that_goes_away_is_told_of_on_the_screen(fleet: Serve, environment: dict[str, str]) -> None:
    server = fleet.url.removesuffix("/agents")
    watched = Watched([*PROGRAM[1:], "status", "--watch", "--server", server], environment)
    watched.until("q quits")

    fleet.send(signal.SIGKILL)
    lines = watched.until(lambda lines: "connection" in lines[-1] or "reach" in lines[-1])

    assert "q quits" in lines[-1]
    watched.send("q")
    assert watched.end() == 0
    assert watched.is_given_back


# --- what a frame holds -------------------------------------------------------------------------


def shown(status: StatusView, width: int, height: int, **rest: object) -> list[str]:
    look = replace(TERMINAL, width=width, height=height)
    stream = io.StringIO()
    page = Page(stream, look)
    page.console.print(frame(status, page.console, look, **rest), end="")  # type: ignore[arg-type]
    return ESCAPES.sub("", stream.getvalue()).split("\n")


def test_problems_stand_on_top_then_the_busiest_then_who_is_away() -> None:
    fleet = sample.agents()
    busy, draining, offline = fleet
    idle = busy.model_copy(update={"agent_id": "idle", "load": 0.0, "busy": 0})
    out = busy.model_copy(
        update={"agent_id": "out", "load": 0.0, "excluded_until": sample.NOW + timedelta(seconds=60)}
    )
    gone = offline.model_copy(update={"agent_id": "gone", "working_on": ["t1"]})

    order = crew.in_order([idle, offline, busy, draining, gone, out], sample.NOW)

    assert order == [out, gone, draining, busy, idle, offline]


def test_an_engine_that_does_not_run_is_told_with_what_starts_it_and_once() -> None:
    status = sample.status().model_copy(update={"nodes": [], "alarms": []})

    [title] = [line.plain for line in board.head(status, TERMINAL) if line.plain.startswith("Engine")]

    assert title == "Engine  not running; agentorch serve or agentorch up starts it"


def test_agents_that_are_alike_stand_in_the_order_in_which_people_count() -> None:
    first = sample.agents()[0]
    names = ["reader-1", "reader-2", "reader-10", "writer-1", "9", "10", ""]
    agents = [first.model_copy(update={"agent_id": name}) for name in sorted(names)]

    assert [agent.agent_id for agent in crew.in_order(agents, sample.NOW)] == [
        "",
        "9",
        "10",
        "reader-1",
        "reader-2",
        "reader-10",
        "writer-1",
    ]


def test_names_of_work_stand_below_each_other_whether_its_progress_is_known_or_not() -> None:
    status = sample.status()
    told, untold = status.running[0], sample.task_id(77)
    agents = [
        status.agents[0].model_copy(
            update={"agent_id": "a", "working_on": [told.task_id], "consecutive_failures": 0}
        ),
        status.agents[0].model_copy(
            update={"agent_id": "b", "working_on": [untold], "names": {untold: "other"}}
        ),
    ]
    told = told.model_copy(update={"name": "known", "progress": 0.5})
    status = status.model_copy(update={"running": [told], "agents": agents})

    doing = next(column for column in crew.crew(status) if column.title == "DOING")
    first, second = (doing.cell(agent, TERMINAL).plain for agent in agents)

    assert (first, first.index("known")) == (" 50% known", second.index("other"))


def test_an_agent_shows_by_name_and_progress_what_it_does() -> None:
    status = sample.status()
    status.agents[0].working_on = [sample.task_id(7), status.running[0].task_id]

    lines = "\n".join(shown(status, 200, 60))

    assert re.search(r"reader-1 .* 40% summarise the annual rep", lines)


def test_a_wide_terminal_has_two_columns_of_tables() -> None:
    lines = shown(sample.status(), 200, 60)

    heads = [line for line in lines if "AGENTS (3)" in line]
    assert "RECENT" in heads[0].split("│")[1]
    assert not [line for line in shown(sample.status(), 120, 60) if "│" in line]


def test_a_small_terminal_shows_counts_and_how_many_alarms_there_are() -> None:
    status = sample.status()
    status.alarms = ["one thing is wrong with the whole fleet", "another thing is wrong"]

    lines = shown(status, 20, 5)

    assert lines[1].strip() == "! 2 alarms"
    assert lines[2].startswith("Agents")
    assert lines[4].strip() == "p pauses  q quits"


def test_alarms_take_a_quarter_of_the_screen_and_the_rest_is_counted() -> None:
    status = sample.status()
    status.alarms = [f"alarm number {n}" for n in range(20)]

    lines = shown(status, 80, 24)

    assert [line.strip() for line in lines if line.startswith("!")] == [
        *(f"! alarm number {n}" for n in range(4)),
        "! 16 more",
    ]


def test_what_is_estimated_is_marked() -> None:
    status = sample.status()
    status.counts_estimated = True

    text = "\n".join(shown(status, 120, 40))

    assert "~48,210 completed" in text
    assert "○ 12 pending" in text


def test_a_paused_view_says_so_and_a_note_stands_beside_the_keys() -> None:
    lines = shown(sample.status(), 80, 24, is_paused=True, note="the server is gone\x1b[2J")

    assert " paused " in lines[0]
    assert lines[-1].startswith("p goes on  q quits   the server is gone\\x1b[2J")


# --- what comes and goes ------------------------------------------------------------------------


def test_bars_show_none_as_the_lowest_and_unknown_as_a_blank() -> None:
    assert spark([None, 0, 1, 4, 8], TERMINAL).plain == " ▁▂▅█"
    assert spark([0, 2], replace(TERMINAL, is_ascii=True)).plain == "_#"
    assert spark([], TERMINAL).plain == ""


def test_a_view_that_stays_open_remembers_more_than_one_look_tells() -> None:
    history = History()
    history.add(FlowView(step=101, came=[2, 4], ended=[0, 2], in_per_second=0.1))
    history.add(FlowView(step=103, came=[None, 6], ended=[None, 0], out_per_second=0.2, seconds=30))

    came, ended = history.lines(10)

    assert came == [1.0, 2.0, None, 3.0]
    assert ended == [0.0, 1.0, None, 0.0]
    assert (history.in_per_second, history.out_per_second) == (0.0, 0.2)


def test_where_more_happens_than_can_be_read_the_rate_of_now_is_remembered() -> None:
    history = History()
    history.add(
        FlowView(step=5, came=[None], ended=[None], in_per_second=50, out_per_second=900, seconds=0.4)
    )

    assert history.lines(4) == ([50], [900])


@pytest.mark.parametrize(
    ("per_second", "words"),
    [(0, "0/s"), (1 / 3600, "<1/min"), (0.25, "15/min"), (1.23, "1.2/s"), (11_400, "11,400/s")],
)
def test_rates_are_short(per_second: float, words: str) -> None:
    assert rate(per_second) == words


def test_the_page_of_status_has_deadlocks_and_the_flow() -> None:
    status = sample.status()
    status.deadlocks = [sample.deadlock()]
    status.flow = FlowView(step=9, came=[0, 4], ended=[2, 0], in_per_second=1.5, out_per_second=0.5)
    stream = io.StringIO()

    board.draw(Page(stream, replace(TERMINAL, width=120)), status)

    text = ESCAPES.sub("", stream.getvalue())
    assert re.search(r"Flow +in +1.5/s ▁█ +out +0.5/s █▁", text)
    assert re.search(r"DEADLOCKS \(1\)\n.*\ncircular_dependency  ring-a, ring-b  open", text)


def test_a_step_of_no_length_that_a_server_tells_of_divides_nothing() -> None:
    history = History()
    history.add(FlowView(step=1, came=[2], ended=[1], step_seconds=0.0))

    assert history.in_per_second >= 0.0
