"""Payloads may not break the store: the check of every JSON value that comes from outside.

PostgreSQL refuses NUL characters and lone surrogates, and would do so in the middle of a
batch of other people's rows. JSON has no NaN; deep nesting breaks the parsers of others;
`orjson` reads integers beyond 64 bits as rounded floats. So each payload is looked at
once, at the border where its sender can still be told.

The gateway uses `decode` for frames, the API `encode` for values: the happy path costs a
few searches of the raw bytes, and only suspicious ones are walked through.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from math import isfinite
from typing import Any, Final, NamedTuple

import orjson

from agentorch_cli.errors import InvalidMessage, UsageError

MAX_DEPTH: Final = 64
"""Objects and lists inside each other."""

MAX_PAYLOAD: Final = 1 << 20
"""Bytes of one frame or one payload as UTF-8 JSON, where the caller names no other limit."""

MIN_INTEGER: Final = -(1 << 63)
MAX_INTEGER: Final = (1 << 64) - 1

_SHAPES: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else byte for byte in range(256))
"""Every digit to a zero: a plain search then finds a run of digits, four times faster than a pattern."""

_LONG_NUMBER: Final = b"0" * 19
_STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_NOTHING: Final[frozenset[type]] = frozenset()
_MAY_HOLD_TEXT: Final = (str, dict, list)


class Fault(NamedTuple):
    """The first thing that may not be in a value."""

    path: tuple[str | int, ...]
    message: str
    is_depth: bool = False
    is_text: bool = False


def decode(raw: bytes | str, *, max_bytes: int = MAX_PAYLOAD) -> Any:
    """Parses the text of one frame. Raises InvalidMessage, with a JSON pointer as `where`."""
    if isinstance(raw, str):
        try:
            raw = raw.encode()
        except UnicodeEncodeError as error:
            raise InvalidMessage("contains a lone surrogate") from error
    if len(raw) > max_bytes:
        raise InvalidMessage(f"has {len(raw)} bytes; at most {max_bytes} are taken")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        message = "nested too deep" if "depth" in error.msg else error.msg
        raise InvalidMessage(f"not valid JSON: {message}", offset=error.pos) from error
    if _is_suspicious(raw):
        check_json(value)
        _check_long_numbers(raw)
    return value


def encode(value: Any, *, max_bytes: int = MAX_PAYLOAD) -> bytes:
    """A value as the JSON text that is stored and sent. Raises InvalidMessage, with a JSON pointer."""
    try:
        raw = orjson.dumps(value, option=_STRICT)
    except (TypeError, RecursionError):
        check_json(value)
        raise InvalidMessage("cannot be written as JSON") from None
    if b"null" in raw or _is_suspicious(raw):  # NaN and Infinity are written as null
        check_json(value)
    if len(raw) > max_bytes:
        raise InvalidMessage(f"has {len(raw)} bytes as JSON; at most {max_bytes} are taken")
    return raw


def check_json(value: Any) -> None:
    """Walks through a value. Raises InvalidMessage with a JSON pointer to the first fault."""
    fault = first_fault(value, strings=True)
    if fault is not None:
        raise InvalidMessage(fault.message, where=pointer(fault.path[: MAX_DEPTH + 1]))


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """The texts that an operation is asked with. Raises UsageError with the parameter's name.

    Whatever a shell or a program hands over gets as far as here: bytes that are no UTF-8 come as lone
    surrogates. Numbers are the operation's own to refuse; specs and times were checked where they were read.
    """
    for name, value in parameters.items():
        items = value if isinstance(value, list | tuple) else [value]
        fault = first_fault([one for one in items if isinstance(one, _MAY_HOLD_TEXT)], strings=True)
        if fault is not None and (fault.is_text or fault.is_depth):
            raise UsageError(
                f"{name} {fault.message}", why="It could not be kept: text is UTF-8, without NUL characters."
            )


def pointer(path: tuple[str | int, ...]) -> str:
    """RFC 6901: `/data/0/a~1b`; "/" stands for the whole, so that a place is never empty."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path) or "/"


def _is_suspicious(raw: bytes) -> bool:
    return (
        b"\\u0000" in raw
        or raw.count(b"{") + raw.count(b"[") > MAX_DEPTH
        or _LONG_NUMBER in raw.translate(_SHAPES)
    )


def _check_long_numbers(raw: bytes) -> None:
    """Reads again with the slow parser, which keeps integers exact."""
    if _LONG_NUMBER not in raw.translate(_SHAPES):
        return
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise InvalidMessage("contains a number of more than 4,300 digits") from error
    check_json(value)


def first_fault(value: Any, *, strings: bool, also: Collection[type] = _NOTHING) -> Fault | None:
    """What may not be in a payload: None where all is well.

    `strings` asks to look into texts too; `also` names types that are welcome besides
    those of JSON. The first pass has no paths, because it nearly always finds nothing.
    """
    if _is_clean(value, strings, also):
        return None
    return _find(value, strings, also)


def _is_clean(value: Any, strings: bool, also: Collection[type]) -> bool:
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        items: list[Any] = []
        for container in level:
            if type(container) is dict:
                for key in container:
                    if type(key) is not str or (strings and not is_storable(key)):
                        return False
                items.extend(container.values())
            else:
                items.extend(container)
        level = []
        for item in items:
            kind = type(item)
            if kind is str:
                if strings and not is_storable(item):
                    return False
            elif kind is dict or kind is list:
                level.append(item)
            elif not _is_scalar(item, kind, also):
                return False
        if not level:
            return True
    return False


def _is_scalar(item: Any, kind: type, also: Collection[type]) -> bool:
    if kind is int:
        return bool(MIN_INTEGER <= item <= MAX_INTEGER)
    if kind is float:
        return bool(isfinite(item))
    return item is None or kind is bool or kind in also


def is_storable(text: str) -> bool:
    """PostgreSQL can keep it: no NUL character, no lone surrogate."""
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _find(value: Any, strings: bool, also: Collection[type]) -> Fault | None:
    """The slow pass: the same checks in the order of the document, with the path."""
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while stack:
        path, item = stack.pop()
        kind = type(item)
        if isinstance(item, dict | list | tuple):
            if len(path) >= MAX_DEPTH:
                return Fault(path, f"nested more than {MAX_DEPTH} levels deep", is_depth=True)
            pairs = list(item.items() if isinstance(item, dict) else enumerate(item))
            for key, _ in pairs if isinstance(item, dict) else ():
                if not isinstance(key, str):
                    return Fault(path, f"has a key that is not text: {key!r:.100}")
                if strings and not is_storable(key):
                    return Fault(path, f"has a key with a {_culprit(key)}", is_text=True)
            stack.extend(((*path, key), child) for key, child in reversed(pairs))
        elif isinstance(item, str):
            if strings and not is_storable(item):
                return Fault(path, f"contains a {_culprit(item)}", is_text=True)
        elif not _is_scalar(item, kind, also):
            return Fault(path, _scalar_fault(item))
    return None


def _culprit(text: str) -> str:
    return "NUL character" if "\0" in text else "lone surrogate"


def _scalar_fault(item: Any) -> str:
    if isinstance(item, int):
        return "is an integer that does not fit 64 bits"
    if isinstance(item, float):
        return "is not a finite number (NaN, Infinity, or beyond 1e308)"
    return f"is not JSON: {type(item).__name__}"
