"""The client of a server, over a network that cuts: nothing missed, nothing twice, nothing guessed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from agentorch_cli import __version__, errors
from agentorch_cli.client import remote
from agentorch_cli.client.remote import RemoteClient, Target
from agentorch_cli.core.model import AgentSpec, TaskSpec
from agentorch_cli.wiring import Orchestrator


class Network:
    """A way to the server that can be cut, held, and opened again."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._there = (parts.hostname, parts.port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.is_open = True
        self.swallows_answers = False
        """What the server says does not arrive."""
        self.url = ""
        self.connections = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        self.connections += 1
        there_reader, there_writer = await asyncio.open_connection(*self._there)
        self._writers |= {writer, there_writer}
        for source, sink, is_answer in ((reader, there_writer, False), (there_reader, writer, True)):
            pump = asyncio.create_task(self._pump(source, sink, is_answer))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(4096):
                if not (is_answer and self.swallows_answers):
                    sink.write(chunk)
                    await sink.drain()
        sink.transport.abort()


@pytest.fixture
async def network(orchestrator: Orchestrator) -> AsyncIterator[Network]:
    network = Network(orchestrator.url)
    await network.start()
    yield network
    await network.stop()


@pytest.fixture
async def client(network: Network) -> AsyncIterator[RemoteClient]:
    async with RemoteClient(Target(network.url), is_patient=True) as client:
        yield client


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(remote, "LONGEST_DELAY_SECONDS", 0.1)


async def test_a_wait_goes_on_over_cuts_and_over_another_server(
    orchestrator: Orchestrator, network: Network, client: RemoteClient, fleet: Any
) -> None:
    said: list[str] = []
    client._say = said.append
    agent = await fleet.join()
    await client.call("task.submit", tasks=[TaskSpec("t", required_capabilities=("work",))])
    waiting = asyncio.ensure_future(client.call("task.wait", task_ids=["t"], timeout_seconds=20.0))
    work = await agent.expect("execute_task")
    for _ in range(3):
        await asyncio.sleep(0.05)
        network.cut()
    network.is_open = False
    network.cut()
    await agent.finish(work, result=7)  # it ends while nobody can hear of it
    await agent.expect("ack")
    await asyncio.sleep(0.1)
    assert not waiting.done()
    network.is_open = True

    (task,) = await asyncio.wait_for(waiting, 10)

    assert (task.status, task.result) == ("completed", 7)
    assert any("lost" in one for one in said) and "again" in said[-1]


async def test_a_wait_has_one_time_limit_over_all_its_connections(
    network: Network, client: RemoteClient
) -> None:
    await client.call("task.submit", tasks=[TaskSpec("t", required_capabilities=("nobody",))])
    loop = asyncio.get_running_loop()
    began = loop.time()
    waiting = asyncio.ensure_future(client.call("task.wait", task_ids=["t"], timeout_seconds=1.0))
    for _ in range(4):
        await asyncio.sleep(0.2)
        network.cut()

    with pytest.raises(errors.WaitTimedOut):
        await waiting
    assert 0.9 < loop.time() - began < 3


