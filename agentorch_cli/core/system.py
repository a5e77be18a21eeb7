"""A described system: agents with slots, tasks that wait and hold, as the deadlock detector sees them.

It is a photograph of who waits for what at one moment. The engine takes it from the
database; `agentorch deadlock check --file SYSTEM.json` reads it from a document:

    {"agents": {ID: {"caps": [..], "slots": n}},
     "tasks":  {ID: {"state": "pending|running|awaiting|done|failed|cancelled", "deps": [..],
                     "mode": "all|any|K", "on_fail": "block|ignore",
                     "need": {"caps": [..], "count": n, "team": true|false, "most": n},
                     "holds": [agent ids, one per slot held]}}}

Everything but the ids may be left out: an agent has one slot, a task is pending, waits for
all of its deps, is blocked by their failure, needs and holds nothing. `live: false` on an agent,
and `priority`, `restarts`, `work_seconds`, `tokens` and `created_at` on a task may be given too:
they decide which victim is the cheapest. `note` is allowed everywhere, `name` and `source` at the top.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from agentorch_cli.core.team import can_cover
from agentorch_cli.errors import InvalidFile

Mode = Literal["all", "any"] | int

FAR = 10**15  # numbers in a document end here


class State(StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    """Not started; may hold a part of what it needs."""
    RUNNING = "running"
    """Works; it will end, or its timeout will end it."""
    AWAITING = "awaiting"
    """Has started, holds its slots, and waits for its dependencies to continue."""
    DONE = "done"
    """Ended well."""
    FAILED = "failed"
    """Ended badly."""
    CANCELLED = "cancelled"
    """Ended by somebody; for those who depend on it, like failed."""


WAITING = (State.PENDING, State.AWAITING)
DEAD = (State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class Agent:
    """Who can serve what, how many tasks at once.

    An agent counts as live while its lease or its grace period runs.
    """

    caps: frozenset[str] = frozenset()
    slots: int = 1
    live: bool = True
    pool: str | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """Slots still needed before a task can start or continue: one on each of `count` distinct agents,
    each of which has all of `caps`. A team has them together: `count` to `most` agents."""

    caps: frozenset[str] = frozenset()
    count: int = 0
    is_team: bool = False
    most: int = 100
    """Only a team is ever too large."""
    pool: str | None = None
    """Only agents of this pool will do; None: of any."""

    @property
    def kind(self) -> Kind:
        """What demands that look at the same agents in the same way have in common."""
        return self if self.is_team else (self.pool, self.caps)

    @property
    def level(self) -> int:
        """How many the agents must be: of a team that is there or not, 1."""
        return min(self.count, 1) if self.is_team else self.count

    def serves(self, agent: Agent) -> bool:
        """Whether this agent could take part."""
        if self.pool is not None and agent.pool != self.pool:
            return False
        return not self.caps.isdisjoint(agent.caps) if self.is_team else self.caps <= agent.caps

    def reached(self, number: int, parts: Iterable[frozenset[str]]) -> int:
        """The level of so many agents who could take part; `parts` is what they have of a team's `caps`."""
        if not self.is_team:
            return number
        return int(number >= self.count and can_cover(self.caps, parts, max(self.count, self.most)))


Kind = Need | tuple[str | None, frozenset[str]]
NOTHING = Need()


@dataclass(frozen=True, slots=True)
class Task:
    """A task as a waiter and a holder.

    `deps` are distinct; ids that are no tasks are missing dependencies. `mode` is how many of them must
    have ended well: all, any, or that many. With `ignore_failure` a failed or cancelled dependency counts
    as ended well. `holds` has an agent once per slot; what an ended task holds is not looked at.
    The rest is what aborting it would cost; `created_at` is in seconds since any moment.
    """

    state: State = State.PENDING
    deps: tuple[str, ...] = ()
    mode: Mode = "all"
    ignore_failure: bool = False
    need: Need = NOTHING
    holds: tuple[str, ...] = ()
    priority: int = 5
    restarts: int = 0
    work_seconds: float = 0.0
    tokens: int = 0
    created_at: float = 0.0

    @property
    def wanted(self) -> int:
        """How many dependencies must have ended well. Who names none waits for none, whatever the mode."""
        if self.mode == "all" or not self.deps:
            return len(self.deps)
        return 1 if self.mode == "any" else self.mode


@dataclass(frozen=True, slots=True)
class System:
    """The photograph: agents and tasks by id."""

    agents: Mapping[str, Agent] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)


def parse_system(document: object) -> System:
    """Read a described system from a loaded JSON document. All problems are found before the first is raised.

    Raises InvalidFile; `where` is the place of the first problem, `details["problems"]` has all of them.
    """
    reader = _Reader()
    system = reader.system(document)
    if reader.problems:
        first, *others = reader.problems
        more = f" (and {len(others)} more)" if others else ""
        raise InvalidFile(
            first["message"] + more, where=first["where"], hint=first.get("hint"), problems=reader.problems
        )
    return system


