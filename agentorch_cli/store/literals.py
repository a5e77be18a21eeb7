"""Arrays as PostgreSQL reads them: text in curly brackets.

The driver encodes a list element by element, and looks at each one whether it is a list itself: half a
microsecond for a text and more for a null, which is most of what a batch costs it. A text is sent as it is.
Statements say `$1::text::text[]` where they take one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

SEPARATOR = "\x1f"
"""No name and no JSON text holds it unescaped; a text that does is looked at by itself."""


def array_literal(texts: Iterable[str | None]) -> str:
    """An array of texts."""
    texts = list(texts)
    if not texts:
        return "{}"
    if None not in texts:
        body = SEPARATOR.join(texts)  # type: ignore[arg-type]
        if body.count(SEPARATOR) == len(texts) - 1:
            return '{"' + _escaped(body).replace(SEPARATOR, '","') + '"}'
    return "{" + ",".join("NULL" if text is None else f'"{_escaped(text)}"' for text in texts) + "}"


def text_column(texts: Sequence[str | None]) -> str:
    """A column of texts for `unnest`, which fills up shorter arrays with nulls: of only nulls, nothing."""
    return "{}" if texts.count(None) == len(texts) else array_literal(texts)


def plain_column(values: Iterable[object]) -> str:
    """A column of what needs no quotes: numbers, booleans, UUIDs, names of states."""
    return "{" + ",".join(map(str, values)) + "}"


def column(values: list[Any]) -> list[Any]:
    """A column that the driver encodes, for `unnest`: of nothing but nulls, nothing."""
    return [] if values.count(None) == len(values) else values


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
