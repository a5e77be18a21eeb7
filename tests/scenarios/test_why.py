"""Why a task waits: the chain, agent by agent, and the alarm where the engine itself is at fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from test_deadlocks import link, submit, until, worker
from test_subtasks import nested, running

from agentorch_cli import Agent
from agentorch_cli.agents.work import Work
from agentorch_cli.store.why import idle_beside_work, why
from agentorch_cli.wiring import Orchestrator

StartEngine = Callable[..., Awaitable[Orchestrator]]


async def chain(orchestrator: Orchestrator, task_id: str) -> list[str]:
    found = await orchestrator.call("task.why", task_id=task_id)
    return [f"{item.depth} {item.code} {item.sentence}" for item in found.links]


async def reasons(orchestrator: Orchestrator, task_id: str) -> dict[str, str | None]:
    found = await orchestrator.call("task.why", task_id=task_id)
    return {agent: why for item in found.links for agent, why in item.agents.items()}


async def test_the_chain_goes_from_dependency_to_the_agent_that_works(orchestrator: Orchestrator) -> None:
    begun = asyncio.Event()
    one = Agent("one", capabilities=["work"])

    async def work(work: Work) -> None:
        begun.set()
        await asyncio.sleep(30)

    one.add_handler(work)
    async with running(orchestrator, one):
        await submit(orchestrator, link("a"), link("b", "a"), link("c", "b"))
        await asyncio.wait_for(begun.wait(), 5)

        async def taken() -> bool:
            return (await chain(orchestrator, "a"))[0].startswith("0 running")

        await until("taken", taken, 3)
        told = await chain(orchestrator, "c")

        assert told[0] == "0 dependency waits for task b (blocked)"
        assert told[1].startswith("1 dependency waits for task a (running on one for ")
        assert told[2].startswith("2 running runs on agent one")
        await orchestrator.call("task.cancel", task_ids=["a"])


async def test_a_long_chain_says_where_it_is_cut_and_how_to_see_the_rest(orchestrator: Orchestrator) -> None:
    await submit(orchestrator, link("t0"), *[link(f"t{n}", f"t{n - 1}") for n in range(1, 60)])

    cut = [one for one in await chain(orchestrator, "t59") if " cut " in one]
    short = await chain(orchestrator, "t50")

    assert cut == [
        "50 cut is the last that is told, for a chain is followed for 50 links:"
        " agentorch task why t8 goes on from there, agentorch task graph t59 shows all"
    ]
    assert not [one for one in short if " cut " in one]  # its end is told: nothing is missing


async def test_each_agent_has_its_own_reason(orchestrator: Orchestrator) -> None:
    begun = asyncio.Event()
    busy = Agent("busy", capabilities=["sql"], slots=1)

    async def work(work: Work) -> None:
        begun.set()
        await asyncio.sleep(30)

    busy.add_handler(work)
    await orchestrator.register_agent("away", capabilities=["sql"])
    async with running(orchestrator, busy, Agent("other", capabilities=["sql_query"], slots=2)):
        await asyncio.sleep(0.3)
        await submit(orchestrator, {"id": "holds", "required_capabilities": ["sql"]})
        await asyncio.wait_for(begun.wait(), 5)
        await submit(
            orchestrator,
            {"id": "waits", "required_capabilities": ["sql"]},
            {"id": "urgent", "required_capabilities": ["sql"], "priority": 9},
        )

        told = await reasons(orchestrator, "waits")

        assert told["other"] == 'lacks the capability `sql` (did you mean "sql_query"?)'
        assert told["away"].startswith("is offline for ")
        assert told["busy"].startswith("its only slot is busy with holds for ")
        assert (await chain(orchestrator, "waits"))[-1].endswith(
            "1 ready task is ahead of it, 1 of them of higher priority"
        )
        await orchestrator.call("task.cancel", task_ids=["holds", "waits", "urgent"])


async def test_a_retry_says_when_it_is_due_and_a_limit_is_named(start_engine: StartEngine) -> None:
    orchestrator = await start_engine(engine={"max_concurrent_tasks": 1, "backoff": 60})
    begun = asyncio.Event()
    one = Agent("one", capabilities=["work"], slots=4)

    async def work(work: Work) -> None:
        if work.type == "fails":
            raise ValueError("no")
        begun.set()
        await asyncio.sleep(30)

    one.add_handler(work)
    async with running(orchestrator, one):
        await submit(orchestrator, link("fails", type="fails"))

        async def delayed() -> bool:
            return (await chain(orchestrator, "fails"))[0].startswith("0 delayed retry 1 is due in ")

        await until("delayed", delayed, 5)
        await submit(orchestrator, link("runs"))
        await asyncio.wait_for(begun.wait(), 5)
        await submit(orchestrator, link("waits"))

        assert (await chain(orchestrator, "waits"))[0] == (
            "0 limit engine.max_concurrent_tasks is reached: 1 running"
        )
        await orchestrator.call("task.cancel", task_ids=["runs", "waits", "fails"])


async def test_it_answers_without_a_serve_too(start_engine: StartEngine) -> None:
    orchestrator = await start_engine()
    store = orchestrator.store
    await submit(orchestrator, link("a", "b"))
    await submit(orchestrator, link("b"))
    await store.db.pool.execute("update nodes set expires_at = now() - interval '3 minutes'")

    found = await why(store, "a", grace=30.0)

    assert [item.code for item in found.links] == ["dependency", "no_serve", "agents"]
    assert found.links[1].depth == 1
    assert found.links[2].sentence.endswith(": there is no agent")


async def test_a_parent_says_that_it_waits_for_its_sub_task(orchestrator: Orchestrator) -> None:
    agent = Agent("one", capabilities=["nest"])

    async def nest(work: Work) -> Any:
        return await work.submit({"type": "t", "required_capabilities": ["nobody"], "id": "child"})

    agent.add_handler(nest)
    async with running(orchestrator, agent):
        handle = await orchestrator.submit(nested(1))

        async def parked() -> bool:
            return "gave its slot of one back" in (await chain(orchestrator, handle.task_id))[0]

        await until("parked", parked, 5)
        told = await chain(orchestrator, handle.task_id)
        assert told[1].startswith("1 agents wants an agent with nobody")
        await handle.cancel()


async def test_ready_work_beside_a_free_slot_is_an_alarm(orchestrator: Orchestrator) -> None:
    await orchestrator.store.db.pool.execute(
        "insert into agent_registry (agent_id, agent_type, capabilities, status, node_id)"
        " values ('idle', 'worker', '{work}', 'online', $1)",
        orchestrator.store.node_id,
    )
    orchestrator.engine.state.is_stopping = True  # an engine that forgot its work
    await submit(orchestrator, link("forgotten"))
    assert await idle_beside_work(orchestrator.store) == []
    await orchestrator.store.db.pool.execute(
        "update task_distributions set created_at = now() - interval '8 s', run_at = now() - interval '8 s'"
    )

    (alarm,) = await idle_beside_work(orchestrator.store)

    assert alarm.startswith("task forgotten has been ready for 8.")
    (shown,) = (await orchestrator.call("status.get")).alarms
    assert shown.startswith("task forgotten has been ready for 8.")
    orchestrator.engine.state.is_stopping = False


async def test_a_busy_fleet_gives_no_alarm(orchestrator: Orchestrator) -> None:
    async with running(orchestrator, worker(seconds=0.01)):
        await submit(orchestrator, *(link(f"t{n}") for n in range(50)))
        await orchestrator.store.db.pool.execute(
            "update task_distributions"
            " set run_at = now() - interval '8 s', created_at = now() - interval '8 s'"
        )
        assert await idle_beside_work(orchestrator.store) == []
        await orchestrator.call("task.wait", task_ids=[f"t{n}" for n in range(50)], timeout_seconds=10)
