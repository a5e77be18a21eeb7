"""`agentorch protocol`: what agents and the engine say to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

app = noun("""$ agentorch protocol schema

What agents and the engine say to each other.""")


@verb(app, "schema")
def schema(ctx: typer.Context) -> None:
    """Print the JSON Schema of every frame, made from the models that the program itself uses.

    $ agentorch protocol schema > agentorch-protocol.json
    """
    from agentorch_cli.frames import json_schema

    Session.of(ctx).print_document(json_schema())


@verb(app, "output")
def output(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help='A kind of document, such as "task".', show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of what commands print with --json; without a name, which kinds there are.

    $ agentorch protocol output task > task.schema.json

    A list holds documents of one kind. docs/scripting.md says which command prints which.
    """
    import json

    from agentorch_cli.cli.outputs import kinds, read_schema

    session = Session.of(ctx)
    if name is not None:
        session.print_document(json.loads(read_schema(name)))
        return
    rows = [{"name": one, "about": _sentence(kind)} for one, kind in kinds().items()]

    def draw(page: Page) -> None:
        page.pairs([(row["name"], page.look.text(row["about"])) for row in rows], indent=0)

    session.show(rows, draw, [row["name"] for row in rows])


def _sentence(kind: type) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]
