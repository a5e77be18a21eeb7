"""Teams on real sockets: who is chosen, what each is told, who takes over; and nobody is held in vain."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from test_deadlocks import deadlocks, until
from test_subtasks import running

from agentorch_cli import Agent
from agentorch_cli.agents.work import Work, WorkFailed
from agentorch_cli.core.model import AgentStatus
from agentorch_cli.wiring import Orchestrator

PAINT, BRICKS = "paint", "lay_bricks"
MEMBER = Path(__file__).with_name("team_member.py")


class Hand:
    """An agent that notes its roles, and works when it is let."""

    def __init__(
        self, agent_id: str, *capabilities: str, slots: int = 1, is_open: bool = True, fails: int = 0
    ) -> None:
        self.agent = Agent(agent_id, capabilities=capabilities, slots=slots)
        self.roles: list[str | None] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        if is_open:
            self.gate.set()

        async def work(work: Work) -> str:
            self.roles.append(work.role)
            self.begun.set()
            if len(self.roles) <= fails:
                raise WorkFailed("not today")
            await self.gate.wait()
            return f"{agent_id} as {work.role}"

        self.agent.add_handler(work)


def agents(*hands: Hand) -> list[Agent]:
    return [hand.agent for hand in hands]


def team(task_id: str, *required: str, **fields: Any) -> dict[str, Any]:
    return {"id": task_id, "coverage": "team", "required_capabilities": list(required), **fields}


async def ended(orchestrator: Orchestrator, task_id: str, seconds: float = 10.0) -> Any:
    await orchestrator.call("task.wait", task_ids=[task_id], timeout_seconds=seconds)
    return await orchestrator.call("task.get", task_id=task_id)


async def online(orchestrator: Orchestrator, number: int) -> None:
    """So many can be chosen: an agent is online in the tables a moment before."""

    async def are_there() -> bool:
        members = orchestrator.engine.state.roster.members.values()
        return sum(member.status is AgentStatus.ONLINE for member in members) == number

    await until(f"{number} agents online", are_there, 10)


async def reasons(orchestrator: Orchestrator, task_id: str) -> dict[str, str | None]:
    found = await orchestrator.call("task.why", task_id=task_id)
    return {agent: why for link in found.links for agent, why in link.agents.items()}


# --- who, and as what -----------------------------------------------------------------------


async def test_the_smallest_group_is_chosen_and_each_is_told_its_role(orchestrator: Orchestrator) -> None:
    hands = [
        Hand("painter", PAINT),
        Hand("mason", BRICKS),
        Hand("glazier", "glaze"),
        Hand("builder", BRICKS, PAINT),
    ]
    async with running(orchestrator, *agents(*hands)):
        await online(orchestrator, 4)
        await orchestrator.submit(team("two", PAINT, BRICKS, "glaze"))
        two = await ended(orchestrator, "two")
        await orchestrator.submit(team("one", PAINT, BRICKS))
        one = await ended(orchestrator, "one")

    assert (two.status, one.status) == ("completed", "completed")
    assert two.result == {"glaze": "glazier as glaze", "lay_bricks+paint": "builder as lay_bricks+paint"}
    assert one.result == {"lay_bricks+paint": "builder as lay_bricks+paint"}
    assert {attempt.agent_id: attempt.role for attempt in two.attempts} == {
        "glazier": "glaze",
        "builder": "lay_bricks+paint",
    }
    assert [hand.roles for hand in hands] == [[], [], ["glaze"], ["lay_bricks+paint"] * 2]


async def test_a_team_of_at_least_three_shares_a_role(orchestrator: Orchestrator) -> None:
    async with running(orchestrator, *agents(Hand("a", PAINT), Hand("b", BRICKS), Hand("c", PAINT))):
        await orchestrator.submit(team("large", PAINT, BRICKS, min_agents=3))
        large = await ended(orchestrator, "large")

    assert large.result == {"lay_bricks": "b as lay_bricks", "paint": "a as paint", "paint#2": "c as paint"}


async def test_parts_that_are_objects_may_be_merged(orchestrator: Orchestrator) -> None:
    both = [Agent(name, capabilities=[name]) for name in (PAINT, BRICKS)]
    for agent in both:

        async def work(work: Work) -> dict[str, str]:
            return {str(work.role): "done"}

        agent.add_handler(work)
    async with running(orchestrator, *both):
        await orchestrator.submit(team("merged", PAINT, BRICKS, aggregate="merge"))

        assert (await ended(orchestrator, "merged")).result == {PAINT: "done", BRICKS: "done"}


# --- all or none ----------------------------------------------------------------------------


async def test_no_member_is_held_while_another_is_missing_and_the_last_one_wakes_the_team(
    orchestrator: Orchestrator,
) -> None:
    painter, mason = Hand("painter", PAINT), Hand("mason", BRICKS)
    async with running(orchestrator, painter.agent):
        await online(orchestrator, 1)
        await orchestrator.submit(team("house", PAINT, BRICKS))
        await orchestrator.submit({"id": "fence", "required_capabilities": [PAINT]})
        fence = await ended(orchestrator, "fence")

        assert fence.status == "completed"
        assert painter.roles == [None]
        assert await reasons(orchestrator, "house") == {
            "painter": "has paint only; lay_bricks is missing: nobody has lay_bricks"
        }
        async with running(orchestrator, mason.agent):
            house = await ended(orchestrator, "house")

    assert house.result == {BRICKS: "mason as lay_bricks", PAINT: "painter as paint"}


async def test_teams_that_compete_for_the_same_members_never_deadlock(orchestrator: Orchestrator) -> None:
    """Seeded: 200 teams and single tasks on six agents who have one slot each; at most 30 s, about 2."""
    draw = random.Random(58)
    skills = ["a", "b", "c", "d"]
    hands = [
        Hand(f"agent-{number}", *draw.sample(skills, draw.choice([1, 2, 2, 3]))) for number in range(5)
    ] + [Hand("agent-last", *skills[2:]), Hand("agent-first", *skills[:2])]
    tasks = [
        team(f"t{number}", *draw.sample(skills, draw.choice([1, 2, 3, 4])))
        if draw.random() < 0.8
        else {"id": f"t{number}", "required_capabilities": [draw.choice(skills)]}
        for number in range(200)
    ]
    async with running(orchestrator, *agents(*hands)):
        await online(orchestrator, len(hands))
        await orchestrator.submit_all(tasks)
        done = await orchestrator.call("task.wait", task_ids=[one["id"] for one in tasks], timeout_seconds=30)

    assert Counter(one.status for one in done) == {"completed": 200}, "seed 58"
    for given, one in zip(tasks, done, strict=True):
        if "coverage" in given:
            parts = [part for role in one.result for part in role.split("+")]
            assert sorted(parts) == sorted(given["required_capabilities"])
    assert await deadlocks(orchestrator) == []


# --- who takes over -------------------------------------------------------------------------


async def test_the_part_of_a_member_that_is_killed_goes_to_another_and_the_rest_stays(
    orchestrator: Orchestrator,
) -> None:
    mason = Hand("mason", BRICKS)
    doomed = await asyncio.create_subprocess_exec(
        *(sys.executable, MEMBER, orchestrator.url, "doomed", PAINT), stdout=asyncio.subprocess.PIPE
    )
    assert doomed.stdout is not None
    try:
        async with running(orchestrator, mason.agent):
            await online(orchestrator, 2)
            await orchestrator.submit(team("house", PAINT, BRICKS))
            assert (await asyncio.wait_for(doomed.stdout.readline(), 10)).decode().strip() == PAINT

            async def is_half_done() -> bool:
                task = await orchestrator.call("task.get", task_id="house")
                return [one.status for one in task.attempts if one.agent_id == "mason"] == ["completed"]

            await until("the mason has done its part", is_half_done, 10)
            doomed.kill()
            async with running(orchestrator, Hand("painter", PAINT).agent):
                house = await ended(orchestrator, "house")
    finally:
        if doomed.returncode is None:
            doomed.kill()
        await doomed.wait()

    assert house.result == {BRICKS: "mason as lay_bricks", PAINT: "painter as paint"}
    assert mason.roles == [BRICKS]
    assert [(one.agent_id, one.role, one.status) for one in sorted(house.attempts, key=lambda a: a.attempt)][
        -1
    ] == ("painter", PAINT, "completed")
    assert Counter(one.status for one in house.attempts) == {"completed": 2, "lost": 1}


async def test_a_part_that_failed_is_tried_again_by_another_who_has_it(orchestrator: Orchestrator) -> None:
    moody, calm, mason = Hand("a-moody", PAINT, fails=9), Hand("b-calm", PAINT), Hand("mason", BRICKS)
    async with running(orchestrator, *agents(moody, calm, mason)):
        await online(orchestrator, 3)
        await orchestrator.submit(team("house", PAINT, BRICKS))
        house = await ended(orchestrator, "house")

    assert house.result == {BRICKS: "mason as lay_bricks", PAINT: "b-calm as paint"}
    assert (moody.roles, calm.roles, mason.roles, house.failures) == ([PAINT], [PAINT], [BRICKS], 1)


async def test_a_member_that_leaves_is_replaced_also_by_who_has_done_its_own_part(
    orchestrator: Orchestrator,
) -> None:
    able, leaver = Hand("able", BRICKS, PAINT), Hand("a-leaver", PAINT, "glaze", is_open=False)
    async with running(orchestrator, able.agent):
        async with running(orchestrator, leaver.agent):
            await online(orchestrator, 2)
            await orchestrator.submit(team("house", PAINT, BRICKS, "glaze"))
            await asyncio.wait_for(leaver.begun.wait(), 5)
        async with running(orchestrator, Hand("glazier", "glaze").agent):
            house = await ended(orchestrator, "house")

    assert leaver.roles == ["glaze+paint"]
    assert able.roles == [BRICKS, PAINT]
    assert house.result == {
        "glaze": "glazier as glaze",
        BRICKS: "able as lay_bricks",
        PAINT: "able as paint",
    }


# --- saying why -----------------------------------------------------------------------------


async def test_whoever_asks_one_agent_for_what_two_have_is_told_how_to_ask(
    orchestrator: Orchestrator,
) -> None:
    advice = (
        "no single agent has cost_estimation and optimization; estimator and optimiser together do:"
        ' say coverage = "team", and each gets the task with its part of it as its role'
    )
    await orchestrator.register_agent("estimator", capabilities=["cost_estimation"])
    await orchestrator.register_agent("optimiser", capabilities=["optimization"])
    tasks = orchestrator.read(
        [{"id": "bridge", "required_capabilities": ["optimization", "cost_estimation"]}]
    )

    plan = await orchestrator.call("task.plan", tasks=tasks)
    reply = await orchestrator.call("task.submit", tasks=tasks)
    found = await orchestrator.call("task.why", task_id="bridge")
    status = await orchestrator.call("status.get")
    (deadlock,) = await until("it is recorded", lambda: deadlocks(orchestrator), 5)

    assert plan.never == {"bridge": f"wants 1 agent, 0 could: {advice}"}
    assert reply.warnings == [
        f"no registered agent has cost_estimation and optimization; the task waits until one comes ({advice})"
    ]
    assert [link.sentence for link in found.links if link.code == "coverage"] == [advice]
    assert any(advice in alarm for alarm in status.alarms)
    assert (deadlock.kind, deadlock.reason.endswith(advice)) == ("unsatisfiable", True)


async def test_a_team_that_nobody_makes_says_what_is_missing(orchestrator: Orchestrator) -> None:
    await orchestrator.register_agent("painter", capabilities=[PAINT])
    await orchestrator.register_agent("mason", capabilities=[BRICKS])
    tasks = orchestrator.read(
        [team("house", PAINT, BRICKS, "glaze"), team("small", PAINT, BRICKS, max_agents=1)]
    )

    plan = await orchestrator.call("task.plan", tasks=tasks)
    reply = await orchestrator.call("task.submit", tasks=tasks)
    status = await orchestrator.call("status.get")

    too_few = "no single agent has lay_bricks and paint, and max_agents allows no more"
    assert plan.never == {"house": "wants a team: nobody has glaze", "small": f"wants a team: {too_few}"}
    assert plan.agents["house"] == ["mason", "painter"]
    assert reply.warnings == [
        "no registered agents make a team: nobody has glaze; the task waits until they do",
        f"no registered agents make a team: {too_few}; the task waits until they do",
    ]
    assert "1 ready task wants a team with glaze, lay_bricks and paint: nobody has glaze" in status.alarms

    async def both() -> list[str]:
        return [one.reason for one in await deadlocks(orchestrator) if one.kind == "unsatisfiable"]

    async def are_recorded() -> bool:
        return len(await both()) == 2

    await until("both are recorded", are_recorded, 5)
    assert sorted(await both()) == [
        "house needs a team with glaze, lay_bricks, paint: nobody has glaze",
        f"small needs a team with lay_bricks, paint: {too_few}",
    ]


async def test_why_tells_what_is_missing_of_a_team_agent_by_agent(orchestrator: Orchestrator) -> None:
    busy = Hand("mason", BRICKS, is_open=False)
    await orchestrator.register_agent("away", capabilities=["glaze"])
    async with running(orchestrator, *agents(busy, Hand("painter", PAINT), Hand("cook", "cook"))):
        await online(orchestrator, 3)
        await orchestrator.submit({"id": "wall", "required_capabilities": [BRICKS]})
        await asyncio.wait_for(busy.begun.wait(), 5)
        await orchestrator.submit(team("house", PAINT, BRICKS, "glaze"))

        told = await reasons(orchestrator, "house")
        found = await orchestrator.call("task.why", task_id="house")
        await orchestrator.call("task.cancel", task_ids=["house"])
        busy.gate.set()

    assert told["painter"] == (
        "has paint only; glaze and lay_bricks are missing:"
        " nobody online has glaze; whoever has lay_bricks is busy (mason)"
    )
    assert told["cook"] == "has nothing of glaze, lay_bricks and paint"
    assert (told["mason"] or "").startswith("its only slot is busy with wall for ")
    assert (told["away"] or "").startswith("is offline")
    assert any(link.sentence == "wants a team with glaze and lay_bricks and paint" for link in found.links)


async def test_a_parent_that_keeps_its_slot_from_the_team_of_its_child_is_a_deadlock(
    orchestrator: Orchestrator,
) -> None:
    parent = Agent("able", capabilities=[PAINT], slots=1, metadata={"park": False})

    async def work(work: Work) -> Any:
        if work.role is not None:
            return work.role
        return await work.submit(team("child", PAINT, BRICKS))

    parent.add_handler(work)
    async with running(orchestrator, parent, Hand("mason", BRICKS).agent, Hand("other", BRICKS).agent):
        await online(orchestrator, 3)
        await orchestrator.submit({"id": "parent", "required_capabilities": [PAINT], "retries": 0})
        (found,) = await until("it is recorded", lambda: deadlocks(orchestrator), 10)
        await orchestrator.call("task.cancel", task_ids=["parent", "child"])

    assert found.kind == "hold_and_wait"
    assert sorted(found.members) == ["child", "parent"]
