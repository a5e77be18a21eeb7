"""What a validator found wrong, as a sentence: the one translation of pydantic's error types.

Used for task files, agent files and settings alike, so that the same mistake reads the
same everywhere. Sentences begin after the name of the field: "must be a whole number".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic_core import ErrorDetails

from agentorch_cli.core.hints import did_you_mean

LONGEST_SHOWN: Final = 40
"""Characters of a wrong value that are shown."""

_WHOLE = "must be a whole number, not {found}"
_NUMBER = "must be a number, not {found}"
_BOOLEAN = "must be true or false, not {found}"
_TEXT = "must be text, not {found}"

_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "string_type": _TEXT,
    "string_too_short": "must not be empty",
    "string_too_long": "has more than {max_length} characters",
    "string_unicode": "contains a lone surrogate",
    "string_pattern_mismatch": "must not be blank and must not contain control characters",
    "int_type": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "bool_type": _BOOLEAN,
    "bool_parsing": _BOOLEAN,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be at least {ge}, not {found}",
    "less_than_equal": "must be at most {le}, not {found}",
    "greater_than": "must be more than {gt}, not {found}",
    "less_than": "must be less than {lt}, not {found}",
    "list_type": "must be a list, not {found}",
    "dict_type": "must be a table, not {found}",
    "too_long": "has more than {max_length} entries",
    "too_short": "must not be empty",
    "value_error": "{error}, not {found}",
}


def explain(fault: ErrorDetails, *, hide: bool = False) -> str:
    """A sentence for one error; `hide` keeps the value that was found out of it."""
    kind, context, value = fault["type"], fault.get("ctx") or {}, fault["input"]
    if kind in ("enum", "literal_error"):
        expected = str(context["expected"]).replace(" or ", ",").split(",")
        return _one_of([choice.strip("' ") for choice in expected], value)
    template = _SENTENCES.get(kind, f"is not valid ({kind})")
    if hide:
        template = template.removesuffix(", not {found}")
    return template.format(found=found(value), **{key: _short(one) for key, one in context.items()})


def found(value: Any) -> str:
    """What was found instead, short."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"{value!r:.{LONGEST_SHOWN}}"
        case str():
            dots = "…" if len(value) > LONGEST_SHOWN else ""
            return f'the text "{value[:LONGEST_SHOWN]}{dots}"'
        case list() | tuple():
            return "a list"
        case dict():
            return "a table"
        case None:
            return "null"
        case _:
            return f"a {type(value).__name__}"


def _short(bound: Any) -> Any:
    """1.0 as 1."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def _one_of(choices: Sequence[str], value: Any) -> str:
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"must be one of {', '.join(choices)}, not {found(value)}{hint}"
