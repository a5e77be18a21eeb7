"""`agentorch event`: what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

event_app = noun("""$ agentorch event list --task nightly-report

Everything that happened, in order.""")


@verb(event_app, "list")
def list_events(
    ctx: typer.Context,
    task: Annotated[
        str | None, typer.Option("--task", metavar="ID", help="Only events of this task.")
    ] = None,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="CURSOR", help="Only what came after this cursor.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="How many.")] = 200,
) -> None:
    """List events, oldest first. The cursor of the last one is where to go on.

    $ agentorch event list --task nightly-report
    """
    session = Session.of(ctx)
    events = session.ask("event.list", task_id=task, cursor=cursor, limit=limit)

    def draw(page: Page) -> None:
        from agentorch_cli.cli import story

        story.draw_events(page, events)

    session.show(events, draw, [event.cursor for event in events], "There are no such events.")
