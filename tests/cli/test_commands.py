"""Each command: what it asks for, what it answers, and with which exit code."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sample_fleet as sample

from agentorch_cli import errors
from agentorch_cli.views import ChangeReply, SchemaView, SubmitReply, SubmittedTask

Run = Callable[..., Any]


def submitted(tasks: list[Any]) -> SubmitReply:
    rows = [SubmittedTask(task_id=task.task_id, name=task.name, status="pending") for task in tasks]
    return SubmitReply(submission_id="s-1", tasks=rows)


@pytest.fixture
def taskfile(desk: Any, tmp_path: Path) -> str:
    desk.answers["node.list"] = []
    desk.answers["task.submit"] = submitted
    desk.answers["task.list"] = sample.tasks()
    desk.answers["status.get"] = sample.status()
    path = tmp_path / "tasks.toml"
    path.write_text('[[tasks]]\nid = "t1"\nname = "first"\n[[tasks]]\nid = "t2"\ndepends_on = ["first"]\n')
    return str(path)


def test_submit_sends_the_tasks_of_a_file(agentorch: Run, desk: Any, taskfile: str) -> None:
    outcome = agentorch("task", "submit", taskfile)

    (method, parameters), look = desk.calls
    assert look[0] == "node.list"
    assert method == "task.submit"
    assert [task.task_id for task in parameters["tasks"]] == ["t1", "t2"]
    assert parameters["tasks"][1].depends_on == ("t1",)
    assert outcome.code == 0
    assert "Submitted 2" in outcome.err
    assert "\n  agentorch task list --submission s-1\n" in outcome.err


def test_files_and_directories_and_stdin_are_one_submission(
    agentorch: Run, desk: Any, taskfile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "b.json").write_text('{"id": "t4", "depends_on": ["first", "t3"]}')
    (folder / "a.jsonl").write_text('{"id": "t3"}\n')
    (folder / "notes.txt").write_text("not a task")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"id": "t5"}')))

    outcome = agentorch("-q", "task", "submit", taskfile, str(folder), "-")

    assert outcome.out.split() == ["t1", "t2", "t3", "t4", "t5"]
    assert len(desk.calls) == 1
    assert desk.calls[0][1]["tasks"][3].depends_on == ("t1", "t3")


def test_one_bad_file_keeps_all_files_out(agentorch: Run, desk: Any, taskfile: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('[[tasks]]\nname = "x"\npriority = 11\n\n[[tasks]]\ndependson = ["x"]\n')

    outcome = agentorch("task", "submit", taskfile, str(bad))

    assert outcome.code == 2
    assert desk.calls == []
    assert "tasks[0].priority: must be at most 10, not 11\n  --> " in outcome.err
    assert "bad.toml:3:1\n" in outcome.err
    assert "    3 | priority = 11" in outcome.err
    assert 'tasks[1].dependson: unknown key (did you mean "depends_on"?)' in outcome.err
    assert "bad.toml:6:1\n" in outcome.err


@pytest.mark.parametrize(
    "verb", [("task", "submit"), ("task", "validate"), ("schedule", "add", "x", "--cron", "@hourly")]
)
def test_the_mistakes_of_all_files_are_told_together(
    agentorch: Run, desk: Any, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    (tmp_path / "a.toml").write_text("[task]\npriority = 11\nslots = 1\n")
    (tmp_path / "b.toml").write_text('[task]\nname = "b"\ntype = \n')
    (tmp_path / "c.toml").write_text('[task]\nname = "c"\ndepends_on = ["d", "a"]\n')  # a may be in a.toml
    (tmp_path / "d.toml").write_text('[task]\nname = "d"\ndepends_on = ["c"]\n')
    (tmp_path / "e.toml").write_text('[task]\nname = "e"\n')

    text = agentorch(*verb, str(tmp_path), "nowhere.toml")
    told = json.loads(agentorch(*verb, str(tmp_path), "nowhere.toml", "--json").err)["error"]

    assert (text.code, desk.calls) == (2, [])
    places = [Path(entry["where"].partition(":")[0]).name for entry in told["details"]["errors"]]
    assert places == ["a.toml", "a.toml", "b.toml", "nowhere.toml", "c.toml"]
    assert told["details"]["error_count"] == 5
    assert told["message"] == "must be at most 10, not 11 (and 4 more)"
    for said in ("    2 | priority = 11", "slots: unknown key", "not valid TOML", "does not exist", "c -> d"):
        assert said in text.err


def test_the_mistakes_of_all_files_of_agents_are_told_together(
    agentorch: Run, desk: Any, tmp_path: Path
) -> None:
    (tmp_path / "a.toml").write_text('[agent]\nid = "a"\nslots = 0\n')
    (tmp_path / "b.toml").write_text('[agent]\nid = "b"\ncapabilitys = ["c"]\n')

    outcome = agentorch("agent", "register", "--from", str(tmp_path))

    assert (outcome.code, desk.calls) == (2, [])
    assert "slots: must be at least 1" in outcome.err
    assert "capabilitys: unknown key" in outcome.err


def test_of_many_mistakes_in_many_files_the_first_are_listed_and_all_are_counted(
    agentorch: Run, tmp_path: Path
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.toml").write_text("[[tasks]]\npriority = 11\n" * 70)

    details = json.loads(agentorch("task", "submit", str(tmp_path), "--json").err)["error"]["details"]

    assert (len(details["errors"]), details["error_count"]) == (100, 210)


def test_a_cycle_over_two_files_names_its_place(agentorch: Run, desk: Any, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[task]\nname = "a"\ndepends_on = ["b"]\n')
    (tmp_path / "b.toml").write_text('[task]\nname = "b"\ndepends_on = ["a"]\n')

    outcome = agentorch("task", "submit", str(tmp_path))

    assert outcome.code == 2
    assert "a -> b -> a" in outcome.err
    assert "a.toml:3" in outcome.err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.toml", b"[task\n", "x.toml:1:6: not valid TOML"),
        ("x.json", b'{"type": NaN}', "finite"),
        ("x.json", b"[" * 10_000, "nested more than 64 levels"),
        ("x.toml", b"\xff\xfe", "not valid UTF-8"),
        ("x.toml", b'[task]\ntype = "\x00"', "NUL"),
        ("x.yaml", b"a: 1", "YAML is not read"),
    ],
)
def test_files_that_cannot_be_read_say_where(
    agentorch: Run, desk: Any, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)

    outcome = agentorch("task", "submit", name)

    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


def test_dry_run_shows_the_layers_and_opens_nothing(agentorch: Run, desk: Any, taskfile: str) -> None:
    outcome = agentorch("task", "submit", taskfile, "--dry-run", "--json")

    assert desk.calls == []
    assert [(row["task_id"], row["layer"], row["depends_on"]) for row in json.loads(outcome.out)] == [
        ("t1", 1, []),
        ("t2", 2, ["first"]),
    ]


def test_waiting_for_a_failed_task_gives_exit_code_3(agentorch: Run, desk: Any, taskfile: str) -> None:
    desk.answers["task.wait"] = sample.tasks()[1:3]

    outcome = agentorch("task", "submit", taskfile, "--wait")

    assert outcome.code == 3
    assert "1 of 2 tasks did not complete" in outcome.err
    assert "completed" in outcome.out


def test_waiting_for_completed_tasks_gives_their_results(agentorch: Run, desk: Any) -> None:
    desk.answers["task.wait"] = sample.tasks()[1:2]
    desk.answers["task.get"] = sample.tasks()[1]

    outcome = agentorch("task", "wait", sample.task_id(2), "--timeout", "1m", "--json")

    assert outcome.code == 0
    assert json.loads(outcome.out)[0]["result"] == {"words": 1200, "lines": 88}
    asked = dict(desk.calls)["task.wait"]
    assert asked == {"task_ids": [sample.task_id(2)], "timeout_seconds": 60.0}


def test_a_vote_that_was_not_reached_gives_exit_code_3(agentorch: Run, desk: Any) -> None:
    task = sample.tasks()[2].model_copy(
        update={"error": {"code": "consensus_not_reached", "message": "2 of 5"}}
    )
    desk.answers["task.wait"] = [task]
    desk.answers["task.get"] = task

    outcome = agentorch("task", "wait", "x", "--json")

    assert outcome.code == 3
    assert json.loads(outcome.err)["error"]["code"] == "consensus_not_reached"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TaskFailed(), 3),
        (errors.NotAllowed(), 4),
        (errors.DatabaseUnreachable(), 5),
        (errors.WaitTimedOut(), 6),
        (errors.NotFound(), 7),
        (errors.Conflict(), 8),
        (errors.Partial(), 9),
    ],
)
def test_an_error_has_its_exit_code_and_its_json_form(
    agentorch: Run, desk: Any, error: errors.OrchestratorError, code: int
) -> None:
    desk.answers["task.get"] = error

    plain = agentorch("task", "show", "x")
    as_json = agentorch("task", "show", "x", "--json")

    assert plain.code == as_json.code == code
    assert plain.err.startswith(f"error: {error.message}")
    assert json.loads(as_json.err)["error"]["code"] == error.code
    assert plain.out == as_json.out == ""


def test_a_bug_is_one_sentence_and_a_file(agentorch: Run, desk: Any, tmp_path: Path) -> None:
    desk.answers["task.get"] = KeyError("surprise \x1b[2J")

    outcome = agentorch("task", "show", "x")

    assert outcome.code == 1
    assert "this is a bug" in outcome.err
    assert "Traceback" not in outcome.err
    assert "\x1b" not in outcome.err
    (crash,) = (tmp_path / "data" / "logs").glob("crash-*.txt")
    assert str(crash) in outcome.err
    assert "Traceback" in crash.read_text()


def test_debugging_shows_the_traceback(agentorch: Run, desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTORCH_DEBUG", "1")
    desk.answers["task.get"] = KeyError("surprise")

    assert "Traceback" in agentorch("task", "show", "x").err


def test_a_change_of_some_is_partial_and_of_none_a_conflict(agentorch: Run, desk: Any) -> None:
    desk.answers["task.cancel"] = ChangeReply(changed=["a"], unchanged={"b": "is completed"})
    some = agentorch("task", "cancel", "a", "b", "--reason", "enough")
    desk.answers["task.cancel"] = ChangeReply(unchanged={"b": "is completed"})
    none = agentorch("task", "cancel", "b")

    assert desk.calls[0][1] == {"task_ids": ["a", "b"], "reason": "enough"}
    assert (some.code, none.code) == (9, 8)
    assert "b: is completed" in some.err
    assert none.err.startswith("error: b: is completed\n")


def test_an_empty_list_is_a_success_with_a_kind_sentence(agentorch: Run, desk: Any) -> None:
    desk.answers |= {"task.list": [], "agent.list": [], "consensus.list": [], "event.list": []}

    for line in ("task list", "agent list", "consensus list", "event list"):
        outcome = agentorch(*line.split())
        assert (outcome.code, outcome.out) == (0, "")
        assert outcome.err.startswith("There ")
    assert agentorch("task", "list", "--json").out == "[]\n"
    assert agentorch("-q", "task", "list").err == ""


def test_no_node_in_the_list_says_that_nothing_runs_now(agentorch: Run, desk: Any) -> None:
    """One that was stopped leaves the list at once: the last hour cannot be told from it."""
    desk.answers["node.list"] = []

    assert agentorch("node", "list").err == "No serve runs; agentorch serve starts one.\n"


def test_filters_reach_the_operation(agentorch: Run, desk: Any) -> None:
    desk.answers["task.list"] = sample.tasks()

    agentorch(
        "task", "list", "--status", "failed,running", "--status", "skipped", "--agent", "a", "--limit", "7"
    )

    assert desk.calls == [
        (
            "task.list",
            {
                "status": ["failed", "running", "skipped"],
                "agent": "a",
                "limit": 7,
            },
        )
    ]


def test_registering_checks_like_a_file_does(agentorch: Run, desk: Any, tmp_path: Path) -> None:
    desk.answers["agent.register"] = sample.agents()
    (tmp_path / "agents.toml").write_text(
        '[[agents]]\nid = "a"\ncapabilities = ["x"]\n[[agents]]\nid = "b"\n'
    )

    agentorch(
        "agent",
        "register",
        "a",
        "--type",
        "t",
        "-c",
        "x,y",
        "-c",
        "z",
        "-m",
        "n=1",
        "-m",
        "s=hi",
        "--exec",
        "cat",
    )
    agentorch("agent", "register", "--from", "agents.toml")

    (one,) = desk.calls[0][1]["agents"]
    assert (one.agent_id, one.type, one.capabilities, one.exec) == ("a", "t", ("x", "y", "z"), "cat")
    assert one.metadata == {"n": 1, "s": "hi"}
    assert [agent.agent_id for agent in desk.calls[1][1]["agents"]] == ["a", "b"]


def test_each_document_says_its_schema_version(agentorch: Run, desk: Any) -> None:
    desk.answers |= {"task.list": sample.tasks(), "status.get": sample.status(), "task.get": sample.story()}

    every = json.loads(agentorch("task", "list", "--json").out)
    lines = [json.loads(line) for line in agentorch("task", "list", "-o", "jsonl").out.splitlines()]

    assert every == lines
    assert {document["schema_version"] for document in every} == {1}
    assert json.loads(agentorch("status", "--json").out)["schema_version"] == 1
    assert json.loads(agentorch("task", "show", "x", "--json").out)["events"][0]["kind"] == "submitted"


def test_init_db_check_fails_while_the_schema_is_old(agentorch: Run, desk: Any) -> None:
    desk.answers["schema.apply"] = lambda check: SchemaView(current=None, wanted=1, is_up_to_date=not check)

    assert agentorch("init-db").code == 0
    assert agentorch("init-db", "--check").code == 5


def test_config_init_never_overwrites(agentorch: Run, tmp_path: Path) -> None:
    first, second = agentorch("config", "init"), agentorch("config", "init")

    assert (first.code, second.code) == (0, 8)
    assert "[gateway]" in (tmp_path / "agentorch.toml").read_text()
    assert agentorch("config", "show", "gateway.port").out.splitlines()[1].split("\t") == [
        "gateway.port",
        "3001",
        "default",
    ]


def test_config_show_tells_where_a_value_came_from_and_hides_passwords(
    agentorch: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "agentorch.toml").write_text("[gateway]\nport = 4000\n")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hush@localhost/x")

    outcome = agentorch("config", "show", "--json", "--data-dir", str(tmp_path / "other"))

    rows = {row["name"]: row for row in json.loads(outcome.out)}
    assert rows["gateway.port"]["value"] == 4000
    assert "agentorch.toml:2" in rows["gateway.port"]["origin"]
    assert "DATABASE_URL" in rows["database.url"]["origin"]
    assert "flag" in rows["data_dir"]["origin"]
    assert "hush" not in outcome.out


def test_a_wrong_configuration_is_told_with_its_line(agentorch: Run, desk: Any, tmp_path: Path) -> None:
    (tmp_path / "agentorch.toml").write_text("[gateway]\nprot = 4000\n")

    outcome = agentorch("task", "list")

    assert outcome.code == 2
    assert "agentorch.toml:2" in outcome.err
    assert 'did you mean "port"?' in outcome.err


def test_the_protocol_schema_is_json(agentorch: Run) -> None:
    assert json.loads(agentorch("protocol", "schema").out)
