"""Systems drawn by hand, with everything that should be said about them.

Each reads as: agents, tasks, then what is expected: kind by stuck task, components, and victims.
"""

from __future__ import annotations

from typing import Any

import pytest

from agentorch_cli.core.deadlock import detect
from agentorch_cli.core.system import parse_system

X = {"x": {"caps": ["x"]}}
XY = {"x": {"caps": ["x"]}, "y": {"caps": ["y"]}}


def pending(*deps: str, **more: Any) -> dict[str, Any]:
    return {"state": "pending", "deps": list(deps), **more}


def awaiting(*deps: str, **more: Any) -> dict[str, Any]:
    return {"state": "awaiting", "deps": list(deps), **more}


def need(*caps: str, count: int = 1) -> dict[str, Any]:
    return {"caps": list(caps), "count": count}


def team(*caps: str, most: int = 9) -> dict[str, Any]:
    return {**need(*caps), "team": True, "most": most}


RUNNING, DONE, FAILED, CANCELLED = ({"state": s} for s in ("running", "done", "failed", "cancelled"))
CIRCULAR, HOLD, BEHIND = "circular_dependency", "hold_and_wait", "blocked_behind"
MISSING, DEAD, UNSAT = "missing_dependency", "failed_dependency", "unsatisfiable"

