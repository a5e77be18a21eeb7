"""What every operation works with."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentorch_cli.core.ladder import Policy
from agentorch_cli.store.database import Database
from agentorch_cli.store.store import Store
from agentorch_cli.store.waiting import Hearing, Waiting
from agentorch_cli.traces import Traces

MOST_SHOWN = 1_000


@dataclass(slots=True)
class Context:
    """What handlers work with."""

    store: Store
    waiting: Waiting | None = None
    """In a process that listens already; elsewhere waits listen by themselves."""
    policy: Policy = field(default_factory=Policy)
    """What is done about deadlocks."""
    grace: float = 30.0
    """Seconds for which an agent that went away still counts as there."""
    task_defaults: Mapping[str, Any] = field(default_factory=dict)
    """TaskSpec fields for scheduled tasks that are silent about them."""
    data_dir: Path | None = None
    """Where the embedded database keeps its files; None for one whose disk cannot be seen from here."""
    traces: Traces | None = None
    """Where spans go; None: nowhere."""
    on_close: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    _hearing: Hearing | None = None

    @property
    def db(self) -> Database:
        return self.store.db

    @contextlib.asynccontextmanager
    async def hearing(self) -> AsyncIterator[Waiting]:
        """Where waits hear that tasks ended, for the time of the block."""
        if self.waiting is not None:
            yield self.waiting
            return
        if self._hearing is None:
            self._hearing = Hearing(self.db)
            self.on_close.append(self._hearing.close)
        async with self._hearing.hearing() as waiting:
            yield waiting

    async def close(self) -> None:
        """Close what was opened for this context, last first."""
        for step in reversed(self.on_close):
            await step()


Handler = Callable[..., Awaitable[Any]]
