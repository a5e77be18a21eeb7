"""The one door for text that comes from outside: TOML, JSON and JSONL files.

The parsers of the standard library are too trusting for a border. `json` takes NaN,
duplicate keys and half a surrogate pair; both raise RecursionError on deep nesting;
`tomllib` needs seconds for a key of thousands of dotted parts; and PostgreSQL stores
neither NUL characters nor surrogates. Here everything is measured before it is believed,
and every refusal names file, line and column.

What passes is: valid UTF-8, at most `MAX_BYTES` long, nested at most `MAX_DEPTH` deep,
without duplicate keys, NUL characters and lone surrogates, with finite numbers, and with
integers that fit 64 bits. Single payloads of the wire and of the API are in `payloads`.
"""

from __future__ import annotations

import json
import re
import stat
import sys
import tomllib
from dataclasses import dataclass, field
from datetime import date, datetime, time
from enum import StrEnum
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, Final, Literal, NoReturn

from agentorch_cli.errors import InvalidFile
from agentorch_cli.payloads import MAX_DEPTH, first_fault
from agentorch_cli.places import (
    JsonPlaces,
    Lines,
    Path,
    Place,
    TomlPlaces,
    first_duplicate,
    first_too_deep,
)


class Format(StrEnum):
    """How a document is written."""

    TOML = "toml"
    JSON = "json"
    JSONL = "jsonl"
    """One JSON value a line."""


MAX_BYTES: Final = {Format.TOML: 16 << 20, Format.JSON: 64 << 20, Format.JSONL: 64 << 20}
"""Largest documents. TOML is for people: its parser needs about a second for each megabyte."""

MAX_DOTTED_PARTS: Final = 32
"""Parts of one dotted TOML key. The parser's time grows with their square."""

MAX_SOURCE: Final = 160
"""Characters of a source line that an error shows."""

MAX_STEP: Final = 60
"""Characters of a key that a place shows."""

_FORMATS: Final = {
    ".toml": Format.TOML,
    ".json": Format.JSON,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
}
_YAML: Final = {".yaml", ".yml"}
_DATES: Final = frozenset({datetime, date, time})
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|'
    r"'''.*?'''|"
    rf"(?<![A-Za-z0-9_-])({_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MAX_DOTTED_PARTS}}})|"
    r'"(?:[^"\\\n]|\\.)*+"|'
    r"'[^'\n]*+'|#[^\n]*+",
    re.DOTALL,
)
"""Too long a key, or one of the things in which it would be none: those are skipped over."""

_HEADER: Final = re.compile(r"\s*\[\[?[^\[\]{}\n,]+\]\]?[ \t]*(?:#.*)?\r?(?:\n|$)")
_BAD_ESCAPE: Final = re.compile(r"\\(?:u0000|u[dD][89a-fA-F]|U00000000|x00)")
_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True)
class Document:
    """A value that was read, and where in its text each part of it stands.

    `Document(value, name)` without a text is a value that came another way (the wire, the
    API): the same readers take it, and its places are fields only.
    """

    value: Any
    name: str
    format: Format | None = None
    text: str = field(default="", repr=False)

    def locate(self, path: Path) -> Place | None:
        """Line and column of the key, item or header; of the nearest parent where the path ends early."""
        if self.format is None:
            return None
        for length in range(len(path), -1, -1):
            offset = self._offset(path[:length])
            if offset is not None:
                return self.lines.place(offset)
        return None

    def where(self, path: Path = ()) -> str:
        """`task.toml:12:5: tasks[3].priority`, as much of it as is known."""
        place = self.locate(path)
        start = f"{self.name}:{place.line}:{place.column}" if place and path else self.name
        return f"{start}: {show_path(path)}" if path else start

    def read_again(self) -> Document:
        """The document with its value, for whoever let go of that while the text was kept."""
        return self if self.format is None else _parse(self.text, self.name, self.format)

    @cached_property
    def lines(self) -> Lines:
        return Lines(self.text)

    @cached_property
    def _places(self) -> JsonPlaces | TomlPlaces:
        return TomlPlaces(self.text) if self.format is Format.TOML else JsonPlaces(self.text)

    @cached_property
    def _lines_of_jsonl(self) -> list[JsonPlaces]:
        return [JsonPlaces(self.text, start) for start, _ in _filled_lines(self.text)]

    def _offset(self, path: Path) -> int | None:
        try:
            if self.format is not Format.JSONL or not path:
                return self._places.offset(path)
            index = path[0]
            return self._lines_of_jsonl[index].offset(path[1:]) if isinstance(index, int) else None
        except (ValueError, IndexError, RecursionError):
            return None  # a place is a courtesy: failing to find it must not hide the error it is for