class _Reader:
    """Reads leniently, and notes everything that is wrong."""

    def __init__(self) -> None:
        self.problems: list[dict[str, str]] = []

    def system(self, document: object) -> System:
        table = self._table(document, "", ("agents", "tasks", "name", "note", "source"))
        if isinstance(document, Mapping) and "tasks" not in document:
            self._note("tasks", "there are no tasks", 'Write {"agents": {…}, "tasks": {…}}.')
        agents = {
            name: self._agent(value, place)
            for name, value, place in self._named(table.get("agents", {}), "agents")
        }
        tasks = {
            name: self._task(value, place, agents)
            for name, value, place in self._named(table.get("tasks", {}), "tasks")
        }
        return System(agents, tasks)

    def _agent(self, value: object, place: str) -> Agent:
        table = self._table(value, place, ("caps", "slots", "live", "note"))
        return Agent(
            caps=frozenset(self._texts(table, place, "caps")),
            slots=self._count(table, place, "slots", 1),
            live=self._flag(table, place, "live", True),
        )

    def _task(self, value: object, place: str, agents: Collection[str]) -> Task:
        table = self._table(value, place, _TASK_KEYS)
        holds = self._texts(table, place, "holds")
        for position, agent in enumerate(holds):
            if agent not in agents:
                self._note(
                    f"{place}.holds[{position}]", f"there is no agent {agent!r}", self._meant(agent, agents)
                )
        return Task(
            state=State(self._word(table, place, "state", tuple(State), State.PENDING)),
            deps=tuple(dict.fromkeys(self._texts(table, place, "deps"))),
            mode=self._mode(table, place),
            ignore_failure=self._word(table, place, "on_fail", ("block", "ignore"), "block") == "ignore",
            need=self._need(table.get("need"), f"{place}.need"),
            holds=tuple(holds),
            priority=self._count(table, place, "priority", 5),
            restarts=self._count(table, place, "restarts", 0),
            work_seconds=self._number(table, place, "work_seconds"),
            tokens=self._count(table, place, "tokens", 0),
            created_at=self._number(table, place, "created_at"),
        )

    def _need(self, value: object, place: str) -> Need:
        if value is None:
            return NOTHING
        table = self._table(value, place, ("caps", "count", "team", "most", "note"))
        caps = frozenset(self._texts(table, place, "caps"))
        return Need(
            caps,
            self._count(table, place, "count", 1 if caps else 0),
            self._flag(table, place, "team", False),
            self._count(table, place, "most", 100),
        )

    def _mode(self, table: Mapping[str, Any], place: str) -> Mode:
        value = table.get("mode", "all")
        if value in ("all", "any"):
            return "all" if value == "all" else "any"
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= FAR:
            return value
        self._note(f"{place}.mode", f'expected "all", "any" or a number from 1, found {_shown(value)}')
        return "all"

    def _table(self, value: object, place: str, known: tuple[str, ...]) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self._note(place, f"expected an object, found {_kind(value)}")
            return {}
        for key in value:
            if key not in known:
                self._note(f"{place}.{key}".lstrip("."), "unknown key", self._meant(str(key), known))
        return value

    def _named(self, value: object, place: str) -> list[tuple[str, object, str]]:
        if not isinstance(value, Mapping):
            self._note(place, f"expected an object of ids, found {_kind(value)}")
            return []
        if "" in value:
            self._note(place, "an id is empty")
        return [(name, entry, f"{place}.{name}") for name, entry in value.items()]

    def _texts(self, table: Mapping[str, Any], place: str, key: str) -> list[str]:
        value = table.get(key, [])
        if not isinstance(value, list | tuple):
            self._note(f"{place}.{key}", f"expected a list of texts, found {_kind(value)}")
            return []
        for position, entry in enumerate(value):
            if not isinstance(entry, str):
                self._note(f"{place}.{key}[{position}]", f"expected a text, found {_kind(entry)}")
        return [entry for entry in value if isinstance(entry, str)]

    def _count(self, table: Mapping[str, Any], place: str, key: str, default: int) -> int:
        value = table.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= FAR:
            return value
        self._note(f"{place}.{key}", f"expected a whole number from 0, found {_shown(value)}")
        return default

    def _number(self, table: Mapping[str, Any], place: str, key: str) -> float:
        value = table.get(key, 0.0)
        if isinstance(value, int | float) and not isinstance(value, bool) and -FAR <= value <= FAR:
            return float(value)
        self._note(f"{place}.{key}", f"expected a number, found {_shown(value)}")
        return 0.0

    def _flag(self, table: Mapping[str, Any], place: str, key: str, default: bool) -> bool:
        value = table.get(key, default)
        if isinstance(value, bool):
            return value
        self._note(f"{place}.{key}", f"expected true or false, found {_shown(value)}")
        return default

    def _word(
        self, table: Mapping[str, Any], place: str, key: str, words: tuple[str, ...], default: str
    ) -> str:
        value = table.get(key, default)
        if isinstance(value, str) and value in words:
            return value
        self._note(
            f"{place}.{key}",
            f"expected one of {', '.join(words)}, found {_shown(value)}",
            self._meant(value, words) if isinstance(value, str) else None,
        )
        return default

    def _meant(self, word: str, known: Collection[str]) -> str | None:
        """A hint for the first problems; to look for a likeness to each of many names takes its time."""
        close = difflib.get_close_matches(word, known, n=1) if len(self.problems) < 20 else []
        return f"Did you mean {close[0]!r}?" if close else None

    def _note(self, where: str, message: str, hint: str | None = None) -> None:
        problem = {"where": where or "(top)", "message": message}
        if hint:
            problem["hint"] = hint
        self.problems.append(problem)


_TASK_KEYS = (
    *("state", "deps", "mode", "on_fail", "need", "holds"),
    *("priority", "restarts", "work_seconds", "tokens", "created_at", "note"),
)


def _kind(value: object) -> str:
    """What a JSON value is called."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case _:
            return "an object"


def _shown(value: object) -> str:
    """A wrong value as a message can hold it."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:39] + "…")
    if isinstance(value, int | float) and not isinstance(value, bool) and -FAR <= value <= FAR:
        return repr(value)
    return _kind(value)
