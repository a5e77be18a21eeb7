"""`agentorch status`: the fleet on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page


def status(
    ctx: typer.Context,
    is_watching: Annotated[
        bool, typer.Option("--watch", "-w", help="Follow live; on a pipe, one JSON line per change. q quits.")
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
        session.run(_watch(session))
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
    from agentorch_cli.cli.session import json_text, write
    from agentorch_cli.cli.watch import watch

    async with session.connect(is_patient=True) as client:
        await watch(
            client,
            lambda document: write(json_text(document)),
            session.format == "table",
            session.server_shown,
        )
