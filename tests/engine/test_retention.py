"""Old history goes, a few tasks at a time, and nothing that is still needed goes with it."""

from __future__ import annotations

import asyncio
from typing import Any

from crew import Crew, Gate

from agentorch_cli.core.model import TaskSpec
from agentorch_cli.engine.pruner import Age, Pruner
from agentorch_cli.store import retention
from agentorch_cli.store.retention import Bounds, bounds_of
from agentorch_cli.wiring import Orchestrator

DAY = 86_400.0

COUNTS = """
select json_build_object(
  'tasks', (select count(*) from task_distributions), 'attempts', (select count(*) from task_attempts),
  'funding', (select count(*) from attempt_funding), 'decisions', (select count(*) from consensus_decisions),
  'ballots', (select count(*) from consensus_ballots),
  'task_events', (select count(*) from events where task_id is not null),
  'task_budgets', (select count(*) from budgets where scope = 'task'))::text
"""


async def _aged(orchestrator: Orchestrator, *task_ids: str, days: float = 40) -> None:
    """These tasks, and everything that happened so far, happened so long ago."""
    async with orchestrator.store.db.connected() as connection:
        await connection.execute(
            "update task_distributions set created_at = created_at - $2 * interval '1 day',"
            " generation = generation + 1, completed_at = completed_at - $2 * interval '1 day'"
            " where task_id = any($1::text[]) and completed_at is not null",
            list(task_ids),
            days,
        )
        await connection.execute("update events set at = at - $1 * interval '1 day'", days)


async def _there(orchestrator: Orchestrator) -> set[str]:
    async with orchestrator.store.db.connected() as connection:
        return {row[0] for row in await connection.fetch("select task_id from task_distributions")}


async def _counts(orchestrator: Orchestrator) -> dict[str, int]:
    import json

    async with orchestrator.store.db.connected() as connection:
        found: dict[str, int] = json.loads(await connection.fetchval(COUNTS))
    return found


async def _prune(orchestrator: Orchestrator, days: float = 30, keep_last: int = 0) -> Any:
    return await Pruner(orchestrator.engine.state, orchestrator.store.db, Age(days * DAY, keep_last)).prune()


async def _done(orchestrator: Orchestrator, *tasks: dict[str, Any]) -> list[str]:
    handles = await orchestrator.submit_all([{"required_capabilities": ["work"], **one} for one in tasks])
    for handle in handles:
        await handle.wait(10)
    return [handle.task_id for handle in handles]


async def test_an_old_task_goes_with_all_that_is_its_own(orchestrator: Orchestrator, crew: Crew) -> None:
    async def pays(work: Any) -> Any:
        work.usage = {"cost_usd": 0.25}
        return 3

    for name in ("a", "b", "c"):
        await crew.join(name, does=pays)
    await orchestrator.call("budget.set", key="team=x", cost_usd=100)
    await _done(
        orchestrator,
        {"id": "voted", "min_agents": 3, "consensus": {"rule": "majority"}, "labels": {"team": "x"}},
        {"id": "paid", "budget": {"cost_usd": 5}},
    )
    await orchestrator.engine.leader.beat()  # what the agents did is stored
    await orchestrator.engine.ledger.write()
    before = await orchestrator.call("status.get")
    label = await orchestrator.call("budget.get", key="team=x")
    await _aged(orchestrator, "voted", "paid")

    pruned = await _prune(orchestrator)

    assert pruned.tasks == 2
    assert set((await _counts(orchestrator)).values()) == {0}
    after = await orchestrator.call("status.get")
    assert after.spend == before.spend
    assert (await orchestrator.call("budget.get", key="team=x")).spent_usd == label.spent_usd
    assert {one.agent_id: one.completed for one in after.agents} == {
        one.agent_id: one.completed for one in before.agents
    }


async def test_young_tasks_and_the_newest_stay(orchestrator: Orchestrator, crew: Crew) -> None:
    await crew.join("a", slots=4)
    await _done(orchestrator, *({"id": f"t{n}"} for n in range(6)))
    await _aged(orchestrator, *(f"t{n}" for n in range(5)))

    assert (await _prune(orchestrator, keep_last=3)).tasks == 3
    assert await _there(orchestrator) == {"t3", "t4", "t5"}
    assert (await _prune(orchestrator, keep_last=100)).is_nothing
    assert (await _prune(orchestrator)).tasks == 2
    assert await _there(orchestrator) == {"t5"}


