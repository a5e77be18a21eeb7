"""Task files and agent files: what can be said in them, and what is said when they are wrong."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from effort import growth, lines_of
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch_cli.agents import Agent
from agentorch_cli.core.durations import parse_duration, show_duration, waited
from agentorch_cli.core.hints import closest
from agentorch_cli.core.model import Aggregate, Coverage, OnDependencyFailure, TaskSpec
from agentorch_cli.documents import Document, Format, load_document
from agentorch_cli.errors import InvalidFile, InvalidTask, OrchestratorError
from agentorch_cli.frames import read_frame
from agentorch_cli.messages import TASKS, TaskFields
from agentorch_cli.taskfile import TaskFile, read_agents, read_tasks, read_template

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def read(text: str | bytes | Document, **more: Any) -> TaskFile:
    numbers = itertools.count(1)
    document = text
    if not isinstance(document, Document):
        document = load_document(text.encode() if isinstance(text, str) else text, name="task.toml")
    return read_tasks(document, new_id=lambda: f"new-{next(numbers)}", **more)


def one(text: str | dict[str, Any]) -> TaskSpec:
    return read(text if isinstance(text, str) else json.dumps(text)).tasks[0]


def errors(text: str | dict[str, Any] | list[Any]) -> list[tuple[str, str]]:
    """Each error as (place and field, message)."""
    with pytest.raises(InvalidTask) as caught:
        read(text if isinstance(text, str) else json.dumps(text))
    return [
        (error["where"].removeprefix("task.toml:"), error["message"])
        for error in caught.value.details["errors"]
    ]


FULL = """
[task]
id = "report-1"
name = "report"
type = "summary"
pool = "press"
required_capabilities = ["read", "write", "read"]
coverage = "each"
min_agents = 2
max_agents = 4
priority = 9
depends_on = ["a", "b"]
on_dependency_failure = "run"
on_deadlock = "report"
timeout = "1m30s"
queue_timeout = "10m"
estimate = "1.5s"
deadline = 2030-02-01T00:00:00+01:00
retries = 5
backoff = 0.5
max_backoff = "1m"
retry = { busy = { retries = 9, maxBackoff = 3 } }
run_at = "2030-01-31T12:00:00Z"
idempotency_key = "k"
concurrency_key = "deploy"
concurrency_limit = 3
aggregate = "merge"
verifies = "a"
budget = { cost_usd = 0.5, tokens = 1000 }
labels = { team = "blue" }
traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
result_schema = { type = "object", required = ["answer"], properties = { answer = { enum = ["yes", "no"] } } }
[task.consensus]
threshold = 0.75
vote_on = "/answer"
tolerance = { rel = 0.01 }
options = ["yes", "no"]
on_no_consensus = "escalate"
judge = "judge"
[task.data]
when = 2030-01-01
list = [{ at = 07:30:00 }]
"""


def test_every_field_arrives() -> None:
    assert one(FULL) == TaskSpec(
        task_id="report-1",
        name="report",
        type="summary",
        pool="press",
        required_capabilities=("read", "write"),
        coverage=Coverage.EACH,
        min_agents=2,
        max_agents=4,
        priority=9,
        depends_on=("a", "b"),
        on_dependency_failure=OnDependencyFailure.RUN,
        on_deadlock="report",
        timeout_seconds=90.0,
        queue_timeout_seconds=600.0,
        estimate_seconds=1.5,
        deadline=datetime(2030, 1, 31, 23, tzinfo=UTC),
        retries=5,
        backoff_seconds=0.5,
        max_backoff_seconds=60.0,
        retry={"busy": {"retries": 9, "max_backoff_seconds": 3.0}},
        run_at=datetime(2030, 1, 31, 12, tzinfo=UTC),
        idempotency_key="k",
        concurrency_key="deploy",
        concurrency_limit=3,
        aggregate=Aggregate.MERGE,
        verifies="a",
        consensus={
            "rule": "supermajority",
            "threshold": 0.75,
            "vote_on": "/answer",
            "relative_tolerance": 0.01,
            "options": ["yes", "no"],
            "on_no_consensus": "escalate",
            "judge": "judge",
        },
        budget={"cost_usd": 0.5, "tokens": 1000},
        labels={"team": "blue"},
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        result_schema={
            "type": "object",
            "required": ["answer"],
            "properties": {"answer": {"enum": ["yes", "no"]}},
        },
        data={"when": "2030-01-01", "list": [{"at": "07:30:00"}]},
    )


def test_the_full_example_names_every_field() -> None:
    absent = set(TaskFields.__annotations__) - {"requires_consensus", "delay"}

    assert {key for key in absent if f"\n{key} =" not in FULL and f"[task.{key}]" not in FULL} == set()


def test_camel_case_says_the_same() -> None:
    snake = {
        "required_capabilities": ["a"],
        "requires_consensus": True,
        "min_agents": 2,
        "max_agents": 5,
        "depends_on": ["x"],
        "on_dependency_failure": "skip",
        "idempotency_key": "k",
        "run_at": "2030-01-31T12:00:00Z",
        "budget": {"cost_usd": 1},
        "consensus": {"min_votes": 2, "quorum": 2},
    }
    camel = {
        "requiredCapabilities": ["a"],
        "requiresConsensus": True,
        "minAgents": 2,
        "maxAgents": 5,
        "dependencies": ["x"],
        "onDependencyFailure": "skip",
        "idempotencyKey": "k",
        "runAt": "2030-01-31T12:00:00Z",
        "budget": {"costUsd": 1},
        "consensus": {"minVotes": 2, "k": 2},
    }

    assert one(camel) == one(snake)
    assert one({"dependsOn": ["x"]}) == one({"depends_on": ["x"]})


def test_two_spellings_of_one_key_are_an_error() -> None:
    ((where, message),) = errors("[task]\nmin_agents = 2\nminAgents = 1\n")

    assert message == 'is another spelling of "min_agents", which is there too'
    assert where == "3:1: task.minAgents"


@pytest.mark.parametrize(
    "text",
    [
        '[task]\ntype = "a"\n',
        '[[tasks]]\ntype = "a"\n',
        'type = "a"\n',
        '{"type": "a"}',
        '{"task": {"type": "a"}}',
        '{"tasks": [{"type": "a"}]}',
        '[{"type": "a"}]',
        '{"type": "a"}\n{"type": "b"}\n',
        '{"type": "a", "deadline": null, "consensus": null}',
    ],
)
def test_every_form_of_a_task_file_is_read(text: str) -> None:
    assert read(text).tasks[0] == TaskSpec("new-1", type="a")


def test_one_task_and_many_may_stand_in_one_file() -> None:
    file = read('[[tasks]]\nname = "b"\n[task]\nname = "a"\n[[tasks]]\nname = "c"\n')

    assert [task.name for task in file.tasks] == ["a", "b", "c"]
    assert [file.where(position, ("name",))["line"] for position in range(3)] == [4, 2, 6]


def test_what_came_by_the_wire_is_read_alike() -> None:
    assert read(Document({"tasks": [{"name": "a"}]}, "request")).tasks == [TaskSpec("new-1", name="a")]

    with pytest.raises(InvalidTask) as caught:
        read(Document([{"name": "a", "prio": 1}], "request"))
    assert caught.value.where == "request: [0].prio"
    with pytest.raises(InvalidTask, match="NUL"):
        read(Document([{"data": {"x": "\0"}}], "request"))
    with pytest.raises(InvalidTask, match="finite"):
        read(Document([{"data": [float("nan")]}], "request"))


AGENT_COUNTS = [
    ({}, (1, 1)),
    ({"min_agents": 3}, (3, 3)),
    ({"max_agents": 3}, (1, 3)),
    ({"requires_consensus": True}, (2, 3)),
    ({"consensus": {}}, (2, 3)),
    ({"consensus": {"panel": 5}}, (2, 5)),
    ({"consensus": {"panel": 1}}, (1, 1)),
    ({"consensus": {"panel": 5}, "max_agents": 4}, (2, 4)),
    ({"consensus": {}, "min_agents": 5}, (5, 5)),
    ({"consensus": {}, "max_agents": 1}, (1, 1)),
    ({"coverage": "team", "required_capabilities": ["a", "b"]}, (1, 2)),
    ({"coverage": "team", "required_capabilities": ["a", "b", "a"], "min_agents": 3}, (3, 3)),
    ({"coverage": "team", "required_capabilities": ["a", "b"], "max_agents": 1}, (1, 1)),
    ({"requires_consensus": False}, (1, 1)),
]


@pytest.mark.parametrize(("fields", "expected"), AGENT_COUNTS)
def test_how_many_agents_follows_from_what_was_said(
    fields: dict[str, Any], expected: tuple[int, int]
) -> None:
    task = one({"type": "t", **fields})

    assert (task.min_agents, task.max_agents) == expected


def test_a_team_brings_all_results_unless_the_file_says_how_they_become_one() -> None:
    fields = {"coverage": "team", "required_capabilities": ["a", "b"]}

    assert (one(fields).coverage, one(fields).aggregate) == (Coverage.TEAM, Aggregate.ALL)
    assert one({**fields, "aggregate": "first"}).aggregate is Aggregate.FIRST


@pytest.mark.parametrize(
    ("options", "rule", "confidence"),
    [
        ({}, "supermajority", None),
        ({"threshold": 0.5}, "supermajority", None),
        ({"rule": "majority"}, "majority", None),
        ({"adaptive": 0.9}, "adaptive", 0.9),
        ({"rule": "adaptive", "adaptive": 0.9}, "adaptive", 0.9),
        ({"k": 3}, "quorum", None),
        ({"rule": "schulze", "options": ["a", "b"]}, "schulze", None),
    ],
)
def test_the_rule_of_a_vote_is_always_named(
    options: dict[str, Any], rule: str, confidence: float | None
) -> None:
    consensus = one({"consensus": options}).consensus

    assert consensus is not None
    assert (consensus["rule"], consensus.get("confidence")) == (rule, confidence)
    assert json.loads(json.dumps(consensus)) == consensus


def test_times_may_be_durations_or_moments() -> None:
    assert one({"deadline": "2h"}).deadline_seconds == 7200
    assert one({"deadline": 90}).deadline_seconds == 90
    assert one({"deadline": "2030-01-01T01:00:00+01:00"}).deadline == NOW
    assert one({"delay": "1m"}).delay_seconds == 60


def test_defaults_are_used_only_where_the_file_is_silent() -> None:
    defaults = {"timeout_seconds": 7.0, "retries": 9}

    tasks = read('[{"type": "a"}, {"timeout": 1, "retries": 0}]', defaults=defaults).tasks

    assert [(task.timeout_seconds, task.retries) for task in tasks] == [(7.0, 9), (1.0, 0)]


def test_all_errors_of_a_file_are_told_at_once_in_the_order_of_the_file() -> None:
    found = errors("""\
