"""Explain, topics and schemas: what the program tells of its own files is what it takes."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Callable
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from agentorch_cli import errors
from agentorch_cli.cli.app import build
from agentorch_cli.config import OTHER_VARIABLES, load_settings
from agentorch_cli.core.knots import Kind
from agentorch_cli.core.vote import Rule
from agentorch_cli.documents import Format, load_document
from agentorch_cli.errors import InvalidConfig, InvalidFile, InvalidTask, NotFound, OrchestratorError
from agentorch_cli.guide.fields import Field, every, find, roots
from agentorch_cli.guide.outline import outline
from agentorch_cli.guide.schema import FILES, file_schema, tables, words_of
from agentorch_cli.guide.topics import TOPICS, title, topic
from agentorch_cli.messages import AGENTS, FOR_UP, TASKS
from agentorch_cli.settings import Settings, setting_names, variable
from agentorch_cli.taskfile import read_agents, read_tasks

ROOT = Path(__file__).parents[2]
Run = Callable[..., Any]

FIELDS = list(every())


# --- explain ----------------------------------------------------------------------------------------


def test_every_key_and_every_setting_is_explained() -> None:
    paths = {field.path for field in FIELDS}

    assert {f"task.{key}" for key in TASKS.keys} <= paths
    assert {f"task.consensus.{key}" for key in TASKS.nested["consensus"].keys} <= paths
    assert {f"agent.{key}" for key in AGENTS.keys} <= paths
    assert {f"config.{name}" for name in setting_names()} <= paths


def test_each_field_has_a_type_a_meaning_and_an_example() -> None:
    for field in FIELDS:
        assert field.type, field.path
        assert field.meaning.endswith((".", ":", "…")), field.path
        assert field.example, field.path


def test_every_docstring_of_a_field_says_default_and_example() -> None:
    from agentorch_cli import messages

    for name, table in tables().items():
        words = words_of(getattr(messages, name))
        assert words.keys() == table.keys
        assert all(said.meaning and said.default and said.example for said in words.values()), name


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.path)
def test_the_example_of_each_field_is_taken(field: Field, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = tmp_path / "example.toml"
    file.write_text(str(field.example))
    kind = field.path.partition(".")[0]
    if kind == "agent" and field.name in FOR_UP:
        file.write_text(f'{field.example}\nexec = "cat"\n')
    text = tomllib.loads(str(field.example))

    match kind:
        case "config":
            load_settings({}, {}, file, tmp_path)
        case "agent":
            assert read_agents(load_document(file))
        case "budget" if "task" not in text:
            file.write_text(f"[task]\n{field.example}")
            assert read_tasks(load_document(file), new_id=lambda: "x").budget
        case _:
            assert read_tasks(load_document(file), new_id=lambda: "x").tasks
    if not field.children:
        assert field.name in str(field.example)


def test_the_documentation_means_the_same() -> None:
    """The tables of docs/task-file.md begin with the words of the docstrings."""
    text = (ROOT / "docs" / "task-file.md").read_text("utf-8")
    rows = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("| `")]
    told = {plain(row[0]): (plain(row[3]), plain(row[4])) for row in reversed(rows) if len(row) == 5}

    for field in FIELDS:
        root, _, name = field.path.partition(".")
        if (
            root != "task"
            or not name
            or ".NAME" in field.path
            or "tolerance." in field.path
            or "budget." in field.path
        ):
            continue
        name = name.rpartition(".")[2]
        meaning = plain(field.meaning).rstrip(".").lower()
        default, meant = told[name]
        assert meant.lower().startswith(meaning), name
        assert default == plain(str(field.default)), name


def plain(text: str) -> str:
    """Without links and marks."""
    return re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text).replace("`", "").strip()


def test_the_outline_is_the_same_tree_without_the_models() -> None:
    assert sorted(path for path, _ in outline()) == sorted(field.path for field in FIELDS)
    meant = {field.path: field.meaning for field in FIELDS}
    assert all(meaning in ("", meant[path]) for path, meaning in outline() if "profiles" not in path)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("task", "task"),
        ("tasks.priority", "task.priority"),
        ("agents.slots", "agent.slots"),
        ("task.minAgents", "task.min_agents"),
        ("task.dependencies", "task.depends_on"),
        ("task.consensus.k", "task.consensus.quorum"),
        ("task.retry.rate_limited.backoff", "task.retry.NAME.backoff"),
        ("gateway.port", "config.gateway.port"),
        ("config.gateway", "config.gateway"),
        ("data_dir", "config.data_dir"),
        ("config.profiles.work.url", "config.profiles.NAME.url"),
        ("budget.tokens", "budget.tokens"),
    ],
)
def test_a_field_is_found_by_each_of_its_names(path: str, found: str) -> None:
    assert find(path).path == found


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("task.prioritty", "task.priority"),
        ("tsk.priority", "task.priority"),
        ("treshold", "task.consensus.threshold"),
        ("task.threshold", "task.consensus.threshold"),
        ("gateway.prot", "config.gateway.port"),
        ("task.consensus.vote-on", "task.consensus.vote_on"),
    ],
)
def test_a_field_that_is_not_there_is_told_with_the_one_that_was_meant(path: str, meant: str) -> None:
    with pytest.raises(NotFound, match="no field") as caught:
        find(path)

    assert f'did you mean "{meant}"?' in caught.value.message or path == "task.threshold"


def test_explaining_says_type_range_default_and_example(agentorch: Run) -> None:
    outcome = agentorch("explain", "task.consensus.threshold")

    assert outcome.code == 0
    for said in (
        "number",
        "above 0, at most 1",
        "0.66",
        "[task.consensus]",
        "threshold = 0.75",
        "supermajority",
    ):
        assert said in outcome.out


def test_explaining_a_table_lists_what_is_in_it(agentorch: Run) -> None:
    outcome = agentorch("explain", "task.consensus")

    names = {line.split("\t")[0] for line in outcome.out.splitlines()}
    assert TASKS.nested["consensus"].keys <= names


def test_explaining_as_json(agentorch: Run) -> None:
    told = json.loads(agentorch("explain", "gateway.port", "--json").out)

    assert told["type"] == "whole number"
    assert told["variable"] == variable("gateway.port")
    assert (told["default"], told["range"]) == ("`3001`", "0 to 65,535")
    assert len(json.loads(agentorch("explain", "--all", "--json").out)) == len(FIELDS)


def test_the_fields_without_a_path_are_the_files(agentorch: Run) -> None:
    assert agentorch("-q", "explain").out.split() == list(roots())


# --- topics -----------------------------------------------------------------------------------------


def words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_][\w-]*", text))


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_is_at_most_two_screens(name: str) -> None:
    lines = topic(name).splitlines()

    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    assert title(name) and not title(name).endswith(".")


@pytest.mark.parametrize("name", TOPICS)
def test_the_commands_of_a_topic_are_understood(name: str) -> None:
    """Each line that begins with the program's name, up to what is said about it."""
    root = build()
    context = root.make_context("agentorch", [], resilient_parsing=True)
    for line in topic(name).splitlines():
        if not line.startswith("  agentorch "):
            continue
        typed = re.split(r"\s{2,}", line.strip())[0].split()[1:]
        command: Any = root
        here = context
        while typed and hasattr(command, "list_commands") and not typed[0].startswith("-"):
            command, here = command.get_command(here, typed.pop(0)), here
            assert command is not None, line
        options = {word for word in typed if word.startswith("--")}
        assert options <= {name for param in command.params for name in param.opts}, line
        assert find(typed[0].replace("KEY", "id")) if "explain" in line and typed else True


