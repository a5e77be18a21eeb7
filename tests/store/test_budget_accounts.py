"""What budgets say agrees with their attempts, whatever happens to those, in whatever order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import asyncpg
import orjson
import pytest

from agentorch_cli.core.backlog import Ready
from agentorch_cli.core.budget import PER_DOLLAR, Account, Demand, Scope, Shortage, Unit, book, grant
from agentorch_cli.core.model import TaskSpec
from agentorch_cli.core.purses import Purses
from agentorch_cli.engine.funds import Funds
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.budgets import get_budget, remove_budgets, set_budget
from agentorch_cli.handlers.tasks import cancel_tasks, retry_tasks, submit_tasks
from agentorch_cli.identity import new_id_text
from agentorch_cli.store.records import Assignment
from agentorch_cli.store.store import Store

LABELS: tuple[dict[str, str], ...] = ({}, {"team": "ml"}, {"team": "ml", "stage": "b"}, {"stage": "b"})


class Engine:
    """As much of a scheduler and a settler as budgets need, one statement at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.context = Context(store)
        self.agent = 0
        self.funds = Funds(store, Purses())

    async def start(self, task_id: str, seats: int = 1) -> list[str]:
        """Assign attempts if they can be paid; their messages."""
        found = await self.store.ready_tasks_by_id([task_id])
        if not found:
            return []
        task = found[0]
        await self.funds.read()
        self.funds.purses.place(task)
        batch = self._assignments(task, seats)
        async with self.store.db.transaction() as tx:
            if await self.funds.claim(tx, [(task, batch)]):
                return []
            if task_id not in await self.store.assign_within(tx, batch):
                return []
            await self.funds.seal(tx)
        return [one.message_id for one in batch]

    def _assignments(self, task: Ready, seats: int) -> list[Assignment]:
        batch = []
        for number in range(seats):
            self.agent += 1
            made = task.attempts_made
            batch.append(
                Assignment(
                    task.task_id, made, new_id_text(), f"w{self.agent}", 0, None, made + number + 1, "n"
                )
            )
        return batch

    async def end(
        self, message_id: str, status: str, usage: dict[str, Any] | None = None, error: str | None = None
    ) -> bool:
        """An attempt ends, or brings a late result; its task is ready again."""
        told = orjson.dumps({"code": error}).decode() if error else None
        async with self.store.db.transaction() as tx:
            task_id = (await self.store.tasks_of([message_id]))[message_id]["task_id"]
            await self.store.lock_tasks(tx, [task_id])
            used = orjson.dumps(usage).decode() if usage else None
            rows = await tx.fetch(
                "finish_attempts", [message_id], [status], ["1"], [told], [None], [used], True
            )
            if not rows and usage:
                await tx.fetch("tell_usage", [message_id], [used])
            await tx.fetch(
                "settle_tasks", [task_id], ["pending"], [None], [None], [1], [0.0], [0], [0], ["{}"], ["{}"]
            )
        return bool(rows)


@pytest.fixture
async def engine(store: Store) -> Engine:
    await store.db.pool.execute(
        "insert into agent_registry (agent_id, agent_type, status, node_id, slots)"
        " select 'w' || n, 'worker', 'online', 'n', 1 from generate_series(0, 999) n"
    )
    return Engine(store)


