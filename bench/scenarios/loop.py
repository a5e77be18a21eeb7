"""The smallest loop of the program's own shape, for the ratios: `bench.smallest_loop`."""

from __future__ import annotations

from bench import smallest_loop
from bench.figures import Findings
from bench.scenarios import Scenario, Sizes


async def loop(sizes: Sizes) -> Findings:
    """Without and with each dispatch committed."""
    found = Findings()
    for claims, name in ((False, ""), (True, ", dispatch committed")):
        seen = await smallest_loop.measure(sizes.tasks * 4, sizes.samples, claims=claims)
        found.add(f"rate, arrays{name}", seen["arrays"], "tasks/s", "more")
        found.add(f"rate, one a frame{name}", seen["single"], "tasks/s", "more")
        for share, milliseconds in seen["latency_ms"].items():
            found.add(f"latency{name} {share}", milliseconds, "ms", "less")
    return found


SCENARIOS = (Scenario("loop", "the smallest loop of the same shape: what is reachable", loop),)
