"""Tasks that are submitted from inside work, and the handlers that wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from agentorch_cli.agents.text import plain
from agentorch_cli.agents.work import WorkFailed


@dataclass(frozen=True, slots=True)
class _Pending:
    frame: bytes
    parent_id: str
    is_waiting: bool
    answer: asyncio.Future[Any]


class Subtasks:
    """One entry per `submit_task` whose answer is still awaited, in the order of submission."""

    def __init__(self) -> None:
        self._pending: dict[str, _Pending] = {}
        self._count = 0

    def frames(self) -> list[bytes]:
        """All that is unanswered, to be sent again after a reconnect.

        The engine may have them already, so each carries an idempotency key.
        """
        return [pending.frame for pending in self._pending.values()]

    def longest(self) -> tuple[str, int] | None:
        """The request with the longest frame, and its bytes."""
        sizes = ((request_id, len(pending.frame)) for request_id, pending in self._pending.items())
        return max(sizes, key=lambda item: item[1], default=None)

    def waiting(self) -> set[str]:
        """The works that wait for a sub-task."""
        return {pending.parent_id for pending in self._pending.values() if pending.is_waiting}

    async def submit(
        self, post: Callable[[bytes], None], parent_id: str, task: dict[str, Any], wait: bool
    ) -> Any:
        """Returns the result (the id with `wait=False`); raises WorkFailed, and ValueError for no JSON."""
        self._count += 1
        request_id = f"{parent_id}:{self._count}"
        frame = _frame(request_id, parent_id, task, wait)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = _Pending(frame, parent_id, wait, answer)
        try:
            post(frame)
            return await answer
        finally:
            del self._pending[request_id]

    def submitted(self, data: dict[str, Any]) -> None:
        pending = self._pending.get(data["requestId"])
        if pending is not None and not pending.is_waiting and not pending.answer.done():
            pending.answer.set_result(data["taskId"])

    def finished(self, data: dict[str, Any]) -> None:
        pending = self._pending.get(data["requestId"])
        if pending is None or not pending.is_waiting or pending.answer.done():
            return
        if data.get("status") == "completed":
            pending.answer.set_result(data.get("result"))
        else:
            pending.answer.set_exception(_failure(data))

    def refused(self, request_id: str, code: str, message: str) -> None:
        pending = self._pending.get(request_id)
        if pending is not None and not pending.answer.done():
            refusal = f"the engine refused the sub-task: {message}"
            pending.answer.set_exception(WorkFailed(refusal, code=code, retryable=False))


def _frame(request_id: str, parent_id: str, task: dict[str, Any], wait: bool) -> bytes:
    if "idempotency_key" not in task and "idempotencyKey" not in task:
        task = {**task, "idempotency_key": request_id}
    return orjson.dumps(
        {
            "type": "submit_task",
            "requestId": request_id,
            "parentMessageId": parent_id,
            "task": task,
            "waitFor": wait,
        }
    )


def _failure(data: dict[str, Any]) -> WorkFailed:
    sentence = f"sub-task {plain(str(data.get('taskId')), 200)} ended as {plain(str(data.get('status')), 50)}"
    error = data.get("error")
    reason = error.get("message") if isinstance(error, dict) else error
    return WorkFailed(f"{sentence}: {reason}" if reason else sentence, code="subtask_failed")
