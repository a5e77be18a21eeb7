"""An agent written from the protocol page alone: raw WebSocket and JSON, nothing of ours.

It does nothing by itself (no heartbeats, no acceptances, no resends), so that a test says
every frame that goes over the wire, the wrong ones above all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 20.0
"""Seconds that a test waits for a frame before it fails."""

seen: list[str | bytes] = []
"""Every frame that the engine sent since the test began; the fixture checks them against the schema."""


class PlainAgent:
    """One connection to `/agents`."""

    def __init__(self, connection: ClientConnection, agent_id: str) -> None:
        self.connection = connection
        self.agent_id = agent_id
        self.arrays = 0
        """Array frames that came."""
        self._waiting: list[dict[str, Any]] = []

    # --- sending ----------------------------------------------------------------------------

    async def send(self, *frames: Any) -> None:
        """Send values, one JSON frame each."""
        for frame in frames:
            await self.connection.send(json.dumps(frame))

    async def send_raw(self, raw: str | bytes) -> None:
        """Send a frame as it is; bytes go as a binary frame."""
        await self.connection.send(raw)

    async def register(self, *capabilities: str, **fields: Any) -> dict[str, Any]:
        """Register and wait for the welcome."""
        await self.send({"type": "register", "agentId": self.agent_id, "agentType": "plain"}
                        | {"capabilities": list(capabilities)} | fields)  # fmt: skip
        return await self.expect("registered")

    async def accept(self, work: dict[str, Any]) -> None:
        await self.send({"type": "task_accepted", "messageId": work["messageId"]})

    async def finish(self, work: dict[str, Any], result: Any = None, **fields: Any) -> None:
        """Send the result of work that came by `execute_task`; wait for nothing."""
        await self.send(result_frame(work, result, **fields))

    # --- receiving --------------------------------------------------------------------------

    async def receive(self, seconds: float = PATIENCE) -> dict[str, Any]:
        """The next frame; frames that came in an array come one by one."""
        if not self._waiting:
            async with asyncio.timeout(seconds):
                raw = await self.connection.recv()
            seen.append(raw)
            message = json.loads(raw)
            self.arrays += isinstance(message, list)
            self._waiting += message if isinstance(message, list) else [message]
        return self._waiting.pop(0)

    async def expect(self, kind: str, **facts: Any) -> dict[str, Any]:
        """The next frame, which must be of this type (or messageType) and have these facts."""
        frame = await self.receive()
        found = frame.get("messageType", frame["type"])
        assert found == kind, f"wanted {kind}, but {frame} came"
        for name, fact in facts.items():
            assert frame[name] == fact, f"{name} is not {fact!r} in {frame}"
        return frame

    async def refusal(self, code: str = "invalid_message") -> str:
        """The message of the next frame, which must be an `error` with this code."""
        frame = await self.expect("error")
        assert frame["code"] == code, frame
        message: str = frame["message"]
        return message

    async def quiet(self, seconds: float = 0.3) -> None:
        """Nothing comes for so long."""
        try:
            frame = await self.receive(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"nothing should come, but this did: {frame}")

    async def closed(self, seconds: float = PATIENCE) -> tuple[int, str]:
        """Wait until the engine closes; the code and the reason."""
        try:
            while True:
                await self.receive(seconds)
        except ConnectionClosed as error:
            assert error.rcvd is not None, "the connection was cut without a close frame"
            return error.rcvd.code, error.rcvd.reason

    async def alive(self) -> None:
        """The connection is open and the engine handles what comes on it."""
        await self.send({"type": "alive?"})
        assert "alive?" in await self.refusal()

    # --- the end ----------------------------------------------------------------------------

    async def vanish(self) -> None:
        """Lose the connection without a goodbye."""
        self.connection.transport.abort()
        await self.connection.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connection.transport.abort()
        await self.connection.wait_closed()


async def call(url: str, agent_id: str = "agent", **options: Any) -> PlainAgent:
    """Connect. Frames of any size are taken, and pings are answered by the library alone."""
    options = {"compression": None, "max_size": None, "ping_interval": None, "proxy": None} | options
    return PlainAgent(await connect(url, **options), agent_id)


@asynccontextmanager
async def called(url: str, agent_id: str = "agent", **options: Any) -> AsyncIterator[PlainAgent]:
    """The same, as a context."""
    async with await call(url, agent_id, **options) as agent:
        yield agent


def result_frame(work: dict[str, Any], result: Any = None, **fields: Any) -> dict[str, Any]:
    """A `task_result` for work; `error=` in place of the result makes it a failure."""
    frame = {"type": "task_result", "messageId": work["messageId"], "taskId": work["data"]["taskId"]}
    return frame | ({} if "error" in fields else {"result": result}) | fields
