"""Sub-tasks: work that is submitted from inside work, and those who wait for it.

A sub-task is a task like any other, with its parent's id. Its idempotency key makes a
repeated request (after a reconnect) find the same task. Whoever asked to wait is told when
the task is final: a hint wakes and the table is looked at, which a sweep does too while somebody waits.

Work that waits for its sub-tasks gives its slot back, so that the agent can do other work, the
sub-task itself perhaps. Results are handed over as they come; before the last one the work takes
a slot again. Its time limit runs on: every wait has an end.

At the spawn the lineage is looked at: how deep it is, how many sub-tasks the parent has, and
whether an ancestor asks for the same capabilities with the same input, which would go on for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import asyncpg
import orjson

from agentorch_cli.core.canonical import NotCanonical, canonical_json
from agentorch_cli.core.model import TaskSpec
from agentorch_cli.core.plan import plan
from agentorch_cli.documents import Document
from agentorch_cli.engine.state import State
from agentorch_cli.errors import DatabaseUnreachable, NotAllowed, OrchestratorError
from agentorch_cli.identity import new_id, new_id_text
from agentorch_cli.logs import facts
from agentorch_cli.store.records import Delivery
from agentorch_cli.store.store import Store
from agentorch_cli.store.submission import Stored, insert
from agentorch_cli.taskfile import read_tasks

log = logging.getLogger("agentorch.subtasks")

T = TypeVar("T")

MOST_WAITING = 10_000
"""Requests of one agent that may wait at once."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How far work may go with sub-tasks."""

    max_depth: int = 32
    max_children: int = 1000
    parks: bool = True
    """Work that waits gives its slot back at once."""


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

    def __init__(
        self, state: State, store: Store, *, defaults: Mapping[str, Any], rules: Rules | None = None
    ) -> None:
        self.state = state
        self.store = store
        self.defaults = defaults
        self.rules = rules or Rules()
        self.on_wait: Callable[[bool], None] = lambda holds_slot: None
        """Told when work begins to wait, and whether it holds its slot."""
        self.on_continue: Callable[[str], None] = lambda message_id: None
        """Told when work that gave its slot back wants one."""
        self.begins: Callable[[], Awaitable[None]] = _at_once
        """Awaited before somebody looks at the tables and then waits: hints are heard from then on."""
        self._waiting: dict[str, list[asyncio.Future[dict[str, Any]]]] = {}
        """By sub-task, those that wait for its end."""
        self._per_agent: dict[str, int] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._asked: dict[tuple[str, str], tuple[Requester, asyncio.Task[None]]] = {}
        """By agent and request: the session that asked, and what answers it."""

    def take(self, requester: Requester, frame: Any) -> None:
        """Handle a request beside the session's reader, so that a slow store does not stop it.

        Who asks for the same in a new session, after a reconnect, is answered there, and nobody goes on
        waiting in the place of the old one.
        """
        asked = (requester.agent_id, frame.request_id)
        before = self._asked.get(asked)
        if before is not None and before[0] is not requester:
            before[1].cancel()
        if self._per_agent.get(requester.agent_id, 0) >= MOST_WAITING:
            requester.refuse(
                "conflict", f"{MOST_WAITING} sub-tasks wait already", request_id=frame.request_id
            )
            return
        task = asyncio.create_task(self._answer(requester, frame), name=f"sub-task of {requester.agent_id}")
        self._running.add(task)
        self._asked[asked] = requester, task
        task.add_done_callback(lambda done: self._answered(asked, done))

    def _answered(self, asked: tuple[str, str], task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if asked in self._asked and self._asked[asked][1] is task:
            del self._asked[asked]

    async def _answer(self, requester: Requester, frame: Any) -> None:
        agent_id = requester.agent_id
        self._per_agent[agent_id] = self._per_agent.get(agent_id, 0) + 1
        try:
            await self.submit(requester, frame)
        except OrchestratorError as error:
            requester.refuse(error.code, str(error), request_id=frame.request_id)
        except Exception:
            log.exception(
                "a sub-task of agent %r could not be submitted",
                agent_id,
                extra=facts(agent=agent_id, attempt=frame.parent_message_id),
            )
            requester.refuse("bug", "the sub-task could not be stored", request_id=frame.request_id)
        finally:
            self._per_agent[agent_id] -= 1
            if not self._per_agent[agent_id]:
                del self._per_agent[agent_id]

    async def submit(self, requester: Requester, frame: Any) -> None:
        """Store the sub-task and answer. Raises InvalidTask, NotAllowed, Conflict, NotFound."""
        parent = self._parent(requester.agent_id, frame.parent_message_id)
        parent_id = parent.task_id if parent is not None else None
        document = Document({"tasks": [frame.task]}, "submit_task")
        defaults = {**self.defaults, "pool": parent.pool} if parent is not None else self.defaults
        file = read_tasks(document, new_id=new_id_text, defaults=defaults)
        specs = [replace(spec, parent_id=parent_id) for spec in plan(file.tasks, where=file.where).tasks]
        if parent is not None and parent.traceparent_told is not None and specs[0].traceparent is None:
            specs[0] = replace(specs[0], traceparent=parent.traceparent_told)
        if parent_id is not None:
            specs[0] = await _surely(lambda: self._check_lineage(parent_id, specs[0]))
        stored = await self._insert(specs)
        data: dict[str, Any] = {
            "requestId": frame.request_id,
            "taskId": stored.task_id,
            "status": stored.status,
        }
        requester.message(new_id_text(), "subtask_submitted", data)
        if not frame.wait_for:
            return
        if parent is not None:
            await _surely(lambda: self._begin_wait(parent.message_id, stored.task_id))
        final = await self._until_final(stored.task_id)
        if parent is not None:
            await _surely(lambda: self._end_wait(parent.message_id, stored.task_id))
            if parent.message_id not in self.state.deliveries:
                return  # its work was taken away meanwhile
        requester.message(new_id_text(), "subtask_finished", {"requestId": frame.request_id, **final})

    async def _insert(self, specs: Sequence[TaskSpec]) -> Stored:
        """Again and again while the database is away, where a key makes it one task however often."""
        if specs[0].idempotency_key is None:
            return (await insert(self.store, new_id(), specs))[0]
        return (await _surely(lambda: insert(self.store, new_id(), specs)))[0]

    def _parent(self, agent_id: str, message_id: str | None) -> Delivery | None:
        if message_id is None:
            return None
        delivery = self.state.deliveries.get(message_id)
        if delivery is None or delivery.agent_id != agent_id:
            raise NotAllowed("parentMessageId is not work that this agent holds")
        return delivery

    async def _check_lineage(self, parent_id: str, spec: TaskSpec) -> TaskSpec:
        """Raises NotAllowed where sub-tasks would go on for ever. A repeated request is no new sub-task.

        An ancestor that holds the sub-task's concurrency key holds it for the sub-task too: it would
        wait for itself otherwise.
        """
        db, rules = self.store.db, self.rules
        if spec.idempotency_key and await db.fetch("known_keys", [spec.idempotency_key]):
            return spec
        line = await db.fetch("lineage_up", parent_id, rules.max_depth + 1)
        if len(line) > rules.max_depth:
            raise NotAllowed(
                f"sub-tasks are {rules.max_depth} deep at most",
                hint="engine.max_subtask_depth is the limit",
            )
        children = await db.fetch_one("count_children", parent_id)
        if children is not None and children["number"] >= rules.max_children:
            raise NotAllowed(
                f"task {parent_id} has {rules.max_children} sub-tasks already",
                hint="engine.max_subtasks is the limit",
            )
        same = (spec.type, frozenset(spec.required_capabilities))
        for row in line:
            if (row["task_type"], frozenset(row["required_capabilities"])) == same and _equal(
                spec.data, row["task_data"]
            ):
                raise NotAllowed(
                    f"its ancestor {row['task_id']} asks for the same with the same input:"
                    " the sub-tasks would never end"
                )
        spec = _charged_with(spec, parent_id, line[0])
        if spec.concurrency_key is not None and spec.concurrency_key in {r["concurrency_key"] for r in line}:
            return replace(spec, concurrency_key=None)
        return spec

    # --- waiting ----------------------------------------------------------------------------

    async def _begin_wait(self, message_id: str, task_id: str) -> None:
        stands = await self.store.begin_wait(message_id, task_id, park=self.rules.parks)
        delivery = self.state.deliveries.get(message_id)
        if stands is None or delivery is None:
            return
        is_parked, _ = stands
        self.state.waits(delivery, True)
        self.state.go_on(message_id)  # it waits again: what it asked for before is handed over as it is
        if is_parked:
            self.state.park(message_id)
        self.on_wait(not is_parked)

    async def _end_wait(self, message_id: str, task_id: str) -> None:
        """Returns once the result may be handed over: the work owns a slot, or waits for more."""
        wants_slot, is_waiting = await self.store.end_wait(message_id, task_id)
        delivery = self.state.deliveries.get(message_id)
        if delivery is None:
            return
        if not is_waiting:
            self.state.waits(delivery, False)
        if wants_slot and delivery.is_parked:
            going_on = self.state.going_on.get(message_id)
            if going_on is None:
                going_on = self.state.going_on[message_id] = asyncio.get_running_loop().create_future()
            self.on_continue(message_id)
            await asyncio.shield(going_on)

    def granted(self, message_id: str, slot: int) -> None:
        """The work owns a slot again, as the tables say: nobody was told when it was given."""
        delivery = self.state.deliveries.get(message_id)
        member = self.state.roster.members.get(delivery.agent_id) if delivery is not None else None
        if member is not None:
            self.state.roster.hold(member, slot)
        self.continued(message_id, slot)

    def continued(self, message_id: str, slot: int) -> None:
        """The work owns a slot again, which is taken in the mirror."""
        delivery = self.state.deliveries.get(message_id)
        if delivery is None:
            return
        if not delivery.is_parked and delivery.slot != slot:  # it gave that one back, and nobody was told
            self.state.roster.give_back(delivery.agent_id, delivery.slot)
        delivery.is_parked, delivery.slot = False, slot
        self.state.go_on(message_id)

    async def _until_final(self, task_id: str) -> dict[str, Any]:
        """Who asks is not refused because the database is away: its wait stands in the tables already."""
        ended: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(task_id, []).append(ended)
        try:
            await self.begins()
            await self._look_surely([task_id])
            return await ended
        finally:
            self._waiting[task_id].remove(ended)
            if not self._waiting[task_id]:
                del self._waiting[task_id]

    @property
    def is_awaited(self) -> bool:
        """Somebody waits."""
        return bool(self._waiting)

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
        """Those who wait are told, or refused where that cannot be done: nobody would look again for them."""
        try:
            await _surely(lambda: self.look(ids))
        except Exception as error:
            for ended in self._who_waits(ids):
                ended.set_exception(error)

    async def look(self, ids: list[str]) -> None:
        """Tell those who wait for any of these tasks that are final."""
        for row in await self.store.db.fetch_by_key("results", ids):
            if row["completed_at"] is not None:
                final: dict[str, Any] = {"taskId": row["task_id"], "status": row["status"]}
                if row["result"] is not None:
                    final["result"] = orjson.loads(row["result"])
                if row["error"] is not None:
                    final["error"] = orjson.loads(row["error"])
                for ended in self._who_waits([row["task_id"]]):
                    ended.set_result(final)

    def _who_waits(self, ids: Iterable[str]) -> list[asyncio.Future[dict[str, Any]]]:
        return [ended for one in ids for ended in self._waiting.get(one, ()) if not ended.done()]

    async def look_after(self) -> None:
        """The safety net: tell of what ended without a hint, and of slots that came without a word.

        A statement whose connection breaks may be carried out after the tables were looked at, and after
        another that was to come later. Only the tables tell then.
        """
        if self._waiting:
            await self.look(list(self._waiting))
        asked = dict(self.state.going_on)
        if not asked:
            return
        for row in await self.store.db.fetch("slots_of", list(asked)):
            message_id = str(row["message_id"])
            if self.state.going_on.get(message_id) is not asked[message_id]:
                continue  # it went on meanwhile
            if not row["is_parked"]:
                self.granted(message_id, row["slot"])
            elif row["wants_slot"]:
                self.on_continue(message_id)
            else:  # it waits for something else by now, with what it has
                self.state.go_on(message_id)

    async def stop(self) -> None:
        """Forget those who wait: they ask again at the next node."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


async def _at_once() -> None:
    return


async def _surely(step: Callable[[], Awaitable[T]]) -> T:
    """Until the database has answered: a handler should not fail because it was away for a moment."""
    while True:
        try:
            return await step()
        except DatabaseUnreachable:
            await asyncio.sleep(0.3)


def _charged_with(spec: TaskSpec, parent_id: str, parent: asyncpg.Record) -> TaskSpec:
    """The sub-task spends from what its parent spends from: the submission's budget, and its labels."""
    labels = orjson.loads(parent["labels"]) if parent["labels"] else {}
    if not labels and parent["funded_by"] is None:
        return spec
    return replace(spec, labels={**labels, **spec.labels}, funded_by=parent["funded_by"], borrows=parent_id)


def _equal(data: Any, stored: str | None) -> bool:
    try:
        return canonical_json(data) == canonical_json(orjson.loads(stored) if stored is not None else None)
    except NotCanonical:
        return False
