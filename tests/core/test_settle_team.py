"""What a team's task does next: parts that count, parts that are asked for again, and the end."""

from __future__ import annotations

import random

import pytest
from test_settle import (
    ACCEPTED,
    CANCELLED,
    COMPLETED,
    FAILED,
    HOPELESS,
    LOST,
    SENT,
    TIMED_OUT,
    settled,
    tried,
)

from agentorch_cli.core.model import Aggregate, AttemptStatus, TaskStatus
from agentorch_cli.core.settle import MOST_LOSSES, Move, Tried
from agentorch_cli.core.team import role_of, share_of

TEAM = frozenset({"cost", "plan"})


def of_team(*attempts: Tried, **more: object) -> Move:
    return settled(*attempts, **{"team": TEAM, "max_agents": 2, "aggregate": Aggregate.ALL, **more})


def test_the_result_of_a_team_is_each_role_with_what_its_member_brought() -> None:
    move = of_team(tried("b", COMPLETED, 2, role="plan"), tried("a", COMPLETED, 1, role="cost"))

    assert move == Move(TaskStatus.COMPLETED, result={"cost": 1, "plan": 2})
    assert list(move.result) == ["cost", "plan"]


def test_one_member_may_be_the_whole_team() -> None:
    assert of_team(tried("a", COMPLETED, 1, role="cost+plan")).result == {"cost+plan": 1}


def test_a_team_waits_for_every_part_whatever_the_aggregate() -> None:
    for aggregate in Aggregate:
        move = of_team(
            tried("a", COMPLETED, 1, role="cost"), tried("b", SENT, role="plan"), aggregate=aggregate
        )

        assert move == Move(TaskStatus.RUNNING)


@pytest.mark.parametrize("status", [LOST, CANCELLED])
def test_the_part_of_a_member_that_is_gone_is_asked_for_at_once(status: AttemptStatus) -> None:
    move = of_team(tried("a", COMPLETED, 1, role="cost"), tried("b", status, role="plan"))

    assert (move.status, move.wanted, move.delay_seconds) == (TaskStatus.RUNNING, 1, 0.0)
    assert move.call_off == ()


@pytest.mark.parametrize("status", [FAILED, TIMED_OUT])
def test_a_part_that_failed_is_repeated_after_a_wait_and_the_other_goes_on(status: AttemptStatus) -> None:
    move = of_team(tried("a", ACCEPTED, role="cost"), tried("b", status, role="plan"), backoff_seconds=4.0)

    assert (move.status, move.wanted, move.delay_seconds) == (TaskStatus.RUNNING, 1, 3.0)
    assert move.call_off == ()


def test_a_team_of_which_nobody_is_left_begins_anew() -> None:
    move = of_team(tried("a", LOST, role="cost"), tried("b", LOST, role="plan"))

    assert (move.status, move.wanted) == (TaskStatus.PENDING, 1)


def test_a_failure_for_good_ends_the_team_and_calls_the_others_off() -> None:
    hopeless = tried("b", FAILED, role="plan", error=HOPELESS)

    move = of_team(tried("a", ACCEPTED, role="cost"), hopeless)
    worn = of_team(tried("a", ACCEPTED, role="cost"), tried("b", FAILED, role="plan"), retries=0)

    assert (move.status, move.call_off) == (TaskStatus.FAILED, ("a:1",))
    assert (worn.status, worn.call_off) == (TaskStatus.FAILED, ("a:1",))


def test_a_late_result_counts_and_who_took_over_is_called_off() -> None:
    move = of_team(
        tried("a", COMPLETED, 1, role="cost"),
        tried("b", COMPLETED, 2, role="plan"),
        tried("c", ACCEPTED, role="plan"),
    )

    assert move == Move(TaskStatus.COMPLETED, result={"cost": 1, "plan": 2}, call_off=("c:1",))


def test_what_one_member_did_may_be_taken_over_by_two() -> None:
    lost = tried("a", LOST, role="cost+plan")
    half = of_team(lost, tried("b", COMPLETED, 2, role="plan"), tried("c", ACCEPTED, role="cost"))
    whole = of_team(lost, tried("b", COMPLETED, 2, role="plan"), tried("c", COMPLETED, 3, role="cost"))

    assert half == Move(TaskStatus.RUNNING)
    assert whole.result == {"cost": 3, "plan": 2}


def test_a_role_that_was_given_twice_stands_twice_in_the_result() -> None:
    attempts = [
        tried("a", COMPLETED, 1, role="cost"),
        tried("b", COMPLETED, 2, role="plan"),
        tried("c", COMPLETED, 3, role="cost"),
    ]

    move = of_team(*attempts, min_agents=3, max_agents=3)
    early = of_team(*attempts[:2], tried("c", ACCEPTED, role="cost"), min_agents=3, max_agents=3)
    fewer = of_team(*attempts[:2], tried("c", LOST, role="cost"), min_agents=3, max_agents=3)

    assert move.result == {"cost": 1, "cost#2": 3, "plan": 2}
    assert early == Move(TaskStatus.RUNNING)
    assert (fewer.status, fewer.wanted) == (TaskStatus.RUNNING, 1)


def test_parts_may_be_merged() -> None:
    attempts = [tried("a", COMPLETED, {"x": 1}, role="cost"), tried("b", COMPLETED, {"y": 2}, role="plan")]

    assert of_team(*attempts, aggregate=Aggregate.MERGE).result == {"x": 1, "y": 2}


def test_a_team_may_lose_as_many_for_each_capability_as_another_task_for_its_agent() -> None:
    losses = [tried("a", LOST, role="cost", number=n) for n in range(2 * MOST_LOSSES)]

    assert of_team(*losses[:-1]).status is TaskStatus.PENDING
    assert of_team(*losses).error["code"] == "agents_lost"  # type: ignore[index]


def test_whatever_happens_a_team_asks_until_each_part_is_there_and_no_longer() -> None:
    """Random stories: after each move, what is asked for is what nobody does; at the end all is there."""
    for seed in range(500):
        draw = random.Random(seed)
        team = frozenset(draw.sample("abcdef", draw.randint(1, 6)))
        attempts: list[Tried] = []
        for number in range(200):
            move = settled(*attempts, team=team, max_agents=6, retries=999, losses=0, aggregate=Aggregate.ALL)
            covering = [one for one in attempts if one.is_done or one.status.is_live]
            left = team.difference(*(share_of(one.role) for one in covering))
            if move.status is TaskStatus.COMPLETED:
                assert set().union(*(share_of(role.split("#")[0]) for role in move.result)) == team
                break
            assert bool(move.wanted) == bool(left), f"seed {seed}"
            live = [place for place, one in enumerate(attempts) if one.status.is_live]
            if left and (not live or draw.random() < 0.5):
                share = draw.sample(sorted(left), draw.randint(1, len(left)))
                attempts.append(tried(f"agent-{number}", ACCEPTED, role=role_of(share)))
            elif live:
                place = draw.choice(live)
                one = attempts[place]
                status = draw.choice([COMPLETED, COMPLETED, FAILED, LOST, CANCELLED])
                attempts[place] = tried(one.agent_id, status, number, role=one.role)
        else:
            raise AssertionError(f"seed {seed}: no end")