async def tables_agree(store: Store) -> None:
    """Each budget is the sum of its reservations, and only attempts that run hold one."""
    wrong = await store.db.pool.fetch(
        "select b.scope, b.key, b.reserved_usd, b.spent_usd, f.held, f.charged, f.unknown, b.unknown_attempts"
        " from budgets b cross join lateral ("
        "  select coalesce(sum(held_usd), 0) held, coalesce(sum(charged_usd), 0) charged,"
        "   coalesce(sum(unknown_usd), 0) as guess, coalesce(sum(held_tokens), 0) as held_t,"
        "   coalesce(sum(charged_tokens), 0) as charged_t, count(*) filter (where is_unknown) as unknown"
        "  from attempt_funding f where f.scope = b.scope and f.key = b.key) f"
        " where (b.reserved_usd, b.spent_usd, b.unknown_usd, b.reserved_tokens, b.spent_tokens,"
        "  b.unknown_attempts)"
        "  <> (f.held, f.charged, f.guess, f.held_t, f.charged_t, f.unknown)"
    )
    assert not wrong, [dict(row) for row in wrong]
    loose = await store.db.pool.fetch(
        "select f.message_id, a.status from attempt_funding f"
        " left join task_attempts a on a.message_id = f.message_id"
        " where a.message_id is null or not a.is_funded"
        "  or (a.status in ('sent', 'accepted')) <> (f.settled_at is null)"
    )
    assert not loose, [dict(row) for row in loose]


async def log_agrees(store: Store) -> None:
    """Nothing was reserved beyond a limit in any prefix of the log, and the log adds up to the tables."""
    rows = await store.db.pool.fetch(
        "select kind, message_id, data from events where kind like 'budget%' order by event_id"
    )
    held: dict[tuple[str, str], dict[Any, Decimal]] = {}
    spent: dict[tuple[str, str], dict[Any, Decimal]] = {}
    for row in rows:
        data: dict[str, Any] = {
            key: Decimal(str(value)) if not isinstance(value, str | bool) else value
            for key, value in orjson.loads(row["data"]).items()
        }
        if row["kind"] in ("budget_set", "budget_removed"):
            continue
        name = (data["scope"], data["key"])
        its_held, its_spent = held.setdefault(name, {}), spent.setdefault(name, {})
        if row["kind"] == "budget_reserved":
            its_held[row["message_id"]] = data.get("cost_usd", Decimal(0))
            assert sum(its_held.values()) + sum(its_spent.values()) <= data.get("limit_usd", 10**9), dict(row)
        else:
            its_held.pop(row["message_id"], None)
            its_spent[row["message_id"]] = data.get("cost_usd", Decimal(0))
            if "spent_usd" in data:
                assert data["spent_usd"] == sum(its_spent.values())
                assert data["reserved_usd"] == sum(its_held.values())


