"""`serve` is killed while votes are open: each comes out as if nothing had happened.

Real processes on a real data directory. The seed of a run is printed; AGENTORCH_CHAOS_SEED repeats it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster import Cluster

from agentorch_cli import Agent
from agentorch_cli.core.consensus import Ballot, Voter, decide
from agentorch_cli.core.election import plain_answer, policy_of

SEED = int(os.environ.get("AGENTORCH_CHAOS_SEED", "0")) or random.randrange(1, 2**31)
NAMES = [f"voter-{number}" for number in range(5)]
TASKS = 24
RULES = ("supermajority", "majority", "plurality", "unanimous")


def answer_of(name: str, task: int) -> str:
    """What an agent always says about a task: mostly the same as the others."""
    return random.Random(f"{name} {task}").choice(["yes", "yes", "yes", "no"])


def handler_for(name: str) -> Any:
    """What an agent of this name does."""

    async def handle(work: Any) -> str:
        await asyncio.sleep(0.02)
        return answer_of(name, work.data["number"])

    return handle


def expected(rule: str, task: int) -> Any:
    """What the vote decides if everybody is asked and nothing dies."""
    options = {"rule": rule}
    policy = policy_of(options, len(NAMES))
    ballots = [Ballot(name, json.dumps(answer_of(name, task))) for name in NAMES]
    verdict = decide(policy, [Voter(name) for name in NAMES], ballots)
    return plain_answer(verdict.answer, options, policy)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    one = Cluster()
    try:
        yield one
    finally:
        await one.close()


async def test_votes_come_out_the_same_when_serve_is_killed_at_any_point(cluster: Cluster) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    await cluster.add_node()
    stop = asyncio.Event()

    agents = []
    for name in NAMES:
        agent = Agent(name, capabilities=("vote",))

        agent.add_handler(handler_for(name))
        agents.append(asyncio.create_task(agent.run(cluster.serve.url, stop=stop, drain_timeout=0)))
    await cluster.until_online(len(NAMES))
    tasks = [
        {
            "id": f"vote-{number}",
            "required_capabilities": ["vote"],
            "min_agents": 5,
            "max_agents": 5,
            "consensus": {"rule": RULES[number % len(RULES)], "panel": 5},
            "data": {"number": number},
        }
        for number in range(TASKS)
    ]
    file = cluster.folder / "votes.json"
    file.write_text(json.dumps({"tasks": tasks}))
    await cluster.command("task", "submit", str(file))

    async def decided() -> int:
        return int(
            await cluster.ask_one("select count(*) from consensus_decisions where status <> 'pending'")
        )

    for kill in range(1, 4):

        async def enough(kill: int = kill) -> bool:
            return await decided() >= TASKS * kill // 5

        await cluster.until(f"{TASKS * kill // 5} votes decided", enough, 30)
        await asyncio.sleep(rng.random() * 0.05)
        cluster.serve.kill()
        await asyncio.to_thread(cluster.serve.start)

    async def all_decided() -> bool:
        return await decided() == TASKS

    await cluster.until("all votes decided", all_decided, 40)
    stop.set()
    await asyncio.gather(*agents)
    rows = await cluster.ask(
        "select task_id, rule, status, final_decision, electorate from consensus_decisions"
    )
    found = {
        row["task_id"]: json.loads(row["final_decision"]) if row["final_decision"] is not None else None
        for row in rows
    }
    assert found == {f"vote-{n}": expected(RULES[n % len(RULES)], n) for n in range(TASKS)}
    twice = await cluster.ask(
        "select decision_id, agent_id from consensus_ballots group by 1, 2 having count(*) > 1"
    )
    assert not twice
    ended = await cluster.ask_one(
        "select count(*) from task_distributions t join consensus_decisions d using (task_id)"
        " where (t.status = 'completed') = (d.status = 'reached')"
    )
    assert ended == TASKS
