"""Cycles, layers, longest paths and the order that is kept, against plainer ways to get them."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from agentorch_cli.core.graphs import (
    Order,
    components,
    cycles,
    cyclic,
    layers,
    longest_remaining,
    shortest_cycle,
    show_cycle,
)

Graph = dict[str, list[str]]


def random_rows(seed: int) -> list[list[int]]:
    draw = random.Random(seed)
    size = draw.randint(1, 8)
    return [draw.sample(range(size), draw.randint(0, min(size, 3))) for _ in range(size)]


def random_dag(seed: int, size: int = 12) -> Graph:
    draw = random.Random(seed)
    names = [f"t{n}" for n in range(size)]
    graph = {name: draw.sample(names[:n], draw.randint(0, min(n, 3))) for n, name in enumerate(names)}
    shuffled = list(graph.items())
    draw.shuffle(shuffled)
    return dict(shuffled)


def reach(rows: list[list[int]], start: int) -> set[int]:
    seen: set[int] = set()
    todo = [*rows[start]]
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += rows[node]
    return seen


def follows(cycle: list[int], rows: list[list[int]]) -> bool:
    return all(b in rows[a] for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True))


def test_components_are_those_who_reach_each_other_and_come_in_the_order_of_the_waits() -> None:
    for seed in range(300):
        rows = random_rows(seed)
        reached = [reach(rows, node) for node in range(len(rows))]

        found = components(rows)

        expected = {tuple(sorted({a} | {b for b in reached[a] if a in reached[b]})) for a in range(len(rows))}
        assert {tuple(members) for members in found} == expected, f"seed {seed}"
        place = {node: n for n, members in enumerate(found) for node in members}
        assert all(place[b] <= place[a] for a, row in enumerate(rows) for b in row), f"seed {seed}"


def test_the_cycle_shown_is_a_shortest_one() -> None:
    for seed in range(300):
        rows = random_rows(seed)
        for members in cyclic(rows, components(rows)):
            cycle = shortest_cycle(rows, members)
            shortest = next(
                size
                for size in range(1, len(members) + 1)
                if any(follows([*way], rows) for way in permutations(members, size))
            )
            assert follows(cycle, rows), f"seed {seed}"
            assert len(cycle) == len(set(cycle)) == shortest, f"seed {seed}"
            assert cycle[0] == min(cycle), f"seed {seed}"


def test_a_group_is_the_same_as_an_edge_to_each_other_member() -> None:
    for seed in range(300):
        draw = random.Random(seed)
        rows = random_rows(seed)
        nodes = range(len(rows))
        groups = [sorted(draw.sample(nodes, draw.randint(1, len(rows)))) for _ in range(3)]
        via = [draw.randint(-1, 2) for _ in nodes]
        spelled = [
            sorted({*rows[node], *(groups[via[node]] if via[node] >= 0 else ())} - ({node} - {*rows[node]}))
            for node in nodes
        ]
        for members in cyclic(spelled, components(spelled)):
            cycle = shortest_cycle(rows, members, via, groups)
            assert follows(cycle, spelled), f"seed {seed}"
            assert len(cycle) == len(shortest_cycle(spelled, members)), f"seed {seed}"


def test_the_first_cycle_stands_when_looking_further_would_take_too_long() -> None:
    long_way_round = [[(node + 1) % 50] for node in range(50)]
    long_way_round[30].append(29)  # a cycle of two, far from the first member

    assert shortest_cycle(long_way_round, range(50)) == [29, 30]
    assert len(shortest_cycle(long_way_round, range(50), effort=10)) == 50


def test_a_cycle_per_component_is_shown_with_names() -> None:
    waits = {"d": ["d"], "a": ["b", "x"], "b": ["c"], "c": ["a"], "late": ["a"]}

    assert cycles(waits) == [["d"], ["a", "b", "c"]]
    assert show_cycle(["a", "b", "c"]) == "a -> b -> c -> a"
    assert show_cycle(["d"]) == "d -> d"
    assert cycles({"a": ["b"], "b": []}) == []


def test_layers_hold_what_could_run_next() -> None:
    waits = {"end": ["left", "right"], "left": ["start"], "right": ["start", "left"], "start": []}

    assert layers(waits) == [["start"], ["left"], ["right"], ["end"]]
    assert layers({"b": [], "a": ["elsewhere"]}) == [["b", "a"]]
    assert layers({"a": ["b"], "b": ["a"], "late": ["a"], "free": []}) == [["free"]]
    assert layers({}) == []


def test_each_layer_is_one_more_than_the_deepest_dependency() -> None:
    for seed in range(200):
        waits = random_dag(seed)
        depth = {name: n for n, names in enumerate(layers(waits)) for name in names}
        assert depth.keys() == waits.keys(), f"seed {seed}"
        for name, needed in waits.items():
            assert depth[name] == 1 + max((depth[n] for n in needed), default=-1), f"seed {seed}"


def test_the_longest_remaining_path_is_the_longest_of_all_paths() -> None:
    def heaviest(name: str) -> float:
        after = [heaviest(other) for other, needed in waits.items() if name in needed]
        return weights[name] + max(after, default=0.0)

    for seed in range(200):
        draw = random.Random(seed)
        waits = random_dag(seed, size=9)
        weights = {name: float(draw.randint(0, 20)) for name in waits}
        assert longest_remaining(waits, weights) == {name: heaviest(name) for name in waits}, f"seed {seed}"


def test_without_weights_the_longest_path_counts_tasks_and_a_cycle_does_not_hang_it() -> None:
    assert longest_remaining({"a": [], "b": ["a"], "c": ["b"], "d": ["a"]}) == {
        "a": 3,
        "b": 2,
        "c": 1,
        "d": 1,
    }
    assert longest_remaining({"a": [], "b": ["a", "c"], "c": ["b"], "d": ["b"]}) == {
        "a": 1,
        "b": 2,
        "c": 1,
        "d": 1,
    }


def test_deep_graphs_need_no_recursion() -> None:
    deep: Graph = {f"t{n}": [f"t{n - 1}"] if n else [] for n in range(100_000)}

    assert len(layers(deep)) == 100_000
    assert longest_remaining(deep)["t0"] == 100_000
    assert len(cycles({**deep, "t0": ["t99999"]})[0]) == 100_000


def test_the_order_refuses_exactly_the_edges_that_close_a_cycle() -> None:
    refused = 0
    for seed in range(300):
        draw = random.Random(seed)
        names = [f"t{n}" for n in range(draw.randint(1, 9))]
        waits: dict[str, set[str]] = {name: set() for name in names}
        order = Order(waits)
        for _ in range(25):
            task, needed = draw.choice(names), draw.choice(names)
            if draw.random() < 0.1:
                waits[task].discard(needed)
                order.unlink(task, needed)
                continue
            closing = order.link(task, needed)
            trial = {**waits, task: waits[task] | {needed}}
            if not cycles(trial):
                assert closing == [], f"seed {seed}"
                waits = trial
                continue
            refused += 1
            assert closing[0] == task, f"seed {seed}"
            assert len(closing) == len(set(closing))
            assert closing[1:2] in ([needed], [])
            steps = zip(closing, [*closing[1:], closing[0]], strict=True)
            assert all(b in trial[a] for a, b in steps), f"seed {seed}"
    assert refused > 300


def test_the_order_forgets_what_is_removed() -> None:
    order = Order({"a": ["b"], "b": ["c"], "c": []})
    assert order.link("c", "a") == ["c", "a", "b"]

    order.remove("b")

    assert "b" not in order
    assert len(order) == 2
    assert order.link("c", "a") == []
    assert order.link("a", "c") == ["a", "c"]


def test_the_order_takes_new_tasks_and_leaves_old_cycles_to_the_monitor() -> None:
    order = Order({"a": ["b"], "b": ["a"], "c": ["a"]})

    order.add("d")

    assert order.link("d", "c") == []
    assert order.link("a", "d") == ["a", "d", "c"]
    assert order.link("a", "a") == ["a"]
    with pytest.raises(KeyError):
        order.link("a", "unheard-of")
