"""Large submissions from files: 10,000 tasks, and a graph of 100,000 tasks with 1,000,000 edges."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from pathlib import Path

from agentorch_cli.documents import load_document
from agentorch_cli.identity import new_id_text
from agentorch_cli.taskfile import read_tasks
from bench.figures import Findings
from bench.fleet.engine import Engine, engine, run_program
from bench.scenarios import Scenario, Sizes
from bench.throughput import PAYLOAD


async def file(sizes: Sizes) -> Findings:
    """One file of plain tasks: read, planned, stored, each for itself; and the command as a whole."""
    found = Findings()
    async with engine() as one:
        path = one.data_dir.parent / "tasks.json"
        fields = {"type": "noop", "required_capabilities": ["noop"], "data": PAYLOAD}
        path.write_text(json.dumps([{"name": f"t{n}", **fields} for n in range(sizes.file_tasks)]))
        for is_first in (True, False):  # the first one opens connections and fills caches
            start = time.perf_counter()
            tasks = read_tasks(load_document(path), new_id=new_id_text, defaults={}).plan().tasks
            read = time.perf_counter()
            await one.client.call("task.submit", tasks=list(tasks))
            stored = time.perf_counter()
            if not is_first:
                found.add("read and planned", (read - start) * 1e3, "ms", "less")
                found.rate("into the database", sizes.file_tasks, stored - read)
        seconds, peak = await asyncio.to_thread(_submit, one, path)
        found.add("agentorch task submit", seconds, "s", "less")
        found.add("its peak memory", peak / 1024, "MB", "less")
    return found


async def large_graph(sizes: Sizes) -> Findings:
    """A graph as JSON, submitted by the command, on a database that holds nothing else."""
    found = Findings()
    async with engine() as one:
        path = one.data_dir.parent / "graph.jsonl"
        edges = await asyncio.to_thread(_write_graph, path, sizes.graph_tasks, sizes.graph_edges)
        seconds, peak = await asyncio.to_thread(_submit, one, path)
        stored = await one.db.fetchval("select count(*) from task_dependencies")
        assert stored == edges, (stored, edges)
        found.add("edges", edges, "edges")
        found.add("accepted after", seconds, "s", "less")
        found.add("peak memory of the command", peak / 1024, "MB", "less")
        found.add("peak memory of serve", _peak_kb(one.nodes[0].pid) / 1024, "MB", "less")
        found.add("file", path.stat().st_size / 2**20, "MiB")
    return found


def _submit(one: Engine, path: Path) -> tuple[float, float]:
    """Seconds and the most kB that the command held."""
    start = time.perf_counter()
    log = one.data_dir.parent / "submit.log"
    with log.open("wb") as output:
        process = run_program(one, "--json", "task", "submit", str(path), stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"task submit ended with {process.returncode}: {log.read_text()[-2000:]}")
    return time.perf_counter() - start, float(usage.ru_maxrss)


def _write_graph(path: Path, number: int, edges: int) -> int:
    """Each task depends on some earlier ones; how many edges it became."""
    draw = random.Random(1)
    degree = edges // number
    made = 0
    with path.open("w") as output:
        for n in range(number):
            # a little more, for the first tasks have nobody before them
            needed = draw.sample(range(n), min(n, degree + (n < number // 2 and n % 100 == 0)))
            made += len(needed)
            task = {
                "name": f"t{n}",
                "required_capabilities": ["noop"],
                "depends_on": [f"t{m}" for m in needed],
            }
            output.write(json.dumps(task, separators=(",", ":")) + "\n")
    return made


def _peak_kb(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return float(found[1])


SCENARIOS = (
    Scenario("file", "10,000 tasks from one file", file),
    Scenario(
        "large-graph",
        "100,000 tasks with 1,000,000 edges from one file, with peak memory",
        large_graph,
        repeat=1,
    ),
)
