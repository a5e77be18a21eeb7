"""The scenarios of `python -m bench`, by name, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Findings
from bench.fleet.workflow import FOLDER


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each scenario does; the runner's options of the same names."""

    tasks: int = 5_000
    samples: int = 500
    file_tasks: int = 10_000
    graph_tasks: int = 100_000
    graph_edges: int = 1_000_000
    finished: int = 100_000
    backlog: int = 100_000
    idle_agents: int = 1_000
    idle_seconds: float = 20.0
    registered: int = 10_000
    minutes: float = 10.0
    nodes: tuple[int, ...] = (1, 2, 4)
    dags: Path = FOLDER


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that is measured, on a database of its own each time."""

    name: str
    about: str
    run: Callable[[Sizes], Awaitable[Findings]]
    repeat: int = 3
    """How often, unless the user says."""
    is_default: bool = True
    """Part of a run where no scenario is named."""


def scenarios() -> dict[str, Scenario]:
    """All of them."""
    from bench.scenarios import (
        fleet,
        graphs,
        growth,
        latency,
        loop,
        nodes,
        others,
        rates,
        startup,
        submission,
    )

    parts = (loop, rates, latency, submission, growth, fleet, graphs, nodes, startup, others)
    return {one.name: one for part in parts for one in part.SCENARIOS}
