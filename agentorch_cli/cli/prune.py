"""`agentorch prune`: what ended long ago, away with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli.consent import Yes, ask_first
from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.views import PruneView

COUNTS = ("tasks", "attempts", "events", "decisions", "deadlocks")


def prune(
    ctx: typer.Context,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="TIME", help="What ended longer ago: 30d, 12h.")
    ],
    keep_last: Annotated[
        int, typer.Option("--keep-last", metavar="N", min=0, help="Keep the newest N that have ended.")
    ] = 0,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much that is.")] = False,
    is_agreed: Yes = False,
) -> None:
    """Delete old history: ended tasks with their attempts, votes and events.

    $ agentorch prune --older-than 30d --keep-last 1000 --dry-run
    $ agentorch prune --older-than 30d --keep-last 1000 --yes

    What open tasks, or tasks that could be tried again, still need stays. What budgets, agents and
    days have summed up stays. An idempotency key is forgotten with its task. serve does the same by
    itself where retention.tasks is set.
    """
    session = Session.of(ctx)
    asked = {"older_than_seconds": _seconds(older_than), "keep_last": keep_last}
    if not (is_dry_run or is_agreed):
        found = session.run(_prune(session, asked, dry_run=True))
        ask_first(session, f"This deletes {_in_words(found)}, for good.", yes=False)
    found = session.run(_prune(session, asked, dry_run=is_dry_run))

    def draw(page: Page) -> None:
        done = "Would delete" if is_dry_run else "Deleted"
        page.line(page.look.text(f"{done} {_in_words(found)}."))

    session.show(found, draw)


app = single(prune)


def _seconds(text: str) -> float:
    from agentorch_cli.core.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f'--older-than "{text}" {error}') from None


async def _prune(session: Session, asked: dict[str, Any], *, dry_run: bool) -> PruneView:
    """All of it, step by step."""
    total = dict.fromkeys(COUNTS, 0)
    async with session.connect() as client:
        place = None
        while True:
            step: PruneView = await client.call("history.prune", **asked, dry_run=dry_run, place=place)
            for name in COUNTS:
                total[name] += getattr(step, name)
            place = step.place
            if place is None:
                return step.model_copy(update=total)


def _in_words(found: PruneView) -> str:
    names = {"decisions": "votes"}
    return ", ".join(f"{getattr(found, name):,} {names.get(name, name)}" for name in COUNTS)
