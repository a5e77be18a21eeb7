"""The window of ready tasks must not hide what agents could do."""

from __future__ import annotations

import pytest
from crew import Crew, Gate

from agentorch_cli.engine import scheduler
from agentorch_cli.wiring import Orchestrator


async def test_work_that_nobody_can_do_does_not_hide_work_that_somebody_can(
    orchestrator: Orchestrator, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "WINDOW", 10)
    hopeless = [{"required_capabilities": ["missing"], "priority": 10} for _ in range(300)]
    possible = [{"required_capabilities": ["work"], "priority": 0, "data": number} for number in range(30)]
    handles = (await orchestrator.submit_all([*hopeless, *possible]))[300:]

    await crew.join("able")

    assert [await handle.result(10) for handle in handles] == list(range(30))


async def test_a_backlog_larger_than_the_window_is_done_to_its_end(
    orchestrator: Orchestrator, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "WINDOW", 10)
    handles = await orchestrator.submit_all(
        [{"required_capabilities": ["work"], "data": number} for number in range(395)]
    )

    await crew.join("able", slots=3)

    assert [await handle.result(10) for handle in handles] == list(range(395))


async def test_work_behind_a_closed_gate_does_not_hide_work_that_may_start(
    orchestrator: Orchestrator, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "WINDOW", 10)
    gate = Gate()
    await crew.join("busy", "slow", does=gate)
    await crew.join("able")
    holder = await orchestrator.submit({"required_capabilities": ["slow"], "concurrency_key": "k"})
    await gate.work()
    waiting = await orchestrator.submit_all(
        [
            {"required_capabilities": ["work"], "priority": 10, "concurrency_key": "k", "data": number}
            for number in range(50)
        ]
    )
    possible = await orchestrator.submit_all(
        [{"required_capabilities": ["work"], "priority": 0, "data": number} for number in range(30)]
    )

    assert [await handle.result(10) for handle in possible] == list(range(30))
    gate.is_open.set()
    await holder.wait(10)
    assert [await handle.result(20) for handle in waiting] == list(range(50))
