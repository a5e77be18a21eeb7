"""Real workflow graphs through the real program, beside what no engine can beat.

`agentorch serve` with its embedded PostgreSQL, eight agent processes of one slot each, and the
measured runtimes of four scientific workflows, scaled so that the median task takes 20 ms. The
tasks say how long they will take (`estimate`), which is what a list schedule by longest path knows. The
clock runs from the submission to the last stored result, on the database's clock, and starts
when all agents are connected and idle.

    python -m bench.graphs
    python -m bench.graphs wf_montage_103 --agents 4 --json

* bound    max(critical path, work / slots): no schedule on so many slots is faster
* cp       a list schedule by longest remaining path in seconds, with every runtime known
           beforehand and no overhead at all
* depth    the same by the number of tasks on the path, which is all that a file without estimates tells
* ratio    makespan / cp
* ms/task  how much longer than cp the makespan is, for each task that a slot does
* room     milliseconds for which each task could keep its slot besides its work until cp is 1.05 x as long

From the event log it checks that no task started before its dependencies were complete, and
exits with 1 if one did.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from agentorch_cli.client import LocalClient
from agentorch_cli.core.model import TaskSpec
from agentorch_cli.core.plan import plan
from agentorch_cli.identity import new_id_text
from bench.fleet.engine import engine
from bench.fleet.processes import AgentProcess
from bench.fleet.timed_agent import CAPABILITY
from bench.fleet.workflow import FOLDER, NAMES, Workflow, load
from bench.machine import describe, percentiles

ATTEMPTS = """
  select a.task_id, t.name, a.agent_id, a.slot, a.sent_at, a.finished_at, t.depends_on,
    t.created_at, t.completed_at,
    to_timestamp((a.result->>'begun_at')::float8) as begun_at,
    to_timestamp((a.result->>'ended_at')::float8) as ended_at
  from task_attempts a join task_distributions t using (task_id)
  where t.submission_id = $1 and a.status = 'completed' order by a.sent_at"""

EVENTS = """
  select e.task_id, e.kind, e.at
  from events e join task_distributions t using (task_id)
  where t.submission_id = $1 and e.kind in ('task_assigned', 'task_completed')"""


ASKED = 1.05
"""Of the list schedule: what is near to it."""


@dataclass
class Figures:
    """One graph's run; seconds, and milliseconds where the name says so."""

    name: str
    tasks: int
    slots: int
    makespan: float
    bound: float
    cp: float
    depth: float
    room: float
    too_early: list[str] = field(default_factory=list)
    attempts: int = 0
    legs_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    """Where a task's time goes besides its own runtime."""

    @property
    def ratio(self) -> float:
        return self.makespan / self.cp

    @property
    def overhead_ms(self) -> float:
        """What the makespan loses against the ideal schedule, per task that a slot does."""
        return (self.makespan - self.cp) * 1e3 * self.slots / self.tasks


def specs(workflow: Workflow) -> list[TaskSpec]:
    """The graph as a submission."""
    tasks = [
        TaskSpec(
            new_id_text(),
            type="timed",
            name=job.name,
            required_capabilities=(CAPABILITY,),
            depends_on=job.depends_on,
            data={"seconds": job.seconds},
            estimate_seconds=job.seconds or None,
        )
        for job in workflow.jobs
    ]
    return list(plan(tasks).tasks)


async def run(
    workflow: Workflow, slots: int, client: LocalClient, db: asyncpg.Pool, *, prefetch: int = 0
) -> Figures:
    """Submit a graph, wait for its last result, read the tables."""
    reply = await client.call("task.submit", tasks=specs(workflow))
    ids = [one.task_id for one in reply.tasks]
    await client.call("task.wait", task_ids=ids, timeout_seconds=60 + 10 * workflow.lower_bound(slots))
    submission = await db.fetchval("select submission_id from task_distributions where task_id = $1", ids[0])
    rows = await db.fetch(ATTEMPTS, submission)
    started, ended = min(row["created_at"] for row in rows), max(row["completed_at"] for row in rows)
    figures = Figures(
        name=workflow.name,
        tasks=len(workflow.jobs),
        slots=slots,
        makespan=(ended - started).total_seconds(),
        bound=workflow.lower_bound(slots),
        cp=workflow.schedule(slots, workflow.by_runtime()),
        depth=workflow.schedule(slots, workflow.by_depth()),
        room=workflow.room(slots, ASKED),
        attempts=len(rows),
    )
    if len(rows) != len(workflow.jobs):
        raise SystemExit(f"{workflow.name}: {len(rows)} completed attempts of {len(workflow.jobs)} tasks")
    figures.too_early = started_too_early(rows, await db.fetch(EVENTS, submission))
    if not prefetch:  # else a task waits at an agent that has another in its slot
        figures.legs_ms = legs(rows, workflow)
    return figures


