"""One agent's connection.

One task reads (the handler). Everything for the agent goes through the outbox, so that nobody
who has something to send ever waits for a slow agent. What gathers in one moment goes out
together, in one frame for agents that asked for `batch`: at once while the agent reads, and by
a task that writes and waits while it does not. An agent that reads nothing is cut off when its
outbox is full or a write takes too long; what it holds has its grace, as after any lost
connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import orjson
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from agentorch_cli.bursts import MOST_BYTES, bursts, send_each, write_now
from agentorch_cli.core.model import AgentSpec
from agentorch_cli.gateway.keys import ANYBODY, Caller
from agentorch_cli.logs import facts
from agentorch_cli.store.records import Delivery

log = logging.getLogger("agentorch.gateway")

MOST_IN_OUTBOX = 32 * 1024 * 1024
"""Bytes that may wait for one agent."""

WRITE_LIMIT = 30.0
"""Seconds that one write may take."""

CLOSE_LIMIT = 2.0
"""Seconds that a close in good order may take."""

MOST_REASON = 123
"""Bytes of a close frame's reason (RFC 6455, section 5.5)."""

FRAMES_FOR_WORK = 3
"""Frames that a piece of work is good for: that it was taken, how far it is, and its result."""

MOST_UNSETTLED = 512
"""Results of one agent that may wait for their ack before the engine stops reading from it."""


class Session:
    """A registered agent's connection."""

    def __init__(
        self,
        connection: ServerConnection,
        agent: AgentSpec,
        session_id: UUID,
        *,
        batch: bool,
        caller: Caller = ANYBODY,
    ) -> None:
        self.connection = connection
        self.caller = caller
        self.is_barred = False
        """Its token has ended."""
        self.agent = agent
        self.session_id = session_id
        self.batch = batch
        self.last_heard = asyncio.get_running_loop().time()
        self.is_leaving = False
        self.is_held = False
        """The engine does not read from it at the moment, so its silence says nothing."""
        self.frames_taken = 0
        self._due = 0
        """Frames that may come for work that was sent, whatever else comes in the same second."""
        self._most_due = FRAMES_FOR_WORK * (agent.slots + agent.prefetch)
        self._unsettled = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._sent_early: set[str] | None = set()
        """Work that was assigned before the welcome, by message id; None once that is sent."""
        self._is_cut = False
        self._outbox: list[bytes] = []
        self._size = 0
        self._is_writing = True
        """It is being written, or is about to be; so it is before the welcome."""
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    @property
    def agent_id(self) -> str:
        return self.agent.agent_id

    # --- sending ----------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Put a frame into the outbox."""
        self._outbox.append(frame)
        self._has_grown(len(frame))

    def send_all(self, frames: Sequence[bytes]) -> None:
        """Put frames into the outbox."""
        self._outbox += frames
        self._has_grown(sum(map(len, frames)))

    def _has_grown(self, size: int) -> None:
        if self._is_cut:
            self._outbox.clear()
            return
        self._size += size
        if self._size > MOST_IN_OUTBOX:
            log.warning(
                "agent %r does not read: %d bytes wait for it; cutting it off", self.agent_id, self._size
            )
            self.abort()
        if not self._is_writing:
            self._is_writing = True
            asyncio.get_running_loop().call_soon(self._write_now)

    def execute(self, delivery: Delivery) -> None:
        """Send work."""
        if self._sent_early is not None:
            if delivery.message_id in self._sent_early:
                return
            self._sent_early.add(delivery.message_id)
        self._due = min(self._due + FRAMES_FOR_WORK, self._most_due)
        self.send(execute_frame(delivery))

    def acknowledge(self, message_ids: Iterable[str]) -> None:
        """Results are durable."""
        frames = [b'{"type":"ack","messageId":%b}' % orjson.dumps(message_id) for message_id in message_ids]
        self.send_all(frames)
        self._settled(len(frames))

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

    def was_due(self) -> bool:
        """A frame came: whether work that was sent stands for it, so that it is no flood."""
        if not self._due:
            return False
        self._due -= 1
        return True

    # --- results that wait for their ack ----------------------------------------------------

    def brought_result(self) -> None:
        """A result was handed to the engine; `acknowledge` or `refuse_result` answers it."""
        self._unsettled += 1
        if self._unsettled >= MOST_UNSETTLED:
            self._has_room.clear()

    def refuse_result(self, code: str, message: str, message_id: str | None) -> None:
        """A result was not taken."""
        self.refuse(code, message, message_id)
        self._settled(1)

    def _settled(self, number: int) -> None:
        self._unsettled = max(0, self._unsettled - number)  # some were brought by an earlier session
        if self._unsettled < MOST_UNSETTLED:
            self._has_room.set()

    async def pause(self, seconds: float) -> None:
        """Let the agent wait, if it is still there."""
        if self.connection.state is State.OPEN:
            await asyncio.sleep(seconds)

    async def room(self) -> None:
        """Returns once this agent may bring more results."""
        await self._has_room.wait()

    # --- the writer -------------------------------------------------------------------------

    def open(self, welcome: bytes) -> None:
        """Start writing. The welcome goes before whatever was meant for the agent meanwhile."""
        self._sent_early = None
        self._outbox.insert(0, welcome)
        self._size += len(welcome)
        self._writer = asyncio.create_task(self._write(), name=f"writer of {self.agent_id}")

    def _write_now(self) -> None:
        """What has gathered in one moment, if the agent reads; else the writer is to wait for it."""
        is_little = self._writer is not None and self._size <= MOST_BYTES
        if is_little and write_now(self.connection, self._packed(self._outbox)):
            self._outbox, self._size, self._is_writing = [], 0, False
        else:
            self._wake.set()

    def _packed(self, burst: Sequence[bytes]) -> Sequence[bytes]:
        return [_joined(burst)] if self.batch else burst

    async def _write(self) -> None:
        try:
            while True:
                if not self._outbox:
                    self._is_writing = False
                    self._wake.clear()
                    await self._wake.wait()
                frames, self._outbox, self._size = self._outbox, [], 0
                for burst in bursts(frames):
                    async with asyncio.timeout(WRITE_LIMIT):
                        await send_each(self.connection, self._packed(burst))
        except ConnectionClosed:
            pass
        except TimeoutError:
            log.warning(
                "agent %r does not read; cutting it off", self.agent_id, extra=facts(agent=self.agent_id)
            )
            self.abort()

    # --- the end ----------------------------------------------------------------------------

    def abort(self) -> None:
        """Cut the connection without waiting for anything: the other side may not be reading."""
        self._is_cut = True
        self._outbox, self._size = [], 0
        self.connection.transport.abort()

    async def close(self, code: int, reason: str) -> None:
        """Close in good order, within a bounded time."""
        await close(self.connection, code, reason)

    async def stop_writing(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)


