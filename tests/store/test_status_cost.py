"""`status` is asked again and again by whoever watches: its cost does not grow with what has ended."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentorch_cli.core.model import TaskSpec
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.status import get_status
from agentorch_cli.handlers.tally import tally_tasks
from agentorch_cli.handlers.tasks import submit_tasks
from agentorch_cli.store.queries import statements
from agentorch_cli.store.store import Store

ENDED = 30_000
MANY = 5_000
FULL_SCAN = re.compile(r"Seq Scan on (task_distributions|task_attempts|events)\b")


class Asked:
    """Stands before a database, and remembers what was asked."""

    def __init__(self, db: Any) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        for method in ("fetch", "fetch_one"):
            setattr(self, method, self._remembering(getattr(db, method)))
        self._db = db

    def _remembering(self, ask: Any) -> Any:
        async def asked(name: str, *args: Any, **options: Any) -> Any:
            assert not any(options.values())  # nothing here narrows a list
            self.calls.append((name, args))
            return await ask(name, *args, **options)

        return asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


async def status_and_calls(store: Store) -> tuple[Any, list[tuple[str, tuple[Any, ...]]]]:
    real = store.db
    asked = Asked(real)
    store.db = asked  # type: ignore[assignment]
    try:
        return await get_status(Context(store), limit=50), asked.calls
    finally:
        store.db = real


async def fill(store: Store) -> None:
    """Tasks that have ended, each with its attempt and its events."""
    async with store.db.pool.acquire() as connection:
        await connection.execute(f"""
            insert into task_distributions
              (task_id, task_type, status, submission_id, started_at, completed_at, created_at)
            select 'old-' || n, 'count', case when n % 100 = 0 then 'failed' else 'completed' end,
              gen_random_uuid(), past.at, past.at, past.at
            from generate_series(1, {ENDED}) n, (select now() - interval '1 hour' as at) past;
            insert into task_attempts
              (message_id, task_id, agent_id, attempt, status, slot, node_id, finished_at)
            select gen_random_uuid(), 'old-' || n, 'a', 1, 'completed', 0, 'x', now()
            from generate_series(1, {ENDED}) n;
            insert into events (kind, task_id, at)
            select kind, 'old-' || n, now() - interval '1 hour'
            from generate_series(1, {ENDED}) n, unnest(array['task_submitted', 'task_completed']) kind;
        """)
        for table in ("task_distributions", "task_attempts", "events", "task_dependencies"):
            await connection.execute(f"vacuum analyze {table}")


async def test_status_reads_no_task_that_has_ended_but_through_an_index(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentorch_cli.handlers.status.MOST_COUNTED", MANY)
    empty, few_calls = await status_and_calls(store)
    await fill(store)
    await submit_tasks(
        Context(store),
        [TaskSpec("a", required_capabilities=("fly",)), TaskSpec("b", depends_on=("a",)), TaskSpec("c")],
    )

    status, calls = await status_and_calls(store)

    assert not empty.counts_estimated
    assert status.counts_estimated
    assert (status.task_counts["pending"], status.task_counts["blocked"]) == (2, 1)
    assert status.task_counts["completed"] == pytest.approx(0.99 * ENDED, rel=0.02)
    assert status.task_counts["failed"] == pytest.approx(0.01 * ENDED, rel=0.3)
    assert "count_tasks" in dict(few_calls)
    assert "count_tasks" not in dict(calls)
    assert len(calls) <= len(few_calls) + 4, "pools and waiting work have statements of their own"
    async with store.db.pool.acquire() as connection:
        for name, args in calls:
            plan = await connection.fetch(f"explain {statements()[name]}", *args)
            scans = [row[0] for row in plan if FULL_SCAN.search(row[0])]
            assert not scans, f"{name} reads everything: {scans}"


async def test_a_tally_of_a_submission_reads_nothing_that_is_older(store: Store) -> None:
    await fill(store)
    context = Context(store)
    specs = [TaskSpec(f"t{n}", depends_on=("t0",) if n else ()) for n in range(5)]
    reply = await submit_tasks(context, specs)

    tally = await tally_tasks(context, ["t0"], reply.submission_id)
    some = await tally_tasks(context, ["t0", "t1", "old-1"])

    assert tally.counts == {"pending": 1, "blocked": 4}
    assert some.counts == {"pending": 1, "blocked": 1, "completed": 1}
    async with store.db.pool.acquire() as connection:
        plan = await connection.fetch(
            f"explain {statements()['tally_submission']}", reply.submission_id, "t0"
        )
    assert not [row[0] for row in plan if FULL_SCAN.search(row[0])]


async def test_the_flow_tells_what_came_and_what_ended_within_the_minute(store: Store) -> None:
    context = Context(store)
    await submit_tasks(context, [TaskSpec(f"t{n}") for n in range(6)])
    async with store.db.pool.acquire() as connection:
        await connection.execute("""
            insert into events (kind, task_id, at)
            values ('task_completed', 't1', now() - interval '5 seconds'),
                   ('task_failed', 't2', now() - interval '2 minutes');
        """)

    flow = (await get_status(context)).flow

    assert flow.seconds == 60
    assert (flow.in_per_second, flow.out_per_second) == (6 / 60, 1 / 60)
    assert sum(filter(None, flow.came)) == 6
    assert sum(filter(None, flow.ended)) == 1
    assert flow.ended[-4:].count(1) == 1
    assert len(flow.came) == len(flow.ended) == 30


async def test_after_a_burst_the_rate_of_what_came_is_that_of_all_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentorch_cli.handlers.status.MOST_EVENTS", 100)
    context = Context(store)
    await submit_tasks(context, [TaskSpec("old")])
    async with store.db.pool.acquire() as connection:
        await connection.execute("update task_distributions set created_at = now() - interval '5 minutes'")
    await submit_tasks(context, [TaskSpec(f"t{n}") for n in range(600)])

    flow = (await get_status(context)).flow

    assert flow.in_per_second == 10
    assert flow.seconds < 60
    assert flow.came[0] is None, "was not read"


async def test_running_tasks_come_with_progress_and_note_the_longest_first(store: Store) -> None:
    context = Context(store)
    await submit_tasks(context, [TaskSpec("late"), TaskSpec("early"), TaskSpec("waits")])
    async with store.db.pool.acquire() as connection:
        await connection.execute("""
            update task_distributions set status = 'running', wanted = 0, started_at = now()
            where task_id in ('late', 'early');
            insert into task_attempts
              (message_id, task_id, agent_id, attempt, status, slot, node_id, sent_at, progress, note)
            values
              (gen_random_uuid(), 'late', 'a', 1, 'accepted', 0, 'n', now(), 0.25, 'reading'),
              (gen_random_uuid(), 'early', 'a', 1, 'sent', 1, 'n', now() - interval '9 seconds', null, null);
        """)

    running = (await get_status(context)).running

    assert [(one.task_id, one.progress, one.note) for one in running] == [
        ("early", None, None),
        ("late", 0.25, "reading"),
    ]
    assert [one.task_id for one in (await tally_tasks(context, ["late", "waits"])).running] == ["late"]


async def test_alarms_name_schedules_that_fail_agents_that_are_out_and_a_full_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with store.db.pool.acquire() as connection:
        await connection.execute("""
            insert into schedules (name, cron, tasks, next_at, error, retry_at)
            values ('nightly', '0 2 * * *', '[]', now(), 'the zone is gone', now()),
                   ('fine', '0 2 * * *', '[]', now(), null, null);
            insert into agent_registry (agent_id, agent_type, excluded_until, excluded_reason, trips)
            select 'bad-' || n, 'worker', now() + interval '1 hour', '4 failures in a row', 1
            from generate_series(1, 7) n;
        """)
    free = SimpleNamespace(total=10**12, free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    context = Context(store, data_dir=tmp_path)

    alarms = (await get_status(context)).alarms

    assert alarms[0] == f"the disk of the database is nearly full: 0.1 GB are free in {tmp_path}"
    assert "the schedule nightly cannot run: the zone is gone (agentorch schedule show nightly)" in alarms
    assert sum(": 4 failures in a row" in one for one in alarms) == 5
    assert "2 more agents are excluded: agentorch agent list" in alarms
    assert not any("fine" in one for one in alarms)
    free.free = 10**11
    assert not any("disk" in one for one in (await get_status(context)).alarms)
