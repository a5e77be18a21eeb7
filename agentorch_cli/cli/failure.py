"""How a failure is told: a sentence, its place, what to do next, and an exit code.

This is the only part of the program that prints errors. Nobody but who asks for it with
AGENTORCH_DEBUG=1 meets a traceback: an unexpected one goes to a file, which is named.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from agentorch_cli.core.hints import closest
from agentorch_cli.errors import OrchestratorError, UsageError
from agentorch_cli.redaction import redact, redact_value
from agentorch_cli.text import one_line, shorten, visible

if TYPE_CHECKING:
    from agentorch_cli.cli.session import Session

MOST_ERRORS = 10
"""Mistakes of one file that are told; the rest is counted."""

COLORS = {"error:": "1;31", "why:": "1;33", "hint:": "1;36", "fix:": "1;32"}
"""The words that lines begin with, and how they are painted."""

BESIDE = re.compile(r" +[0-9]* \| |  --> ")
"""Lines that show the place: of the source, and where it is."""

LONGEST_LINE = 100
"""Characters of a line that tells an error."""

NARROWEST = 40
"""Columns below which a terminal breaks the lines itself."""

MAX_SOURCE = 100
"""Characters of a source line that an error shows."""


def report(error: OrchestratorError, is_json: bool = False, stream: TextIO | None = None) -> int:
    """Tell the error on stderr; gives the exit code, also where nobody can be told."""
    stream = stream or sys.stderr
    with contextlib.suppress(OSError):
        if is_json:
            from agentorch_cli.cli.session import json_text

            print(json_text({"error": redact_value(error.to_json())}), file=stream)
        else:
            for line in told(error, _width(stream)):
                print(_colored(redact(line), stream), file=stream)
    return error.exit_code


def _width(stream: TextIO) -> int:
    """Of the lines that tell an error: those of a terminal, if it is narrower."""
    if not stream.isatty():
        return LONGEST_LINE
    return max(NARROWEST, min(LONGEST_LINE, shutil.get_terminal_size().columns))


def told(error: OrchestratorError, width: int = LONGEST_LINE) -> list[str]:
    """The lines that tell an error: what and where, the source line with a caret, why, and what to do.

    A file's mistakes come together, one after the other. The first line is short enough for a
    narrow place, such as the summary of a log. What could be said of every error of its class is left to the
    JSON form and to docs/errors.md: here are `why` and `fix` of this very error, or else the usual fix where
    nothing else says what to do.
    """
    several = error.details.get("errors")
    entries = several if isinstance(several, list) and several else [_entry(error)]
    lines: list[str] = []
    for entry in entries[:MOST_ERRORS]:
        lines += [*_headline(entry, width), *_source_lines(entry)]
    rest = error.details.get("error_count", len(entries)) - len(entries[:MOST_ERRORS])
    if rest > 0:
        lines.append(f"error: and {rest:,} more like these")
    if error.knows_why:
        lines += _wrapped("why", error.why, width)
    if error.hint:
        lines += _wrapped("hint", error.hint, width)
    if error.knows_fix or not error.hint:
        lines.append(f"fix: {one_line(error.fix)}")
    return lines


def _entry(error: OrchestratorError) -> dict[str, Any]:
    return {**error.details, "message": error.message, "where": error.where}


def _headline(entry: Mapping[str, Any], width: int) -> list[str]:
    """What went wrong and where, the place in a line of its own where both do not fit into one."""
    where, message = str(entry.get("where") or ""), str(entry["message"])
    whole = visible(redact(f"{where}: {message}" if where else message))
    if "\n" not in whole and len(whole) <= width - len("error: "):
        return [f"error: {whole}"]
    place, _, field = where.rpartition(": ") if entry.get("field") else (where, "", "")
    lines = _wrapped("error", f"{field}: {message}" if field and place else message, width)
    return lines if not place else [lines[0], *lines[1:], f"  --> {one_line(place)}"]


def _wrapped(word: str, text: str, width: int) -> list[str]:
    """A sentence behind its word, in lines that are not too long; the lines of the text stay lines."""
    import textwrap

    first, margin = f"{word}: ", " " * (len(word) + 2)
    lines: list[str] = []
    for line in visible(redact(text)).split("\n"):
        before = first if not lines else margin
        # a path is kept whole, so that it can be copied, unless it is the first word of all
        wrap = textwrap.TextWrapper(width, before, margin, break_on_hyphens=False)
        wrap.break_long_words = not lines and len(before) + len(line.partition(" ")[0]) > width
        lines += wrap.wrap(line) or [before.rstrip()]
    return lines


def _source_lines(details: Mapping[str, Any]) -> list[str]:
    source, number, column = (details.get(key) for key in ("source", "line", "column"))
    if not isinstance(source, str) or not isinstance(number, int):
        return []
    margin = f"{number:>5} | "
    lines = [margin + shorten(one_line(source), MAX_SOURCE)]
    if isinstance(column, int) and 1 <= column <= min(len(source), MAX_SOURCE):
        before = one_line(source[: column - 1] + "x")[:-1]
        lines.append(" " * (len(margin) - 2) + "| " + " " * len(before) + "^")
    return lines


def _colored(line: str, stream: TextIO) -> str:
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return line
    for word, color in COLORS.items():
        if line.startswith(word):
            return f"\x1b[{color}m{word}\x1b[0m{line[len(word) :]}"
    return f"\x1b[2m{line}\x1b[0m" if BESIDE.match(line) else line


def from_parser(error: Any) -> UsageError:
    """What the parser of the command line refused, as an error of ours.

    Its classes are private, so they are known by what they carry.
    """
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "agentorch"
    message = str(error.format_message()).strip()
    option = getattr(error, "option_name", None)
    if option and message.startswith("No such option"):
        message = f"there is no option {option}{_option_meant(option, _options_of(ctx))}"
    elif (said := _value_fault(error)) is not None:
        message = said
    message = " ".join((message[:1].lower() + message[1:]).rstrip(".").split())
    return UsageError(message, fix=f"{path} --help")


def _option_meant(option: str, known: list[str]) -> str:
    """The dashes are no likeness: without them "--name" is not near "--ca"."""
    near = closest(option.lstrip("-"), [name.lstrip("-") for name in known])
    meant = next((name for name in known if name.lstrip("-") == near), None)
    return f' (did you mean "{meant}"?)' if meant is not None else ""


def _options_of(ctx: Any) -> list[str]:
    from agentorch_cli.cli.help import common_options

    own = ctx.command.get_params(ctx) if ctx is not None else []
    return [name for param in [*own, *common_options()] for name in param.opts]


def _value_fault(error: Any) -> str | None:
    """What is wrong with the value of an option, in the words that files and settings are told in."""
    faults = getattr(error.__cause__, "errors", None)
    param = getattr(error, "param", None)
    if faults is None or param is None:
        return None
    from agentorch_cli.sentences import explain

    fault: Any = dict(faults(include_url=False)[0])
    value = fault["input"]
    choices = re.search(r"is not one of (.*)", str(fault.get("msg", "")))
    if choices:
        fault |= {"type": "literal_error", "ctx": {"expected": choices[1]}}
    elif isinstance(value, str) and value.strip().lower().lstrip("+-") in NO_NUMBERS:
        fault["type"] = "finite_number"
    elif isinstance(value, str) and fault["type"] in BOUNDS:
        fault["input"] = float(value) if "." in value or "e" in value.lower() else int(value)
    name = max(param.opts, key=len) if param.param_type_name == "option" else str(param.metavar)
    return f"{name} {explain(fault)}"


BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
"""Faults of a number, which the parser was given as text."""

NO_NUMBERS = ("nan", "inf", "infinity")
"""What Python reads as a number, and no option takes."""


def from_bug(error: BaseException, session: Session) -> OrchestratorError:
    """What nobody expected: one sentence, and the name of the file that has the details."""
    if os.environ.get("AGENTORCH_DEBUG") == "1":
        sys.stderr.write(redact("".join(traceback.format_exception(error))))
    what = shorten(one_line(f"{type(error).__name__}: {error}"), 200)
    path = _write_details(error, session)
    return OrchestratorError(
        f"{what}; this is a bug in agentorch",
        hint=f"The details are in {path}." if path else "AGENTORCH_DEBUG=1 shows the details.",
    )


def _write_details(error: BaseException, session: Session) -> Path | None:
    name = f"crash-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    text = "".join(traceback.format_exception(error))
    for folder in (_log_folder(session), Path(tempfile.gettempdir())):
        try:
            if folder is None:
                continue
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / name
            with path.open("x", encoding="utf-8", errors="backslashreplace") as file:
                path.chmod(0o600)
                file.write(visible(redact(text), 1_000_000))
            return path
        except OSError:
            continue
    return None


def _log_folder(session: Session) -> Path | None:
    try:
        return Path(session.settings.data_dir) / "logs"
    except Exception:  # the settings may be what is broken
        return None
