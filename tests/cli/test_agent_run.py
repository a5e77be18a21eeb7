"""Where `agent run` and `agent attach` connect: to the serve of these settings, whatever its port is."""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.views import NodeView

Run = Callable[..., Any]

RUN = ("agent", "run", "a", "--exec", "cat")


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Two ports where somebody takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        yield [one.getsockname()[1], other.getsockname()[1]]


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch, desk: Any) -> list[str]:
    """The addresses to which agents would connect; the database is one of our own, which is there."""
    found: list[str] = []

    async def run_worker(agent: Any, handler: Any, *, url: str, find: object, **rest: Any) -> None:
        found.append(url if find is None else f"{url} and looks again")

    async def attend(agent: Any, url: str, *rest: Any, **others: Any) -> int:
        found.append(url)
        return 0

    monkeypatch.setattr("agentorch_cli.agents.worker.run_worker", run_worker)
    monkeypatch.setattr("agentorch_cli.cli.attach.attend", attend)
    monkeypatch.setenv("DATABASE_URL", "postgresql://here/fleet")
    return found


def node(port: int, *, host: str | None = None, is_live: bool = True) -> NodeView:
    return NodeView(
        node_id=f"node-{port}", host=host or platform.node(), port=port, pid=1, version="0", is_live=is_live
    )


@pytest.mark.parametrize("verb", [RUN, ("agent", "attach", "a")])
def test_an_agent_finds_the_serve_of_its_database_on_another_port(
    agentorch: Run, desk: Any, connected: list[str], ports: list[int], verb: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = server.getsockname()[1]
    desk.answers["node.list"] = [
        node(ports[1], is_live=False),
        node(ports[1], host="elsewhere"),
        node(silent),  # killed, and not missed yet
        node(ports[0]),
    ]

    assert agentorch(*verb).code == 0

    assert connected == [f"ws://127.0.0.1:{ports[0]}/agents"]


def test_of_two_serves_it_takes_the_one_on_the_configured_port(
    agentorch: Run, desk: Any, connected: list[str], ports: list[int]
) -> None:
    desk.answers["node.list"] = [node(one) for one in ports]

    agentorch(*RUN, "--set", f"gateway.port={ports[1]}")

    assert connected == [f"ws://127.0.0.1:{ports[1]}/agents"]


def test_an_address_that_is_named_goes_before_the_serve_that_is_found(
    agentorch: Run, desk: Any, connected: list[str], ports: list[int]
) -> None:
    desk.answers["node.list"] = [node(ports[0])]

    agentorch(*RUN, "--url", "ws://127.0.0.1:5/agents")

    assert connected == ["ws://127.0.0.1:5/agents"]
    assert desk.calls == []


@pytest.mark.parametrize("answer", [[], DatabaseUnreachable("it is down")])
def test_without_a_serve_to_find_the_configured_port_is_dialled(
    agentorch: Run, desk: Any, connected: list[str], answer: Any
) -> None:
    desk.answers["node.list"] = answer

    agentorch(*RUN, "--set", "gateway.port=4321")

    assert connected == ["ws://127.0.0.1:4321/agents"]


def test_where_nothing_was_ever_started_nothing_is_started_for_an_agent(
    agentorch: Run, desk: Any, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL")

    agentorch(*RUN)
    agentorch(*RUN, "--url", "ws://127.0.0.1:5/agents")

    assert connected == ["ws://127.0.0.1:3001/agents and looks again", "ws://127.0.0.1:5/agents"]
    assert desk.calls == []
