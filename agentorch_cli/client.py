"""One way to ask for an operation, near or far.

Every command calls `client.call(method, parameters)`; the local client runs the handler
in this process against the database, the remote one sends the same request to `/control`.
Method names are `noun.verb`; parameters are keyword arguments of the handler; the answer
is a view (see `views`) or a list of views.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

from agentorch_cli import handlers
from agentorch_cli.errors import UsageError


class Client(Protocol):
    """What the commands need: one call, and an end."""

    async def call(self, method: str, **parameters: Any) -> Any:
        """Raises the OrchestratorError that the operation raised, wherever it ran."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LocalClient:
    """Runs operations in this process."""

    def __init__(self, context: handlers.Context) -> None:
        self.context = context

    async def call(self, method: str, **parameters: Any) -> Any:
        """Run the handler of that name; its errors pass through."""
        handler = handlers.HANDLERS.get(method)
        if handler is None:
            raise UsageError(f"there is no operation {method!r}")
        return await handler(self.context, **parameters)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.context.close()
