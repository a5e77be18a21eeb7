"""An agent in a process of its own that never ends its work: `python team_member.py URL ID CAPABILITY…`."""

from __future__ import annotations

import asyncio
import sys

from agentorch_cli import Agent
from agentorch_cli.agents.work import Work


async def hold(work: Work) -> None:
    print(work.role, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    url, agent_id, *capabilities = sys.argv[1:]
    agent = Agent(agent_id, capabilities=capabilities)
    agent.add_handler(hold)
    asyncio.run(agent.run(url))
