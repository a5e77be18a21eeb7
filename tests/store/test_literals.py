"""Arrays as PostgreSQL reads them, read back by PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from agentorch_cli.store.literals import array_literal, column, plain_column, text_column
from agentorch_cli.store.store import Store

ODD = [
    "",
    " ",
    "NULL",
    "null",
    '"',
    "\\",
    '\\"',
    "{",
    "}",
    ",",
    "{a,b}",
    "a\x1fb",
    "\x1f",
    "\n\t",
    "é",
    "\U0001f600",
    "'; --",
]


@pytest.mark.parametrize("number", range(len(ODD) + 1))
async def test_texts_come_back_as_they_were(store: Store, number: int) -> None:
    texts: list[str | None] = [*ODD[number:], *ODD[:number]][: len(ODD) - number % 3]

    for asked in (texts, [*texts, None], [None, *texts[:1]], []):
        assert await store.db.pool.fetchval("select $1::text::text[]", array_literal(asked)) == asked


async def test_a_column_of_nulls_is_left_to_unnest(store: Store) -> None:
    rows = await store.db.pool.fetch(
        "select * from unnest($1::text::text[], $2::text::text[], $3::text::integer[], $4::float8[])",
        array_literal(["x", "y"]),
        text_column([None, None]),
        plain_column([1, 2]),
        column([None, None]),
    )

    assert [tuple(row) for row in rows] == [("x", None, 1, None), ("y", None, 2, None)]
    assert column([None, 1.5]) == [None, 1.5]


@pytest.mark.parametrize(
    ("values", "kind"), [([True, False], "boolean"), ([1, -2], "bigint"), ([0.5, 1e300], "float8")]
)
async def test_plain_values_come_back_as_they_were(store: Store, values: list[Any], kind: str) -> None:
    assert await store.db.pool.fetchval(f"select $1::text::{kind}[]", plain_column(values)) == values