async def test_what_open_tasks_need_stays_until_they_have_ended(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    gate = Gate()
    await crew.join("a")
    await crew.join("b", "slow", does=gate)
    await _done(orchestrator, {"id": "root"}, {"id": "other"})
    await orchestrator.submit_all(
        [
            {"id": "running", "depends_on": ["root"], "required_capabilities": ["slow"]},
            {"id": "blocked", "depends_on": ["running"], "required_capabilities": ["slow"]},
        ]
    )
    work = await gate.work()
    await _aged(orchestrator, "root", "other")

    assert (await _prune(orchestrator)).tasks == 1
    assert await _there(orchestrator) == {"root", "running", "blocked"}
    assert work.inputs == {"root": None}

    gate.is_open.set()
    await orchestrator.call("task.wait", task_ids=["blocked"], timeout_seconds=10)
    assert (await _prune(orchestrator)).tasks == 1
    assert await _there(orchestrator) == {"running", "blocked"}


async def test_inputs_of_a_task_that_could_be_tried_again_stay(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    from agentorch_cli import WorkFailed

    async def fails(work: Any) -> None:
        raise WorkFailed("no", retryable=False)

    await crew.join("a")
    await crew.join("b", "doomed", does=fails)
    await _done(orchestrator, {"id": "root", "data": 7})
    await _done(orchestrator, {"id": "failed", "depends_on": ["root"], "required_capabilities": ["doomed"]})
    await _aged(orchestrator, "root")

    assert (await _prune(orchestrator)).tasks == 0
    await _aged(orchestrator, "failed")
    assert (await _prune(orchestrator)).tasks == 2


async def test_sub_tasks_stay_with_the_parent_that_waits_for_them(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    gate = Gate()
    parent = await orchestrator.submit({"id": "parent", "required_capabilities": ["slow"]})
    await crew.join("a")
    await crew.join("b", "slow", does=gate)
    await gate.work()
    await _done(orchestrator, {"id": "child"})
    async with orchestrator.store.db.connected() as connection:
        await connection.execute("update task_distributions set parent_id = 'parent' where task_id = 'child'")
    await _aged(orchestrator, "child")

    assert (await _prune(orchestrator)).tasks == 0
    gate.is_open.set()
    await parent.wait(10)
    assert (await _prune(orchestrator)).tasks == 1


async def test_a_key_is_forgotten_with_its_task(orchestrator: Orchestrator, crew: Crew) -> None:
    await crew.join("a")
    task = {"idempotency_key": "once", "required_capabilities": ["work"]}
    first = await orchestrator.submit(task)
    await first.wait(10)
    assert (await orchestrator.submit(task)).task_id == first.task_id
    await _aged(orchestrator, first.task_id)
    await _prune(orchestrator)

    again = await orchestrator.submit(task)

    assert again.task_id != first.task_id
    assert (await again.wait(10)).status == "completed"


async def test_a_task_that_is_depended_on_at_this_moment_is_not_deleted(orchestrator: Orchestrator) -> None:
    """The deletion holds the row: a new dependent comes before it, and it stays, or after it: refused."""
    db = orchestrator.store.db
    await orchestrator.call("task.submit", tasks=[TaskSpec("old", required_capabilities=("nobody",))])
    await orchestrator.call("task.cancel", task_ids=["old"])
    await _aged(orchestrator, "old")
    bounds = await bounds_of(db, 30 * DAY, 0)

    async with db.transaction() as tx:
        await tx.fetch("mark_depended_on", ["old"])
        pruned, _ = await retention.prune_tasks(db, bounds)
        assert pruned.is_nothing

    assert (await retention.prune_tasks(db, bounds))[0].tasks == 1


async def test_a_place_in_the_middle_goes_on_from_there(orchestrator: Orchestrator) -> None:
    ids = [f"t{n}" for n in range(7)]
    await orchestrator.call("task.submit", tasks=[TaskSpec(one, required_capabilities=("x",)) for one in ids])
    await orchestrator.call("task.cancel", task_ids=ids[:5])
    await _aged(orchestrator, *ids)
    db = orchestrator.store.db
    bounds: Bounds = await bounds_of(db, 30 * DAY, 0)
    place: int | None = 0
    steps = []
    while place is not None:
        pruned, place = await retention.prune_tasks(db, bounds, place, limit=2)
        steps.append(pruned.tasks)

    assert steps == [2, 2, 1, 0]
    assert await _there(orchestrator) == {"t5", "t6"}


async def test_events_of_tasks_that_are_kept_are_kept(orchestrator: Orchestrator, crew: Crew) -> None:
    await crew.join("a")
    await _done(orchestrator, {"id": "kept"})
    await _done(orchestrator, {"id": "old"})
    await orchestrator.call("agent.pause", agent_ids=["a"])
    await _aged(orchestrator, "old")
    story = (await orchestrator.call("task.get", task_id="kept")).events

    pruned = await _prune(orchestrator)

    assert pruned.tasks == 1
    events = await orchestrator.call("event.list", limit=1000)
    assert {event.task_id for event in events} == {"kept"}
    assert (await orchestrator.call("task.get", task_id="kept")).events == story


async def test_a_dry_run_counts_what_a_run_deletes(orchestrator: Orchestrator, crew: Crew) -> None:
    await crew.join("a", slots=3)
    await _done(orchestrator, *({"id": f"t{n}"} for n in range(4)))
    await orchestrator.call("agent.pause", agent_ids=["a"])
    await _aged(orchestrator, "t0", "t1", "t2")

    dry = await orchestrator.call("history.prune", older_than_seconds=30 * DAY, dry_run=True)
    assert len(await _there(orchestrator)) == 4
    done = await orchestrator.call("history.prune", older_than_seconds=30 * DAY)

    assert dry.model_dump(exclude={"before", "is_dry_run"}) == done.model_dump(
        exclude={"before", "is_dry_run"}
    )
    assert (done.tasks, done.attempts) == (3, 3)


async def test_serve_prunes_by_itself_where_it_is_told_to(start_engine: Any) -> None:
    orchestrator = await start_engine(retention={"tasks": 0.001, "keep_last": 0, "interval": 0.05})
    await orchestrator.call("task.submit", tasks=[TaskSpec("old", required_capabilities=("nobody",))])
    await orchestrator.call("task.cancel", task_ids=["old"])

    async with asyncio.timeout(10):
        while "pruned_tasks" not in orchestrator.engine.state.counters:
            await asyncio.sleep(0.02)
    assert not await _there(orchestrator)


async def test_serve_deletes_nothing_unless_it_is_told_to(orchestrator: Orchestrator) -> None:
    assert orchestrator.settings.retention.tasks == 0
    assert orchestrator.engine.pruner.age.tasks == 0