async def close(
    connection: ServerConnection, code: int, reason: str, *, seconds: float = CLOSE_LIMIT
) -> None:
    """Close in good order; cut the connection if the other side does not read that it is closed."""
    try:
        async with asyncio.timeout(seconds):
            await connection.close(code, reason.encode()[:MOST_REASON].decode(errors="ignore"))
    except (TimeoutError, ConnectionClosed, OSError):
        connection.transport.abort()


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
    if delivery.name is not None:
        task["name"] = delivery.name
    if delivery.result_schema is not None:
        task["resultSchema"] = orjson.Fragment(delivery.result_schema)
    if delivery.vote is not None:
        task["vote"] = delivery.vote
    if delivery.budget is not None:
        task["budget"] = delivery.budget
    data = {
        "taskId": delivery.task_id,
        "attempt": delivery.attempt,
        "deadline": delivery.deadline,
        "task": task,
        "inputs": orjson.Fragment(delivery.inputs) if delivery.inputs is not None else {},
    }
    if delivery.traceparent_told is not None:
        data["traceparent"] = delivery.traceparent_told
    if delivery.is_ahead:
        data["ahead"] = True
    return orjson.dumps(
        {
            "type": "agent_message",
            "messageId": delivery.message_id,
            "agentId": delivery.agent_id,
            "messageType": "execute_task",
            "data": data,
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


def _joined(pack: Sequence[bytes]) -> bytes:
    """Messages as one JSON array; a lone one stays as it is."""
    return pack[0] if len(pack) == 1 else b"[" + b",".join(pack) + b"]"