class Twin:
    """What was told of each attempt, added up by hand: the dumb way."""

    def __init__(self) -> None:
        self.attempts: dict[str, str | float] = {}
        """`runs`, `returned`, `unknown`, or what it said."""

    async def spent(self, store: Store) -> dict[tuple[str, str], Decimal]:
        rows = await store.db.pool.fetch("select message_id, scope, key, granted_usd from attempt_funding")
        found: dict[tuple[str, str], Decimal] = {}
        for row in rows:
            said = self.attempts[str(row["message_id"])]
            if row["granted_usd"] is None or said in ("runs", "returned"):
                amount = Decimal(0)
            elif said == "unknown":
                amount = row["granted_usd"]
            else:
                amount = Decimal(str(said))
            name = (row["scope"], row["key"])
            found[name] = found.get(name, Decimal(0)) + amount
        return found


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_budgets_are_the_sum_of_their_attempts_after_anything(
    store: Store, engine: Engine, seed: int
) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    context, twin = engine.context, Twin()
    await set_budget(context, "team=ml", cost_usd=3, tokens=5_000)
    await set_budget(context, "stage=b", cost_usd=2, attempt_usd=0.25)
    tasks: list[str] = []
    own: list[dict[str, float] | None] = [
        None,
        {"cost_usd": 0.7},
        {"cost_usd": 1, "attempt_usd": 0.1},
        {"tokens": 900},
    ]
    for number in range(4):
        specs = [
            TaskSpec(
                f"t{number}-{n}",
                type=rng.choice(["x", "y"]),
                labels=dict(rng.choice(LABELS)),
                budget=rng.choice(own),
                min_agents=(seats := rng.choice([1, 1, 2])),
                max_agents=seats,
            )
            for n in range(4)
        ]
        tasks += [spec.task_id for spec in specs]
        await submit_tasks(context, specs, budget=rng.choice([None, {"cost_usd": 2}]))
    runs: list[str] = []
    over: list[tuple[str, str]] = []
    started = 0

    def usage() -> tuple[dict[str, Any] | None, str | float]:
        cost = rng.choice([0.0, 0.1 + 0.2, 0.0042, 1e-9, round(rng.random() / 3, 6)])
        tokens = {"input_tokens": rng.randrange(300), "output_tokens": 7}
        return ({"cost_usd": cost, **tokens}, round(cost, 9)) if rng.random() < 0.8 else (None, "unknown")

    for _ in range(150):
        match rng.choice(["start"] * 5 + ["end"] * 3 + ["lose", "give back", "late", "cancel", "retry"]):
            case "start":
                task_id = rng.choice(tasks)
                ready = await store.ready_tasks_by_id([task_id])
                for message_id in await engine.start(task_id, ready[0].min_agents if ready else 1):
                    started += 1
                    runs.append(message_id)
                    twin.attempts[message_id] = "runs"
                    if rng.random() < 0.7:
                        await store.accept([message_id])
            case "end" if runs:
                message_id = runs.pop(rng.randrange(len(runs)))
                told, said = usage()
                status = rng.choice(["completed", "failed", "timed_out"])
                assert await engine.end(message_id, status, told)
                twin.attempts[message_id] = said
                over.append((message_id, status))
            case "lose" if runs:
                message_id = runs.pop(rng.randrange(len(runs)))
                assert await engine.end(message_id, "lost", error="agent_lost")
                twin.attempts[message_id] = "returned"
                over.append((message_id, "lost"))
            case "give back" if runs:
                message_id = runs.pop(rng.randrange(len(runs)))
                assert await engine.end(message_id, "cancelled", error="returned")
                twin.attempts[message_id] = "returned"
                over.append((message_id, "cancelled"))
            case "late" if over:
                at = rng.randrange(len(over))
                message_id, status = over[at]
                told, said = usage()
                before = twin.attempts[message_id]
                is_taken = await engine.end(message_id, "completed", told)
                assert is_taken == (status in ("lost", "timed_out"))
                if is_taken:
                    over[at] = (message_id, "completed")
                if isinstance(before, str) and told is not None:
                    twin.attempts[message_id] = said
                elif before == "returned" and is_taken:
                    twin.attempts[message_id] = "unknown"
                elif not isinstance(before, str) and is_taken and told is not None:
                    twin.attempts[message_id] = said
            case "cancel":
                task_id = rng.choice(tasks)
                live = await store.db.pool.fetch(
                    "select message_id, status from task_attempts where task_id = $1 and finished_at is null",
                    task_id,
                )
                await cancel_tasks(context, [task_id])
                for row in live:
                    message_id = str(row["message_id"])
                    runs.remove(message_id)
                    twin.attempts[message_id] = "unknown" if row["status"] == "accepted" else "returned"
                    over.append((message_id, "cancelled"))
            case "retry":
                await retry_tasks(context, [rng.choice(tasks)])
        await tables_agree(store)

    assert started > 8
    expected = await twin.spent(store)
    for row in await store.db.pool.fetch("select scope, key, cost_usd, spent_usd from budgets"):
        wanted = expected.get((row["scope"], row["key"]), Decimal(0)) if row["cost_usd"] is not None else 0
        assert row["spent_usd"] == wanted, (row["scope"], row["key"])
    await log_agrees(store)


async def test_many_at_once_never_reserve_more_than_there_is(store: Store, engine: Engine) -> None:
    await set_budget(engine.context, "team=ml", cost_usd=1, attempt_usd=0.14)
    await set_budget(engine.context, "a=b", cost_usd=1)
    ids = [f"t{n}" for n in range(24)]
    await submit_tasks(
        engine.context, [TaskSpec(one, labels={"team": "ml"}, budget={"cost_usd": 0.1 + 0.2}) for one in ids]
    )
    engines = [Engine(store) for _ in range(8)]
    for number, one in enumerate(engines):
        one.agent = 100 * number

    async def work(number: int) -> int:
        return sum([len(await engines[number].start(one)) for one in ids[number::8]])

    assert sum(await asyncio.gather(*map(work, range(8)))) == 7
    found = await get_budget(engine.context, "team=ml")
    assert (found.reserved_usd, found.running) == (0.98, 7)
    await tables_agree(store)
    await log_agrees(store)


