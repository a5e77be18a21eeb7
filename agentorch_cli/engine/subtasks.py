"""Sub-tasks: work that is submitted from inside work, and those who wait for it.

A sub-task is a task like any other, with its parent's id. Its idempotency key makes a
repeated request (after a reconnect) find the same task. Whoever asked to wait is told when
the task is final: a hint wakes, the table is looked at, and nothing is polled meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import orjson

from agentorch_cli.core.plan import plan
from agentorch_cli.documents import Document
from agentorch_cli.engine.state import State
from agentorch_cli.errors import DatabaseUnreachable, NotAllowed, OrchestratorError
from agentorch_cli.identity import new_id
from agentorch_cli.store.store import Store
from agentorch_cli.store.submission import insert
from agentorch_cli.taskfile import read_tasks

log = logging.getLogger("agentorch.subtasks")

MOST_WAITING = 10_000
"""Requests of one agent that may wait at once."""


class Requester(Protocol):
    """The session that asked."""

    @property
    def agent_id(self) -> str: ...

    def message(self, message_id: str, message_type: str, data: dict[str, Any]) -> None: ...

    def refuse(
        self, code: str, message: str, message_id: str | None = None, request_id: str | None = None
    ) -> None: ...


class Subtasks:
    """Takes `submit_task` frames and answers them."""

    def __init__(self, state: State, store: Store, *, defaults: Mapping[str, Any]) -> None:
        self.state = state
        self.store = store
        self.defaults = defaults
        self._waiting: dict[str, list[Callable[[dict[str, Any]], None]]] = {}
        self._per_agent: dict[str, int] = {}
        self._running: set[asyncio.Task[None]] = set()

    def take(self, requester: Requester, frame: Any) -> None:
        """Handle a request beside the session's reader, so that a slow store does not stop it."""
        if self._per_agent.get(requester.agent_id, 0) >= MOST_WAITING:
            requester.refuse(
                "conflict", f"{MOST_WAITING} sub-tasks wait already", request_id=frame.request_id
            )
            return
        task = asyncio.create_task(self._answer(requester, frame), name=f"sub-task of {requester.agent_id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, requester: Requester, frame: Any) -> None:
        agent_id = requester.agent_id
        self._per_agent[agent_id] = self._per_agent.get(agent_id, 0) + 1
        try:
            await self.submit(requester, frame)
        except OrchestratorError as error:
            requester.refuse(error.code, str(error), request_id=frame.request_id)
        except Exception:
            log.exception("a sub-task of agent %r could not be submitted", agent_id)
            requester.refuse("bug", "the sub-task could not be stored", request_id=frame.request_id)
        finally:
            self._per_agent[agent_id] -= 1
            if not self._per_agent[agent_id]:
                del self._per_agent[agent_id]

    async def submit(self, requester: Requester, frame: Any) -> None:
        """Store the sub-task and answer. Raises InvalidTask, NotAllowed, Conflict, NotFound."""
        parent_id = self._parent(requester.agent_id, frame.parent_message_id)
        document = Document({"tasks": [frame.task]}, "submit_task")
        file = read_tasks(document, new_id=lambda: str(new_id()), defaults=self.defaults)
        specs = [replace(spec, parent_id=parent_id) for spec in plan(file.tasks, where=file.where).tasks]
        stored = (await insert(self.store, new_id(), specs))[0]
        data: dict[str, Any] = {
            "requestId": frame.request_id,
            "taskId": stored.task_id,
            "status": stored.status,
        }
        requester.message(str(new_id()), "subtask_submitted", data)
        if frame.wait_for:
            final = await self._until_final(stored.task_id)
            requester.message(str(new_id()), "subtask_finished", {"requestId": frame.request_id, **final})

    def _parent(self, agent_id: str, message_id: str | None) -> str | None:
        if message_id is None:
            return None
        delivery = self.state.deliveries.get(message_id)
        if delivery is None or delivery.agent_id != agent_id:
            raise NotAllowed("parentMessageId is not work that this agent holds")
        return delivery.task_id

    # --- waiting ----------------------------------------------------------------------------

    async def _until_final(self, task_id: str) -> dict[str, Any]:
        ended: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def tell(final: dict[str, Any]) -> None:
            if not ended.done():
                ended.set_result(final)

        self._waiting.setdefault(task_id, []).append(tell)
        try:
            await self.look([task_id])
            return await ended
        finally:
            tellers = self._waiting.get(task_id, [])
            if tell in tellers:
                tellers.remove(tell)
            if not tellers:
                self._waiting.pop(task_id, None)

    def hinted(self, payload: str) -> None:
        """Tasks ended (`*`: some did). Called for every batch, so it is quick when nobody waits."""
        if not self._waiting:
            return
        ids = (
            list(self._waiting) if payload == "*" else [i for i in payload.split("\n") if i in self._waiting]
        )
        if ids:
            task = asyncio.create_task(self._look_surely(ids), name="look at sub-tasks")
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _look_surely(self, ids: list[str]) -> None:
        while True:
            try:
                await self.look(ids)
                return
            except DatabaseUnreachable:
                await asyncio.sleep(0.3)

    async def look(self, ids: list[str]) -> None:
        """Tell those who wait for any of these tasks that are final."""
        for row in await self.store.db.fetch("results", ids):
            if row["completed_at"] is not None:
                final: dict[str, Any] = {"taskId": row["task_id"], "status": row["status"]}
                if row["result"] is not None:
                    final["result"] = orjson.loads(row["result"])
                if row["error"] is not None:
                    final["error"] = orjson.loads(row["error"])
                for tell in list(self._waiting.get(row["task_id"], ())):
                    tell(final)

    async def stop(self) -> None:
        """Forget those who wait: they ask again at the next node."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
