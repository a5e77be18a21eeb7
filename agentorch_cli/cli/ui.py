"""`agentorch ui`: where the web page is that `serve` has."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import ServerUnreachable

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

ANSWER_SECONDS = 1.0
"""For a node to say that it is there."""


def ui(
    ctx: typer.Context,
    is_opening: Annotated[bool, typer.Option("--open", help="Open it in your browser.")] = False,
) -> None:
    """Tell where the web page is: the fleet, live, in a browser.

    $ agentorch ui
    $ agentorch ui --open

    serve has it on its own port, read-only: agents, queue, tasks with their graphs and timelines, votes,
    deadlocks, events. Where serve wants tokens, the page asks for one; the scope read is enough.
    """
    session = Session.of(ctx)
    nodes = session.ask("node.list")
    address = _server_page(session) if session.settings.is_remote else _own_page(nodes)

    def draw(page: Page) -> None:
        page.line(page.look.text(address))

    session.show({"url": address}, draw, [address])
    if is_opening:
        import webbrowser

        if not webbrowser.open(address):
            session.say("There is no browser to open here; follow the address in one of yours.")


app = single(ui)


def page_address(url: str) -> str:
    """The page of a server, by the address of one of its endpoints."""
    from agentorch_cli.client.remote import endpoint

    return "http" + endpoint(url, "ui").removeprefix("ws")


def _server_page(session: Session) -> str:
    from agentorch_cli.cli.target import target_of

    return page_address(target_of(session.settings).url)


def _own_page(nodes: Sequence[Any]) -> str:
    """The page of the first node that answers, those of this machine first. Raises ServerUnreachable."""
    own = socket.gethostname()
    live = [node for node in nodes if node.is_live and node.port]
    for node in sorted(live, key=lambda node: (node.host != own, not node.is_leader, node.node_id)):
        for host in ("127.0.0.1", "::1", own) if node.host == own else (node.host,):
            scheme = _scheme(host, node.port)
            if scheme is not None:
                return f"{scheme}://{f'[{host}]' if ':' in host else host}:{node.port}/ui"
    raise ServerUnreachable(
        "no serve answers, and it is serve that has the page",
        hint="agentorch serve starts one; it tells the address of its page",
    )


def _scheme(host: str, port: int) -> str | None:
    """`http` where somebody answers so, `https` where somebody is there and does not; None: nobody is."""
    connection = HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    with contextlib.closing(connection):
        try:
            connection.connect()
        except OSError:
            return None
        try:
            connection.request("GET", "/healthz")
            return "http" if connection.getresponse().status < 500 else None
        except (OSError, HTTPException):
            return "https"
