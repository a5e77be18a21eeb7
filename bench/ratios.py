"""What is compared within one run: the program with the smallest loop, and with peers."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

WITH_THE_LOOP = (
    ("drain / loop, arrays", ("drain", "rate"), "rate, arrays"),
    ("drain-single / loop, one a frame", ("drain-single", "rate"), "rate, one a frame"),
    ("both / loop, arrays", ("both", "rate"), "rate, arrays"),
    ("both-single / loop, one a frame", ("both-single", "rate"), "rate, one a frame"),
    (
        "latency p50 / loop with dispatch committed",
        ("latency", "latency p50"),
        "latency, dispatch committed p50",
    ),
    (
        "latency p99 / loop with dispatch committed",
        ("latency", "latency p99"),
        "latency, dispatch committed p99",
    ),
)

WITH_PEERS = (
    ("drain", ("drain", "rate"), "drain"),
    ("both", ("both", "rate"), "both"),
    ("latency p50", ("latency", "latency p50"), "latency p50"),
    ("latency p99", ("latency", "latency p99"), "latency p99"),
    ("submit 1,000 a call", ("submit", "1,000 a call"), "submit_bulk"),
)


def ratios(done: dict[str, Any], peers: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Round by round with the loop, which was measured in each; medians with peers."""
    found: dict[str, list[float]] = {}
    for name, (scenario, figure), base in WITH_THE_LOOP:
        values = [
            run[figure] / other[base]
            for run, other in zip(_runs(done, scenario), _runs(done, "loop"), strict=False)
        ]
        if values:
            found[name] = values
    for peer, figures in peers.items():
        for name, (scenario, figure), base in WITH_PEERS:
            if base in figures and (runs := list(_runs(done, scenario))):
                found[f"{name} / {peer}"] = [
                    statistics.median(run[figure] for run in runs) / figures[base]["median"]
                ]
    return {
        name: {
            "unit": "x",
            "better": "",
            "values": [round(value, 4) for value in values],
            "median": round(statistics.median(values), 4),
            "min": round(min(values), 4),
            "max": round(max(values), 4),
        }
        for name, values in found.items()
    }


def _runs(done: dict[str, Any], scenario: str) -> Iterator[dict[str, float]]:
    yield from done.get(scenario, {}).get("runs", ())
