"""What others wrote, made safe to look at: for the terminal, for logs and for web pages alike.

A name, a note or a result may hold escape sequences that move the cursor, set the window's
title or the clipboard, letters that nobody sees, and marks that turn the reading order
around. Everything of that kind is shown as its code (`\\x1b`, `\\u{202e}`), so that it is
seen and does nothing. All other text, in any language, stays as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

MAX_SHOWN = 20_000
"""Characters of one text that are shown at most; what is cut is counted at the end."""

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Controls, formats (bidi, zero-width, tags), lone surrogates, private use, line and paragraph separators."""

_BLANK_LETTERS = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
    | {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
)
"""Letters and marks without a shape: fillers and variation selectors, which can carry hidden text."""

_NEW_EMOJI = range(0x1F000, 0x1FC00)
"""Unassigned here may only mean younger than this Python; elsewhere unassigned may be a hidden mark."""

_NEWLINE = 0x0A


def visible(text: object, limit: int = MAX_SHOWN) -> str:
    """The text with everything that does not show as itself shown as its code. Newlines stay."""
    shown = str(text).replace("\r\n", "\n")
    rest = len(shown) - limit
    if rest > 0:
        shown = shown[:limit]
    if not (shown.isascii() and shown.isprintable()):
        shown = shown.translate(_CODES)
    return f"{shown}… ({rest:,} more characters)" if rest > 0 else shown


def one_line(text: object, limit: int = MAX_SHOWN) -> str:
    """The same in one line, for a cell or a log: a newline is shown as its code too."""
    return visible(text, limit).strip("\n").replace("\n", "\\n")


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, with a sign where something is missing."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


def escape_json(document: str) -> str:
    """JSON whose strings hold nothing hidden: the same document, in escapes that JSON knows."""
    if document.isascii() and "\x7f" not in document:
        return document
    return document.translate(_JSON_CODES)


def code(point: int) -> str:
    """How a character that must not be shown is written."""
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{{{point:x}}}"


def json_code(point: int) -> str:
    """The escape of a character in JSON: two of them above the first plane."""
    if point < 0x10000:
        return f"\\u{point:04x}"
    high, low = divmod(point - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def is_visible(point: int) -> bool:
    """Whether the character shows as itself (or breaks the line, which is seen as well)."""
    if point == _NEWLINE:
        return True
    if point in _BLANK_LETTERS:
        return False
    category = unicodedata.category(chr(point))
    return category not in _HIDDEN and (category != "Cn" or point in _NEW_EMOJI)


class _Codes(dict[int, str]):
    """The table of `str.translate`, filled as characters are met, and never large."""

    def __init__(self, write: Callable[[int], str]) -> None:
        super().__init__()
        self._write = write

    def __missing__(self, point: int) -> str:
        shown = chr(point) if is_visible(point) else self._write(point)
        if len(self) < 10_000:
            self[point] = shown
        return shown


_CODES = _Codes(code)
_JSON_CODES = _Codes(json_code)


def natural(name: str) -> list[tuple[bool, int | str]]:
    """The order in which people count: `reader-9` comes before `reader-10`."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else part) for part in re.split(r"(\d+)", name)]
