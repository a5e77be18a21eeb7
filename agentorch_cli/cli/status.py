"""`agentorch status`: the fleet on one page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.views import StatusView


def status(
    ctx: typer.Context,
    is_watching: Annotated[
        bool,
        typer.Option(
            "--watch", "-w", help="Follow live (p pauses, q quits); on a pipe, a line of JSON per change."
        ),
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="Most tasks and votes per table.")
    ] = 20,
) -> None:
    """Show the fleet on one page: agents, tasks, votes, and what is wrong.

    $ agentorch status
    $ agentorch status --watch
    """
    session = Session.of(ctx)
    if is_watching and session.format in ("csv", "none"):
        raise UsageError(
            f"--watch goes on for ever, which -o {session.format} cannot show",
            hint="-o jsonl: a line per change",
        )
    if is_watching:
        session.run(_watch(session), until_unread=True)
        return
    found = session.ask("status.get", limit=limit)
    server = session.server_shown

    def draw(page: Page) -> None:
        from agentorch_cli.cli import board

        if server is not None:
            page.line(page.look.text("Server  ", "bold"), page.look.text(server))
        board.draw(page, found)

    session.show(found, draw, [agent.agent_id for agent in found.agents])


app = single(status)


async def _watch(session: Session) -> None:
    from agentorch_cli.cli.watch import Notes, watch

    notes = Notes(session.say, session.server_shown)
    async with session.connect(is_patient=True, say=notes.say) as client:
        await watch(client, lambda status: _emit(session, status), session.format == "table", notes)


def _emit(session: Session, status: StatusView) -> None:
    """A change, where no screen can be drawn: JSON for programs, else the page, at a plain terminal."""
    from agentorch_cli.cli.session import json_text, write

    if session.format != "table" or not sys.stdout.isatty():
        write(json_text(status))
        return
    from agentorch_cli.cli import board
    from agentorch_cli.cli.tables import Page

    page = Page(sys.stdout)
    board.draw(page, status)
    page.gap()
    sys.stdout.flush()
