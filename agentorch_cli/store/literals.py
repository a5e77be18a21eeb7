"""Arrays as PostgreSQL reads them: text in curly brackets.

The driver encodes a list element by element, and looks at each one whether it is a list itself: half a
microsecond for a text and more for a null, which is most of what a batch costs it. A text is sent as it is.
Of arrays but those of texts it also asks the server what they are, once a connection: two round trips and
5 ms of PostgreSQL. Statements say `$1::text::text[]` where they take one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

SEPARATOR = "\x1f"
"""No name and no JSON text holds it unescaped; a text that does is looked at by itself."""


def array_literal(texts: Iterable[str | None]) -> str:
    """An array of texts."""
    texts = list(texts)
    if not texts:
        return "{}"
    if len(texts) == 1 and texts[0] is not None:
        return '{"' + _escaped(texts[0]) + '"}'
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


def column(values: Sequence[object]) -> str:
    """The same with nulls: of nothing but nulls, nothing. Moments are written with their zone."""
    if values.count(None) == len(values):
        return "{}"
    return plain_column("NULL" if value is None else _plain(value) for value in values)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
