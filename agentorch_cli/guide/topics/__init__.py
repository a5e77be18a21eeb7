"""The topics of `agentorch help`: one text each, a screen or two."""

from __future__ import annotations

from importlib import resources
from typing import Final

TOPICS: Final = (
    "task-file",
    "consensus",
    "deadlocks",
    "environment",
    "exit-codes",
    "config",
    "protocol",
    "errors",
)
"""In the order of the list. The first line of a text is its title."""


def topic(name: str) -> str:
    """The text of a topic."""
    return resources.files(__package__).joinpath(f"{name}.txt").read_text("utf-8")


def title(name: str) -> str:
    """What a topic is about."""
    return topic(name).partition("\n")[0]
