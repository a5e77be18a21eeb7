"""The tables of moves: complete, closed, and in step with the states that the model names."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

from agentorch_cli.core.lifecycle import (
    ATTEMPT_BEGINS,
    ATTEMPT_MOVES,
    TASK_BEGINS,
    TASK_MOVES,
    AttemptEvent,
    TaskEvent,
    mermaid,
    move_attempt,
    move_task,
    text,
)
from agentorch_cli.core.model import FINAL, LIVE, AttemptStatus, TaskStatus

SCHEMA = Path(__file__).parents[2] / "agentorch_cli" / "store" / "migrations" / "0001_first.sql"


def test_a_move_that_is_in_no_table_is_no_move() -> None:
    assert move_task(TaskStatus.PENDING, TaskEvent.ASSIGN) is TaskStatus.RUNNING
    assert move_task(TaskStatus.COMPLETED, TaskEvent.FAIL) is None
    assert move_attempt(AttemptStatus.SENT, AttemptEvent.ACCEPT) is AttemptStatus.ACCEPTED
    assert move_attempt(AttemptStatus.CANCELLED, AttemptEvent.COMPLETE) is None


def test_only_a_person_opens_a_final_task_again() -> None:
    leaving = {(old, event) for old, event in TASK_MOVES if old in FINAL}

    assert {event for _, event in leaving} == {TaskEvent.RETRY, TaskEvent.BLOCK}
    assert {old for old, _ in leaving} == FINAL - {TaskStatus.COMPLETED}
    assert all(not TASK_MOVES[one].is_final for one in leaving)


def test_an_open_task_can_always_be_called_off_and_can_always_fail() -> None:
    for status in set(TaskStatus) - FINAL:
        assert move_task(status, TaskEvent.CANCEL) is TaskStatus.CANCELLED
        assert move_task(status, TaskEvent.FAIL) is TaskStatus.FAILED


def test_a_task_that_wants_agents_or_has_them_can_complete() -> None:
    for status in TaskStatus:
        completes = move_task(status, TaskEvent.COMPLETE) is TaskStatus.COMPLETED
        assert completes == (status in (TaskStatus.PENDING, TaskStatus.RUNNING))


def test_an_attempt_that_ended_is_never_live_again_and_only_a_late_result_changes_it() -> None:
    for (old, event), new in ATTEMPT_MOVES.items():
        if old not in LIVE:
            assert (event, new) == (AttemptEvent.COMPLETE, AttemptStatus.COMPLETED)
            assert old in (AttemptStatus.LOST, AttemptStatus.TIMED_OUT)
        elif new in LIVE:
            assert (old, new) == (AttemptStatus.SENT, AttemptStatus.ACCEPTED)


def test_every_live_attempt_can_end_in_every_way() -> None:
    for status in LIVE:
        ends = {new for (old, _), new in ATTEMPT_MOVES.items() if old is status} - LIVE
        assert ends == set(AttemptStatus) - LIVE


@pytest.mark.parametrize(
    ("states", "begins", "moves"),
    [(TaskStatus, TASK_BEGINS, TASK_MOVES), (AttemptStatus, ATTEMPT_BEGINS, ATTEMPT_MOVES)],
)
def test_every_state_is_reached_and_every_event_happens(
    states: type[StrEnum], begins: dict, moves: dict
) -> None:
    reached = set(begins)
    while True:
        more = {new for (old, _), new in moves.items() if old in reached} - reached
        if not more:
            break
        reached |= more

    assert reached == set(states)
    events = TaskEvent if states is TaskStatus else AttemptEvent
    assert {event for _, event in moves} == set(events)


@pytest.mark.parametrize(
    ("table", "states"), [("task_distributions", TaskStatus), ("task_attempts", AttemptStatus)]
)
def test_the_schema_knows_the_same_states(table: str, states: type[StrEnum]) -> None:
    body = SCHEMA.read_text().split(f"create table {table} (")[1]
    listed = re.search(r"check \(status in\s*\(([^)]*)\)", body)

    assert listed is not None
    assert set(re.findall(r"'(\w+)'", listed[1])) == set(states)


def test_moves_are_drawn_as_a_picture_and_as_a_table() -> None:
    moves = {("a", "go"): "b", ("b", "go"): "b", ("b", "back"): "a"}

    assert mermaid({"a": "new"}, moves).splitlines() == [
        "stateDiagram-v2",
        "    [*] --> a: new",
        "    a --> b: go",
        "    b --> b: go",
        "    b --> a: back",
    ]
    assert text(moves).splitlines()[2:] == ["| go | a, b | b |", "| back | b | a |"]