def show_path(path: Path) -> str:
    """`tasks[3].data.x`."""
    text = ""
    for step in path:
        name = (
            f"[{step}]" if isinstance(step, int) else step if len(step) <= MAX_STEP else f"{step[:MAX_STEP]}…"
        )
        text += f".{name}" if text and isinstance(step, str) else name
    return text


def load_document(
    source: bytes | FilePath | Literal["-"],
    format: Format | None = None,
    *,
    name: str | None = None,
    max_bytes: int | None = None,
) -> Document:
    """Reads a document from a file, from standard input ("-") or from bytes.

    The format is taken from the suffix, else from the look of the text. `name` is what
    errors call the document. Raises InvalidFile for everything that can be wrong.
    """
    if isinstance(source, bytes):
        name, data = name or "<text>", source
    elif source == "-":
        name, data = name or "<stdin>", _read_stdin(max_bytes, format)
    else:
        path = FilePath(source)
        name, format = name or str(source), format or _format_of(path)
        data = _read_file(path, name, _limit(format, max_bytes))
    text = _decode(data, name)
    format = format or _look(text)
    _check_size(len(data), name, _limit(format, max_bytes))
    return _parse(text, name, format)


def _format_of(path: FilePath) -> Format | None:
    suffix = path.suffix.lower()
    if suffix in _YAML:
        raise InvalidFile("YAML is not read", where=str(path), hint="Write it as TOML, JSON or JSONL.")
    return _FORMATS.get(suffix)


