"""The other side of the wire: the agent SDK, and the runners that make anything an agent.

`Agent` speaks the agent protocol and nothing else, so whatever it can do, a client in any
language can do too.
"""

from agentorch_cli.agents.agent import Agent
from agentorch_cli.agents.ballot import Question, Vote
from agentorch_cli.agents.work import Work, WorkFailed

__all__ = ["Agent", "Question", "Vote", "Work", "WorkFailed"]
