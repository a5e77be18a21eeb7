"""`agentorch node`: the serve processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

app = noun("""$ agentorch node list

The serve processes: which leads, who is connected where.""")


@verb(app, "list")
def list_nodes(ctx: typer.Context) -> None:
    """List the nodes of the last hour: their pools, what they lead, their agents and load.

    $ agentorch node list

    One node leads each pool: it assigns the pool's tasks. One does the monitoring that is there once for
    all pools: deadlocks, schedules, deadlines, scores. If either dies another node takes over.
    """
    session = Session.of(ctx)
    nodes = session.ask("node.list")

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.NODES, nodes)

    nobody = "No serve runs; agentorch serve starts one."
    session.show(nodes, draw, [node.node_id for node in nodes], nobody)
