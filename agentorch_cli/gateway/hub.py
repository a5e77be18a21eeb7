"""A WebSocket hub that is there already: the engine joins it as a client, and serves the agents behind it.

The hub carries the frames of the agent protocol, many agents' over one connection. Every frame
that goes out bears the `agentId` that it is for; one that comes in bears its sender's, or names a
message that was sent to it. Each agent gets a connection of its own in here, so the gateway treats
it like one that has come to the door. Who is behind the hub is the hub's word: it is trusted as far
as the agents on it.

When the connection breaks, it is made again with growing pauses. The agents need not notice: their
`register` is said again in their place, with the work that they hold.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidHandshake, InvalidURI
from websockets.protocol import State

from agentorch_cli.errors import InvalidMessage
from agentorch_cli.payloads import decode
from agentorch_cli.redaction import redact
from agentorch_cli.text import one_line

log = logging.getLogger("agentorch.gateway")

_wire_log = logging.getLogger("agentorch.gateway.hub")
_wire_log.setLevel(logging.WARNING)  # at DEBUG the library logs the address, and with it what is secret

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 15.0
STABLE_SECONDS = 5.0
"""A connection that held for so long starts the pauses anew."""

OPEN_SECONDS = 10.0
SEND_SECONDS = 30.0
PING_SECONDS = 10.0

MOST_WAITING = 256
"""Frames of one agent that are read before they are handled; then the hub waits."""

MOST_REMEMBERED = 200_000
"""Messages of which it is known whom they were sent to."""

MOST_AGENTS = 100_000

Receive = Callable[[Any], Awaitable[None]]


class Behind:
    """The connection of an agent behind the hub, as the gateway sees it."""

    def __init__(self, hub: Hub, agent_id: str) -> None:
        self.agent_id = agent_id
        self.state = State.OPEN
        self.request = SimpleNamespace(path="/agents", headers=Headers())
        self.transport = SimpleNamespace(abort=self.end)
        self._hub = hub
        self._frames: asyncio.Queue[str | None] = asyncio.Queue(MOST_WAITING + 1)
        self.is_over = False

    async def put(self, raw: str) -> None:
        """A frame came from the agent."""
        if not self.is_over:
            await self._frames.put(raw)

    def end(self) -> None:
        """Nothing more comes, and nothing more goes."""
        if self.is_over:
            return
        self.is_over, self.state = True, State.CLOSED
        while self._frames.qsize() > MOST_WAITING:
            self._frames.get_nowait()
        self._frames.put_nowait(None)

    async def recv(self) -> str:
        """The next frame. Raises ConnectionClosed."""
        raw = await self._frames.get()
        if raw is None:
            self._frames.put_nowait(None)
            raise ConnectionClosedOK(None, None)
        return raw

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            while True:
                yield await self.recv()
        except ConnectionClosed:
            return

    async def send(self, frame: bytes, text: bool = True) -> None:
        """To the agent, by way of the hub. Raises ConnectionClosed."""
        if self.is_over:
            raise ConnectionClosedOK(None, None)
        await self._hub.send(self.agent_id, frame)

    async def ping(self) -> Any:
        """There is no ping through a hub: an agent shows by its frames that it lives."""
        raise OSError("a hub carries no pings")

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Tell the agent that it is not served any more."""
        if not self.is_over:
            if code not in (1000, 1001):
                told = {"type": "error", "code": "closed", "message": reason or f"closed with code {code}"}
                await self._hub.send(self.agent_id, orjson.dumps(told))
            self._hub.forget(self)
            self.end()


