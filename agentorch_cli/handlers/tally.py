"""How far some tasks are, for whoever waits for them: cheap to ask again and again."""

from __future__ import annotations

from collections.abc import Sequence

from agentorch_cli import views
from agentorch_cli.errors import NotFound
from agentorch_cli.handlers.context import Context
from agentorch_cli.handlers.tasks import task_view
from agentorch_cli.store.store import as_uuid


async def tally_tasks(
    context: Context,
    task_ids: Sequence[str] = (),
    submission_id: str | None = None,
    limit: int = 8,
) -> views.TallyView:
    """Tasks by state, and some that run: of a submission whose first task is `task_ids[0]`, or of these ids.

    Raises NotFound where the submission's id is none.
    """
    ids = list(dict.fromkeys(task_ids))
    submission = as_uuid(submission_id) if submission_id is not None else None
    if submission_id is not None and submission is None:
        raise NotFound(f"there is no submission {submission_id!r}", hint="task submit --json names it")
    if submission is not None:
        counts = await context.db.fetch("tally_submission", submission, ids[0] if ids else None)
        ids = []
    else:
        counts = await context.db.fetch("tally_tasks", ids)
    return views.TallyView(
        counts={row["status"]: row["number"] for row in counts},
        running=[task_view(row) for row in await context.db.fetch("running_among", submission, ids, limit)],
    )
