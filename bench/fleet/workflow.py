"""Real workflow graphs with measured runtimes, and the schedules that bound what an engine can do."""

from __future__ import annotations

import heapq
import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "tests" / "data" / "dags"
NAMES = ("wf_chipseq", "wf_epigenomics_1121", "wf_montage_103", "wf_soykb_96")


@dataclass(frozen=True, slots=True)
class Job:
    """One task of a graph; `seconds` is its runtime."""

    name: str
    seconds: float
    depends_on: tuple[str, ...]


@dataclass(frozen=True)
class Workflow:
    """A graph, in submit order."""

    name: str
    jobs: tuple[Job, ...]

    @cached_property
    def by_name(self) -> dict[str, Job]:
        return {job.name: job for job in self.jobs}

    @cached_property
    def dependents(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {job.name: [] for job in self.jobs}
        for job in self.jobs:
            for dependency in job.depends_on:
                found[dependency].append(job.name)
        return found

    @property
    def work(self) -> float:
        """Seconds of all tasks together."""
        return sum(job.seconds for job in self.jobs)

    def scaled(self, factor: float) -> Workflow:
        return Workflow(self.name, tuple(replace(job, seconds=job.seconds * factor) for job in self.jobs))

    def with_median(self, seconds: float) -> Workflow:
        """The same shape, scaled so that the median task takes this long."""
        return self.scaled(seconds / statistics.median(job.seconds for job in self.jobs))

    def remaining(self, cost: Callable[[Job], float]) -> dict[str, float]:
        """The costliest chain from each task to the end of the graph, itself included."""
        longest: dict[str, float] = {}
        for name in reversed(self.order()):
            below = max((longest[one] for one in self.dependents[name]), default=0.0)
            longest[name] = cost(self.by_name[name]) + below
        return longest

    def order(self) -> list[str]:
        """Names so that each comes after its dependencies."""
        waiting = {job.name: len(job.depends_on) for job in self.jobs}
        found = [name for name, number in waiting.items() if not number]
        for name in found:
            for dependent in self.dependents[name]:
                waiting[dependent] -= 1
                if not waiting[dependent]:
                    found.append(dependent)
        return found

    def critical_path(self) -> float:
        """Seconds of the longest chain: no fleet is faster."""
        return max(self.remaining(lambda job: job.seconds).values())

    def lower_bound(self, slots: int) -> float:
        """Seconds that no schedule on so many slots beats."""
        return max(self.critical_path(), self.work / slots)

    def by_runtime(self) -> dict[str, float]:
        """Ranks by the longest remaining path in seconds: for who knows the runtimes beforehand."""
        return self.remaining(lambda job: job.seconds)

    def by_depth(self) -> dict[str, float]:
        """Ranks by the number of tasks on the longest remaining path: what a task file tells."""
        return self.remaining(lambda job: 1.0)

    def room(self, slots: int, share: float) -> float:
        """Seconds that each task may keep its slot besides its work, all else being free, until the list
        schedule by longest path takes `share` of itself."""
        most = share * self.schedule(slots, self.by_runtime())
        low, high = 0.0, most
        for _ in range(20):
            middle = (low + high) / 2
            longer = Workflow(
                self.name, tuple(replace(job, seconds=job.seconds + middle) for job in self.jobs)
            )
            low, high = (middle, high) if longer.schedule(slots, self.by_runtime()) <= most else (low, middle)
        return low

    def schedule(self, slots: int, rank: dict[str, float]) -> float:
        """The makespan of a list schedule without any overhead: highest rank first, then submit order."""
        position = {job.name: number for number, job in enumerate(self.jobs)}
        waiting = {job.name: len(job.depends_on) for job in self.jobs}
        ready: list[tuple[float, int, str]] = []
        running: list[tuple[float, int, str]] = []
        now = 0.0

        def add(names: Iterable[str]) -> None:
            for name in names:
                heapq.heappush(ready, (-rank[name], position[name], name))

        add(name for name, number in waiting.items() if not number)
        while ready or running:
            while ready and len(running) < slots:
                _, number, name = heapq.heappop(ready)
                heapq.heappush(running, (now + self.by_name[name].seconds, number, name))
            now, _, ended = heapq.heappop(running)
            for dependent in self.dependents[ended]:
                waiting[dependent] -= 1
                if not waiting[dependent]:
                    add([dependent])
        return now


def load(name: str, folder: Path = FOLDER) -> Workflow:
    """A graph of tests/data/dags, or of another folder with files of the same form."""
    document = json.loads((folder / f"{name}.json").read_text())
    return Workflow(
        name,
        tuple(Job(one["id"], one["runtime_s"], tuple(one["depends_on"])) for one in document["tasks"]),
    )
