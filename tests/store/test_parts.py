"""Statements that say the same share it: the files of statements and their parts."""

from __future__ import annotations

import pytest

from agentorch_cli.store.queries import read


def test_a_part_stands_where_it_is_used() -> None:
    text = "-- part: p\n  a, b\n\n-- name: one\nselect\n  -- use p\nfrom t;\n\n-- name: two\nselect c;\n"

    assert read(text) == {"one": "select\n  a, b\nfrom t", "two": "select c"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("-- name: one\n-- use p\n", "there is no part p"),
        ("-- part: p\na\n\n-- name: one\nselect 1;\n", "no statement uses the part p"),
        ("-- name: one\nselect 1;\n\n-- name: one\nselect 2;\n", "the name one is defined twice"),
        ("-- part: p\na\n\n-- part: p\nb\n\n-- name: one\n-- use p\n", "the part p is defined twice"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read(text)
