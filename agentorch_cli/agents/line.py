"""The connection to the engine, for ever: dial, greet, converse, and dial again.

The engine may be absent at first, restart, or vanish behind a network that drops packets. None of
that ends an agent; only a refusal does (a wrong token, an id that is not allowed), because trying
again would not help. What a lost connection carried is the desk's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import random
import ssl
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from agentorch_cli.agents.desk import Desk
from agentorch_cli.agents.outbox import PACK_BYTES, Outbox
from agentorch_cli.agents.text import plain
from agentorch_cli.bursts import InBursts, receive
from agentorch_cli.errors import (
    InvalidMessage,
    NotAllowed,
    OrchestratorError,
    Unauthorized,
    UsageError,
    command,
)
from agentorch_cli.tls import context_for

logger = logging.getLogger("agentorch.agent")

# The library logs the handshake's headers, and with them the token, at DEBUG.
_wire_logger = logging.getLogger("agentorch.agent.wire")
_wire_logger.setLevel(logging.WARNING)

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
STABLE_SECONDS = 5.0
"""A connection that held for so long starts the delays anew; shorter ones must not hammer the engine."""

GREETING_SECONDS = 20.0
"""From the open socket to `registered`; an engine that takes back 1,000 agents at once needs some."""

DEFAULT_HEARTBEAT_SECONDS = 10.0
PING_SECONDS = 10.0
PING_TIMEOUT_SECONDS = 20.0
CLOSE_SECONDS = 2.0
LARGEST_FRAME_BYTES = 64 * 1024 * 1024
SMALLEST_PACK_BYTES = 16 * 1024
REFUSALS_BEFORE_GIVING_UP = 3
"""Closes with 1008 and no `error` frame, in a row: the first may be an overloaded engine's timeout."""


class LineState(StrEnum):
    """What the connection is doing, for whoever shows it."""

    CONNECTED = "connected"
    """Registered; the reason is the engine's id."""
    LOST = "lost"
    """The connection ended; the agent goes on with what it holds and dials again."""
    UNREACHABLE = "unreachable"
    """Dialling failed; it tries again."""
    DRAINING = "draining"
    """The engine asked to finish what is held; no more will come over this connection."""
    STOPPED = "stopped"
    """The agent has left."""


Find = Callable[[], Awaitable[str]]
"""Answers where the engine is now; asked before each connection but the first."""

OnConnection = Callable[[str, str], None]


class Socket(InBursts, ClientConnection):
    """The agent's end of the connection."""