class Hub:
    """The engine's connection to the hub, for as long as the engine runs."""

    def __init__(self, url: str, engine_id: str, receive: Receive, *, max_bytes: int) -> None:
        """`receive` serves one agent's connection to its end."""
        self.url = url
        self.engine_id = engine_id
        self.is_connected = False
        self._receive = receive
        self._max_bytes = max_bytes
        self._socket: ClientConnection | None = None
        self._agents: dict[str, Behind] = {}
        self._registers: dict[str, dict[str, Any]] = {}
        """What each agent said of itself, to be said again after a reconnect."""
        self._sent_to: OrderedDict[str, str] = OrderedDict()
        """Message id to agent, for frames that name no sender."""
        self._held: dict[str, set[str]] = {}
        """By agent: work that was sent and has not been acknowledged."""
        self._serving: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled: dial, register, carry, and dial again."""
        failures, clock = 0, asyncio.get_running_loop().time
        try:
            while True:
                began = clock()
                try:
                    await self._once()
                except InvalidURI:
                    log.critical("gateway.hub_url is not a WebSocket address; the hub is left alone")
                    return
                except (OSError, InvalidHandshake, EOFError, ConnectionClosed, ValueError) as error:
                    log.warning("the hub is away: %s", one_line(redact(str(error) or type(error).__name__)))
                finally:
                    self._disconnect()
                failures = 0 if clock() - began > STABLE_SECONDS else failures + 1
                longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(failures, 16))
                await asyncio.sleep(longest * random.uniform(0.5, 1.0))
        finally:
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    async def _once(self) -> None:
        async with connect(
            self.url,
            compression=None,
            max_size=self._max_bytes,
            open_timeout=OPEN_SECONDS,
            ping_interval=PING_SECONDS,
            close_timeout=2,
            logger=_wire_log,
        ) as socket:
            self._socket = socket
            await socket.send(
                orjson.dumps({"type": "register", "engineId": self.engine_id, "engineType": "orchestrator"}),
                text=True,
            )
            self.is_connected = True
            log.info("joined the hub as %s", self.engine_id)
            for agent_id, register in list(self._registers.items()):
                held = sorted(self._held.get(agent_id, ()))
                await self._begin(agent_id, {**register, "resume": held})
            async for raw in socket:
                await self._take(raw)

    def _disconnect(self) -> None:
        self._socket, self.is_connected = None, False
        for agent in list(self._agents.values()):
            agent.end()
        self._agents.clear()

    # --- from the hub -----------------------------------------------------------------------

    async def _take(self, raw: str | bytes) -> None:
        """Frames of agents; what is for nobody here (the hub's own words) is passed over."""
        try:
            frames = decode(raw if isinstance(raw, str) else b"", max_bytes=self._max_bytes)
        except InvalidMessage as error:
            log.info("the hub sent something that is no frame: %s", error)
            return
        for frame in frames if isinstance(frames, list) else [frames]:
            agent_id = self._sender(frame)
            if agent_id is not None:
                await self._hand_on(agent_id, frame)

    def _sender(self, frame: Any) -> str | None:
        if not isinstance(frame, dict):
            return None
        agent_id = frame.get("agentId")
        if agent_id is None:
            message_id = frame.get("messageId") or frame.get("parentMessageId")
            agent_id = self._sent_to.get(message_id) if isinstance(message_id, str) else None
        return agent_id if isinstance(agent_id, str) and agent_id else None

    async def _hand_on(self, agent_id: str, frame: dict[str, Any]) -> None:
        kind = frame.get("type")
        agent = self._agents.get(agent_id)
        if kind == "register":
            if agent_id not in self._registers and len(self._registers) >= MOST_AGENTS:
                return
            register = {**frame, "batch": False}
            self._registers[agent_id] = {key: value for key, value in register.items() if key != "resume"}
            if agent is not None:
                agent.end()
            await self._begin(agent_id, register)
            return
        if kind == "unregister":
            self._registers.pop(agent_id, None)
            self._held.pop(agent_id, None)
        if agent is None and agent_id in self._registers:  # it was closed here, and is heard of again
            agent = await self._begin(agent_id, self._registers[agent_id])
        if agent is not None:
            await agent.put(orjson.dumps(frame).decode())

    async def _begin(self, agent_id: str, register: dict[str, Any]) -> Behind:
        agent = self._agents[agent_id] = Behind(self, agent_id)
        await agent.put(orjson.dumps(register).decode())
        task = asyncio.create_task(self._serve(agent), name=f"behind the hub: {agent_id}")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return agent

    async def _serve(self, agent: Behind) -> None:
        try:
            await self._receive(agent)
        finally:
            agent.end()
            self.forget(agent)

    def forget(self, agent: Behind) -> None:
        """This connection has ended."""
        if self._agents.get(agent.agent_id) is agent:
            del self._agents[agent.agent_id]

    # --- to the hub -------------------------------------------------------------------------

    async def send(self, agent_id: str, raw: bytes) -> None:
        """A frame for an agent. Raises ConnectionClosed."""
        socket = self._socket
        if socket is None:
            raise ConnectionClosedOK(None, None)
        frame = orjson.loads(raw)
        frame["agentId"] = agent_id
        self._note(agent_id, frame)
        async with asyncio.timeout(SEND_SECONDS):
            await socket.send(orjson.dumps(frame), text=True)

    def _note(self, agent_id: str, frame: dict[str, Any]) -> None:
        """Remember whom a message was for, and what the agent holds."""
        message_id = frame.get("messageId")
        if not isinstance(message_id, str):
            return
        if frame["type"] == "agent_message":
            self._sent_to[message_id] = agent_id
            if len(self._sent_to) > MOST_REMEMBERED:
                self._sent_to.popitem(last=False)
            if frame.get("messageType") == "execute_task":
                self._held.setdefault(agent_id, set()).add(message_id)
            elif frame.get("messageType") == "cancel_task":
                self._held.get(agent_id, set()).discard(str(frame.get("data", {}).get("messageId")))
        elif frame["type"] == "ack":
            self._held.get(agent_id, set()).discard(message_id)
