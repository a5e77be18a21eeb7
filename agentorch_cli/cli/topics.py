"""`agentorch help`: topics, and the page of any command."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentorch_cli.cli.help import Group, single, style
from agentorch_cli.cli.session import Session, write
from agentorch_cli.core.hints import did_you_mean, shortened
from agentorch_cli.errors import NotFound
from agentorch_cli.guide.topics import TOPICS, title, topic


def show_help(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TOPIC|COMMAND]…", help="What to read about.", show_default=False),
    ] = None,
) -> None:
    """Show a topic, or the page of a command.

    $ agentorch help exit-codes
    $ agentorch help task submit

    Without a word the topics are listed. The commands are on the page of agentorch --help.
    """
    session = Session.of(ctx)
    wanted = " ".join(words or ())
    if not wanted:
        _list(session)
    elif wanted.lower() in TOPICS:
        _show(session, wanted.lower())
    else:
        write(_page_of(ctx, list(words or ())).rstrip("\n"))


def _list(session: Session) -> None:
    if session.is_quiet or session.format != "table":
        rows = [{"topic": name, "title": title(name)} for name in TOPICS]
        session.show(rows, lambda _: None, TOPICS)
        return
    for name in TOPICS:
        write(f"  {style(name.ljust(12), '36')}  {title(name)}")
    session.say("agentorch help TOPIC shows one; agentorch --help lists the commands.")


def _show(session: Session, name: str) -> None:
    text = topic(name)
    if session.format != "table":
        session.show({"topic": name, "title": title(name), "text": text}, lambda _: None, [name])
        return
    for number, line in enumerate(text.splitlines()):
        is_heading = number == 0 or line[:2].isupper()
        is_example = line.startswith("  agentorch ")
        write(style(line, "1") if is_heading else style(line, "36") if is_example else line)


def _page_of(ctx: Any, words: list[str]) -> str:
    """The help page of a command. Raises NotFound."""
    here = ctx.find_root()
    for word in words:
        command = here.command
        inner = command.get_command(here, word) if isinstance(command, Group) else None
        if inner is None:
            names = command.list_commands(here) if isinstance(command, Group) else []
            known = [*(TOPICS if here.parent is None else ()), *names]
            raise NotFound(
                f'there is no topic and no command "{shortened(" ".join(words))}"{did_you_mean(word, known)}',
                why="Neither the list of topics nor the list of commands has it.",
                fix="agentorch help" if here.parent is None else f"{here.command_path} --help",
            )
        here = type(here)(inner, info_name=word, parent=here)
    return str(here.get_help())


app = single(show_help)
