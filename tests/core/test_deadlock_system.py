"""A described system is read leniently where it may be, and every mistake is told with its place."""

from __future__ import annotations

from typing import Any

import pytest

from agentorch_cli.core.system import Agent, Need, State, System, Task, parse_system
from agentorch_cli.errors import InvalidFile


def test_a_full_description_is_read_as_it_stands() -> None:
    document = {
        "name": "a lesson",
        "agents": {"x": {"caps": ["sql", "web"], "slots": 2, "live": False}},
        "tasks": {
            "a": {
                "state": "awaiting",
                "deps": ["b", "nowhere", "b"],
                "mode": "2",
                "on_fail": "ignore",
                "need": {"caps": ["sql"], "count": 3},
                "holds": ["x", "x"],
                "priority": 7,
                "restarts": 1,
                "work_seconds": 2.5,
                "tokens": 9,
                "created_at": 3,
                "note": "waits",
            },
        },
    }

    assert parse_system(document) == System(
        {"x": Agent(frozenset({"sql", "web"}), 2, False)},
        {
            "a": Task(
                state=State.AWAITING,
                deps=("b", "nowhere"),
                mode=2,
                ignore_failure=True,
                need=Need(frozenset({"sql"}), 3),
                holds=("x", "x"),
                priority=7,
                restarts=1,
                work_seconds=2.5,
                tokens=9,
                created_at=3.0,
            )
        },
    )


def test_everything_but_the_ids_may_be_left_out() -> None:
    assert parse_system({"agents": {"x": {}}, "tasks": {"a": {}, "b": {"need": {"caps": ["c"]}}}}) == System(
        {"x": Agent(frozenset(), 1)}, {"a": Task(), "b": Task(need=Need(frozenset({"c"}), 1))}
    )
    assert parse_system({"tasks": {}}) == System({}, {})


def test_a_need_may_be_for_a_team() -> None:
    document = {"tasks": {"a": {"need": {"caps": ["x", "y"], "team": True, "most": 2}}}}

    assert parse_system(document).tasks["a"].need == Need(frozenset("xy"), 1, is_team=True, most=2)


@pytest.mark.parametrize(
    ("document", "where", "message"),
    [
        ([], "(top)", "expected an object, found a list"),
        ({}, "tasks", "there are no tasks"),
        ({"tasks": {}, "agent": {}}, "agent", "unknown key"),
        ({"tasks": []}, "tasks", "expected an object of ids, found a list"),
        ({"tasks": {"": {}}}, "tasks", "an id is empty"),
        ({"tasks": {"a": None}}, "tasks.a", "expected an object, found null"),
        ({"tasks": {"a": {"state": "runing"}}}, "tasks.a.state", "found 'runing'"),
        ({"tasks": {"a": {"state": ["done"]}}}, "tasks.a.state", "found a list"),
        ({"tasks": {"a": {"dep": []}}}, "tasks.a.dep", "unknown key"),
        ({"tasks": {"a": {"deps": "b"}}}, "tasks.a.deps", "expected a list of texts, found a text"),
        ({"tasks": {"a": {"deps": ["b", 3]}}}, "tasks.a.deps[1]", "expected a text, found a number"),
        ({"tasks": {"a": {"mode": 0}}}, "tasks.a.mode", 'expected "all", "any" or a number from 1, found 0'),
        ({"tasks": {"a": {"mode": True}}}, "tasks.a.mode", "found true or false"),
        ({"tasks": {"a": {"mode": "some"}}}, "tasks.a.mode", "found 'some'"),
        ({"tasks": {"a": {"on_fail": "run"}}}, "tasks.a.on_fail", "expected one of block, ignore"),
        ({"tasks": {"a": {"need": []}}}, "tasks.a.need", "expected an object"),
        ({"tasks": {"a": {"need": {"count": -1}}}}, "tasks.a.need.count", "found -1"),
        ({"tasks": {"a": {"need": {"count": 10**5000}}}}, "tasks.a.need.count", "found a number"),
        ({"tasks": {"a": {"created_at": float("nan")}}}, "tasks.a.created_at", "expected a number"),
        ({"tasks": {"a": {"holds": ["ghost"]}}}, "tasks.a.holds[0]", "there is no agent 'ghost'"),
        ({"tasks": {}, "agents": {"x": {"slots": 1.5}}}, "agents.x.slots", "found 1.5"),
        ({"tasks": {}, "agents": {"x": {"live": 1}}}, "agents.x.live", "expected true or false"),
        ({"tasks": {}, "agents": {"x": {"caps": [None]}}}, "agents.x.caps[0]", "found null"),
    ],
)
def test_a_mistake_is_told_with_its_place(document: Any, where: str, message: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_system(document)

    assert caught.value.where == where
    assert message in caught.value.message


def test_likely_meanings_are_offered() -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_system({"agents": {"builder": {}}, "tasks": {"a": {"holds": ["bulder"]}}})

    assert caught.value.hint == "Did you mean 'builder'?"


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_system({"agents": {"x": {"slot": 1}}, "tasks": {"a": {"state": 1}, "b": {"mode": "x" * 999}}})

    problems = caught.value.details["problems"]
    assert [problem["where"] for problem in problems] == ["agents.x.slot", "tasks.a.state", "tasks.b.mode"]
    assert caught.value.message == "unknown key (and 2 more)"
    assert len(problems[2]["message"]) < 120
