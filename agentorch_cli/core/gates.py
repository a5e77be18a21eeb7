"""What a task may need besides free agents: limits that it shares with others.

A gate is named `kind:what`: `key:deploy` lets at most n tasks with that concurrency key run at
once, `rate:type:summarise` so many attempts a minute. `Want.gates` lists those of a task, so
tasks behind the same gates wait in the same queue of the backlog, and a closed gate costs one
look however many wait behind it.

What is here is the scheduler's mirror: it keeps the scheduler from trying what would be
refused. The tables decide: whoever assigns claims its gates in the assigning transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agentorch_cli.core.backlog import Ready
    from agentorch_cli.core.matching import Roster, Seat


class Gate(Protocol):
    """One kind of limit. None of these waits."""

    def closed(self, name: str, task: Ready, number: int) -> str | None:
        """Why so many attempts of this task may not start now, in words; None where they may."""
        ...

    def enter(self, name: str, task: Ready, seats: Sequence[Seat]) -> None:
        """It starts on these seats."""
        ...

    def leave(self, name: str, task: Ready, seats: Sequence[Seat]) -> None:
        """It did not start after all: what `enter` counted is taken back."""
        ...


class Gates:
    """The gates by kind."""

    def __init__(self, kinds: Mapping[str, Gate] | None = None) -> None:
        self.kinds = dict(kinds or {})
        self.bounds_agents = False
        """Some agents may be given work only so often: `spend` has to be told of each start."""

    def of(self, name: str) -> Gate | None:
        """The gate of this name; None where nobody knows its kind, and nothing is in the way."""
        return self.kinds.get(name.partition(":")[0])

    def closed(self, task: Ready, number: int) -> tuple[str, str] | None:
        """The first gate that is closed for so many attempts of this task, and why."""
        for name in task.want.gates:
            gate = self.of(name)
            reason = gate.closed(name, task, number) if gate is not None else None
            if reason is not None:
                return name, reason
        return None

    def enter(self, task: Ready, seats: Sequence[Seat]) -> None:
        """Count a start at all gates of the task."""
        for name in task.want.gates:
            if (gate := self.of(name)) is not None:
                gate.enter(name, task, seats)

    def leave(self, task: Ready, seats: Sequence[Seat]) -> None:
        """Take a start back."""
        for name in task.want.gates:
            if (gate := self.of(name)) is not None:
                gate.leave(name, task, seats)

    def spend(self, seats: Sequence[Seat], roster: Roster) -> None:
        """Agents that are bounded by themselves were given work. Called where `bounds_agents`."""

    def unspend(self, seats: Sequence[Seat], roster: Roster) -> None:
        """They were not, after all."""
