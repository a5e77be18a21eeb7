"""Payloads may not break the store: the check of every JSON value that comes from outside.

PostgreSQL refuses NUL characters and lone surrogates, and would do so in the middle of a
batch of other people's rows. JSON has no NaN; deep nesting breaks the parsers of others;
`orjson` reads integers beyond 64 bits as rounded floats. So each payload is looked at
once, at the border where its sender can still be told.

The gateway uses `decode` for frames, the API `encode` for values: both search the raw bytes, and
only what is refused is walked through, to say where the fault is.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Collection, Mapping
from itertools import accumulate
from math import isfinite
from typing import Any, Final, NamedTuple, NoReturn

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

_WIDEST: Final = 20
"""Digits of the largest integer, and of the smallest with its sign."""

_STRING: Final = re.compile(rb'"[^"]*+"')
"""Where nothing in it is escaped any more."""

_INTEGER: Final = re.compile(rb"(?<![0-9.eE+\-])-?[0-9]{19,}+(?![0-9.eE])")
"""One that may not fit; no part of a float."""

_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b'"\\[]{}')
_SAME: Final = bytes.maketrans(b"{}", b"[]")
_STEPS: Final = bytes(1 if byte == ord("[") else 255 for byte in range(256))
"""One level in, or (as a signed byte) one out."""

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
    if _has_nul(raw) or _is_too_deep(raw) or _has_wide_integer(raw):
        _refuse(raw, value)
    return value


def _refuse(raw: bytes, value: Any) -> NoReturn:
    """Say what is wrong, and where: that takes a walk, and the slow parser, which keeps integers exact."""
    check_json(value)
    try:
        check_json(json.loads(raw))
    except ValueError as error:
        raise InvalidMessage("contains a number of more than 4,300 digits") from error
    raise InvalidMessage("has a fault in a key that is there twice")  # only the last one is in the value


def encode(value: Any, *, max_bytes: int = MAX_PAYLOAD) -> bytes:
    """A value as the JSON text that is stored and sent. Raises InvalidMessage, with a JSON pointer."""
    try:
        raw = orjson.dumps(value, option=_STRICT)
    except (TypeError, RecursionError):
        check_json(value)
        raise InvalidMessage("cannot be written as JSON") from None
    if b"null" in raw or _has_nul(raw) or _is_too_deep(raw):  # NaN and Infinity are written as null
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


# Three questions that the text of valid JSON answers exactly. Walking through a megabyte of empty lists
# takes 0.15 s; here every pass is one call: whoever sends such frames should not keep others waiting.


def _may_be_deep(raw: bytes) -> bool:
    return raw.count(b"{") + raw.count(b"[") > MAX_DEPTH


def _has_long_digits(raw: bytes) -> bool:
    return _LONG_NUMBER in raw.translate(_SHAPES)


def _has_nul(raw: bytes) -> bool:
    return b"\\u0000" in raw and b"\\u0000" in raw.replace(rb"\\", b"")


def _is_too_deep(raw: bytes) -> bool:
    if not _may_be_deep(raw):
        return False
    brackets = _without_strings(raw.translate(None, _NO_BRACKETS)).translate(_SAME)
    inner = brackets.replace(b"[]", b"")  # the deepest ones among them, and most of what there is
    return max(accumulate(array("b", inner.translate(_STEPS))), default=0) >= MAX_DEPTH


def _has_wide_integer(raw: bytes) -> bool:
    if not _has_long_digits(raw):
        return False
    plain = _without_strings(raw)
    return _has_long_digits(plain) and not all(map(_fits, _INTEGER.findall(plain)))


def _fits(integer: bytes) -> bool:
    return len(integer) <= _WIDEST and MIN_INTEGER <= int(integer) <= MAX_INTEGER


def _without_strings(raw: bytes) -> bytes:
    """Strings that stand next to each other go as one."""
    if b"\\" in raw:
        raw = raw.replace(rb"\\", b"").replace(rb"\"", b"").replace(b"\\", b"")
    return _STRING.sub(b"", raw.replace(b'""', b""))


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
