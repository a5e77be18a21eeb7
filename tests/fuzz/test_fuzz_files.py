"""Task files and configurations that are broken in every way: read, or refused with a sentence."""

from __future__ import annotations

import json
import string
import tempfile
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hostile import changed, is_harmless, spoiled, texts, tried, values
from hypothesis import given
from hypothesis import strategies as st

from agentorch_cli.cli.failure import told
from agentorch_cli.cli.files import read_submission
from agentorch_cli.config import Settings, load_settings
from agentorch_cli.errors import OrchestratorError
from agentorch_cli.settings import setting_names

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "tasks").glob("*.toml"))

TASKS: dict[str, Any] = {
    "tasks": [
        {"name": "a", "type": "t", "required_capabilities": ["c"], "priority": 5, "data": {"x": [1, None]}},
        {"name": "b", "depends_on": ["a"], "timeout": "5m", "deadline": "2030-01-31T12:00:00Z", "retries": 2},
        {
            "name": "v", "min_agents": 2, "max_agents": 5, "labels": {"k": "v"},
            "consensus": {"rule": "majority", "panel": 3, "options": ["x", "y"], "tolerance": {"abs": 1}},
        },
    ]
}  # fmt: skip
TOML = [path.read_text() for path in EXAMPLES]
CONFIG = (ROOT / "config.example.toml").read_text()
SET = "\n".join(line.removeprefix("# ") if " = " in line else line for line in CONFIG.splitlines())


def as_json(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, default=str)


def as_toml(document: Any) -> str:
    try:
        return tomli_w.dumps(document)
    except (TypeError, ValueError, AttributeError):
        return as_json(document)


documents = st.just(TASKS).flatmap(changed)
json_files = documents.map(as_json) | documents.map(as_json).flatmap(spoiled) | values.map(as_json)
toml_files = documents.map(as_toml) | st.sampled_from(TOML).flatmap(spoiled) | texts
files = st.tuples(json_files, st.sampled_from([".json", ".jsonl"])) | st.tuples(toml_files, st.just(".toml"))


def is_told(error: OrchestratorError) -> bool:
    """The error has a sentence, and is shown without a letter that a terminal obeys."""
    lines = told(error)
    return bool(lines) and is_harmless("\n".join(lines))


@tried(150)
@given(files)
def test_a_task_file_is_read_or_refused(file: tuple[str, str]) -> None:
    text, suffix = file
    with tempfile.NamedTemporaryFile(suffix=suffix) as stored:
        stored.write(text.encode("utf-8", "surrogatepass"))
        stored.flush()
        try:
            read_submission([stored.name], Settings())
        except OrchestratorError as error:
            assert error.exit_code == 2
            assert is_told(error)


@tried(100)
@given(st.binary(max_size=300), st.sampled_from([".json", ".jsonl", ".toml"]))
def test_a_task_file_of_any_bytes_is_read_or_refused(content: bytes, suffix: str) -> None:
    with tempfile.NamedTemporaryFile(suffix=suffix) as stored:
        stored.write(content)
        stored.flush()
        try:
            read_submission([stored.name], Settings())
        except OrchestratorError as error:
            assert is_told(error)


names = st.sampled_from(setting_names())
letters = st.text(string.printable, max_size=30)
environment = st.dictionaries(
    names.map(lambda name: "AGENTORCH_" + name.upper().replace(".", "_"))
    | st.sampled_from(["DATABASE_URL", "WEBSOCKET_URL", "AGENTORCH_CONFIG", "AGENTORCH_", "AGENTORCH_X"]),
    texts.filter(lambda text: "\0" not in text) | letters,
    max_size=4,
)
configurations = st.just(SET).flatmap(spoiled) | st.just(CONFIG).flatmap(spoiled) | toml_files


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


@tried(100)
@given(configurations, environment, st.dictionaries(names, values, max_size=3))
def test_a_configuration_is_taken_or_refused(
    empty: Path, text: str, environ: dict[str, str], flags: dict[str, Any]
) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as stored:
        stored.write(text.encode("utf-8", "surrogatepass"))
        stored.flush()
        try:
            load_settings(flags, environ, Path(stored.name), empty)
        except OrchestratorError as error:
            assert error.exit_code in (2, 7)
            assert is_told(error)


def test_the_settings_of_the_example_are_all_tried() -> None:
    assert SET.count(" = ") > 20
    assert TOML
