"""Whether the cost of a task grows: with finished tasks in the tables, with a backlog, and with time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import asyncpg

from bench.figures import Findings
from bench.fleet.engine import ROOT, Engine, engine
from bench.scenarios import Scenario, Sizes
from bench.throughput import both_seconds, drain_seconds, submit_seconds, until_all_done

PORTION = 100_000
"""Rows that one statement copies."""

COLUMNS = """
  select column_name, data_type from information_schema.columns
  where table_schema = 'public' and table_name = $1 and is_identity = 'NO' and is_generated = 'NEVER'
    and coalesce(column_default, '') not like 'nextval(%'
  order by ordinal_position"""

AGE = "interval '1 second' * ($1::bigint + n) / 100"
"""How long ago the n-th copy was: 100 a second."""


async def finished(sizes: Sizes) -> Findings:
    """Drain with finished tasks stored, beside the same on the empty tables just before.

    They are copies of tasks that the program itself has finished: the task, its attempt and its events,
    with ids and times of their own, and statistics and visibility as autovacuum would have left them.
    """
    found = Findings()
    async with engine() as one:
        await submit_seconds(one, sizes.tasks)
        done, seconds, _ = await drain_seconds(one, sizes.tasks)
        empty = done / seconds
        await without_agents(one)
        start = time.perf_counter()
        await copy_finished(one.db, sizes.finished)
        found.notes.append(
            f"{sizes.finished:,} finished tasks were stored in {time.perf_counter() - start:.0f} s"
        )
        await submit_seconds(one, sizes.tasks)
        done, seconds, cpu = await drain_seconds(one, sizes.tasks)
        found.add("finished before", sizes.finished, "tasks")
        found.rate("empty", round(empty), 1.0)
        found.rate("rate", done, seconds)
        found.add("rate / empty", done / seconds / empty, "x", "more")
        for process, microseconds in cpu.items():
            found.add(f"cpu {process}", microseconds, "us/task", "less")
        for table, counts in (await one.tables()).items():
            found.add(f"size {table}", (counts["heap_bytes"] + counts["index_bytes"]) / 2**20, "MiB")
    return found


async def copy_finished(db: asyncpg.Pool, number: int) -> None:
    """Multiply the newest finished task until there are so many more."""
    task_id = await db.fetchval(
        "select task_id from task_distributions where status = 'completed' order by seq desc limit 1"
    )
    version = int(await db.fetchval("show server_version_num"))
    # Ids of the program begin with their time, and so do these, where the server can make them.
    made = "uuidv7(-(" + AGE + "))" if version >= 180_000 else "gen_random_uuid()"
    await db.execute(
        "create unlogged table bench_copies (n bigint, task_id text, message_id uuid, submission_id uuid)"
    )
    for first in range(0, number, PORTION):
        many = min(PORTION, number - first)
        await db.execute("truncate bench_copies")
        await db.execute(
            f"insert into bench_copies select n, ({made})::text, {made}, {made}"
            " from generate_series(1::bigint, $2::bigint) as n",
            first,
            many,
            timeout=600,
        )
        for table in ("task_distributions", "task_attempts", "events"):
            await db.execute(*await _copying(db, table, task_id), timeout=600)
    await db.execute("drop table bench_copies")
    for table in ("task_distributions", "task_attempts", "events"):
        await db.execute(f"vacuum (analyze) {table}", timeout=600)
    await db.execute("checkpoint", timeout=600)


async def _copying(db: asyncpg.Pool, table: str, task_id: str) -> tuple[str, str]:
    """The statement that copies the rows of a task for all ids of a portion."""
    own = {"task_id": "c.task_id", "message_id": "c.message_id", "submission_id": "c.submission_id"}
    names, values = [], []
    for column in await db.fetch(COLUMNS, table):
        name = column["column_name"]
        names.append(name)
        if name in own:
            values.append(
                own[name]
                if name != "message_id"
                else "case when t.message_id is not null then c.message_id end"
            )
        elif column["data_type"] == "timestamp with time zone":
            values.append(f"t.{name} - c.n * interval '10 milliseconds'")
        else:
            values.append(f"t.{name}")
    statement = (
        f"insert into {table} ({', '.join(names)}) select {', '.join(values)}"
        f" from bench_copies c cross join {table} t where t.task_id = $1"
    )
    return statement, task_id


async def backlog(sizes: Sizes) -> Findings:
    """Drain a long backlog, beside a short one on the same engine just before."""
    found = Findings()
    async with engine() as one:
        await submit_seconds(one, sizes.tasks)
        done, seconds, _ = await drain_seconds(one, sizes.tasks)
        short = done / seconds
        await without_agents(one)
        found.rate("submit", sizes.backlog, await submit_seconds(one, sizes.backlog))
        done, seconds, cpu = await drain_seconds(one, sizes.backlog)
        found.add("backlog", sizes.backlog, "tasks")
        found.rate("short backlog", round(short), 1.0)
        found.rate("rate", done, seconds)
        found.add("rate / short backlog", done / seconds / short, "x", "more")
        for process, microseconds in cpu.items():
            found.add(f"cpu {process}", microseconds, "us/task", "less")
        moments = await one.db.fetch(
            "select extract(epoch from percentile_disc(s) within group (order by completed_at)) as at"
            " from (select completed_at from task_distributions order by seq desc limit $1) as t,"
            " unnest(array[0.0, 0.1, 0.9, 1.0]) as s group by s order by s",
            sizes.backlog,
        )
        begun, first, last, ended = (float(row["at"]) for row in moments)
        found.rate("first tenth", sizes.backlog // 10, first - begun)
        found.rate("last tenth", sizes.backlog // 10, ended - last)
    return found


async def without_agents(one: Engine) -> None:
    for agent in one.agents:
        agent.terminate()
    for agent in one.agents:
        await asyncio.to_thread(agent.wait, 20)
    one.agents.clear()
    while await one.db.fetchval("select count(*) from agent_registry where status = 'online'"):
        await asyncio.sleep(0.02)


# --- time -------------------------------------------------------------------------------------


OPEN_TASKS = 1_000
"""So many wait or run at any moment of the soak: enough for full batches."""

STORED = """
  select count(*) as number, extract(epoch from max(completed_at) - min(completed_at)) as seconds,
    percentile_cont(array[0.5, 0.99]) within group (
      order by extract(epoch from completed_at - created_at) * 1000) as ms
  from task_distributions
  where seq > $1 and seq <= $2 and status = 'completed'"""


async def soak(sizes: Sizes) -> Findings:
    """Full load for some minutes: the first and the last minute, dead rows and sizes in between."""
    found = Findings()
    async with engine() as one:
        one.start_agent()
        await one.until_online(1)
        await both_seconds(one, sizes.tasks)
        pump = await asyncio.to_thread(_start_pump, one)
        rows: list[dict[str, Any]] = []
        try:
            marks = [await _newest(one)]
            before = one.cpu_seconds()
            began = time.monotonic()
            for minute in range(1, max(2, round(sizes.minutes)) + 1):
                most_dead: dict[str, int] = {}
                share = sizes.minutes / max(2, round(sizes.minutes)) * 60
                while time.monotonic() - began < minute * share:
                    await asyncio.sleep(min(5.0, max(0.05, minute * share - (time.monotonic() - began))))
                    for table, counts in (await one.tables()).items():
                        most_dead[table] = max(most_dead.get(table, 0), counts["dead"])
                marks.append(await _newest(one))
                rows.append({"dead": most_dead, "tables": await one.tables(), "memory": one.memory()})
            after = one.cpu_seconds()
        finally:
            pump.terminate()
            await asyncio.to_thread(pump.wait, 60)
        await until_all_done(one.client, OPEN_TASKS)
        for row, first, last in zip(rows, marks, marks[1:], strict=False):
            row["stored"] = await one.db.fetchrow(STORED, first, last, timeout=300)
        _tell(found, rows)
        found.cpu(before, after, marks[-1] - marks[0])
        found.notes += _table(rows)
    return found


def _tell(found: Findings, rows: list[dict[str, Any]]) -> None:
    """The first and the last part beside each other."""
    first, last = rows[0], rows[-1]
    rates = [float(row["stored"]["number"] / row["stored"]["seconds"]) for row in (first, last)]
    found.add("tasks", sum(row["stored"]["number"] for row in rows), "tasks")
    found.rate("first minute", round(rates[0]), 1.0)
    found.rate("last minute", round(rates[1]), 1.0)
    found.add("last / first minute", rates[1] / rates[0], "x", "more")
    for name, row in (("first", first), ("last", last)):
        for part, value in zip(("p50", "p99"), row["stored"]["ms"], strict=True):
            found.add(f"latency {name} minute {part}", value, "ms", "less")
    for table in ("task_distributions", "task_attempts", "events"):
        counts = last["tables"][table]
        found.add(f"most dead rows {table}", max(row["dead"].get(table, 0) for row in rows), "rows", "less")
        for name, row in (("first", first), ("last", last)):
            one = row["tables"][table]
            per_row = (one["heap_bytes"] + one["index_bytes"]) / max(1, one["live"] + one["dead"])
            found.add(f"size a row {table}, {name} minute", per_row, "B", "less")
        if counts["updates"]:
            found.add(f"HOT updates {table}", counts["hot_updates"] / counts["updates"], "share", "more")
    for process in ("serve", "agent"):
        found.add(f"memory {process}, first minute", first["memory"][process] / 1024, "MB", "less")
        found.add(f"memory {process}, last minute", last["memory"][process] / 1024, "MB", "less")


def _table(rows: list[dict[str, Any]]) -> list[str]:
    names = ("minute", "tasks/s", "p50 ms", "p99 ms", "dead tasks", "dead attempts", "tables MiB", "serve MB")
    said = ["".join(f"{name:>14}" for name in names)]
    for number, row in enumerate(rows, start=1):
        stored, dead = row["stored"], row["dead"]
        size = sum(one["heap_bytes"] + one["index_bytes"] for one in row["tables"].values()) / 2**20
        values = (
            f"{number}",
            f"{stored['number'] / stored['seconds']:,.0f}",
            *(f"{value:.1f}" for value in stored["ms"]),
            *(f"{dead.get(table, 0):,}" for table in ("task_distributions", "task_attempts")),
            f"{size:,.0f}",
            f"{row['memory']['serve'] / 1024:.0f}",
        )
        said.append("".join(f"{value:>14}" for value in values))
    return said


async def _newest(one: Engine) -> int:
    return int(await one.db.fetchval("select coalesce(max(seq), 0) from task_distributions"))


def _start_pump(one: Engine) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.load", "--data-dir", str(one.data_dir), "--open", str(OPEN_TASKS)]
    pump = subprocess.Popen(command, cwd=ROOT, env=one.environment, stdout=subprocess.PIPE)
    assert pump.stdout is not None
    pump.stdout.readline()
    return pump


SCENARIOS = (
    Scenario("finished", "drain with finished tasks stored, beside the empty tables", finished, repeat=1),
    Scenario("backlog", "drain of a long backlog, beside a short one", backlog, repeat=1),
    Scenario(
        "soak",
        "minutes of full load: dead rows, sizes, first and last minute",
        soak,
        repeat=1,
        is_default=False,
    ),
)
