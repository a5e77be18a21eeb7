"""What is true, said afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import NoneType
from typing import Any, Final

import asyncpg

from agentorch_cli import views
from agentorch_cli.errors import Conflict, DatabaseUnreachable, NotFound, UsageError
from agentorch_cli.handlers.context import Context
from agentorch_cli.store.truth import Truth, verify

DEADLOCKS = 3
"""How often a transaction is begun again that PostgreSQL ended because an engine wrote its ledger too."""


async def say_outcome(
    context: Context,
    task_id: str,
    right: bool | None = None,
    answer: Any = None,
    has_answer: bool = False,
    said_by: str | None = None,
    source: str = "person",
) -> views.OutcomeView:
    """Say whether a task's result was right, or what is. Raises NotFound, Conflict."""
    truth = Truth(right, answer, has_answer)
    for left in range(DEADLOCKS, -1, -1):
        try:
            async with context.db.transaction() as tx:
                learned = await verify(
                    tx, task_id, truth, source=source, said_by=said_by, store=context.store
                )
            break
        except DatabaseUnreachable as error:
            if not left or not isinstance(error.__cause__, asyncpg.DeadlockDetectedError):
                raise
    await context.db.fetch("score_agents", learned.agents)
    return views.OutcomeView(**asdict(learned))


async def say_outcomes(
    context: Context, outcomes: Sequence[dict[str, Any]], said_by: str | None = None
) -> views.ChangeReply:
    """The same for many tasks, each by itself: what is wrong with one does not stop the others.

    `outcomes`: of each task its `task_id`, and `right`, or `answer` with `has_answer`. Raises UsageError.
    """
    for number, one in enumerate(outcomes):
        _check(one, f"outcomes.{number}")
    reply = views.ChangeReply()
    for one in outcomes:
        try:
            await say_outcome(context, **one, said_by=said_by, source="file")
        except (NotFound, Conflict) as error:
            reply.unchanged[one["task_id"]] = error.message
        else:
            reply.changed.append(one["task_id"])
    return reply


_SAID: Final = {
    "task_id": (str,),
    "right": (bool, NoneType),
    "answer": (object,),
    "has_answer": (bool,),
}
"""What is said of one task among many, and of which kinds each part is."""


def _check(one: Mapping[str, Any], place: str) -> None:
    if "task_id" not in one:
        raise UsageError(f"{place} has no task_id")
    for name, value in one.items():
        if name not in _SAID:
            raise UsageError(f"{place} knows no {name[:100]!r}", hint=f"it takes {', '.join(_SAID)}")
        if not isinstance(value, _SAID[name]):
            raise UsageError(f"{place}.{name} is of another kind than it should be")
