"""`agentorch profile`: servers by name, kept in the user's own configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.options import TellEverybody
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import Conflict, NotFound, UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

app = noun("""$ agentorch profile add prod --url wss://fleet.example.com:3001 --token-file prod.token

Servers that you work against, by name.""")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the profile.", show_default=False)]


@verb(app, "add")
def add(
    ctx: typer.Context,
    name: Name,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="wss://HOST:PORT", show_default=False)],
    token_file: Annotated[
        str | None, typer.Option("--token-file", metavar="FILE", help="A file that holds the token.")
    ] = None,
    token_env: Annotated[
        str | None, typer.Option("--token-env", metavar="NAME", help="The variable that holds the token.")
    ] = None,
    is_insecure: TellEverybody = False,
    is_used: Annotated[bool, typer.Option("--use", help="Work against it from now on.")] = False,
) -> None:
    """Add a server, or change what is known of it. The token itself is never written here.

    $ agentorch profile add prod --url wss://fleet.example.com:3001 --token-file prod.token --ca ca.pem
    $ agentorch profile add lab --url ws://127.0.0.1:3001 --use

    --ca is kept with the profile. A command uses the profile after agentorch profile use NAME,
    or with --server NAME.
    """
    from agentorch_cli.cli import userfile
    from agentorch_cli.settings import is_profile_name

    session = Session.of(ctx)
    if not is_profile_name(name) or name == "local":
        raise UsageError(
            f'"{name}" is no name for a profile: letters, digits, dots and dashes, and not "local"'
        )
    if token_file is not None and token_env is not None:
        raise UsageError("the token is in a file or in a variable, not in both")
    facts: dict[str, Any] = {
        "url": url,
        "ca": _absolute(session.ca),
        "token_file": _absolute(token_file),
        "token_env": token_env,
        "insecure": is_insecure or None,
    }
    table = {key: value for key, value in facts.items() if value is not None}
    path = userfile.put_profile(name, table)
    if is_used:
        userfile.use(name)
    session.show(
        {"name": name, **table, "active": is_used, "path": str(path)},
        lambda page: page.line(page.look.text(name, "bold"), "  ", page.look.text(url)),
        [name],
    )
    session.say(f"Kept in {path}." + ("" if is_used else f" agentorch profile use {name} chooses it."))


@verb(app, "use")
def use(ctx: typer.Context, name: Name) -> None:
    """Work against this server from now on; "local" goes back to the database here.

    $ agentorch profile use prod
    $ agentorch profile use local
    """
    from agentorch_cli.cli import userfile

    session = Session.of(ctx)
    known = userfile.profiles()
    if name != "local" and name not in known:
        from agentorch_cli.core.hints import did_you_mean

        raise NotFound(
            f'there is no profile "{name}"{did_you_mean(name, known)}', fix="agentorch profile list"
        )
    userfile.use(name)
    shown = "the database here" if name == "local" else f"{known[name]['url']} (profile {name})"
    session.show({"name": name, "active": True}, lambda page: page.line(page.look.text(name, "bold")), [name])
    session.say(f"Commands work against {shown} now.")


@verb(app, "list")
def list_profiles(ctx: typer.Context) -> None:
    """List the profiles; the one that commands work against has a star.

    $ agentorch profile list
    """
    session = Session.of(ctx)
    settings = session.settings
    rows = [
        {
            "name": name,
            "active": settings.server == name,
            "url": profile.url,
            "ca": profile.ca or None,
            "token": f"file {profile.token_file}"
            if profile.token_file
            else f"variable {profile.token_env}"
            if profile.token_env
            else None,
            "insecure": profile.insecure,
        }
        for name, profile in sorted(settings.profiles.items())
    ]

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.PROFILES, rows)

    session.show(
        rows, draw, [row["name"] for row in rows], "There are no profiles; agentorch profile add makes one."
    )


@verb(app, "remove")
def remove(ctx: typer.Context, name: Name) -> None:
    """Forget a server. Its token stays good: agentorch token revoke ends it, on the server.

    $ agentorch profile remove prod
    """
    from agentorch_cli.cli import userfile

    session = Session.of(ctx)
    known = userfile.profiles()
    if name not in known:
        raise NotFound(f'there is no profile "{name}"', fix="agentorch profile list")
    if userfile.chosen() == name:
        raise Conflict(f"commands work against {name}", fix="agentorch profile use local")
    path = userfile.drop_profile(name)
    session.show({"name": name, "path": str(path)}, lambda page: page.line(f"{name}  removed"), [name])


def _absolute(name: str | None) -> str | None:
    return None if name is None else str(Path(name).expanduser().absolute())
