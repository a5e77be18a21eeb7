"""What machine this is, and whether it is quiet: printed beside every figure."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
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