def test_the_topic_of_task_files_names_every_key() -> None:
    assert TASKS.keys <= words(topic("task-file").partition("KEYS")[2])


def test_the_topic_of_votes_names_every_rule_and_every_key() -> None:
    text = topic("consensus")

    assert {str(rule) for rule in Rule} <= words(text)
    assert TASKS.nested["consensus"].keys <= words(text)


def test_the_topic_of_deadlocks_names_every_kind() -> None:
    listed = re.findall(r"^  ([a-z_]+)  ", topic("deadlocks").partition("KINDS")[2], re.MULTILINE)

    page = (ROOT / "docs" / "deadlocks.md").read_text("utf-8")
    assert sorted(listed) == sorted(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE))
    assert set(listed) >= {str(kind) for kind in Kind} - {"blocked_behind"}


def test_the_topic_of_exit_codes_is_the_table_of_the_readme() -> None:
    listed = dict(re.findall(r"^ {2,4}(\d+)  (.*)$", topic("exit-codes"), re.MULTILINE))
    section = (ROOT / "README.md").read_text("utf-8").split("\n## Exit codes\n")[1].split("\n## ")[0]
    readme = dict(re.findall(r"^\| (\d) \| (.*) \|$", section, re.MULTILINE))

    assert {code: listed[code] for code in readme} == readme
    assert listed.keys() - readme.keys() == {"130", "143"}


def test_the_topic_of_the_configuration_names_every_section() -> None:
    listed = re.findall(r"^  ([a-z]+) {2,}\S", topic("config").partition("SECTIONS")[2], re.MULTILINE)
    sections = {name.partition(".")[0] for name in setting_names() if "." in name}

    assert set(listed) - {"agentorch"} == sections | {"profiles"}