async def test_an_assignment_that_does_not_come_about_reserves_nothing(store: Store, engine: Engine) -> None:
    await set_budget(engine.context, "team=ml", cost_usd=1)
    await submit_tasks(engine.context, [TaskSpec("t", labels={"team": "ml"})])
    fund = engine.funds.seal

    async def killed(tx: Any) -> None:
        await fund(tx)
        await tx.fetch("clock")
        raise asyncpg.ConnectionDoesNotExistError("the connection was lost before the commit")

    engine.funds.seal = killed  # type: ignore[method-assign]
    with pytest.raises(Exception, match="connection"):
        await engine.start("t")
    assert (await get_budget(engine.context, "team=ml")).reserved_usd == 0
    await tables_agree(store)

    engine.funds.seal = fund  # type: ignore[method-assign]
    assert len(await engine.start("t")) == 1


async def test_a_budget_that_was_removed_and_set_again_knows_nothing_of_before(
    store: Store, engine: Engine
) -> None:
    await set_budget(engine.context, "team=ml", cost_usd=1)
    await submit_tasks(engine.context, [TaskSpec("t", labels={"team": "ml"})])
    (message_id,) = await engine.start("t")
    await remove_budgets(engine.context, ["team=ml"])
    await set_budget(engine.context, "team=ml", cost_usd=2)

    assert await engine.end(message_id, "completed", {"cost_usd": 0.3})
    found = await get_budget(engine.context, "team=ml")
    assert (found.spent_usd, found.reserved_usd, found.unknown_attempts) == (0, 0, 0)


async def test_what_an_earlier_day_reserved_counts_on_the_day_that_it_is_told(
    store: Store, engine: Engine
) -> None:
    await set_budget(engine.context, "team=ml", cost_usd=1, attempt_usd=0.4, period="day")
    await submit_tasks(engine.context, [TaskSpec(one, labels={"team": "ml"}) for one in "ab"])
    (first,), (second,) = await engine.start("a"), await engine.start("b")
    await store.accept([first, second])
    assert await engine.end(first, "timed_out")
    await store.db.pool.execute(
        "update budgets set window_start = window_start - interval '2 days';"
        "update attempt_funding set settled_at = settled_at - interval '2 days'"
    )

    shown = await get_budget(engine.context, "team=ml")
    assert (shown.spent_usd, shown.reserved_usd, shown.left_usd, shown.unknown_attempts) == (0, 0.4, 0.6, 0)
    assert await engine.end(second, "completed", {"cost_usd": 0.3})
    assert await engine.end(first, "completed", {"cost_usd": 0.1})
    shown = await get_budget(engine.context, "team=ml")
    assert (shown.spent_usd, shown.reserved_usd, shown.unknown_attempts) == (0.4, 0, 0)


@pytest.mark.parametrize(
    "usage", ['{"cost_usd": 1e9, "input_tokens": 1000000000000000}', '{"cost_usd": "x"}', "[]", '"1"', "{}"]
)
async def test_no_usage_keeps_an_attempt_from_ending(store: Store, engine: Engine, usage: str) -> None:
    await set_budget(engine.context, "team=ml", cost_usd=1, tokens=10)
    await submit_tasks(engine.context, [TaskSpec("t", labels={"team": "ml"})])
    (message_id,) = await engine.start("t")

    await store.db.pool.execute(
        "update task_attempts set status = 'completed', finished_at = now(), usage = $2::jsonb"
        " where message_id = $1",
        message_id,
        usage,
    )
    await tables_agree(store)
    shown = await get_budget(engine.context, "team=ml")
    assert shown.spent_usd in (1, 1e9)