def _look(text: str) -> Format:
    """JSON begins with a brace, or a bracket that is no header of TOML; JSONL has a brace on each line."""
    start = text.lstrip()[:1]
    if start == "[" and not _HEADER.match(text):
        return Format.JSON
    if start != "{":
        return Format.TOML
    first, _, rest = text.strip().partition("\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return Format.JSON
    return Format.JSONL if rest.strip() else Format.JSON


def _limit(format: Format | None, max_bytes: int | None) -> int:
    return max_bytes or (MAX_BYTES[format] if format else max(MAX_BYTES.values()))


def _read_file(path: FilePath, name: str, limit: int) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InvalidFile("is a directory, not a file", where=name)
        if stat.S_ISREG(status.st_mode):
            _check_size(status.st_size, name, limit)
        with path.open("rb") as file:  # pipes and growing files have no honest size: read one byte too many
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise InvalidFile("does not exist", where=name) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidFile(f"cannot be read: {reason}", where=name) from error
    _check_size(len(data), name, limit)
    return data


def _read_stdin(max_bytes: int | None, format: Format | None) -> bytes:
    limit = _limit(format, max_bytes)
    data = sys.stdin.buffer.read(limit + 1)
    _check_size(len(data), "<stdin>", limit)
    return data


def _check_size(size: int, name: str, limit: int) -> None:
    if size > limit:
        found = f"has {size / (1 << 20):.1f} MiB" if size != limit + 1 else "is too large"
        raise InvalidFile(
            f"{found}; at most {limit / (1 << 20):g} MiB are read",
            where=name,
            hint="Split it into smaller files.",
        )


def _decode(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data.count(b"\n", 0, start) + 1
        encoding = "; it looks like UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise InvalidFile(
            f"not valid UTF-8 at byte {start}: 0x{data[start]:02x}{encoding}",
            where=f"{name}:{line}",
            line=line,
            byte=start,
        ) from error
    nul = text.find("\0")
    if nul >= 0:
        _refuse_at("contains a NUL character", name, text, nul)
    return text


def _parse(text: str, name: str, format: Format) -> Document:
    try:
        match format:
            case Format.TOML:
                value: Any = _parse_toml(text, name)
            case Format.JSON:
                value = _parse_json(text, name)
            case Format.JSONL:
                value = [_parse_json(line, name, text, start) for start, line in _filled_lines(text)]
    except RecursionError:
        _refuse_depth(text, name)
    document = Document(value, name, format, text)
    fault = first_fault(value, strings=_BAD_ESCAPE.search(text) is not None, also=_DATES)
    if fault is not None:
        path, message, is_depth, _ = fault
        if is_depth:
            _refuse_depth(text, name)
        _refuse(message, document.where(path), document.locate(path), text)
    return document


def _parse_toml(text: str, name: str) -> Any:
    if any(line.count(".") >= MAX_DOTTED_PARTS for line in text.split("\n")):
        for match in _LONG_KEY.finditer(text):
            if match[1]:
                _refuse_at(f"a key of more than {MAX_DOTTED_PARTS} dotted parts", name, text, match.start())
    try:
        return tomllib.loads(text)
    except ValueError as error:
        message, offset = _understand_toml(str(error), text)
        _refuse_at(f"not valid TOML: {message}", name, text, offset, error)


def _understand_toml(message: str, text: str) -> tuple[str, int]:
    match = _TOML_PLACE.search(message)
    if "digits" in message and match is None:
        return "a number of more than 4,300 digits", _long_number(text)
    if match is None or match[1] is None:
        return _lower(_TOML_PLACE.sub("", message)) + " at the end of the document", len(text.rstrip())
    normal = text.replace("\r\n", "\n")
    offset = Lines(normal).offset(int(match[1])) + int(match[2]) - 1
    offset += normal.count("\n", 0, offset) if "\r\n" in text else 0
    return _lower(message[: match.start()]), offset


class _Duplicate(ValueError):
    """A key that occurs twice in one object."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _Duplicate
    return result


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_pairs)


def _parse_json(part: str, name: str, text: str | None = None, start: int = 0) -> Any:
    """`part` stands at `start` in the text: the whole of it, or one line of JSONL."""
    text = part if text is None else text
    if not part.strip():
        raise InvalidFile("is empty", where=name)
    try:
        return _DECODER.decode(part)
    except json.JSONDecodeError as error:
        _refuse_at(f"not valid JSON: {_lower(error.msg)}", name, text, start + error.pos, error)
    except _Duplicate:
        offset = first_duplicate(part)
        key = json.loads(_first_string(part[offset:]))
        _refuse_at(f"the key {json.dumps(key)[:100]} is there twice", name, text, start + offset)
    except ValueError as error:  # int() refuses very long numbers
        _refuse_at("a number of more than 4,300 digits", name, text, start + _long_number(part), error)


def _long_number(text: str) -> int:
    match = re.search(r"[0-9_]{4301}", text)
    return match.start() if match else 0


def _first_string(text: str) -> str:
    match = re.match(r'"(?:[^"\\]|\\.)*"', text, re.DOTALL)
    return match[0] if match else '""'


def _filled_lines(text: str) -> list[tuple[int, str]]:
    """The lines that are not blank, with their offsets. Only the newline ends a line here."""
    lines, start = [], 0
    for line in text.split("\n"):
        if line and not line.isspace():
            lines.append((start, line))
        start += len(line) + 1
    return lines


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _refuse_depth(text: str, name: str) -> NoReturn:
    _refuse_at(f"nested more than {MAX_DEPTH} levels deep", name, text, first_too_deep(text, MAX_DEPTH))


def _refuse_at(
    message: str, name: str, text: str, offset: int, cause: BaseException | None = None
) -> NoReturn:
    place = Lines(text).place(offset)
    _refuse(message, f"{name}:{place.line}:{place.column}", place, text, cause)


def _refuse(
    message: str, where: str, place: Place | None, text: str, cause: BaseException | None = None
) -> NoReturn:
    details: dict[str, Any] = {}
    if place:
        start = max(0, place.column - MAX_SOURCE // 2) if place.column > MAX_SOURCE else 0
        source = Lines(text).line(place.line)[start : start + MAX_SOURCE]
        details = {"line": place.line, "column": place.column, "source": source}
    raise InvalidFile(message, where=where, **details) from cause
