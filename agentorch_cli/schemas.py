"""What a result has to look like: the `result_schema` of a task, JSON Schema by default of draft 2020-12.

A schema comes from whoever submits, a result from an agent, and either may be hostile. So
nothing is ever fetched, patterns run on an engine without backtracking, and before a check runs
it is known what it can cost at most: the `weight` of a schema is the number of things that it may
ask of one value, with references followed, and no check takes longer than weight times length.
Where that product is too large for the loop, `engine.inspector` checks in a process of its own.

`format` describes and does not check, as the draft has it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import orjson

from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.text import one_line, shorten

Path = tuple[str | int, ...]

MAX_SCHEMA: Final = 64 * 1024
"""Bytes of a schema as JSON."""

MAX_DEPTH: Final = 32
"""Levels that a schema may be nested."""

MAX_PATTERNS: Final = 200
"""Regular expressions in one schema: each takes up to milliseconds to compile."""

AT_ONCE: Final = 2_000_000
"""Weight times bytes up to which a result is checked on the loop: 50 ms at the very worst (measured)."""

TOLD_AT_ONCE: Final = 10_000
"""Likewise for telling what is wrong, where the library explains each way that failed: 5 us each."""

ENDLESS: Final = 1 << 40
"""The weight of a schema whose cost nobody can bound: one that refers back to itself, for instance."""

MOST_KEPT: Final = 256
"""Compiled schemas that are kept, the last used ones."""

MOST_PROBLEMS: Final = 10
"""Mistakes of one schema that are told."""

_PATTERN_WEIGHT: Final = 500
"""The worst pattern that fits the limits below takes so much longer than a plain comparison (measured)."""

_PATTERN_BYTES: Final = 256 * 1024
_MACHINE_BYTES: Final = 1024 * 1024

_DRAFTS: Final = {
    "https://json-schema.org/draft/2020-12/schema": "Draft202012Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    "http://json-schema.org/draft-04/schema": "Draft4Validator",
}
_ONE: Final = frozenset(
    {"not", "if", "then", "else", "items", "additionalItems", "additionalProperties", "contains"}
    | {"propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema"}
)
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})
_SHELVES: Final = frozenset({"$defs", "definitions"})
"""Schemas that count only where something refers to them."""

_UNBOUNDED: Final = frozenset(
    {"$dynamicRef", "$recursiveRef", "$id", "id", "unevaluatedItems", "unevaluatedProperties"}
)
"""With these the cost is not the sum of the parts, or a reference may mean something else."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a result does not fit, as a JSON pointer, and why."""

    pointer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.pointer}: {self.reason}" if self.pointer else self.reason


def problems_of(schema: Any) -> list[tuple[Path, str]]:
    """What is wrong with a schema itself, each with its place in it; empty where it can be used."""
    if isinstance(schema, bool):
        return []
    size = len(orjson.dumps(schema))
    if size > MAX_SCHEMA:
        return [((), f"has {size:,} bytes as JSON; at most {MAX_SCHEMA:,} are taken")]
    if _is_deeper(schema, MAX_DEPTH):
        return [((), f"is nested more than {MAX_DEPTH} levels deep")]
    draft = schema.get("$schema")
    if draft is not None and not _is_known(draft):
        return [(("$schema",), "is no draft that is known here; 2020-12 is meant where it is left out")]
    parts = list(_walk(schema))
    problems: list[tuple[Path, str]] = [
        ((*path, "$ref"), problem) for path, part in parts if (problem := _reference_problem(part, schema))
    ]
    patterns = sum(("pattern" in part) + len(part.get("patternProperties") or ()) for _, part in parts)
    if patterns > MAX_PATTERNS:
        problems.append(((), f"has {patterns} patterns; at most {MAX_PATTERNS} are taken"))
    problems += _shape_problems(schema)
    return problems or _compile_problems(schema)


class Fit:
    """A compiled schema."""

    def __init__(self, schema: Any) -> None:
        """Raises ValueError for one that cannot be used."""
        self.schema = schema
        self.weight = weight_of(schema)
        self._validator = _compiled(schema)

    def is_quick(self, size: int) -> bool:
        """Whether a result of so many bytes may be checked on a loop that others wait for."""
        return self.weight * size <= AT_ONCE

    def is_quickly_told(self, size: int) -> bool:
        """Whether what is wrong with it may be looked for there, too."""
        return self.weight * size <= TOLD_AT_ONCE

    def takes(self, value: Any) -> bool:
        """Whether the value fits."""
        return bool(self._validator.is_valid(value))

    def fault(self, value: Any) -> Fault | None:
        """The first thing that is wrong with the value; None where it fits."""
        import jsonschema_rs

        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return _fault_of(error)
        return None