class Line:
    """One agent's way to the engine. `register` is the frame to begin each connection with."""

    def __init__(
        self,
        desk: Desk,
        url: str,
        register: dict[str, Any],
        token: str | None,
        on_connection: OnConnection | None,
        tls: ssl.SSLContext | None = None,
        find: Find | None = None,
    ) -> None:
        self._desk = desk
        self._tls = tls
        self._url = url
        self._find = find
        self._register = register
        self._token = token
        self._on_connection = on_connection
        self._outbox: Outbox | None = None
        self._pack_bytes = PACK_BYTES
        self._failures = 0
        self._refusals = 0
        desk.on_drain = lambda: self.tell(LineState.DRAINING, "the engine sends no more work")

    @property
    def is_connected(self) -> bool:
        return self._outbox is not None

    def tell(self, state: LineState, reason: str) -> None:
        logger.debug("%s: %s", state, reason)
        if self._on_connection is not None:
            try:
                self._on_connection(state, reason)
            except Exception as error:
                logger.warning("on_connection raised %s", type(error).__name__, exc_info=_is_debugging())

    async def hold(self) -> None:
        """Stay connected until cancelled. Raises Unauthorized, NotAllowed, InvalidMessage, UsageError."""
        while True:
            await self._dial_once()
            await asyncio.sleep(self._delay())
            if self._find is not None:
                self._url = await self._find()

    async def leave(self, seconds: float) -> None:
        """Say `unregister`, and wait at most so long until it is on its way."""
        outbox = self._outbox
        if outbox is not None:
            outbox.put(_encode(type="unregister", agentId=self._register["agentId"]))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await outbox.flushed()

    def _delay(self) -> float:
        """Doubles with each failure; the random half keeps a fleet from coming back in step."""
        longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return longest * random.uniform(0.5, 1.0)

    async def _dial_once(self) -> None:
        try:
            socket = await self._dial()
        except InvalidURI as error:
            raise UsageError(
                f"{self._url} is not a WebSocket address", hint="ws://HOST:PORT/agents"
            ) from error
        except InvalidStatus as error:
            _raise_if_refused(error.response.status_code)
            self.tell(LineState.UNREACHABLE, f"HTTP status {error.response.status_code}")
        except (OSError, InvalidHandshake, EOFError, ValueError) as error:
            self.tell(LineState.UNREACHABLE, plain(str(error) or type(error).__name__))
        else:
            await self._use(socket)

    async def _dial(self) -> ClientConnection:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else None
        proxy: Literal[True] | None = None if _is_loopback(self._url) else True
        return await connect(
            self._url,
            additional_headers=headers,
            compression=None,
            proxy=proxy,
            create_connection=Socket,
            ssl=self._tls or context_for(self._url),
            max_size=LARGEST_FRAME_BYTES,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_TIMEOUT_SECONDS,
            close_timeout=CLOSE_SECONDS,
            logger=_wire_logger,
        )

    async def _use(self, socket: ClientConnection) -> None:
        started_at = asyncio.get_running_loop().time()
        is_registered = False
        try:
            welcome, rest = await self._greet(socket)
            is_registered = True
            await self._converse(socket, welcome, rest)
        except ConnectionClosed as closed:
            self._closed(closed, is_registered)
        except TimeoutError:
            self.tell(LineState.LOST, "the engine did not answer `register`")
        finally:
            if asyncio.get_running_loop().time() - started_at > STABLE_SECONDS:
                self._failures = 0
            await _close(socket)

    async def _greet(self, socket: ClientConnection) -> tuple[dict[str, Any], list[Any]]:
        """Register; returns the welcome, and what came after it in the same frame."""
        await socket.send(orjson.dumps({**self._register, "resume": self._desk.held()}), text=True)
        async with asyncio.timeout(GREETING_SECONDS):
            while True:
                messages = _decode(await socket.recv(decode=False))
                for position, message in enumerate(messages):
                    kind = message.get("type") if isinstance(message, dict) else None
                    if kind == "error":
                        self._refused(message)
                    if kind == "registered":
                        return message, messages[position + 1 :]

    async def _converse(self, socket: ClientConnection, welcome: dict[str, Any], rest: list[Any]) -> None:
        """Read until the connection ends. One task writes, one keeps the heart beating."""
        outbox = Outbox(batch=self._register["batch"], pack_bytes=self._pack_bytes)
        self._outbox = outbox
        self._refusals = 0
        self._desk.online(outbox, _strings(welcome.get("dropped")))
        self.tell(LineState.CONNECTED, plain(str(welcome.get("engineId", "")), 200))
        helpers = (
            asyncio.create_task(_write(outbox, socket)),
            asyncio.create_task(self._beat(outbox, _interval(welcome))),
        )
        try:
            take = self._desk.receive
            for message in rest:
                take(message)
            while True:
                for frame in await receive(socket, decode=False):
                    for message in _decode(frame):
                        take(message)
                if outbox.is_full:
                    await outbox.room()
        finally:
            self._outbox = None
            self._desk.offline()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _beat(self, outbox: Outbox, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            agent_id = self._register["agentId"]
            outbox.put(_encode(type="agent_heartbeat", agentId=agent_id, load=round(self._desk.load, 3)))

    def _refused(self, message: dict[str, Any]) -> None:
        """An `error` instead of a welcome: raised when it would be the same next time."""
        code, sentence = message.get("code"), plain(str(message.get("message")))
        kinds: dict[Any, type[OrchestratorError]] = {
            error.code: error for error in (Unauthorized, InvalidMessage)
        }
        if code == NotAllowed.code:  # its token is for somebody else: that of a person, or of another agent
            agent_id = str(self._register["agentId"])
            raise NotAllowed(
                sentence, fix=command("token", "create", agent_id, "--scope", f"agent:{agent_id}")
            )
        if code in kinds:
            raise kinds[code](sentence)
        self.tell(LineState.UNREACHABLE, sentence)

    def _closed(self, closed: ConnectionClosed, is_registered: bool) -> None:
        code = closed.rcvd.code if closed.rcvd is not None else None
        reason = plain(closed.rcvd.reason, 200) if closed.rcvd is not None else ""
        if code == 1008:
            self._refusals += 1
            if is_registered or self._refusals >= REFUSALS_BEFORE_GIVING_UP:
                raise NotAllowed(f"the engine closed the connection: {reason or 'policy violation'}")
        if code == 1009 and not self._desk.too_big():
            self._pack_bytes = max(SMALLEST_PACK_BYTES, self._pack_bytes // 2)
        said = reason or (f"closed with code {code}" if code else "the connection was cut")
        self.tell(LineState.LOST, said)


async def _write(outbox: Outbox, socket: ClientConnection) -> None:
    """A writer that ends takes the connection with it, or the reader would never know."""
    try:
        await outbox.write_to(socket)
    except Exception:
        socket.transport.abort()
        raise


async def _close(socket: ClientConnection) -> None:
    """The library waits without limit for room in a full buffer; an engine that is gone gives none."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await socket.close()
    except TimeoutError:
        socket.transport.abort()


def _decode(frame: str | bytes) -> list[Any]:
    """The messages of a frame; none when it is not JSON."""
    try:
        messages = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        logger.warning("ignored a frame that is not JSON: %s", plain(str(error)))
        return []
    return messages if isinstance(messages, list) else [messages]


def _is_debugging() -> bool:
    """Tracebacks are for those who asked for them."""
    return logger.isEnabledFor(logging.DEBUG)


def _encode(**message: Any) -> bytes:
    return orjson.dumps(message)


def _interval(welcome: dict[str, Any]) -> float:
    seconds = welcome.get("heartbeatInterval")
    return max(0.05, seconds) if isinstance(seconds, int | float) else DEFAULT_HEARTBEAT_SECONDS


def _strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _raise_if_refused(status: int) -> None:
    if status == 401:
        raise Unauthorized("the engine wants a token that is valid for this agent (HTTP status 401)")
    if status == 403:
        raise NotAllowed("the engine does not let this agent in (HTTP status 403)")


def _is_loopback(url: str) -> bool:
    """A proxy from the environment is for far machines; many systems do not except their own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
