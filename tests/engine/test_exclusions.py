"""An agent that keeps failing gets nothing for a while, is probed, and comes back: on real parts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli import WorkFailed
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.wiring import Orchestrator

QUICK = {"failures": 4, "tasks": 1, "backoff": 60.0}
"""Trips soon, and whichever tasks come first; the test itself says when an exclusion is over."""

TASK = {"required_capabilities": ["work"], "backoff": 0.01, "retries": 5}


class Machine:
    """A handler that can break and be repaired."""

    def __init__(self) -> None:
        self.is_broken = True
        self.served: list[str] = []

    async def __call__(self, work: Any) -> str:
        self.served.append(work.task_id)
        if self.is_broken:
            raise WorkFailed("the machine is broken")
        return "done"


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 20.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.01)
        return found


async def excluded(orchestrator: Orchestrator, agent_id: str = "bad") -> Any:
    """The agent, once it is excluded."""

    async def is_excluded() -> Any:
        agent = await orchestrator.call("agent.get", agent_id=agent_id)
        return agent if agent.excluded_until is not None else None

    return await until(is_excluded)


async def expire(orchestrator: Orchestrator, agent_id: str = "bad", seconds: float = 0.0) -> None:
    """The exclusion is over: the clock is set, and the node hears of it."""
    await orchestrator.store.db.pool.execute(
        "update agent_registry set excluded_until = now() + $2 * interval '1 second' where agent_id = $1",
        agent_id,
        seconds,
    )
    await orchestrator.engine.read_fleet()
    orchestrator.engine.scheduler.wake()


async def submit(orchestrator: Orchestrator, *names: str, **fields: Any) -> list[str]:
    await orchestrator.submit_all([{"id": name, **TASK, **fields} for name in names])
    return list(names)


async def attempts(orchestrator: Orchestrator) -> Counter[tuple[str, str]]:
    """How many attempts of each agent ended how."""
    rows = await orchestrator.store.db.pool.fetch("select agent_id, status from task_attempts")
    return Counter((row["agent_id"], row["status"]) for row in rows)


def standing_of(agent: Any) -> dict[str, Any]:
    """What the breaker says of an agent."""
    names = {"status", "excluded_until", "excluded_since", "excluded_reason", "consecutive_failures", "trips"}
    return {name: value for name, value in agent.model_dump().items() if name in names}


async def stories(orchestrator: Orchestrator) -> list[str]:
    """What the log says of agents and the breaker, in order."""
    rows = await orchestrator.store.db.pool.fetch(
        "select kind from events where kind in ('agent_excluded', 'agent_probed', 'agent_readmitted',"
        " 'agent_resumed') order by event_id"
    )
    return [row["kind"].removeprefix("agent_") for row in rows]


async def until_told(orchestrator: Orchestrator, *kinds: str) -> None:
    """The log says exactly this; it is written a moment after it happened."""

    async def is_told() -> bool:
        return await stories(orchestrator) == list(kinds)

    try:
        await until(is_told)
    except TimeoutError:
        raise AssertionError(await stories(orchestrator)) from None


async def test_the_work_of_an_agent_that_fails_everything_goes_to_the_good_one(
    start_engine: Any, crew_of: Any
) -> None:
    orchestrator = await start_engine(breaker=QUICK)
    crew: Crew = crew_of(orchestrator)
    await crew.join("bad", does=Machine())
    await crew.join("good")

    names = await submit(orchestrator, *(f"t{number}" for number in range(40)))
    ended = await orchestrator.call("task.wait", task_ids=names, timeout_seconds=10)

    assert {task.status for task in ended} == {"completed"}
    assert {task.assigned_agents[0] for task in ended} == {"good"}
    assert await attempts(orchestrator) == {("bad", "failed"): 4, ("good", "completed"): 40}
    await until_told(orchestrator, "excluded")
    page = await orchestrator._metrics()
    assert "agentorch_agents_excluded 1.0" in page[2]
    assert "agentorch_agent_excluded_total 1.0" in page[2]


async def test_a_task_that_only_an_excluded_agent_can_do_says_until_when(
    start_engine: Any, crew_of: Any
) -> None:
    orchestrator = await start_engine(breaker=QUICK)
    await crew_of(orchestrator).join("bad", does=Machine())

    await submit(orchestrator, "a", "b", "c")
    agent = await excluded(orchestrator)
    why = await orchestrator.call("task.why", task_id="c")

    (reason,) = [link.agents["bad"] for link in why.links if link.agents]
    assert not why.is_clear
    assert reason.startswith(f"is excluded until {agent.excluded_until:%H:%M:%S} UTC (for ")
    assert reason.endswith(" more) after 4 failures in a row, the last: the machine is broken")
    assert 55 < (agent.excluded_until - agent.excluded_since).total_seconds() <= 60
    waits, excluded_one = (await orchestrator.call("status.get")).alarms
    assert waits.endswith(
        f"those who could are set aside: bad (excluded until {agent.excluded_until:%T} UTC)"
        " (agentorch agent resume)"
    )
    assert excluded_one.startswith(
        f"agent bad is excluded until {agent.excluded_until:%T} UTC: 4 failures in"
    )


async def test_a_probe_readmits_an_agent_that_was_repaired(start_engine: Any, crew_of: Any) -> None:
    orchestrator = await start_engine(breaker=QUICK)
    machine = Machine()
    await crew_of(orchestrator).join("bad", does=machine, slots=3)
    names = await submit(orchestrator, *(f"t{number}" for number in range(9)))
    await excluded(orchestrator)
    machine.is_broken = False

    await expire(orchestrator, seconds=0.05)
    ended = await orchestrator.call("task.wait", task_ids=names, timeout_seconds=10)
    await until_told(orchestrator, "excluded", "probed", "readmitted")
    agent = await orchestrator.call("agent.get", agent_id="bad")
    assert {task.status for task in ended} == {"completed"}
    assert (agent.excluded_until, agent.excluded_reason, agent.trips, agent.consecutive_failures) == (
        None,
        None,
        0,
        0,
    )


async def test_a_probe_is_one_task_however_many_slots_are_free(start_engine: Any, crew_of: Any) -> None:
    orchestrator = await start_engine(breaker=QUICK)
    gate, machine = Gate(), Machine()

    async def play(work: Any) -> Any:
        return await (gate(work) if not machine.is_broken else machine(work))

    await crew_of(orchestrator).join("bad", does=play, slots=3)
    names = await submit(orchestrator, *(f"t{number}" for number in range(6)))
    await excluded(orchestrator)
    machine.is_broken = False
    await expire(orchestrator)
    await gate.work()
    await submit(orchestrator, "late")
    await orchestrator.engine.scheduler.step()

    assert gate.begun.empty()  # two slots are free, and tasks are ready
    why = await orchestrator.call("task.why", task_id="late")
    (told,) = [link.agents["bad"] for link in why.links if link.agents]
    assert told == "is being probed, with one task at a time"

    gate.is_open.set()
    await orchestrator.call("task.wait", task_ids=[*names, "late"], timeout_seconds=10)


async def test_a_probe_that_fails_doubles_the_exclusion(start_engine: Any, crew_of: Any) -> None:
    orchestrator = await start_engine(breaker=QUICK)
    await crew_of(orchestrator).join("bad", does=Machine())
    await submit(orchestrator, "a", "b", "c")

    for trips, seconds in ((1, 60), (2, 120), (3, 240), (4, 300)):  # 300: `max_backoff`

        async def has_tripped(trips: int = trips) -> Any:
            agent = await orchestrator.call("agent.get", agent_id="bad")
            return agent if agent.trips == trips else None

        agent = await until(has_tripped)
        assert (agent.excluded_until - agent.excluded_since).total_seconds() == seconds
        assert agent.consecutive_failures == 3 + trips
        await expire(orchestrator)


async def test_errors_that_are_about_the_task_exclude_nobody(start_engine: Any, crew_of: Any) -> None:
    orchestrator = await start_engine(breaker={**QUICK, "tasks": 2})

    async def picky(work: Any) -> Any:
        if work.type == "poison":
            raise WorkFailed("boom")
        raise WorkFailed("there is no such page", retryable=False)

    await crew_of(orchestrator).join("picky", does=picky)
    names = await submit(orchestrator, *(f"t{number}" for number in range(8)), type="page")
    names += await submit(orchestrator, "poison", type="poison", retries=8)
    await orchestrator.call("task.wait", task_ids=names, timeout_seconds=10)

    assert await stories(orchestrator) == []
    assert (await attempts(orchestrator))["picky", "failed"] == 17


async def test_an_exclusion_survives_the_engine(start_engine: Any, crew_of: Any) -> None:
    first = await start_engine(breaker=QUICK)
    await crew_of(first).join("bad", does=Machine())
    await submit(first, "a", "b", "c", "d")
    before = await excluded(first)
    await first.stop()

    second = await start_engine(breaker=QUICK)
    gate = Gate()
    await crew_of(second).join("bad", does=gate)
    await second.engine.scheduler.step()
    after = await second.call("agent.get", agent_id="bad")
    assert (after.excluded_until, after.trips) == (before.excluded_until, 1)
    assert gate.begun.empty()

    await expire(second)
    await gate.work()
    await until_told(second, "excluded", "probed")
    gate.is_open.set()


async def test_a_probe_survives_the_engine(start_engine: Any, crew_of: Any) -> None:
    first = await start_engine(breaker=QUICK)
    machine, gate = Machine(), Gate(result="kept")

    async def play(work: Any) -> Any:
        return await (machine(work) if machine.is_broken else gate(work))

    await crew_of(first).join("bad", does=play, slots=2)
    names = await submit(first, "a", "b", "c", "d")
    await excluded(first)
    machine.is_broken = False
    await expire(first)
    await gate.work()
    await first.stop()

    port = int(first.url.rpartition(":")[2].partition("/")[0])
    second = await start_engine(breaker=QUICK, gateway={"port": port})
    await until(lambda: _is_here(second, "bad"), 15)
    await second.engine.scheduler.step()
    assert gate.begun.empty()  # the probe goes on, and there is only one
    gate.is_open.set()

    ended = await second.call("task.wait", task_ids=names, timeout_seconds=10)
    assert {task.result for task in ended} == {"kept"}
    await until_told(second, "excluded", "probed", "readmitted")


async def _is_here(orchestrator: Orchestrator, agent_id: str) -> bool:
    return agent_id in orchestrator._gateway.sessions


async def test_what_was_counted_below_a_trip_survives_the_engine(start_engine: Any, crew_of: Any) -> None:
    first = await start_engine(breaker=QUICK)
    hand = await crew_of(first).join("bad", does=Machine())
    names = await submit(first, "a", "b", "c", retries=0)
    await first.call("task.wait", task_ids=names, timeout_seconds=10)
    await hand.leave()
    await first.stop()

    second = await start_engine(breaker=QUICK)
    assert (await second.call("agent.get", agent_id="bad")).consecutive_failures == 3
    await crew_of(second).join("bad", does=Machine())
    await submit(second, "d", retries=0)

    assert (await excluded(second)).consecutive_failures == 4


async def test_losses_count_and_wait_for_the_agent_when_it_comes_back(
    start_engine: Any, crew_of: Any
) -> None:
    orchestrator = await start_engine(breaker=QUICK)
    gate = Gate()
    await crew_of(orchestrator).join("bad", does=gate, slots=4)
    await submit(orchestrator, "a", "b", "c", "d")
    for _ in range(4):
        await gate.work()

    orchestrator.engine.lifeline.lose("bad")

    reason = (await excluded(orchestrator)).excluded_reason
    grace = orchestrator.engine.lifeline.grace
    assert reason == f"4 failures in a row, the last: agent bad was disconnected for {grace:g} s"
    gate.is_open.set()


async def test_a_person_can_end_an_exclusion(start_engine: Any, crew_of: Any) -> None:
    orchestrator = await start_engine(breaker=QUICK)
    machine = Machine()
    await crew_of(orchestrator).join("bad", does=machine)
    names = await submit(orchestrator, "a", "b", "c")
    await excluded(orchestrator)
    machine.is_broken = False

    reply = await orchestrator.call("agent.resume", agent_ids=["bad"])
    ended = await orchestrator.call("task.wait", task_ids=names, timeout_seconds=10)

    assert reply.changed == ["bad"]
    assert {task.status for task in ended} == {"completed"}
    await until_told(orchestrator, "excluded", "resumed")


async def test_a_breaker_that_is_turned_off_excludes_nobody(start_engine: Any, crew_of: Any) -> None:
    orchestrator = await start_engine(breaker={**QUICK, "enabled": False})
    await crew_of(orchestrator).join("bad", does=Machine())

    names = await submit(orchestrator, *(f"t{number}" for number in range(8)), retries=1)
    await orchestrator.call("task.wait", task_ids=names, timeout_seconds=10)

    assert await stories(orchestrator) == []
    assert (await attempts(orchestrator))["bad", "failed"] == 16


async def test_an_agent_that_trips_while_the_database_is_away_gets_nothing_and_is_noted_later(
    start_engine: Any, crew_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator = await start_engine(breaker={**QUICK, "backoff": 0.05})
    database, fetch = orchestrator.store.db, orchestrator.store.db.fetch
    machine = Machine()
    refused: list[list[str]] = []

    async def flaky(name: str, *args: Any, **options: Any) -> Any:
        if name == "exclude_agents" and len(refused) < 2:
            refused.append(list(machine.served))
            raise DatabaseUnreachable("the database is away")
        return await fetch(name, *args, **options)

    monkeypatch.setattr(database, "fetch", flaky)
    await crew_of(orchestrator).join("bad", does=machine)
    await submit(orchestrator, "a", "b", "c")

    await excluded(orchestrator)

    assert [len(served) for served in refused] == [4, 4]


async def test_what_is_stored_twice_because_nobody_knew_counts_once(start_engine: Any, crew_of: Any) -> None:
    orchestrator = await start_engine(breaker=QUICK)
    machine = Machine()
    await crew_of(orchestrator).join("bad", does=machine)
    names = await submit(orchestrator, "a", "b", "c")
    before = await excluded(orchestrator)
    exclusions = orchestrator.engine.exclusions

    await exclusions._write_exclusions({"bad": exclusions._breakers["bad"]})
    after = await orchestrator.call("agent.get", agent_id="bad")
    # its heartbeat and its tally go on meanwhile
    assert standing_of(after) == standing_of(before)

    machine.is_broken = False
    noted: list[Any] = []
    orchestrator.engine.scheduler.on_probe = noted.append
    await expire(orchestrator)
    await orchestrator.call("task.wait", task_ids=names, timeout_seconds=10)
    for _ in range(2):
        exclusions.probed(noted[0])
        await exclusions.write()
    await until_told(orchestrator, "excluded", "readmitted", "probed")


async def test_an_agent_on_another_node_is_excluded_and_probed_by_the_leader(
    start_engine: Any, crew_of: Any
) -> None:
    leader = await start_engine(breaker=QUICK)
    other = await start_engine(breaker=QUICK)
    machine = Machine()
    await crew_of(other).join("bad", does=machine, slots=2)
    names = await submit(leader, "a", "b", "c", retries=20)
    await excluded(leader)

    async def is_known() -> bool:
        return leader.engine.state.roster.members["bad"].excluded is not None

    await until(is_known)
    machine.is_broken = False
    await leader.store.db.pool.execute(
        "update agent_registry set excluded_until = now() + interval '50 ms'"
        " where agent_id = 'bad' returning pg_notify('agentorch_fleet', '*')"
    )
    ended = await leader.call("task.wait", task_ids=names, timeout_seconds=10)

    assert {task.status for task in ended} == {"completed"}
    # two nodes write, each a moment after it happened
    await until(lambda: _are_told(leader, {"excluded", "probed", "readmitted"}))
    member = leader.engine.state.roster.members["bad"]

    async def is_free_again() -> bool:
        return (member.excluded, member.is_probing, member.used) == (None, False, set())

    await until(is_free_again)


async def _are_told(orchestrator: Orchestrator, kinds: set[str]) -> bool:
    return set(await stories(orchestrator)) == kinds
