"""`agentorch logs`: what the processes of `agentorch up` have written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import NotFound

if TYPE_CHECKING:
    from agentorch_cli.cli.look import Look
    from agentorch_cli.supervision.record import Follower, Line

FOLLOW_SECONDS = 0.2


def logs(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]…", help='Agents, single processes of them, or "serve"; all if not said.'
        ),
    ] = None,
    most: Annotated[
        int, typer.Option("-n", "--lines", metavar="N", min=0, max=1_000_000, help="The last so many lines.")
    ] = 100,
    is_following: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is written from now on.")
    ] = False,
) -> None:
    """Show what the agents that agentorch up runs have written, and its engine.

    $ agentorch logs greeter
    $ agentorch logs greeter-1 serve -n 20 -f

    Lines of several processes come in the order of their times. What would move a cursor or
    hide a letter is shown as its code.
    """
    from agentorch_cli.supervision import record

    session = Session.of(ctx)
    data_dir = Path(session.settings.data_dir)
    known = record.names_in(data_dir)
    wanted = _chooser(names or [], list(known))
    files = {name: path for name, path in known.items() if wanted(name)}
    lines = record.last_lines(files, most)
    write = _Writer(session, max((len(name) for name in files), default=0)).write
    if is_following:
        follower = record.Follower(data_dir, wanted)
        for line in lines:
            write(line)
        session.run(_follow(follower, write), until_unread=True)
    if session.format == "json":
        session.print_document([{"name": line.name, "at": line.at, "line": line.line} for line in lines])
        return
    if not lines:
        session.say("Nothing has been written; agentorch up runs a fleet.")
    for line in lines:
        write(line)


app = single(logs)


async def _follow(follower: Follower, write: Callable[[Line], None]) -> NoReturn:
    import asyncio

    while True:
        lines = follower.read()
        for line in lines:
            write(line)
        if not lines:
            await asyncio.sleep(FOLLOW_SECONDS)


def _chooser(names: list[str], known: list[str]) -> Callable[[str], bool]:
    """Which processes are meant: an agent's name stands for all of them. Raises NotFound."""
    from agentorch_cli.core.hints import did_you_mean

    def belongs(process: str, name: str) -> bool:
        head, sign, number = process.rpartition("-")
        return process == name or (head == name and bool(sign) and number.isdecimal())

    for name in names:
        if not any(belongs(process, name) for process in known):
            agents = [process.rpartition("-")[0] or process for process in known]
            raise NotFound(
                f'no process "{name}" has written anything{did_you_mean(name, [*agents, *known])}',
                hint="agentorch up --status lists what runs",
            )
    return lambda process: not names or any(belongs(process, name) for name in names)


class _Writer:
    """Lines as they are asked for: for people with the time of day and whose they are."""

    def __init__(self, session: Session, width: int) -> None:
        import sys

        from agentorch_cli.cli.tables import Page

        self._session = session
        self._page = Page(sys.stdout)
        self._width = width
        self._colors: dict[str, str] = {}

    def write(self, line: Line) -> None:
        """One line."""
        from rich.text import Text

        from agentorch_cli.cli.session import write as plainly
        from agentorch_cli.text import one_line

        if self._session.format != "table":
            self._session.print_document({"name": line.name, "at": line.at, "line": line.line})
        elif not self._page.look.is_terminal:
            plainly(f"{line.at}\t{one_line(line.name)}\t{one_line(line.line)}")
        else:
            look = self._page.look
            name = look.text(line.name.ljust(self._width), self._color(line.name))
            style = "dim" if line.line.startswith("-- ") else ""
            self._page.line(
                Text(_time_of_day(line.at), "dim"), "  ", name, _bar(look), look.text(line.line, style)
            )

    def _color(self, name: str) -> str:
        colors = ("cyan", "green", "magenta", "yellow", "blue")
        return self._colors.setdefault(name, colors[len(self._colors) % len(colors)])


def _bar(look: Look) -> str:
    return " | " if look.is_ascii else " │ "


def _time_of_day(at: str) -> str:
    from datetime import datetime

    try:
        return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S")
    except ValueError:  # somebody else wrote into the file
        return " " * 8
