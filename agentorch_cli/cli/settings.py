"""`agentorch config`: write a configuration, and see which values are in force and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import Conflict, NotAllowed

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

app = noun("""$ agentorch config show

Write a configuration, show where values come from.""")


@verb(app, "init")
def init(
    ctx: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="File to write; ./agentorch.toml if not said.", show_default=False
        ),
    ] = None,
    is_user: Annotated[bool, typer.Option("--user", help="Write the user's own file instead.")] = False,
) -> None:
    """Write a configuration with every setting, its default and its meaning as comments.

    $ agentorch config init

    A file that is there already is left alone (exit code 8).
    """
    from agentorch_cli.config import PROJECT_FILE, example, user_config_path

    session = Session.of(ctx)
    target = path or (user_config_path() if is_user else Path(PROJECT_FILE))
    try:
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True)
    except OSError as error:
        raise NotAllowed(f"{target.parent} is no folder, and cannot be made one: {error.strerror}") from error
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(example())
    except FileExistsError as error:
        raise Conflict(
            f"{target} is there already",
            hint="Name another file, or move it away first.",
            fix="agentorch config show",
        ) from error
    except OSError as error:
        raise NotAllowed(f"{target} cannot be written: {error.strerror}") from error
    session.show({"path": str(target)}, lambda page: page.line(page.look.text(target)), [target])
    session.say("Everything in it is commented out: remove the # in front of what you change.")


@verb(app, "show")
def show(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]…", help='Settings, or sections: "gateway".', show_default=False),
    ] = None,
    is_changed: Annotated[bool, typer.Option("--changed", help="Only what is not the default.")] = False,
) -> None:
    """Show each setting, its value, and where the value came from. Passwords are hidden.

    $ agentorch config show
    $ agentorch config show gateway --json
    """
    from agentorch_cli.cli.choices import known_settings

    session = Session.of(ctx)
    wanted = known_settings(names)
    rows = [
        {"name": name, "value": value, "origin": origin}
        for name, value, origin in session.settings.shown()
        if name in wanted and not (is_changed and origin == "default")
    ]

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.SETTINGS, rows)

    session.show(rows, draw, [row["name"] for row in rows], "Every setting has its default.")
    if (server := session.server_shown) is not None:
        session.say(f"Commands work against {server}, by {session.settings.origin('server')}.")