async def test_events_are_told_once_each_over_any_number_of_cuts(
    orchestrator: Orchestrator, network: Network, client: RemoteClient
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    seen: list[str] = []

    async def follow() -> None:
        async for event in client.events(kinds=["task_submitted"], cursor="0:0"):
            seen.append(str(event.task_id))
            if len(seen) == 300:
                return

    following = asyncio.ensure_future(follow())
    for number in range(60):
        await orchestrator.call("task.submit", tasks=[TaskSpec(f"{number}-{n}") for n in range(5)])
        await asyncio.sleep(chance.random() * 0.02)
        if chance.random() < 0.2:
            network.cut()
    await asyncio.wait_for(following, 20)

    assert sorted(seen) == sorted({f"{number}-{n}" for number in range(60) for n in range(5)})
    assert network.connections > 3


async def test_a_follower_that_takes_its_time_loses_nothing(
    orchestrator: Orchestrator, client: RemoteClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MOST_EVENTS_WAITING", 20)
    await orchestrator.call("task.submit", tasks=[TaskSpec(f"t{n}") for n in range(300)])
    seen = []
    async for event in client.events(kinds=["task_submitted"], cursor="0:0"):
        seen.append(event.task_id)
        if len(seen) % 50 == 1:
            await asyncio.sleep(0.05)
        if len(seen) == 300:
            break

    assert sorted(map(str, seen)) == sorted(f"t{n}" for n in range(300))


async def test_a_submission_whose_answer_was_lost_is_stored_once(
    orchestrator: Orchestrator, network: Network, client: RemoteClient
) -> None:
    network.swallows_answers = True
    known = TaskSpec("old", idempotency_key="k")
    await orchestrator.call("task.submit", tasks=[known])
    tasks = [TaskSpec("a"), TaskSpec("b", depends_on=("a",)), TaskSpec("c", idempotency_key="k")]
    submitting = asyncio.ensure_future(client.call("task.submit", tasks=tasks))
    await orchestrator_has(orchestrator, "b")
    network.swallows_answers = False
    network.cut()

    reply = await asyncio.wait_for(submitting, 10)

    assert [(one.task_id, one.is_new) for one in reply.tasks] == [("a", True), ("b", True), ("old", False)]
    assert len(await orchestrator.call("task.list")) == 3


async def orchestrator_has(orchestrator: Orchestrator, task_id: str) -> None:
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(errors.NotFound):
                await orchestrator.call("task.get", task_id=task_id)
                return
            await asyncio.sleep(0.01)


async def test_a_taken_id_is_a_conflict_the_first_time_and_again(client: RemoteClient) -> None:
    await client.call("task.submit", tasks=[TaskSpec("a")])
    with pytest.raises(errors.Conflict):
        await client.call("task.submit", tasks=[TaskSpec("a")])
    with pytest.raises(errors.Conflict):
        await client.call("task.submit", tasks=[TaskSpec("a")], again=True)


async def test_a_change_whose_answer_was_lost_is_not_repeated(
    orchestrator: Orchestrator, network: Network, client: RemoteClient
) -> None:
    await client.call("task.submit", tasks=[TaskSpec("a")])
    network.swallows_answers = True
    cancelling = asyncio.ensure_future(client.call("task.cancel", task_ids=["a"]))
    async with asyncio.timeout(5):
        while (await orchestrator.call("task.get", task_id="a")).status != "cancelled":
            await asyncio.sleep(0.01)
    network.cut()

    with pytest.raises(errors.ServerUnreachable, match="may have been done, or not"):
        await cancelling


async def test_the_errors_of_the_server_are_those_that_it_would_have_raised_here(
    client: RemoteClient, orchestrator: Orchestrator
) -> None:
    for method, parameters in (
        ("task.get", {"task_id": "nothing"}),
        ("consensus.get", {"decision_id": "nothing"}),
        ("task.submit", {"tasks": [TaskSpec("x", depends_on=("nothing",))]}),
        ("agent.register", {"agents": [AgentSpec("a"), AgentSpec("a")]}),
    ):
        told = []
        for side in (orchestrator.call, client.call):
            with pytest.raises(errors.OrchestratorError) as caught:
                await side(method, **parameters)
            told.append((type(caught.value), caught.value.hint))
        if method != "agent.register":  # twice in one file is found by whoever reads it first
            assert told[0] == told[1], method


async def test_a_server_that_is_not_there_is_said_to_be_so_in_time() -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections, and says nothing
    http = await asyncio.start_server(_answer_in_http, "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    addresses = [
        "ws://127.0.0.1:1",
        "ws://nowhere.invalid:3001",
        f"ws://127.0.0.1:{silent.getsockname()[1]}",
        f"wss://127.0.0.1:{http.sockets[0].getsockname()[1]}",
        f"ws://127.0.0.1:{http.sockets[0].getsockname()[1]}",
    ]

    async def try_one(url: str) -> None:
        began = loop.time()
        with pytest.raises(errors.ServerUnreachable, match="cannot be reached"):
            async with RemoteClient(Target(url), is_patient=True):
                pass
        assert loop.time() - began < 5, url

    await asyncio.gather(*map(try_one, addresses))
    silent.close()
    http.close()


async def test_a_server_without_tls_is_told_from_one_that_is_not_there(network: Network) -> None:
    """The engine closes what is no HTTP; others answer in their own way."""
    http = await asyncio.start_server(_answer_in_http, "127.0.0.1", 0)
    plain = [network.url.replace("ws:", "wss:"), f"wss://127.0.0.1:{http.sockets[0].getsockname()[1]}"]

    async def hint(url: str) -> str:
        with pytest.raises(errors.ServerUnreachable) as caught:
            async with RemoteClient(Target(url)):
                pass
        assert "Error" not in caught.value.message
        return str(caught.value.hint)

    assert [("try ws://" in await hint(url)) for url in (*plain, "wss://127.0.0.1:1")] == [True, True, False]
    http.close()


async def _answer_in_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    writer.close()


async def test_a_server_that_goes_away_is_given_up_by_who_only_asks(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "UNREACHABLE_SECONDS", 0.5)
    async with RemoteClient(Target(network.url)) as client:
        await client.call("status.get")
        network.is_open = False
        network.cut()
        with pytest.raises(errors.ServerUnreachable):
            await client.call("status.get")


async def test_another_version_is_named(
    orchestrator: Orchestrator, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentorch_cli.gateway.control.__version__", "9.9.9")
    said: list[str] = []
    async with RemoteClient(Target(network.url), say=said.append) as client:
        await client.call("status.get")
        with pytest.raises(errors.OrchestratorError):
            wire = await client._connected()
            await wire.ask("future.thing", {})

    assert len(said) == 1 and "9.9.9" in said[0] and __version__ in said[0]


@pytest.mark.parametrize("url", ["ws://fleet.example:3001", "ws://192.0.2.1"])
async def test_a_token_is_not_sent_in_the_clear(url: str) -> None:
    with pytest.raises(errors.NotAllowed, match="without encryption"):
        async with RemoteClient(Target(url, token="ao_x")):
            pass


async def test_a_client_whose_token_ends_does_not_come_back_in_vain(
    orchestrator: Orchestrator, network: Network
) -> None:
    made = await orchestrator.call("token.create", name="ada", scopes=["read", "submit"])
    async with RemoteClient(Target(network.url, token=made.token), is_patient=True) as client:
        await client.call("task.submit", tasks=[TaskSpec("t", required_capabilities=("nobody",))])
        waiting = asyncio.ensure_future(client.call("task.wait", task_ids=["t"]))
        await asyncio.sleep(0.05)
        await orchestrator.call("token.revoke", names=["ada"])
        with pytest.raises(errors.Unauthorized, match="revoked"):
            await asyncio.wait_for(waiting, 5)


async def test_a_request_that_the_server_would_not_take_is_not_sent(
    orchestrator: Orchestrator, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentorch_cli.gateway.control.LOOKER_BYTES", 200_000)
    made = await orchestrator.call("token.create", name="ada", scopes=["read"])
    async with RemoteClient(Target(network.url, token=made.token), is_patient=True) as client:
        with pytest.raises(errors.UsageError, match="200,000"):
            await client.call("task.wait", task_ids=["x" * 100] * 2_000)

        assert await client.call("task.list") == []
    assert network.connections == 1
