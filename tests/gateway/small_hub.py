"""A small WebSocket hub: it takes engines and agents, and carries frames between them by `agentId`."""

from __future__ import annotations

import json
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed


class SmallHub:
    """Knows nothing of tasks. What an agent sends goes to every engine, with its id where it has none."""

    def __init__(self) -> None:
        self.engines: dict[str, ServerConnection] = {}
        self.agents: dict[str, ServerConnection] = {}
        self.registrations: list[dict[str, Any]] = []
        self.names_senders = True
        """Frames of agents get their `agentId`; else they are carried as they are."""
        self._server: Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/hub"

    async def start(self) -> None:
        self._server = await serve(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def cut_engines(self) -> None:
        for connection in list(self.engines.values()):
            connection.transport.abort()

    async def _carry(self, connection: ServerConnection) -> None:
        name = ""
        try:
            async for raw in connection:
                frame = json.loads(raw)
                if frame["type"] == "register" and "engineType" in frame:
                    self.registrations.append(frame)
                    name = frame["engineId"]
                    self.engines[name] = connection
                elif connection in self.engines.values():
                    agent = self.agents.get(frame["agentId"])
                    if agent is not None:
                        await agent.send(raw)
                else:
                    if frame["type"] == "register":
                        name = frame["agentId"]
                        self.agents[name] = connection
                    if self.names_senders:
                        frame = {"agentId": name, **frame}
                    for engine in list(self.engines.values()):
                        await engine.send(json.dumps(frame))
        except ConnectionClosed:
            pass
        finally:
            for known in (self.engines, self.agents):
                if known.get(name) is connection:
                    del known[name]
