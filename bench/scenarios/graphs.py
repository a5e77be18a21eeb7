"""Real workflow graphs on eight agents, beside their list schedule by longest remaining path."""

from __future__ import annotations

from bench import graphs as graphs_room
from bench import smallest_graph
from bench.figures import Findings
from bench.fleet.workflow import load
from bench.scenarios import Scenario, Sizes

AGENTS = 8
MEDIAN_SECONDS = 0.02


async def graphs(sizes: Sizes) -> Findings:
    """All graphs of the folder, one after the other; then again with agents that take work ahead.

    Before them the smallest loop that can run a graph.
    """
    found = Findings()
    names = sorted(path.stem for path in sizes.dags.glob("*.json"))
    graphs = [load(name, sizes.dags).with_median(MEDIAN_SECONDS) for name in names]
    for least in await smallest_graph.measure(graphs, AGENTS):
        found.add(f"{least.name}: the smallest loop / list schedule", least.ratio, "x", "less")
    for one in _in_order(await graphs_room.measure(names, AGENTS, MEDIAN_SECONDS, 1, sizes.dags)):
        found.add(f"{one.name}: makespan / list schedule", one.ratio, "x", "less")
        found.add(f"{one.name}: makespan / lower bound", one.makespan / one.bound, "x", "less")
        found.add(f"{one.name}: overhead", one.overhead_ms, "ms/task", "less")
        found.add(f"{one.name}: what a slot may lose for 1.05 x", one.room * 1e3, "ms/task")
        legs = ", ".join(f"{leg} {values['mean']:.1f}" for leg, values in one.legs_ms.items())
        found.notes.append(f"{one.name}: {one.makespan:.2f} s, of a task on average, ms: {legs}")
    ahead = await graphs_room.measure(names, AGENTS, MEDIAN_SECONDS, 1, sizes.dags, prefetch=1)
    for one in _in_order(ahead):
        found.add(f"{one.name}: makespan / list schedule, one task ahead", one.ratio, "x", "less")
    return found


def _in_order(figures: list[graphs_room.Figures]) -> list[graphs_room.Figures]:
    """The same. Raises RuntimeError where a task started before its dependencies had ended."""
    for one in figures:
        if one.too_early:
            raise RuntimeError(
                f"{one.name}: {len(one.too_early)} tasks started before their dependencies ended"
            )
    return figures


SCENARIOS = (Scenario("graphs", "real workflow graphs beside their list schedule", graphs, repeat=3),)
