"""`agentorch event`: what happened."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli import lists
from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Part, Session, whole

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.client import Client
    from agentorch_cli.views import EventView

PAGE = 1_000
"""Events that are asked for at once, where many are wanted."""

event_app = noun("""$ agentorch event list --task nightly-report

Everything that happened, in order.""")

Task = Annotated[str | None, typer.Option("--task", metavar="ID", help="Only events of this task.")]
Agent = Annotated[str | None, typer.Option("--agent", metavar="ID", help="Only events of this agent.")]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="KIND", help='Only these: "task_failed", "attempt_*"; may be repeated.'),
]


@verb(event_app, "list")
def list_events(
    ctx: typer.Context,
    task: Task = None,
    agent: Agent = None,
    kinds: Kinds = None,
    since: lists.Since = None,
    until: lists.Until = None,
    limit: lists.Limit = 200,
    cursor: lists.Cursor = None,
) -> None:
    """List events, oldest first. The cursor of the last one is where to go on.

    $ agentorch event list --task nightly-report
    $ agentorch event list --since 1h --kind "task_*" --kind "deadlock_*" -o jsonl
    """
    session = Session.of(ctx)
    wanted = _wanted(task, agent, kinds, since, until)
    events = session.ask("event.list", limit=limit, cursor=cursor, **wanted)
    _show(session, events)
    lists.tell_more(session, events, limit)


@verb(event_app, "tail")
def tail(
    ctx: typer.Context,
    is_following: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on for ever; Ctrl-C ends it.")
    ] = False,
    task: Task = None,
    agent: Agent = None,
    kinds: Kinds = None,
    since: lists.Since = None,
    cursor: Annotated[
        str | None,
        typer.Option("--cursor", metavar="CURSOR", help="Begin after this cursor, not at the end."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--limit",
            metavar="N",
            min=0,
            max=100_000,
            help="How many of the past: 10; with --since or --cursor all of them.",
        ),
    ] = None,
) -> None:
    """Show the last events, and with -f every further one as it comes: none missed, none twice.

    $ agentorch event tail -n 20
    $ agentorch event tail -f --since 10m --kind "task_*" -o jsonl

    With -f and --json each event is one line. After an interruption --cursor goes on from the
    last event that was seen; a server that goes away meanwhile is waited for.
    """
    session = Session.of(ctx)
    wanted = _wanted(task, agent, kinds, since, None)
    session.run(_tail(session, is_following, cursor, limit, wanted), until_unread=is_following)


def _wanted(
    task: str | None, agent: str | None, kinds: list[str] | None, since: str | None, until: str | None
) -> dict[str, Any]:
    """Which events, by what was said."""
    given = {
        "task_id": Part("task", task) if task is not None else None,
        "agent_id": agent,
        "kinds": kinds,
        **lists.times(since, until),
    }
    return {key: one for key, one in given.items() if one is not None}


async def _tail(
    session: Session, is_following: bool, cursor: str | None, limit: int | None, wanted: dict[str, Any]
) -> None:
    async with session.connect(is_patient=is_following) as client:
        wanted = await whole(client, wanted)
        is_from = cursor is not None or "since" in wanted
        # where the news begins is read before the past is, so that nothing falls between
        news = cursor if cursor is not None and limit is None else await _end(client)
        if not is_from or limit is not None:
            events = await _last(client, 10 if limit is None else limit, cursor, wanted)
        elif is_following:
            events = []
        else:
            events = [event async for event in _all(client, cursor, wanted)]
        if not is_following:
            _show(session, events)
            return
        write_event = _writer(session)
        for event in events:
            write_event(event)
            news = max(news, event.cursor, key=_place)
        if is_from and limit is None:
            async for event in _all(client, cursor, wanted):
                write_event(event)
                news = max(news, event.cursor, key=_place)
        wanted.pop("since", None)
        async for event in client.events(cursor=news, **wanted):
            write_event(event)


async def _last(client: Client, limit: int, cursor: str | None, wanted: dict[str, Any]) -> list[EventView]:
    """The last so many, of those after the cursor."""
    if not limit:
        return []
    after = {"cursor": cursor} if cursor is not None else {}
    events: list[EventView] = await client.call("event.list", newest=True, limit=limit, **after, **wanted)
    return [event for event in events if cursor is None or _place(event.cursor) > _place(cursor)]


async def _all(client: Client, cursor: str | None, wanted: dict[str, Any]) -> Any:
    """All that there are now, by the page."""
    while True:
        events = await client.call("event.list", limit=PAGE, cursor=cursor, **wanted)
        for event in events:
            yield event
        if len(events) < PAGE:
            return
        cursor = events[-1].cursor


async def _end(client: Client) -> str:
    """The end of the log before anything is shown of it."""
    newest = await client.call("event.list", newest=True, limit=1)
    return newest[-1].cursor if newest else "0:0"


def _place(cursor: str) -> tuple[int, int]:
    tx, _, event_id = cursor.partition(":")
    return (int(tx), int(event_id)) if tx.isdecimal() and event_id.isdecimal() else (0, 0)


def _writer(session: Session) -> Callable[[EventView], None]:
    from agentorch_cli.cli.session import write
    from agentorch_cli.views import EventView

    if session.is_quiet and session.format != "none":
        return lambda event: write(event.cursor)
    if session.format != "table":
        return session.stream(EventView)

    from agentorch_cli.cli import story
    from agentorch_cli.cli.tables import Page

    page = Page(sys.stdout)
    return lambda event: story.draw_event(page, event)


def _show(session: Session, events: list[EventView]) -> None:
    def draw(page: Page) -> None:
        from agentorch_cli.cli import story

        story.draw_events(page, events)

    session.show(events, draw, [event.cursor for event in events], "There are no such events.")