[[tasks]]
name = "a"
prority = 3
timeout = "5x"
[[tasks]]
name = "a"
minAgents = 3
maxAgents = 2
dependencies = ["b"]
[[tasks]]
name = "b"
depends_on = ["a", "b"]
[tasks.consensus]
rule = "majorty"
threshhold = 0.5
cap = 0
""")

    assert found == [
        ("3:1: tasks[0].prority", 'unknown key (did you mean "priority"?)'),
        (
            "4:1: tasks[0].timeout",
            'must be a duration: a number of seconds, or a text such as "30s", "5m", "2h" or "1d", '
            'not the text "5x"',
        ),
        ("7:1: tasks[1].minAgents", "is 3, more than max_agents, which is 2"),
        (
            "14:1: tasks[2].consensus.rule",
            "must be one of plurality, majority, supermajority, unanimous, quorum, adaptive, weighted, "
            "median, trimmed_mean, schulze, borda, irv, approval, "
            'not the text "majorty" (did you mean "majority"?)',
        ),
        ("15:1: tasks[2].consensus.threshhold", 'unknown key (did you mean "threshold"?)'),
        ("16:1: tasks[2].consensus.cap", "must be at least 1, not 0"),
    ]


def test_field_errors_and_graph_errors_are_told_together() -> None:
    found = errors('[[tasks]]\npriority = 11\n[[tasks]]\nname = "x"\ndepends_on = ["x"]\n')

    assert found == [
        ("2:1: tasks[0].priority", "must be at most 10, not 11"),
        ("5:15: tasks[1].depends_on[0]", "is the task itself"),
    ]


def test_a_cycle_in_a_file_names_its_lines() -> None:
    file = read(
        '[[tasks]]\nname="a"\ndepends_on=["c"]\n[[tasks]]\nname="b"\ndependencies=["a"]\n[[tasks]]\nname="c"\ndepends_on=["b"]\n'
    )

    with pytest.raises(InvalidTask) as caught:
        file.plan()

    assert str(caught.value) == (
        "task.toml:3:1: tasks[0].depends_on: "
        "tasks wait for each other in a circle: a -> c -> b -> a (lines 1, 7, 4)"
    )


WRONG = [
    ({"priority": 11}, "priority", "must be at most 10, not 11"),
    ({"priority": -1}, "priority", "must be at least 0, not -1"),
    ({"priority": "high"}, "priority", 'must be a whole number, not the text "high"'),
    ({"priority": True}, "priority", "must be a whole number, not true"),
    ({"priority": 1.5}, "priority", "must be a whole number, not 1.5"),
    ({"min_agents": 0}, "min_agents", "must be at least 1"),
    ({"max_agents": 101}, "max_agents", "must be at most 100"),
    ({"id": ""}, "id", "must not be empty"),
    ({"id": " "}, "id", "must not be blank"),
    ({"id": 7}, "id", "must be text, not 7"),
    ({"id": "x" * 201}, "id", "more than 200 characters"),
    ({"name": "a\nb"}, "name", "control characters"),
    ({"name": "a\x7f"}, "name", "control characters"),
    ({"type": ["a"]}, "type", "must be text, not a list"),
    ({"required_capabilities": "a"}, "required_capabilities", "must be a list"),
    ({"required_capabilities": [""]}, "required_capabilities[0]", "must not be empty"),
    ({"depends_on": {"a": 1}}, "depends_on", "must be a list, not a table"),
    ({"coverage": "eech"}, "coverage", 'one of each, team, not the text "eech" (did you mean "each"?)'),
    ({"coverage": "team"}, "coverage", "needs required_capabilities"),
    (
        {"coverage": "team", "required_capabilities": ["a", "b"], "requires_consensus": True},
        "coverage",
        "does not go with a vote: voters answer the same question",
    ),
    (
        {"coverage": "team", "required_capabilities": ["a"], "consensus": {}},
        "coverage",
        "does not go with a vote",
    ),
    (
        {"coverage": "team", "required_capabilities": ["c++", "a+b"]},
        "required_capabilities[1]",
        "has a plus that is not at its end",
    ),
    ({"aggregate": 1}, "aggregate", "must be one of first, all, best, merge, median"),
    ({"on_dependency_failure": "stop"}, "on_dependency_failure", "must be one of fail, run, skip"),
    ({"timeout": 0}, "timeout", "longer than 0"),
    ({"timeout": -1}, "timeout", "from 0 seconds to 10 years"),
    ({"timeout": "11000d"}, "timeout", "from 0 seconds to 10 years"),
    ({"timeout": True}, "timeout", "must be a duration"),
    ({"deadline": "soon"}, "deadline", "must be a duration"),
    ({"deadline": "2030-01-01T00:00:00"}, "deadline", "needs a time zone"),
    ({"deadline": "2030-13-01"}, "deadline", "must be a time such as"),
    ({"run_at": "9999-12-31T23:59:59-23:00"}, "run_at", "between the years 2000 and 2200"),
    ({"run_at": 5}, "run_at", "must be a time such as"),
    ({"run_at": "2030-01-01T00:00:00Z", "delay": 1}, "delay", "both there"),
    ({"retries": -1}, "retries", "must be at least 0"),
    ({"budget": {"usd": 1}}, "budget.usd", 'unknown key (did you mean "cost_usd"?)'),
    ({"budget": {"tokens": 0}}, "budget.tokens", "must be more than 0"),
    ({"labels": {"a": 1}}, "labels.a", "must be text, not 1"),
    ({"consensus": True}, "consensus", "must be a table, not true"),
    ({"consensus": {"threshold": 0}}, "consensus.threshold", "must be more than 0"),
    ({"consensus": {"threshold": 1.01}}, "consensus.threshold", "must be at most 1"),
    ({"consensus": {"trim": 0.5}}, "consensus.trim", "must be less than 0.5"),
    ({"consensus": {"tolerance": -1}}, "consensus.tolerance.abs", "must be at least 0"),
    ({"consensus": {"tolerance": {"abz": 1}}}, "consensus.tolerance.abz", 'did you mean "abs"'),
    ({"consensus": {"vote_on": "answer"}}, "consensus.vote_on", "must be a JSON pointer"),
    ({"consensus": {"rule": "borda"}}, "consensus.rule", "needs at least two options"),
    ({"consensus": {"rule": "quorum"}}, "consensus.rule", "quorum needs the number"),
    ({"consensus": {"rule": "majority", "adaptive": 0.9}}, "consensus.adaptive", "does not go with"),
    ({"consensus": {"panel": 3, "minVotes": 4}}, "consensus.minVotes", "more than the panel of 3"),
    ({"consensus": {"onNoConsensus": "fial"}}, "consensus.onNoConsensus", 'did you mean "fail"'),
    ({"requires_consensus": False, "consensus": {}}, "consensus", "requires_consensus is false"),
    ({"requiredCapabilites": []}, "requiredCapabilites", 'did you mean "required_capabilities"'),
    ({"capabilities": []}, "capabilities", 'did you mean "required_capabilities"'),
    ({"data": "x" * 1_100_000}, "data", "at most 1,000,000 are taken"),
]


@pytest.mark.parametrize(("fields", "field", "message"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_field_is_named_with_what_would_be_right(
    fields: dict[str, Any], field: str, message: str
) -> None:
    ((where, found),) = errors(
        {"tasks": [{"name": "fine"}, {**fields, "type": "t"} if "type" not in fields else fields]}
    )

    assert where.endswith(f": tasks[1].{field}")
    assert message in found


SHAPES = [
    ("", "", "contains no task"),
    ("tasks = []\n", "", "contains no task"),
    ("[]", "", "contains no task"),
    ('"text"', None, ""),
    ("[task]\n[[tasks]]\n[extra]\n", "3:1: extra", "unknown key"),
    ("[tsk]\n", "1:1: tsk", 'unknown key (did you mean "task"?)'),
    ("[[task]]\n", "1:1: task", "is a list; several tasks are written [[tasks]]"),
    ("[tasks]\n", "1:1: tasks", "must be a list, not a table; one task is written [task]"),
    ("task = 1\n", "1:1: task", "must be a table, not 1"),
    ("[1, 2]", "1:2: [0]", "must be a table, not 1"),
    ("{}\n{}\n", None, ""),
]


@pytest.mark.parametrize(("text", "where", "message"), SHAPES, ids=range(len(SHAPES)))
def test_a_file_of_another_shape_says_what_a_task_file_looks_like(
    text: str, where: str | None, message: str
) -> None:
    if where is None:
        try:
            read(text)
        except (InvalidFile, InvalidTask) as error:
            assert error.message
        return
    found_where, found = errors(text)[0]

    assert found_where == where or where in found_where
    assert message in found


def test_a_file_with_thousands_of_errors_tells_a_hundred_and_counts_the_rest() -> None:
    with pytest.raises(InvalidTask, match=r"\(and 1,999 more\)") as caught:
        read(json.dumps([{"prio": 1}] * 2000))

    assert len(caught.value.details["errors"]) == 100


def test_what_many_errors_cost_grows_with_their_number() -> None:
    def wrong(size: int) -> Callable[[], None]:
        text = json.dumps([{f"key{i}": 1} for i in range(size)])

        def refused() -> None:
            with pytest.raises(InvalidTask, match=rf"\(and {size - 1:,} more\)"):
                read(text)

        return refused

    wrong(50_000)()
    assert growth(wrong, 1_000) < 2.2


def test_errors_far_apart_in_a_long_file_are_told_with_their_lines() -> None:
    lines = [json.dumps({"name": f"t{n}"}) for n in range(2_500)]
    for number, wrong in ((999, {"type": 5}), (1_000, {"priority": 99}), (2_499, {"depends_on": ["t2499"]})):
        lines[number] = json.dumps({"name": f"t{number}", **wrong})

    with pytest.raises(InvalidTask) as caught:
        read("\n".join(lines))

    errors = caught.value.details["errors"]
    assert [error["field"] for error in errors] == ["[999].type", "[1000].priority", "[2499].depends_on[0]"]
    assert [error["line"] for error in errors] == [1000, 1001, 2500]


@pytest.mark.parametrize("format", [Format.JSON, Format.JSONL, Format.TOML])
def test_places_are_found_too_once_what_was_read_is_let_go(format: Format) -> None:
    items = [{"name": "first"}, {"name": "second", "dependsOn": ["first", "nobody"]}]
    text = {
        Format.JSON: json.dumps({"tasks": items}, indent=2),
        Format.JSONL: "\n".join(json.dumps(item) for item in items),
        Format.TOML: '[[tasks]]\nname = "first"\n[[tasks]]\nname = "second"\ndependsOn = ["first", "nobody"]',
    }[format]
    file = read(load_document(text.encode(), format, name="tasks"))

    later = file.where_later()

    for path in ((), ("depends_on",), ("depends_on", 1), ("priority",)):
        assert later(1, path) == file.where(1, path)
    assert "line" in later(1, ("depends_on", 1))


def test_an_endless_key_is_cut_in_the_error() -> None:
    ((where, message),) = errors({"k" * 100_000: 1})

    assert len(where) < 200
    assert message == "unknown key"


def test_the_raw_items_are_kept_for_a_server_that_reads_them_itself() -> None:
    file = read('[{"name": "a", "minAgents": 2}]')

    assert list(file.items) == [{"name": "a", "minAgents": 2}]
    assert read(Document(list(file.items), "request")).tasks == file.tasks


_value = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 200) | st.floats(-2, 2) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_known = st.sampled_from([*sorted(TASKS.keys), *sorted(TASKS.aliases), "other"])
_options = st.dictionaries(st.sampled_from(sorted(TASKS.nested["consensus"].keys)), _value, max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.dictionaries(_known, _value | _options, max_size=5) | _value, max_size=3))
def test_nothing_brings_anything_but_tasks_or_an_invalid_task(items: list[Any]) -> None:
    document = Document(items, "request")
    try:
        file = read(document)
        made = file.plan()
    except InvalidTask as error:
        assert error.details["errors"]
        json.dumps(error.to_json())
    else:
        assert len(made.tasks) == len(items)
        assert all(1 <= task.min_agents <= task.max_agents <= 100 for task in made.tasks)


def test_agents_are_read_from_toml_and_json() -> None:
    toml = load_document(b"""
