"""Milliseconds from submit to the stored result in the submitter's hands."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from itertools import chain

from bench.figures import Findings
from bench.fleet.engine import ROOT, Engine, engine
from bench.scenarios import Scenario, Sizes
from bench.smallest_loop import running, submitting
from bench.throughput import both_seconds, latencies, submit_each_seconds, submit_seconds, until_all_done

A_TURN = 20
"""Tasks of one side before the other has its turn: a tenth of a second."""

OF_THE_LOAD = """
  select percentile_cont(array[0.5, 0.95, 0.99]) within group (
    order by extract(epoch from completed_at - created_at) * 1000)
  from task_distributions
  where status = 'completed' and created_at >= $1"""


async def idle(sizes: Sizes) -> Findings:
    """One task at a time, nothing else to do."""
    found = Findings()
    async with engine() as one:
        one.start_agent()
        await one.until_online(1)
        await asyncio.sleep(1.0)  # whatever follows a start is over
        before = one.cpu_seconds()
        found.percentiles("latency", await latencies(one, sizes.samples))
        found.cpu(before, one.cpu_seconds(), sizes.samples)
    return found


async def paired(sizes: Sizes) -> Findings:
    """The same in turn with the smallest loop that commits dispatches: both run, and one of them rests."""
    found = Findings()
    async with engine() as one, running(claims=True) as (_, port), submitting(port) as through_the_loop:
        one.start_agent()
        await one.until_online(1)
        await asyncio.sleep(1.0)
        ours: list[list[float]] = []
        loop: list[list[float]] = []
        for turn in range(2 + sizes.samples // A_TURN):
            for is_ours in (turn % 2 == 0, turn % 2 != 0):  # who is first has no advantage
                if is_ours:
                    ours.append(await latencies(one, A_TURN, warm_up=0))
                else:
                    loop.append([await through_the_loop() for _ in range(A_TURN)])
        del ours[:2], loop[:2]
    found.percentiles("latency", list(chain(*ours)))
    found.percentiles("loop", list(chain(*loop)))
    turns = [statistics.median(us) / statistics.median(it) for us, it in zip(ours, loop, strict=True)]
    found.add("latency / loop, p50 of a turn", statistics.median(turns), "x", "less")
    return found


async def half(sizes: Sizes) -> Findings:
    """Probes, one at a time, while another process brings half of what the engine just did at most."""
    found = Findings()
    async with engine() as one:
        one.start_agent()
        await one.until_online(1)
        await both_seconds(one, sizes.tasks // 5)
        seconds, _ = await both_seconds(one, sizes.tasks)
        rate = sizes.tasks / seconds / 2
        loading = await asyncio.to_thread(_start_load, one, rate)
        try:
            await asyncio.sleep(1.0)
            began, before = await one.db.fetchval("select now()"), one.cpu_seconds()
            took = await latencies(one, sizes.samples)
            ended = await one.db.fetchval("select now()")
            cores = {
                name: (used - before.get(name, 0.0)) / (ended - began).total_seconds()
                for name, used in one.cpu_seconds().items()
            }
        finally:
            loading.terminate()
            said, _ = await asyncio.to_thread(loading.communicate, timeout=30)
        await until_all_done(one.client, int(rate))
        found.add("load", rate, "tasks/s")
        found.percentiles("latency", took)
        for name, value in zip(("p50", "p95", "p99"), await one.db.fetchval(OF_THE_LOAD, began), strict=True):
            found.add(f"stored {name}", value, "ms", "less")
        for process, value in cores.items():
            found.add(f"cores {process}", value, "cores", "less")
        brought = json.loads(said.splitlines()[-1])
        found.add("load late at most", brought["latest_ms"], "ms", "less")
    return found


def _start_load(one: Engine, rate: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.load", "--data-dir", str(one.data_dir), "--rate", str(rate)]
    loading = subprocess.Popen(command, cwd=ROOT, env=one.environment, stdout=subprocess.PIPE)
    assert loading.stdout is not None
    loading.stdout.readline()
    return loading


async def submit(sizes: Sizes) -> Findings:
    """What a submission costs by itself: 1,000 a call, 100 a call, and one a call with 20 calls at once."""
    found = Findings()
    async with engine() as one:
        found.rate("1,000 a call", sizes.tasks, await submit_seconds(one, sizes.tasks))
        found.rate("100 a call", sizes.tasks, await submit_seconds(one, sizes.tasks, 100))
        number = max(1, sizes.tasks // 5)
        found.rate("one a call, 20 at once", number, await submit_each_seconds(one, number))
    return found


SCENARIOS = (
    Scenario("latency", "submit to stored result on an idle engine", idle),
    Scenario("latency-paired", "the same in turn with the smallest loop, dispatch committed", paired),
    Scenario("half-load", "the same beside a load of half of the greatest rate", half),
    Scenario("submit", "tasks/s of submission alone", submit),
)
