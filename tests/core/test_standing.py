"""Nothing stands in the way exactly when the scheduler assigns: on random fleets and backlogs."""

from __future__ import annotations

import os
import random

import pytest

from agentorch_cli.core.backlog import Backlog, Ready
from agentorch_cli.core.matching import Member, Roster, Want
from agentorch_cli.core.model import AgentStatus
from agentorch_cli.core.why import Known, in_words, standing

ROUNDS = int(os.environ.get("AGENTORCH_SYSTEMS", "400"))
CAPABILITIES = ("sql", "sql_query", "draw")


def fleet(draw: random.Random) -> Roster:
    roster = Roster()
    for number in range(draw.randint(0, 5)):
        slots = draw.randint(1, 3)
        roster.put(
            Member(
                agent_id=f"a{number}",
                type="t",
                capabilities=frozenset(draw.sample(CAPABILITIES, draw.randint(0, 3))),
                slots=slots,
                status=draw.choice([AgentStatus.ONLINE] * 4 + [AgentStatus.OFFLINE, AgentStatus.PAUSED]),
                performance=draw.random(),
                used=set(draw.sample(range(slots), draw.randint(0, slots))),
            )
        )
    return roster


def waiting(draw: random.Random) -> list[Ready]:
    tasks = []
    for number in range(draw.randint(1, 8)):
        required = draw.sample(CAPABILITIES, draw.choice([0, 1, 1, 2]))
        size = draw.choice([1, 1, 1, 2, 3])
        tasks.append(
            Ready(
                task_id=f"t{number}",
                seq=number,
                urgency=-draw.randint(0, 3),
                remaining_path=float(draw.randint(1, 2)),
                type="t",
                priority=5,
                want=Want(
                    frozenset(required),
                    size,
                    size + draw.choice([0, 0, 1]),
                    frozenset(draw.sample([f"a{n}" for n in range(5)], draw.choice([0, 0, 0, 1]))),
                    frozenset(draw.sample([f"a{n}" for n in range(5)], draw.choice([0, 0, 1, 2]))),
                ),
                min_agents=size,
                max_agents=size,
                attempts_made=0,
                timeout_seconds=1,
                retries=0,
                failures=0,
                losses=0,
                has_dependents=False,
                options={},
                status="pending",
                required_capabilities=required,
                overtaken=draw.choice([0, 0, 0, 20]),
            )
        )
    return tasks


def backlog(seed: int) -> tuple[Backlog, Roster, list[Ready], int]:
    """The same one each time: a walk uses it up."""
    draw = random.Random(seed)
    roster, tasks = fleet(draw), waiting(draw)
    kept = Backlog()
    for task in tasks:
        kept.put(task)
    return kept, roster, tasks, draw.choice([100, 100, 100, 1, 0])


@pytest.mark.parametrize("block", range(4))
def test_nothing_stands_in_the_way_exactly_when_the_scheduler_assigns(block: int) -> None:
    for seed in range(block * ROUNDS // 4, (block + 1) * ROUNDS // 4):
        scheduled, roster, tasks, room = backlog(seed)
        assigned = {task.task_id for task, _ in scheduled.match(roster, room)}
        for task in tasks:
            fresh, fleet_again, again, _ = backlog(seed)
            stands = standing(fresh, fleet_again, task.task_id, room=room)
            wanted = next(one for one in again if one.task_id == task.task_id).want.number
            free = sum(reason is None for reason in stands.reasons.values())

            assert stands.is_clear == (task.task_id in assigned), f"seed {seed}, {task.task_id}"
            if stands.is_clear or stands.is_full:
                assert free >= wanted, f"seed {seed}, {task.task_id}"
            else:
                assert free < wanted, f"seed {seed}, {task.task_id}: nobody is in its way"
            if stands.is_full:
                assert len(assigned) >= room, f"seed {seed}, {task.task_id}: there is room"


def test_a_reason_has_names_and_times() -> None:
    task = waiting(random.Random(1))[0]
    task.want = Want(frozenset({"sql"}))
    near = Member("near", "t", frozenset({"sql_query"}), 1, AgentStatus.ONLINE)
    away = Member("away", "t", frozenset({"sql"}), 1, AgentStatus.OFFLINE)
    busy = Member("busy", "t", frozenset({"sql"}), 2, AgentStatus.ONLINE, used={0, 1})

    assert in_words(near, task, "lacks sql", None) == 'lacks the capability `sql` (did you mean "sql_query"?)'
    assert in_words(away, task, "is offline", Known(181.0)) == "is offline for 3m 1s"
    assert (
        in_words(busy, task, "all 2 slots are busy", Known(None, (("x", 12.0), ("y", 1.5))))
        == "all 2 slots are busy with x for 12s, y for 1.5s"
    )
    assert in_words(busy, task, "failed it before", None).startswith("is excluded after a failure")
