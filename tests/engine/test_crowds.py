"""What a look for deadlocks reads of many tasks that nobody can do."""

from __future__ import annotations

from typing import Any

import pytest

UNSERVED = """
insert into task_distributions
  (task_id, task_type, status, submission_id, wanted, required_capabilities)
select $1 || n, 'task', 'pending', gen_random_uuid(), 1, $3::text[]
from generate_series(1, $2::integer) as n"""


@pytest.mark.parametrize("number", [999, 1000, 1001, 30_000])
async def test_a_crowd_that_nobody_can_serve_is_told_whole_and_read_in_part(
    orchestrator: Any, sql: Any, number: int
) -> None:
    await sql(UNSERVED, "paint ", number, ["painting"])
    await sql(UNSERVED, "sculpt ", 2, ["sculpting"])
    deadlocks = orchestrator.engine.monitor.deadlocks

    look = await deadlocks.look()

    found = {one.mark: one for one in look.found}
    paint, sculpt = found["unsatisfiable 1 painting"], found["unsatisfiable 1 sculpting"]
    assert len(look.system.tasks) == min(number, 1000) + 2
    assert paint.reason.startswith(f"{number:,} tasks wait in vain: ")
    assert sculpt.reason.startswith("2 tasks wait in vain: ")
    assert set(paint.members) == {f"paint {n}" for n in range(1, min(number, 1000) + 1)}


async def test_who_others_wait_for_is_read_beside_a_crowd(orchestrator: Any, sql: Any) -> None:
    await sql(UNSERVED, "paint ", 3000, ["painting"])
    last = await orchestrator.submit({"id": "last", "required_capabilities": ["painting"]})
    await orchestrator.submit(
        {"id": "after", "depends_on": [last.task_id], "required_capabilities": ["painting"]}
    )

    look = await orchestrator.engine.monitor.deadlocks.look()

    assert {"last", "after"} <= look.system.tasks.keys()
    assert [one.reason.split(":")[0] for one in look.found] == ["3,002 tasks wait in vain"]
