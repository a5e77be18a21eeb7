"""How many statements a step sends: as many for a thousand tasks as for one. Counted, not timed.

Every statement is one round trip. What is counted is everything that a connection of the program sends,
begin and commit too.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from crew import echo

from agentorch_cli.core.model import AttemptStatus, TaskSpec
from agentorch_cli.core.plan import plan
from agentorch_cli.engine.engine import Engine, Limits
from agentorch_cli.engine.state import Report
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.tasks import submit_tasks
from agentorch_cli.store.database import Database
from agentorch_cli.store.queries import statements
from agentorch_cli.store.store import Store

NAMES = {text.strip(): name for name, text in statements().items()}
ASSIGNED_AT_ONCE = 250
PERIODIC = {"accept_attempts", "beat", "keep_accounts", "sweep", "missed_endings"}
"""What goes on beside a task, at its own pace."""


class Sent:
    """The statements that were sent, in their order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def heard(self, query: asyncpg.connection.LoggedQuery) -> None:
        text = query.query.strip()
        if "typeinfo" not in text and "'jit'" not in text:  # the driver learns a type, once a connection
            self.names.append(NAMES.get(text, text))

    @asynccontextmanager
    async def during(self) -> AsyncIterator[list[str]]:
        """What is sent while the block runs, without what goes on beside it."""
        await asyncio.sleep(0)  # the driver says it with the next turn of the loop
        before = len(self.names)
        found: list[str] = []
        yield found
        await asyncio.sleep(0)
        found += [name for name in self.names[before:] if name not in PERIODIC]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    sent, create = Sent(), asyncpg.create_pool

    async def listen(connection: asyncpg.Connection) -> None:
        connection.add_query_logger(sent.heard)

    monkeypatch.setattr(asyncpg, "create_pool", lambda *args, **rest: create(*args, init=listen, **rest))
    return sent


class Nobody:
    """A courier without agents: work is committed, and goes nowhere."""

    def deliver(self, _delivery: Any) -> bool:
        return True

    def session_of(self, _agent_id: str) -> None:
        return None

    def connected(self) -> Iterable[str]:
        return ()

    def __getattr__(self, _name: str) -> Any:
        return lambda *args, **rest: None


@pytest.fixture
async def engine(database_url: str, sent: Sent) -> AsyncIterator[Engine]:
    """An engine that leads, with an agent of many slots; only what tells dependents runs by itself."""
    database = Database(database_url, node_id="tests")
    await database.open()
    engine = Engine(Store(database), Nobody(), Limits(most_running=0))
    await engine.leader.beat()
    await database.pool.execute(
        "insert into agent_registry (agent_id, agent_type, capabilities, slots, status, node_id)"
        " values ('a', 'worker', '{work}', 5000, 'online', 'tests')"
    )
    await engine.resync()
    await engine.scheduler.step()
    unlocks = asyncio.create_task(engine.settler.run_unlocks())
    yield engine
    unlocks.cancel()
    await asyncio.gather(unlocks, return_exceptions=True)
    await database.close()


def specs(number: int, *needed: str) -> list[TaskSpec]:
    tasks = [
        TaskSpec(str(uuid4()), required_capabilities=("work",), depends_on=needed) for _ in range(number)
    ]
    return list(plan(tasks, known=set(needed)).tasks)


def same(by_size: dict[int, list[str]]) -> None:
    """Fails with the statements of each size unless they are the same for all."""
    counts = {size: Counter(names) for size, names in by_size.items()}
    told = "\n".join(f"{size:>5} tasks: {dict(count)}" for size, count in counts.items())
    assert len({frozenset(count.items()) for count in counts.values()}) == 1, told


HOT = {"insert_task", "ready_tasks_by_id", "assign_batch", "settle_batch", "unlock_dependents", "notify"}
SIZES = (1, 100, 1000)


async def test_a_submission_of_a_thousand_tasks_sends_what_one_of_a_single_task_sends(
    engine: Engine, sent: Sent
) -> None:
    context = Context(engine.store)
    await submit_tasks(context, specs(1))
    found = {}
    for size in SIZES:
        async with sent.during() as found[size]:
            await submit_tasks(context, specs(size))

    assert found == {1: ["insert_task"], 100: ["insert_tasks"], 1000: ["insert_tasks"]}


