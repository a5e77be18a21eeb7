"""What the leader learns from the votes of the past."""

from __future__ import annotations

import random
from typing import Any
from uuid import uuid4

from agentorch_cli.engine.historian import Historian, inferred
from agentorch_cli.wiring import Orchestrator

CLASSES = ("a", "b")
TASKS = 240


def crowd(rng: random.Random) -> tuple[dict[str, list[tuple[str, str]]], dict[str, str]]:
    """Two good agents, and three that say "b" to nearly everything: the majority is wrong about most "a"."""
    truth = {f"t{number}": rng.choice(CLASSES) for number in range(TASKS)}
    given: dict[str, list[tuple[str, str]]] = {}
    for task, right in truth.items():
        wrong = CLASSES[1 - CLASSES.index(right)]
        given[task] = [(f"good{n}", right if rng.random() < 0.95 else wrong) for n in range(2)]
        given[task] += [(f"biased{n}", "b" if rng.random() < 0.85 else "a") for n in range(3)]
    return given, truth


def test_habits_that_fool_the_majority_are_seen_through() -> None:
    given, truth = crowd(random.Random(7))
    decided = {task: max(CLASSES, key=[b for _, b in ballots].count) for task, ballots in given.items()}

    is_better, found, by_inference, as_decided = inferred(given, decided, truth)

    assert is_better
    assert by_inference > as_decided
    assert min(found["good0"], found["good1"]) > max(found[f"biased{n}"] for n in range(3))


async def test_inference_replaces_the_weights_only_where_it_wins(orchestrator: Orchestrator) -> None:
    given, truth = crowd(random.Random(7))
    db = orchestrator.store.db
    decisions, ballots, outcomes = [], [], []
    for task, said in given.items():
        decision_id = uuid4()
        majority = max(CLASSES, key=[b for _, b in said].count)
        decisions.append((decision_id, task, majority))
        ballots += [(decision_id, agent, answer) for agent, answer in said]
        outcomes.append((task, decision_id, truth[task]))
    async with db.pool.acquire() as connection:
        await connection.executemany(
            "insert into consensus_decisions (decision_id, task_id, topic, rule, electorate, status, answer,"
            " capability, consensus_reached)"
            " values ($1, $2, 'x', 'majority', 5, 'reached', $3, 'label', true)",
            decisions,
        )
        await connection.executemany(
            "insert into consensus_ballots (decision_id, agent_id, status, answer)"
            " values ($1, $2, 'answered', $3)",
            ballots,
        )
        await connection.executemany(
            "insert into task_outcomes (task_id, decision_id, capability, answer, source)"
            " values ($1, $2, 'label', $3, 'file')",
            outcomes,
        )

    await Historian(orchestrator.store).look()

    known: dict[str, Any] = {
        one.agent_id: one for one in await orchestrator.call("reliability.list", capability="label")
    }
    assert known["good0"].estimate == known["good0"].inferred > 0.85
    assert known["biased0"].estimate < 0.75
    used = await db.pool.fetchrow("select * from consensus_inference")
    assert used["is_used"]
    assert used["inferred_right"] > used["decided_right"]
