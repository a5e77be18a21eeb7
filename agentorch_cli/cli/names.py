"""Ids as people read them: a task is called by its name where it has one.

An id that the engine made says nothing to a person, and a sentence with three of them cannot be read. On
a terminal the name takes its place; the id stands behind it where it comes first, to be copied. On a
pipe ids stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from agentorch_cli.text import one_line

MADE = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
"""Ids that the engine makes. One that a person chose is a name already, and may be any word."""

WRITTEN = re.compile(rf"(?P<command>\bagentorch(?: [a-z-]+)+ )?(?P<id>{MADE.pattern})")
"""The same in a sentence. Behind a command it stays, for the command is there to be copied."""


def called(task_id: str, names: Mapping[str, str]) -> str:
    """What a person calls a task."""
    return names.get(task_id, task_id) if MADE.fullmatch(task_id) else task_id


def listed(task_ids: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """The same of several."""
    return [called(one, names) for one in task_ids]


class Teller:
    """Puts names into the sentences of one page."""

    def __init__(self, names: Mapping[str, str], told: str = "") -> None:
        """`told`: the task that the page is about; its id stands in the title."""
        self._names = names
        self._told = {told}

    def __call__(self, sentence: str) -> str:
        return WRITTEN.sub(lambda found: found[0] if found["command"] else self._name(found["id"]), sentence)

    def _name(self, task_id: str) -> str:
        name = self._names.get(task_id)
        if name is None:
            return task_id
        is_first = task_id not in self._told
        self._told.add(task_id)
        return f"{one_line(name)} ({task_id})" if is_first else one_line(name)
