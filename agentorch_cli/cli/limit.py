"""`agentorch limit`: how many attempts may start in a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.core.limits import Scope

app = noun("""$ agentorch limit set capability:summarise 100/m

How many attempts may start in a second, a minute, an hour.""")


@verb(app, "set")
def set_limit(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(metavar="WHAT", help="capability:NAME, type:NAME or agent:ID.", show_default=False),
    ],
    rate: Annotated[
        str, typer.Argument(metavar="RATE", help="Such as 10/s, 100/m, 5/h, 3/90s.", show_default=False)
    ],
    burst: Annotated[
        int | None,
        typer.Option(
            "--burst", metavar="N", min=1, max=1_000_000, help="How many may start at once; a second's worth."
        ),
    ] = None,
) -> None:
    """Bound how many attempts start: of tasks that need a capability, of a type, or by an agent.

    $ agentorch limit set capability:summarise 100/m
    $ agentorch limit set type:crawl 2/s --burst 10
    $ agentorch limit set agent:alice 5/h

    The bound holds over all nodes. Tasks beyond it wait; agentorch task why says so.
    """
    from agentorch_cli.core.limits import parse_rate

    session = Session.of(ctx)
    scope, name = _named(what)
    try:
        parsed = parse_rate(rate)
    except ValueError as error:
        raise UsageError(f"RATE {error}") from None
    found = session.ask(
        "limit.set", scope=scope, name=name, number=parsed.number, per_seconds=parsed.per_seconds, burst=burst
    )

    def draw(page: Page) -> None:
        page.line(
            page.look.text(f"At most {found.rate} of {found.scope} {found.name}, {found.burst} at once.")
        )

    session.show(found, draw, [what])


@verb(app, "list")
def list_limits(ctx: typer.Context) -> None:
    """List the limits, and how many attempts could start now.

    $ agentorch limit list
    """
    session = Session.of(ctx)
    found = session.ask("limit.list")

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.LIMITS, found)

    empty = "There are no limits yet; agentorch limit set makes one."
    session.show(found, draw, [f"{one.scope}:{one.name}" for one in found], empty)


@verb(app, "remove")
def remove(
    ctx: typer.Context,
    what: Annotated[
        list[str],
        typer.Argument(metavar="WHAT...", help="capability:NAME, type:NAME or agent:ID.", show_default=False),
    ],
) -> None:
    """Take limits away; what waited for them starts.

    $ agentorch limit remove capability:summarise
    """
    from agentorch_cli.cli.task import show_change

    session = Session.of(ctx)
    show_change(session, session.ask("limit.remove", limits_named=[_named(one) for one in what]), "removed")


def _named(what: str) -> tuple[Scope, str]:
    from agentorch_cli.core.hints import shortened
    from agentorch_cli.core.limits import Scope
    from agentorch_cli.core.model import MAX_NAME

    scope, _, name = what.partition(":")
    if scope not in set(Scope) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise UsageError(
            f"{shortened(what)!r} does not say what is bounded",
            hint="write capability:NAME, type:NAME or agent:ID, such as capability:summarise",
        )
    return Scope(scope), name
