"""The Prometheus page of one node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GAUGES = {
    "agents_online": "Agents that are connected and may be given work",
    "agents_excluded": "Agents that get nothing for a while because they kept failing",
    "attempts_live": "Attempts that agents of this node hold",
    "tasks_ready": "Ready tasks in this node's window",
    "sessions": "Open agent connections",
}
COUNTERS = {
    "assigned": "Attempts sent to agents",
    "task_completed": "Tasks that completed",
    "task_failed": "Tasks that failed",
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
}


def render(facts: Mapping[str, Any]) -> str:
    """The page in Prometheus text format."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    class Facts:
        def collect(self) -> list[Any]:
            found: list[Any] = []
            for name, text in GAUGES.items():
                found.append(GaugeMetricFamily(f"agentorch_{name}", text, value=facts.get(name, 0)))
            for name, text in COUNTERS.items():
                found.append(CounterMetricFamily(f"agentorch_{name}", text, value=facts.get(name, 0)))
            return found

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Facts())
    return generate_latest(registry).decode()
