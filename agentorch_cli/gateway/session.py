"""One agent's connection.

One task reads (the handler), one task writes. Everything for the agent goes through the
outbox, so that nobody who has something to send ever waits for a slow agent; whatever
gathers while the previous write runs goes out together, in one frame for agents that asked
for `batch`. An agent that does not read is cut off when its outbox is full or a write takes
too long; what it holds has its grace, as after any lost connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import orjson
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from agentorch_cli.core.model import AgentSpec
from agentorch_cli.store.records import Delivery

log = logging.getLogger("agentorch.gateway")

MOST_IN_OUTBOX = 32 * 1024 * 1024
"""Bytes that may wait for one agent."""

MOST_IN_FRAME = 256 * 1024
"""Bytes that are packed into one array frame; a single larger message goes alone."""

WRITE_LIMIT = 30.0
"""Seconds that one write may take."""


class Session:
    """A registered agent's connection."""

    def __init__(
        self, connection: ServerConnection, agent: AgentSpec, session_id: UUID, *, batch: bool
    ) -> None:
        self.connection = connection
        self.agent = agent
        self.session_id = session_id
        self.batch = batch
        self.last_heard = asyncio.get_running_loop().time()
        self.is_leaving = False
        self._outbox: list[bytes] = []
        self._size = 0
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    @property
    def agent_id(self) -> str:
        return self.agent.agent_id

    # --- sending ----------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Put a frame into the outbox."""
        self._outbox.append(frame)
        self._size += len(frame)
        if self._size > MOST_IN_OUTBOX:
            log.warning(
                "agent %r does not read: %d bytes wait for it; cutting it off", self.agent_id, self._size
            )
            self.abort()
        self._wake.set()

    def execute(self, delivery: Delivery) -> None:
        """Send work."""
        self.send(execute_frame(delivery))

    def acknowledge(self, message_ids: Iterable[str]) -> None:
        """Results are durable."""
        for message_id in message_ids:
            self.send(b'{"type":"ack","messageId":' + orjson.dumps(message_id) + b"}")

    def message(self, message_id: str, message_type: str, data: dict[str, Any]) -> None:
        """Any other message to the agent."""
        self.send(
            orjson.dumps(
                {
                    "type": "agent_message",
                    "messageId": message_id,
                    "agentId": self.agent_id,
                    "messageType": message_type,
                    "data": data,
                }
            )
        )

    def refuse(
        self, code: str, message: str, message_id: str | None = None, request_id: str | None = None
    ) -> None:
        """Say what was wrong."""
        self.send(error_frame(code, message, message_id, request_id))

    # --- the writer -------------------------------------------------------------------------

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write(), name=f"writer of {self.agent_id}")

    async def _write(self) -> None:
        try:
            while True:
                if not self._outbox:
                    self._wake.clear()
                    await self._wake.wait()
                frames, self._outbox, self._size = self._outbox, [], 0
                for frame in _packed(frames) if self.batch else frames:
                    async with asyncio.timeout(WRITE_LIMIT):
                        await self.connection.send(frame, text=True)
        except ConnectionClosed:
            pass
        except TimeoutError:
            log.warning("agent %r does not read; cutting it off", self.agent_id)
            self.abort()

    # --- the end ----------------------------------------------------------------------------

    def abort(self) -> None:
        """Cut the connection without waiting for anything: the other side may not be reading."""
        self.connection.transport.abort()

    async def close(self, code: int, reason: str) -> None:
        """Close in good order, within a bounded time."""
        try:
            async with asyncio.timeout(2):
                await self.connection.close(code, reason[:100])
        except (TimeoutError, ConnectionClosed, OSError):
            self.abort()

    async def stop_writing(self) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)


def execute_frame(delivery: Delivery) -> bytes:
    """The `execute_task` message; data and inputs are embedded as the text that is stored."""
    task: dict[str, Any] = {
        "type": delivery.type,
        "priority": delivery.priority,
        "data": orjson.Fragment(delivery.data) if delivery.data is not None else None,
        "requiredCapabilities": delivery.required_capabilities,
    }
    if delivery.role is not None:
        task["role"] = delivery.role
    return orjson.dumps(
        {
            "type": "agent_message",
            "messageId": delivery.message_id,
            "agentId": delivery.agent_id,
            "messageType": "execute_task",
            "data": {
                "taskId": delivery.task_id,
                "attempt": delivery.attempt,
                "deadline": delivery.deadline,
                "task": task,
                "inputs": orjson.Fragment(delivery.inputs) if delivery.inputs is not None else {},
            },
        },
        option=orjson.OPT_UTC_Z,
    )


def error_frame(
    code: str, message: str, message_id: str | None = None, request_id: str | None = None
) -> bytes:
    """The `error` frame."""
    frame: dict[str, Any] = {"type": "error", "code": code, "message": message}
    if message_id is not None:
        frame["messageId"] = message_id[:200]
    if request_id is not None:
        frame["requestId"] = request_id[:200]
    return orjson.dumps(frame)


def _packed(frames: list[bytes]) -> Iterable[bytes]:
    """Frames joined into JSON arrays of a bounded size; a lone one stays as it is."""
    pack: list[bytes] = []
    size = 0
    for frame in frames:
        if pack and size + len(frame) > MOST_IN_FRAME:
            yield _joined(pack)
            pack, size = [], 0
        pack.append(frame)
        size += len(frame)
    if pack:
        yield _joined(pack)


def _joined(pack: list[bytes]) -> bytes:
    return pack[0] if len(pack) == 1 else b"[" + b",".join(pack) + b"]"
