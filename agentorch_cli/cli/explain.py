"""`agentorch explain`: what a field of a file means, and what it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Session

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.guide.fields import Field


def explain(
    ctx: typer.Context,
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATH]",
            help="A field or a table: task, task.consensus, gateway.port.",
            show_default=False,
        ),
    ] = None,
    is_deep: Annotated[bool, typer.Option("--all", help="Everything below it too, level by level.")] = False,
) -> None:
    """Say what a field of a task file, an agents file or the configuration means.

    $ agentorch explain task.consensus.threshold
    $ agentorch explain gateway --json

    Type, range, default, other spellings and an example; of a table what is in it. Without a PATH
    the files are listed.
    """
    from agentorch_cli.guide.fields import every, find, roots

    session = Session.of(ctx)
    field = find(path) if path else None
    fields = [field] if field else list(roots().values())
    below = list(every(field)) if is_deep else list(field.children if field else ())
    shown = [field, *below] if field else [*fields, *below] if not is_deep else below

    def draw(page: Page) -> None:
        if field is None:
            _list(page, shown)
            return
        _draw(page, field)
        if below:
            page.heading("FIELDS")
            _list(page, below, field.path)

    document = [one.to_json() for one in shown] if is_deep or field is None else field.to_json()
    session.show(document, draw, [one.path for one in (below or shown)])


def _draw(page: Page, field: Field) -> None:
    """One field, with all that is known of it."""
    look = page.look
    page.line(look.text(field.path, "bold"), "  ", look.text(field.type, "cyan"))
    page.gap()
    page.line("  ", look.text(field.meaning.replace("`", "")))
    facts = {
        "range": field.range,
        "default": (field.default or "").replace("`", "") or None,
        "also": ", ".join(field.also) or None,
        "variable": field.variable,
    }
    rows = [(name, look.text(value)) for name, value in facts.items() if value]
    if rows:
        page.gap()
        page.pairs(rows)
    if field.example:
        page.heading("EXAMPLE")
        for line in field.example.splitlines():
            page.line("  ", look.text(line, "green"))


def _list(page: Page, fields: list[Field], below: str = "") -> None:
    from agentorch_cli.cli import columns

    rows = [
        {
            "name": one.path.removeprefix(f"{below}."),
            "type": one.type,
            "meaning": one.meaning.replace("`", ""),
        }
        for one in fields
    ]
    page.table(columns.FIELDS, rows)


app = single(explain)
