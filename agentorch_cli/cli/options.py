"""Options that several commands take, each said once, and how the values of some are read."""

from __future__ import annotations

import json
from math import isfinite
from typing import Annotated, Any, NoReturn

import typer

from agentorch_cli.core.hints import shortened
from agentorch_cli.errors import UsageError

LogLevel = Annotated[
    str | None, typer.Option("--log-level", metavar="debug|info|warning|error", help="Least urgent lines.")
]
LogFormat = Annotated[
    str | None, typer.Option("--log-format", metavar="text|json", help="Lines for people, or for programs.")
]
TellEverybody = Annotated[
    bool, typer.Option("--insecure", help="Send the token over a connection that is not encrypted.")
]
"""What `Target.refuse_to_tell_everybody` is asked for; `serve --insecure` is another thing."""


def json_or_text(word: str) -> Any:
    """A value that a person typed: JSON, or the text itself where it is none. Raises UsageError for NaN."""
    try:
        return json.loads(word, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return word


def _finite(word: str) -> float:
    number = float(word)
    return number if isfinite(number) else _refuse(word)


def _refuse(word: str) -> NoReturn:
    raise UsageError(f"{shortened(word)} is not a finite number", hint="in quotes it is a text")
