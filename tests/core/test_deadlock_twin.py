"""The detector against an obviously right twin, on random systems.

The twin of the reduction really lets everything move: it searches all states that a tiny system can
get into, step by step, with every choice of agents, and calls stuck whoever ends in none of them.
AGENTORCH_SYSTEMS sets how many systems are tried; a failure names its seed.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from itertools import combinations

import pytest

from agentorch_cli.core import victims
from agentorch_cli.core.deadlock import Kind, Report, detect
from agentorch_cli.core.system import Agent, Need, State, System, Task

SYSTEMS = int(os.environ.get("AGENTORCH_SYSTEMS", "400"))
WAITING = (State.PENDING, State.AWAITING)
DEAD = (State.FAILED, State.CANCELLED)


def random_system(seed: int, tasks: int = 6, agents: int = 3) -> System:
    draw = random.Random(seed)
    fleet = {
        f"a{n}": Agent(
            frozenset(draw.sample("xyz", draw.randint(0, 3))),
            draw.choice([0, 1, 1, 1, 1, 2, 2, 3]),
            draw.random() < 0.95,
        )
        for n in range(draw.randint(0, agents))
    }
    free = [name for name, agent in fleet.items() for _ in range(agent.slots)]
    draw.shuffle(free)
    names = [f"t{n}" for n in range(draw.randint(1, tasks))]
    states = draw.choices(
        [State.PENDING, State.AWAITING, State.RUNNING, State.DONE, State.FAILED, State.CANCELLED],
        [8, 6, 2, 1, 1, 1],
        k=len(names),
    )
    described = {}
    for name, state in zip(names, states, strict=True):
        deps = draw.sample([*names, "nowhere"], draw.choice([0, 1, 1, 2, 2, 3][: len(names) + 1]))
        if draw.random() < 0.6:
            deps = [needed for needed in deps if needed != "nowhere"]
        holds = [free.pop() for _ in range(draw.choice([0, 0, 1, 1, 2])) if free]
        described[name] = Task(
            state=state,
            deps=tuple(deps),
            mode=draw.choice(["all", "all", "all", "any", 1, 2]),
            ignore_failure=draw.random() < 0.25,
            need=random_need(draw),
            holds=tuple(holds) if state in (*WAITING, State.RUNNING) else (),
            priority=draw.choice([5, 5, 5, 3]),
            restarts=draw.choice([0, 0, 0, 1]),
        )
    return System(fleet, described)


def random_need(draw: random.Random) -> Need:
    """A third of the demands are for teams, which have two or three capabilities together."""
    if draw.random() < 0.33:
        caps = frozenset(draw.sample("xyz", draw.choice([1, 2, 2, 3])))
        return Need(caps, draw.choice([0, 1, 1, 2]), is_team=True, most=draw.choice([1, 2, 3, 100]))
    return Need(frozenset(draw.sample("xyz", draw.choice([0, 1, 1, 2]))), draw.choice([0, 0, 1, 1, 2]))


def groups(system: System, need: Need, able: list[str]) -> list[tuple[str, ...]]:
    """Who of these could be chosen together."""
    if not need.is_team or not need.count:
        return list(combinations(able, need.count))
    return [
        group
        for size in range(need.count, min(max(need.count, need.most), len(able)) + 1)
        for group in combinations(able, size)
        if need.caps <= frozenset().union(*(system.agents[agent].caps for agent in group))
    ]


def could(need: Need, agent: Agent) -> bool:
    return agent.live and bool(need.caps & agent.caps if need.is_team else need.caps <= agent.caps)


def met(system: System, task: Task, ended: frozenset[str]) -> bool:
    """Whether the condition of a task holds."""
    if not task.deps:
        return True
    count = 0
    for needed in task.deps:
        known = system.tasks.get(needed)
        count += needed in ended or (task.ignore_failure and known is not None and known.state in DEAD)
    return count >= {"all": len(task.deps), "any": 1}.get(task.mode, task.mode)


def stuck_by_search(system: System) -> set[str]:
    """Everything that can happen, happens: (ended, who runs on which agents) is a state."""
    waiting = {name for name, task in system.tasks.items() if task.state in WAITING}
    held = {name: system.tasks[name].holds for name in waiting}
    running = {n: task.holds for n, task in system.tasks.items() if task.state is State.RUNNING}
    start = (
        frozenset(name for name, task in system.tasks.items() if task.state is State.DONE),
        frozenset(running.items()),
    )
    seen, todo, can_end = {start}, [start], set()
    while todo:
        ended, moving = todo.pop()
        can_end |= ended
        following = []
        for name, agents in moving:
            following.append((ended | {name}, moving - {(name, agents)}))
        busy = [agent for _, agents in moving for agent in agents]
        at_work = {name for name, _ in moving}
        idle_waiters = waiting - ended - at_work
        busy += [agent for name in idle_waiters for agent in held[name]]
        for name in idle_waiters:
            task = system.tasks[name]
            if not met(system, task, ended):
                continue
            able = [
                agent
                for agent, given in system.agents.items()
                if could(task.need, given) and given.slots > busy.count(agent)
            ]
            for chosen in groups(system, task.need, able):
                following.append((ended, moving | {(name, (*held[name], *chosen))}))
        for state in following:
            if state not in seen:
                seen.add(state)
                todo.append(state)
    return waiting - can_end


def stuck_by_rounds(system: System) -> set[str]:
    """The same by the plainest fixpoint, for systems that are too large to search."""
    ended = {n for n, task in system.tasks.items() if task.state in (State.DONE, State.RUNNING)}
    waiting = {name for name, task in system.tasks.items() if task.state in WAITING}
    while True:
        busy = [agent for name in waiting - ended for agent in system.tasks[name].holds]
        more = set()
        for name in waiting - ended:
            task = system.tasks[name]
            able = [
                agent
                for agent, given in system.agents.items()
                if could(task.need, given) and given.slots > busy.count(agent)
            ]
            if met(system, task, frozenset(ended)) and groups(system, task.need, able):
                more.add(name)
        if not more:
            return waiting - ended
        ended |= more


def wait_edges(system: System, stuck: set[str]) -> set[tuple[str, str, bool]]:
    """(waiter, whom it waits for, whether for a slot), straight from the definition."""
    ended = frozenset(
        n for n, task in system.tasks.items() if task.state in (*WAITING, State.RUNNING, State.DONE)
    ) - frozenset(stuck)
    busy = [agent for name in stuck for agent in system.tasks[name].holds]
    edges = set()
    for name in stuck:
        task = system.tasks[name]
        if not met(system, task, ended):
            edges |= {(name, needed, False) for needed in task.deps if needed in stuck}
        able = [a for a, given in system.agents.items() if could(task.need, given)]
        full = [a for a in able if system.agents[a].slots <= busy.count(a)]
        idle = [a for a in able if a not in full]
        if not groups(system, task.need, idle):
            if task.need.is_team:  # who has what the idle ones lack; where they lack nothing, everybody
                lacking = task.need.caps.difference(*(system.agents[a].caps for a in idle))
                full = [a for a in full if not lacking or lacking & system.agents[a].caps]
            for agent in full:
                there = {other for other in stuck if agent in system.tasks[other].holds}
                edges |= {(name, other, True) for other in there if other != name or len(there) == 1}
    return edges


def components_by_reachability(nodes: set[str], edges: set[tuple[str, str]]) -> list[tuple[str, ...]]:
    reach: dict[str, set[str]] = {}
    for node in nodes:
        seen: set[str] = set()
        todo = [node]
        while todo:
            current = todo.pop()
            for a, b in edges:
                if a == current and b not in seen:
                    seen.add(b)
                    todo.append(b)
        reach[node] = seen
    found = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in nodes if a in reach[a]}
    return sorted(found)


def girth(members: tuple[str, ...], edges: set[tuple[str, str]]) -> int:
    """The length of a shortest cycle, by taking more and more steps."""
    inside = {(a, b) for a, b in edges if a in members and b in members}
    walks = {(a, b) for a, b in inside}
    length = 1
    while not any(a == b for a, b in walks):
        walks = {(a, d) for a, b in walks for c, d in inside if b == c}
        length += 1
    return length


def requeued(system: System, chosen: tuple[str, ...]) -> System:
    tasks = {n: replace(t, holds=()) if n in chosen else t for n, t in system.tasks.items()}
    return replace(system, tasks=tasks)


def test_exactly_those_are_stuck_that_end_in_no_schedule() -> None:
    some_stuck = 0
    for seed in range(SYSTEMS):
        system = random_system(seed, tasks=5)
        report = detect(system)
        assert set(report.stuck) == stuck_by_search(system), f"seed {seed}"
        some_stuck += bool(report.stuck)
    assert some_stuck > SYSTEMS / 10


def test_the_plain_fixpoint_agrees_on_larger_systems() -> None:
    for seed in range(SYSTEMS):
        system = random_system(seed, tasks=16, agents=6)
        assert set(detect(system).stuck) == stuck_by_rounds(system), f"seed {seed}"


def test_components_cycles_and_waits_follow_from_the_definition() -> None:
    for seed in range(SYSTEMS):
        system = random_system(seed, tasks=12, agents=4)
        report = detect(system)
        edges = wait_edges(system, set(report.stuck))
        pairs = {(a, b) for a, b, _ in edges}

        seen = {(w.task, w.on, w.agent is not None) for task in report.stuck for w in report.waits(task)}
        assert seen == edges, f"seed {seed}"
        members = [component.members for component in report.components]
        assert members == components_by_reachability(set(report.stuck), pairs), f"seed {seed}"
        for component in report.components:
            only = (
                {(a, b) for a, b, slot in edges if not slot}
                if component.kind is Kind.CIRCULAR_DEPENDENCY
                else pairs
            )
            cycle = component.cycle
            assert set(zip(cycle, (*cycle[1:], cycle[0]), strict=True)) <= only, f"seed {seed}"
            assert [(edge.task, edge.on) for edge in component.edges] == list(
                zip(cycle, (*cycle[1:], cycle[0]), strict=True)
            )
            if component.kind is not Kind.CIRCULAR_DEPENDENCY:
                assert len(cycle) == girth(component.members, pairs), f"seed {seed}"


def test_kinds_say_what_is_true() -> None:
    counted = dict.fromkeys(Kind, 0)
    for seed in range(SYSTEMS):
        system = random_system(seed, tasks=12, agents=4)
        report = detect(system)
        assert list(report.kind) == list(report.stuck)
        for name, kind in report.kind.items():
            counted[kind] += 1
            assert report.explain(name).startswith(name)
            assert kind is kind_by_definition(system, report, name), f"seed {seed}: {name}"
            if kind is Kind.BLOCKED_BEHIND:
                culprits = report.behind[name]
                assert all(report.kind[other] is not Kind.BLOCKED_BEHIND for other in culprits[:1]) or any(
                    culprits == component.members for component in report.components
                ), f"seed {seed}: {name}"
                assert reachable(report, name) & set(culprits), f"seed {seed}: {name}"
            else:
                assert name not in report.behind
    assert all(counted[kind] for kind in Kind if kind is not Kind.TIMEOUT), counted


def reachable(report: Report, task: str) -> set[str]:
    seen: set[str] = set()
    todo = [task]
    while todo:
        for wait in report.waits(todo.pop()):
            if wait.on not in seen:
                seen.add(wait.on)
                todo.append(wait.on)
    return seen


def kind_by_definition(system: System, report: Report, name: str) -> Kind:
    task = system.tasks[name]
    able = [n for n, a in system.agents.items() if a.slots and could(task.need, a)]
    if not groups(system, task.need, able) or task.wanted > len(task.deps):
        return Kind.UNSATISFIABLE
    present = frozenset(n for n in task.deps if n in system.tasks and system.tasks[n].state not in DEAD)
    if not met(system, task, present):
        missing = any(needed not in system.tasks for needed in task.deps)
        return Kind.MISSING_DEPENDENCY if missing else Kind.FAILED_DEPENDENCY
    mine = next((c.members for c in report.components if name in c.members), None)
    if mine is None:
        return Kind.BLOCKED_BEHIND
    # All outside has ended, and nobody needs a slot: who of the component is still stuck?
    alone = {
        n: replace(t, need=Need()) if n in mine else replace(t, state=State.DONE)
        for n, t in system.tasks.items()
        if n in mine or t.state not in DEAD
    } | {n: t for n, t in system.tasks.items() if t.state in DEAD}
    left = stuck_by_rounds(System({}, alone))
    dependencies = {(a, b) for a, b, slot in wait_edges(System({}, alone), left) if not slot}
    if any(name in ring for ring in components_by_reachability(left, dependencies)):
        return Kind.CIRCULAR_DEPENDENCY
    edges = wait_edges(system, set(report.stuck))
    if any(slot and a in mine and b in mine for a, b, slot in edges):
        return Kind.HOLD_AND_WAIT
    return Kind.BLOCKED_BEHIND


def test_victims_of_a_hold_and_wait_are_a_smallest_set_that_frees_whom_it_can() -> None:
    tried = 0
    for seed in range(3 * SYSTEMS):
        system = random_system(seed, tasks=9, agents=4)
        report = detect(system)
        knots = [c for c in report.components if c.kind is Kind.HOLD_AND_WAIT]
        if len(report.components) != 1 or not knots:
            continue
        tried += 1
        (knot,) = knots
        best = set(knot.members) - stuck_by_rounds(requeued(system, knot.members))
        sizes = [
            size
            for size in range(len(knot.members) + 1)
            if any(
                best <= set(knot.members) - stuck_by_rounds(requeued(system, chosen))
                for chosen in combinations(knot.members, size)
            )
        ]
        assert best <= set(knot.members) - stuck_by_rounds(requeued(system, knot.victims)), f"seed {seed}"
        assert len(knot.victims) == sizes[0], f"seed {seed}"
        assert not knot.doomed
    assert tried > SYSTEMS / 20


def test_the_greedy_way_frees_the_same_and_spares_whom_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """What large components get, tried on small ones: no victim could be left out."""
    monkeypatch.setattr(victims, "EXACT_MEMBERS", 0)
    several = 0
    for seed in range(3 * SYSTEMS):
        system = random_system(seed, tasks=12, agents=6)
        knots = detect(system).components
        if len(knots) != 1 or knots[0].kind is not Kind.HOLD_AND_WAIT:
            continue
        members, chosen = knots[0].members, knots[0].victims
        several += len(chosen) > 1
        best = set(members) - stuck_by_rounds(requeued(system, members))
        assert not best & stuck_by_rounds(requeued(system, chosen)), f"seed {seed}"
        for victim in chosen:
            fewer = tuple(other for other in chosen if other != victim)
            assert best & stuck_by_rounds(requeued(system, fewer)), f"seed {seed}: {victim}"
    assert several


def saved_by_failing(system: System, ring: tuple[str, ...], chosen: tuple[str, ...]) -> int:
    """How many of the ring end when these fail, as plainly as possible; there is nothing but dependencies."""
    ended: set[str] = {name for name in system.tasks if name not in ring}
    dead = set(chosen)
    while True:
        before = len(ended) + len(dead)
        for name in sorted(set(ring) - ended - dead):
            task = system.tasks[name]
            good = [n for n in task.deps if n in ended or (n in dead and task.ignore_failure)]
            hope = [n for n in task.deps if n not in dead or task.ignore_failure]
            if len(good) >= task.wanted:
                ended.add(name)
            elif len(hope) < task.wanted:
                dead.add(name)
        if len(ended) + len(dead) == before:
            return len(ended & set(ring))


def random_ring(seed: int) -> System:
    """Tangled dependencies only, some of which ignore failure."""
    draw = random.Random(seed)
    names = [f"t{n}" for n in range(draw.randint(2, 7))]
    chance = draw.choice([0.1, 0.3, 0.6])
    described = {}
    for name in names:
        deps = draw.sample(names, draw.randint(1, min(3, len(names))))
        described[name] = Task(
            deps=tuple(deps),
            mode=draw.choice(["all", "all", "all", "any", len(deps)]),
            ignore_failure=draw.random() < chance,
        )
    return System({}, described)


def test_victims_of_a_ring_save_as_many_as_can_be_saved_and_are_as_few_as_possible() -> None:
    tried = 0
    for seed in range(2 * SYSTEMS):
        system = random_ring(seed)
        report = detect(system)
        if len(report.components) != 1 or set(report.kind.values()) != {Kind.CIRCULAR_DEPENDENCY}:
            continue
        (ring,) = report.components
        ignored = {n for m in ring.members if system.tasks[m].ignore_failure for n in system.tasks[m].deps}
        choices = [
            chosen
            for size in range(len(ring.members) + 1)
            for chosen in combinations([n for n in ring.members if n in ignored], size)
        ]
        most = max(saved_by_failing(system, ring.members, chosen) for chosen in choices)
        if not most:
            assert ring.victims == (), f"seed {seed}"
            assert ring.doomed == ring.members, f"seed {seed}"
            continue
        tried += 1
        fewest = next(len(c) for c in choices if saved_by_failing(system, ring.members, c) == most)
        assert saved_by_failing(system, ring.members, ring.victims) == most, f"seed {seed}"
        assert len(ring.victims) == fewest, f"seed {seed}"
        assert ring.doomed == ()
    assert tried > SYSTEMS / 20


def test_the_order_of_tasks_agents_and_dependencies_does_not_matter() -> None:
    for seed in range(SYSTEMS):
        system = random_system(seed, tasks=12, agents=5)
        draw = random.Random(seed)
        tasks = [
            (n, replace(t, deps=tuple(draw.sample(t.deps, len(t.deps))))) for n, t in system.tasks.items()
        ]
        agents = list(system.agents.items())
        draw.shuffle(tasks)
        draw.shuffle(agents)

        one, other = detect(system), detect(System(dict(agents), dict(tasks)))

        assert one == other, f"seed {seed}"
        assert one.to_json() == other.to_json(), f"seed {seed}"
