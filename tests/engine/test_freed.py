"""Slots of agents on other nodes that come free: what ends their attempts tells whoever leads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from crew import Crew
from test_orders import COMMON

from agentorch_cli.core.matching import Roster
from agentorch_cli.engine.orders import read
from agentorch_cli.engine.peers import seat
from agentorch_cli.engine.state import State
from agentorch_cli.store.records import Delivery
from agentorch_cli.wiring import Orchestrator


def delivery(message_id: str, slot: int) -> Delivery:
    """An attempt of agent a at plain work."""
    order = f"{message_id}\x1fa\x1f{slot}\x1ftask of {message_id}\x1f\x1f\x1f"
    return next(read(f"{COMMON}\x1e{order}", "here"))


StartEngine = Callable[..., Awaitable[Orchestrator]]


async def test_slots_of_results_that_are_stored_are_told_with_them(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = await start_engine(), await start_engine()
    crew = Crew(follower)
    await crew.join("a", slots=3)
    heard: list[str] = []
    fetched: list[str] = []
    take_freed, fetch = leader.engine.peers.take_freed, follower.engine.store.db.fetch

    def takes(lines: Any) -> None:
        heard.extend(lines := list(lines))
        take_freed(lines)

    async def fetches(name: str, *args: Any) -> Any:
        fetched.append(name)
        return await fetch(name, *args)

    monkeypatch.setattr(leader.engine.peers, "take_freed", takes)
    monkeypatch.setattr(follower.engine.store.db, "fetch", fetches)

    handles = await leader.submit_all([{"required_capabilities": ["work"]} for _ in range(30)])

    for handle in handles:
        await handle.result(10)
    async with asyncio.timeout(10):
        while leader.engine.state.elsewhere:
            await asyncio.sleep(0.01)
    assert len(heard) == 30
    assert all(line.endswith(" w") for line in heard)
    assert "notify_many" not in fetched
    assert leader.engine.state.roster.members["a"].used == set()
    await crew.vanish()


def test_a_slot_that_was_given_away_anew_is_not_free_when_its_last_attempt_is_over() -> None:
    state = State("here", Roster())
    seat(
        state.roster,
        {
            "agent_id": "a",
            "agent_type": "worker",
            "status": "online",
            "node_id": "here",
            "capabilities": [],
            "slots": 2,
            "pool": "default",
            "prefetch": 0,
            "completed": 0,
            "failed": 0,
        },
    )
    member = state.roster.members["a"]
    for message_id, slot in (("old", 0), ("other", 1)):
        state.takes_over(delivery(message_id, slot))
        state.roster.hold(member, slot)
        state.hold(delivery(message_id, slot))

    state.takes_over(delivery("new", 0))
    state.roster.hold(member, 0)
    state.hold(delivery("new", 0))
    state.release_all(["old", "other"])

    assert member.used == {0}
    state.release("new")
    assert member.used == set()
    assert state.taken_over == set()