async def test_claiming_takes_tasks_before_budgets_and_those_by_name(
    store: Store, engine: Engine, database_url: str
) -> None:
    for key in ("a=1", "b=1"):
        await set_budget(engine.context, key, cost_usd=1)
    await submit_tasks(engine.context, [TaskSpec("t", labels={"b": "1", "a": "1"})])
    other = await asyncpg.connect(database_url)
    try:
        await other.execute("set lock_timeout = '300ms'; begin")
        await other.execute("select from budgets where key = 'a=1' for update")
        starting = asyncio.ensure_future(engine.start("t"))
        async with asyncio.timeout(5):
            while not await store.db.pool.fetchval(
                "select exists (select from pg_stat_activity where wait_event_type = 'Lock'"
                " and datname = current_database())"
            ):
                await asyncio.sleep(0.005)
        await other.execute("select from budgets where key = 'b=1' for update")
        await other.execute("commit")
        assert len(await starting) == 1
    finally:
        await other.close()


# --- the rule, without a database -------------------------------------------------------------


def twin_grant(left: Sequence[int], each: int | None, seats: int) -> list[int] | None:
    """What each seat gets of budgets that share one expectation, tried amount by amount."""
    if each is None:
        return [min(left) // seats] * seats if min(left) // seats >= 1 else None
    spare = list(left)
    for _ in range(seats):
        spare = [one - each for one in spare]
    return [each] * seats if min(spare) >= 0 and min(left) >= 1 else None


def test_granting_is_all_or_nothing_and_never_more_than_is_left() -> None:
    rng = random.Random(7)
    for _ in range(2_000):
        limit, spent, reserved = rng.randrange(1, 60), rng.randrange(70), rng.randrange(60)
        account = Account(
            Scope.LABEL,
            "a=b",
            {Unit.USD: limit},
            {Unit.USD: spent},
            {Unit.USD: reserved},
            {Unit.USD: rng.randrange(0, 30)} if rng.random() < 0.6 else {},
        )
        seats = rng.randrange(1, 4)
        found = grant([account], Demand("t", seats, seats))
        wanted = twin_grant([limit - spent - reserved], account.attempt.get(Unit.USD), seats)

        if isinstance(found, Shortage):
            assert wanted is None
            assert not found.is_final
        else:
            assert [one.amounts[Unit.USD] for (one,) in found] == wanted
            book([account], [one for (one,) in found])
            assert account.spent[Unit.USD] + account.reserved[Unit.USD] <= limit


@pytest.mark.parametrize(
    ("left", "said", "learned", "wanted", "share"),
    [
        (1.0, None, None, 1, 1.0),
        (1.0, None, None, 4, 0.25),
        (1.0, 0.1, None, 4, 0.1),
        (1.0, None, 0.2, 2, 0.5),  # its own: all of it, not only what is expected
        (0.1, None, 0.2, 1, None),  # too little is left for what one uses
        (0.1, 0.2, None, 1, None),
        (0.0, None, None, 1, None),
        (1.0, None, 9.0, 1, 1.0),  # more than the whole budget: the first attempt has what there is
    ],
)
def test_the_share_of_an_own_budget(
    left: float, said: float | None, learned: float | None, wanted: int, share: float | None
) -> None:
    account = Account(Scope.TASK, "t", {Unit.USD: PER_DOLLAR}, {Unit.USD: round((1 - left) * PER_DOLLAR)})
    demand = Demand(
        "t",
        1,
        wanted,
        {Unit.USD: round(said * PER_DOLLAR)} if said else {},
        {Unit.USD: round(learned * PER_DOLLAR)} if learned else {},
    )

    found = grant([account], demand)

    if share is None:
        assert isinstance(found, Shortage) and found.is_final
    else:
        assert not isinstance(found, Shortage)
        assert found[0][0].amounts == {Unit.USD: round(share * PER_DOLLAR)}
