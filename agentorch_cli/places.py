"""Where in the text of a document a value stands: line and column of a path.

`tomllib` and `json` forget places as they read, and an error without its line is half an
error. So the text is read a second time, by scanners that know only the outer shape of
the two languages: they may rely on the text being valid, because the real parser has
read it before. They cost nothing until somebody asks.

A path is what one would index with: `("tasks", 3, "priority")`. A key's place is the
place of the key, an item's is the place of the item or of its `[[header]]`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final, NamedTuple

Path = tuple[str | int, ...]


class Place(NamedTuple):
    """A place as editors count: both from 1, columns in characters."""

    line: int
    column: int


class Lines:
    """Turns offsets into places, and back into the line itself."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, offset: int) -> Place:
        line = bisect_right(self._starts, offset)
        return Place(line, offset - self._starts[line - 1] + 1)

    def offset(self, line: int) -> int:
        """Where the line begins, for line numbers from 1."""
        return self._starts[min(line, len(self._starts)) - 1]

    def line(self, number: int) -> str:
        start = self.offset(number)
        end = self._text.find("\n", start)
        return self._text[start : end if end >= 0 else None].rstrip("\r")


_JSON_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+', re.DOTALL)


class JsonPlaces:
    """Places in valid JSON. Each container is indexed when it is first walked through."""

    def __init__(self, text: str, start: int = 0) -> None:
        self._text = text
        self._start = start
        self._children: dict[Path, dict[str | int, tuple[int, int]]] = {}

    def offset(self, path: Path) -> int | None:
        """The offset of the path's key or item, or None where there is no such thing."""
        place, value = self._start, self._start
        for depth, step in enumerate(path):
            here = path[:depth]
            if here not in self._children:
                self._children[here] = json_children(self._text, value)
            child = self._children[here].get(step)
            if child is None:
                return None
            place, value = child
        return _first_token(self._text, place)


def json_children(text: str, start: int) -> dict[str | int, tuple[int, int]]:
    """Of the container at `start`: each key or index to (place of it, place of its value)."""
    import json

    children: dict[str | int, tuple[int, int]] = {}
    depth, is_object, key, key_at, index, expects = 0, False, "", 0, 0, False
    for match in _JSON_TOKEN.finditer(text, start):
        piece = match[0]
        if depth == 1 and expects:
            if is_object and piece != "}":
                key, key_at, expects = json.loads(piece), match.start(), False
                continue
            if not is_object and piece != "]":
                children[index] = (match.start(), match.start())
                index, expects = index + 1, False
        elif depth == 1 and piece == ":":
            children[key] = (key_at, match.end())
        if piece in "{[":
            depth += 1
            if depth == 1:
                is_object, expects = piece == "{", True
        elif piece in "}]":
            depth -= 1
        elif depth == 1 and piece == ",":
            expects = True
        if depth == 0:
            break
    return children


def _first_token(text: str, start: int) -> int:
    match = re.compile(r"\s*").match(text, start)
    return match.end() if match else start


_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_BASIC: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL: Final = re.compile(r"'[^'\n]*'")
_LONG_BASIC: Final = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}', re.DOTALL)
_LONG_LITERAL: Final = re.compile(r"'''.*?'{3,5}", re.DOTALL)
_BLANK: Final = re.compile(r"[ \t]*")
_SPACE: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR: Final = re.compile(r"[^,\]}#\r\n]*")


class TomlPlaces:
    """Places in valid TOML: an index of headers and keys, made in one pass when first asked."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._index: dict[Path, int] | None = None

    def offset(self, path: Path) -> int | None:
        """The offset of the path's key, header or item, or None where there is no such thing."""
        if self._index is None:
            self._index = toml_index(self._text)
        return 0 if not path else self._index.get(path)


def toml_index(text: str) -> dict[Path, int]:
    """Every path of the document to its offset."""
    return _TomlScanner(text).run()


class TomlPair(NamedTuple):
    """`key = value` in a text: what it sets, and where its parts begin and end."""

    path: Path
    start: int
    """Of the key."""
    value: int
    end: int
    """Behind the value."""
    table: Path | None
    """The header that it stands below, `()` before the first one; None inside of an inline table."""


class TomlHeader(NamedTuple):
    """`[table]` in a text."""

    path: Path
    start: int
    end: int


def toml_layout(text: str) -> tuple[list[TomlPair], list[TomlHeader]]:
    """The pairs and the headers of valid TOML, in their order; for whoever changes the text."""
    scanner = _TomlScanner(text)
    scanner.run()
    return sorted(scanner.pairs, key=lambda pair: pair.start), scanner.headers


