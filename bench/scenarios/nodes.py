"""Several nodes and several pools on one PostgreSQL: whether they lose throughput, and what the limit is."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from agentorch_cli.core.model import AgentSpec
from bench.figures import Findings
from bench.fleet.engine import Engine, engine
from bench.scenarios import Scenario, Sizes
from bench.throughput import both_seconds, spent, submit, tasks, until_all_done

SLOTS = 500


async def nodes(sizes: Sizes) -> Findings:
    """Submit and drain with 1, 2, 4 nodes of one pool, an agent on each."""
    found = Findings()
    rates: dict[int, float] = {}
    for number in sizes.nodes:
        async with engine(slots=max(50, SLOTS // number), nodes=[{}] * number) as one:
            for node in range(number):
                one.start_agent(node)
            await one.until_online(number)
            await both_seconds(one, sizes.tasks // 5)
            wal = await one.wal_bytes()
            seconds, cpu = await both_seconds(one, sizes.tasks)
            rates[number] = sizes.tasks / seconds
            found.rate(f"{number} nodes", sizes.tasks, seconds)
            _explain(
                found, f"{number} nodes", cpu, rates[number], (await one.wal_bytes() - wal) / sizes.tasks
            )
    _ratios(found, rates, "nodes")
    return found


async def pools(sizes: Sizes) -> Findings:
    """The same with a pool for each node: its own leader, its own agent, its own tasks."""
    found = Findings()
    rates: dict[int, float] = {}
    for number in sizes.nodes:
        names = ["default", *(f"pool-{n}" for n in range(1, number))]
        own = [{"AGENTORCH_ENGINE_POOL": name} for name in names]
        async with engine(slots=max(50, SLOTS // number), nodes=own) as one:
            specs = [AgentSpec(f"agent-{name}", capabilities=("noop",), pool=name) for name in names]
            await one.client.call("agent.register", agents=specs)
            for node, name in enumerate(names):
                one.start_agent(node, f"agent-{name}")
            await one.until_online(number)
            await _in_pools(one, names, sizes.tasks // 5)
            wal, before = await one.wal_bytes(), one.cpu_seconds()
            seconds = await _in_pools(one, names, sizes.tasks)
            cpu = spent(before, one.cpu_seconds(), sizes.tasks)
            rates[number] = sizes.tasks / seconds
            found.rate(f"{number} pools", sizes.tasks, seconds)
            _explain(
                found, f"{number} pools", cpu, rates[number], (await one.wal_bytes() - wal) / sizes.tasks
            )
    _ratios(found, rates, "pools")
    return found


async def _in_pools(one: Engine, names: list[str], number: int) -> float:
    """Seconds for so many tasks in all, spread evenly; 100 a call."""
    work = tasks(number)
    parts = [[replace(task, pool=name) for task in work[n :: len(names)]] for n, name in enumerate(names)]
    start = time.perf_counter()
    for first in range(0, len(parts[0]), 100):
        for part in parts:
            await submit(one.client, part[first : first + 100], 100)
    await until_all_done(one.client, number)
    return time.perf_counter() - start


def _explain(found: Findings, name: str, cpu: dict[str, float], rate: float, wal: float) -> None:
    """What is the limit: the CPU of which process, or none of them."""
    cores = {process: microseconds * rate / 1e6 for process, microseconds in cpu.items()}
    for process, microseconds in cpu.items():
        found.add(f"{name}: cpu {process}", microseconds, "us/task", "less")
    found.add(f"{name}: log written", wal, "B/task", "less")
    told = ", ".join(f"{process} {value:.2f}" for process, value in sorted(cores.items()))
    limit = max(cores, key=lambda process: cores[process])
    whole = sum(cores.values())
    reason = (
        f"{limit} is a full core"
        if cores[limit] > 0.85
        else "all cores are in use"
        if whole > 0.85 * (os.cpu_count() or 1)
        else f"no processor is: {whole:.2f} cores of {os.cpu_count()} are in use here, the rest is waiting"
    )
    found.notes.append(f"{name}: cores used: {told}; the limit: {reason}")


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _ratios(found: Findings, rates: dict[int, float], what: str) -> None:
    first = min(rates)
    for number, rate in rates.items():
        if number != first:
            found.add(f"{number} {what} / {first}", rate / rates[first], "x", "more")


SCENARIOS = (
    Scenario("nodes", "1, 2 and 4 nodes on one PostgreSQL", nodes, repeat=1),
    Scenario("pools", "1, 2 and 4 pools, each with its node, on one PostgreSQL", pools, repeat=1),
)
