"""`agentorch token`: who may come in from afar, and what for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

app = noun("""$ agentorch token create ci --scope submit --scope read --expires 30d

Who may come in from afar, and what for.""")


@verb(app, "create")
def create(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Whose it is; its bearer acts under this name.", show_default=False
        ),
    ],
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="read, submit, vote, admin, agent:NAME or agent:PREFIX*; repeat it.",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires", metavar="TIME", help='Its life, such as "30d"; without an end if not said.'
        ),
    ] = None,
) -> None:
    """Make a token and print it: this is the only time that it is seen, only its hash is kept.

    $ agentorch token create ci --scope submit --scope read --expires 30d
    $ agentorch -q token create crew --scope "agent:crew-*" > crew.token

    read looks at everything, submit brings work and calls it off, vote votes and says what was
    right, admin does all of that and manages agents and tokens; agent:NAME is that agent.
    """
    from agentorch_cli.core.durations import parse_duration

    session = Session.of(ctx)
    try:
        seconds = None if expires is None else parse_duration(expires)
    except ValueError as error:
        raise UsageError(f'--expires "{expires}" {error}') from error
    made = session.ask("token.create", name=name, scopes=scopes or [], expires_seconds=seconds)

    def draw(page: Page) -> None:
        page.line(page.look.text(made.token))

    session.show(made, draw, [made.token])
    session.say("Keep it in a file that only you can read, or in AGENTORCH_TOKEN: it cannot be shown again.")


@verb(app, "list")
def list_tokens(
    ctx: typer.Context,
    is_every: Annotated[
        bool, typer.Option("--all", help="Those that were revoked or have expired too.")
    ] = False,
) -> None:
    """List tokens: what each may do, until when, and when it was used last. None is shown itself.

    $ agentorch token list
    """
    session = Session.of(ctx)
    found = session.ask("token.list", every=is_every)

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.TOKENS, found)

    session.show(
        found, draw, [one.token_id for one in found], "There are no tokens; agentorch token create makes one."
    )


@verb(app, "revoke")
def revoke(
    ctx: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME…", help="Names or ids of tokens.", show_default=False)
    ],
) -> None:
    """End tokens. Connections that they opened are closed within two seconds, on every node.

    $ agentorch token revoke ci
    """
    from agentorch_cli.cli.task import show_change

    session = Session.of(ctx)
    show_change(session, session.ask("token.revoke", names=list(dict.fromkeys(names))), "revoked")
