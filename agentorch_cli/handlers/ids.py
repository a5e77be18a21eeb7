"""Parts of ids, and names of tasks: the whole ids that people mean.

Ids are UUIDv7, so those that were made together begin alike: their ends tell them apart. A part that is
the beginning or the end of one id alone stands for it; a word that is an id as it stands means that one.
A word that is neither may be the name of a task, if no other task has it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from agentorch_cli import views
from agentorch_cli.errors import Conflict, command
from agentorch_cli.handlers.context import Context
from agentorch_cli.store.names import SHORTEST

WHOLE = 36
"""Letters of an id that the engine made: no part has as many."""

MOST_CANDIDATES = 10

Noun = Literal["task", "vote", "deadlock", "submission", "family"]

INSTEAD: dict[str, Noun] = {"vote": "task", "deadlock": "task", "family": "submission"}
"""What may be named in place of such a thing."""


async def resolve_ids(context: Context, noun: Noun, ids: Sequence[str]) -> views.ResolvedView:
    """The whole ids of these words; a word that nothing is called stays as it is. Raises Conflict.

    Where a vote or a deadlock is wanted, a task may be named in its place; a `family` is a task or a
    submission.
    """
    words = [word for word in dict.fromkeys(ids) if 0 < len(word) < WHOLE]
    exact = {row["task_id"] for row in await context.db.fetch("statuses", words)} if words else set()
    words = [word for word in words if word not in exact] if noun != "submission" else words
    parts = [word for word in words if len(word) >= SHORTEST]
    found: dict[str, list[str]] = {}
    if parts:
        found = await _called(context, noun, parts)
    left = [word for word in parts if word not in found]
    if left and noun in INSTEAD:
        found |= await _called(context, INSTEAD[noun], left)
    left = [word for word in words if word not in found]
    if left and noun != "submission":
        found |= await _named(context, left)
    for word, whole in found.items():
        if len(whole) > 1:
            more = len(whole) > MOST_CANDIDATES
            shown = whole[:MOST_CANDIDATES]
            raise Conflict(
                f"{word!r} begins or ends {'more than ' if more else ''}{len(shown)} ids:"
                f" {', '.join(shown)}{', …' if more else ''}",
                hint="type more of it; the ends of ids differ more than their beginnings",
                candidates=shown,
            )
    return views.ResolvedView(ids={word: found[word][0] if word in found else word for word in ids})


async def _named(context: Context, names: Sequence[str]) -> dict[str, list[str]]:
    """The tasks of these names. Raises Conflict where several have one."""
    found: dict[str, list[str]] = {}
    for row in await context.db.fetch("tasks_named", names, MOST_CANDIDATES + 1):
        found.setdefault(row["word"], []).append(row["id"])
    for name, tasks in found.items():
        if len(tasks) > 1:
            more = len(tasks) > MOST_CANDIDATES
            shown = tasks[:MOST_CANDIDATES]
            raise Conflict(
                f"{'more than ' if more else ''}{len(shown)} tasks have the name {name!r}:"
                f" {', '.join(shown)}{', …' if more else ''}",
                hint="say the id of the one that is meant; the newest comes first",
                fix=command("task", "list", "--where", f'name = "{name}"') if '"' not in name else None,
                candidates=shown,
            )
    return found


async def _called(context: Context, noun: Noun, parts: Sequence[str]) -> dict[str, list[str]]:
    most = MOST_CANDIDATES + 1
    match noun:
        case "task" | "family":
            rows = await context.db.fetch("tasks_called", parts, most)
        case "submission":
            rows = await context.db.fetch("submissions_called", parts, most)
        case "vote":
            rows = await context.db.fetch("decisions_called", parts, most)
        case "deadlock":
            rows = await context.db.fetch("deadlocks_called", parts, most)
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["word"], []).append(row["id"])
    return found
