"""What the detector says about systems as they really occur, small and large."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentorch_cli.core.deadlock import Kind, Wait, detect
from agentorch_cli.core.system import Agent, Need, State, System, Task

DAGS = sorted((Path(__file__).parents[1] / "data" / "dags").glob("*.json"))
X = Need(frozenset("x"), 1)


def ring(size: int, prefix: str = "r") -> dict[str, Task]:
    return {f"{prefix}{n:02}": Task(deps=(f"{prefix}{(n + 1) % size:02}",)) for n in range(size)}


def parent_and_child(number: int, agent: str, need: Need = X) -> dict[str, Task]:
    return {
        f"p{number}": Task(state=State.AWAITING, deps=(f"c{number}",), holds=(agent,)),
        f"c{number}": Task(need=need),
    }


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_real_workflows_never_raise_an_alarm(path: Path) -> None:
    described = json.loads(path.read_text())["tasks"]
    fleet = {f"a{n}": Agent(frozenset("x"), 2) for n in range(3)}
    waiting = {task["id"]: Task(deps=tuple(task["depends_on"]), need=X) for task in described}

    assert detect(System(fleet, waiting)).stuck == ()

    roots = [name for name, task in waiting.items() if not task.deps][:6]
    busy = {name: Task(state=State.RUNNING, holds=(f"a{n % 3}",)) for n, name in enumerate(roots)}
    assert detect(System(fleet, waiting | busy)).stuck == ()


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_one_edge_back_in_a_real_workflow_is_found(path: Path) -> None:
    described = json.loads(path.read_text())["tasks"]
    waiting = {task["id"]: Task(deps=tuple(task["depends_on"])) for task in described}
    last = next(name for name, task in waiting.items() if task.deps)
    first = waiting[last].deps[0]
    waiting[first] = Task(deps=(*waiting[first].deps, last))

    (knot,) = detect(System({}, waiting)).components

    assert set(knot.cycle) == {first, last}
    assert knot.doomed == knot.members


def test_there_are_real_workflows_to_look_at() -> None:
    assert len(DAGS) == 4


@pytest.mark.parametrize("size", range(2, 51))
def test_a_ring_is_shown_as_its_one_cycle(size: int) -> None:
    report = detect(System({}, ring(size)))

    assert report.cycles == (tuple(sorted(ring(size))),)
    assert set(report.kind.values()) == {Kind.CIRCULAR_DEPENDENCY}
    assert report.components[0].edges[0] == Wait("r00", "r01")
    assert report.victims == ()


@pytest.mark.parametrize("size", [2, 3, 17, 50])
def test_a_ring_that_one_any_opens_dissolves_by_itself(size: int) -> None:
    tasks = ring(size)
    tasks["r00"] = Task(deps=(*tasks["r00"].deps, "help"), mode="any")

    assert detect(System({}, {**tasks, "help": Task(state=State.RUNNING)})).stuck == ()
    assert len(detect(System({}, {**tasks, "help": Task(state=State.FAILED)})).stuck) == size


def test_a_thousand_rings_at_once_are_a_thousand_components() -> None:
    tasks = {name: task for n in range(1000) for name, task in ring(2 + n % 7, f"r{n:04}-").items()}

    report = detect(System({}, tasks))

    assert len(report.components) == 1000
    assert set(report.stuck) == set(tasks)


def test_a_thousand_parents_on_their_only_slots_have_a_victim_each() -> None:
    fleet = {f"a{n}": Agent(frozenset({f"cap{n}"})) for n in range(1000)}
    tasks: dict[str, Task] = {}
    for n in range(1000):
        tasks |= parent_and_child(n, f"a{n}", Need(frozenset({f"cap{n}"}), 1))

    report = detect(System(fleet, tasks))

    assert report.victims == tuple(sorted(f"p{n}" for n in range(1000)))
    assert all(len(component.cycle) == 2 for component in report.components)


def test_parents_that_fill_a_large_pool_cost_one_victim_the_cheapest() -> None:
    fleet = {f"a{n}": Agent(frozenset("x"), 10) for n in range(200)}
    tasks: dict[str, Task] = {}
    for n in range(2000):
        tasks |= parent_and_child(n, f"a{n % 200}")
    tasks["p77"] = Task(state=State.AWAITING, deps=("c77",), holds=("a77",), priority=2)

    report = detect(System(fleet, tasks))

    assert len(report.components) == 1
    assert report.victims == ("p77",)


def test_a_large_knot_that_needs_several_victims_gets_them_and_no_more() -> None:
    """Ten teams need two parts each, and twenty parents hold the parts: a pair of victims frees all."""
    fleet = {f"a{n:02}": Agent(frozenset("x")) for n in range(20)}
    tasks = {f"team{n}": Task(need=Need(frozenset("x"), 2)) for n in range(10)}
    for n in range(20):
        tasks[f"p{n:02}"] = Task(state=State.AWAITING, deps=(f"team{n % 10}",), holds=(f"a{n:02}",))

    report = detect(System(fleet, tasks))

    assert len(report.components) == 1
    assert len(report.victims) == 2


def test_a_large_ring_with_exceptions_loses_one_member_for_each_part() -> None:
    tasks = ring(40)
    tasks["r00"] = Task(deps=tasks["r00"].deps, ignore_failure=True)

    (knot,) = detect(System({}, tasks)).components

    assert knot.victims == ("r01",)
    assert knot.doomed == ()


def test_a_ring_that_opens_when_another_one_fails_is_left_to_itself() -> None:
    tasks = {
        "x": Task(deps=("y",)),
        "y": Task(deps=("x",)),
        "a": Task(deps=("b",), ignore_failure=True),
        "b": Task(deps=("a", "x")),
    }

    behind, before = detect(System({}, tasks)).components

    assert (before.victims, before.doomed) == ((), ("x", "y"))
    assert (behind.victims, behind.doomed) == ((), ())


def test_a_hundred_thousand_deep_chain_moves_and_its_ring_is_found() -> None:
    size = 100_000
    chain = {f"t{n:06}": Task(deps=(f"t{n - 1:06}",) if n else ()) for n in range(size)}

    assert detect(System({}, dict(reversed(chain.items())))).stuck == ()

    chain["t000000"] = Task(deps=(f"t{size - 1:06}",))
    report = detect(System({}, chain))
    assert len(report.cycles[0]) == size
    assert len(report.components[0].doomed) == size


def test_who_stands_behind_a_component_is_told_which() -> None:
    tasks = {**ring(3), "late": Task(deps=("r01",)), "later": Task(deps=("late",))}

    report = detect(System({}, tasks))

    assert report.behind == {"late": ("r00", "r01", "r02"), "later": ("r00", "r01", "r02")}
    assert report.explain("later") == "later is behind r00, r01, r02"
    assert report.explain("r01") == "r01 is caught in r00 -> r01 -> r02 -> r00"


def test_every_edge_of_a_cycle_has_a_reason() -> None:
    report = detect(System({"a": Agent(frozenset("x"))}, parent_and_child(1, "a")))

    (knot,) = report.components
    assert knot.cycle == ("c1", "p1")
    assert [edge.reason for edge in knot.edges] == [
        "c1 needs a slot of a, which p1 holds",
        "p1 depends on c1",
    ]
    assert list(report.waits("p1")) == [Wait("p1", "c1")]
    assert list(report.waits("unheard-of")) == []


@pytest.mark.parametrize(
    ("agents", "task", "sentence"),
    [
        ({}, Task(need=X), "t needs 1 agent with x: there are 0"),
        ({"a": Agent(frozenset("x"), live=False)}, Task(need=X), "no live agent, 1 known and away"),
        (
            {"one": Agent(frozenset("x")), "two": Agent(frozenset("y"))},
            Task(need=Need(frozenset("xy"), 1)),
            "t needs 1 agent with x, y: there are 0; no single agent has x and y; one and two together do:"
            ' say coverage = "team", and each gets the task with its part of it as its role',
        ),
        (
            {"a": Agent(frozenset("x"))},
            Task(need=Need(frozenset("xyz"), 1, is_team=True)),
            "t needs a team with x, y, z: nobody has y and z",
        ),
        (
            {"a": Agent(frozenset("x")), "b": Agent(frozenset("y"), live=False)},
            Task(need=Need(frozenset("xy"), 1, is_team=True)),
            "t needs a team with x, y: some of those who make it are known and away",
        ),
        (
            {"a": Agent(frozenset("x")), "b": Agent(frozenset("y"))},
            Task(need=Need(frozenset("xy"), 1, is_team=True, most=1)),
            "no single agent has x and y, and max_agents allows no more",
        ),
        (
            {"a": Agent(frozenset("xy"))},
            Task(need=Need(frozenset("xy"), 2, is_team=True)),
            "t needs a team with x, y, 2 agents at least: there are 1 who have any of it",
        ),
        ({}, Task(deps=("d",), mode=2), "t waits for 2 of only 1 dependencies"),
        ({}, Task(deps=("m1", "m2", "m3", "m4")), "t depends on m1, m2, m3 and 1 more, unknown so far"),
        ({}, Task(deps=("f",)), "t depends on f, which failed or was cancelled"),
        ({"a": Agent()}, Task(holds=("a",), need=Need(frozenset(), 1)), "t is caught in t -> t"),
    ],
)
def test_the_reason_is_given_in_words(agents: dict[str, Agent], task: Task, sentence: str) -> None:
    tasks = {"t": task, "f": Task(state=State.FAILED), "d": Task(state=State.DONE)}

    assert sentence in detect(System(agents, tasks)).explain("t")


def test_overdue_is_named_where_nothing_else_fits() -> None:
    tasks = {**ring(2), "slow": Task(state=State.RUNNING), "behind": Task(deps=("slow",))}

    report = detect(System({}, tasks), overdue=["slow", "r00", "gone"])

    assert report.kind == {
        "r00": Kind.CIRCULAR_DEPENDENCY,
        "r01": Kind.CIRCULAR_DEPENDENCY,
        "slow": Kind.TIMEOUT,
    }
    assert report.stuck == ("r00", "r01")
    assert report.explain("slow") == "slow is overdue"


@pytest.mark.parametrize(
    ("cheap", "dear"),
    [
        ({"restarts": 0, "priority": 9}, {"restarts": 1, "priority": 0}),
        ({"priority": 4, "work_seconds": 99.0}, {"priority": 5, "work_seconds": 0.0}),
        ({"work_seconds": 1.0, "tokens": 99}, {"work_seconds": 2.0, "tokens": 0}),
        ({"tokens": 10}, {"tokens": 11}),
        ({"created_at": 20.0}, {"created_at": 10.0}),
    ],
)
def test_the_cheaper_of_two_gangs_is_the_victim(cheap: dict[str, float], dear: dict[str, float]) -> None:
    fleet = {"x": Agent(frozenset("x")), "y": Agent(frozenset("y"))}
    y = Need(frozenset("y"), 1)
    for first, second, victim in ((cheap, dear, "g1"), (dear, cheap, "g2")):
        one = Task(holds=("x",), need=y, **first)  # type: ignore[arg-type]
        other = Task(holds=("y",), need=X, **second)  # type: ignore[arg-type]
        assert detect(System(fleet, {"g1": one, "g2": other})).victims == (victim,)


def test_of_two_gangs_the_one_goes_on_whom_fewer_depend() -> None:
    fleet = {"x": Agent(frozenset("x")), "y": Agent(frozenset("y"))}
    tasks = {
        "g1": Task(holds=("x",), need=Need(frozenset("y"), 1)),
        "g2": Task(holds=("y",), need=X),
        "after": Task(deps=("g1",)),
    }

    assert detect(System(fleet, tasks)).victims == ("g2",)
    tasks["after"] = Task(deps=("g1",), ignore_failure=True)
    assert detect(System(fleet, tasks)).victims == ("g1",)
