"""What a person typed, as the JSON value that it means; and what may be typed.

Plain words become text, unless the schema wants something else: then `3` is a number, `yes` is
true, and a number in front of a choice is that choice. Anything may be typed as JSON. An object
of simple fields is asked for field by field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentorch_cli.errors import InvalidMessage
from agentorch_cli.payloads import decode, encode
from agentorch_cli.schemas import Fit, problems_of, shown
from agentorch_cli.text import one_line, shorten

MOST_CHOICES = 50
MOST_FIELDS = 20
MOST_BYTES = 900_000
"""Of an answer as JSON: a frame holds a little more."""

_YES, _NO = ("yes", "y", "true"), ("no", "n", "false")


class Misfit(Exception):
    """What was typed is no answer; the message says why, to be asked again."""


@dataclass(frozen=True, slots=True)
class Field:
    """One part of an answer that is asked for by itself."""

    name: str
    schema: Any
    is_needed: bool

    @property
    def hint(self) -> str:
        """What may be typed, in a few words."""
        return described(self.schema) + ("" if self.is_needed else ", Enter leaves it out")


class Reply:
    """The answer to one ask, typed line by line."""

    def __init__(
        self,
        schema: dict[str, Any] | bool | None = None,
        options: Sequence[Any] | None = None,
        vote_on: str = "",
        *,
        noun: str = "answer",
        is_open: bool = False,
    ) -> None:
        """`is_open`: the options are what others said, and something else may be answered too.

        A schema that cannot be used, or costs too much to check here, is left to the engine."""
        self.schema = schema
        self.noun = noun
        self._fit = _fit(schema)
        self._vote_on = vote_on
        self._options = list(options) if options else None
        self._is_open = is_open
        self.fields = [] if self._options and not vote_on else _fields(schema)
        self._given: dict[str, Any] = {}
        self.draft = ""
        """What was written in an editor, and did not fit."""
        if self.fields:
            self.choices = []
        else:
            self.choices = self._options if self._options else choices_of(schema)

    @property
    def field(self) -> Field | None:
        """The field that is asked for now."""
        return self.fields[len(self._given)] if len(self._given) < len(self.fields) else None

    @property
    def prompt(self) -> str:
        """What stands before the line."""
        name = shorten(one_line(self.field.name), 30) if self.field is not None else self.noun
        return f"{name}> "

    def field_choices(self) -> list[Any]:
        """The choices of the field that is asked for."""
        field = self.field
        if field is None:
            return []
        if self._options and self._vote_on == "/" + field.name.replace("~", "~0").replace("/", "~1"):
            return self._options
        return choices_of(field.schema)

    def take(self, text: str) -> tuple[bool, Any]:
        """Whether the answer is complete now, and what it is. Raises Misfit."""
        if self.field is not None and not (not self._given and text.lstrip().startswith("{")):
            return self._take_field(text)
        if not text.strip():
            raise Misfit(f"type an {self.noun}" if self.noun[0] in "aeiou" else f"type a {self.noun}")
        return True, self._whole(text)

    def _take_field(self, text: str) -> tuple[bool, Any]:
        field = self.field
        assert field is not None
        if not text.strip() and field.is_needed:
            raise Misfit(f"{one_line(field.name)} is needed: {described(field.schema)}")
        self._given[field.name] = (
            meant(text, field.schema, self.field_choices(), _fit(field.schema)) if text.strip() else _LEFT_OUT
        )
        if self.field is not None:
            return False, None
        value = {name: one for name, one in self._given.items() if one is not _LEFT_OUT}
        try:
            return True, self._checked(value)
        except Misfit:
            self._given.clear()
            raise

    def _whole(self, text: str) -> Any:
        if self._options:
            chosen = _chosen(text, self._options)
            if chosen is not _LEFT_OUT:
                return self._checked(chosen if self._is_open else placed(self._vote_on, chosen))
            if not self._is_open and (self._fit is None or not self._vote_on):
                value = _json(text)
                if value is _LEFT_OUT or (not self._vote_on and value not in self._options):
                    raise Misfit(f"choose one of {listed(self._options)}")
                return self._checked(value)
        return self._checked(meant(text, self.schema, self.choices, self._fit))

    def _checked(self, value: Any) -> Any:
        try:
            size = len(encode(value, max_bytes=MOST_BYTES))
        except InvalidMessage as error:
            raise Misfit(f"that cannot be sent: {error.message}") from None
        if self._fit is not None and self._fit.is_quick(size) and not self._fit.takes(value):
            raise _misfit(self._fit, value)
        return value


_LEFT_OUT: Any = object()


def meant(text: str, schema: Any, choices: Sequence[Any] = (), fit: Fit | None = None) -> Any:
    """The first reading of a text that fits: a choice, JSON, yes or no, or the text itself. Raises Misfit."""
    chosen = _chosen(text, choices) if choices else _LEFT_OUT
    if chosen is not _LEFT_OUT:
        return chosen
    text = text.strip("\n")
    readings = [value for value in (_json(text), _truth(text, schema)) if value is not _LEFT_OUT]
    readings.append(text.strip())
    for value in readings:
        if fit is None or not fit.is_quick(len(text) + 10) or fit.takes(value):
            return value
    if choices:
        raise Misfit(f"choose one of {listed(choices)}")
    assert fit is not None
    is_text = not isinstance(readings[0], dict | list) and _may_be(schema, "string")
    raise _misfit(fit, readings[-1 if is_text else 0])


def _misfit(fit: Fit, value: Any) -> Misfit:
    fault = fit.fault(value)
    return Misfit(f"that does not fit: {fault if fault and fault.pointer else f'it {fault}'}")


def _may_be(schema: Any, kind: str) -> bool:
    named = schema.get("type") if isinstance(schema, dict) else None
    return kind in (named if isinstance(named, list) else [named])


def choices_of(schema: Any) -> list[Any]:
    """What may be chosen, where a schema lists it."""
    if not isinstance(schema, dict):
        return []
    listed = schema.get("enum")
    if isinstance(listed, list) and 0 < len(listed) <= MOST_CHOICES:
        return listed
    if schema.get("type") == "boolean":
        return [True, False]
    return []


def is_numbered(choices: Sequence[Any]) -> bool:
    """Whether choices may be named by their numbers: not where they are numbers themselves."""
    return not any(isinstance(one, int | float) and not isinstance(one, bool) for one in choices)


def label(choice: Any) -> str:
    """A choice as it is shown, and as it may be typed."""
    if isinstance(choice, bool):
        return "yes" if choice else "no"
    return choice if isinstance(choice, str) else json.dumps(choice, ensure_ascii=False)


def listed(choices: Sequence[Any]) -> str:
    """Choices in a sentence."""
    labels = [shorten(one_line(label(one)), 40) for one in choices[:8]]
    more = f" and {len(choices) - 8} more" if len(choices) > 8 else ""
    return ", ".join(labels) + more


def placed(pointer: str, value: Any) -> Any:
    """The smallest document that has a value at a place."""
    for step in reversed(pointer.split("/")[1:]):
        value = {step.replace("~1", "/").replace("~0", "~"): value}
    return value


def described(schema: Any) -> str:
    """What a schema asks for, in a few words."""
    if not isinstance(schema, dict):
        return "anything" if schema is not False else "nothing that fits"
    choices = choices_of(schema)
    if choices:
        return listed(choices).replace(", ", " or ") if len(choices) == 2 else listed(choices)
    if "const" in schema:
        return shown(schema["const"])
    kind = schema.get("type")
    words = [_WORDS.get(one, str(one)) for one in (kind if isinstance(kind, list) else [kind]) if one]
    return (
        " or ".join(words + _bounds(schema))
        if len(words) > 1
        else " ".join(words + _bounds(schema)) or "JSON"
    )


_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "yes or no",
    "null": "null",
    "array": "a list (JSON)",
    "object": "an object (JSON)",
}


def _bounds(schema: Mapping[str, Any]) -> list[str]:
    low, high = schema.get("minimum"), schema.get("maximum")
    match (low, high):
        case (None, None):
            pass
        case (_, None):
            return [f"from {shown(low)}"]
        case (None, _):
            return [f"up to {shown(high)}"]
        case _:
            return [f"from {shown(low)} to {shown(high)}"]
    most = schema.get("maxLength")
    return [f"of at most {shown(most)} characters"] if most is not None else []


def _fields(schema: Any) -> list[Field]:
    """The fields of an object, where each of them can be typed in one line."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return []
    properties, needed = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not 0 < len(properties) <= MOST_FIELDS:
        return []
    names = needed if isinstance(needed, list) else []
    if not all(map(_is_simple, properties.values())) or not set(names) <= properties.keys():
        return []
    return [Field(name, part, name in names) for name, part in properties.items()]


