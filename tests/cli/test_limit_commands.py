"""`agentorch limit` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentorch_cli.views import ChangeReply


def test_limits_of_which_some_are_not_there_are_removed_in_part(
    agentorch: Callable[..., Any], desk: Any
) -> None:
    desk.answers["limit.remove"] = ChangeReply(
        changed=["agent:a"], unchanged={"type:x": "there is no such limit"}
    )

    done = agentorch("limit", "remove", "agent:a", "type:x")

    assert (done.code, done.out) == (9, "agent:a\tremoved\n")
    assert "type:x: there is no such limit" in done.err


def test_a_long_wrong_name_is_told_short(agentorch: Callable[..., Any], desk: Any) -> None:
    done = agentorch("limit", "set", "capability:" + "k" * 5000, "5/m")

    assert (done.code, desk.calls) == (2, [])
    assert len(done.err) < 300
