"""No task starves: how far a stream of higher priority can get ahead of a task, in numbers.

A task that became ready at time t with priority p has the urgency floor(t / a) - p, with a the
setting `engine.aging_seconds`; the lowest goes first, and among equals the older. So a task of
priority 10 that becomes ready more than (10 - p) x a + a later never goes before it: with the
defaults, 11 minutes for priority 0, 6 for 5 and 1 for 10.
"""

from __future__ import annotations

import random
from math import floor

import pytest

from agentorch_cli.core.backlog import Backlog, Ready
from agentorch_cli.core.matching import Member, Roster, Want
from agentorch_cli.core.model import AgentStatus

AGING = 60.0
HIGHEST = 10
WANT = Want(frozenset({"work"}))


def ready(seq: int, at: float, priority: int, *, path: float = 1.0) -> Ready:
    """A task that became ready at this time."""
    return Ready(
        task_id=f"t{seq}",
        seq=seq,
        urgency=floor(at / AGING) - priority,
        remaining_path=path,
        type="t",
        priority=priority,
        want=WANT,
        min_agents=1,
        max_agents=1,
        attempts_made=0,
        timeout_seconds=60,
        retries=0,
        failures=0,
        losses=0,
        has_dependents=False,
        options={},
        status="pending",
        required_capabilities=["work"],
    )


def overtakers(
    priority: int, came: float, *, per_second: float, path: float = 1.0
) -> tuple[list[float], float]:
    """One agent does one task a second; from the start a stream of the highest priority comes at this rate.

    When those became ready, counted from when the one of low priority did, that came after it and
    were served before it; and how long it waited. `path`: of the stream's tasks.
    """
    roster, backlog = Roster(), Backlog()
    roster.put(Member("a", "t", frozenset({"work"}), 1, AgentStatus.ONLINE))
    late: list[float] = []
    came_at: dict[str, float] = {}
    number, is_there = 0, False
    for second in range(100_000):
        now = came + second
        while number < per_second * (second + 1):
            number += 1
            at = came + number / per_second - 0.5 / per_second
            backlog.put(ready(number, at, HIGHEST, path=path))
            came_at[f"t{number}"] = at
        if not is_there:
            backlog.put(ready(0, came, priority))
            is_there = True
        for task, _ in backlog.match(roster, 1):
            if task.task_id == "t0":
                return late, now - came
            late.append(came_at[task.task_id] - came)
        roster.give_back("a", 0)
    raise AssertionError(f"a task of priority {priority} starved")


@pytest.mark.parametrize("per_second", [1, 2])
@pytest.mark.parametrize("priority", [0, 3, 5, 9, 10])
def test_a_stream_of_the_highest_priority_overtakes_for_a_bounded_time(
    priority: int, per_second: int
) -> None:
    bound = (HIGHEST - priority + 1) * AGING
    for seed in range(3):
        came = random.Random(seed).uniform(0, 10 * AGING)

        late, waited = overtakers(priority, came, per_second=per_second, path=9.0)

        assert max(late, default=0.0) <= bound, (seed, came)
        # served at once are those that come within the bound, and nobody else: so the wait is bounded too
        assert len(late) <= bound * per_second + 1
        assert waited <= bound * per_second + 2
        # ... and it is the priority that orders within it: the bound is not kept by serving in order of age
        assert max(late, default=0.0) >= (HIGHEST - priority - 1) * AGING


def test_the_bound_with_the_defaults_is_eleven_minutes() -> None:
    late, waited = overtakers(0, 59.9, per_second=1)

    assert 9 * 60 <= waited <= 11 * 60
    assert max(late) <= 11 * 60