async def test_who_could_do_a_task_is_asked_again_after_a_second_or_where_nobody_is_known(
    engine: Engine, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(engine.store)
    await submit_tasks(context, specs(1))
    unknown = [TaskSpec(str(uuid4()), required_capabilities=("else",))]
    async with sent.during() as found:
        warned = await submit_tasks(context, unknown)
    assert found == ["insert_task", "capability_sets"]
    assert "no registered agent has else" in warned.warnings[0]

    await engine.store.db.pool.execute("update agent_registry set capabilities = '{else}'")
    async with sent.during() as found:
        warned = await submit_tasks(context, [TaskSpec(str(uuid4()), required_capabilities=("else",))])
    assert found == ["insert_task", "capability_sets"]
    assert not warned.warnings

    monkeypatch.setattr("agentorch_cli.store.store.FLEETS_TRUE_SECONDS", 0.0)
    await submit_tasks(context, [TaskSpec(str(uuid4()), required_capabilities=("nothing",))])
    async with sent.during() as found:
        await submit_tasks(context, [TaskSpec(str(uuid4()), required_capabilities=("else",))])
    assert found == ["insert_task", "capability_sets"]


async def test_a_batch_of_assignments_is_two_statements(engine: Engine, sent: Sent) -> None:
    found: dict[int, list[str]] = {}
    for size in (1, 1, 100, 250, 1000):
        reply = await submit_tasks(Context(engine.store), specs(size))
        engine.scheduler.hinted(one.task_id for one in reply.tasks)
        async with sent.during() as found[size]:
            await engine.scheduler.step()

    assert found.pop(1000) == ["ready_tasks_by_id", *["assign_batch"] * (1000 // ASSIGNED_AT_ONCE)]
    same(found)
    assert found[1] == ["ready_tasks_by_id", "assign_batch"]


async def test_a_batch_of_results_is_one_statement_whether_others_wait_for_them_or_not(
    engine: Engine, sent: Sent
) -> None:
    alone: dict[int, list[str]] = {}
    awaited: dict[int, list[str]] = {}
    for size in (1, 1, 100, 400):
        firsts = await submit_tasks(Context(engine.store), specs(size))
        seconds = [spec for one in firsts.tasks for spec in specs(1, one.task_id)]
        await submit_tasks(Context(engine.store), seconds)
        engine.scheduler.hinted(one.task_id for one in firsts.tasks)
        for found in (awaited, alone):
            await engine.scheduler.step()
            reports = [
                Report(one.message_id, "a", AttemptStatus.COMPLETED, result="1", task_id=one.task_id)
                for one in engine.state.deliveries.values()
            ]
            assert len(reports) == size
            async with sent.during() as found[size]:
                await engine.settler.step(reports)
                async with asyncio.timeout(20):
                    await engine.settler._has_unlocked.wait()

    same(alone)
    same(awaited)
    assert alone[1] == ["settle_batch"]
    assert awaited[1] == ["settle_and_unlock"]


async def test_a_task_on_an_idle_engine_waits_for_few_statements(
    sent: Sent, start_engine: Any, crew_of: Any
) -> None:
    """From the call of submit to the result at hand: three of the engine, and what the submitter looks at."""
    orchestrator = await start_engine(engine={"poll_interval": 60.0})  # what is done anyway, is not counted
    await crew_of(orchestrator).join("able", "work", does=echo)
    task = {"required_capabilities": ["work"], "data": 1}
    for _ in range(3):
        await (await orchestrator.submit(task)).result(10)
    await orchestrator._engine.settler.idle()

    async with sent.during() as found:
        assert await (await orchestrator.submit(task)).result(10) == 1
        await orchestrator._engine.settler.idle()

    of_the_engine = [name for name in found if name in HOT]
    # Sorted: the scheduler may be assigning already when the statement of the submission is noted.
    assert sorted(of_the_engine) == ["assign_batch", "insert_task", "settle_batch"], found
    # The submitter looks before it waits, and when it hears that the task is over; once a second it is told
    # who could do it.
    assert Counter(found) - Counter(of_the_engine) <= Counter(
        {"capability_sets": 1, "statuses": 1, "results": 1}
    ), found
