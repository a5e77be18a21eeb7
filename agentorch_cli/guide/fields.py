"""Every field of the files that people write, as one tree: what `agentorch explain` shows.

The tree is read from the schemas, and so from the models: nothing is written down twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from agentorch_cli import messages
from agentorch_cli.core.durations import show_duration
from agentorch_cli.core.hints import closest, shortened
from agentorch_cli.errors import NotFound, command
from agentorch_cli.guide.schema import Schema, definitions, settings_schema, tables, words_of
from agentorch_cli.settings import Settings, section_of, variable

ROOTS: Final = ("task", "budget", "agent", "config")
SAME: Final = {"tasks": "task", "agents": "agent", "settings": "config"}
"""Other names of the roots."""

ANY_NAME: Final = "NAME"
"""A step of a path at which the author's own names stand."""


@dataclass(frozen=True)
class Field:
    """One field, or one table of them."""

    path: str
    type: str
    meaning: str
    range: str | None = None
    default: str | None = None
    also: tuple[str, ...] = ()
    variable: str | None = None
    """Of a setting: the environment variable."""
    example: str | None = None
    """Lines of a file."""
    children: tuple[Field, ...] = ()

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    def to_json(self) -> dict[str, Any]:
        """For `--json`; children are named, not told."""
        facts = {
            key: getattr(self, key) for key in ("path", "type", "range", "default", "meaning", "example")
        }
        more = {"also": list(self.also), "variable": self.variable}
        return {**facts, **more, "children": [child.path for child in self.children]}


def find(path: str) -> Field:
    """The field of a path such as `task.consensus.threshold`. Raises NotFound."""
    steps = [step for step in path.strip(".").split(".") if step]
    field: Field | None = roots().get(SAME.get(steps[0], steps[0])) if steps else None
    if field is None and steps:  # settings are known without their root as well
        field = _child(roots()["config"], steps[0])
    for step in steps[1:]:
        field = _child(field, step) if field is not None else None
    if field is None:
        near = _near(path, steps)
        meant = f' (did you mean "{near}"?)' if near else ""
        raise NotFound(
            f'there is no field "{shortened(path)}"{meant}',
            why="No task file, agents file or configuration has it.",
            fix=command("explain", near.rpartition(".")[0] or near) if near else "agentorch explain",
        )
    return field


def every(field: Field | None = None) -> Iterator[Field]:
    """All fields, each table before what is in it."""
    for one in roots().values() if field is None else field.children:
        yield one
        yield from every(one)


def _child(field: Field, name: str) -> Field | None:
    for child in field.children:
        if child.name in (name, ANY_NAME) or name in child.also:
            return child
    return None


def _near(path: str, steps: list[str]) -> str | None:
    known = [field.path for field in every()]
    wanted = ".".join([SAME.get(step, step) for step in steps[:1]] + steps[1:])
    last = steps[-1] if steps else ""
    named = [one for one in known if one.rpartition(".")[2] == last]
    if len(named) == 1:
        return named[0]
    inside = [one for one in known if one.rpartition(".")[0] == wanted.rpartition(".")[0]]
    for some in (inside, known):
        near = closest(last, list(dict.fromkeys(one.rpartition(".")[2] for one in some)))
        if near is not None:
            return next(one for one in some if one.rpartition(".")[2] == near)
    return closest(path, known)


@cache
def roots() -> dict[str, Field]:
    """The files, by name."""
    return {
        "task": _table("task", "TaskFields", "One task of a task file: [task], or one of [[tasks]]."),
        "budget": _table(
            "budget", "BudgetFields", "[budget]: what all tasks of one submission together may use."
        ),
        "agent": _table(
            "agent", "AgentFields", "One agent of an agents file: [agent], or one of [[agents]]."
        ),
        "config": _config(),
    }


# --- task files and agents files ------------------------------------------------------------------


