"""One key of a TOML text changed, and everything else left as it was: comments, order, spacing.

There are many ways to write a table, and no rewriting here is trusted: each way of making the
change is tried, the result is read again, and only one that says exactly what was meant, and
nothing else, is taken. A text in which none does is left alone.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import tomli_w

from agentorch_cli.errors import InvalidConfig
from agentorch_cli.places import TomlHeader, TomlPair, toml_layout

Key = tuple[str, ...]


def read(text: str, name: str) -> dict[str, Any]:
    """The text's tree. Raises InvalidConfig, with the line, for what is no TOML."""
    from agentorch_cli.documents import Format, load_document
    from agentorch_cli.errors import InvalidFile

    try:
        tree: dict[str, Any] = load_document(text.encode(), Format.TOML, name=name).value
    except InvalidFile as error:
        raise InvalidConfig(error.message, hint=error.hint, where=error.where, **error.details) from error
    return tree


def put(text: str, key: Key, value: Any, name: str) -> str:
    """The text in which `key` has this value. Raises InvalidConfig where that cannot be done in it."""
    wanted = read(text, name)
    table = wanted
    for step in key[:-1]:
        table = table.setdefault(step, {})
        if not isinstance(table, dict):
            raise InvalidConfig(f"{'.'.join(key[:-1])} is no table there", where=name)
    if key[-1] in table and _same(table[key[-1]], value):
        return text
    table[key[-1]] = value
    return _first_right(text, _ways_to_put(text, key, _written(value)), wanted, name, _line(key, value))


def drop(text: str, key: Key, name: str) -> str:
    """The text without `key`; as it is where the key is not in it. Raises InvalidConfig."""
    wanted = read(text, name)
    table = wanted
    for step in key[:-1]:
        table = table.get(step, {})
    if key[-1] not in table:
        return text
    del table[key[-1]]
    return _first_right(text, _ways_to_drop(text, key), wanted, name, f"it has no {'.'.join(key)}")


def put_table(text: str, key: Key, table: dict[str, Any], name: str) -> str:
    """The text in which the table `key` holds these values, and no others. Raises InvalidConfig."""
    for old in _table_at(read(text, name), key):
        if old not in table:
            text = drop(text, (*key, old), name)
    for step, value in table.items():
        text = put(text, (*key, step), value, name)
    return text


def drop_table(text: str, key: Key, name: str) -> str:
    """The text without the table `key` of plain values; as it is where it has none. Raises InvalidConfig."""
    wanted = read(text, name)
    if key[-1] not in _table_at(wanted, key[:-1]):
        return text
    emptied = put_table(text, key, {}, name)
    del _table_at(wanted, key[:-1])[key[-1]]
    ways = (way for way in _ways_to_drop_table(emptied, key) if not _has_table(way, key))
    return _first_right(emptied, ways, wanted, name, f"it has no {'.'.join(key)}")


def _has_table(text: str, key: Key) -> bool:
    try:
        return key[-1] in _table_at(tomllib.loads(text), key[:-1])
    except ValueError:
        return False


def _table_at(tree: dict[str, Any], key: Key) -> dict[str, Any]:
    for step in key:
        tree = tree.get(step, {})
        if not isinstance(tree, dict):
            return {}
    return tree


def _first_right(text: str, ways: Iterator[str], wanted: dict[str, Any], name: str, meant: str) -> str:
    for changed in ways:
        try:
            found = tomllib.loads(changed)
        except ValueError:
            continue
        if _same(_without_empty(found), _without_empty(wanted)):
            return changed
    raise InvalidConfig(
        "is written in a way that this command cannot change",
        where=name,
        hint=f"change it by hand, so that {meant}",
    )


def _same(one: Any, other: Any) -> bool:
    """Equal, and of equal types: TOML's 1, 1.0 and true are three values, Python's are one."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) or (one != one and other != other)


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """An empty table says nothing, and may stay as a header without keys."""
    tables = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return {key: value for key, value in tables.items() if value != {}}


def _written(value: Any) -> str:
    """The value as TOML, in one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")


def _line(key: Key, value: Any) -> str:
    where = f"[{'.'.join(key[:-1])}] says: " if key[:-1] else "its first line is: "
    return f"{where}{key[-1]} = {_written(value)}"


def _line_end(text: str) -> str:
    """As the text has them."""
    end = text.find("\n")
    return "\r\n" if end > 0 and text[end - 1] == "\r" else "\n"


# --- ways to write a value --------------------------------------------------------------------


