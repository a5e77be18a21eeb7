"""The agents of a file as `agentorch up` runs them: how many of each, by what, where, and how often again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.core.model import MAX_NAME, AgentSpec
from agentorch_cli.documents import Document
from agentorch_cli.errors import InvalidTask, UsageError
from agentorch_cli.messages import MAX_REPLICAS
from agentorch_cli.taskfile import read_agent_tables

MAX_FLEET: Final = 10_000
"""Processes of one fleet."""


class Restart(StrEnum):
    """What is done when an agent's process has ended by itself."""

    ALWAYS = "always"
    """It is started again."""
    ON_FAILURE = "on-failure"
    """Only if its exit status was not 0."""
    NEVER = "never"
    """It stays ended."""


@dataclass(frozen=True, slots=True)
class Declared:
    """One agent of a file."""

    spec: AgentSpec
    replicas: int
    python: str | None
    """`module:function`, in place of a command."""
    cwd: str
    """Absolute: where it runs."""
    env: tuple[str, ...]
    """Variables that it may see, besides the usual ones."""
    restart: Restart

    @property
    def is_run(self) -> bool:
        """Whether there is anything to run: others connect by themselves."""
        return self.spec.exec is not None or self.python is not None


def read_fleet(document: Document, folder: Path) -> list[Declared]:
    """The agents of an agents file; a relative `cwd` counts from `folder`. Raises InvalidTask."""
    found = []
    for spec, table in read_agent_tables(document):
        found.append(
            Declared(
                spec=spec,
                replicas=table.get("replicas", 1),
                python=table.get("python"),
                cwd=str((folder / Path(table.get("cwd", "")).expanduser()).absolute()),
                env=tuple(dict.fromkeys(table.get("env", ()))),
                restart=Restart(table.get("restart", Restart.ALWAYS)),
            )
        )
    return found


def replicas_of(
    fleet: list[Declared], scale: Mapping[str, int], name: str
) -> dict[str, tuple[int, Declared]]:
    """The processes of a fleet by their ids, `ID-1`, `ID-2` and so on.

    `scale` goes before what the file says; `name` is what errors call the file.
    Raises UsageError for a scale of nobody, InvalidTask where ids are too long or the same.
    """
    known = {agent.spec.agent_id: agent for agent in fleet if agent.is_run}
    for agent_id in scale:
        if agent_id not in known:
            raise UsageError(
                f'--scale: {name} runs no agent "{agent_id}"{did_you_mean(agent_id, known)}',
                hint=f"It runs {', '.join(known) or 'none'}.",
            )
    found: dict[str, tuple[int, Declared]] = {}
    for agent_id, agent in known.items():
        for number in range(1, scale.get(agent_id, agent.replicas) + 1):
            replica = f"{agent_id}-{number}"
            if len(replica) > MAX_NAME:
                raise InvalidTask(f'the id "{replica}" has more than {MAX_NAME} characters', where=name)
            if replica in found:
                raise InvalidTask(f'two agents would be called "{replica}"', where=name)
            found[replica] = (number, agent)
    if len(found) > MAX_FLEET:
        raise InvalidTask(f"{len(found):,} processes are more than {MAX_FLEET:,}", where=name)
    return found


def processes_of(
    wanted: Mapping[str, tuple[int, Declared]], words: Collection[str], name: str
) -> tuple[str, ...]:
    """The processes that are meant by ids of agents, and by ids of single processes, of the file `name`.

    Raises UsageError for what is neither.
    """
    agents = {agent.spec.agent_id for _, agent in wanted.values()}
    for word in words:
        if word not in agents and word not in wanted:
            raise UsageError(
                f'--restart: {name} runs no agent "{word}"{did_you_mean(word, [*sorted(agents), *wanted])}',
                hint=f"It runs {', '.join(sorted(agents)) or 'none'}.",
            )
    return tuple(one for one, (_, agent) in wanted.items() if {one, agent.spec.agent_id} & set(words))


def read_scale(words: list[str]) -> dict[str, int]:
    """`NAME=N`, any number of them. Raises UsageError."""
    scale: dict[str, int] = {}
    for word in words:
        name, sign, number = word.rpartition("=")
        if not sign or not name or not number.isdecimal() or len(number) > 6:
            raise UsageError(f'--scale "{word}" is not NAME=NUMBER', hint="--scale greeter=3")
        if int(number) > MAX_REPLICAS:
            raise UsageError(f"--scale {name}: at most {MAX_REPLICAS:,} of one agent, not {int(number):,}")
        scale[name] = int(number)
    return scale
