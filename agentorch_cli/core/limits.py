"""How much may start: concurrency keys, and rates as token buckets.

* At most `concurrency_limit` tasks with one `concurrency_key` run at once. A running task owns a
  numbered slot of its key, as an attempt owns one of its agent.
* A rate of n per period is a bucket that holds at most `burst` tokens and gains n each period;
  every attempt takes one. A start that asks for more than the bucket can hold waits until it is
  full, and leaves a debt.

The numbers here follow the tables, which decide (`core.gates`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from agentorch_cli.core.durations import parse_duration, show_duration
from agentorch_cli.core.gates import Gates
from agentorch_cli.core.purses import BUDGET, Purses

if TYPE_CHECKING:
    from agentorch_cli.core.backlog import Ready
    from agentorch_cli.core.matching import Roster, Seat

KEY = "key"
RATE = "rate"

MOST_PER_PERIOD = 1_000_000

_RATE = re.compile(r"(\d{1,7})\s*/\s*(.+)", re.ASCII)
_PERIODS = {"s": 1.0, "second": 1.0, "m": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0, "d": 86400.0}
_ENOUGH = 1 - 1e-9
"""Sums of shares of tokens may fall short of a whole one by rounding."""


class Scope(StrEnum):
    """What a rate is about."""

    AGENT = "agent"
    CAPABILITY = "capability"
    TYPE = "type"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many attempts in so many seconds."""

    number: int
    per_seconds: float

    @property
    def per_second(self) -> float:
        return self.number / self.per_seconds

    def __str__(self) -> str:
        for unit in "smhd":
            if self.per_seconds == _PERIODS[unit]:
                return f"{self.number}/{unit}"
        return f"{self.number}/{show_duration(self.per_seconds)}"


def parse_rate(text: str) -> Rate:
    """`10/s`, `100/m`, `5/h`, `3/90s`. Raises ValueError with a sentence that says what would be right."""
    match = _RATE.fullmatch(text.strip())
    wrong = ValueError(f"must be a rate such as 10/s, 100/m, 5/h or 3/90s, not {text!r}")
    if match is None:
        raise wrong
    number, period = int(match[1]), match[2].strip().lower()
    if period in _PERIODS:
        seconds = _PERIODS[period]
    else:
        try:
            seconds = parse_duration(period)
        except ValueError:
            raise wrong from None
    if not 1 <= number <= MOST_PER_PERIOD or seconds <= 0:
        raise wrong
    return Rate(number, seconds)


@dataclass(slots=True)
class Bucket:
    """The tokens of one rate; `level` is what it held at `at`."""

    rate: Rate
    burst: int
    level: float
    at: float

    def held(self, now: float) -> float:
        """Tokens in it now."""
        return min(float(self.burst), self.level + max(0.0, now - self.at) * self.rate.per_second)

    def has(self, number: int, now: float) -> bool:
        return self.held(now) >= min(number, self.burst) * _ENOUGH

    def take(self, number: int, now: float) -> None:
        self.level, self.at = self.held(now) - number, now

    def wait(self, number: int, now: float) -> float:
        """Seconds until it has so many."""
        return max(0.0, min(number, self.burst) - self.held(now)) / self.rate.per_second


@dataclass(slots=True)
class Rates:
    """All rates that are set. `now` is moved on by whoever asks: seconds on any clock that goes on evenly."""

    buckets: dict[str, Bucket] = field(default_factory=dict)
    """By `scope:name`."""
    now: float = 0.0
    _shut_agents: set[str] = field(default_factory=set)

    def gates_of(self, type: str, required: Iterable[str]) -> tuple[str, ...]:
        """The rates that an attempt of such a task counts for, as names of gates."""
        named = [f"{Scope.TYPE}:{type}", *(f"{Scope.CAPABILITY}:{one}" for one in sorted(required))]
        return tuple(f"{RATE}:{name}" for name in named if name in self.buckets)

    def bucket_of_agent(self, agent_id: str) -> Bucket | None:
        return self.buckets.get(f"{Scope.AGENT}:{agent_id}")

    # --- as a gate --------------------------------------------------------------------------

    def closed(self, name: str, task: Ready, number: int) -> str | None:
        """In words, if too few tokens are left for so many attempts."""
        rate = name.partition(":")[2]
        bucket = self.buckets.get(rate)
        if bucket is None or bucket.has(number, self.now):
            return None
        return f"the rate of {rate.replace(':', ' ', 1)} is used up ({bucket.rate})"

    def enter(self, name: str, task: Ready, seats: Sequence[Seat]) -> None:
        self._move(name, len(seats))

    def leave(self, name: str, task: Ready, seats: Sequence[Seat]) -> None:
        self._move(name, -len(seats))

    def _move(self, name: str, number: int) -> None:
        bucket = self.buckets.get(name.partition(":")[2])
        if bucket is not None:
            bucket.take(number, self.now)

    # --- agents -----------------------------------------------------------------------------

    def spend(self, seats: Sequence[Seat], roster: Roster, number: int = 1) -> None:
        """Agents were given an attempt each; whoever has no token left gets nothing more for a while."""
        for seat in seats:
            agent_id = seat.member.agent_id
            bucket = self.bucket_of_agent(agent_id)
            if bucket is not None:
                bucket.take(number, self.now)
                self.bound(agent_id, roster)

    def bound(self, agent_id: str, roster: Roster) -> None:
        """Exclude the agent while its rate is used up."""
        bucket = self.bucket_of_agent(agent_id)
        if bucket is None or bucket.has(1, self.now):
            self._shut_agents.discard(agent_id)
            roster.exclude(agent_id, RATE, None)
        else:
            self._shut_agents.add(agent_id)
            roster.exclude(agent_id, RATE, f"has used up its rate of {bucket.rate}")

    def bound_all(self, roster: Roster) -> None:
        """As `bound`, for each agent that has a rate, or had one."""
        scope = f"{Scope.AGENT}:"
        for agent_id in self._shut_agents | {n[len(scope) :] for n in self.buckets if n.startswith(scope)}:
            self.bound(agent_id, roster)

    # --- time -------------------------------------------------------------------------------

    def due_in(self, shut: Iterable[str], roster: Roster) -> float | None:
        """Seconds until one of these gates, or an excluded agent, may go on; None if none has to wait."""
        waits = [
            bucket.wait(1, self.now)
            for name in shut
            if name.startswith(f"{RATE}:") and (bucket := self.buckets.get(name.partition(":")[2]))
        ]
        waits += [
            bucket.wait(1, self.now)
            for agent_id in self._shut_agents & roster.members.keys()
            if (bucket := self.bucket_of_agent(agent_id))
        ]
        return min(waits) if waits else None