[[agents]]
id = "counter"
type = "script"
capabilities = ["count", "count", "read"]
slots = 4
exec = ["python", "count words.py"]
[agents.metadata]
since = 2030-01-01
[[agents]]
agentId = "person"
""")
    counter, person = read_agents(toml)

    assert counter.capabilities == ("count", "read")
    assert (counter.slots, counter.exec) == (4, "python 'count words.py'")
    assert counter.metadata == {"since": "2030-01-01"}
    assert (person.agent_id, person.type, person.slots, person.exec) == ("person", "worker", 1, None)
    assert read_agents(load_document(b'{"agents": [{"id": "person"}]}')) == [person]
    assert read_agents(load_document(b'[agent]\nid = "person"\n')) == [person]


def test_what_is_wrong_with_agents_is_told_like_that_of_tasks() -> None:
    text = b"""\
[[agents]]
slots = 0
[[agents]]
id = "a"
capabilites = []
[[agents]]
type = "x"
[[agents]]
id = "b"
[[agents]]
id = "b"
"""

    with pytest.raises(InvalidTask) as caught:
        read_agents(load_document(text, name="agents.toml"))

    assert [(error["where"], error["message"]) for error in caught.value.details["errors"]] == [
        ("agents.toml:2:1: agents[0].slots", "must be at least 1, not 0"),
        ("agents.toml:5:1: agents[1].capabilites", 'unknown key (did you mean "capabilities"?)'),
        ("agents.toml:6:1: agents[2]", "an agent needs an id"),
        ("agents.toml:11:1: agents[4].id", 'the id "b" is there twice (line 8)'),
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("2 d", 172800),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("90", 90),
        (0, 0),
    ],
)
def test_durations_are_read_as_people_write_them(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "wrong",
    ["", "s", "5x", "-5s", "1e3s", "٣s", "inf", float("inf"), float("nan"), 1e300, 10**400, None, [], True],
)
def test_what_is_no_duration_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(wrong)


@given(st.integers(0, 10**8) | st.sampled_from([0.25, 0.001, 1.5, 90.5]))
def test_a_shown_duration_reads_back(seconds: float) -> None:
    assert parse_duration(show_duration(seconds) or 0) == seconds


def test_a_wait_is_told_as_it_was_asked_for() -> None:
    """A client sends what is left of it, microseconds after it was asked."""
    told = [waited(seconds) for seconds in (2.99998, 3, 0.0099, 90.0, 1_000_000, 1.5)]

    assert told == ["3 s", "3 s", "0.01 s", "90 s", "1000000 s", "1.5 s"]


def test_a_hint_is_given_only_where_something_is_near() -> None:
    assert closest("MinAgents", ["min_agents", "max_agents"]) == "min_agents"
    assert closest("prority", ["priority", "type"]) == "priority"
    assert closest("zebra", ["priority", "type"]) is None


def test_what_many_tasks_cost_grows_with_their_number() -> None:
    """Some lines for each: 10,000 are read in about 0.2 s."""

    def tasks(size: int) -> Callable[[], None]:
        text = json.dumps(
            [{"name": f"t{i}", "required_capabilities": ["a"], "data": {"x": i}} for i in range(size)]
        )

        def planned() -> None:
            file = read(load_document(text.encode(), Format.JSON))
            assert len(file.plan().tasks) == size

        return planned

    assert lines_of(tasks(1_000)) < 1_000 * 300
    assert growth(tasks, 1_000) < 2.2


SCHEMA_WITH_MISTAKES = """\
[[tasks]]
name = "a"
[tasks.result_schema]
type = "objct"
[tasks.result_schema.properties.n]
minimum = "three"

