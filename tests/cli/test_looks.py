"""What matters is not hidden where there is little room, and people read names where they would read ids."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import sample_fleet as sample
from test_pages import ESCAPES, PIPE, TERMINAL, drawn

from agentorch_cli.cli import board, columns, crew, deadlock, demo_page, lists, logbook, setup, story
from agentorch_cli.cli.names import Teller
from agentorch_cli.cli.session import Session
from agentorch_cli.cli.tables import Column, fit
from agentorch_cli.doctor import Finding
from agentorch_cli.pictures.graph_text import graph_text
from agentorch_cli.pictures.model import Graph, GraphEdge, GraphNode
from agentorch_cli.supervision.record import Line
from agentorch_cli.views import DeadlockView, EventView, TaskView, WhyLink, WhyView


def shown(look: object, draw: object) -> list[str]:
    return [line.rstrip() for line in ESCAPES.sub("", drawn(look, draw)).splitlines()]  # type: ignore[arg-type]


def running(number: int) -> TaskView:
    task = sample.tasks()[0]
    return task.model_copy(
        update={
            "task_id": sample.task_id(number),
            "progress": 0.07,
            "note": "a long note that tells how far it has come",
            "assigned_agents": ["a-reader-1", "reader-2", "reader-3"],
        }
    )


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_how_far_a_task_is_can_be_read_at_any_width(width: int) -> None:
    lines = shown(
        replace(TERMINAL, width=width), lambda page: page.table(columns.RUNNING, [running(1), running(2)])
    )

    assert all("░" in line and "  7%" in line for line in lines[1:])


def test_of_many_agents_the_first_and_their_number_are_shown_where_there_is_little_room() -> None:
    def draw(width: int) -> str:
        look = replace(TERMINAL, width=width)
        return "\n".join(shown(look, lambda page: page.table(columns.RUNNING, [running(1)])))

    assert "a-reader-1, reader-2, reader-3" in draw(200)
    assert "+2" in draw(100)
    assert "reader-2" not in draw(100)
    assert "reader-2, reader-3" in "\n".join(
        shown(PIPE, lambda page: page.table(columns.RUNNING, [running(1)]))
    )


def test_room_that_is_left_over_goes_back_to_an_id_that_was_folded() -> None:
    made = [
        Column("A", lambda row, look: look.nothing(), is_id=True, fold_at=10),
        Column("B", lambda row, look: look.nothing(), 1, is_id=True, fold_at=75),
    ]

    kept, widths = fit(made, [60, 70], 80)  # the second is left out, and there is room for all of the first

    assert (kept, widths) == ([0], [60])


def test_how_often_an_agent_fails_in_a_row_does_not_make_a_column_of_numbers_wide() -> None:
    agent = sample.agents()[0].model_copy(update={"consecutive_failures": 6, "failed": 6})
    status = sample.status().model_copy(update={"agents": [agent]})

    first, second = shown(
        replace(TERMINAL, width=140), lambda page: page.table(crew.crew(status), status.agents)
    )

    assert "6 failures in a row" in second
    assert first.index("FAILED") + len("FAILED") == second.index(" 6 ") + 2


def why() -> WhyView:
    waits, reads = sample.task_id(1), sample.task_id(2)
    return WhyView(
        task_id=waits,
        status="pending",
        is_clear=False,
        names={waits: "publish", reads: "read it all"},
        links=[
            WhyLink(
                task_id=waits,
                code="agents",
                sentence="wants an agent with teleport",
                seconds=127,
                agents={
                    **{f"checker-{n}": "lacks the capability `teleport`" for n in range(12)},
                    "away": f"is busy with {reads} for 2m 7s, and that is told in a line that is too long",
                },
            ),
            WhyLink(task_id=waits, code="dependency", sentence=f"waits for task {reads} (running)"),
            WhyLink(task_id=reads, code="running", sentence="runs on agent x", depth=1),
        ],
    )


def test_why_tells_alike_agents_together_and_the_nearest_first() -> None:
    lines = shown(TERMINAL, lambda page: story.draw_why(page, why()))

    assert lines[0].endswith(f"publish  {sample.task_id(1)}")
    assert lines[2].startswith("    away is busy with read it all (")
    assert lines[3].startswith("    ") and not lines[3].startswith("     ")  # goes on under itself
    text = " ".join(line.strip() for line in lines)
    assert "lacks the capability `teleport`: checker-0, checker-1, checker-2 and 9 more" in text
    assert "waits for task read it all (running)" in text  # its id was told above
    assert "read it all runs on agent x" in text


def test_on_a_pipe_why_tells_each_agent_and_every_id() -> None:
    lines = shown(PIPE, lambda page: story.draw_why(page, why()))

    assert sum("lacks the capability" in line for line in lines) == 12
    assert f"  waits for task {sample.task_id(2)} (running)" in lines
    assert max(map(len, lines)) > 100


def test_an_id_that_a_person_chose_is_a_name_already() -> None:
    assert Teller({"a": "something else"})("it waits for a slot") == "it waits for a slot"


def test_a_command_in_a_sentence_keeps_its_id_to_be_copied() -> None:
    one, other = sample.task_id(1), sample.task_id(2)
    tell = Teller({one: "read it all", other: "publish"})

    told = tell(f"{one} is cut; agentorch task why {other} goes on, agentorch task graph {one} shows all")

    assert told == (
        f"read it all ({one}) is cut;"
        f" agentorch task why {other} goes on, agentorch task graph {one} shows all"
    )


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_vote_is_about_its_task_for_people_and_about_its_type_for_programs(is_terminal: bool) -> None:
    decision = sample.decision().model_copy(update={"topic": "check", "task_name": "check claim 2"})
    look = TERMINAL if is_terminal else PIPE

    table = "\n".join(shown(look, lambda page: page.table(columns.VOTE_OUTCOMES, [decision])))
    page = "\n".join(shown(look, lambda page: story.draw_decision(page, decision)))

    assert ("check claim 2" in table) == ("check claim 2" in page) == is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_members_of_a_deadlock_go_by_their_names(is_terminal: bool) -> None:
    one, other = sample.task_id(1), sample.task_id(2)
    found = DeadlockView(
        deadlock_id=sample.task_id(99),
        kind="hold_and_wait",
        members=[one, other],
        names={one: "draft", other: "review"},
        reason=f"{one} waits for {other}",
        detected_at=sample.NOW,
    )

    lines = shown(TERMINAL if is_terminal else PIPE, lambda page: page.table(columns.DEADLOCKS, [found]))

    assert ("draft +1" in lines[1]) == is_terminal
    assert (f"{one}, {other}" in lines[1]) != is_terminal


def event(kind: str, **data: object) -> EventView:
    return EventView(
        cursor="1:1", at=sample.ago(60), kind=kind, task_id=sample.task_id(1), agent_id="reader-1", data=data
    )


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_a_command_said_is_shown_line_by_line_and_does_nothing(is_terminal: bool) -> None:
    said = (
        "it ended; stderr ended with:\nTraceback:\n  \x1b[2Jline 3\n+0.9s  completed by me\r\n"
        + "more\n" * 80
    )
    error = {"code": "exec_failed", "message": said}
    failed = event("failed", message=said)
    task = sample.story()
    attempt = task.attempts[0].model_copy(update={"error": error})
    task = task.model_copy(update={"error": error, "events": [failed], "attempts": [attempt]})
    look = replace(TERMINAL, width=200) if is_terminal else PIPE

    lines = shown(look, lambda page: story.draw(page, task))

    why, told = lines.index("WHY"), lines.index("STORY")
    assert lines[why + 1 : why + 4] == [
        "exec_failed: it ended; stderr ended with:",
        "Traceback:",
        "  \\x1b[2Jline 3",
    ]
    assert lines[told + 1].endswith("failed at reader-1  it ended; stderr ended with:")
    margin = " " * 13 if is_terminal else "  \t"  # what it says cannot be taken for a step of the story
    assert lines[told + 2 : told + 5] == [
        f"{margin}Traceback:",
        f"{margin}  \\x1b[2Jline 3",
        f"{margin}+0.9s  completed by me",
    ]
    assert lines.count(f"{margin}… (24 more lines)") == 1
    row = lines[lines.index("ATTEMPTS") + 2]
    assert ("stderr ended with:\\nTraceback:" in row) != is_terminal  # a row of a pipe is one line
    assert ("stderr ended with: Traceback:" in row) == is_terminal


def test_the_story_of_a_vote_is_told_in_words() -> None:
    decision = sample.task_id(900)
    events = [
        event("consensus_opened", decision_id=decision, rule="supermajority", voters=["a", "b"]),
        event("ballot_cast", decision_id=decision, status="answered"),
        event("ballot_cast", decision_id=decision, status="abstained"),
        event("consensus_decided", decision_id=decision, status="failed", decided_by="too_few"),
        event("agent_paused", reasons=["one", "two"]),
    ]

    told = [story.told(one, sample.ago(120), TERMINAL)[1].plain for one in events]

    assert told == [
        "vote opened reader-1  supermajority, voters: a, b",
        "vote cast by reader-1",
        "vote cast by reader-1  abstained",
        "vote closed reader-1  not reached: fewer voters are left than it needs",
        "agent paused reader-1  reasons: one, two",
    ]


def test_a_log_that_is_followed_tells_the_time_of_day_and_programs_the_moment() -> None:
    one = event("task_failed", message="no such file")

    (line,) = shown(replace(TERMINAL, width=120), partial(story.draw_event, event=one))
    (piped,) = shown(PIPE, partial(story.draw_event, event=one))

    here = one.at.astimezone().strftime("%H:%M:%S")
    assert line == f"{here}  task_failed        {sample.task_id(1)}  reader-1  no such file"
    assert piped.startswith("2026-05-04T11:59:00.000Z\ttask_failed\t")


def test_an_event_of_another_day_has_its_date() -> None:
    assert len(TERMINAL.clock(sample.ago(100)).plain) == len("12:00:00")
    assert TERMINAL.clock(sample.ago(200_000)).plain.startswith("2026-05-0")


def test_the_checks_stand_behind_their_signs_each_with_its_fix() -> None:
    findings = [
        Finding("python", True, "Python 3.11.7", None),
        Finding("backup", None, "never, by this program", "agentorch db backup FILE"),
        Finding(
            "port", False, "127.0.0.1:3001 is taken by somebody else, who does not say who it is", "--port 0"
        ),
    ]

    lines = shown(replace(TERMINAL, width=50), lambda page: setup._draw_findings(page, findings))

    assert lines == [
        "●  python  Python 3.11.7",
        "○  backup  never, by this program",
        "           fix: agentorch db backup FILE",
        "✗  port    127.0.0.1:3001 is taken by somebody",
        "           else, who does not say who it is",
        "           fix: --port 0",
    ]


def test_the_parts_of_a_deadlock_stand_in_one_column() -> None:
    found = sample.deadlock().model_copy(
        update={"resolution": "dissolved by itself", "resolved_at": sample.NOW}
    )

    lines = shown(TERMINAL, lambda page: deadlock.draw(page, found))[1:]

    assert {len(line) - len(line[12:].lstrip()) for line in lines} == {14}


def test_work_goes_before_deadlocks_that_are_over_or_that_an_alarm_tells() -> None:
    def order(**update: object) -> list[str]:
        found = sample.deadlock().model_copy(update=update)
        status = sample.status().model_copy(update={"deadlocks": [found]})
        return [title for title, _, _ in board.parts(status, TERMINAL)][1:3]

    assert order() == ["DEADLOCKS", "RUNNING"]
    assert order(resolved_at=sample.NOW) == ["RUNNING", "DEADLOCKS"]
    assert order(kind="unsatisfiable") == ["RUNNING", "DEADLOCKS"]


def test_what_happened_is_told_on_a_narrow_terminal_too() -> None:
    one = event("task_failed", message="no such file: " + "x" * 30)

    narrow = shown(TERMINAL, lambda page: story.draw_events(page, [one]))
    wide = shown(replace(TERMINAL, width=160), lambda page: story.draw_events(page, [one]))

    assert "no such file:" in " ".join(line.strip() for line in narrow)
    assert narrow[1].startswith(" " * 10) and narrow[1][10] != " "
    assert wide[0].startswith("AT ")


def test_an_empty_list_says_how_to_get_something_unless_it_was_filtered() -> None:
    assert lists.nothing({"limit": 50}, "tasks", "submit some") == "There are no tasks yet; submit some."
    assert lists.nothing({"limit": 50, "status": ["failed"]}, "tasks", "x") == "There are no such tasks."


def test_where_a_setting_comes_from_is_not_cut_at_eighty_columns() -> None:
    rows = [
        {
            "name": "database.idle_in_transaction_timeout",
            "value": "/root/.local/share/agentorch",
            "origin": one,
        }
        for one in ("flag --data-dir", "default")
    ]

    text = "\n".join(shown(TERMINAL, lambda page: page.table(columns.SETTINGS, rows)))

    assert "flag --data-dir" in text and "…" not in text


def test_a_demonstration_ends_with_commands_that_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken in two, the interpreter alone would be run: without its script."""
    monkeypatch.setattr(sys, "executable", f"/opt/{'a-long-folder/' * 6}my python")
    outcome = demo_page.Outcome([], [], [])

    said = shown(TERMINAL, lambda page: demo_page.draw(page, Session(), outcome, is_kept=False))

    line = next(line for line in said if "counter.py" in line)
    program, script = shlex.split(line)
    assert program == sys.executable and Path(script).name == "counter.py"