def started_too_early(rows: list[asyncpg.Record], events: list[asyncpg.Record]) -> list[str]:
    """Tasks that were assigned or sent before all their dependencies were complete."""
    assigned: dict[str, Any] = {}
    completed: dict[str, Any] = {}
    for event in events:
        if event["kind"] == "task_completed":
            completed[event["task_id"]] = event["at"]
        else:
            assigned.setdefault(event["task_id"], event["at"])
            assigned[event["task_id"]] = min(assigned[event["task_id"]], event["at"])
    finished = {row["task_id"]: row["finished_at"] for row in rows}
    return [
        row["name"]
        for row in rows
        for one in row["depends_on"]
        if assigned[row["task_id"]] < completed[one] or row["sent_at"] < finished[one]
    ]


def legs(rows: list[asyncpg.Record], workflow: Workflow) -> dict[str, dict[str, float]]:
    """Milliseconds of each step of a task, besides its own runtime."""
    found: dict[str, list[float]] = {"wait": [], "send": [], "work": [], "store": []}
    finished = {row["task_id"]: row["finished_at"] for row in rows}
    last: dict[tuple[str, int], Any] = {}
    for row in rows:
        seat = (row["agent_id"], row["slot"])
        ready = max([row["created_at"], *(finished[one] for one in row["depends_on"])])
        could = max(ready, last.get(seat, ready))
        last[seat] = row["finished_at"]
        seconds = workflow.by_name[row["name"]].seconds
        found["wait"].append((row["sent_at"] - could).total_seconds())
        found["send"].append((row["begun_at"] - row["sent_at"]).total_seconds())
        found["work"].append((row["ended_at"] - row["begun_at"]).total_seconds() - seconds)
        found["store"].append((row["finished_at"] - row["ended_at"]).total_seconds())
    return {
        leg: {"mean": round(statistics.fmean(values) * 1e3, 2)}
        | percentiles([value * 1e3 for value in values])
        for leg, values in found.items()
    }


async def measure(
    names: list[str], agents: int, median: float, repeat: int, folder: Path = FOLDER, prefetch: int = 0
) -> list[Figures]:
    """All graphs on one engine, one after the other."""
    fleet: list[AgentProcess] = []
    async with engine() as one:
        try:
            fleet = [AgentProcess(one.url, f"agent-{number}", prefetch=prefetch) for number in range(agents)]
            for agent in fleet:
                agent.start()
            await one.until_online(agents)
            found = []
            for _ in range(repeat):
                for name in names:
                    graph = load(name, folder).with_median(median)
                    found.append(await run(graph, agents, one.client, one.db, prefetch=prefetch))
                    print(line(found[-1]), file=sys.stderr, flush=True)
            return found
        finally:
            for agent in fleet:
                agent.stop()


HEAD = (
    f"{'graph':22}{'tasks':>6}{'makespan':>10}{'bound':>8}{'cp':>8}{'depth':>8}"
    f"{'/bound':>8}{'ratio':>7}{'ms/task':>9}{'room':>6}  wait/send/work/store ms (mean)"
)


def line(one: Figures) -> str:
    """One row of the table."""
    steps = "/".join(f"{leg['mean']:.1f}" for leg in one.legs_ms.values()) or "-"
    early = f"  {len(one.too_early)} STARTED TOO EARLY" if one.too_early else ""
    return (
        f"{one.name:22}{one.tasks:6}{one.makespan:10.3f}{one.bound:8.3f}{one.cp:8.3f}{one.depth:8.3f}"
        f"{one.makespan / one.bound:8.3f}{one.ratio:7.3f}{one.overhead_ms:9.2f}{one.room * 1e3:6.1f}"
        f"  {steps}{early}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graphs", nargs="*", help=f"of {', '.join(NAMES)}; all if not said")
    parser.add_argument("--agents", type=int, default=8, help="processes of one slot each")
    parser.add_argument("--median", type=float, default=0.02, help="seconds of the median task")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--prefetch", type=int, default=0, help="tasks that an agent takes ahead of a slot")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    print(HEAD, file=sys.stderr)
    names = args.graphs or list(NAMES)
    runs = asyncio.run(measure(names, args.agents, args.median, args.repeat, prefetch=args.prefetch))
    if args.json:
        rows = [
            asdict(one) | {"ratio": round(one.ratio, 4), "overhead_ms_per_task": round(one.overhead_ms, 3)}
            for one in runs
        ]
        print(json.dumps({"machine": describe(), "median_task_seconds": args.median, "graphs": rows}))
    else:
        print("\n".join([HEAD, *map(line, runs)]))
    if any(one.too_early for one in runs):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
