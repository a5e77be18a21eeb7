"""The ledger in the tables: it adds and fades like its dumb twin, stays small, and gets in nobody's way."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from agentorch_cli.core.ledger import (
    Evidence,
    bucket_of,
    hourly_score,
    left_after,
    left_after_outcomes,
    weight_of,
)
from agentorch_cli.core.model import AgentSpec, AttemptStatus, TaskSpec
from agentorch_cli.core.reliability import Record
from agentorch_cli.engine.ledger import entries
from agentorch_cli.engine.state import Account, AccountKey
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.agents import get_agent, list_agents, register_agents, remove_agents
from agentorch_cli.handlers.tasks import submit_tasks
from agentorch_cli.store.ledger import (
    MOST_ROWS,
    credit,
    evidence_of_all,
    evidence_since,
    keep_accounts,
    reckon,
)
from agentorch_cli.store.queries import statements
from agentorch_cli.store.store import Store

COMPLETED, FAILED, LOST = AttemptStatus.COMPLETED, AttemptStatus.FAILED, AttemptStatus.LOST
WEEK = 7 * 86_400.0
Minute = tuple[int, str, int, int, int, float]
"""Minutes ago, agent, completed, failed, lost, seconds."""
SEED = int(os.environ.get("AGENTORCH_SEED", "20260504"))


@pytest.fixture
async def registry(store: Store) -> Store:
    """Three agents."""
    await _register(store, "a", "b", "c")
    return store


async def _register(store: Store, *agents: str) -> None:
    await store.db.pool.execute(
        "insert into agent_registry (agent_id, agent_type) select unnest($1::text[]), 'worker'", list(agents)
    )


async def _keep(store: Store, *outcomes: tuple[str, str, str, AttemptStatus, float]) -> None:
    """Write attempts (agent, skill, type, how it ended, seconds) at once, as one beat does."""
    accounts: dict[AccountKey, Account] = {}
    for agent, skill, kind, status, seconds in outcomes:
        accounts.setdefault((agent, skill, kind), Account()).add(status, seconds, None)
    await keep_accounts(store, entries(accounts))


async def _row(store: Store, agent: str, skill: str = "", kind: str = "") -> Any:
    return await store.db.pool.fetchrow(
        "select * from agent_ledger where agent_id = $1 and skill = $2 and task_type = $3", agent, skill, kind
    )


async def _age(store: Store, seconds: float) -> None:
    """Let time pass for every row."""
    await store.db.pool.execute(
        "update agent_ledger set updated_at = updated_at - $1 * interval '1 second'", seconds
    )


async def _minutes(store: Store, *rows: Minute) -> None:
    """What was finished."""
    await store.db.pool.executemany(
        "insert into agent_minutes (minute, agent_id, completed, failed, lost, seconds)"
        " values (date_trunc('minute', now()) - $1 * interval '1 minute', $2, $3, $4, $5, $6)",
        rows,
    )


# --- adding and fading --------------------------------------------------------------------------


async def test_rows_add_up_and_fade_like_their_twin(registry: Store) -> None:
    rng = random.Random(SEED)
    kinds = [("sql", "report"), ("sql", "query"), ("any", "report")]
    evidence: dict[tuple[str, str, str], Evidence] = {}
    counts: dict[tuple[str, str, str], list[float]] = {}
    buckets: dict[tuple[str, str, str], list[float]] = {}

    for _ in range(12):
        batch: list[tuple[str, str, str, AttemptStatus, float]] = []
        for _ in range(rng.randint(1, 30)):
            skill, kind = rng.choice(kinds)
            status = rng.choice([COMPLETED, COMPLETED, FAILED, LOST])
            batch.append((rng.choice("abc"), skill, kind, status, rng.lognormvariate(0, 2)))
        rested = rng.choice([0.0, 60.0, 86_400.0, WEEK])
        await _age(registry, rested)
        await _keep(registry, *batch)

        left = left_after(rested, WEEK)
        keys = {key for agent, skill, kind, _, _ in batch for key in ((agent, skill, kind), (agent, "", ""))}
        for key in keys:
            mine = [one for one in batch if key in ((one[0], one[1], one[2]), (one[0], "", ""))]
            good = sum(one[3] is COMPLETED for one in mine)
            each = weight_of(len(mine)) / len(mine)
            old = evidence.get(key, Evidence()).times(left * left_after_outcomes(len(mine)))
            evidence[key] = old.plus(Evidence(good * each, len(mine) * each))
            ended = [good, sum(one[3] is FAILED for one in mine), sum(one[3] is LOST for one in mine)]
            counts[key] = [
                was * left + new for was, new in zip(counts.get(key, [0, 0, 0]), ended, strict=True)
            ]
            histogram = [value * left for value in buckets.get(key, [0.0] * 60)]
            for one in mine:
                if one[3] is COMPLETED:
                    histogram[bucket_of(one[4])] += 1
            buckets[key] = histogram
        for key in evidence.keys() - keys:  # nothing came: they only fade, when they are written again
            evidence[key] = evidence[key].times(left)
            counts[key] = [value * left for value in counts[key]]
            buckets[key] = [value * left for value in buckets[key]]

    lines, _ = await evidence_of_all(registry)
    found = {(one.agent_id, one.skill, one.task_type): one.evidence for one in lines}
    assert found.keys() == evidence.keys(), f"seed {SEED}"
    for key, twin in evidence.items():
        row = await _row(registry, *key)
        assert found[key].right == pytest.approx(twin.right, rel=1e-4), f"{key}, seed {SEED}"
        assert found[key].trials == pytest.approx(twin.trials, rel=1e-4), f"{key}, seed {SEED}"
        stale = left_after((datetime.now(UTC) - row["updated_at"]).total_seconds(), WEEK)
        assert [row["completed"] * stale, row["failed"] * stale, row["lost"] * stale] == pytest.approx(
            counts[key], rel=1e-4
        ), f"{key}, seed {SEED}"
        long = [*row["latency"], *[0.0] * (60 - len(row["latency"]))]
        assert [value * stale for value in long] == pytest.approx(buckets[key], rel=1e-4, abs=1e-9)


async def test_what_is_known_counts_half_after_the_half_life(registry: Store) -> None:
    await _keep(registry, *[("a", "sql", "t", COMPLETED, 1.0)] * 8, *[("a", "sql", "t", FAILED, 1.0)] * 2)
    fresh, _ = await evidence_of_all(registry)

    await _age(registry, WEEK)
    old, _ = await evidence_of_all(registry)
    shown = await get_agent(Context(registry), "a")

    assert [one.evidence.trials for one in old] == pytest.approx([one.evidence.trials / 2 for one in fresh])
    assert [one.evidence.right for one in old] == pytest.approx([one.evidence.right / 2 for one in fresh])
    assert [row.completed for row in shown.ledger] == pytest.approx([4.0, 4.0], rel=1e-4)
    assert [row.success_rate for row in shown.ledger] == pytest.approx([0.8, 0.8])


async def test_a_shorter_half_life_forgets_sooner(registry: Store) -> None:
    hasty = Store(registry.db, half_life_seconds=3_600.0)
    await _keep(hasty, ("a", "sql", "t", FAILED, 1.0))
    await _age(registry, 7_200)
    await _keep(hasty, ("a", "sql", "t", FAILED, 1.0))

    assert (await _row(registry, "a"))["failed"] == pytest.approx(1.25, rel=1e-3)


async def test_what_faded_away_is_no_trouble_however_long_ago_it_was(registry: Store) -> None:
    await _keep(registry, ("a", "sql", "t", COMPLETED, 1.0))
    await _age(registry, 500 * 365 * 86_400.0)
    await _keep(registry, ("a", "sql", "t", FAILED, 1.0))
    for _ in range(20):
        await _keep(registry, *[("a", "sql", "t", FAILED, 1.0)] * 500)

    row = await _row(registry, "a")
    assert (row["rights"], row["completed"]) == (0.0, 0.0)
    assert row["trials"] == pytest.approx(1 / 0.03)
    assert (await list_agents(Context(registry)))[0].performance_score == pytest.approx(2.83, abs=0.01)


async def test_credit_is_an_outcome_of_its_own_and_a_correction_takes_one_back(registry: Store) -> None:
    await submit_tasks(Context(registry), [TaskSpec("t1", type="quiz", required_capabilities=("sql",))])
    await _keep(registry, *[("a", "sql", "quiz", COMPLETED, 1.0)] * 10)
    before = (await _row(registry, "a", "sql", "quiz"))["trials"]

    async with registry.db.transaction() as tx:
        await credit(tx, registry, "t1", "sql", {"a": Record(0.25, 1.0)}, is_outcome=True)
    credited = await _row(registry, "a", "sql", "quiz")
    async with registry.db.transaction() as tx:
        await credit(tx, registry, "t1", "sql", {"a": Record(-0.25, 2.0)}, is_outcome=False)
    corrected = await _row(registry, "a", "sql", "quiz")

    assert credited["trials"] == pytest.approx(before * 0.97 + 1, rel=1e-5)
    assert credited["rights"] == pytest.approx(before * 0.97 + 0.25, rel=1e-5)
    assert corrected["trials"] == pytest.approx(credited["trials"] + 2, rel=1e-5)
    assert corrected["rights"] == pytest.approx(credited["rights"] - 0.25, rel=1e-5)
    assert corrected["completed"] == pytest.approx(10, rel=1e-5)
    assert (await _row(registry, "a"))["trials"] == pytest.approx(corrected["trials"])


async def test_a_success_that_is_taken_back_before_it_was_written_comes_out_as_none(registry: Store) -> None:
    await submit_tasks(Context(registry), [TaskSpec("t1", type="quiz", required_capabilities=("sql",))])

    async with registry.db.transaction() as tx:
        await credit(tx, registry, "t1", "sql", {"a": Record(-1.0, 2.0)}, is_outcome=False)
    early, _ = await evidence_of_all(registry)
    await _keep(registry, ("a", "sql", "quiz", COMPLETED, 1.0))
    late, _ = await evidence_of_all(registry)

    assert {one.evidence.right for one in early} == {0.0}
    assert [one.evidence.right for one in late] == pytest.approx([0.03, 0.03], abs=0.001)
    assert [one.evidence.trials for one in late] == pytest.approx([2.94, 2.94], abs=0.001)


async def test_what_is_new_is_read_without_the_rest(registry: Store) -> None:
    await _keep(registry, ("a", "sql", "t", COMPLETED, 1.0), ("b", "sql", "t", COMPLETED, 1.0))
    await _age(registry, 3_600)
    everything, moment = await evidence_of_all(registry)
    assert moment is not None
    await _keep(registry, ("b", "sql", "t", FAILED, 1.0))

    new, again = await evidence_since(registry, moment)
    later, _ = await evidence_since(registry, moment + timedelta(days=1))

    assert len(everything) == 4
    assert {(one.agent_id, one.skill) for one in new} == {("b", ""), ("b", "sql")}
    assert again is not None
    assert again >= moment
    assert later == []


# --- the last hour ------------------------------------------------------------------------------


def hourly(minutes: list[Minute], agent: str) -> float:
    """The plain rule of what an agent finished in the last hour."""
    mine = [one for one in minutes if one[1] == agent and one[0] < 60]
    return hourly_score(
        sum(one[2] for one in mine),
        sum(one[3] for one in mine),
        sum(one[4] for one in mine),
        sum(one[5] for one in mine),
    )


async def test_the_hourly_score_is_the_plain_rule_for_every_agent(registry: Store) -> None:
    rng = random.Random(SEED)
    agents = [f"agent-{number}" for number in range(40)]
    await _register(registry, *agents)
    minutes = [
        (
            ago,
            agent,
            rng.choice([0, 1, 5]),
            rng.choice([0, 0, 2]),
            rng.choice([0, 0, 1]),
            rng.choice([0.5, 200.0, 3_000.0]),
        )
        for agent in agents[:35]
        for ago in rng.sample([*range(58), *range(62, 120)], 3)  # not where a minute may pass meanwhile
    ]
    await _minutes(registry, *minutes)

    active = await reckon(registry)

    found = {one.agent_id: one.performance_hourly for one in await list_agents(Context(registry))}
    twin = {agent: hourly(minutes, agent) for agent in [*agents, "a", "b", "c"]}
    one_by_one = {
        agent: (await get_agent(Context(registry), agent)).performance_hourly for agent in agents[::7]
    }
    assert found == pytest.approx(twin), f"seed {SEED}"
    assert one_by_one == pytest.approx({agent: twin[agent] for agent in one_by_one}), f"seed {SEED}"
    assert active == len({agent for ago, agent, *_ in minutes if ago < 60})
    assert await registry.db.pool.fetchval("select count(*) from agent_minutes") == sum(
        one[0] < 60 for one in minutes
    )


async def test_an_hour_without_work_leads_back_to_fifty_and_then_nothing_is_written(registry: Store) -> None:
    await _minutes(registry, (5, "a", 1, 0, 0, 1.0), (30, "b", 0, 1, 0, 1.0))
    await reckon(registry)
    busy = {one.agent_id: one.performance_hourly for one in await list_agents(Context(registry))}
    await registry.db.pool.execute("update agent_minutes set minute = minute - interval '1 hour'")

    active = await reckon(registry)

    versions = "select agent_id, xmin::text from agent_registry order by agent_id"
    before = await registry.db.pool.fetch(versions)
    await reckon(registry)
    assert busy == {"a": 100.0, "b": 50.0, "c": 50.0}
    assert active == 0
    assert {one.performance_hourly for one in await list_agents(Context(registry))} == {50.0}
    assert await registry.db.pool.fetch(versions) == before


async def test_the_score_in_the_table_is_the_estimate_of_the_ledger(registry: Store) -> None:
    await _keep(registry, *[("a", "sql", "t", COMPLETED, 1.0)] * 3, ("a", "any", "u", FAILED, 1.0))
    await _keep(registry, ("b", "any", "u", FAILED, 1.0))
    await reckon(registry)

    scores = await registry.db.pool.fetch(
        "select agent_id, performance_score from agent_registry order by agent_id"
    )
    shown = await list_agents(Context(registry))
    first = weight_of(4)

    assert [row["performance_score"] for row in scores] == pytest.approx(
        [100 * (first * 3 / 4 + 1) / (first + 2), 100 / 3, 100.0], abs=0.001
    )
    assert [one.performance_score for one in shown] == [row["performance_score"] for row in scores]


async def test_the_trend_is_the_last_hour_in_twelve_pieces(registry: Store) -> None:
    await _minutes(
        registry,
        (0, "a", 1, 0, 0, 1.0),  # each may be a minute older before it is read
        (3, "a", 2, 1, 0, 1.0),
        (6, "a", 4, 0, 1, 1.0),
        (57, "a", 8, 0, 0, 1.0),
        (62, "a", 100, 0, 0, 1.0),
        (7, "b", 100, 0, 0, 1.0),
    )

    trend = (await get_agent(Context(registry), "a")).trend

    assert [one.minutes_ago for one in trend] == list(range(60, 0, -5))
    assert [one.completed for one in trend] == [8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 3]
    assert [one.failed for one in trend] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]


# --- bounds -------------------------------------------------------------------------------------


async def test_an_agent_of_ten_thousand_task_types_keeps_sixty_four_rows(registry: Store) -> None:
    await _keep(registry, *[("a", "any", f"old-{n}", COMPLETED, 1.0) for n in range(10_000)])
    await _age(registry, 60)
    await _keep(registry, *[("a", "any", f"new-{n}", COMPLETED, 1.0) for n in range(10)])
    await _keep(registry, *[("b", "any", f"t-{n}", COMPLETED, 1.0) for n in range(MOST_ROWS)])

    await reckon(registry)

    types = [row.task_type for row in (await get_agent(Context(registry), "a")).ledger]
    assert len(types) == MOST_ROWS + 1 == 65
    assert {f"new-{n}" for n in range(10)} | {""} <= set(types)
    assert len((await get_agent(Context(registry), "b")).ledger) == MOST_ROWS + 1


async def test_trimming_never_compares_each_row_with_each(registry: Store) -> None:
    """Not even by the plan that a planner makes for a table that it holds for empty."""
    await _keep(registry, *[("a", "any", f"old-{n}", COMPLETED, 1.0) for n in range(500)])

    async with registry.db.pool.acquire() as connection, connection.transaction():
        for means in ("hashjoin", "mergejoin", "indexscan", "indexonlyscan", "bitmapscan"):
            await connection.execute(f"set local enable_{means} = off")
        told = await connection.fetchval(
            f"explain (analyze, format json) {statements()['trim_ledger']}", MOST_ROWS
        )

    read = [
        node["Actual Rows"] * node["Actual Loops"]
        for node in _nodes(json.loads(told)[0]["Plan"])
        if node.get("Relation Name") == "agent_ledger" and "Scan" in node["Node Type"]
    ]
    assert 500 < sum(read) < 10 * 500, told
    assert len((await get_agent(Context(registry), "a")).ledger) == MOST_ROWS + 1


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


async def test_the_longest_names_have_room(store: Store) -> None:
    agent, kind = "\U0001f600" * 200, "\U0001f601" * 200
    capabilities = tuple(f"{n}" + "\U0001f602" * 199 for n in range(5))
    await _register(store, agent)
    await submit_tasks(Context(store), [TaskSpec("t1", type=kind, required_capabilities=capabilities)])
    long_skill = "+".join(sorted(capabilities))

    await _keep(store, (agent, long_skill[:200], kind, COMPLETED, 1.0))
    async with store.db.transaction() as tx:
        await credit(tx, store, "t1", long_skill, {agent: Record(1.0, 1.0)}, is_outcome=True)

    lines, _ = await evidence_of_all(store)
    assert [one.skill for one in sorted(lines, key=lambda one: one.skill)] == ["", long_skill[:200]]


async def test_what_is_known_of_an_agent_goes_with_it(registry: Store) -> None:
    await _keep(registry, ("a", "sql", "t", FAILED, 1.0), ("b", "sql", "t", FAILED, 1.0))
    await remove_agents(Context(registry), ["a"])
    await _keep(registry, ("a", "sql", "t", FAILED, 1.0), ("b", "sql", "t", FAILED, 1.0))

    lines, _ = await evidence_of_all(registry)
    assert {one.agent_id for one in lines} == {"b"}

    back = await register_agents(Context(registry), [AgentSpec("a")])
    assert (back[0].performance_score, back[0].success_rate) == (100.0, None)


# --- in nobody's way ----------------------------------------------------------------------------


async def test_a_row_that_somebody_holds_stops_no_reckoning(registry: Store, database_url: str) -> None:
    await _minutes(registry, (1, "a", 0, 1, 0, 1.0), (1, "b", 1, 0, 0, 1.0))
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        await other.execute("select from agent_registry where agent_id = 'b' for update")
        async with asyncio.timeout(30):
            await reckon(registry)
        held = {one.agent_id: one.performance_hourly for one in await list_agents(Context(registry))}
    await other.close()
    await reckon(registry)
    free = {one.agent_id: one.performance_hourly for one in await list_agents(Context(registry))}

    assert held["b"] == 50.0
    assert free["b"] == 100.0


async def test_rows_are_locked_in_the_order_of_their_key(registry: Store, database_url: str) -> None:
    await _keep(registry, ("a", "sql", "t", FAILED, 1.0), ("b", "sql", "t", FAILED, 1.0))
    await submit_tasks(Context(registry), [TaskSpec("t1", type="t", required_capabilities=("sql",))])

    async def earn() -> None:
        earned = {"b": Record(1.0, 1.0), "a": Record(1.0, 1.0)}
        async with registry.db.transaction() as tx:
            await credit(tx, registry, "t1", "sql", earned, is_outcome=True)

    async def keep() -> None:
        await _keep(registry, ("b", "sql", "t", FAILED, 1.0), ("a", "sql", "t", FAILED, 1.0))

    for statement in (keep, earn):
        other = await asyncpg.connect(database_url)
        await other.execute("set lock_timeout = '500ms'; begin")
        await other.execute("select from agent_ledger where agent_id = 'a' and skill = '' for update")
        running = asyncio.create_task(statement())
        async with asyncio.timeout(30):
            while not await registry.db.pool.fetchval(
                "select exists (select from pg_stat_activity"
                " where wait_event_type = 'Lock' and datname = current_database())"
            ):
                assert not running.done(), "it did not wait"
                await asyncio.sleep(0.005)
        await other.execute("select from agent_ledger where agent_id = 'b' for update")  # nobody has it yet
        await other.execute("commit")
        await other.close()
        await running