def test_the_topic_of_the_environment_names_every_variable_that_is_read() -> None:
    """All names in the sources that look like one, but for single settings."""
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "agentorch_cli").rglob("*.py"))
    read = set(re.findall(r"\"((?:AGENTORCH|NO)_[A-Z_]+)\"", sources)) | set(OTHER_VARIABLES)
    settings = {variable(name) for name in setting_names()}
    own = {"AGENTORCH_RUN"}  # what the trial tells its own processes
    told = words(topic("environment"))

    assert read - settings - own <= told
    mentioned = {word for word in told if word.startswith("AGENTORCH_")}
    assert mentioned - {"AGENTORCH_SECTION_KEY"} <= read | settings


def test_the_topic_of_errors_names_every_code_under_its_exit_code() -> None:
    text = topic("errors").partition("CODES")[2]
    listed: dict[str, int] = {}
    exit_code = 0
    for line in text.partition("\n\n")[0].splitlines()[1:]:
        exit_code = int(line[2]) if line[2].isdigit() else exit_code
        listed |= dict.fromkeys(line[3:].split(), exit_code)
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]

    assert listed == {kind.code: kind.exit_code for kind in kinds if issubclass(kind, OrchestratorError)}


def test_the_topic_of_the_protocol_names_every_frame() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    frames = set(re.findall(r"^### `(\w+)`", page, re.MULTILINE))

    assert len(frames) > 8
    assert frames <= words(topic("protocol"))


def test_help_lists_the_topics_and_shows_each(agentorch: Run) -> None:
    listed = agentorch("help")

    assert [line.split()[0] for line in listed.out.splitlines()] == list(TOPICS)
    for name in TOPICS:
        assert agentorch("help", name).out == topic(name)


def test_help_of_a_command_is_its_page(agentorch: Run) -> None:
    assert agentorch("help", "task", "submit").out == agentorch("task", "submit", "--help").out
    assert agentorch("help", "task").out == agentorch("task", "--help").out


# --- schemas ----------------------------------------------------------------------------------------


def validator(kind: str) -> Any:
    return jsonschema_rs.Draft7Validator(file_schema(kind))