class Fits:
    """The compiled schemas of this process, by their text; the last used are kept."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._kept: OrderedDict[str, Fit] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, text: str) -> Fit:
        """The schema that this JSON text is. Raises ValueError for one that cannot be used."""
        with self._lock:
            if (known := self._kept.get(text)) is not None:
                self._kept.move_to_end(text)
                return known
        fit = Fit(orjson.loads(text))
        with self._lock:
            self._kept[text] = fit
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return fit


def weight_of(schema: Any) -> int:
    """How many things a schema may ask of one value, references followed; `ENDLESS` where none can say."""
    return min(ENDLESS, _Scales(schema).weigh(schema))


class _Scales:
    """Weighs each part once, however often it is referred to."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[int, int] = {}
        self._open: set[int] = set()

    def weigh(self, schema: Any) -> int:
        if not isinstance(schema, dict):
            return 1
        name = id(schema)
        if name in self._known:
            return self._known[name]
        if name in self._open:
            return ENDLESS  # it refers back to itself
        self._open.add(name)
        weight = self._own(schema) + sum(
            self.weigh(part) for path, part in _parts(schema) if path[0] not in _SHELVES
        )
        reference = schema.get("$ref")
        if isinstance(reference, str):
            is_here, target = _resolve(self._root, reference)
            weight += self.weigh(target) if is_here else ENDLESS
        self._open.discard(name)
        self._known[name] = min(weight, ENDLESS)
        return self._known[name]

    def _own(self, schema: Mapping[str, Any]) -> int:
        if not _UNBOUNDED.isdisjoint(schema) and (
            schema is not self._root or set(schema) & _UNBOUNDED != {"$id"}
        ):
            return ENDLESS
        patterns = schema.get("patternProperties")
        return (
            1
            + _PATTERN_WEIGHT * (("pattern" in schema) + (len(patterns) if isinstance(patterns, dict) else 0))
            + _nodes(schema.get("enum"))
            + _nodes(schema.get("const"))
            + _nodes(schema.get("required"))
            + _nodes(schema.get("dependentRequired"))
        )


def _nodes(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_nodes, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(_nodes, value))
    return 0 if value is None else 1


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """The schemas that stand directly in a schema, with their places."""
    for key, value in schema.items():
        if key in _ONE and isinstance(value, dict | bool):
            yield (key,), value
        elif key in _LISTS and isinstance(value, list):
            yield from (((key, number), part) for number, part in enumerate(value))
        elif (key in _MAPS or key in _SHELVES) and isinstance(value, dict):
            yield from (((key, name), part) for name, part in value.items() if isinstance(part, dict | bool))


def _walk(schema: Any, path: Path = ()) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """A schema and all schemas in it."""
    if isinstance(schema, dict):
        yield path, schema
        for steps, part in _parts(schema):
            yield from _walk(part, (*path, *steps))


