"""One text per JSON value: RFC 8785 (JSON Canonicalization Scheme) over NFC strings.

Object keys in UTF-16 order, no white space, numbers as ECMAScript prints them, so
`{"b": 1.0, "a": 2}` and `{"a":2,"b":1}` are the same text. Two additions:

* Strings are brought to Unicode NFC first, since an accent may be typed in two ways.
* A whole number that no double holds keeps all its digits. RFC 8785 leaves such numbers
  to the sender; rounding would make two different ids equal.

Python tuples, sets and keys that are not text have a text of their own as well, which no
JSON value shares: answers about code are often Python literals.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 100


class NotCanonical(ValueError):
    """The value has no canonical text: NaN, a lone surrogate, keys that become equal, too deep."""


def canonical_json(value: Any) -> str:
    """The canonical text of a value. Raises NotCanonical."""
    text = "".join(_parts(value, MAX_DEPTH))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise NotCanonical("a lone surrogate is no text") from error
    return text


def number_text(value: float) -> str:
    """A number as ECMAScript's Number::toString prints it (RFC 8785, section 3.2.2.3)."""
    if isinstance(value, int):
        try:
            as_float = float(value)
        except OverflowError as error:
            raise NotCanonical("a whole number that large is no JSON number") from error
        return number_text(as_float) if int(as_float) == value else str(value)
    if not math.isfinite(value):
        raise NotCanonical(f"{value} is no JSON number")
    if value == 0:
        return "0"
    # repr gives the shortest digits that read back as the same double, as ECMAScript does.
    mantissa, _, exponent_text = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    exponent = int(exponent_text or 0) + len(whole) if whole != "0" else _leading(fraction, exponent_text)
    digits = digits.rstrip("0")
    return ("-" if value < 0 else "") + _place(digits, exponent)


def _leading(fraction: str, exponent_text: str) -> int:
    """The power of ten before the first digit of 0.000123: minus the zeros after the point."""
    return int(exponent_text or 0) - (len(fraction) - len(fraction.lstrip("0")))


def _place(digits: str, exponent: int) -> str:
    """Digits d1 d2 ... with the value 0.d1d2... x 10^exponent, as ECMAScript places the point."""
    if len(digits) <= exponent <= 21:
        return digits + "0" * (exponent - len(digits))
    if 0 < exponent <= 21:
        return f"{digits[:exponent]}.{digits[exponent:]}"
    if -6 < exponent <= 0:
        return f"0.{'0' * -exponent}{digits}"
    sign = "+" if exponent > 0 else "-"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{sign}{abs(exponent - 1)}"


def _parts(value: Any, depth: int) -> Iterator[str]:
    if depth == 0:
        raise NotCanonical(f"nested deeper than {MAX_DEPTH} levels")
    match value:
        case None | True | False:
            yield {None: "null", True: "true", False: "false"}[value]
        case str():
            yield _string(value)
        case int() | float():
            yield number_text(value)
        case dict():
            yield from _object(value, depth)
        case list():
            yield from _sequence("[", [_inner(item, depth) for item in value], "]")
        case tuple():
            yield from _sequence("(", [_inner(item, depth) for item in value], ")")
        case set() | frozenset():
            yield from _sequence("{", sorted({_inner(item, depth) for item in value}), "}")
        case _:
            raise NotCanonical(f"{type(value).__name__} is no JSON value")


def _inner(value: Any, depth: int) -> str:
    return "".join(_parts(value, depth - 1))


def _sequence(opening: str, items: list[str], closing: str) -> Iterator[str]:
    yield opening
    yield ",".join(items)
    yield closing


def _object(value: dict[Any, Any], depth: int) -> Iterator[str]:
    members: dict[str, str] = {}
    order: dict[str, tuple[bool, bytes]] = {}
    for key, item in value.items():
        text = _string(key) if isinstance(key, str) else _inner(key, depth)
        if text in members:
            raise NotCanonical(f"two keys of an object are {text}")
        members[text] = _inner(item, depth)
        name = unicodedata.normalize("NFC", key) if isinstance(key, str) else text
        order[text] = (not isinstance(key, str), name.encode("utf-16-be", "surrogatepass"))
    yield "{"
    yield ",".join(f"{text}:{members[text]}" for text in sorted(members, key=order.__getitem__))
    yield "}"


def _string(text: str) -> str:
    return json.dumps(unicodedata.normalize("NFC", text), ensure_ascii=False)