VECTORS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str], list[list[str]], list[str]]] = {
    "nothing at all": ({}, {}, {}, [], []),
    "a chain behind running work moves": (
        X,
        {"a": {**RUNNING, "holds": ["x"]}, "b": pending("a", need=need("x")), "c": pending("b")},
        *({}, [], []),
    ),
    "many tasks behind one busy agent are merely waiting": (
        X,
        {"a": {**RUNNING, "holds": ["x"]}, **{f"b{n}": pending(need=need("x")) for n in range(9)}},
        *({}, [], []),
    ),
    "a task that waits for itself": (
        {},
        {"a": pending("a")},
        *({"a": CIRCULAR}, [["a"]], []),
    ),
    "two tasks in a ring": (
        {},
        {"a": pending("b"), "b": pending("a")},
        *({"a": CIRCULAR, "b": CIRCULAR}, [["a", "b"]], []),
    ),
    "tasks before and behind a ring: only those behind are stuck": (
        {},
        {"a": pending("b"), "b": pending("a", "free"), "free": pending(), "late": pending("a", "free")},
        *({"a": CIRCULAR, "b": CIRCULAR, "late": BEHIND}, [["a", "b"]], []),
    ),
    "two rings that share a task are one component": (
        {},
        {"a": pending("b", "c"), "b": pending("a"), "c": pending("a")},
        *({"a": CIRCULAR, "b": CIRCULAR, "c": CIRCULAR}, [["a", "b", "c"]], []),
    ),
    "a ring behind a ring are two components": (
        {},
        {"a": pending("b"), "b": pending("a"), "c": pending("d", "a"), "d": pending("c")},
        *(dict.fromkeys("abcd", CIRCULAR), [["a", "b"], ["c", "d"]], []),
    ),
    "a ring of awaiting parents that hold slots is still a ring of dependencies": (
        XY,
        {"a": awaiting("b", holds=["x"]), "b": awaiting("a", holds=["y"])},
        *({"a": CIRCULAR, "b": CIRCULAR}, [["a", "b"]], []),
    ),
    "a cycle with an any that another one ends": (
        {},
        {"a": pending("b", "c", mode="any"), "b": pending("a"), "c": pending()},
        *({}, [], []),
    ),
    "an any whose ways all lead back": (
        {},
        {"a": pending("b", "c", mode="any"), "b": pending("a"), "c": pending("a")},
        *({"a": CIRCULAR, "b": CIRCULAR, "c": CIRCULAR}, [["a", "b", "c"]], []),
    ),
    "two of three come from outside of the cycle": (
        {},
        {"a": pending("b", "c", "d", mode=2), "b": pending("a"), "c": DONE, "d": RUNNING},
        *({}, [], []),
    ),
    "two of three, but two are on the cycle": (
        {},
        {"a": pending("b", "c", "d", mode="2"), "b": pending("a"), "c": pending("a"), "d": DONE},
        *({"a": CIRCULAR, "b": CIRCULAR, "c": CIRCULAR}, [["a", "b", "c"]], []),
    ),
    "more dependencies are wanted than named": (
        {},
        {"a": pending("b", "c", mode=3), "b": DONE, "c": DONE},
        *({"a": UNSAT}, [], []),
    ),
    "who names no dependencies waits for none": (
        {},
        {"a": pending(mode="any"), "b": pending(mode=2)},
        *({}, [], []),
    ),
    "a missing dependency, and who is behind it": (
        {},
        {"a": pending("nowhere"), "b": pending("a")},
        *({"a": MISSING, "b": BEHIND}, [], []),
    ),
    "a missing dependency that is not needed": (
        {},
        {"a": pending("nowhere", "b", mode="any"), "b": DONE},
        *({}, [], []),
    ),
    "ignoring failures does not help against what is missing": (
        {},
        {"a": pending("nowhere", on_fail="ignore")},
        *({"a": MISSING}, [], []),
    ),
    "a failed and a cancelled dependency": (
        {},
        {"f": FAILED, "c": CANCELLED, "a": pending("f"), "b": pending("c"), "d": pending("b", "f")},
        *({"a": DEAD, "b": DEAD, "d": DEAD}, [], []),
    ),
    "failures that are ignored": (
        {},
        {"f": FAILED, "c": CANCELLED, "a": pending("f", "c", on_fail="ignore")},
        *({}, [], []),
    ),
    "an any with one failed and one running": (
        {},
        {"f": FAILED, "r": RUNNING, "a": pending("f", "r", mode="any")},
        *({}, [], []),
    ),
    "missing comes before failed": (
        {},
        {"f": FAILED, "a": pending("f", "nowhere")},
        *({"a": MISSING}, [], []),
    ),
    "a ring with a member that also misses something": (
        {},
        {"a": pending("b", "nowhere"), "b": pending("a")},
        *({"a": MISSING, "b": CIRCULAR}, [["a", "b"]], []),
    ),
    "a capability that nobody has": (
        X,
        {"a": pending(need=need("sql")), "b": pending("a")},
        *({"a": UNSAT, "b": BEHIND}, [], []),
    ),
    "capabilities that nobody has together": (
        XY,
        {"a": pending(need=need("x", "y"))},
        *({"a": UNSAT}, [], []),
    ),
    "a team may have them together": (
        XY,
        {"a": pending(need=team("x", "y")), "b": {**RUNNING, "holds": ["x"]}},
        *({}, [], []),
    ),
    "a team is larger than it may be, another has a part that is nobody's": (
        XY,
        {"a": pending(need=team("x", "y", most=1)), "b": pending(need=team("x", "z"))},
        *({"a": UNSAT, "b": UNSAT}, [], []),
    ),
    "a parent holds what its child's team needs, and somebody who could help is idle": (
        {**XY, "x2": {"caps": ["x"]}},
        {"parent": awaiting("child", holds=["y"]), "child": pending(need=team("x", "y"))},
        *({"parent": HOLD, "child": HOLD}, [["child", "parent"]], ["parent"]),
    ),
    "a parent holds what its child's team can have elsewhere": (
        {**XY, "x2": {"caps": ["x"]}},
        {"parent": awaiting("child", holds=["x"]), "child": pending(need=team("x", "y"))},
        *({}, [], []),
    ),
    "two parents hold parts of the same teams": (
        XY,
        {
            "p1": awaiting("c1", holds=["x"]),
            "p2": awaiting("c2", holds=["y"]),
            "c1": pending(need=team("x", "y")),
            "c2": pending(need=team("x", "y")),
        },
        # either one gives one half back, which is not enough: both have to
        *(dict.fromkeys(("c1", "c2", "p1", "p2"), HOLD), [["c1", "c2", "p1", "p2"]], ["p1", "p2"]),
    ),
    "two agents are needed, one has two slots": (
        {"x": {"caps": ["x"], "slots": 2}},
        {"a": pending(need=need("x", count=2)), "b": pending(need=need("x"))},
        *({"a": UNSAT}, [], []),
    ),
    "an unsatisfiable need shows before the dependencies are done": (
        X,
        {"r": RUNNING, "a": pending("r", need=need("y"))},
        *({"a": UNSAT}, [], []),
    ),
    "an agent without slots, and one that is away, serve nobody": (
        {"x": {"caps": ["x"], "slots": 0}, "y": {"caps": ["y"], "live": False}},
        {"a": pending(need=need("x")), "b": pending(need=need("y"))},
        *({"a": UNSAT, "b": UNSAT}, [], []),
    ),
    "a parent with the only slot waits for its child": (
        X,
        {"parent": awaiting("child", holds=["x"]), "child": pending(need=need("x"))},
        *({"parent": HOLD, "child": HOLD}, [["child", "parent"]], ["parent"]),
    ),
    "the same with two slots": (
        {"x": {"caps": ["x"], "slots": 2}},
        {"parent": awaiting("child", holds=["x"]), "child": pending(need=need("x"))},
        *({}, [], []),
    ),
    "the same, but another agent can take the child": (
        {"x": {"caps": ["x"]}, "x2": {"caps": ["x"]}},
        {
            "parent": awaiting("child", holds=["x"]),
            "child": pending(need=need("x")),
            "r": {**RUNNING, "holds": ["x2"]},
        },
        *({}, [], []),
    ),
    "parents fill the pool": (
        {"x1": {"caps": ["x"]}, "x2": {"caps": ["x"]}},
        {
            "p1": awaiting("c1", holds=["x1"]),
            "p2": awaiting("c2", holds=["x2"]),
            "c1": pending(need=need("x")),
            "c2": pending(need=need("x")),
        },
        *(dict.fromkeys(("c1", "c2", "p1", "p2"), HOLD), [["c1", "c2", "p1", "p2"]], ["p1"]),
    ),
    "of a grandparent and a parent, the one goes on whom nobody depends": (
        {"x": {"caps": ["x"], "slots": 2}},
        {
            "g": awaiting("p", holds=["x"]),
            "p": awaiting("c", holds=["x"]),
            "c": pending(need=need("x")),
        },
        *({"g": HOLD, "p": HOLD, "c": HOLD}, [["c", "g", "p"]], ["g"]),
    ),
    "two gangs with a part each": (
        XY,
        {"g1": pending(holds=["x"], need=need("y")), "g2": pending(holds=["y"], need=need("x"))},
        *({"g1": HOLD, "g2": HOLD}, [["g1", "g2"]], ["g1"]),
    ),
    "the gang of lower priority goes": (
        XY,
        {
            "g1": pending(holds=["x"], need=need("y"), priority=9),
            "g2": pending(holds=["y"], need=need("x"), priority=8),
        },
        *({"g1": HOLD, "g2": HOLD}, [["g1", "g2"]], ["g2"]),
    ),
    "but not the one that was restarted before": (
        XY,
        {
            "g1": pending(holds=["x"], need=need("y"), priority=9),
            "g2": pending(holds=["y"], need=need("x"), priority=8, restarts=1),
        },
        *({"g1": HOLD, "g2": HOLD}, [["g1", "g2"]], ["g1"]),
    ),
    "three gangs, one of which needs the parts of both others": (
        {"x": {"caps": ["g"]}, "y": {"caps": ["g"]}, "z": {"caps": ["z"]}},
        {
            "g1": pending(holds=["x"], need=need("z")),
            "g2": pending(holds=["y"], need=need("z")),
            "g3": pending(holds=["z"], need=need("g", count=2)),
        },
        *({"g1": HOLD, "g2": HOLD, "g3": HOLD}, [["g1", "g2", "g3"]], ["g3"]),
    ),
    "where only two victims help": (
        {n: {"caps": ["g"] if n in "xy" else [n]} for n in "xyz"},
        {
            "p1": awaiting("c", holds=["x"]),
            "p2": awaiting("c", holds=["y"]),
            "c": pending(need=need("g", count=2)),
        },
        *({"c": HOLD, "p1": HOLD, "p2": HOLD}, [["c", "p1", "p2"]], ["p1", "p2"]),
    ),
    "two tasks share an agent's two slots and want one more each": (
        {"x": {"caps": ["x"], "slots": 2}},
        {"a": awaiting(holds=["x"], need=need("x")), "b": awaiting(holds=["x"], need=need("x"))},
        *({"a": HOLD, "b": HOLD}, [["a", "b"]], ["a"]),
    ),
    "a task that needs what it holds": (
        X,
        {"a": pending(holds=["x"], need=need("x"))},
        *({"a": HOLD}, [["a"]], ["a"]),
    ),
    "who needs the agent of a deadlock is behind it": (
        X,
        {
            "parent": awaiting("child", holds=["x"]),
            "child": pending(need=need("x")),
            "other": pending(need=need("x")),
            "last": pending("other"),
        },
        *(
            {"parent": HOLD, "child": HOLD, "other": BEHIND, "last": BEHIND},
            [["child", "parent"]],
            ["parent"],
        ),
    ),
    "who needs the agent of a task with a missing dependency is behind that": (
        X,
        {"a": awaiting("nowhere", holds=["x"]), "b": pending(need=need("x"))},
        *({"a": MISSING, "b": BEHIND}, [], []),
    ),
    "a victim that would help nobody is not named": (
        X,
        {"parent": awaiting("child", holds=["x"]), "child": pending("nowhere", need=need("x"))},
        *({"parent": HOLD, "child": MISSING}, [["child", "parent"]], []),
    ),
    "a ring with one edge that ignores failure has one victim": (
        {},
        {"a": pending("b", on_fail="ignore"), "b": pending("c"), "c": pending("a")},
        *({"a": CIRCULAR, "b": CIRCULAR, "c": CIRCULAR}, [["a", "b", "c"]], ["b"]),
    ),
    "two rings with an exception each have a victim each": (
        {},
        {
            "a": pending("b", "c", on_fail="ignore"),
            "b": pending("a"),
            "c": pending("a"),
        },
        *({"a": CIRCULAR, "b": CIRCULAR, "c": CIRCULAR}, [["a", "b", "c"]], ["b", "c"]),
    ),
    "a ring that an any leads out of waits for what is outside": (
        X,
        {
            "t": pending("b", "c", mode="any"),
            "b": pending("t"),
            "c": pending(need=need("x")),
            "parent": awaiting("child", holds=["x"]),
            "child": pending(need=need("x")),
        },
        *(
            {"t": BEHIND, "b": BEHIND, "c": BEHIND, "parent": HOLD, "child": HOLD},
            [["b", "t"], ["child", "parent"]],
            ["parent"],
        ),
    ),
    "a deadlock that dissolves with the one before it needs no victim of its own": (
        {"x": {"caps": ["x"]}, "y": {"caps": ["x", "y"]}},
        {
            "q": awaiting("r", holds=["y"]),
            "r": pending(need=need("y")),
            "parent": awaiting("child", holds=["x"]),
            "child": pending(need=need("x")),
        },
        *(
            dict.fromkeys(("child", "parent", "q", "r"), HOLD),
            [["child", "parent"], ["q", "r"]],
            ["q"],
        ),
    ),
    "a child that depends on its own parent is a ring, slots or not": (
        X,
        {"parent": awaiting("child", holds=["x"]), "child": pending("parent", need=need("x"))},
        *({"parent": CIRCULAR, "child": CIRCULAR}, [["child", "parent"]], []),
    ),
    "an agent with more holders than slots": (
        X,
        {
            "a": awaiting("r", holds=["x"]),
            "b": awaiting("c", holds=["x"]),
            "c": pending(need=need("x")),
            "r": RUNNING,
        },
        *({"b": HOLD, "c": HOLD}, [["b", "c"]], ["b"]),
    ),
    "what ended tasks hold is free": (
        X,
        {"a": {**FAILED, "holds": ["x"]}, "b": pending(need=need("x"))},
        *({}, [], []),
    ),
}


def test_there_are_enough_of_them() -> None:
    assert len(VECTORS) >= 32


@pytest.mark.parametrize("name", VECTORS)
def test_vector(name: str) -> None:
    agents, tasks, kind, components, victims = VECTORS[name]

    found = detect(parse_system({"agents": agents, "tasks": tasks})).to_json()

    assert found["kind"] == kind
    assert found["stuck"] == sorted(kind)
    assert found["components"] == components
    assert found["victims"] == victims
    for cycle, members in zip(found["cycles"], components, strict=True):
        assert set(cycle) <= set(members)
        assert cycle[0] == min(cycle)
