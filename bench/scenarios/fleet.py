"""Large fleets: what a thousand idle agents cost, and whether ten thousand slow the choice."""

from __future__ import annotations

import asyncio

from agentorch_cli.core.model import AgentSpec
from bench import idle as idle_room
from bench import selection
from bench.figures import Findings
from bench.fleet.engine import engine
from bench.scenarios import Scenario, Sizes
from bench.scenarios.growth import without_agents
from bench.throughput import drain_seconds, submit_seconds


async def idle(sizes: Sizes) -> Findings:
    """Agents that are connected and have nothing to do."""
    found = Findings()
    figures = await idle_room.measure(sizes.idle_agents, sizes.idle_seconds)
    found.add("agents", figures["agents"], "agents")
    for process, cores in figures["cores_used"].items():
        found.add(f"cores {process}", cores, "cores", "less")
    found.add("commits", figures["commits_per_s"], "/s", "less")
    found.add("memory of serve for each", figures["kb_per_agent"], "kB", "less")
    found.add("connected after", figures["connect_seconds"], "s", "less")
    return found


async def registered(sizes: Sizes) -> Findings:
    """Drain with many agents registered, beside the same with one, through the real program."""
    found = Findings()
    async with engine() as one:
        await submit_seconds(one, sizes.tasks)
        done, seconds, _ = await drain_seconds(one, sizes.tasks)
        alone = done / seconds
        await without_agents(one)
        specs = [
            AgentSpec(f"crowd-{n}", capabilities=("noop", *selection.capabilities(n)), slots=1)
            for n in range(sizes.registered)
        ]
        for first in range(0, len(specs), 1000):
            await one.client.call("agent.register", agents=specs[first : first + 1000])
        await submit_seconds(one, sizes.tasks)
        done, seconds, cpu = await drain_seconds(one, sizes.tasks)
        found.rate("one agent", round(alone), 1.0)
        found.rate("rate", done, seconds)
        found.add("one agent / rate", alone / (done / seconds), "x", "less")
        for process, microseconds in cpu.items():
            found.add(f"cpu {process}", microseconds, "us/task", "less")
    return found


async def choice(sizes: Sizes) -> Findings:
    """What one assignment costs with 100 and with 10,000 agents that are online: `bench.selection`."""
    found = Findings()
    costs = [await asyncio.to_thread(selection.in_memory, fleet, 50_000) for fleet in selection.FLEETS]
    for fleet, microseconds in zip(selection.FLEETS, costs, strict=True):
        found.add(f"in memory, {fleet:,} agents", microseconds, "us", "less")
    found.add("in memory, ratio", costs[1] / costs[0], "x", "less")
    costs = [await selection.with_postgres(fleet, 30_000) for fleet in selection.FLEETS]
    for fleet, microseconds in zip(selection.FLEETS, costs, strict=True):
        found.add(f"with tables, {fleet:,} agents", microseconds, "us", "less")
    found.add("with tables, ratio", costs[1] / costs[0], "x", "less")
    return found


SCENARIOS = (
    Scenario("idle", "what connected agents cost that have nothing to do", idle, repeat=1),
    Scenario("registered", "drain with 10,000 registered agents, beside one", registered, repeat=1),
    Scenario("choice", "an assignment with 10,000 agents online, beside 100", choice, repeat=1),
)
