"""Arrays as PostgreSQL reads them, read back by PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from agentorch_cli.store.literals import array_literal, column, plain_column, text_column
from agentorch_cli.store.queries import statements
from agentorch_cli.store.store import Store
from tests.store.test_plans import BY_KEY

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

    for asked in (texts, [*texts, None], [None, *texts[:1]], texts[:1], [None], []):
        assert await store.db.pool.fetchval("select $1::text::text[]", array_literal(asked)) == asked


async def test_a_column_of_nulls_is_left_to_unnest(store: Store) -> None:
    rows = await store.db.pool.fetch(
        "select * from unnest($1::text::text[], $2::text::text[], $3::text::integer[], $4::text::float8[])",
        array_literal(["x", "y"]),
        text_column([None, None]),
        plain_column([1, 2]),
        column([None, None]),
    )

    assert [tuple(row) for row in rows] == [("x", None, 1, None), ("y", None, 2, None)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, 1.5], "float8"),
        ([0.1, None, 1e-300], "float8"),
        (
            [None, datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=-7)))],
            "timestamptz",
        ),
        ([datetime(1, 1, 2, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)], "timestamptz"),
    ],
)
async def test_columns_with_nulls_come_back_as_they_were(store: Store, values: list[Any], kind: str) -> None:
    assert await store.db.pool.fetchval(f"select $1::text::{kind}[]", column(values)) == values


async def test_statements_by_key_take_and_answer_nothing_that_the_driver_has_to_ask_for(store: Store) -> None:
    """Of arrays it knows those of texts; before it sends others it asks what they are, on each connection."""
    async with store.db.pool.acquire() as connection:
        for name in BY_KEY:
            statement = await connection.prepare(statements()[name])
            types = [*statement.get_parameters(), *(one.type for one in statement.get_attributes())]
            asked = [one.name for one in types if one.kind != "scalar" and one.name != "text[]"]

            assert (name, asked) == (name, [])


@pytest.mark.parametrize(
    ("values", "kind"), [([True, False], "boolean"), ([1, -2], "bigint"), ([0.5, 1e300], "float8")]
)
async def test_plain_values_come_back_as_they_were(store: Store, values: list[Any], kind: str) -> None:
    assert await store.db.pool.fetchval(f"select $1::text::{kind}[]", plain_column(values)) == values
