"""`agentorch top`: the fleet, live, to move about in."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import UsageError


def top(
    ctx: typer.Context,
    may_write: Annotated[
        bool, typer.Option("--write", help="Allow to cancel, retry and pause, each after a question.")
    ] = False,
) -> None:
    """Move about in the live fleet: agents, tasks, votes, deadlocks.

    $ agentorch top
    $ agentorch top --write

    / filters, s sorts, Enter tells the story of a task, why it waits, its votes, graph
    and timeline; ? lists the keys. Nothing can be changed without --write. Comes with the extra "tui".
    """
    session = Session.of(ctx)
    if find_spec("textual") is None:
        raise UsageError(
            'agentorch top comes with the extra "tui", which is not installed',
            hint="pip install 'agentorch-cli[tui]'; agentorch status --watch needs none",
        )
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "agentorch top wants a terminal",
            hint="agentorch status --watch writes a line of JSON per change",
        )
    session.run(_run(session, may_write))


app = single(top)


async def _run(session: Session, may_write: bool) -> None:
    from agentorch_cli.cli.cockpit.app import Cockpit

    notes: list[str] = []
    cockpit: Cockpit | None = None

    def say(sentence: str) -> None:
        if cockpit is not None:
            cockpit.tell(sentence)
        else:
            notes.append(sentence)

    async with session.connect(is_patient=True, say=say) as client:
        cockpit = Cockpit(client, may_write=may_write, server=session.server_shown)
        await cockpit.run_until_left()
