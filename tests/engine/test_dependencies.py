"""Tasks that wait for tasks: shapes, inputs, failures, and the race with an ending."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from crew import Gate

from agentorch_cli import WorkFailed
from agentorch_cli.errors import NotFound


def _task(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "depends_on": list(depends_on), "required_capabilities": ["work"], **fields}


async def _all(orchestrator: Any, tasks: list[dict[str, Any]], seconds: float = 20.0) -> dict[str, Any]:
    handles = await orchestrator.submit_all(tasks)
    return await _ended(orchestrator, handles, seconds)


async def _ended(orchestrator: Any, handles: list[Any], seconds: float = 20.0) -> dict[str, Any]:
    found = await orchestrator.call(
        "task.wait", task_ids=[handle.task_id for handle in handles], timeout_seconds=seconds
    )
    return {task.name or task.task_id: task for task in found}


async def fails(work: Any) -> None:
    raise WorkFailed("it went wrong", retryable=False)


async def picky(work: Any) -> Any:
    """Fails where the data say so; else its result is what it was given."""
    if work.data == "fail":
        raise WorkFailed("it went wrong", retryable=False)
    return {"data": work.data, "inputs": work.inputs}


# --- shapes -----------------------------------------------------------------------------------


async def test_a_chain_runs_in_order_and_hands_its_results_on(orchestrator: Any, crew: Any) -> None:
    async def add_one(work: Any) -> int:
        return 1 + sum(work.inputs.values())

    await crew.join("a", does=add_one, slots=4)
    chain = [_task("t0")] + [_task(f"t{n}", f"t{n - 1}") for n in range(1, 40)]

    ended = await _all(orchestrator, chain)

    assert [ended[f"t{n}"].result for n in range(40)] == list(range(1, 41))


async def test_a_diamond_gives_each_input_under_the_name_that_was_used(orchestrator: Any, crew: Any) -> None:
    await crew.join("a", does=picky, slots=4)
    stored = (
        await orchestrator.submit({"id": "stored", "required_capabilities": ["work"], "data": 1})
    ).task_id

    ended = await _all(
        orchestrator,
        [
            _task("top", data="t"),
            _task("left", "top", data="l"),
            _task("right", "top", stored, data="r"),
            _task("bottom", "left", "right", data="b"),
        ],
    )

    assert set(ended["right"].result["inputs"]) == {"top", "stored"}
    assert set(ended["bottom"].result["inputs"]) == {"left", "right"}
    assert ended["bottom"].result["inputs"]["left"]["inputs"]["top"] == {"data": "t", "inputs": {}}


async def test_a_fan_of_two_hundred_opens_and_closes(orchestrator: Any, crew: Any) -> None:
    async def spread(work: Any) -> Any:
        return sorted(work.inputs.values()) if work.data is None else work.data

    await crew.join("a", does=spread, slots=50)
    leaves = [_task(f"leaf {n}", "root", data=n) for n in range(200)]

    ended = await _all(
        orchestrator, [_task("root", data=-1), *leaves, _task("end", *(t["name"] for t in leaves))]
    )

    assert ended["end"].result == list(range(200))


async def test_no_task_starts_before_its_dependencies_have_ended(orchestrator: Any, crew: Any) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    await crew.join("a", slots=7)
    await crew.join("b", slots=3)
    tasks = [
        _task(f"t{n}", *(f"t{d}" for d in dice.sample(range(n), min(n, dice.randint(0, 4)))))
        for n in range(150)
    ]

    ended = await _all(orchestrator, tasks)

    for task in ended.values():
        assert task.status == "completed"
    ids = {task.task_id: task for task in ended.values()}
    shown = [await orchestrator.call("task.get", task_id=t.task_id) for t in ended.values()]
    for task in shown:
        for dependency in task.depends_on:
            assert ids[dependency].completed_at <= task.started_at


# --- tasks that are stored already ------------------------------------------------------------


async def test_a_dependency_that_has_completed_is_not_waited_for(orchestrator: Any, crew: Any) -> None:
    await crew.join("a", does=picky)
    first = await orchestrator.submit({"required_capabilities": ["work"], "data": 7})
    await first.result(10)

    second = await orchestrator.submit({"required_capabilities": ["work"], "depends_on": [first.task_id]})

    assert (await second.result(10))["inputs"] == {first.task_id: {"data": 7, "inputs": {}}}


@pytest.mark.parametrize(
    ("policy", "status"), [("fail", "failed"), ("skip", "skipped"), ("run", "completed")]
)
@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_a_dependency_that_ended_badly_before_decides_at_once(
    orchestrator: Any, crew: Any, policy: str, status: str, how: str
) -> None:
    first = await orchestrator.submit({"required_capabilities": ["work"], "data": "fail"})
    if how == "cancelled":
        await first.cancel()
    await crew.join("a", does=picky)
    assert (await first.wait(10)).status == how

    ended = await _all(
        orchestrator,
        [_task("next", first.task_id, on_dependency_failure=policy), _task("after", "next")],
    )

    assert ended["next"].status == status
    assert ended["after"].status == ("failed" if policy == "fail" else "completed")


async def test_a_running_dependency_is_waited_for(orchestrator: Any, crew: Any, story: Any) -> None:
    gate = Gate(result=5)
    await crew.join("a", does=gate, slots=2)
    first = await orchestrator.submit({"required_capabilities": ["work"]})
    await gate.work()

    second = await orchestrator.submit({"required_capabilities": ["work"], "depends_on": [first.task_id]})
    assert (await orchestrator.call("task.get", task_id=second.task_id)).status == "blocked"
    gate.is_open.set()

    assert await second.result(10) == 5
    assert (await gate.work()).inputs == {first.task_id: 5}


async def test_an_unknown_dependency_is_refused_and_nothing_is_stored(orchestrator: Any) -> None:
    with pytest.raises(NotFound, match="'beta' depends on 'alhpa'") as caught:
        await orchestrator.submit_all([_task("alpha"), _task("beta", "alhpa")])

    assert "alpha" in (caught.value.hint or "")
    assert await orchestrator.call("task.list") == []


# --- failures ---------------------------------------------------------------------------------


async def test_policies_decide_what_a_failure_does_to_those_who_wait(orchestrator: Any, crew: Any) -> None:
    await crew.join("a", does=picky, slots=4)

    ended = await _all(
        orchestrator,
        [
            _task("root", data="fail"),
            _task("fails", "root"),
            _task("runs", "root", on_dependency_failure="run"),
            _task("is left out", "root", on_dependency_failure="skip"),
            _task("after the skipped", "is left out"),
            _task("after the failed", "fails"),
            _task("runs after the failed", "fails", on_dependency_failure="run"),
        ],
    )

    assert {name: task.status for name, task in ended.items()} == {
        "root": "failed",
        "fails": "failed",
        "runs": "completed",
        "is left out": "skipped",
        "after the skipped": "completed",
        "after the failed": "failed",
        "runs after the failed": "completed",
    }
    assert ended["fails"].error["code"] == "dependency_failed"
    assert ended["fails"].error["depends_on"] == ended["root"].task_id
    assert ended["runs"].result["inputs"] == {"root": None}
    assert ended["after the skipped"].result["inputs"] == {"is left out": None}


async def test_a_chain_of_five_hundred_fails_in_one_go(orchestrator: Any, crew: Any) -> None:
    await crew.join("a", does=fails)
    chain = [_task("t0")] + [_task(f"t{n}", f"t{n - 1}") for n in range(1, 500)]

    ended = await _all(orchestrator, chain)

    assert {task.status for task in ended.values()} == {"failed"}
    at = {task.completed_at for name, task in ended.items() if name != "t0"}
    assert len(at) == 1


async def test_retrying_a_root_brings_back_what_failed_because_of_it(orchestrator: Any, crew: Any) -> None:
    is_well = False

    async def sometimes(work: Any) -> Any:
        if work.data == "root" and not is_well:
            raise WorkFailed("not yet", retryable=False)
        return sorted(work.inputs)

    await crew.join("a", does=sometimes, slots=4)
    tasks = [
        _task("root", data="root"),
        _task("other"),
        _task("middle", "root", "other"),
        _task("end", "middle"),
        _task("skipped", "root", on_dependency_failure="skip"),
    ]
    handles = await orchestrator.submit_all(tasks)
    before = await _ended(orchestrator, handles)
    assert before["end"].status == "failed"
    is_well = True

    reply = await orchestrator.call("task.retry", task_ids=[before["root"].task_id])
    after = await _ended(orchestrator, handles)

    assert sorted(reply.changed) == sorted(
        before[name].task_id for name in ("root", "middle", "end", "skipped")
    )
    assert {task.status for task in after.values()} == {"completed"}
    assert after["middle"].result == ["other", "root"]


async def test_retrying_what_depends_on_a_failed_task_is_refused_with_the_reason(
    orchestrator: Any, crew: Any
) -> None:
    await crew.join("a", does=fails)
    handles = await orchestrator.submit_all([_task("root"), _task("next", "root")])
    ended = await _ended(orchestrator, handles)

    reply = await orchestrator.call("task.retry", task_ids=[ended["next"].task_id, "nobody"])

    assert reply.changed == []
    assert "depends on" in reply.unchanged[ended["next"].task_id]
    assert reply.unchanged["nobody"] == "there is no such task"


# --- races ------------------------------------------------------------------------------------


async def test_nothing_is_left_blocked_when_tasks_arrive_as_their_dependency_ends(
    start_engine: Any, crew_of: Any
) -> None:
    orchestrator = await start_engine(engine={"poll_interval": 600})  # no sweep comes to help
    crew = crew_of(orchestrator)
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)

    async def soon(work: Any) -> None:
        await asyncio.sleep(dice.uniform(0, 0.006))
        if work.data == "fail":
            raise WorkFailed("it went wrong", retryable=False)

    await crew.join("a", does=soon, slots=200)
    waiting: list[str] = []

    async def follow(root: str) -> None:
        await asyncio.sleep(dice.uniform(0, 0.02))
        handles = await orchestrator.submit_all([_task("n", root), _task("m", "n", root)])
        waiting.extend(handle.task_id for handle in handles)

    for number in range(50):
        data = "fail" if number % 3 == 0 else "well"
        root = await orchestrator.submit({"required_capabilities": ["work"], "data": data})
        await asyncio.gather(*(follow(root.task_id) for _ in range(5)))
        expected = "failed" if data == "fail" else "completed"
        ended = await orchestrator.call("task.wait", task_ids=waiting, timeout_seconds=10)
        assert {task.status for task in ended} == {expected}
        waiting.clear()
