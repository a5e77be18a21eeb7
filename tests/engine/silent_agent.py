"""An agent that takes work from the wire and says nothing until it is told to: raw WebSocket and JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect


class SilentAgent:
    """One connection. What it is sent waits in `works` and `cancelled`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.works: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()

    async def work(self) -> dict[str, Any]:
        """The next `execute_task`."""
        async with asyncio.timeout(10):
            return await self.works.get()

    async def cancel(self) -> str:
        """The message id of the next `cancel_task`."""
        async with asyncio.timeout(10):
            return await self.cancelled.get()

    async def accept(self, work: dict[str, Any]) -> None:
        await self.connection.send(json.dumps({"type": "task_accepted", "messageId": work["messageId"]}))

    async def finish(self, work: dict[str, Any], result: Any) -> None:
        await self.connection.send(
            json.dumps(
                {
                    "type": "task_result",
                    "messageId": work["messageId"],
                    "taskId": work["data"]["taskId"],
                    "result": result,
                }
            )
        )

    async def read(self) -> None:
        """For ever."""
        async for raw in self.connection:
            frames = json.loads(raw)
            for frame in frames if isinstance(frames, list) else [frames]:
                if frame.get("messageType") == "execute_task":
                    self.works.put_nowait(frame)
                elif frame.get("messageType") == "cancel_task":
                    self.cancelled.put_nowait(frame["data"]["messageId"])


@contextlib.asynccontextmanager
async def silent_agent(url: str, agent_id: str, **fields: Any) -> AsyncIterator[SilentAgent]:
    """Registered with the capability `work`, and these fields of `register`."""
    async with connect(url) as connection:
        register = {"type": "register", "agentId": agent_id, "capabilities": ["work"]} | fields
        await connection.send(json.dumps(register))
        assert json.loads(await connection.recv())["type"] == "registered"
        agent = SilentAgent(connection)
        reading = asyncio.create_task(agent.read())
        try:
            yield agent
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