def _resolve(root: Any, reference: str) -> tuple[bool, Any]:
    """What a reference within the schema points at."""
    if reference == "#":
        return True, root
    if not reference.startswith("#/"):
        return False, None
    found = root
    for step in reference[2:].split("/"):
        name = _unquoted(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return False, None
    return True, found


def _unquoted(step: str) -> str:
    from urllib.parse import unquote

    return unquote(step)


def _is_known(draft: Any) -> bool:
    return isinstance(draft, str) and draft.removesuffix("#") in _DRAFTS


def _reference_problem(schema: Mapping[str, Any], root: Any) -> str | None:
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return None
    shown = shorten(one_line(reference), 80)
    if not reference.startswith("#"):
        return f'refers to "{shown}": nothing is fetched, so put it under $defs and refer to "#/$defs/…"'
    if reference.startswith("#/") and not _resolve(root, reference)[0]:
        return f'refers to "{shown}", which is not in the schema'
    return None


def _shape_problems(schema: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """What its draft's own schema says of it; that one is part of the library."""
    draft = schema.get("$schema", next(iter(_DRAFTS)))
    shape = _compiled({"$schema": draft, "$ref": draft})
    if not shape.is_valid(schema):
        errors = islice(shape.iter_errors(schema), MOST_PROBLEMS)
        return [
            (path, _schema_reason(path, error)) for error in errors for path in [tuple(error.instance_path)]
        ]
    return []


def _compile_problems(schema: Any) -> list[tuple[Path, str]]:
    import jsonschema_rs

    try:
        _compiled(schema)
    except jsonschema_rs.ValidationError as error:
        path = tuple(error.instance_path)
        return [(path, _schema_reason(path, error))]
    except ValueError as error:
        return [((), f"is no schema that can be used: {shorten(one_line(error), 200)}")]
    return []


def _schema_reason(path: Path, error: Any) -> str:
    found = error.instance
    if path and path[-1] == "type" and isinstance(found, str | list):
        names = found if isinstance(found, list) else [found]
        wrong = next((name for name in names if name not in _TYPES), None)
        if isinstance(wrong, str):
            return f'is no type of JSON: "{_short(wrong, 40)}"{did_you_mean(wrong, sorted(_TYPES))}'
    if error.kind.name == "$ref":
        return f"has a reference that cannot be resolved: {shorten(one_line(error.message), 100)}"
    if error.kind.name == "format":
        return (
            "is no regular expression that is taken: it must be valid, small, and without"
            " look-around and back-references"
        )
    reason = _reason(error)
    return reason if reason.startswith(("must", "lacks", "has", "is")) else f"is no valid schema: {reason}"


def _compiled(schema: Any) -> Any:
    """Raises ValueError (the library's own errors are such)."""
    import jsonschema_rs

    draft = schema.get("$schema") if isinstance(schema, dict) else None
    name = _DRAFTS[draft.removesuffix("#")] if _is_known(draft) and draft else "Draft202012Validator"
    try:
        return getattr(jsonschema_rs, name)(
            schema,
            validate_formats=False,
            offline=True,
            mask="it",
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=_PATTERN_BYTES, dfa_size_limit=_MACHINE_BYTES
            ),
        )
    except jsonschema_rs.ReferencingError as error:
        raise ValueError(str(error)) from None


# --- in words -------------------------------------------------------------------------------

LONGEST_REASON: Final = 500
LONGEST_VALUE: Final = 60


def _fault_of(error: Any) -> Fault:
    pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in error.instance_path)
    reason = _reason(error)
    if error.kind.name == "propertyNames":
        reason = f"has a key that is not allowed: {reason}"
    return Fault(shorten(one_line(pointer), 200), shorten(one_line(reason), LONGEST_REASON))


def _reason(error: Any) -> str:
    kind, found = error.kind, error.instance
    match kind.name:
        case "type":
            return f"must be {_either([_TYPES.get(name, name) for name in kind.types])}, not {shown(found)}"
        case "enum":
            return f"must be {_either([shown(one) for one in kind.options])}, not {shown(found)}"
        case "const":
            return f"must be {shown(kind.expected_value)}, not {shown(found)}"
        case "required":
            return f'lacks "{_short(kind.property)}"'
        case "additionalProperties" | "unevaluatedProperties":
            return f"has {_listed(kind.unexpected)}, which is not asked for"
        case "anyOf" | "oneOf" if (alike := _same_place(kind, found)) is not None:
            return alike
        case "falseSchema":
            return "must not be there: the schema takes nothing here"
        case "pattern":
            return f"must match {_short(kind.pattern, 100)}, and is {shown(found)}"
        case "contains":
            return "has no item of the kind that must be there"
        case "not":
            return f"is {shown(found)}, which the schema excludes"
    said = str(error.message).removeprefix("it ")
    return f"{said} (it is {shown(found)})" if not isinstance(found, dict | list) else said


def _same_place(kind: Any, found: Any) -> str | None:
    """Of alternatives that all want another type: their types together."""
    if kind.name == "oneOf" and not hasattr(kind, "context"):
        return None
    faults = [errors[0] for errors in kind.context[:20] if errors]
    if not faults:
        return "fits more than one of the alternatives of oneOf"
    names = [
        _TYPES.get(name, name) for fault in faults if fault.kind.name == "type" for name in fault.kind.types
    ]
    if names and all(f.kind.name == "type" and not f.instance_path for f in faults):
        return f"must be {_either(list(dict.fromkeys(names)))}, not {shown(found)}"
    inner = [str(_fault_of(fault)) for fault in faults[:3]]
    return f"fits none of {len(kind.context)} alternatives: " + "; or ".join(inner)


_TYPES: Final = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}


def shown(value: Any) -> str:
    """A value in a sentence: short, and of lists and objects only what they are."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f'"{_short(value)}"'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _short(str(value))


def _either(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    if len(names) > 8:
        return f"{', '.join(names[:7])} or one of {len(names) - 7} more"
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _listed(names: list[str]) -> str:
    quoted = [f'"{_short(name, 40)}"' for name in names[:5]]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(quoted) + more


def _short(text: str, limit: int = LONGEST_VALUE) -> str:
    return shorten(one_line(text[: limit * 2], limit * 2), limit)
