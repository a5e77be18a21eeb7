"""`agentorch ui`, and what `serve` says of its page."""

from __future__ import annotations

import json
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import agentorch_cli
from agentorch_cli.views import NodeView

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nalive\n"
TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x0a"
"""What a port with TLS answers to somebody who speaks plainly."""


@contextmanager
def listener(answer: bytes) -> Iterator[int]:
    """A port that answers every request so."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def node(
    port: int | None, *, host: str | None = None, is_live: bool = True, is_leader: bool = False
) -> NodeView:
    return NodeView(
        node_id=f"node-{port}",
        host=host or socket.gethostname(),
        port=port,
        pid=1,
        version="0",
        is_live=is_live,
        is_leader=is_leader,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_the_address_is_that_of_the_serve_here_that_answers(desk: Any, agentorch: Callable[..., Any]) -> None:
    with listener(PLAIN) as port:
        nodes = [
            node(free_port()),
            node(None),
            node(free_port(), is_live=False),
            node(port),
            node(1, host="127.0.0.1"),
        ]
        desk.answers["node.list"] = nodes

        assert agentorch("ui").out == f"http://127.0.0.1:{port}/ui\n"
        assert json.loads(agentorch("ui", "--json").out)["url"] == f"http://127.0.0.1:{port}/ui"
        assert agentorch("-q", "ui").out == f"http://127.0.0.1:{port}/ui\n"


def test_where_the_serve_has_a_certificate_the_address_is_https(
    desk: Any, agentorch: Callable[..., Any]
) -> None:
    with listener(TLS_ALERT) as port:
        desk.answers["node.list"] = [node(port)]

        assert agentorch("ui").out == f"https://127.0.0.1:{port}/ui\n"


@pytest.mark.parametrize("nodes", [[], [node(None)], [node(9, is_live=False)]])
def test_without_a_serve_there_is_no_page(
    desk: Any, agentorch: Callable[..., Any], nodes: list[NodeView]
) -> None:
    desk.answers["node.list"] = nodes

    told = agentorch("ui")

    assert (told.code, told.out) == (5, "")
    assert "no serve answers" in told.err
    assert "agentorch serve" in told.err


@pytest.mark.parametrize("can_open", [True, False])
def test_a_browser_is_opened_only_when_it_is_asked_for(
    desk: Any, agentorch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, can_open: bool
) -> None:
    opened: list[str] = []

    def opens(address: str) -> bool:
        opened.append(address)
        return can_open

    monkeypatch.setattr(webbrowser, "open", opens)
    with listener(PLAIN) as port:
        desk.answers["node.list"] = [node(port)]
        agentorch("ui")
        assert opened == []

        told = agentorch("ui", "--open")

    assert opened == [f"http://127.0.0.1:{port}/ui"]
    assert (told.code, told.out) == (0, f"{opened[0]}\n")
    assert ("no browser" in told.err) != can_open


def test_serve_tells_where_its_page_is(
    desk: Any, agentorch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(settings: Any, *, on_ready: Callable[[str], None], **_: Any) -> None:
        on_ready("wss://127.0.0.1:4000/agents")

    desk.wiring.serve = serve
    monkeypatch.setattr(agentorch_cli, "wiring", desk.wiring, raising=False)

    assert "Look at it in a browser: https://127.0.0.1:4000/ui\n" in agentorch("serve").err
    assert json.loads(agentorch("serve", "--json").out) == {
        "schema_version": 1,
        "event": "ready",
        "url": "wss://127.0.0.1:4000/agents",
        "ui": "https://127.0.0.1:4000/ui",
    }
