"""What is true, said afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import asyncpg
from pydantic import BaseModel, ConfigDict, ValidationError

from agentorch_cli import views
from agentorch_cli.errors import Conflict, DatabaseUnreachable, NotFound, UsageError
from agentorch_cli.handlers.context import Context
from agentorch_cli.sentences import explain
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


class SaidOutcome(BaseModel):
    """One of many."""

    model_config = ConfigDict(extra="forbid", strict=True)

    task_id: str
    right: bool | None = None
    answer: Any = None
    has_answer: bool = False


async def say_outcomes(
    context: Context, outcomes: Sequence[dict[str, Any]], said_by: str | None = None
) -> views.ChangeReply:
    """The same for many tasks, each by itself: what is wrong with one does not stop the others.

    Raises UsageError where one is not written as `SaidOutcome` is, before any is taken.
    """
    said = [_read(one, number) for number, one in enumerate(outcomes)]
    reply = views.ChangeReply()
    for one in said:
        try:
            await say_outcome(context, **dict(one), said_by=said_by, source="file")
        except (NotFound, Conflict) as error:
            reply.unchanged[one.task_id] = error.message
        else:
            reply.changed.append(one.task_id)
    return reply


def _read(one: dict[str, Any], number: int) -> SaidOutcome:
    try:
        return SaidOutcome.model_validate(one)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join([f"outcomes[{number}]", *map(str, fault["loc"])])
        raise UsageError(f"{place} {explain(fault)}") from error
