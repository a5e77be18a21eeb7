"""One way to ask for an operation, near or far.

Every command calls `client.call(method, parameters)`; the local client runs the handler
in this process against the database, the remote one sends the same request to `/control`.
Method names are `noun.verb`; parameters are keyword arguments of the handler; the answer
is a view (see `views`) or a list of views.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from agentorch_cli import handlers
from agentorch_cli.errors import UsageError
from agentorch_cli.handlers.events import event_view
from agentorch_cli.payloads import check_parameters
from agentorch_cli.store.following import Filter, Pulse, follow, now_cursor
from agentorch_cli.views import EventView


class Client(Protocol):
    """What the commands need: one call, what happens, and an end."""

    @property
    def is_remote(self) -> bool:
        """Whether a network lies between."""
        ...

    async def call(self, method: str, **parameters: Any) -> Any:
        """Raises the OrchestratorError that the operation raised, wherever it ran."""
        ...

    def events(
        self,
        *,
        cursor: str | None = None,
        kinds: Sequence[str] | None = None,
        task_id: str | None = None,
        agent_id: str | None = None,
    ) -> AsyncIterator[EventView]:
        """What happens after a cursor (from now on, where there is none), for ever: each event once."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LocalClient:
    """Runs operations in this process."""

    is_remote = False

    def __init__(self, context: handlers.Context) -> None:
        self.context = context

    async def call(self, method: str, **parameters: Any) -> Any:
        """Run the handler of that name; its errors pass through."""
        handler = handlers.HANDLERS.get(method)
        if handler is None:
            raise UsageError(f"there is no operation {method!r}")
        check_parameters(parameters)
        return await handler(self.context, **parameters)

    async def events(
        self,
        *,
        cursor: str | None = None,
        kinds: Sequence[str] | None = None,
        task_id: str | None = None,
        agent_id: str | None = None,
    ) -> AsyncIterator[EventView]:
        """The log of the database, as it grows. Raises NotFound for a bad cursor."""
        check_parameters({"kinds": kinds, "task_id": task_id, "agent_id": agent_id})
        db = self.context.db
        start = cursor or await now_cursor(db)
        async for rows in follow(db, Pulse(db), start, Filter(task_id, kinds, agent_id)):
            for row in rows:
                yield event_view(row)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.context.close()
