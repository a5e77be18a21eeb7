"""Plain agents of one test."""

from __future__ import annotations

from typing import Any

from plain_client import PlainAgent, call

from agentorch_cli.wiring import Orchestrator


class Fleet:
    """Agents of one test, all connected to one engine; they vanish when the test ends."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self.orchestrator = orchestrator
        self.agents: list[PlainAgent] = []

    async def connect(self, agent_id: str = "agent", **options: Any) -> PlainAgent:
        """A connection that has not registered yet."""
        agent = await call(self.orchestrator.url, agent_id, **options)
        self.agents.append(agent)
        return agent

    async def join(self, agent_id: str = "agent", *capabilities: str, **fields: Any) -> PlainAgent:
        """A registered agent; it has the capability `work` where none is named."""
        agent = await self.connect(agent_id)
        await agent.register(*(capabilities or ("work",)), **fields)
        return agent

    async def vanish(self) -> None:
        for agent in self.agents:
            agent.connection.transport.abort()
        for agent in self.agents:
            await agent.connection.wait_closed()
