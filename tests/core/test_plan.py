"""The graph of a submission: names become ids, and what cannot run is refused with its reason."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from effort import growth

from agentorch_cli.core.model import TaskSpec
from agentorch_cli.core.plan import Plan, plan, rank, remaining_paths
from agentorch_cli.errors import InvalidTask


def task(task_id: str, *depends_on: str, name: str | None = None) -> TaskSpec:
    return TaskSpec(task_id, name=name, depends_on=depends_on)


def on_lines(position: int, path: tuple[str | int, ...]) -> dict[str, Any]:
    return {"where": f"file:{position + 1}", "line": position + 1}


def test_names_become_ids_and_keep_their_name_for_the_inputs() -> None:
    made = plan([task("1", name="fetch"), task("2", name="clean"), task("3", "fetch", "2", "elsewhere")])

    last = made.tasks[2]
    assert last.depends_on == ("1", "2", "elsewhere")
    assert last.dependency_names == {"1": "fetch"}
    assert made.external == ("elsewhere",)


def test_one_task_under_two_references_is_one_dependency() -> None:
    made = plan([task("1", name="a"), task("2", "a", "1", "a", "x", "x")])

    assert made.tasks[1].depends_on == ("1", "x")
    assert made.tasks[1].dependency_names == {"1": "a"}


def test_the_longest_remaining_path_counts_the_task_itself() -> None:
    made = plan([task("a"), task("b", "a"), task("c", "b"), task("d", "a"), task("e", "stored")])

    assert [found.remaining_path for found in made.tasks] == [3, 2, 1, 1, 1]
    assert made.layers() == [["a", "e"], ["b", "d"], ["c"]]


def test_a_cycle_is_shown_as_a_path_with_its_lines() -> None:
    tasks = [task("1", "C", name="A"), task("2", "A", name="B"), task("3", "B", name="C"), task("4", "A")]

    with pytest.raises(InvalidTask) as caught:
        plan(tasks, where=on_lines)

    assert "A -> C -> B -> A (lines 1, 3, 2)" in caught.value.message
    assert caught.value.where == "file:1"
    assert caught.value.details["errors"][0]["cycle"] == ["A", "C", "B"]


def test_each_circle_is_told_once() -> None:
    tasks = [task("a", "b"), task("b", "a"), task("c"), task("d", "e"), task("e", "d", "a")]

    with pytest.raises(InvalidTask) as caught:
        plan(tasks)

    messages = [error["message"] for error in caught.value.details["errors"]]
    assert [message.rpartition(": ")[2] for message in messages] == ["a -> b -> a", "d -> e -> d"]


def test_a_long_circle_is_shown_by_its_ends() -> None:
    count = 20_000
    tasks = [task(f"t{number}", f"t{(number + 1) % count}") for number in range(count)]

    with pytest.raises(InvalidTask, match=r"t0 -> t1 .*19,989 more.* -> t19999 -> t0") as caught:
        plan(tasks)

    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([task("a"), task("a")], 'the id "a" is there twice (line 1)'),
        ([task("1", name="a"), task("2", name="a")], 'the name "a" is there twice (line 1)'),
        ([task("a"), task("2", name="a")], 'the name "a" is the id of another task (line 1)'),
        ([task("0"), task("a", "a")], "is the task itself"),
        ([task("0"), task("1", "me", name="me")], "is the task itself"),
    ],
)
def test_what_means_two_things_or_itself_is_refused(tasks: list[TaskSpec], message: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        plan(tasks, where=on_lines)

    assert caught.value.message == message
    assert caught.value.where == "file:2"


def test_a_task_may_be_called_by_its_own_id() -> None:
    assert plan([task("a", name="a"), task("b", "a")]).tasks[1].depends_on == ("a",)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidTask, match=r"\(and 2 more\)") as caught:
        plan([task("a", "a"), task("a"), task("b", "b")])

    assert caught.value.details["error_count"] == 3


def test_an_unknown_name_is_refused_with_the_name_that_was_meant() -> None:
    tasks = [task("1", name="fetch"), task("2", "fetsh", "stored")]

    with pytest.raises(InvalidTask, match=r'no task "fetsh".* \(did you mean "fetch"\?\)'):
        plan(tasks, known={"stored"})
    made = plan(tasks)
    made.refuse_unknown(set())
    with pytest.raises(InvalidTask, match=r'did you mean "fetch"') as caught:
        made.refuse_unknown({"fetsh"})
    assert caught.value.where == "tasks[1].depends_on[0]"


def test_a_hundred_thousand_unknown_names_are_refused() -> None:
    tasks = [task(f"task-{number}", f"tusk-{number}") for number in range(100_000)]

    with pytest.raises(InvalidTask, match=r'did you mean "task-0".*99,999 more'):
        plan(tasks, known=())


def test_what_unknown_names_cost_grows_with_their_number() -> None:
    def unknown(size: int) -> Callable[[], None]:
        tasks = [task(f"task-{number}", f"tusk-{number}") for number in range(size)]

        def refused() -> None:
            with pytest.raises(InvalidTask):
                plan(tasks, known=())

        return refused

    assert growth(unknown, 1_000) < 2.2


def test_a_submission_without_dependencies_stays_as_it_is() -> None:
    tasks = [task(str(number)) for number in range(100)]

    made = plan(tasks)

    assert isinstance(made, Plan)
    assert all(after is before for after, before in zip(made.tasks, tasks, strict=True))


def test_a_chain_of_100_000_tasks_needs_no_recursion() -> None:
    count = 100_000
    tasks = [
        task(f"t{number}", *([f"t{number + 1}"] if number + 1 < count else [])) for number in range(count)
    ]

    made = plan(tasks)

    assert made.tasks[0].remaining_path == 1
    assert made.tasks[-1].remaining_path == count


def test_depths_and_cycles_are_those_of_a_plain_walk() -> None:
    """The dumb twin walks every path; graphs are small enough for it."""

    def longest(node: int, rows: list[list[int]], path: tuple[int, ...]) -> float:
        if node in path:
            raise RecursionError
        waiters = [other for other, row in enumerate(rows) if node in row]
        return 1 + max((longest(other, rows, (*path, node)) for other in waiters), default=0)

    cyclic = 0
    for seed in range(400):
        rng = random.Random(seed)
        size = rng.randint(1, 7)
        rows = [
            sorted(
                rng.sample(
                    [other for other in range(size) if other != node], min(size - 1, rng.randint(0, 2))
                )
            )
            for node in range(size)
        ]
        try:
            expected = [longest(node, rows, ()) for node in range(size)]
        except RecursionError:
            cyclic += 1
            assert remaining_paths(rows) is None, f"seed {seed}"
            tasks = [task(str(node), *map(str, row)) for node, row in enumerate(rows)]
            with pytest.raises(InvalidTask, match="in a circle") as caught:
                plan(tasks)
            for error in caught.value.details["errors"]:
                cycle = [int(name) for name in error["cycle"]]
                for node, following in zip(cycle, cycle[1:] + cycle[:1], strict=True):
                    assert following in rows[node], f"seed {seed}"
        else:
            assert remaining_paths(rows) == expected, f"seed {seed}"
    assert 50 < cyclic < 350


def _longest(node: int, rows: list[list[int]], weights: list[float]) -> float:
    waiters = [other for other, row in enumerate(rows) if node in row]
    return weights[node] + max((_longest(other, rows, weights) for other in waiters), default=0.0)


def test_with_estimates_a_path_is_as_long_as_its_tasks_take() -> None:
    """Beside what walks every path; those that say nothing count as the mean."""
    for seed in range(300):
        rng = random.Random(seed)
        size = rng.randint(1, 9)
        seconds = [rng.choice((None, 0.25, 1.0, rng.uniform(0.01, 900.0))) for _ in range(size)]
        rows = [
            sorted(rng.sample(range(node), min(node, rng.randint(0, 3))), key=lambda _: rng.random())
            for node in range(size)
        ]
        known = [one for one in seconds if one is not None]
        weights = [1.0 if one is None else one / statistics.fmean(known) for one in seconds]

        tasks = [
            replace(task(str(node), *map(str, row)), estimate_seconds=seconds[node])
            for node, row in enumerate(rows)
        ]
        found = [one.remaining_path for one in plan(tasks).tasks]
        assert found == pytest.approx([_longest(node, rows, weights) for node in range(size)]), f"seed {seed}"


def test_types_of_which_it_is_known_how_long_they_take_rank_tasks_that_do_not_say_it() -> None:
    fetch, train, check = (
        replace(task(name), type=name, estimate_seconds=seconds)
        for name, seconds in (("fetch", None), ("train", None), ("check", 4.0))
    )
    graph = plan([fetch, train, replace(check, depends_on=("fetch", "train"))]).tasks
    assert [one.remaining_path for one in graph] == [2.0, 2.0, 1.0]

    ranked = rank(graph, {"train": 10.0, "other": 1.0})

    assert [one.remaining_path for one in ranked] == pytest.approx([1 + 4 / 7, 10 / 7 + 4 / 7, 4 / 7])
    assert ranked[2].depends_on == graph[2].depends_on
    assert rank(plan([fetch, train]).tasks, {}) == [fetch, train]


def test_what_many_edges_cost_grows_with_their_number() -> None:
    def graph(size: int) -> Callable[[], Plan]:
        rng = random.Random(7)
        tasks = [
            TaskSpec(f"t{n}", depends_on=tuple(f"t{rng.randrange(n)}" for _ in range(min(n, 10))))
            for n in range(size)
        ]
        return lambda: plan(tasks)

    assert graph(2_000)().tasks[0].remaining_path > 10
    assert growth(graph, 2_000) < 2.2
