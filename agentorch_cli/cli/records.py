"""`agentorch event`: what happened."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.client import Client
    from agentorch_cli.views import EventView

event_app = noun("""$ agentorch event list --task nightly-report

Everything that happened, in order.""")

Task = Annotated[str | None, typer.Option("--task", metavar="ID", help="Only events of this task.")]
Agent = Annotated[str | None, typer.Option("--agent", metavar="ID", help="Only events of this agent.")]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="KIND", help='Only these, such as "task_failed"; may be repeated.'),
]


@verb(event_app, "list")
def list_events(
    ctx: typer.Context,
    task: Task = None,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="CURSOR", help="Only what came after this cursor.")
    ] = None,
    agent: Agent = None,
    kinds: Kinds = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="How many.")] = 200,
) -> None:
    """List events, oldest first. The cursor of the last one is where to go on.

    $ agentorch event list --task nightly-report
    """
    session = Session.of(ctx)
    events = session.ask("event.list", task_id=task, cursor=cursor, limit=limit, kinds=kinds, agent_id=agent)
    _show(session, events)


@verb(event_app, "tail")
def tail(
    ctx: typer.Context,
    is_following: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on for ever; Ctrl-C ends it.")
    ] = False,
    task: Task = None,
    agent: Agent = None,
    kinds: Kinds = None,
    cursor: Annotated[
        str | None,
        typer.Option("--cursor", metavar="CURSOR", help="Begin after this cursor, not at the end."),
    ] = None,
    limit: Annotated[
        int, typer.Option("-n", "--limit", metavar="N", min=0, max=100_000, help="How many of the past.")
    ] = 10,
) -> None:
    """Show the last events, and with -f every further one as it comes: none missed, none twice.

    $ agentorch event tail -n 20
    $ agentorch event tail -f --kind task_failed -o jsonl

    With -f and --json each event is one line. After an interruption --cursor goes on from the
    last event that was seen; a server that goes away meanwhile is waited for.
    """
    session = Session.of(ctx)
    following = _tail(session, is_following, cursor, limit, task, agent, kinds)
    session.run(following, until_unread=is_following)


async def _tail(
    session: Session,
    is_following: bool,
    cursor: str | None,
    limit: int,
    task: str | None,
    agent: str | None,
    kinds: list[str] | None,
) -> None:
    wanted: dict[str, Any] = {"task_id": task, "agent_id": agent, "kinds": kinds}
    async with session.connect(is_patient=is_following) as client:
        if cursor is not None and is_following:
            events: list[EventView] = []
        elif cursor is not None:
            events = await client.call("event.list", cursor=cursor, limit=max(limit, 1), **wanted)
        else:
            cursor = await _begin(client)
            events = await client.call("event.list", newest=True, limit=limit, **wanted) if limit else []
        if not is_following:
            _show(session, events)
            return
        write_event = _writer(session)
        for event in events:
            write_event(event)
        start = max((cursor or "0:0", *(event.cursor for event in events)), key=_place)
        async for event in client.events(cursor=start, **wanted):
            write_event(event)


async def _begin(client: Client) -> str:
    """The end of the log before anything is shown of it."""
    newest = await client.call("event.list", newest=True, limit=1)
    return newest[-1].cursor if newest else "0:0"


def _place(cursor: str) -> tuple[int, int]:
    tx, _, event_id = cursor.partition(":")
    return int(tx), int(event_id)


def _writer(session: Session) -> Callable[[EventView], None]:
    from agentorch_cli.cli.session import json_text, write

    if session.is_quiet:
        return lambda event: write(event.cursor)
    if session.format != "table":
        return lambda event: write(json_text(event))

    from agentorch_cli.cli import story
    from agentorch_cli.cli.tables import Page

    page = Page(sys.stdout)
    return lambda event: story.draw_event(page, event)


def _show(session: Session, events: list[EventView]) -> None:
    def draw(page: Page) -> None:
        from agentorch_cli.cli import story

        story.draw_events(page, events)

    session.show(events, draw, [event.cursor for event in events], "There are no such events.")
