"""agentorch: run a fleet of agents, with every step in PostgreSQL.

from agentorch_cli import Agent, Orchestrator

The names below are loaded when they are first used, so that `agentorch --help` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentSpec",
    "Orchestrator",
    "OrchestratorError",
    "Settings",
    "TaskFailed",
    "TaskSpec",
    "WaitTimedOut",
    "Work",
    "WorkFailed",
    "__version__",
    "load_settings",
]

_HOMES = {
    "Agent": "agentorch_cli.agents",
    "Work": "agentorch_cli.agents",
    "WorkFailed": "agentorch_cli.agents",
    "AgentSpec": "agentorch_cli.core.model",
    "TaskSpec": "agentorch_cli.core.model",
    "Orchestrator": "agentorch_cli.wiring",
    "Settings": "agentorch_cli.config",
    "load_settings": "agentorch_cli.config",
    "OrchestratorError": "agentorch_cli.errors",
    "TaskFailed": "agentorch_cli.errors",
    "WaitTimedOut": "agentorch_cli.errors",
}

if TYPE_CHECKING:
    from agentorch_cli.agents import Agent, Work, WorkFailed
    from agentorch_cli.config import Settings, load_settings
    from agentorch_cli.core.model import AgentSpec, TaskSpec
    from agentorch_cli.errors import OrchestratorError, TaskFailed, WaitTimedOut
    from agentorch_cli.wiring import Orchestrator


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
