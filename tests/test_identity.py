"""Ids: version 7 of RFC 9562, alone and by the dozen."""

from __future__ import annotations

import time
import uuid

from agentorch_cli.identity import NOISE, new_id, new_id_text, new_id_texts


def test_ids_are_uuids_of_version_7_that_begin_with_the_moment() -> None:
    before = time.time_ns() // 1_000_000
    ids = [uuid.UUID(text) for text in (*new_id_texts(600), new_id_text(), str(new_id()))]
    after = time.time_ns() // 1_000_000

    assert {one.version for one in ids} == {7} and {one.variant for one in ids} == {uuid.RFC_4122}
    assert all(before <= one.int >> 80 <= after for one in ids)


def test_no_id_comes_twice_and_all_of_its_noise_is_noise() -> None:
    ids = new_id_texts(2_000)

    assert len(set(ids)) == len(ids) and all(str(uuid.UUID(text)) == text for text in ids)
    for place in (*range(15, 18), *range(19, 23), *range(24, 36)):
        assert len({text[place] for text in ids}) == (4 if place == 19 else 16)
    assert NOISE * 8 >= 74  # bits, which is what such an id has room for


def test_none_are_asked_for_and_none_come() -> None:
    assert new_id_texts(0) == []
