"""The Prometheus page of one node.

Names begin with `agentorch_`; counters end in `_total`, durations are in seconds, sizes in bytes. Labels
have few values: none is the name of a task or an agent. What the tables say of the whole fleet is told
by the chief alone, so that a sum over nodes is the fleet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

GAUGES = {
    "agents_online": "Agents that are connected and may be given work",
    "agents_excluded": "Agents that get nothing for a while because they kept failing",
    "attempts_live": "Attempts that agents of this node hold",
    "tasks_ready": "Ready tasks in this node's window",
    "sessions": "Open agent connections",
    "chief": "1 on the node that sweeps, schedules and prunes for all",
}
COUNTERS = {
    "assigned": "Attempts sent to agents",
    "task_completed": "Tasks that completed",
    "task_failed": "Tasks that failed",
    "task_cancelled": "Tasks that were called off by the engine",
    "deadlock_detected": "Deadlocks that were found",
    "deadlock_resolved": "Deadlocks that were resolved",
    "deadlock_park": "Deadlocks that were resolved by parking a parent",
    "deadlock_lend": "Deadlocks that were resolved by lending a slot",
    "deadlock_requeue": "Deadlocks that were resolved by stopping victims and trying them again",
    "deadlock_fail": "Deadlocks whose tasks failed",
    "deadlock_looks": "Looks for deadlocks",
    "attempt_moved": "Attempts that were taken back before they were accepted, and given to others",
    "straggler_backed_up": "Attempts that lasted long and were given a backup",
    "agent_excluded": "Times that an agent was excluded because it kept failing",
    "agent_probed": "Tasks that were given to see how an excluded agent is",
    "agent_readmitted": "Excluded agents that did well when they were probed",
    "task_pending": "Tasks that went back to be tried again",
    "schedule_ran": "Runs of schedules",
    "pruned_tasks": "Tasks that were deleted because they were old",
    "spend_usd": "Dollars that attempts said they used",
    "spend_tokens": "Tokens that attempts said they used",
    "spend_unknown": "Attempts that did not say what they cost",
}
LABELLED = {
    "leader": ("gauge", "pool", "1 on the node that assigns the tasks of the pool"),
    "votes": ("counter", "outcome", "Votes of tasks that were decided"),
    "database_errors": ("counter", "kind", "Statements that PostgreSQL refused or did not answer"),
    "database_connections": ("gauge", "state", "Connections of this node's pool"),
}
"""Kind, the one label, and what it means."""

FLEET = {
    "fleet_tasks": "Open tasks of the whole fleet, by state",
    "fleet_oldest_ready_seconds": "How long the ready task has waited that has waited longest",
    "fleet_deadlocks_open": "Deadlocks that are not resolved",
    "fleet_votes_open": "Votes that are not decided",
    "database_size_bytes": "Size of the database",
}
"""Gauges that the chief reads from the tables."""

STATES = ("ready", "delayed", "blocked", "running")

HISTOGRAMS = {
    "queue_seconds": ("queue", "From ready to assigned, of each task"),
    "assign_seconds": ("assign", "How long it takes to store a batch of assignments"),
    "assign_batch_size": ("assign_size", "Attempts that are assigned at once"),
    "settle_seconds": ("settle", "How long it takes to store a batch of results"),
    "settle_batch_size": ("settle_size", "Results that are stored at once"),
    "loop_lag_seconds": ("lag", "How late the event loop comes back to whoever sleeps"),
}
"""The measurement of `engine.meters`, and what it means."""

ATTEMPTS = "From begun to ended, of each attempt, by how it ended"


class Histogram(Protocol):
    """What is told of a measurement."""

    total: float

    def cumulated(self) -> list[tuple[str, float]]: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What one node knows when the page is asked for."""

    numbers: Mapping[str, float]
    """Gauges and counters by name, without prefix."""
    meters: Any
    """`engine.meters.Meters`."""
    fleet: Mapping[str, Any] = field(default_factory=dict)
    """What the tables say; empty on a node that is not the chief."""
    labelled: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    version: str = ""
    node_id: str = ""


def kinds() -> dict[str, str]:
    """Every metric of the program's own with its kind, for the page of the documentation."""
    found = {f"agentorch_{name}": "gauge" for name in (*GAUGES, *FLEET)}
    found |= {f"agentorch_{name}_total": "counter" for name in COUNTERS}
    found |= {
        f"agentorch_{name}{'_total' if kind == 'counter' else ''}": kind
        for name, (kind, _, _) in LABELLED.items()
    }
    found |= {f"agentorch_{name}": "histogram" for name in (*HISTOGRAMS, "attempt_seconds")}
    return found | {"agentorch_info": "gauge"}


def render(facts: Facts) -> str:
    """The page in Prometheus text format."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    class Page:
        def collect(self) -> list[Any]:
            return _families(facts)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Page())
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()


def _families(facts: Facts) -> list[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    info = GaugeMetricFamily("agentorch_info", "1, with what runs here", labels=["version", "node_id"])
    info.add_metric([facts.version, facts.node_id], 1)
    found: list[Any] = [info]
    for name, text in GAUGES.items():
        found.append(GaugeMetricFamily(f"agentorch_{name}", text, value=facts.numbers.get(name, 0)))
    for name, text in COUNTERS.items():
        found.append(CounterMetricFamily(f"agentorch_{name}", text, value=facts.numbers.get(name, 0)))
    for name, (kind, label, text) in LABELLED.items():
        family: Any = GaugeMetricFamily if kind == "gauge" else CounterMetricFamily
        one = family(f"agentorch_{name}", text, labels=[label])
        for value, number in facts.labelled.get(name, {}).items():
            one.add_metric([value], number)
        found.append(one)
    found += _fleet(facts.fleet)
    for name, (meter, text) in HISTOGRAMS.items():
        measured: Histogram = getattr(facts.meters, meter)
        found.append(
            HistogramMetricFamily(
                f"agentorch_{name}", text, buckets=measured.cumulated(), sum_value=measured.total
            )
        )
    attempts = HistogramMetricFamily("agentorch_attempt_seconds", ATTEMPTS, labels=["status"])
    for status, measured in facts.meters.attempts.items():
        attempts.add_metric([status], buckets=measured.cumulated(), sum_value=measured.total)
    return [*found, attempts]


def _fleet(fleet: Mapping[str, Any]) -> list[Any]:
    from prometheus_client.core import GaugeMetricFamily

    tasks = GaugeMetricFamily("agentorch_fleet_tasks", FLEET["fleet_tasks"], labels=["state"])
    values = {
        "fleet_oldest_ready_seconds": "oldest_ready_seconds",
        "fleet_deadlocks_open": "deadlocks_open",
        "fleet_votes_open": "votes_open",
        "database_size_bytes": "database_size_bytes",
    }
    found = [tasks]
    if fleet:
        for state in STATES:
            tasks.add_metric([state], fleet[state])
    for name, key in values.items():
        one = GaugeMetricFamily(f"agentorch_{name}", FLEET[name], labels=[])
        if fleet:
            one.add_metric([], fleet[key])
        found.append(one)
    return found