def _table(path: str, model: str, meaning: str | None = None) -> Field:
    root = {"consensus": "TaskFields"}.get(model, "AgentFields" if model == "AgentFields" else "TaskFields")
    shelf = definitions(root)
    part = shelf[model]
    table, words = tables()[model], words_of(getattr(messages, model))
    others: dict[str, list[str]] = {}
    for other, name in table.aliases.items():
        others.setdefault(name, []).append(other)
    children = []
    for name, said in words.items():
        schema = part["properties"][name]
        below = _below(f"{path}.{name}", name, model)
        kind, range_ = describe(schema, shelf)
        header = "[[agents]]" if (path, name) == ("agent", "id") else _header(path)
        example = said.example and f"{header}\n{said.example}"
        more = tuple(others.get(name, ()))
        children.append(
            Field(f"{path}.{name}", kind, said.meaning, range_, said.default, more, None, example, below)
        )
    text = meaning or _sentence(part["description"])
    return Field(path, "table", text, example=_TABLES.get(path), children=tuple(children))


_TABLES: Final = {
    "task": '[task]\nname = "hamlet"\nrequired_capabilities = ["count"]',
    "budget": '[budget]\ncost_usd = 5.00\n\n[task]\nname = "hamlet"',
    "agent": '[[agents]]\nid = "reader-1"\ncapabilities = ["fetch"]',
}


def _below(path: str, name: str, model: str) -> tuple[Field, ...]:
    """What stands in the table of a field."""
    inner = {
        ("TaskFields", "consensus"): "ConsensusFields",
        ("TaskFields", "budget"): "BudgetFields",
        ("ConsensusFields", "tolerance"): "ToleranceFields",
    }.get((model, name))
    if inner:
        return _table(path, inner).children
    if (model, name) == ("TaskFields", "retry"):
        each = _table(f"{path}.{ANY_NAME}", "RetryFields")
        example = '[task.retry.rate_limited]\nretries = 10\nbackoff = "30s"'
        return (Field(each.path, "table", each.meaning, example=example, children=each.children),)
    return ()


def _header(path: str) -> str:
    if path == "agent":
        return '[[agents]]\nid = "reader-1"'
    return f"[{path.replace(ANY_NAME, 'rate_limited')}]"


def _sentence(text: str) -> str:
    """`[task.budget]: the most…` without what stands before the colon."""
    head, colon, rest = text.partition(": ")
    told = rest if colon and head.startswith("`") else text
    return told[:1].upper() + told[1:]


# --- the configuration ------------------------------------------------------------------------------


def _config() -> Field:
    schema = settings_schema()
    shelf = schema["definitions"]
    children = []
    for name, info in Settings.model_fields.items():
        section = section_of(info)
        if section is None:
            children.append(_setting(name, schema["properties"][name], shelf))
            continue
        part = shelf[section.__name__]
        inner = tuple(_setting(f"{name}.{key}", one, shelf) for key, one in part["properties"].items())
        children.append(
            Field(f"config.{name}", "table", part["description"], example=_first(inner), children=inner)
        )
    profile = tuple(
        _setting(f"profiles.{ANY_NAME}.{key}", one, shelf, is_profile=True)
        for key, one in shelf["Profile"]["properties"].items()
    )
    named = Field(f"config.profiles.{ANY_NAME}", "table", "One server.", children=profile, example=_PROFILE)
    children.append(
        Field(
            "config.profiles", "table of tables", schema["properties"]["profiles"]["description"],
            example=_PROFILE, children=(named,),
        )
    )  # fmt: skip
    text = "The configuration: agentorch.toml, and config.toml of your own."
    example = "[engine]\nmax_concurrent_tasks = 500\n\n[gateway]\nport = 3005"
    return Field("config", "table", text, example=example, children=tuple(children))


_PROFILE: Final = '[profiles.work]\nurl = "wss://fleet.example.org:3001"'
_EXAMPLES: Final[Mapping[str, Any]] = {
    "server": "wss://fleet.example.org:3001",
    "ca": "ca.pem",
    "data_dir": "/srv/fleet",
    "database.url": "postgresql://me@localhost/fleet",
    "gateway.tls_cert": "server.pem",
    "gateway.tls_key": "server.key",
    "gateway.allowed_hosts": "fleet.example.org,fleet",
    "gateway.hub_url": "wss://hub.example.org/agents",
    "exec.env": "OPENAI_API_KEY,LANG",
    "profiles.NAME.url": "wss://fleet.example.org:3001",
    "profiles.NAME.ca": "ca.pem",
    "profiles.NAME.token_file": "~/.config/agentorch/work.token",
    "profiles.NAME.token_env": "WORK_TOKEN",
}
"""Of settings whose default says nothing."""


