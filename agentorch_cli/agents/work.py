"""One attempt of a task, as a handler sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import datetime
from typing import Any, Protocol, cast

from agentorch_cli.agents.text import plain


class WorkFailed(Exception):
    """Raise it from a handler to say exactly how an attempt failed.

    `code` is a short word for programs; `retryable=False` tells the engine that no other attempt
    would do better. Any other exception counts as retryable.
    """

    def __init__(self, message: str, code: str | None = None, retryable: bool = True) -> None:
        self.message = message
        self.code = code
        self.retryable = retryable
        super().__init__(message)

    def to_wire(self) -> dict[str, Any]:
        error: dict[str, Any] = {"message": plain(self.message), "retryable": self.retryable}
        if self.code is not None:
            error["code"] = plain(self.code, 200)
        return error


class GivenBack(Exception):
    """Raised by a handler whose agent is about to leave: nothing is said of the work.

    The engine gives it to others once the agent has left.
    """


class Desk(Protocol):
    """What a Work needs of the agent that it runs in."""

    def report(self, work: Work, report: dict[str, Any]) -> None: ...

    async def room(self) -> None: ...

    async def submit(self, work: Work, task: dict[str, Any], wait: bool) -> Any: ...


class Work:
    """The task, its inputs, and the way to report on it.

    A handler may set `confidence` (0..1) and `usage` (`inputTokens`, `outputTokens`, `costUsd`)
    before it returns; they go with the result, or with the error.
    """

    __slots__ = (
        "_data",
        "_desk",
        "_event",
        "_is_over",
        "_task",
        "cancel_reason",
        "confidence",
        "message_id",
        "runner",
        "usage",
    )

    def __init__(self, desk: Desk, message_id: str, data: dict[str, Any]) -> None:
        self._desk = desk
        self._data = data
        self._task: dict[str, Any] = data["task"]
        self._event: asyncio.Event | None = None
        self._is_over = False
        self.message_id = message_id
        self.cancel_reason: str | None = None
        """Why the engine took the work back, once it has."""
        self.runner: asyncio.Task[None] | None = None
        self.confidence: float | None = None
        self.usage: dict[str, Any] | None = None

    @property
    def task_id(self) -> str:
        return cast(str, self._data["taskId"])

    @property
    def attempt(self) -> int:
        """1 for the first."""
        return cast(int, self._data.get("attempt", 1))

    @property
    def type(self) -> str:
        return cast(str, self._task["type"])

    @property
    def name(self) -> str | None:
        """What the task file calls it."""
        return self._task.get("name")

    @property
    def result_schema(self) -> dict[str, Any] | bool | None:
        """JSON Schema that the result has to fit; None where any JSON will do."""
        return self._task.get("resultSchema")

    @property
    def vote(self) -> dict[str, Any] | None:
        """Where the result is a ballot: `options`, and `voteOn` (a JSON pointer), as far as there are any."""
        return self._task.get("vote")

    @property
    def data(self) -> Any:
        """The task's payload, `[task.data]` of its file."""
        return self._task.get("data")

    @property
    def inputs(self) -> dict[str, Any]:
        """The results of the tasks that this one depends on, by name or id."""
        return self._data.get("inputs") or {}

    @property
    def role(self) -> str | None:
        return self._task.get("role")

    @property
    def budget(self) -> dict[str, Any]:
        """What it may use: `costUsd` and `tokens`, each where a budget limits it."""
        return self._task.get("budget") or {}

    @property
    def traceparent(self) -> str | None:
        """The span that the agent's own are children of (W3C Trace Context); None where there is no trace."""
        return self._data.get("traceparent")

    @property
    def priority(self) -> int:
        return cast(int, self._task.get("priority", 5))

    @property
    def required_capabilities(self) -> list[str]:
        return self._task.get("requiredCapabilities") or []

    @property
    def deadline(self) -> datetime | None:
        """When the engine gives this attempt up, on the database's clock."""
        text = self._data.get("deadline")
        return datetime.fromisoformat(text) if text else None

    @property
    def cancelled(self) -> asyncio.Event:
        """Set when the engine took the work back. A plain handler in a thread asks `is_set()`."""
        if self._event is None:
            self._event = asyncio.Event()
            if self._is_over:
                self._event.set()
        event = self._event
        # Asked again: the loop may have cancelled between the check above and the assignment.
        if self._is_over:
            event.set()
        return event

    def progress(
        self, progress: float | None = None, note: str | None = None, usage: dict[str, Any] | None = None
    ) -> Reported:
        """Show how far it is (0..1). Sent at once; awaiting it waits while the engine is slow to read.

        A plain handler calls it without await, from its thread. It is not kept over a lost connection.
        """
        report: dict[str, Any] = {"type": "task_progress", "messageId": self.message_id}
        if progress is not None:
            report["progress"] = min(1.0, max(0.0, progress))
        if note is not None:
            report["note"] = plain(note)
        if usage is not None:
            report["usage"] = usage
        self._desk.report(self, report)
        return Reported(self._desk)

    async def submit(self, task: dict[str, Any], wait: bool = True) -> Any:
        """Submit a sub-task (as in a task file) and return its result, or its id with `wait=False`.

        Raises WorkFailed when the engine refuses it, or when it ends without a result.
        """
        return await self._desk.submit(self, task, wait)

    @property
    def is_over(self) -> bool:
        """Nothing more may be sent for it: cancelled, dropped, or finished."""
        return self._is_over

    def end(self, *, cancelled: bool) -> None:
        """The agent's own call: the attempt is finished, or it is no longer ours."""
        self._is_over = True
        if cancelled:
            if self._event is not None:
                self._event.set()
            if self.runner is not None:
                self.runner.cancel()

    def to_document(self) -> dict[str, Any]:
        """The task as one JSON document, for a handler that is another program."""
        return {
            "taskId": self.task_id,
            "attempt": self.attempt,
            "messageId": self.message_id,
            "type": self.type,
            "priority": self.priority,
            "data": self.data,
            "inputs": self.inputs,
            "role": self.role,
            "name": self.name,
            "resultSchema": self.result_schema,
            "vote": self.vote,
            "budget": self.budget,
            "requiredCapabilities": self.required_capabilities,
            "deadline": self._data.get("deadline"),
        }


class Reported:
    """What `progress` returns: awaiting it gives way to others, and waits while the outbox is full."""

    __slots__ = ("_desk",)

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def __await__(self) -> Generator[Any, None, None]:
        yield
        yield from self._desk.room().__await__()
