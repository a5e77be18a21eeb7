"""`agentorch protocol`: what agents and the engine say to each other."""

from __future__ import annotations

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

    Session.of(ctx).print_json(json_schema())
