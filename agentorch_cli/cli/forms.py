"""The forms in which an answer is written for programs: JSON, JSON by the line, and CSV.

CSV is that of RFC 4180: a header, CRLF, a quote doubled inside quotes. A list has a row for each of its
things, any other answer one row. The columns are the fields of the documents in their order; lists and
objects are JSON in their cell, nothing is an empty cell, and times are what they are in JSON. No cell is
changed to please a spreadsheet: whoever opens the file in one imports its columns as text. Only on a
terminal, signs that would act on it are shown as codes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from agentorch_cli.text import escape_json, visible
from agentorch_cli.views import SCHEMA_VERSION, ChangeReply, SubmitReply

VERSION = "schema_version"


def json_text(document: Any, indent: int | None = None) -> str:
    """Views, lists and plain values as JSON in which nothing hidden is left."""
    return escape_json(json.dumps(to_plain(document), ensure_ascii=False, indent=indent, default=str))


def to_plain(document: Any) -> Any:
    """Views as dictionaries; each document says the version of its schema."""
    if isinstance(document, BaseModel):
        return {VERSION: SCHEMA_VERSION, **document.model_dump(mode="json")}
    if isinstance(document, Mapping):
        if VERSION in document or "$schema" in document:  # a JSON Schema has a version of its own
            return dict(document)
        return {VERSION: SCHEMA_VERSION, **document}
    if isinstance(document, Sequence) and not isinstance(document, str):
        return [to_plain(item) for item in document]
    return document


def csv_lines(document: Any, kind: type[BaseModel] | None, *, is_terminal: bool = False) -> Iterator[str]:
    """The lines of an answer as CSV, each with its end; `kind` is what an empty list would hold."""
    rows = [_plain(row) for row in _rows(document)]
    columns = list(dict.fromkeys(name for row in rows for name in row if name != VERSION))
    if not columns and kind is not None:
        columns = list(kind.model_fields)
    if columns:
        yield csv_line(columns)
    for row in rows:
        yield csv_line([row.get(column) for column in columns], is_terminal=is_terminal)


def cells_of(document: Any, columns: Iterable[str]) -> list[Any]:
    """What a document has in these columns."""
    row = _plain(document)
    return [row.get(column) for column in columns]


def csv_line(cells: Iterable[Any], *, is_terminal: bool = False) -> str:
    """One line with its CRLF."""
    buffer = io.StringIO()
    texts = [_cell(cell) for cell in cells]
    csv.writer(buffer).writerow([visible(text) for text in texts] if is_terminal else texts)
    return buffer.getvalue()


def _rows(document: Any) -> Iterable[Any]:
    """What gets a row each."""
    match document:
        case SubmitReply():
            return [
                {"submission_id": document.submission_id, **one.model_dump(mode="json")}
                for one in document.tasks
            ]
        case ChangeReply():
            done = [{"id": one, "changed": True, "reason": None} for one in document.changed]
            left = [
                {"id": one, "changed": False, "reason": reason} for one, reason in document.unchanged.items()
            ]
            return [*done, *left]
        case list():
            return document
    return [document]


def _plain(row: Any) -> Mapping[str, Any]:
    if isinstance(row, BaseModel):
        return row.model_dump(mode="json")
    return row if isinstance(row, Mapping) else {"value": row}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return escape_json(json.dumps(value, ensure_ascii=False, default=str))
