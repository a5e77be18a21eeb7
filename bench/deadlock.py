"""How long the deadlock detector takes on large graphs in memory, next to networkx where that is installed.

    python -m bench.deadlock [--tasks 100000] [--edges-per-task 10] [--rounds 3] [--postgres]

Goal on one core: at most 1.2 s for 100,000 tasks with 1,000,000 edges, and no recursion. Printed are the best
wall-clock time, the best CPU time (which a busy machine disturbs less), and what was found. networkx is given
names and edges and finds components only; the detector also reduces, names each task's trouble, shows a cycle
per component and picks victims. With --postgres the same graph is stored in an embedded server, and a whole
look is timed: reading the waiting system and detecting. Goal: at most 4 s.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from agentorch_cli.core.deadlock import detect
from agentorch_cli.core.graphs import Order
from agentorch_cli.core.ladder import Policy
from agentorch_cli.core.system import Agent, Need, State, System, Task
from agentorch_cli.store.database import Database
from agentorch_cli.store.deadlocks import Deadlocks
from agentorch_cli.store.embedded import EmbeddedServer
from agentorch_cli.store.store import Store

Tasks = dict[str, Task]


def acyclic(size: int, degree: int) -> Tasks:
    """Each task depends on some earlier ones; in no order, as rows come from a database."""
    draw = random.Random(1)
    rows = [
        (f"t{n:06}", Task(deps=tuple({f"t{draw.randrange(n):06}" for _ in range(degree)} if n else ())))
        for n in range(size)
    ]
    draw.shuffle(rows)
    return dict(rows)


def planted(size: int, degree: int) -> Tasks:
    """The same with 50 rings of 60 that also depend on it."""
    draw = random.Random(2)
    tasks = acyclic(size, degree)
    for ring in range(50):
        for n in range(60):
            before = f"r{ring}-{(n + 1) % 60}"
            tasks[f"r{ring}-{n}"] = Task(deps=(before, f"t{draw.randrange(size):06}"))
    return tasks


def one_ring(size: int, degree: int) -> Tasks:
    """One cycle through all."""
    return {f"t{n:06}": Task(deps=(f"t{(n + 1) % size:06}",)) for n in range(size)}


def all_behind_one(size: int, degree: int) -> Tasks:
    """Everything waits, in the end, for one id that does not exist."""
    return acyclic(size, degree) | {"t000000": Task(deps=("nowhere",))}


def one_tangle(size: int, degree: int) -> Tasks:
    """The first waits for the last: nearly everything is one component with all edges in it."""
    return acyclic(size, degree) | {"t000000": Task(deps=(f"t{size - 1:06}",))}


def thousand_rings(size: int, degree: int) -> Tasks:
    """A thousand rings of fifty at once."""
    return {f"r{r}-{n}": Task(deps=(f"r{r}-{(n + 1) % 50}",)) for r in range(1000) for n in range(50)}


GRAPHS: list[Callable[[int, int], Tasks]] = [
    acyclic,
    planted,
    one_ring,
    all_behind_one,
    one_tangle,
    thousand_rings,
]


def full_pool(size: int) -> System:
    """Parents hold all slots of one pool, and all their children need one."""
    agents = {f"a{n}": Agent(frozenset({"x"}), 10) for n in range(size // 10)}
    tasks: Tasks = {}
    for n in range(size):
        tasks[f"p{n}"] = Task(state=State.AWAITING, deps=(f"c{n}",), holds=(f"a{n // 10}",))
        tasks[f"c{n}"] = Task(need=Need(frozenset({"x"}), 1))
    return System(agents, tasks)


def best_of(rounds: int, work: Callable[[], object]) -> tuple[float, float]:
    """Best wall-clock and CPU seconds."""
    wall, cpu = [], []
    for _ in range(rounds):
        wall_before, cpu_before = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - wall_before)
        cpu.append(time.process_time() - cpu_before)
    return min(wall), min(cpu)


def networkx_seconds(tasks: Tasks, rounds: int) -> str:
    """Build and components, in a column of its own."""
    if not importlib.util.find_spec("networkx"):
        return "not installed"
    import networkx

    edges = [(name, needed) for name, task in tasks.items() for needed in task.deps]
    graph = networkx.DiGraph()

    def build() -> None:
        graph.clear()
        graph.add_nodes_from(tasks)
        graph.add_edges_from(edges)

    built, _ = best_of(rounds, build)
    found, _ = best_of(rounds, lambda: sum(1 for _ in networkx.strongly_connected_components(graph)))
    return f"{found:.2f} (+ {built:.2f} build)"


def add_edges(size: int = 20_000, edges: int = 60_000) -> None:
    """Dependencies between existing tasks, one by one, in random order."""
    draw = random.Random(3)
    place = [*range(size)]
    draw.shuffle(place)
    order = Order({f"t{n}": () for n in range(size)})
    taken = []
    for _ in range(edges):
        low, high = sorted(draw.sample(range(size), 2))
        task, needed = f"t{place[high]}", f"t{place[low]}"
        before = time.perf_counter()
        order.link(task, needed)
        taken.append((time.perf_counter() - before) * 1000)
    cuts = statistics.quantiles(taken, n=100)
    print(
        f"\nadd_dependency, {size:,} tasks, {edges:,} edges: median {statistics.median(taken):.3f} ms, "
        f"p99 {cuts[98]:.3f} ms, largest {max(taken):.1f} ms, all {sum(taken) / 1000:.2f} s"
    )


async def from_postgres(size: int, degree: int, rounds: int) -> None:
    """Store the acyclic graph with 50 rings planted in it, and look at it as the monitor does."""
    tasks = planted(size, degree)
    folder = Path(tempfile.mkdtemp(prefix="agentorch-bench-"))
    folder.chmod(0o711)
    server = EmbeddedServer(folder / "data")
    database = Database(await server.start(), node_id="bench", pool_size=4, command_timeout=300)
    try:
        await database.open()
        await database.migrate()
        async with database.pool.acquire() as connection:
            await connection.copy_records_to_table(
                "task_distributions",
                records=[
                    (
                        name,
                        "t",
                        "blocked" if task.deps else "pending",
                        len(task.deps),
                        list(task.deps),
                        uuid4(),
                    )
                    for name, task in tasks.items()
                ],
                columns=["task_id", "task_type", "status", "waiting_on", "depends_on", "submission_id"],
                timeout=300,
            )
            await connection.copy_records_to_table(
                "task_dependencies",
                records=[(needed, name) for name, task in tasks.items() for needed in task.deps],
                columns=["depends_on", "task_id"],
                timeout=300,
            )
            await connection.execute("analyze", timeout=300)
            await connection.execute(
                "insert into agent_registry (agent_id, agent_type) values ('worker', 'worker')"
            )
        deadlocks = Deadlocks(Store(database), Policy(), grace=1e9)
        taken = []
        for _ in range(rounds):
            began = time.perf_counter()
            system, _, _ = await deadlocks.photograph(1e9)
            read = time.perf_counter() - began
            report = detect(system)
            taken.append((time.perf_counter() - began, read))
        edges = sum(len(task.deps) for task in tasks.values())
        whole, read = min(taken)
        print(
            f"\nfrom PostgreSQL, {len(tasks):,} tasks, {edges:,} edges: {whole:.2f} s,"
            f" of that reading {read:.2f} s; {len(report.components)} components"
        )
    finally:
        await database.close()
        await server.release()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--edges-per-task", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgres", action="store_true", help="only the look with the read from PostgreSQL")
    given = parser.parse_args()
    if given.postgres:
        asyncio.run(from_postgres(given.tasks, given.edges_per_task, given.rounds))
        return
    print(f"{'graph':16}{'tasks':>9}{'edges':>11}{'wall s':>8}{'CPU s':>8}  {'found':34}networkx s")
    for make in GRAPHS:
        system = System({}, make(given.tasks, given.edges_per_task))
        show(make.__name__, system, given.rounds, networkx_seconds(dict(system.tasks), given.rounds))
    show("full_pool", full_pool(given.tasks // 10), given.rounds, "-")
    add_edges()


def show(name: str, system: System, rounds: int, other: str) -> None:
    edges = sum(len(task.deps) for task in system.tasks.values())
    wall, cpu = best_of(rounds, lambda: detect(system))
    report = detect(system)
    found = f"{len(report.stuck)} stuck, {len(report.components)} components"
    print(f"{name:16}{len(system.tasks):9,}{edges:11,}{wall:8.2f}{cpu:8.2f}  {found:34}{other}", flush=True)


if __name__ == "__main__":
    main()
