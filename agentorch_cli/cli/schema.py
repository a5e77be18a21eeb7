"""`agentorch schema`: JSON Schemas of the files that people write, for their editors."""

from __future__ import annotations

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session, json_text, write

app = noun("""$ agentorch schema task > task.schema.json

Print a JSON Schema, for editors and for checks before a commit.

An editor that knows the schema proposes keys, shows what they mean and marks mistakes. With
Even Better TOML or Taplo, the first line of a file names it: #:schema ./task.schema.json""")


def _print(ctx: typer.Context, kind: str) -> None:
    from agentorch_cli.guide.schema import file_schema

    session = Session.of(ctx)
    schema = file_schema(kind)
    if session.format == "table":
        write(json_text(schema, indent=2))
    else:
        session.show(schema, lambda _: None)


@verb(app, "task")
def task(ctx: typer.Context) -> None:
    """Print the JSON Schema of task files: TOML, JSON, and each line of JSONL.

    $ agentorch schema task > task.schema.json
    """
    _print(ctx, "task")


@verb(app, "agents")
def agents(ctx: typer.Context) -> None:
    """Print the JSON Schema of agents files.

    $ agentorch schema agents > agents.schema.json
    """
    _print(ctx, "agents")


@verb(app, "config")
def config(ctx: typer.Context) -> None:
    """Print the JSON Schema of agentorch.toml and config.toml.

    $ agentorch schema config > agentorch.schema.json
    """
    _print(ctx, "config")