def _setting(name: str, schema: Schema, shelf: Mapping[str, Schema], *, is_profile: bool = False) -> Field:
    kind, range_ = describe(schema, shelf)
    default = schema.get("default")
    section, _, key = name.rpartition(".")
    value = _EXAMPLES.get(name, _other(schema, default))
    lines = [f"[{section.replace(ANY_NAME, 'work')}]"] if section else []
    if is_profile and key != "url":
        lines.append('url = "wss://fleet.example.org:3001"')
    return Field(
        f"config.{name}",
        kind,
        schema.get("description", ""),
        range_,
        _shown(schema, default),
        variable=None if is_profile else variable(name),
        example="\n".join([*lines, f"{key} = {_toml(value)}"]),
    )


def _first(fields: tuple[Field, ...]) -> str | None:
    return fields[0].example if fields else None


def _other(schema: Schema, default: Any) -> Any:
    """A value that is not the default, where there is an obvious one."""
    if isinstance(default, bool):
        return not default
    if "enum" in schema:
        return next(one for one in schema["enum"] if one != default)
    return default


def _toml(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)


def _shown(schema: Schema, default: Any) -> str | None:
    if default in ("", None):
        return None
    if schema.get("x-type") == "duration":
        return f'`"{show_duration(default)}"`'
    return f"`{_toml(default)}`"


# --- types ------------------------------------------------------------------------------------------


def describe(schema: Schema, shelf: Mapping[str, Schema]) -> tuple[str, str | None]:
    """Type and range in words."""
    if "x-type" in schema:
        bounds = next((one for one in schema.get("anyOf", ()) if "minimum" in one), None)
        is_span = bounds is not None and schema["x-type"] == "duration"
        return schema["x-type"], 'seconds, or a text such as "30s", "5m", "1h30m", "2d"' if is_span else None
    if "$ref" in schema:
        return describe(shelf[schema["$ref"].rpartition("/")[2]], shelf)
    if "anyOf" in schema:
        others = [one for one in schema["anyOf"] if one.get("type") != "null"]
        return describe(others[0], shelf) if len(others) == 1 else ("any of several", None)
    if "enum" in schema:
        choices = ", ".join(json.dumps(one) for one in schema["enum"] if one is not None)
        return "text", f"one of {choices}"
    kinds = schema.get("type", "any")
    kind = next((one for one in kinds if one != "null"), "any") if isinstance(kinds, list) else kinds
    match kind:
        case "integer":
            return "whole number", _bounds(schema)
        case "number":
            return "number", _bounds(schema)
        case "boolean":
            return "true or false", None
        case "string":
            return "text", f"at most {schema['maxLength']:,} characters" if "maxLength" in schema else None
        case "array":
            inner = _plural(schema.get("items") or {}, shelf)
            most = f"at most {schema['maxItems']:,}" if "maxItems" in schema else None
            return (f"list of {inner}" if inner else "list"), most
        case "object":
            each = schema.get("additionalProperties") or next(
                iter(schema.get("patternProperties", {}).values()), None
            )
            inner = _plural(each, shelf) if isinstance(each, dict) else None
            most = f"at most {schema['maxProperties']:,}" if "maxProperties" in schema else None
            return (f"table of {inner}" if inner else "table"), most
        case _:
            return "any", None


def _plural(schema: Schema, shelf: Mapping[str, Schema]) -> str | None:
    return f"{describe(schema, shelf)[0]}s" if schema else None


def _bounds(schema: Schema) -> str | None:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    parts = [
        f"{word} {_number(schema[key])}"
        for key, word in (
            ("exclusiveMinimum", "above"),
            ("minimum", "from"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema
    ]
    return ", ".join(parts) or None


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.9f}".rstrip("0")
