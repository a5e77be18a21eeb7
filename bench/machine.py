"""What machine this is, and whether it is quiet: printed beside every figure."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any


def describe() -> dict[str, Any]:
    """Cores, memory, versions, and a calibration: a fixed loop, and an fdatasync of 8 kB."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_1min": round(os.getloadavg()[0], 2),
        "loop_ms": round(_loop_ms(), 1),
        "fdatasync_us": round(_fdatasync_us()),
    }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99, in the unit of the values."""
    ordered = sorted(values)
    return {
        f"p{share}": round(ordered[min(len(ordered) - 1, int(share / 100 * len(ordered)))], 3)
        for share in (50, 95, 99)
    }


class Noise:
    """The share of the machine that others use, from the making of this to `share`.

    What is ours: this process, its children as far as they have ended and been waited for, and what
    `elsewhere` adds up: CPU seconds of processes that are nobody's children any more.
    """

    def __init__(self, elsewhere: Callable[[], float] = lambda: 0.0) -> None:
        self._elsewhere = elsewhere
        self._began, self._busy, self._own = time.perf_counter(), _busy_seconds(), self._ours()
        self._stolen = _stolen_seconds()

    def share(self) -> float:
        """0 to 1."""
        foreign = _busy_seconds() - self._busy - (self._ours() - self._own)
        return self._of_the_machine(foreign)

    def stolen(self) -> float:
        """The share, 0 to 1, for which processes were ready to run and the host of this virtual machine ran
        something else. It counts as theirs in their CPU seconds, so nothing else here shows it."""
        return self._of_the_machine(_stolen_seconds() - self._stolen)

    def _of_the_machine(self, seconds: float) -> float:
        passed = (time.perf_counter() - self._began) * (os.cpu_count() or 1)
        return max(0.0, min(1.0, seconds / passed))

    def _ours(self) -> float:
        return sum(os.times()[:4]) + self._elsewhere()


def until_quiet(seconds: float, share: float = 0.15) -> None:
    """Wait until less than this share of the machine has been in use for three seconds, at most so long."""
    end, quiet = time.monotonic() + seconds, 0
    while quiet < 3 and time.monotonic() < end:
        busy, began = _busy_seconds(), time.perf_counter()
        time.sleep(1)
        used = (_busy_seconds() - busy) / (time.perf_counter() - began) / (os.cpu_count() or 1)
        quiet = quiet + 1 if used < share else 0


def _busy_seconds() -> float:
    """CPU seconds of the whole machine so far; 0 where the system does not tell."""
    values = _processor_seconds()
    return sum(values[:3]) + sum(values[5:8])


def _stolen_seconds() -> float:
    """Likewise those that the host of a virtual machine gave to others."""
    return sum(_processor_seconds()[7:8])


def _processor_seconds() -> list[float]:
    """By what the processors did, in the order of /proc/stat; empty where the system does not tell."""
    try:
        with open("/proc/stat") as file:
            return [int(value) / os.sysconf("SC_CLK_TCK") for value in file.readline().split()[1:]]
    except OSError:
        return []


def _loop_ms() -> float:
    start = time.perf_counter()
    total = 0
    for number in range(1_000_000):
        total += number & 7
    return (time.perf_counter() - start) * 1e3


def _fdatasync_us() -> float:
    took = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(30):
            os.pwrite(file.fileno(), b"x" * 8192, 0)
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - start) * 1e6)
    return statistics.median(took)
