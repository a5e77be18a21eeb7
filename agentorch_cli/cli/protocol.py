"""`agentorch protocol`: what agents and the engine say to each other."""

from __future__ import annotations

from typing import Annotated

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session

app = noun("""$ agentorch protocol schema

What agents and the engine say to each other.""")


@verb(app, "schema")
def schema(ctx: typer.Context) -> None:
    """Print the JSON Schema of every frame, made from the models that the program itself uses.

    $ agentorch protocol schema > agentorch-protocol.json
    """
    from agentorch_cli.frames import json_schema

    Session.of(ctx).print_document(json_schema())


@verb(app, "output", is_former=True)
def output(ctx: typer.Context, name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None) -> None:
    """Print the JSON Schema of what commands print; called agentorch schema output now.

    $ agentorch schema output task > task.output.json
    """
    from agentorch_cli.cli import schema as schemas

    Session.of(ctx).say("agentorch protocol output is called agentorch schema output now.")
    schemas.output(ctx, name)
