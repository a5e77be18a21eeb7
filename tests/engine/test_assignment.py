"""Who gets which work, and when: order, ageing, gangs, limits, delays, and tasks that are sick."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from crew import Gate

from agentorch_cli.errors import DatabaseUnreachable

AGING = 60
"""Seconds; the default of the settings."""


async def _order(crew: Any, orchestrator: Any, ids: list[str]) -> list[str]:
    """The order in which one agent with one slot is given these tasks, which are stored already."""
    served: list[str] = []

    async def note(work: Any) -> None:
        served.append(work.task_id)

    await crew.join("a", does=note)
    await orchestrator.call("task.wait", task_ids=ids, timeout_seconds=10)
    return served


async def _came(sql: Any, task_id: str, seconds: float) -> None:
    """The task became ready so many seconds later than now: the clock of its urgency is set."""
    await sql(
        "update task_distributions set urgency ="
        " agentorch_urgency(to_timestamp(1e9 + $2::float8), priority, $3) where task_id = $1",
        task_id,
        seconds,
        float(AGING),
    )


# --- the order of service ---------------------------------------------------------------------


async def test_higher_priority_goes_first_and_equals_go_by_age(orchestrator: Any, crew: Any) -> None:
    ids = []
    for number, priority in enumerate([5, 0, 10, 5, 10]):
        ids.append(f"t{number}")
        await orchestrator.submit(
            {"id": f"t{number}", "priority": priority, "required_capabilities": ["work"]}
        )

    assert await _order(crew, orchestrator, ids) == ["t2", "t4", "t0", "t3", "t1"]


async def test_a_task_of_priority_0_goes_before_one_of_priority_10_that_came_much_later(
    orchestrator: Any, crew: Any, sql: Any
) -> None:
    for name, priority in (("old", 0), ("soon", 10), ("late", 10)):
        await orchestrator.submit({"id": name, "priority": priority, "required_capabilities": ["work"]})
    await _came(sql, "old", 0)
    await _came(sql, "soon", 10 * AGING - AGING)
    await _came(sql, "late", 10 * AGING + AGING)
    orchestrator.engine.scheduler.look_again()

    assert await _order(crew, orchestrator, ["old", "soon", "late"]) == ["soon", "old", "late"]


async def test_among_equals_the_longest_remaining_path_goes_first(orchestrator: Any, crew: Any) -> None:
    handles = await orchestrator.submit_all(
        [
            {"id": "alone", "required_capabilities": ["work"]},
            {"id": "short", "required_capabilities": ["work"]},
            {"id": "long", "required_capabilities": ["work"]},
            {"id": "long 2", "depends_on": ["long"], "required_capabilities": ["work"]},
            {"id": "long 3", "depends_on": ["long 2"], "required_capabilities": ["work"]},
            {"id": "short 2", "depends_on": ["short"], "required_capabilities": ["work"]},
        ]
    )

    served = await _order(crew, orchestrator, [handle.task_id for handle in handles])

    assert served[0] == "long"
    assert served.index("short") < served.index("alone")


async def test_estimates_say_which_remaining_path_is_the_longest(orchestrator: Any, crew: Any) -> None:
    handles = await orchestrator.submit_all(
        [
            {"id": "many", "estimate": "1s", "required_capabilities": ["work"]},
            {"id": "many 2", "estimate": "1s", "depends_on": ["many"], "required_capabilities": ["work"]},
            {"id": "many 3", "estimate": "1s", "depends_on": ["many 2"], "required_capabilities": ["work"]},
            {"id": "slow", "estimate": "2m", "required_capabilities": ["work"]},
            {"id": "head", "estimate": "1s", "required_capabilities": ["work"]},
            {"id": "tail", "estimate": "1h", "depends_on": ["head"], "required_capabilities": ["work"]},
        ]
    )

    served = await _order(crew, orchestrator, [handle.task_id for handle in handles])

    assert served == ["head", "tail", "slow", "many", "many 2", "many 3"]


async def test_estimates_that_differ_by_more_than_the_database_can_tell_are_taken(orchestrator: Any) -> None:
    handles = await orchestrator.submit_all(
        [
            {"id": "head", "estimate": "1s", "required_capabilities": ["work"]},
            {"id": "tail", "estimate": 5e-324, "depends_on": ["head"], "required_capabilities": ["work"]},
        ]
    )
    assert [handle.task_id for handle in handles] == ["head", "tail"]


async def test_tasks_without_an_estimate_count_as_long_as_their_type_has_taken(
    orchestrator: Any, crew: Any, sql: Any
) -> None:
    """Of two chains of two: that whose last task is of a slow type goes first, whoever was slow at it."""
    works = {"required_capabilities": ["work"]}
    tasks = [
        {"id": f"{name} {kind}", "type": kind, **after, **works}
        for name, last in (("quick", "check"), ("slow", "train"))
        for kind, after in (("fetch", {}), (last, {"depends_on": [f"{name} fetch"]}))
    ]
    await crew.join("other", "else")  # of agents that are not registered the engine forgets everything
    await sql(
        """insert into agent_ledger (agent_id, skill, task_type, completed, latency)
           select 'other', 'work', t, 1, array_fill(0.0::float8, array[n]) || 1.0::float8
           from (values ('fetch', 5), ('check', 5), ('train', 30)) as v (t, n)"""
    )
    handles = await orchestrator.submit_all(tasks)

    served = await _order(crew, orchestrator, [handle.task_id for handle in handles])

    assert served == ["slow fetch", "slow train", "quick fetch", "quick check"]


async def test_a_run_at_that_has_passed_does_not_buy_a_place_in_the_queue(
    orchestrator: Any, crew: Any
) -> None:
    await orchestrator.submit({"id": "first", "required_capabilities": ["work"]})
    await orchestrator.submit(
        {"id": "sly", "required_capabilities": ["work"], "run_at": "2001-01-01T00:00:00Z"}
    )

    assert await _order(crew, orchestrator, ["first", "sly"]) == ["first", "sly"]


# --- the choice of agents ---------------------------------------------------------------------


async def test_work_goes_only_to_agents_that_have_all_capabilities(orchestrator: Any, crew: Any) -> None:
    await crew.join("one", "x", slots=9)
    await crew.join("two", "x", "y", slots=9)

    handles = [await orchestrator.submit({"required_capabilities": ["y", "x"]}) for _ in range(5)]
    ended = [await handle.wait(10) for handle in handles]

    assert {agent for task in ended for agent in task.assigned_agents} == {"two"}


async def test_equal_agents_share_the_work(orchestrator: Any, crew: Any) -> None:
    gate = Gate()
    for name in "abcd":
        await crew.join(name, does=gate, slots=5)

    handles = [await orchestrator.submit({"required_capabilities": ["work"]}) for _ in range(12)]
    for _ in handles:
        await gate.work()
    gate.is_open.set()
    held = Counter([(await handle.wait(10)).assigned_agents[0] for handle in handles])

    assert set(held.values()) == {3}


async def test_several_agents_are_given_all_at_once_or_none(orchestrator: Any, crew: Any) -> None:
    gate = Gate()
    await crew.join("a", does=gate)
    await crew.join("b", does=gate)
    gang = await orchestrator.submit({"required_capabilities": ["work"], "min_agents": 3, "max_agents": 4})
    await asyncio.sleep(0.1)
    assert (await orchestrator.call("task.get", task_id=gang.task_id)).attempts == []

    await crew.join("c", does=gate)
    for _ in range(3):
        await gate.work()
    held = await orchestrator.call("task.get", task_id=gang.task_id)
    gate.is_open.set()

    assert {attempt.agent_id for attempt in held.attempts} == {"a", "b", "c"}
    assert (await gang.wait(10)).status == "completed"


async def test_up_to_max_agents_are_taken_where_they_are_free(orchestrator: Any, crew: Any) -> None:
    for name in "abcde":
        await crew.join(name)

    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "min_agents": 2, "max_agents": 4, "aggregate": "all"}
    )

    assert set(await task.result(10)) == {"a", "b", "c", "d"}


async def test_one_agent_is_never_two_of_a_gang(orchestrator: Any, crew: Any) -> None:
    await crew.join("a", slots=10)

    task = await orchestrator.submit({"required_capabilities": ["work"], "min_agents": 2})
    await asyncio.sleep(0.1)

    assert (await orchestrator.call("task.get", task_id=task.task_id)).status == "pending"


async def test_tasks_that_want_more_agents_than_there_are_do_not_stop_the_others(
    orchestrator: Any, crew: Any
) -> None:
    await orchestrator.submit_all([{"required_capabilities": ["work"], "min_agents": 2} for _ in range(100)])
    await crew.join("a")

    task = await orchestrator.submit({"required_capabilities": ["work"], "data": 1})

    assert await task.result(5) == 1


# --- limits -----------------------------------------------------------------------------------


async def test_no_more_tasks_run_at_once_than_the_limit(start_engine: Any, crew_of: Any) -> None:
    orchestrator = await start_engine(engine={"max_concurrent_tasks": 3})
    crew, most, now = crew_of(orchestrator), 0, 0

    async def count(work: Any) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1

    await crew.join("a", does=count, slots=20)
    handles = await orchestrator.submit_all([{"required_capabilities": ["work"]} for _ in range(30)])
    await orchestrator.call("task.wait", task_ids=[h.task_id for h in handles], timeout_seconds=10)

    assert most == 3


async def test_the_limit_counts_tasks_and_not_their_agents(start_engine: Any, crew_of: Any) -> None:
    orchestrator = await start_engine(engine={"max_concurrent_tasks": 2})
    crew, gate = crew_of(orchestrator), Gate()
    for name in "abcd":
        await crew.join(name, does=gate)
    await orchestrator.submit({"required_capabilities": ["work"], "min_agents": 3})
    for _ in range(3):
        await gate.work()

    second = await orchestrator.submit({"required_capabilities": ["work"]})

    assert (await gate.work()).task_id == second.task_id


# --- later ------------------------------------------------------------------------------------


async def test_a_delayed_task_runs_on_time_after_idling(start_engine: Any, crew_of: Any) -> None:
    orchestrator = await start_engine(engine={"poll_interval": 600, "lease_seconds": 600})
    await crew_of(orchestrator).join("a")
    run_at = datetime.now(UTC) + timedelta(seconds=0.4)

    task = await (await orchestrator.submit({"required_capabilities": ["work"], "run_at": run_at})).wait(10)

    assert 0 <= (task.started_at - run_at).total_seconds() < 60, "nothing else would look before 600 s"


async def test_a_later_and_an_earlier_delay_are_both_kept(orchestrator: Any, crew: Any) -> None:
    await crew.join("a")
    now = datetime.now(UTC)

    late, soon = [
        await orchestrator.submit(
            {"required_capabilities": ["work"], "run_at": now + timedelta(seconds=seconds)}
        )
        for seconds in (0.6, 0.2)
    ]
    first, second = await soon.wait(10), await late.wait(10)

    assert first.started_at < second.started_at
    assert (second.started_at - now).total_seconds() >= 0.6


async def test_a_delayed_task_runs_on_time_after_a_restart(start_engine: Any, crew_of: Any) -> None:
    first = await start_engine()
    run_at = datetime.now(UTC) + timedelta(seconds=0.7)
    task_id = (await first.submit({"required_capabilities": ["work"], "run_at": run_at})).task_id
    await first.stop()

    second = await start_engine(engine={"poll_interval": 600})
    await crew_of(second).join("a")
    (task,) = await second.call("task.wait", task_ids=[task_id], timeout_seconds=10)

    assert 0 <= (task.started_at - run_at).total_seconds() < 60, "nothing else would look before 600 s"


async def test_a_delayed_task_that_waits_for_another_waits_for_both(orchestrator: Any, crew: Any) -> None:
    await crew.join("a", slots=2)
    run_at = datetime.now(UTC) + timedelta(seconds=0.3)

    handles = await orchestrator.submit_all(
        [
            {"id": "first", "required_capabilities": ["work"]},
            {"id": "then", "required_capabilities": ["work"], "depends_on": ["first"], "run_at": run_at},
        ]
    )
    task = await handles[1].wait(10)

    assert task.started_at >= run_at


# --- sick tasks and awkward ids ---------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    ["[]", '"x"', "5", '{"consensus": 5}', '{"consensus": {"rule": "no such"}}', '{"aggregate": 7}'],
)
async def test_a_sick_task_does_not_stop_the_others(
    orchestrator: Any, crew: Any, sql: Any, noise: Any, options: str
) -> None:
    await orchestrator.submit({"id": "sick", "priority": 10, "required_capabilities": ["work"]})
    await sql("update task_distributions set options = $1::jsonb where task_id = 'sick'", options)
    orchestrator.engine.scheduler.look_again()
    await crew.join("a")

    for number in range(3):
        well = await orchestrator.submit({"required_capabilities": ["work"], "data": number})
        assert await well.result(5) == number

    assert orchestrator.engine.state.roster.members["a"].busy <= 1
    noise.take()


@pytest.mark.parametrize("task_id", ["~", "*", 'a"b\\c,{}', "ünï 🦀", "x" * 200])
async def test_a_task_with_an_awkward_id_runs_like_any_other(
    orchestrator: Any, crew: Any, task_id: str
) -> None:
    await crew.join("a", task_id)

    task = await orchestrator.submit({"id": task_id, "required_capabilities": [task_id], "data": task_id})

    async with asyncio.timeout(3):
        assert await task.result() == task_id


# --- a mirror that is wrong -------------------------------------------------------------------


async def test_a_mirror_that_is_wrong_is_corrected_and_does_not_ask_in_a_loop(
    orchestrator: Any, crew: Any
) -> None:
    gate = Gate()
    await crew.join("a", does=gate)
    roster = orchestrator.engine.state.roster
    roster.members["a"].slots = 3
    roster.touch(roster.members["a"])

    handles = [await orchestrator.submit({"required_capabilities": ["work"]}) for _ in range(3)]
    await gate.work()
    async with asyncio.timeout(3):
        while roster.members["a"].slots != 1:
            await asyncio.sleep(0.01)
    asked = orchestrator.engine.state.counters["assigned"]
    gate.is_open.set()

    assert asked < 20
    for handle in handles:
        await handle.result(10)
    async with asyncio.timeout(3):  # the submitter may hear of the commit before the settler does
        while roster.members["a"].used:
            await asyncio.sleep(0.01)


async def test_slots_are_free_again_after_a_vote_could_not_be_opened(
    orchestrator: Any, crew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        await crew.join(name)
    fetch_one, failures = orchestrator.store.db.fetch_one, 0

    async def flaky(name: str, *args: Any) -> Any:
        nonlocal failures
        if name == "open_decision" and failures < 2:
            failures += 1
            raise DatabaseUnreachable("not now")
        return await fetch_one(name, *args)

    monkeypatch.setattr(orchestrator.store.db, "fetch_one", flaky)
    handles = await orchestrator.submit_all(
        [
            {"required_capabilities": ["work"], "requires_consensus": True, "data": 1},
            {"required_capabilities": ["work"], "data": 2},
        ]
    )

    assert [await handle.result(10) for handle in handles] == [1, 2]
    assert failures == 2
    members = orchestrator.engine.state.roster.members
    async with asyncio.timeout(5):  # who waits may hear of the last result before its slot is given back
        while any(member.used for member in members.values()):
            await asyncio.sleep(0.005)
