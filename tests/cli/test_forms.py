"""The forms of an answer: table, json, jsonl, csv and none; schemas, ids only, and asking first."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sample_fleet as sample
import typer
from jsonschema_rs import validator_for

from agentorch_cli.cli import logbook
from agentorch_cli.cli.app import build
from agentorch_cli.cli.outputs import OUTPUTS, document_name, kinds, make_schema, read_schema, shape
from agentorch_cli.supervision.record import Record, file_of
from agentorch_cli.text import one_line
from agentorch_cli.views import SCHEMA_VERSION, ChangeReply, SubmitReply, SubmittedTask, TaskRef, TaskView

ROOT = Path(__file__).parents[2]

Run = Callable[..., Any]


def read(text: str) -> list[dict[str, str]]:
    """As RFC 4180 is read."""
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


# --- csv ------------------------------------------------------------------------------------------

HOSTILE = [
    "plain", "with, comma", 'with "quotes"', "two\nlines", "two\r\nlines", "=cmd|' /C calc'!A0", "+1", "-1",
    "@x", "\t", " ", "ä€𝄞", "\x1b[31mred", "", "a\u202eb", "'", "null", "1,2\n\"3\"",
]  # fmt: skip


def test_csv_gives_back_every_text_as_it_was(agentorch: Run, desk: Any) -> None:
    desk.answers["task.list"] = [
        TaskView(task_id=f"t{number}", name=text, type=text or "t", status="pending", labels={"x": text})
        for number, text in enumerate(HOSTILE)
    ]

    done = agentorch("task", "list", "-o", "csv")

    rows = read(done.out)
    assert [row["name"] for row in rows] == HOSTILE
    assert [json.loads(row["labels"])["x"] for row in rows] == HOSTILE
    assert list(rows[0]) == list(TaskView.model_fields)
    assert done.out.count("\r\n") >= len(HOSTILE) + 1
    assert "\x1b" not in json.dumps([row["labels"] for row in rows], ensure_ascii=False)


def test_csv_has_the_same_columns_with_and_without_rows(agentorch: Run, desk: Any) -> None:
    for command, method, some in (
        ("task list", "task.list", sample.tasks()),
        ("agent list", "agent.list", sample.agents()),
        ("consensus list", "consensus.list", []),
        ("event list", "event.list", []),
        ("limit list", "limit.list", []),
        ("node list", "node.list", []),
    ):
        desk.answers[method] = some
        header = agentorch(*command.split(), "-o", "csv").out.splitlines()[0]
        desk.answers[method] = []
        assert agentorch(*command.split(), "-o", "csv").out == header + "\r\n"


def test_csv_values_are_what_json_says(agentorch: Run, desk: Any) -> None:
    desk.answers["task.list"] = sample.tasks()

    rows = read(agentorch("task", "list", "-o", "csv").out)
    documents = json.loads(agentorch("task", "list", "--json").out)

    for row, document in zip(rows, documents, strict=True):
        for name, text in row.items():
            value = document[name]
            if isinstance(value, str):
                assert text == value
            elif value is None:
                assert text == ""
            else:
                assert json.loads(text) == value


def test_csv_of_a_change_has_a_row_for_each_thing(agentorch: Run, desk: Any) -> None:
    desk.answers |= {
        "task.cancel": ChangeReply(changed=["a"], unchanged={"b": "it is completed already"}),
        "task.submit": SubmitReply(
            submission_id="s", tasks=[SubmittedTask(task_id=one, status="pending") for one in "xy"]
        ),
    }
    Path("t.toml").write_text("[task]\n")

    changed = agentorch("task", "cancel", "a", "b", "-o", "csv")
    submitted = agentorch("task", "submit", "t.toml", "-o", "csv")

    assert (changed.code, read(changed.out)) == (
        9,
        [
            {"id": "a", "changed": "true", "reason": ""},
            {"id": "b", "changed": "false", "reason": "it is completed already"},
        ],
    )
    assert [row["task_id"] for row in read(submitted.out)] == ["x", "y"]


def test_csv_that_comes_line_by_line_has_one_header(
    agentorch: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(file_of(home / "data", "a-1"), 1 << 20, 1)
    record.take(b"one, two\nthree\n")
    record.close()

    async def ends(follower: Any, write: Callable[[Any], None]) -> None:
        raise typer.Exit

    monkeypatch.setattr(logbook, "_follow", ends)

    for line in ("logs -o csv", "logs -f -o csv"):
        header, *rows = agentorch(*line.split()).out.splitlines()
        assert header == "name,at,line"
        assert [row.split(",", 2)[::2] for row in rows] == [["a-1", '"one, two"'], ["a-1", "three"]], line
    assert agentorch("logs", "-q").out == "a-1\n"


# --- none, and what goes where ------------------------------------------------------------------


def test_none_is_nothing_but_the_exit_code_and_errors(agentorch: Run, desk: Any) -> None:
    desk.answers |= {"task.list": sample.tasks(), "agent.list": [], "task.get": sample.story()}
    desk.answers["task.cancel"] = ChangeReply(unchanged={"b": "it is completed already"})

    for line in ("task list", "agent list", "task show x", "config show", "schema output"):
        done = agentorch(*line.split(), "-o", "none")
        assert (done.code, done.out, done.err) == (0, "", ""), line
    failed = agentorch("task", "cancel", "b", "-o", "none")
    assert (failed.code, failed.out, failed.err) == (
        8,
        "",
        "error: b: it is completed already\nfix: agentorch task show b\n",
    )


def test_an_unknown_form_is_refused_with_those_that_there_are(agentorch: Run) -> None:
    done = agentorch("task", "list", "-o", "cvs")

    assert done.code == 2
    assert 'did you mean "csv"' in done.err and "table, json, jsonl, csv, none" in done.err


# --- schemas ----------------------------------------------------------------------------------


def all_commands() -> set[str]:
    root = build()
    ctx = root.make_context("agentorch", [], resilient_parsing=True)
    found = set()
    for name in root.list_commands(ctx):
        command = root.get_command(ctx, name)
        verbs = command.list_commands(ctx) if hasattr(command, "list_commands") else [""]
        found |= {f"{name} {verb}".strip() for verb in verbs}
    return found


def test_it_is_known_of_every_command_what_it_prints() -> None:
    assert set(OUTPUTS) == all_commands()


def test_the_former_name_of_schema_output_is_taken_and_told(agentorch: Run) -> None:
    for words in ((), ("task",), ("--json",)):
        now, before = agentorch("schema", "output", *words), agentorch("protocol", "output", *words)
        assert (before.code, before.out) == (now.code, now.out) == (0, now.out), words
        assert "agentorch schema output" in before.err
    assert "output  " not in agentorch("protocol", "--help").out
    tasks = next(row for row in json.loads(now.out) if row["name"] == "task")
    assert {"task list", "task show", "demo"} <= set(tasks["commands"])


@pytest.mark.parametrize("name", kinds())
def test_the_schemas_that_are_shipped_are_those_of_the_models(name: str) -> None:
    assert json.loads(read_schema(name)) == make_schema(name), "write them anew: make schemas"
    validator_for(make_schema(name))


def test_no_other_schema_is_shipped() -> None:
    assert {path.stem for path in (ROOT / "agentorch_cli/output_schemas").iterdir()} == set(kinds())


def test_a_field_that_goes_or_changes_takes_a_new_version() -> None:
    noted = json.loads((ROOT / "tests/data/output_shapes.json").read_text())[str(SCHEMA_VERSION)]
    shapes = {name: shape(make_schema(name)) for name in kinds()}

    gone = [
        f"{name}: {field}"
        for name, fields in noted.items()
        for field, kind in fields.items()
        if shapes.get(name, {}).get(field) != kind
    ]

    assert gone == [], "a new SCHEMA_VERSION, then: make schemas"
    assert shapes == noted, "new fields are to be noted: make schemas"


def test_every_document_says_the_version_of_its_schema(
    agentorch: Run, desk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    Path("t.toml").write_text('[[tasks]]\nname = "a"\n[[tasks]]\nname = "b"\ndepends_on = ["a"]\n')
    Path("labels.csv").write_text("task,worker,label\nt,a,x\nt,b,x\n")
    system = tmp_path / "system.json"
    system.write_text('{"tasks": {"a": {"deps": ["b"]}, "b": {"deps": ["a"]}}}')
    lines = [
        "config show gateway", "config init", "task validate t.toml", "task submit t.toml --dry-run",
        f"deadlock check --file {system}", "consensus replay --labels labels.csv",
        "consensus replay --labels labels.csv --rule majority", "profile add lab --url ws://127.0.0.1:1",
        "profile list", "profile use lab", "profile use local", "profile remove lab",
    ]  # fmt: skip
    for line in lines:
        done = agentorch(*line.split(), "--json")
        printed = json.loads(done.out)
        name = " ".join(line.split()[:2])
        documents = printed if isinstance(printed, list) else [printed]
        assert documents, line
        fitting = [one.kind for one in OUTPUTS[name] if one.is_list == isinstance(printed, list)]
        for document in documents:
            assert document["schema_version"] == SCHEMA_VERSION, line
            assert any(
                validator_for(make_schema(document_name(kind))).is_valid(document)
                and set(document) <= {"schema_version", *kind.model_fields}
                for kind in fitting
            ), (line, document)


@pytest.mark.parametrize("name", kinds())
def test_no_field_of_a_document_hides_its_version(name: str) -> None:
    assert "schema_version" not in kinds()[name].model_fields


def test_an_error_says_the_version_too(agentorch: Run) -> None:
    error = json.loads(agentorch("task", "list", "--where", "x", "--json").err)

    assert error["schema_version"] == SCHEMA_VERSION
    assert error["error"]["details"]["column"] == 1
    assert validator_for(make_schema("error")).is_valid(error)


def test_the_schemas_can_be_asked_for(agentorch: Run) -> None:
    assert json.loads(agentorch("protocol", "output", "task").out)["$id"] == "urn:agentorch:output:task:1"
    assert agentorch("-q", "protocol", "output").out.split() == list(kinds())
    assert agentorch("protocol", "output", "tsk").code == 7


# --- ids only ---------------------------------------------------------------------------------


def test_quiet_prints_one_id_a_line(agentorch: Run, desk: Any) -> None:
    desk.answers |= {
        "task.list": sample.tasks(),
        "agent.list": sample.agents(),
        "task.cancel": ChangeReply(changed=["a", "b"]),
        "task.submit": SubmitReply(tasks=[SubmittedTask(task_id="x", status="pending")]),
    }
    Path("t.toml").write_text("[task]\n")

    for line, ids in (
        ("task list", [one.task_id for one in sample.tasks()]),
        ("agent list", [one_line(one.agent_id) for one in sample.agents()]),
        ("task cancel a b", ["a", "b"]),
        ("task submit t.toml", ["x"]),
        ("config show gateway.port", ["gateway.port"]),
    ):
        done = agentorch("-q", *line.split())
        assert (done.out.splitlines(), done.err) == (ids, ""), line


# --- files ------------------------------------------------------------------------------------


def test_agents_come_from_a_directory_or_from_stdin(
    agentorch: Run, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.answers["agent.register"] = []
    Path("crew").mkdir()
    for name in "ab":
        Path(f"crew/{name}.toml").write_text(f'[agent]\nid = "{name}"\n')
    Path("crew/notes.txt").write_text("not read")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"id": "c"}')))

    agentorch("agent", "register", "--from", "crew")
    agentorch("agent", "register", "--from", "-")

    assert [[one.agent_id for one in asked["agents"]] for _, asked in desk.calls] == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["", "t.toml"], "the name of a file is empty"),
        (["t.toml", "t.toml"], "t.toml is named twice"),
        (["t.toml", "./t.toml"], "named twice"),
        (["t.toml", "."], "named twice"),
        (["-", "-"], "can be read once only"),
    ],
)
def test_a_file_is_named_once_and_has_a_name(agentorch: Run, desk: Any, files: list[str], said: str) -> None:
    Path("t.toml").write_text("[task]\n")

    for verb in ("submit", "validate"):
        done = agentorch("task", verb, *files)
        assert (done.code, desk.calls) == (2, [])
        assert said in done.err


# --- asking first -------------------------------------------------------------------------------

STUB = Path(__file__).parent / "stub_program.py"


def typed(words: list[str], answer: str, tmp_path: Path) -> tuple[int, str]:
    """Run on a terminal, type the answer; gives the exit code and everything that was shown."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(STUB), *words],
        stdin=child,
        stdout=child,
        stderr=child,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "NO_COLOR": "1", "PYTHONPATH": f"{ROOT}:{STUB.parent}"},
    )
    os.close(child)
    shown = b""
    is_answered = False
    with process:
        while True:
            try:
                part = os.read(parent, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part
            if not is_answered and b"to go on: " in shown:
                is_answered = True
                os.write(parent, f"{answer}\n".encode())
    os.close(parent)
    return process.returncode, shown.decode()


@pytest.mark.parametrize(
    ("where", "answer", "code"),
    [
        ("name=few", "y", 0),
        ("name=few", "", 4),
        ("name=many", "y", 4),
        ("name=many", "250", 0),
    ],
)
def test_on_a_terminal_it_asks_and_for_many_it_wants_the_number(
    where: str, answer: str, code: int, tmp_path: Path
) -> None:
    number = {"name=few": "3", "name=many": "250"}[where]

    done, shown = typed(["task", "cancel", "--where", where], answer, tmp_path)

    assert done == code, shown
    assert f"{number} tasks would be cancelled." in shown
    assert ("nothing was changed" in shown) == (code == 4)
    assert ("task-0" in shown) == (code == 0)


def test_with_nobody_to_ask_nothing_is_done(agentorch: Run, desk: Any) -> None:
    desk.answers |= {
        "task.match": [],
        "agent.list": [agent.model_copy(update={"working_on": ["t"]}) for agent in sample.agents()],
        "agent.remove": ChangeReply(changed=["x"]),
    }
    agent_id = sample.agents()[0].agent_id

    assert agentorch("agent", "remove", agent_id, "--force").code == 2
    assert [method for method, _ in desk.calls] == ["agent.list"]
    assert agentorch("agent", "remove", agent_id, "--force", "--yes").code == 0
    assert agentorch("agent", "remove", agent_id).code == 0
    assert agentorch("task", "cancel", "--where", "name=nobody").code == 0


def test_many_tasks_are_changed_in_parts(agentorch: Run, desk: Any) -> None:
    found = [TaskRef(task_id=f"t{n}", type="t", status="failed", cursor=str(n)) for n in range(1_200)]
    desk.answers |= {
        "task.match": found,
        "task.retry": lambda task_ids: ChangeReply(changed=list(task_ids)),
    }

    done = agentorch("-q", "task", "retry", "--where", "status=failed", "--yes")

    assert done.out.split() == [one.task_id for one in found]
    assert [len(asked["task_ids"]) for method, asked in desk.calls if method == "task.retry"] == [
        500,
        500,
        200,
    ]