def _is_simple(schema: Any) -> bool:
    if not isinstance(schema, dict) or "$ref" in schema:
        return False
    if choices_of(schema) or "const" in schema:
        return True
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    return all(one in ("string", "integer", "number", "boolean", "null") for one in kinds)


def _fit(schema: Any) -> Fit | None:
    if schema is None or schema is True or problems_of(schema):
        return None
    try:
        return Fit(schema)
    except ValueError:
        return None


def _json(text: str) -> Any:
    try:
        return decode(text, max_bytes=MOST_BYTES)
    except InvalidMessage:
        return _LEFT_OUT


def _truth(text: str, schema: Any) -> Any:
    if _may_be(schema, "boolean"):
        word = text.strip().casefold()
        if word in _YES or word in _NO:
            return word in _YES
    return _LEFT_OUT


def _chosen(text: str, choices: Sequence[Any]) -> Any:
    """The choice that a text names: as it is written, by its number, or by its beginning."""
    word = text.strip()
    for one in choices:
        if word == label(one):
            return one
    value = _json(word)
    if value is not _LEFT_OUT and any(value == one and type(value) is type(one) for one in choices):
        return value
    if is_numbered(choices) and word.isdecimal() and 1 <= int(word[:9]) <= len(choices):
        return choices[int(word[:9]) - 1]
    folded = word.casefold()
    same = [one for one in choices if label(one).casefold() == folded]
    begins = [
        one for one in choices if isinstance(one, str | bool) and label(one).casefold().startswith(folded)
    ]
    near = same or (begins if folded else [])
    return near[0] if len(near) == 1 else _LEFT_OUT
