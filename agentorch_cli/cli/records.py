"""`agentorch consensus` and `agentorch event`: what was decided, and what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

consensus_app = noun("""$ agentorch consensus list

How votes came out, and what made them.""")

event_app = noun("""$ agentorch event list --task nightly-report

Everything that happened, in order.""")


@verb(consensus_app, "list")
def list_decisions(
    ctx: typer.Context,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="How many, newest first.")
    ] = 50,
) -> None:
    """List votes, newest first.

    $ agentorch consensus list --limit 10
    """
    session = Session.of(ctx)
    decisions = session.ask("consensus.list", limit=limit)

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.DECISIONS, decisions)

    ids = [decision.decision_id for decision in decisions]
    session.show(decisions, draw, ids, "There were no votes yet.")


@verb(consensus_app, "show")
def show_decision(
    ctx: typer.Context,
    decision_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the decision.", show_default=False)],
) -> None:
    """Show a vote: its rule, its ballots, its answer, and how sure it is.

    $ agentorch consensus show 019a8f2e-7b1c-7d10-a3f4-52c8e09b1d6f
    """
    session = Session.of(ctx)
    decision = session.ask("consensus.get", decision_id=decision_id)

    def draw(page: Page) -> None:
        from agentorch_cli.cli import story

        story.draw_decision(page, decision)

    session.show(decision, draw, [decision.decision_id])


@verb(event_app, "list")
def list_events(
    ctx: typer.Context,
    task: Annotated[
        str | None, typer.Option("--task", metavar="ID", help="Only events of this task.")
    ] = None,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="CURSOR", help="Only what came after this cursor.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="How many.")] = 200,
) -> None:
    """List events, oldest first. The cursor of the last one is where to go on.

    $ agentorch event list --task nightly-report
    """
    session = Session.of(ctx)
    events = session.ask("event.list", task_id=task, cursor=cursor, limit=limit)

    def draw(page: Page) -> None:
        from agentorch_cli.cli import story

        story.draw_events(page, events)

    session.show(events, draw, [event.cursor for event in events], "There are no such events.")