@dataclass(slots=True)
class Keys:
    """Which running task owns which slot of which concurrency key."""

    held: dict[str, dict[int, str]] = field(default_factory=dict)
    """By key, tasks by slot."""
    by_task: dict[str, tuple[str, int]] = field(default_factory=dict)
    doubted: set[str] = field(default_factory=set)
    """Keys of which a task may have ended: to be read again."""

    def closed(self, name: str, task: Ready, number: int) -> str | None:
        """In words, if the key is held as often as this task allows."""
        key, limit = key_of(task.options)
        if key is None or task.task_id in self.by_task:
            return None
        owners = self.held.get(key, {})
        if self._free_slot(key, limit) is not None:
            return None
        held_by = ", ".join(owners[slot] for slot in sorted(owners)[:3])
        what = f"{limit} may run at once" if limit > 1 else "one may run at a time"
        return f"its concurrency key {key!r} is held by {held_by} ({what})"

    def enter(self, name: str, task: Ready, seats: Sequence[Seat]) -> None:
        key, limit = key_of(task.options)
        if key is None or task.task_id in self.by_task:
            return
        slot = self._free_slot(key, limit)
        if slot is not None:
            self.own(task.task_id, key, slot)

    def leave(self, name: str, task: Ready, seats: Sequence[Seat]) -> None:
        """It is not certain who holds it now: the table is asked."""
        self.doubt(task.task_id)

    def own(self, task_id: str, key: str, slot: int) -> None:
        """The task runs with this slot of the key."""
        self.held.setdefault(key, {})[slot] = task_id
        self.by_task[task_id] = (key, slot)

    def doubt(self, task_id: str) -> None:
        """The task may not run any more."""
        if task_id in self.by_task:
            self.doubted.add(self.by_task[task_id][0])

    def replace(self, keys: Iterable[str], owners: Mapping[tuple[str, int], str]) -> None:
        """These keys are held as the table says: by (key, slot), the task."""
        for key in keys:
            for task_id in self.held.pop(key, {}).values():
                self.by_task.pop(task_id, None)
            self.doubted.discard(key)
        for (key, slot), task_id in owners.items():
            self.own(task_id, key, slot)

    def _free_slot(self, key: str, limit: int) -> int | None:
        owners = self.held.get(key, {})
        if len(owners) >= limit:
            return None
        return next((slot for slot in range(limit) if slot not in owners), None)


def key_of(options: Mapping[str, object]) -> tuple[str | None, int]:
    """A task's concurrency key, and how many of it may run at once."""
    key, limit = options.get("concurrency_key"), options.get("concurrency_limit", 1)
    return (key if isinstance(key, str) else None), (limit if isinstance(limit, int) else 1)


class LimitGates(Gates):
    """The gates of rates, keys and budgets, for a scheduler or an explanation."""

    def __init__(self, purses: Purses | None = None) -> None:
        self.rates = Rates()
        self.keys = Keys()
        self.purses = purses or Purses()
        super().__init__({KEY: self.keys, RATE: self.rates, BUDGET: self.purses})

    def gates_of(self, task: Ready) -> tuple[str, ...]:
        """What the task's want should name: what it has already, and the rates that are set."""
        own = tuple(name for name in task.want.gates if not name.startswith(f"{RATE}:"))
        if not self.rates.buckets:
            return own
        return own + self.rates.gates_of(task.type, task.required_capabilities)

    def place(self, task: Ready) -> None:
        """Let the task's want name the gates that it has to pass."""
        self.purses.place(task)
        names = self.gates_of(task)
        if names != task.want.gates:
            task.want = replace(task.want, gates=names)

    def spend(self, seats: Sequence[Seat], roster: Roster) -> None:
        self.rates.spend(seats, roster)

    def unspend(self, seats: Sequence[Seat], roster: Roster) -> None:
        self.rates.spend(seats, roster, -1)

    def set_rates(self, buckets: Mapping[str, Bucket]) -> None:
        """These rates are set, and no others."""
        self.rates.buckets = dict(buckets)
        self.bounds_agents = any(name.startswith(f"{Scope.AGENT}:") for name in buckets)


def needs(task: Ready, agents: Iterable[str], rates: Rates) -> dict[str, int]:
    """How many tokens the task takes when it is given to these agents, by `scope:name`."""
    found: dict[str, int] = {}
    number = 0
    for agent_id in agents:
        number += 1
        name = f"{Scope.AGENT}:{agent_id}"
        if name in rates.buckets:
            found[name] = found.get(name, 0) + 1
    for name in task.want.gates:
        kind, _, rate = name.partition(":")
        if kind == RATE:
            found[rate] = number
    return found


def default_burst(rate: Rate) -> int:
    """A second's worth, at least one: a rate of 60/m starts one a second, not sixty at once."""
    return max(1, math.ceil(rate.per_second))