def _ways_to_put(text: str, key: Key, written: str) -> Iterator[str]:
    pairs, headers = toml_layout(text)
    for pair in pairs:
        if pair.path == key:
            yield text[: pair.value] + written + text[pair.end :]
            return
    line = f"{_name(key[-1])} = {written}"
    dotted = f"{'.'.join(map(_name, key))} = {written}"
    if not key[:-1]:
        for place in _places_at_top(text, key[0], pairs, headers):
            yield _insert_line(text, place, line)
        return
    for number, header in enumerate(headers):
        if header.path == key[:-1]:
            end = headers[number + 1].start if number + 1 < len(headers) else len(text)
            inside = [pair for pair in pairs if header.end <= pair.start < end and pair.table is not None]
            for place in _places_below(text, key[-1], header.end, end, inside):
                yield _insert_line(text, place, line)
    beside = [pair for pair in pairs if pair.path[:-1] == key[:-1]]
    for pair in reversed(beside):
        if pair.table is None:
            yield f"{text[: pair.end]}, {line}{text[pair.end :]}"
        else:
            yield _insert_line(text, _next_line(text, pair.end), dotted)
    for pair in pairs:  # an inline table without keys
        if pair.path == key[:-1]:
            yield f"{text[: pair.value]}{{ {line} }}{text[pair.end :]}"
    opening = f"[{'.'.join(map(_name, key[:-1]))}]"
    gap = _line_end(text) if text.strip() else ""
    yield _insert_line(text, len(text), f"{gap}{opening}{_line_end(text)}{line}")


def _places_at_top(text: str, name: str, pairs: list[TomlPair], headers: list[TomlHeader]) -> Iterator[int]:
    """Before the first header: below the commented default, else below other keys, else below what the
    file says about itself."""
    end = headers[0].start if headers else len(text)
    own = [pair for pair in pairs if pair.table == ()]
    if own:
        yield from _places_below(text, name, 0, end, own)
        return
    commented = _commented(text, name, 0, end)
    if commented is not None:
        yield commented
    opening = re.match(r"(?:[ \t]*#[^\n]*(?:\n|$))+(?=\s*(?:\n|$))", text)
    yield opening.end() if opening and opening.end() <= end else 0


def _places_below(text: str, name: str, start: int, end: int, inside: list[TomlPair]) -> Iterator[int]:
    """Where in a table's part of the text a new line belongs, the best place first."""
    commented = _commented(text, name, start, end)
    if commented is not None:
        yield commented
    yield _next_line(text, inside[-1].end if inside else start)


def _commented(text: str, name: str, start: int, end: int) -> int | None:
    """Behind the line `# name = …`, with which a written-out configuration shows a default."""
    found = re.compile(rf"^[ \t]*#[ \t]*{re.escape(name)}[ \t]*=[^\n]*(?:\n|$)", re.MULTILINE)
    match = found.search(text, start, end)
    return match.end() if match else None


def _next_line(text: str, place: int) -> int:
    end = text.find("\n", place)
    return len(text) if end < 0 else end + 1


def _insert_line(text: str, place: int, line: str) -> str:
    start = text[:place]
    if start and not start.endswith("\n"):
        start += _line_end(text)
    return start + line + _line_end(text) + text[place:]


def _name(step: str) -> str:
    return step if re.fullmatch(r"[A-Za-z0-9_-]+", step) else tomli_w.dumps({step: 0}).rpartition(" = ")[0]


# --- ways to take one out ---------------------------------------------------------------------


def _ways_to_drop(text: str, key: Key) -> Iterator[str]:
    for pair in toml_layout(text)[0]:
        if pair.path != key:
            continue
        if pair.table is not None:
            begin = text.rfind("\n", 0, pair.start) + 1
            yield text[:begin] + text[_next_line(text, pair.end) :]
            return
        before, after = text[: pair.start].rstrip(" \t\r\n"), text[pair.end :].lstrip(" \t\r\n")
        if after.startswith(","):
            yield text[: pair.start] + after[1:].lstrip(" \t")
        elif before.endswith(","):
            yield before[:-1] + text[pair.end :]
        else:
            yield text[: pair.start].rstrip(" \t") + text[pair.end :].lstrip(" \t")


def _ways_to_drop_table(text: str, key: Key) -> Iterator[str]:
    """Of a table without keys: what is left of it is a header, an inline table, or nothing at all."""
    for header in toml_layout(text)[1]:
        if header.path == key:
            begin, end = text.rfind("\n", 0, header.start) + 1, _next_line(text, header.end)
            before = text[:begin]
            if not text[end:].strip() and before.endswith("\n\n"):
                before = before[:-1]  # it was the last
            yield before + text[end:]
    yield from _ways_to_drop(text, key)
    yield text
