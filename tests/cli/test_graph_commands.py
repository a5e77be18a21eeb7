"""`agentorch task graph` and `task timeline`, as people type them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agentorch_cli.errors import NotFound
from agentorch_cli.views import BarView, GraphEdgeView, GraphNodeView, GraphView, TimelineView

START = datetime(2026, 5, 4, tzinfo=UTC)
EVIL = "evil\x1b]52;c;aGk=\x07<script>\u202e"

GRAPH = GraphView(
    task_id="a",
    nodes=[
        GraphNodeView(task_id="a", name="first", type="t", status="completed", agents=["ann"]),
        GraphNodeView(task_id="b", name=EVIL, type="t", status="failed", note=EVIL),
    ],
    edges=[GraphEdgeView(before="a", after="b")],
    cut=1,
)
LINE = TimelineView(
    task_id="a",
    bars=[
        BarView(
            task_id="a",
            name=EVIL,
            task_status="completed",
            agent="ann",
            start=START,
            end=START + timedelta(seconds=3),
            status="completed",
            attempt=1,
        )
    ],
    start=START,
    end=START + timedelta(seconds=3),
    critical=["a"],
)
FILE = """
[[tasks]]
name = "read"
[[tasks]]
name = "count"
depends_on = ["read"]
"""

COMMANDS = [("graph", GRAPH), ("timeline", LINE)]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "tasks.toml"
    path.write_text(FILE)
    return str(path)


@pytest.mark.parametrize(("verb", "view"), COMMANDS)
def test_a_picture_goes_to_stdout_in_the_form_that_was_asked_for(
    agentorch: Callable[..., Any], desk: Any, verb: str, view: Any
) -> None:
    desk.answers[f"task.{verb}"] = view
    beginnings = {"svg": "<svg ", "html": "<!doctype html>", "dot": ("digraph ", "graph ")}
    beginnings["mermaid"] = "flowchart" if verb == "graph" else "gantt"

    for form, beginning in beginnings.items():
        outcome = agentorch("task", verb, "a", "-o", form)

        assert outcome.code == 0
        assert outcome.out.startswith(beginning)
        assert "\x1b" not in outcome.out
        assert "<script>" not in outcome.out
        assert outcome.err == ""
    assert desk.calls == [(f"task.{verb}", {"task_id": "a"})] * 4


@pytest.mark.parametrize(("verb", "view"), COMMANDS)
def test_without_a_form_it_is_drawn_in_letters(
    agentorch: Callable[..., Any], desk: Any, verb: str, view: Any
) -> None:
    desk.answers[f"task.{verb}"] = view

    outcome = agentorch("task", verb, "a")

    assert outcome.code == 0
    assert "●" in outcome.out
    assert "evil\\x1b]52;" in outcome.out
    assert "\x1b" not in outcome.out


@pytest.mark.parametrize(("verb", "view"), COMMANDS)
def test_json_is_the_document_and_quiet_is_the_ids(
    agentorch: Callable[..., Any], desk: Any, verb: str, view: Any
) -> None:
    desk.answers[f"task.{verb}"] = view

    document = json.loads(agentorch("task", verb, "a", "--json").out)

    assert document["schema_version"] == 1
    assert document["task_id"] == "a"
    assert agentorch("task", verb, "a", "-q").out.split()[0] == "a"


def test_the_common_option_may_stand_in_front_too(agentorch: Callable[..., Any], desk: Any) -> None:
    desk.answers["task.graph"] = GRAPH

    assert agentorch("-o", "svg", "task", "graph", "a").out.startswith("<svg ")


def test_other_commands_draw_nothing(agentorch: Callable[..., Any], desk: Any) -> None:
    outcome = agentorch("task", "list", "-o", "svg")

    assert outcome.code == 2
    assert outcome.err == (
        "error: -o svg is for what is drawn: task graph and task timeline\nfix: agentorch task list --help\n"
    )
    assert desk.calls == []


def test_a_form_that_there_is_not_is_refused_with_the_nearest(agentorch: Callable[..., Any]) -> None:
    outcome = agentorch("task", "graph", "a", "-o", "svgg")

    assert outcome.code == 2
    assert '-o "svgg" is not known (did you mean "svg"?)' in outcome.err


def test_a_file_is_drawn_without_a_database(agentorch: Callable[..., Any], desk: Any, file: str) -> None:
    drawn = agentorch("task", "graph", "--file", file)
    document = json.loads(agentorch("task", "graph", "--file", file, "--json").out)

    assert drawn.code == 0
    assert "○ read" in drawn.out
    assert "▼" in drawn.out
    assert [(node["name"], node["status"]) for node in document["nodes"]] == [
        ("read", "planned"),
        ("count", "planned"),
    ]
    assert document["edges"] == [
        {
            "before": document["nodes"][0]["task_id"],
            "after": document["nodes"][1]["task_id"],
            "kind": "depends",
        }
    ]
    assert desk.calls == []


def test_a_file_may_wait_for_tasks_that_are_not_in_it(agentorch: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "tasks.toml"
    path.write_text('[task]\nname = "a"\ndepends_on = ["elsewhere"]\n')

    document = json.loads(agentorch("task", "graph", "--file", str(path), "--json").out)

    assert [(node["task_id"], node["status"]) for node in document["nodes"][1:]] == [("elsewhere", "unknown")]


def test_a_bad_file_is_told_as_everywhere(agentorch: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[task]\npriority = 11\n")

    outcome = agentorch("task", "graph", "--file", str(path), "-o", "svg")

    assert outcome.code == 2
    assert "bad.toml:2" in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize("words", [[], ["a", "--file", "x.toml"]])
def test_either_a_task_or_a_file(agentorch: Callable[..., Any], words: list[str]) -> None:
    outcome = agentorch("task", "graph", *words)

    assert outcome.code == 2
    assert "either the id of a task or --file" in outcome.err


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("a.svg", "<svg "),
        ("a.html", "<!doctype html>"),
        ("a.mmd", "flowchart"),
        ("a.dot", "digraph"),
        ("a.json", "{"),
        ("a.txt", "2 tasks"),
        ("a", "2 tasks"),
    ],
)
def test_save_takes_the_form_from_the_ending(
    agentorch: Callable[..., Any], desk: Any, tmp_path: Path, name: str, beginning: str
) -> None:
    desk.answers["task.graph"] = GRAPH

    outcome = agentorch("task", "graph", "a", "--save", str(tmp_path / name))

    assert outcome.code == 0
    assert outcome.out == ""
    assert outcome.err == f"Wrote {tmp_path / name}.\n"
    assert (tmp_path / name).read_text("utf-8").startswith(beginning)


def test_what_is_said_goes_before_the_ending(
    agentorch: Callable[..., Any], desk: Any, tmp_path: Path
) -> None:
    desk.answers["task.graph"] = GRAPH

    agentorch("task", "graph", "a", "-o", "dot", "--save", str(tmp_path / "a.svg"))

    assert (tmp_path / "a.svg").read_text("utf-8").startswith("digraph")


def test_a_place_that_cannot_be_written_is_an_error(
    agentorch: Callable[..., Any], desk: Any, tmp_path: Path
) -> None:
    desk.answers["task.graph"] = GRAPH

    outcome = agentorch("task", "graph", "a", "--save", str(tmp_path / "no" / "a.svg"))

    assert outcome.code == 2
    assert " ".join(outcome.err.split()).startswith("error: cannot write ")


@pytest.mark.parametrize("verb", ["graph", "timeline"])
def test_no_such_task_is_exit_code_7(agentorch: Callable[..., Any], desk: Any, verb: str) -> None:
    desk.answers[f"task.{verb}"] = NotFound("there is no task and no submission 'a'")

    assert agentorch("task", verb, "a", "-o", "svg").code == 7


def test_the_page_is_called_like_the_task(agentorch: Callable[..., Any], desk: Any) -> None:
    desk.answers["task.graph"] = GRAPH
    desk.answers["task.timeline"] = LINE

    assert "<title>Graph of first</title>" in agentorch("task", "graph", "a", "-o", "html").out
    assert "<title>Timeline of evil\\x1b]52;" in agentorch("task", "timeline", "a", "-o", "html").out


def test_mermaid_says_when_it_will_not_draw_so_many_lines(agentorch: Callable[..., Any], desk: Any) -> None:
    ids = [f"t{number}" for number in range(600)]
    desk.answers["task.graph"] = GraphView(
        nodes=[GraphNodeView(task_id=one, type="t", status="pending") for one in ids],
        edges=[GraphEdgeView(before=ids[0], after=one) for one in ids[1:]],
    )

    outcome = agentorch("task", "graph", "t0", "-o", "mermaid")

    assert "Mermaid draws 500 lines at most" in outcome.err
    assert outcome.out.startswith("flowchart LR\n")


def test_the_svg_of_a_file_is_one_document(agentorch: Callable[..., Any], file: str) -> None:
    ET.fromstring(agentorch("task", "graph", "--file", file, "-o", "svg").out)