[[tasks]]
name = "b"
result_schema = 3

[[tasks]]
name = "c"
resultSchema = { "$ref" = "https://example.com/answer.json" }
"""


def test_mistakes_in_a_result_schema_are_told_with_their_lines() -> None:
    with pytest.raises(InvalidTask) as caught:
        read(SCHEMA_WITH_MISTAKES)

    told = [(error["line"], error["field"], error["message"]) for error in caught.value.details["errors"]]
    assert told == [
        (4, "tasks[0].result_schema.type", 'is no type of JSON: "objct" (did you mean "object"?)'),
        (6, "tasks[0].result_schema.properties.n.minimum", 'must be a number, not "three"'),
        (10, "tasks[1].result_schema", "must be a table (a JSON Schema), true or false, not 3"),
        (
            14,
            "tasks[2].resultSchema.$ref",
            'refers to "https://example.com/answer.json": nothing is fetched, so put it under $defs'
            ' and refer to "#/$defs/…"',
        ),
    ]


def test_a_result_schema_may_be_true_false_or_hold_dates() -> None:
    assert one("[task]\nresult_schema = true").result_schema is True
    assert one("[task]\nresult_schema = false").result_schema is False
    assert one("[task]\n[task.result_schema]\nenum = [2030-01-31]").result_schema == {"enum": ["2030-01-31"]}


# --- budgets ------------------------------------------------------------------------------------


def test_the_budget_of_a_submission_stands_beside_its_tasks() -> None:
    value = {"budget": {"cost_usd": 2, "attemptTokens": 500}, "task": {"type": "t"}}
    file = read_tasks(Document(value, "file"), new_id=lambda: "made")

    assert file.budget == {"cost_usd": 2, "attempt_tokens": 500}
    assert file.tasks[0].budget is None


def test_a_task_without_a_table_may_be_called_budget() -> None:
    file = read_tasks(Document({"budget": {"tokens": 5}}, "one"), new_id=lambda: "made")

    assert (file.budget, file.tasks[0].budget) == (None, {"tokens": 5})


@pytest.mark.parametrize(
    ("budget", "field", "message"),
    [
        ({}, "budget", "limits nothing: say cost_usd, tokens, or both"),
        ({"attempt_usd": 1}, "budget", "limits nothing"),
        ({"cost_usd": 0}, "budget.cost_usd", "must be"),
        ({"cost_usd": 1, "attemptUsd": 2}, "budget.attempt", "is 2, more than cost_usd, which is 1"),
        ({"usd": 1}, "budget.usd", 'did you mean "cost_usd"?'),
        (5, "budget", "must be"),
    ],
)
def test_a_wrong_budget_of_a_submission_is_named(budget: Any, field: str, message: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        read_tasks(Document({"tasks": [{}], "budget": budget}, "file"), new_id=lambda: "made")

    (entry,) = caught.value.details["errors"]
    assert entry["field"].startswith(field)
    assert message in entry["message"]


def test_an_attempt_may_not_be_expected_to_use_more_than_all_of_them() -> None:
    ((where, found),) = errors({"tasks": [{"budget": {"tokens": 5, "attempt_tokens": 6}}]})

    assert where.endswith("tasks[0].budget.attempt_tokens")
    assert found == "is 6, more than tokens, which is 5"


def test_a_schedule_takes_no_budget_of_a_submission() -> None:
    with pytest.raises(InvalidTask) as caught:
        read_template(Document({"tasks": [{}], "budget": {"tokens": 5}}, "file"), new_id=lambda: "made")

    (entry,) = caught.value.details["errors"]
    assert (entry["field"], "a schedule makes many" in entry["message"]) == ("budget", True)


NAMES = [
    "a",
    " a ",
    "a b",
    "\u202eevil",
    "𝄞" * 200,
    "",
    " ",
    "\u3000\u2003",
    "\u00a0",
    "a\n",
    "a\x7f",
    "a\x9b",
    "x" * 201,
]


@pytest.mark.parametrize("name", NAMES)
def test_files_frames_and_programs_have_one_rule_of_names(name: str) -> None:
    """A blank id that came over the wire could be neither typed nor seen."""
    text = json.dumps({"id": name, "capabilities": [name]})
    frame = {"type": "register", "agentId": name, "capabilities": [name], "pool": name}

    assert [
        _is_taken(lambda: read_agents(load_document(text.encode(), name="agents.json"))),
        _is_taken(lambda: read_frame(frame)),
        _is_taken(lambda: Agent(name)),
    ] == [NAMES.index(name) < 5] * 3


def _is_taken(read: Callable[[], object]) -> bool:
    try:
        read()
    except OrchestratorError:
        return False
    return True
