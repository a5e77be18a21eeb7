"""How errors are told: one shape on the terminal, as JSON, and from afar."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agentorch_cli import errors
from agentorch_cli.cli.failure import LONGEST_LINE, report, told
from agentorch_cli.errors import Conflict, InvalidTask, NotFound, OrchestratorError, command
from agentorch_cli.handlers.wire import error_from

ROOT = Path(__file__).parents[2]
CLASSES = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, OrchestratorError)
]


def test_the_page_of_errors_is_what_the_classes_say() -> None:
    script = ROOT / "scripts" / "errors-page"
    printed = subprocess.run([sys.executable, script], capture_output=True, check=True, timeout=60).stdout

    assert (ROOT / "docs" / "errors.md").read_bytes() == printed, (
        "write it anew: .venv/bin/python scripts/errors-page > docs/errors.md"
    )


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = [line.split()[-3:] for line in (errors.__doc__ or "").splitlines() if line.strip()[-1:].isdigit()]

    assert sorted(drawn) == sorted([kind.__name__, kind.code, str(kind.exit_code)] for kind in CLASSES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_each_class_has_a_code_a_cause_and_a_command_of_its_own(kind: type[OrchestratorError]) -> None:
    others = [one for one in CLASSES if one is not kind]

    assert kind.code not in {one.code for one in others}
    assert kind.usual_why not in {one.usual_why for one in others}
    assert kind.usual_why.endswith(".")
    assert kind.usual_fix.startswith("agentorch ")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_an_error_from_afar_is_the_same_error(kind: type[OrchestratorError]) -> None:
    here = kind("it broke", hint="glue", where="a.toml:1:2: x", why="It fell.", fix="agentorch status", n=3)

    there = error_from(json.loads(json.dumps(here.to_json())))

    assert type(there) is kind
    assert there.to_json() == here.to_json()
    assert told(there) == told(here)


def test_an_error_of_a_newer_server_keeps_its_code_and_its_exit_code() -> None:
    error = error_from(
        {"code": "overheated", "message": "too hot", "exit_code": 8, "fix": "agentorch status"}
    )

    assert (error.code, error.exit_code, error.fix) == ("overheated", 8, "agentorch status")


def test_an_exit_code_from_afar_that_is_none_is_a_bug() -> None:
    assert error_from({"code": "overheated", "exit_code": 0}).exit_code == 1
    assert error_from({"code": "not_found", "exit_code": 1}).exit_code == 7


def test_an_error_says_what_where_why_and_which_command_to_run() -> None:
    error = NotFound("there is no agent 'ana'", where="fleet.toml:3:1", fix="agentorch agent list")

    assert told(error) == [
        "error: fleet.toml:3:1: there is no agent 'ana'",
        "fix: agentorch agent list",
    ]


def test_a_mistake_in_a_file_is_told_with_its_line_and_a_caret() -> None:
    place = {"where": "a.toml:3:5: task.x", "field": "task.x", "line": 3, "column": 5, "source": "aa, bb = 1"}
    error = InvalidTask("is wrong", errors=[{"message": "is wrong", **place}])

    assert told(error)[:3] == ["error: a.toml:3:5: task.x: is wrong", "    3 | aa, bb = 1", "      |     ^"]


def test_a_place_that_does_not_fit_stands_below() -> None:
    entry = {"message": "is wrong", "where": f"{'deep/' * 20}a.toml:3:5: task.x", "field": "task.x"}

    assert told(InvalidTask("is wrong", errors=[entry]))[:2] == [
        "error: task.x: is wrong",
        f"  --> {'deep/' * 20}a.toml:3:5",
    ]


@pytest.mark.parametrize("message", ["word " * 60, "x" * 300, "a\n" + "b" * 200, "é" * 150])
def test_the_first_line_is_short_and_nothing_is_lost(message: str) -> None:
    lines = told(Conflict(message, where="/a/b/c"))

    text = "".join(
        line.removeprefix("error: ").strip() for line in lines if not line.startswith(("why", "fix"))
    )
    assert len(lines[0]) <= LONGEST_LINE
    assert "".join(text.split()) == "".join(message.split()) + "-->/a/b/c"


def test_a_secret_is_not_shown_in_two_halves() -> None:
    secret = "ao_abcdef1234_" + "S" * 40

    lines = "".join(told(Conflict("word " * 16 + secret)))

    assert "SSSS" not in lines


def test_the_json_form_has_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    code = report(Conflict("it is there"), is_json=True)

    assert code == 8
    assert json.loads(capsys.readouterr().err) == {
        "schema_version": 1,
        "error": {
            "code": "conflict",
            "message": "it is there",
            "where": None,
            "why": Conflict.usual_why,
            "fix": Conflict.usual_fix,
            "exit_code": 8,
        },
    }


def test_a_command_can_be_copied_into_a_shell() -> None:
    assert command("task", "show", "it's; rm -rf") == """agentorch task show 'it'"'"'s; rm -rf'"""
