"""Figures: a value with its unit and the direction that is better; medians, spread, comparison."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Better = Literal["more", "less", ""]
"""What a change for the better is; empty: it only explains."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value."""

    name: str
    value: float
    unit: str
    better: Better = ""


@dataclass(slots=True)
class Findings:
    """What one run of a scenario brought."""

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences and tables for people."""

    def add(self, name: str, value: float, unit: str, better: Better = "") -> None:
        self.figures.append(Figure(name, value, unit, better))

    def rate(self, name: str, tasks: int, seconds: float) -> None:
        self.add(name, tasks / seconds, "tasks/s", "more")

    def percentiles(
        self, name: str, milliseconds: Sequence[float], shares: Iterable[int] = (50, 95, 99)
    ) -> None:
        """`name` with p50, p95 and p99 behind it."""
        ordered = sorted(milliseconds)
        for share in shares:
            at = min(len(ordered) - 1, int(share / 100 * len(ordered)))
            self.add(f"{name} p{share}", ordered[at], "ms", "less")

    def cpu(
        self, before: Mapping[str, float], after: Mapping[str, float], tasks: int, name: str = "cpu"
    ) -> None:
        """CPU microseconds for each task, by process."""
        for process, seconds in after.items():
            self.add(
                f"{name} {process}", (seconds - before.get(process, 0.0)) / tasks * 1e6, "us/task", "less"
            )


def summary(runs: Sequence[Findings]) -> dict[str, dict[str, Any]]:
    """By name of the figure: unit, direction, median, least and most, and each run's value."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        for figure in run.figures:
            one = found.setdefault(figure.name, {"unit": figure.unit, "better": figure.better, "values": []})
            one["values"].append(round(figure.value, 4))
    for one in found.values():
        one |= {
            "median": round(statistics.median(one["values"]), 4),
            "min": min(one["values"]),
            "max": max(one["values"]),
        }
    return found


def shown(value: float) -> str:
    """A number as people read it: three digits or so."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def line(name: str, one: Mapping[str, Any]) -> str:
    """One row for people: name, median, unit, spread."""
    spread = f"  ({shown(one['min'])} to {shown(one['max'])})" if len(one["values"]) > 1 else ""
    return f"  {name:<44}{shown(one['median']):>12} {one['unit']}{spread}"


def compared(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Two documents of the runner beside each other; `second` / `first` as ratios."""
    rows = [f"{'figure':<58}{'first':>12}{'second':>12}{'ratio':>8}"]
    for scenario, one in first["scenarios"].items():
        other = second["scenarios"].get(scenario)
        for name, before in one["figures"].items() if other else ():
            after = other["figures"].get(name)
            if after is None:
                continue
            ratio = after["median"] / before["median"] if before["median"] else float("nan")
            told = f"{f'{scenario}: {name}':<58}{shown(before['median']):>12}{shown(after['median']):>12}"
            rows.append(f"{told}{ratio:>8.2f}  {_verdict(before, after)}".rstrip())
    missing = sorted(first["scenarios"].keys() ^ second["scenarios"].keys())
    return rows + ([f"only in one of the two: {', '.join(missing)}"] if missing else [])


def _verdict(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Better or worse where the runs of the two do not overlap."""
    if not before["better"] or min(len(before["values"]), len(after["values"])) < 2:
        return ""
    if after["min"] > before["max"]:
        return "better" if before["better"] == "more" else "worse"
    if after["max"] < before["min"]:
        return "worse" if before["better"] == "more" else "better"
    return ""
