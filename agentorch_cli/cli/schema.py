"""`agentorch schema`: JSON Schemas of the files that people write and the documents that commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session, json_text, write

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

app = noun("""$ agentorch schema task > task.schema.json

Print a JSON Schema: of a file for editors and for checks before a commit, of what commands print
for programs. That of the frames between agents and engine: agentorch protocol schema.

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


@verb(app, "output")
def output(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help='A kind of document, such as "task".', show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of what commands print with --json; without a name, which kinds there are.

    $ agentorch schema output
    $ agentorch schema output task > task.output.json

    A list holds documents of one kind. Without a name it also says which commands print which.
    """
    import json

    from agentorch_cli.cli.outputs import kinds, printed_by, read_schema

    session = Session.of(ctx)
    if name is not None:
        session.print_document(json.loads(read_schema(name)))
        return
    rows = [
        {"name": one, "about": _sentence(kind), "commands": printed_by(kind)} for one, kind in kinds().items()
    ]

    def draw(page: Page) -> None:
        from agentorch_cli.cli.tables import Column

        columns = [
            Column("KIND", lambda row, look: look.text(row["name"], "bold")),
            Column("ABOUT", lambda row, look: look.text(row["about"]), least=60),
            Column("PRINTED BY", lambda row, look: look.text(", ".join(row["commands"]), "dim"), 5),
        ]
        page.table(columns, rows)

    session.show(rows, draw, [row["name"] for row in rows])


def _sentence(kind: type) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]
