"""`agentorch budget`: what the tasks of a label may use, and what was spent."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli import lists
from agentorch_cli.cli.consent import Yes
from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.views import BudgetView

app = noun("""$ agentorch budget set team=ml --cost-usd 50 --period day

What tasks may use, in dollars and tokens: set it for a label, look at what was spent.""")

Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="A label as NAME=VALUE, or the id of a task or submission.", show_default=False
    ),
]


class Period(StrEnum):
    """How often what is spent begins anew."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    NONE = "none"


@verb(app, "set")
def set_budget(
    ctx: typer.Context,
    key: Key,
    cost_usd: Annotated[
        float | None,
        typer.Option("--cost-usd", metavar="USD", min=1e-9, max=1e9, help="The most in dollars."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", metavar="N", min=1, max=10**15, help="The most in tokens.")
    ] = None,
    attempt_usd: Annotated[
        float | None,
        typer.Option(
            "--attempt-usd",
            metavar="USD",
            min=1e-9,
            max=1e9,
            help="What one attempt is expected to use: so much is reserved.",
        ),
    ] = None,
    attempt_tokens: Annotated[
        int | None,
        typer.Option("--attempt-tokens", metavar="N", min=1, max=10**15, help="The same in tokens."),
    ] = None,
    period: Annotated[
        Period | None,
        typer.Option("--period", help="Begin anew each day, week or month (UTC); none = never."),
    ] = None,
) -> None:
    """Set what all tasks with a label together may use, or change it.

    $ agentorch budget set team=ml --cost-usd 50
    $ agentorch budget set team=ml --cost-usd 50 --tokens 2000000 --period day

    What is not named stays as it is. Tasks that the budget cannot pay for wait, and go on when it
    is raised. The budget of a task or a submission is changed by its id; it comes with the task file.
    """
    session = Session.of(ctx)
    found = session.ask(
        "budget.set",
        key=key,
        cost_usd=cost_usd,
        tokens=tokens,
        attempt_usd=attempt_usd,
        attempt_tokens=attempt_tokens,
        period=str(period) if period is not None else None,
    )
    session.show(found, lambda page: _draw_all(page, [found]), [found.key])


@verb(app, "list")
def list_budgets(ctx: typer.Context, limit: lists.Limit = 50) -> None:
    """List budgets with what was spent: those of labels first, then the newest of tasks and submissions.

    $ agentorch budget list
    """
    session = Session.of(ctx)
    found = session.ask("budget.list", limit=limit)
    empty = "There are no budgets yet; agentorch budget set makes one."
    session.show(found, lambda page: _draw_all(page, found), [one.key for one in found], empty)
    lists.tell_more(session, found, limit)


@verb(app, "show")
def show(ctx: typer.Context, key: Key) -> None:
    """Show a budget: its limits, what was spent, what is reserved for attempts that run.

    $ agentorch budget show team=ml
    """
    session = Session.of(ctx)
    found = session.ask("budget.get", key=key)

    def draw(page: Page) -> None:
        from agentorch_cli.cli import money

        page.line(page.look.text(f"{found.scope} {found.key}", "bold"))
        page.pairs(money.facts(found, page.look))

    session.show(found, draw, [found.key])


@verb(app, "remove")
def remove(
    ctx: typer.Context,
    keys: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY…", help="Labels as NAME=VALUE, or ids of tasks and submissions.", show_default=False
        ),
    ],
    is_sure: Yes = False,
) -> None:
    """Lift budgets: what waited for them starts, and what they spent is forgotten.

    $ agentorch budget remove team=ml

    It asks where something was spent already.
    """
    from agentorch_cli.cli.consent import ask_first
    from agentorch_cli.cli.task import show_change

    session = Session.of(ctx)
    if not is_sure and (spent := _spent(session, keys)):
        ask_first(session, f"What was spent is forgotten: {', '.join(spent)}.", yes=False)
    reply = session.ask("budget.remove", keys=list(dict.fromkeys(keys)))
    show_change(session, reply, "is not limited any more")


def _spent(session: Session, keys: list[str]) -> list[str]:
    """What the tasks of these budgets have used, in words; those that used nothing are left out."""
    from agentorch_cli.errors import NotFound

    told = []
    for key in dict.fromkeys(keys):
        try:
            one = session.ask("budget.get", key=key)
        except NotFound:
            continue
        parts = [f"${one.spent_usd:,.2f}"] if one.spent_usd else []
        parts += [f"{one.spent_tokens:,} tokens"] if one.spent_tokens else []
        parts += [f"{one.running:,} running attempts"] if one.running else []
        told += [f"{key} {' and '.join(parts)}"] if parts else []
    return told


def _draw_all(page: Page, found: list[BudgetView]) -> None:
    from agentorch_cli.cli import money

    page.table(money.BUDGETS, found)