class _TomlScanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._index: dict[Path, int] = {}
        self.pairs: list[TomlPair] = []
        self.headers: list[TomlHeader] = []
        self._counts: dict[Path, int] = {}
        """How many `[[headers]]` each array of tables has had so far."""

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(_SPACE) < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table, table)
        return self._index

    def _header(self) -> Path:
        start = self._at
        is_array = self._text.startswith("[[", start)
        self._at += 2 if is_array else 1
        parts = self._key()
        self._at += 2 if is_array else 1
        table: Path = ()
        for position, (part, offset) in enumerate(parts):
            table = (*table, part)
            is_last = position == len(parts) - 1
            self._index.setdefault(table, start if is_last else offset)
            if is_last and is_array:
                count = self._counts[table] = self._counts.get(table, 0) + 1
                table = (*table, count - 1)
                self._index[table] = start
            elif table in self._counts:
                table = (*table, self._counts[table] - 1)
        self.headers.append(TomlHeader(table, start, self._at))
        return table

    def _pair(self, path: Path, table: Path | None = None) -> None:
        """`table` is the header above; inside of an inline table there is none."""
        start = self._at
        for part, offset in self._key():
            path = (*path, part)
            self._index.setdefault(path, offset)
        self._at += 1  # the equals sign
        value = self._skip(_BLANK)
        self._value(path)
        end = self._at
        while self._text[end - 1] in " \t":  # a number or a word is read with the blanks behind it
            end -= 1
        self.pairs.append(TomlPair(path, start, value, end, table))

    def _key(self) -> list[tuple[str, int]]:
        """A dotted key: its parts with their offsets; ends after the blanks behind it."""
        parts = []
        while True:
            start = self._skip(_BLANK)
            quote = self._text[start : start + 1]
            pattern = _BASIC if quote == '"' else _LITERAL if quote == "'" else _BARE
            parts.append((_key_text(self._take(pattern)), start))
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _value(self, path: Path) -> None:
        text = self._text
        match text[self._at : self._at + 1]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"':
                self._take(_LONG_BASIC if text.startswith('"""', self._at) else _BASIC)
            case "'":
                self._take(_LONG_LITERAL if text.startswith("'''", self._at) else _LITERAL)
            case _:
                self._take(_SCALAR)

    def _array(self, path: Path) -> None:
        self._at += 1
        position = 0
        while self._text[self._skip(_SPACE)] != "]":
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._index[(*path, position)] = self._at
            self._value((*path, position))
            position += 1
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._text[self._skip(_SPACE)] != "}":
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._pair(path)
        self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _take(self, pattern: re.Pattern[str]) -> str:
        start = self._at
        match = pattern.match(self._text, start)
        if not match or match.end() == start:
            raise ValueError(f"not the shape of TOML at offset {start}")
        self._at = match.end()
        return match[0]


def _key_text(piece: str) -> str:
    if piece[0] not in "\"'":
        return piece
    if piece[0] == "'" or "\\" not in piece:
        return piece[1:-1]
    import tomllib

    return next(iter(tomllib.loads(f"{piece} = 0")))


_BRACKETS: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|' r"'''.*?'''|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'|#[^\n]*|[\[{]|[\]}]",
    re.DOTALL,
)


def first_too_deep(text: str, limit: int) -> int:
    """The offset of the first bracket that opens more than `limit` levels. For TOML and for JSON."""
    depth = 0
    for match in _BRACKETS.finditer(text):
        piece = match[0]
        if piece in "[{":
            depth += 1
            if depth > limit:
                return match.start()
        elif piece in "]}":
            depth -= 1
    return 0


def first_duplicate(text: str) -> int:
    """The offset of the first key that its object has had before, in JSON that has one; else 0."""
    import json

    seen: list[set[str] | None] = []
    expects_key = False
    for match in _JSON_TOKEN.finditer(text):
        piece = match[0]
        if piece in "{[":
            seen.append(set() if piece == "{" else None)
            expects_key = piece == "{"
        elif piece in "}]":
            seen.pop()
            expects_key = False
        elif piece == ",":
            expects_key = seen[-1] is not None
        elif expects_key and piece[0] == '"':
            keys, key = seen[-1], json.loads(piece)
            if keys is not None and key in keys:
                return match.start()
            if keys is not None:
                keys.add(key)
            expects_key = False
    return 0
