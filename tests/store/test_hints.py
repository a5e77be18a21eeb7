"""What a hint says: which tasks are ready, of which pools."""

from __future__ import annotations

import pytest

from agentorch_cli.store.store import DELAYED, MOST_HINTED, MOST_POOLS, hint, hinted_in


@pytest.mark.parametrize("ids", [["a"], ["a", "b c", "ü"]])
@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("pools", [[], ["default"], ["gpu", "north pole"]])
def test_a_hint_says_what_it_was_told(ids: list[str], delayed: bool, pools: list[str]) -> None:
    told = hinted_in(hint(ids, delayed=delayed, pools=pools))

    assert (told.ids, told.delayed, list(told.pools)) == (ids, delayed, pools)
    assert [told.concerns(pool) for pool in ("default", "gpu", "other")] == [
        not pools or "default" in pools,
        not pools or "gpu" in pools,
        not pools,
    ]


def test_a_hint_of_nothing_but_what_is_ready_later() -> None:
    told = hinted_in(hint([], delayed=True, pools=["gpu"]))

    assert (told.ids, told.delayed, list(told.pools)) == ([], True, ["gpu"])


def test_a_hint_of_many_pools_concerns_all() -> None:
    told = hinted_in(hint(["a"], pools=[f"pool-{n}" for n in range(MOST_POOLS + 1)]))

    assert told.concerns("other")


def test_nobody_is_told_of_nothing() -> None:
    assert hint([], pools=["default"]) == ""


def test_what_does_not_fit_says_that_a_look_is_worth_while() -> None:
    assert hint(["x" * 100] * 90) == "*"
    assert hint(["a"], pools=["x" * MOST_HINTED]) == "*"


def test_a_node_of_an_older_version_takes_the_pools_for_an_id() -> None:
    """It looks for lines that are ids, and one that means later; no task has the other id."""
    assert hint(["a", "b"], delayed=True, pools=["gpu"]).split("\n") == ["a", "b", DELAYED, "\x1dgpu"]
