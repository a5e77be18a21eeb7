"""An engine of a few lines that speaks the agent protocol, and does only what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

PATIENCE_SECONDS = 5.0

Start = Callable[..., "asyncio.Task[None]"]


class Connection:
    """One connection of one agent, as the engine sees it. `messages` is everything it sent, unpacked."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.messages: list[dict[str, Any]] = []
        self.frames: list[Any] = []
        self.headers = socket.request.headers if socket.request else {}
        self._read = 0
        self._news = asyncio.Event()

    async def read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                frame = orjson.loads(await self.socket.recv())
                self.frames.append(frame)
                self.messages.extend(frame if isinstance(frame, list) else [frame])
                self._news.set()

    async def expect(self, kind: str) -> dict[str, Any]:
        """The next message of this type; those before it are passed over."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                while self._read < len(self.messages):
                    message = self.messages[self._read]
                    self._read += 1
                    if message["type"] == kind:
                        return message
                self._news.clear()
                await self._news.wait()

    async def send(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            await self.socket.send(orjson.dumps(message), text=True)

    async def send_array(self, *messages: dict[str, Any]) -> None:
        await self.socket.send(orjson.dumps(messages), text=True)

    async def welcome(self, dropped: tuple[str, ...] = (), heartbeat: float = 10) -> dict[str, Any]:
        """Take the `register` that is due, and answer it."""
        register = await self.expect("register")
        await self.send(
            {
                "type": "registered",
                "engineId": "engine-1",
                "agentId": register["agentId"],
                "heartbeatInterval": heartbeat,
                "resumed": [held for held in register["resume"] if held not in dropped],
                "dropped": list(dropped),
            }
        )
        return register

    async def ack(self, message_id: str) -> None:
        await self.send({"type": "ack", "messageId": message_id})

    async def settled(self) -> None:
        """Returns when the agent has handled all that was sent: it answers pings in order."""
        await (await self.socket.ping())
        await asyncio.sleep(0.02)

    def cut(self) -> None:
        self.socket.transport.abort()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]


class FakeEngine:
    """Listens on a free port of this machine; `connection` waits for the next agent."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[Connection] = asyncio.Queue()
        self._server: Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/agents"

    async def listen(self, port: int = 0, max_size: int = 2**20) -> None:
        self._server = await serve(
            self._serve, "127.0.0.1", port, compression=None, max_size=max_size, close_timeout=0.5
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def connection(self) -> Connection:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._arrived.get()

    async def registered(self, dropped: tuple[str, ...] = ()) -> Connection:
        connection = await self.connection()
        await connection.welcome(dropped)
        return connection

    async def _serve(self, socket: ServerConnection) -> None:
        connection = Connection(socket)
        self._arrived.put_nowait(connection)
        await connection.read()


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[FakeEngine]:
    engine = FakeEngine()
    await engine.listen()
    try:
        yield engine
    finally:
        await engine.close()


def execute(
    message_id: str, task_type: str = "work", data: Any = None, task_id: str | None = None, **task: Any
) -> dict[str, Any]:
    """An `execute_task` message."""
    return envelope(
        "execute_task",
        message_id,
        taskId=task_id or f"task-of-{message_id}",
        attempt=1,
        deadline="2031-02-03T04:05:06.789Z",
        task={"type": task_type, "priority": 5, "data": data, "requiredCapabilities": ["c"], **task},
        inputs={"before": 1},
    )


def cancel(message_id: str) -> dict[str, Any]:
    return envelope(
        "cancel_task",
        f"cancel-{message_id}",
        taskId=f"task-of-{message_id}",
        messageId=message_id,
        reason="a test",
    )


def envelope(message_type: str, envelope_id: str, **data: Any) -> dict[str, Any]:
    return {
        "type": "agent_message",
        "messageId": envelope_id,
        "agentId": "a1",
        "messageType": message_type,
        "data": data,
    }
