"""`agentorch logs`: what the processes of `agentorch up` have written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import NotFound

if TYPE_CHECKING:
    from agentorch_cli.cli.look import Look
    from agentorch_cli.cli.tables import Page
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
    data_dir = session.data_dir_here
    known = record.names_in(data_dir)
    wanted = _chooser(names or [], list(known))
    files = {name: path for name, path in known.items() if wanted(name)}
    if is_following:
        with closing(record.Follower(data_dir, wanted)) as follower:
            write = _writer(session, list(files))
            for line in follower.before(most):
                write(line)
            session.run(_follow(follower, write), until_unread=True)
    lines = record.last_lines(files, most)

    def draw(page: Page) -> None:
        draw_line = _Lines(page, list(files)).draw
        for line in lines:
            draw_line(line)

    rows = [_row(line) for line in lines]
    names_seen = sorted({line.name for line in lines})
    session.show(rows, draw, names_seen, "Nothing has been written; agentorch up runs a fleet.")


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


def _row(line: Line) -> dict[str, str]:
    return {"name": line.name, "at": line.at, "line": line.line}


def _writer(session: Session, names: Sequence[str]) -> Callable[[Line], None]:
    """What writes lines one by one as they come, in the form that was asked for."""
    import sys

    if session.format != "table":
        from agentorch_cli.cli.outputs import LogLineView

        put = session.stream(LogLineView)
        return lambda line: put(_row(line))
    from agentorch_cli.cli.tables import Page

    return _Lines(Page(sys.stdout), names).draw


class _Lines:
    """Lines for people: with the time of day and whose they are; on a pipe with tabs between."""

    def __init__(self, page: Page, names: Sequence[str]) -> None:
        """`names` are those that are known before the first line: others may come."""
        self._page = page
        self._width = max(map(len, names), default=0)
        self._colors: dict[str, str] = {}

    def draw(self, line: Line) -> None:
        """One line."""
        from rich.text import Text

        from agentorch_cli.cli.session import write
        from agentorch_cli.text import one_line

        look = self._page.look
        if not look.is_terminal:
            write(f"{line.at}\t{one_line(line.name)}\t{one_line(line.line)}")
            return
        name = look.text(line.name.ljust(self._width), self._color(line.name))
        style = "dim" if line.line.startswith("-- ") else ""
        lead = Text.assemble((_time_of_day(line.at), "dim"), "  ", name, _bar(look))
        self._page.hanging(lead, look.text(line.line, style))

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
