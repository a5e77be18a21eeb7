"""The JSON Schemas of the files that people write, for editors: made from the models that read them.

Draft 7, because that is what editors take for TOML and JSON alike. What a schema refuses the
program refuses too; the other way round the program knows more (what contradicts what, and which
names are there). Docstrings of the fields become the descriptions that an editor shows.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import re
import textwrap
from copy import deepcopy
from functools import cache
from itertools import pairwise
from typing import Any, Final, NamedTuple

from agentorch_cli import messages
from agentorch_cli.messages import AGENTS, BUDGETS, TASKS, Named, Table
from agentorch_cli.settings import PATHS, Profile, Settings

Schema = dict[str, Any]

DRAFT: Final = "http://json-schema.org/draft-07/schema#"
FILES: Final = ("task", "agents", "config")
"""The kinds of files that there is a schema of."""

_REFERENCE: Final = "#/definitions/{model}"
_NULL: Final = {"type": "null"}


class Words(NamedTuple):
    """What the docstring of a field says."""

    meaning: str = ""
    default: str | None = None
    example: str | None = None


def file_schema(kind: str) -> Schema:
    """The schema of one of FILES, whole and free of references to anything outside of it."""
    return deepcopy({"task": _task_file, "agents": _agents_file, "config": _config_file}[kind]())


@cache
def words_of(fields: type) -> dict[str, Words]:
    """What the docstrings of a model's fields say, by field."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(fields)))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    found = {}
    for field, said in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = said.value.value if _is_text(said) else ""  # type: ignore[attr-defined]
            found[field.target.id] = _words(inspect.cleandoc(text))
    return found


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _words(text: str) -> Words:
    parts = re.split(r"^(Default|Example): ", text, flags=re.MULTILINE)
    said = {name: inspect.cleandoc(value) for name, value in zip(parts[1::2], parts[2::2], strict=True)}
    return Words(" ".join(parts[0].split()), said.get("Default"), said.get("Example"))


# --- task files and agents files ------------------------------------------------------------------


def tables() -> dict[str, Table]:
    """The tables of the models, by the name of the model."""
    consensus, retry = TASKS.nested["consensus"], TASKS.nested["retry"]
    assert isinstance(retry, Named)
    return {
        "TaskFields": TASKS,
        "ConsensusFields": consensus,
        "ToleranceFields": consensus.nested["tolerance"],
        "BudgetFields": BUDGETS,
        "RetryFields": retry.each,
        "AgentFields": AGENTS,
    }


@cache
def definitions(of: str) -> dict[str, Schema]:
    """The tables that a model consists of, with every word that is known of their fields."""
    table = tables()[of]
    found = table.one.json_schema(ref_template=_REFERENCE)
    parts = {**found.pop("$defs", {}), of: found}
    return {name: _told(name, part) for name, part in parts.items()}


def _told(name: str, part: Schema) -> Schema:
    table = tables().get(name)
    if table is None:
        return _untitled(part)
    words = words_of(getattr(messages, name))
    properties = {}
    for field, schema in part["properties"].items():
        plain = _untitled(schema)
        if (name, field) == ("ConsensusFields", "tolerance"):
            plain = {"x-type": "number or table", "anyOf": [{"type": "number"}, plain]}
        if field != "data":
            plain = _or_null(plain)
        properties[field] = _described(plain, words[field])
    # the other spellings work, and are not proposed
    properties |= {
        other: {**properties[field], "x-taplo": {"hidden": True}} for other, field in table.aliases.items()
    }
    return {"type": "object", "description": part["description"], "properties": properties} | {
        "additionalProperties": False
    }


def _described(schema: Schema, words: Words) -> Schema:
    told = {"description": words.meaning, **schema}
    literal = re.match(r"`([^`]+)`", words.default or "")
    if literal:
        with contextlib.suppress(ValueError):  # some are told in words
            told["default"] = json.loads(literal[1])
    return told


def _or_null(schema: Schema) -> Schema:
    """null stands for: not given."""
    if "$ref" in schema:  # what stands beside a reference does not count in this draft
        return {"anyOf": [schema, _NULL]}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], _NULL]}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    told = {**schema, "type": [*kinds, "null"]}
    return told | ({"enum": [*schema["enum"], None]} if "enum" in schema else {})


def _untitled(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "title"}


def _task_file() -> Schema:
    return _file(
        "A task file of agentorch", "task", "TaskFields", {"budget": {"$ref": "#/definitions/BudgetFields"}}
    )


def _agents_file() -> Schema:
    schema = _file("An agents file of agentorch", "agent", "AgentFields", {})
    ids = [name for name, field in [("id", "id"), *AGENTS.aliases.items()] if field == "id"]
    schema["definitions"]["AgentFields"]["anyOf"] = [{"required": [name]} for name in ids]
    return schema


def _file(title: str, noun: str, model: str, beside: dict[str, Schema]) -> Schema:
    """One table, several, or a list of them: each way in which such a file may be written."""
    one = {"$ref": f"#/definitions/{model}"}
    many = {"type": "array", "items": one}
    wrapper = {"$schema": {"type": "string"}, noun: one, f"{noun}s": many, **beside}
    has_noun = {"type": "object", "anyOf": [{"required": [noun]}, {"required": [f"{noun}s"]}]}
    bare = deepcopy(definitions(model))
    bare[model]["properties"] |= {"$schema": {"type": "string", "x-taplo": {"hidden": True}}}
    return {
        "$schema": DRAFT,
        "title": title,
        "definitions": _plain(definitions(model) | {"Document": bare[model]}),
        "type": ["object", "array"],
        "properties": wrapper,
        "if": has_noun,
        "then": {"propertyNames": {"enum": list(wrapper)}},
        "else": {"if": {"type": "array"}, "then": many, "else": {"$ref": "#/definitions/Document"}},
    }


# --- the configuration ------------------------------------------------------------------------------


@cache
def settings_schema() -> Schema:
    """The settings, section by section; what is not in it is no setting."""
    found = Settings.model_json_schema(ref_template=_REFERENCE)
    profile = Profile.model_json_schema(ref_template=_REFERENCE)
    shelf = {**found.pop("$defs"), "Profile": profile}
    found["properties"]["profiles"] = {
        "type": "object",
        "description": "Servers by name, in the user's own file: `agentorch profile add` writes them.",
        "additionalProperties": {"$ref": _REFERENCE.format(model="Profile")},
    }
    for name in PATHS:
        section, _, key = name.rpartition(".")
        model = Settings.model_fields[section].annotation if section else None
        fields = shelf[model.__name__]["properties"] if model else found["properties"]
        fields[key] = {"type": "string", "description": fields[key].get("description", "")}
    for part in (found, *shelf.values()):
        part["properties"] = {key: _untitled(one) for key, one in part["properties"].items()}
        for one in part["properties"].values():
            if "$ref" in one:
                one.pop("default", None)
    return {**_untitled(found), "definitions": {name: _untitled(part) for name, part in shelf.items()}}


def _config_file() -> Schema:
    schema = _plain(settings_schema())
    return {"$schema": DRAFT, "title": "The configuration of agentorch", **schema}


def _plain(schema: Any) -> Any:
    """Without the marks that only this program reads."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key != "x-type"}
    if isinstance(schema, list):
        return [_plain(value) for value in schema]
    return schema
