"""Text from handlers and subprocesses, made fit for a message: short, and free of control characters.

A program's stderr may hold anything. PostgreSQL refuses NUL, and a terminal obeys escape sequences,
so what leaves an agent as a sentence is cleaned where it is made. Results are data and stay as they are.
"""

from __future__ import annotations

import unicodedata

MESSAGE_LIMIT = 2_000
"""Characters of an error message or a progress note. Longer ones lose their middle."""

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_KEPT = frozenset("\n\t")


def plain(text: str | bytes, limit: int = MESSAGE_LIMIT) -> str:
    """The text with every control, format, bidi or surrogate character shown as its code."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    text = _shorten(text.replace("\r\n", "\n"), limit)
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_visible(character) else _code(character) for character in text)


def _is_visible(character: str) -> bool:
    return character in _KEPT or unicodedata.category(character) not in _HIDDEN


def _code(character: str) -> str:
    point = ord(character)
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{{{point:x}}}"


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = limit // 4
    tail = limit - head - 3
    return f"{text[:head]} … {text[-tail:]}"