def as_json(value: Any) -> Any:
    """TOML's times are texts to an editor."""
    if isinstance(value, dict):
        return {key: as_json(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_json(one) for one in value]
    return value.isoformat() if isinstance(value, datetime | date | time) else value


@pytest.mark.parametrize("kind", FILES)
def test_a_schema_is_a_valid_schema_of_draft_7_without_dangling_references(kind: str) -> None:
    schema = file_schema(kind)

    assert jsonschema_rs.meta.is_valid(schema)
    text = json.dumps(schema)
    for reference in re.findall(r'"\$ref": "([^"]+)"', text):
        assert reference.removeprefix("#/definitions/") in schema["definitions"]
    assert "$defs" not in text and "x-type" not in text


def test_a_schema_describes_every_field(agentorch: Run) -> None:
    task = json.loads(agentorch("schema", "task").out)["definitions"]["TaskFields"]
    config = json.loads(agentorch("schema", "config").out)

    assert TASKS.keys <= task["properties"].keys()
    assert all(task["properties"][key]["description"] for key in TASKS.keys)
    assert task["properties"]["priority"]["default"] == 5
    assert set(Settings.model_fields) | {"profiles"} == config["properties"].keys()


def examples() -> list[Path]:
    folders = ("tasks", "people", "schedules")
    return [file for name in folders for file in sorted((ROOT / "examples" / name).iterdir())]


@pytest.mark.parametrize("file", examples(), ids=lambda file: file.name)
def test_the_examples_fit_the_schema(file: Path) -> None:
    document = load_document(file)
    values = document.value if document.format is Format.JSONL else [document.value]

    for value in values:
        assert [str(error) for error in validator("task").iter_errors(as_json(value))] == []


def test_the_examples_of_agents_and_settings_fit_their_schemas() -> None:
    agents = load_document(ROOT / "examples" / "agents.toml").value
    config = re.sub(r"^# (\w+ = )", r"\1", (ROOT / "config.example.toml").read_text("utf-8"), flags=re.M)

    assert validator("agents").is_valid(as_json(agents))
    assert validator("config").is_valid(as_json(tomllib.loads(config)))


def blocks() -> list[str]:
    page = (ROOT / "docs" / "task-file.md").read_text("utf-8")
    return re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_what_the_documentation_shows_fits_the_schema() -> None:
    assert len(blocks()) > 5
    for text in blocks():
        assert validator("task").is_valid(as_json(tomllib.loads(text))), text


def test_the_example_of_each_field_fits_the_schema() -> None:
    for field in FIELDS:
        root = field.path.partition(".")[0]
        text = str(field.example)
        if root == "budget" and "[task]" not in text:
            text = f"[task]\n{text}"
        kind = {"agent": "agents", "budget": "task"}.get(root, root)
        found = [str(error) for error in validator(kind).iter_errors(as_json(tomllib.loads(text)))]
        assert not found, f"{field.path}: {found}"


def test_null_and_camel_case_fit_as_they_are_taken() -> None:
    task = {"minAgents": 2, "priority": None, "dependencies": ["a"], "consensus": {"k": 2, "voteOn": None}}
    bare = {"$schema": "./task.schema.json", **task}

    for value in ({"task": task}, {"tasks": [task]}, [task], bare):
        document = load_document(json.dumps(value).encode(), Format.JSON)
        assert read_tasks(document, new_id=lambda: "x").tasks
        assert validator("task").is_valid(value)


BAD_TASKS = [
    "[task]\nprioritty = 3",
    "[task]\npriority = 11",
    '[task]\npriority = "high"',
    "[task]\nretries = -1",
    '[task]\ncoverage = "some"',
    "[task]\ndepends_on = 3",
    '[task]\ndepends_on = [""]',
    '[task]\ntimeout = "soon"',
    "[task]\ntimeout = -1",
    "[task]\ntimeout = true",
    '[task]\nname = ""',
    '[task]\nname = "   "',
    "[task]\nname = 7",
    "[task]\nlabels = {team = 7}",
    "[task]\nrequires_consensus = 1",
    "[task]\nconsensus = {threshold = 66}",
    "[task]\nconsensus = {threshold = 0}",
    '[task]\nconsensus = {rule = "majorty"}',
    '[task]\nconsensus = {vote_on = "verdict"}',
    "[task]\nconsensus = {tolerance = {abs = -1}}",
    "[task]\nconsensus = {options = []}",
    "[task]\nbudget = {cost_usd = 0}",
    "[task]\nbudget = {dollars = 5}",
    "[task]\nretry = {busy = {backof = 1}}",
    "[task]\nresult_schema = 7",
    "[task]\nmin_agents = 0",
    '[[task]]\nname = "a"',
    '[tasks]\nname = "a"',
    "[tsk]\n[task]",
    "[[tasks]]\n[[tasks]]\npriority = 11",
    'prioritty = 3\nname = "bare"',
]
BAD_AGENTS = [
    '[[agents]]\ntype = "x"',
    '[[agents]]\nid = "a"\nslots = 0',
    '[[agents]]\nid = "a"\ncapabilites = ["x"]',
    '[[agents]]\nid = ""',
    '[[agents]]\nid = "a"\nexec = 7',
    '[agents]\nid = "a"',
]
BAD_SETTINGS = [
    "[gateway]\nprot = 1",
    "[gatway]\nport = 1",
    '[gateway]\nport = "high"',
    "[gateway]\nport = 70000",
    '[engine]\ntask_timeout = "soon"',
    '[logging]\nlevel = "loud"',
    "gateway = 7",
    '[balancing]\nenabled = "yes"',
    "data_dir = 7",
    "[profiles.x]\nadress = 1",
]


@pytest.mark.parametrize("text", BAD_TASKS)
def test_what_the_schema_of_tasks_refuses_the_program_refuses(text: str) -> None:
    assert not validator("task").is_valid(as_json(tomllib.loads(text)))
    with pytest.raises(InvalidTask):
        read_tasks(load_document(text.encode(), Format.TOML), new_id=lambda: "x")


@pytest.mark.parametrize("text", BAD_AGENTS)
def test_what_the_schema_of_agents_refuses_the_program_refuses(text: str) -> None:
    assert not validator("agents").is_valid(as_json(tomllib.loads(text)))
    with pytest.raises(InvalidTask):
        read_agents(load_document(text.encode(), Format.TOML))


@pytest.mark.parametrize("text", BAD_SETTINGS)
def test_what_the_schema_of_settings_refuses_the_program_refuses(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "bad.toml").write_text(text)

    assert not validator("config").is_valid(as_json(tomllib.loads(text)))
    with pytest.raises(InvalidConfig):
        load_settings({}, {}, tmp_path / "bad.toml", tmp_path)


def test_whatever_the_program_takes_the_schema_takes_too() -> None:
    """Of the files of the corpus of wrong inputs: where the schema refuses, the program does."""
    from test_wrong_inputs import FILES as WRONG

    checked = 0
    for name, content in WRONG.items():
        data = content.encode() if isinstance(content, str) else content
        try:
            document = load_document(data, Format(name.rpartition(".")[2]) if name[-4:] != ".txt" else None)
        except (InvalidFile, ValueError):
            continue
        value = as_json(document.value)
        kind = "config" if name.startswith("c-") else "agents" if name.startswith("agents-") else "task"
        if kind == "task" and not validator("task").is_valid(value):
            with pytest.raises(InvalidTask):
                read_tasks(document, new_id=lambda: "x")
            checked += 1
    assert checked > 10
