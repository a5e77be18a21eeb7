"""What a task hangs together with, and when it was worked on: of real tasks, on a running engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crew import Crew, Gate

from agentorch_cli.errors import NotFound
from agentorch_cli.wiring import Orchestrator


async def graph(orchestrator: Orchestrator, task_id: str, **more: Any) -> Any:
    return await orchestrator.call("task.graph", task_id=task_id, **more)


def edges(found: Any) -> set[tuple[str, str, str]]:
    return {(edge.before, edge.after, edge.kind) for edge in found.edges}


def states(found: Any) -> dict[str, str]:
    return {node.task_id: node.status for node in found.nodes}


def task(task_id: str, *depends_on: str, **more: Any) -> dict[str, Any]:
    return {"id": task_id, "required_capabilities": ["work"], "depends_on": list(depends_on), **more}


async def test_dependencies_that_are_met_are_still_in_the_graph(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    await crew.join("a")
    tasks = await orchestrator.submit_all([task("first"), task("second", "first"), task("third", "second")])
    await asyncio.gather(*(one.result(20) for one in tasks))

    found = await graph(orchestrator, "second")

    assert states(found) == {"first": "completed", "second": "completed", "third": "completed"}
    assert edges(found) == {("first", "second", "depends"), ("second", "third", "depends")}
    assert found.cut == 0
    assert [node.agents for node in found.nodes] == [["a"]] * 3


async def test_what_does_not_hang_together_is_left_out_unless_the_submission_is_asked_for(
    orchestrator: Orchestrator,
) -> None:
    await orchestrator.submit_all([task("a"), task("b", "a"), task("alone"), task("x"), task("y", "x")])
    submission = (await orchestrator.call("task.get", task_id="a")).submission_id

    assert set(states(await graph(orchestrator, "a"))) == {"a", "b"}
    assert set(states(await graph(orchestrator, "alone"))) == {"alone"}
    assert set(states(await graph(orchestrator, submission))) == {"a", "b", "alone", "x", "y"}


async def test_a_graph_reaches_over_submissions_both_ways(orchestrator: Orchestrator) -> None:
    await orchestrator.submit_all([task("a"), task("b", "a")])
    await orchestrator.submit_all([task("side"), task("c", "side", "b"), task("d", "c")])
    await orchestrator.submit_all([task("e", "d", "a"), task("apart")])

    for task_id in "abcde":
        assert set(states(await graph(orchestrator, task_id))) == {"a", "b", "c", "d", "e", "side"}


async def test_sub_tasks_hang_on_their_parent(orchestrator: Orchestrator, crew: Crew) -> None:
    async def split(work: Any) -> str:
        for name in ("left", "right"):
            await work.submit({"id": name, "required_capabilities": ["part"]}, wait=False)
        return "done"

    await crew.join("boss", does=split)
    await crew.join("hand", "part")
    handle = await orchestrator.submit(task("whole"))
    await handle.result(20)
    await orchestrator.call("task.wait", task_ids=["left", "right"], timeout_seconds=20)

    for task_id in ("whole", "left"):
        assert edges(await graph(orchestrator, task_id)) == {
            ("whole", "left", "sub_task"),
            ("whole", "right", "sub_task"),
        }


async def test_of_too_many_the_nearest_are_shown_and_the_others_counted(orchestrator: Orchestrator) -> None:
    await orchestrator.submit_all([task("n0"), *(task(f"n{i}", f"n{i - 1}") for i in range(1, 30))])

    found = await graph(orchestrator, "n10", limit=5)

    assert sorted(states(found)) == ["n10", "n11", "n12", "n8", "n9"]
    assert found.cut == 25
    assert ("n9", "n10", "depends") in edges(found)
    assert all(edge.before in states(found) and edge.after in states(found) for edge in found.edges)


async def test_what_is_waited_for_and_not_stored_is_shown_as_unknown(orchestrator: Orchestrator) -> None:
    specs = orchestrator.read([task("a", "comes-later")])
    await orchestrator.call("task.submit", tasks=specs, allow_forward=True)

    found = await graph(orchestrator, "a")

    assert states(found) == {"a": "blocked", "comes-later": "unknown"}
    assert edges(found) == {("comes-later", "a", "depends")}


@pytest.mark.parametrize("method", ["task.graph", "task.timeline"])
async def test_no_task_of_that_name_has_no_picture(orchestrator: Orchestrator, method: str) -> None:
    for name in ("nothing", "0190f0e0-0000-7000-8000-000000000000"):
        with pytest.raises(NotFound, match="there is no task and no submission"):
            await orchestrator.call(method, task_id=name)


async def test_a_failure_is_noted_with_its_reason(orchestrator: Orchestrator, crew: Crew) -> None:
    async def fails(_work: Any) -> str:
        raise ValueError("no such table")

    await crew.join("a", does=fails)
    handle = await orchestrator.submit(task("a", retries=0))
    await orchestrator.call("task.wait", task_ids=[handle.task_id], timeout_seconds=20)

    (node,) = (await graph(orchestrator, "a")).nodes

    assert node.status == "failed"
    assert "no such table" in node.note


async def test_the_timeline_has_every_attempt_the_waits_and_the_longest_chain(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    tries: list[str] = []

    async def works(work: Any) -> str:
        tries.append(work.name)
        if work.name == "shaky" and tries.count("shaky") == 1:
            raise ValueError("not yet")
        return "done"

    await crew.join("a", does=works, slots=4)
    handles = await orchestrator.submit_all(
        [
            task("quick"),
            task("shaky", retries=1, backoff=0.05, name="shaky"),
            task("last", "quick", "shaky"),
        ]
    )
    await asyncio.gather(*(one.result(20) for one in handles))

    found = await orchestrator.call("task.timeline", task_id="quick")

    bars = [(bar.task_id, bar.status, bar.attempt) for bar in found.bars if bar.attempt]
    assert bars.count(("shaky", "failed", 1)) == 1
    assert ("shaky", "completed", 2) in bars
    assert len(bars) == 4
    assert {bar.status for bar in found.bars if not bar.attempt} == {"pending"}
    assert found.critical == ["shaky", "last"]
    assert found.start == min(bar.start for bar in found.bars)
    assert found.end == max(bar.end for bar in found.bars)
    assert not any(bar.is_open for bar in found.bars)
    assert {bar.task_status for bar in found.bars} == {"completed"}


async def test_voters_stand_side_by_side_and_open_work_ends_now(
    orchestrator: Orchestrator, crew: Crew
) -> None:
    gate = Gate("yes")
    for name in ("a", "b", "c"):
        await crew.join(name, does=gate)
    await orchestrator.submit(task("vote", min_agents=3, consensus={"rule": "majority"}))
    await orchestrator.submit(task("after", "vote"))
    await gate.work()
    await gate.work()

    found = await orchestrator.call("task.timeline", task_id="vote")
    gate.is_open.set()

    live = [bar for bar in found.bars if bar.task_id == "vote" and bar.attempt]
    assert len(live) >= 2
    assert sorted(bar.lane for bar in live) == list(range(len(live)))
    assert all(bar.is_open and bar.end == found.end for bar in live)
    (blocked,) = [bar for bar in found.bars if bar.task_id == "after"]
    assert (blocked.status, blocked.is_open, blocked.agent) == ("blocked", True, None)