def test_names_that_would_be_cut_to_nothing_stand_in_a_tree() -> None:
    """Five layers of which one is five tasks wide: too wide for boxes, columns would leave 11 letters."""
    stem = ["fetch the annual report", "extract its claims"]
    leaves = [f"check the claim number {number}" for number in range(5)]
    names = [*stem, *leaves, "summarise the claims", "publish"]
    chain = [*stem, leaves[0], *names[-2:]]
    edges = [GraphEdge(before, after) for before, after in pairwise(chain)]
    edges += [GraphEdge(stem[1], leaf) for leaf in leaves[1:]]
    graph = Graph(tuple(GraphNode(name, name, "pending") for name in names), tuple(edges))

    text = graph_text(graph, 80).plain

    assert all(name in text for name in names)


def test_an_agent_does_something_with_a_name_also_where_the_table_of_work_does_not_tell_it() -> None:
    held = sample.task_id(77)
    agent = sample.agents()[0].model_copy(update={"working_on": [held], "names": {held: "read page 7"}})

    assert crew.doing(agent, {}, TERMINAL).plain == "read page 7"


def test_a_long_line_of_a_log_goes_on_behind_the_name_of_its_process() -> None:
    line = Line("2026-05-04T12:00:00.000Z", "serve", "this node leads pool default, " * 3)

    lines = shown(TERMINAL, lambda page: logbook._Lines(page, ["serve", "greeter-1"]).draw(line))

    assert len(lines) > 1
    assert lines[1].startswith(" " * lines[0].index("this")) and lines[1].strip()


def test_what_a_node_leads_is_whole_at_eighty_columns() -> None:
    node = (
        sample.status()
        .nodes[0]
        .model_copy(update={"node_id": "orchestrator_737ee27b4d39", "is_chief": True, "agents": 17})
    )

    text = "\n".join(shown(TERMINAL, lambda page: page.table(columns.NODES, [node])))

    assert "pool, monitors" in text
