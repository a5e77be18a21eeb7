"""Where an agent's work lies: messages come in, handlers run, results wait for their `ack`.

The desk knows no socket. It reads decoded messages and puts encoded frames into the outbox of the
connection of the moment, if there is one; what must not be lost lives in the ledger. A frame is
encoded once, when it is made. The path of a task with an inline handler is `receive`, `_execute`,
`_complete`: no task, no thread and no validation model on the way.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import orjson

from agentorch_cli import payloads
from agentorch_cli.agents.ballot import Vote, question_of, vote_frame
from agentorch_cli.agents.handler import Handler, Mode
from agentorch_cli.agents.ledger import Ledger
from agentorch_cli.agents.outbox import Outbox
from agentorch_cli.agents.subtasks import Subtasks
from agentorch_cli.agents.text import plain
from agentorch_cli.agents.threads import Threads
from agentorch_cli.agents.work import GivenBack, Work, WorkFailed
from agentorch_cli.errors import InvalidMessage
from agentorch_cli.logs import about_work, facts

logger = logging.getLogger("agentorch.agent")

VOTES_KEPT = 256
"""Votes that are remembered, to be given again when the engine asks again."""

MOST_BYTES = 1 << 30
"""No limit of its own: the engine names its limit, and by then the connection knows it."""

LONG_BYTES = 64 * 1024
"""No frame below this is blamed for a connection that the engine closed over its size limit."""


class Desk:
    """All work of one agent, over any number of connections."""

    def __init__(
        self,
        agent_id: str,
        slots: int,
        handlers: dict[str | None, Handler],
        voter: Handler | None,
        *,
        parks: bool = True,
    ) -> None:
        self._agent_id = agent_id
        self._slots = slots
        self._handlers = handlers
        self._voter = voter
        self._parks = parks
        """Work that waits for its sub-tasks gives its slot back."""
        self._ahead: dict[str, dict[str, Any]] = {}
        """Work that begins once a slot is free, the first first."""
        self._is_beginning = False
        self._ledger: Ledger[Work] = Ledger()
        self._outbox: Outbox | None = None
        self._subtasks = Subtasks()
        self._votes: dict[str, bytes | None] = {}
        self._unsent_votes: list[bytes] = []
        self._runners: set[asyncio.Task[None]] = set()
        self._threads = Threads(f"agent-{agent_id}")
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._is_stopping = False
        self.on_drain: Callable[[], None] = lambda: None

    # The connection's side.

    def held(self) -> list[str]:
        return [*self._ledger.held(), *self._ahead]

    @property
    def undelivered(self) -> int:
        """Results that the engine has not confirmed."""
        return len(self._ledger.unacked)

    @property
    def load(self) -> float:
        """0..1; an agent that is about to leave is full."""
        return 1.0 if self._is_stopping else min(1.0, len(self._ledger.running) / self._slots)

    def online(self, outbox: Outbox, dropped: list[str]) -> None:
        """A connection is registered: stop what is lost, send again what nobody has confirmed.

        Results of dropped work are sent too: the engine takes a late result if there is no other.
        """
        for message_id in dropped:
            if message_id in self._ledger.running or message_id in self._ahead:
                self._cancel(message_id, "it went to another agent while the connection was lost")
        self._outbox = outbox
        for frame in (*self._ledger.unacked.values(), *self._subtasks.frames(), *self._unsent_votes):
            outbox.put(frame)
        self._unsent_votes.clear()

    def offline(self) -> None:
        self._outbox = None

    def receive(self, message: Any) -> None:
        """One decoded message. Whatever is wrong with it, the agent goes on."""
        try:
            kind = message["type"]
            if kind == "agent_message":
                if message["messageType"] == "execute_task":
                    self._execute(message["messageId"], message["data"])
                else:
                    self._receive_other(message["messageType"], message["data"])
            elif kind == "ack":
                self._ledger.forget(message["messageId"])
            elif kind == "error":
                self._refused(message)
            else:
                logger.debug("ignored a message of type %s", plain(str(kind), 50))
        except Exception as error:
            logger.warning("ignored a message that does not fit the protocol: %s", _sentence(error))
            logger.debug("the message was %s", plain(repr(message)), exc_info=True)

    def too_big(self) -> bool:
        """The engine closed the connection over a frame's size: the longest one becomes an error.

        Without this the same frame would be sent, and the connection closed, for ever. False when
        no single message is to blame.
        """
        unacked = self._ledger.unacked
        message_id = max(unacked, key=lambda key: len(unacked[key]), default=None)
        size = len(unacked[message_id]) if message_id is not None else 0
        request_id, request_size = self._subtasks.longest() or ("", 0)
        if max(size, request_size) < LONG_BYTES:
            return False
        if message_id is None or request_size > size:
            sentence = f"a frame of {request_size:,} bytes is longer than the engine takes"
            self._subtasks.refused(request_id, "too_big", sentence)
        else:
            sentence = f"the result of {size:,} bytes is longer than the engine takes"
            self._replace(message_id, WorkFailed(sentence, code="result_too_big", retryable=False))
        return True

    # Stopping.

    async def finish(self) -> None:
        """Take nothing more; returns when all work is done and confirmed."""
        self._is_stopping = True
        self._ahead.clear()  # not begun: it is given to others as soon as this agent has left, or sooner
        await self._ledger.emptied()

    async def give_back(self, grace_seconds: float) -> None:
        """Cancel what still runs, without a word to the engine, and let it clean up for a bounded time."""
        self._is_stopping = True
        self._ahead.clear()
        for message_id in list(self._ledger.running):
            self._cancel(message_id)
        for runner in self._runners:
            runner.cancel()
        if self._runners:
            await asyncio.wait(self._runners, timeout=grace_seconds)

    def close(self) -> None:
        self._threads.close()

    # The work's side (`work.Desk`).

    def report(self, work: Work, report: dict[str, Any]) -> None:
        """A `task_progress`, from any thread. It is dropped while there is no connection."""
        frame = orjson.dumps(report)
        if threading.get_ident() == self._thread_id:
            self._report(work, frame)
        else:
            self._loop.call_soon_threadsafe(self._report, work, frame)

    def _report(self, work: Work, frame: bytes) -> None:
        if not work.is_over:
            self._post(frame)

    async def room(self) -> None:
        if self._outbox is not None:
            await self._outbox.room()

    async def submit(self, work: Work, task: dict[str, Any], wait: bool) -> Any:
        waiting = self._subtasks.submit(self._post, work.message_id, task, wait)
        if wait and self._ahead:
            self._loop.call_soon(self._begin_ahead)
        return await waiting

    # Tasks.

    def _post(self, frame: bytes) -> None:
        if self._outbox is not None:
            self._outbox.put(frame)

    def _execute(self, message_id: str, data: dict[str, Any]) -> None:
        ledger = self._ledger
        if message_id in ledger.unacked or message_id in ledger.running or ledger.is_over(message_id):
            self._repeat(message_id)
            return
        if self._is_stopping:
            return  # `unregister` gives it to another agent at once; an error would cost it an attempt
        if data.get("ahead"):
            self._ahead.setdefault(message_id, data)
            self._begin_ahead()
        else:
            self._ahead.pop(message_id, None)
            self._begin(message_id, data)

    def _begin_ahead(self) -> None:
        """Begin what waits for a slot, as far as there are any."""
        if self._is_beginning:
            return  # what is just begun ended at once: the loop below goes on
        self._is_beginning = True
        try:
            while self._ahead and self._busy() < self._slots and not self._is_stopping:
                message_id = next(iter(self._ahead))
                self._begin(message_id, self._ahead.pop(message_id))
        finally:
            self._is_beginning = False

    def _busy(self) -> int:
        """Slots that are taken: work that waits for its sub-tasks gave its own back."""
        running = self._ledger.running
        return len(running.keys() - self._subtasks.waiting()) if self._parks else len(running)

    def _begin(self, message_id: str, data: dict[str, Any]) -> None:
        work = Work(self, message_id, data)
        handler = self._handlers.get(work.type) or self._handlers.get(None)
        if handler is None:
            sentence = f"agent {self._agent_id} has no handler for tasks of type {work.type}"
            self._fail(work, WorkFailed(sentence, code="no_handler"))
        elif handler.mode is Mode.INLINE:
            try:
                result = handler.function(work)
            except (Exception, SystemExit) as error:
                self._fail(work, error)
            else:
                self._complete(work, result)
        else:
            self._start(work, handler)

    def _repeat(self, message_id: str) -> None:
        """The same attempt was sent again: say what is known of it. What is over stays over."""
        if (frame := self._ledger.unacked.get(message_id)) is not None:
            self._post(frame)
        elif message_id in self._ledger.running:
            self._post(_accepted(message_id))

    def _start(self, work: Work, handler: Handler) -> None:
        self._ledger.running[work.message_id] = work
        self._post(_accepted(work.message_id))
        work.runner = self._spawn(self._run(work, handler))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        runner = self._loop.create_task(coroutine)
        self._runners.add(runner)
        runner.add_done_callback(self._runners.discard)
        return runner

    async def _run(self, work: Work, handler: Handler) -> None:
        about_work.set((self._agent_id, work.task_id, work.message_id))
        try:
            result = await self._call(handler, work)
        except asyncio.CancelledError:
            if work.is_over:
                raise
            self._fail(work, WorkFailed("the handler was cancelled from inside", code="cancelled"))
        except GivenBack:
            self._cancel(work.message_id)
        except (Exception, SystemExit) as error:
            self._fail(work, error)
        else:
            self._complete(work, result)

    async def _call(self, handler: Handler, argument: Any) -> Any:
        if handler.mode is Mode.ASYNC:
            return await handler.function(argument)
        if handler.mode is Mode.INLINE:
            return handler.function(argument)
        result = await self._threads.run(handler.function, argument)
        return await result if inspect.isawaitable(result) else result

    def _complete(self, work: Work, result: Any) -> None:
        if work.is_over:
            return
        frame = {
            "type": "task_result",
            "messageId": work.message_id,
            "taskId": work.task_id,
            "result": result,
        }
        if work.confidence is not None:
            frame["confidence"] = work.confidence
        if work.usage is not None:
            frame["usage"] = work.usage
        try:
            encoded = payloads.encode(frame, max_bytes=MOST_BYTES)
        except InvalidMessage as error:
            work.confidence = work.usage = None  # one of the three is to blame
            refused = WorkFailed(f"the result is not JSON: {error}", code="result_not_json")
            self._fail(work, refused)
        else:
            self._finish(work, encoded)

    def _fail(self, work: Work, error: BaseException) -> None:
        if work.is_over:
            return
        if logger.isEnabledFor(logging.INFO):
            about = facts(task=work.task_id, agent=self._agent_id, attempt=work.message_id)
            logger.info("task %s failed: %s", plain(work.task_id, 200), _sentence(error), extra=about)
        logger.debug("it was raised here", exc_info=error)
        frame = _error_frame(work.message_id, work.task_id, error)
        if work.usage is not None:
            frame["usage"] = work.usage
        try:
            encoded = orjson.dumps(frame)
        except TypeError:
            frame.pop("usage", None)
            encoded = orjson.dumps(frame)
        self._finish(work, encoded)

    def _finish(self, work: Work, frame: bytes) -> None:
        work.end(cancelled=False)
        self._ledger.finish(work.message_id, frame)
        self._post(frame)
        if self._ahead:
            self._begin_ahead()

    def _cancel(self, message_id: str, reason: str | None = None) -> None:
        """The attempt is no longer ours: stop it, and send nothing more for it."""
        self._ahead.pop(message_id, None)
        work = self._ledger.forget(message_id)
        if work is not None:
            work.cancel_reason = reason
            work.end(cancelled=True)
            if self._ahead:
                self._begin_ahead()

    def _refused(self, message: dict[str, Any]) -> None:
        code, sentence = str(message.get("code")), plain(str(message.get("message")))
        request_id, message_id = message.get("requestId"), message.get("messageId")
        if request_id is not None:
            self._subtasks.refused(request_id, code, sentence)
        elif message_id in self._ledger.unacked:
            self._result_refused(message_id, code, sentence)
        else:
            logger.warning("the engine says %s: %s", plain(code, 50), sentence)

    def _result_refused(self, message_id: str, code: str, sentence: str) -> None:
        """A result that cannot be stored becomes an error; an error that is refused is forgotten."""
        logger.warning("the engine refused a result (%s): %s", plain(code, 50), sentence)
        was_error = "error" in orjson.loads(self._ledger.unacked[message_id])
        if code != "invalid_message" or was_error:
            self._ledger.forget(message_id)
        else:
            reason = f"the engine refused the result: {sentence}"
            self._replace(message_id, WorkFailed(reason, code="result_refused", retryable=False))

    def _replace(self, message_id: str, error: WorkFailed) -> None:
        task_id = orjson.loads(self._ledger.unacked[message_id])["taskId"]
        frame = orjson.dumps(_error_frame(message_id, task_id, error))
        self._ledger.finish(message_id, frame)
        self._post(frame)

    # Everything but tasks.

    def _receive_other(self, message_type: str, data: dict[str, Any]) -> None:
        match message_type:
            case "cancel_task":
                self._cancel(data["messageId"], plain(str(data.get("reason", ""))))
            case "consensus_request":
                self._ask(data)
            case "subtask_submitted":
                self._subtasks.submitted(data)
            case "subtask_finished":
                self._subtasks.finished(data)
            case "drain":
                self.on_drain()
            case _:
                logger.debug("ignored an agent_message of type %s", plain(str(message_type), 50))

    def _ask(self, data: dict[str, Any]) -> None:
        decision_id: str = data["decisionId"]
        if decision_id not in self._votes:
            self._votes[decision_id] = None
            self._forget_old_votes()
            self._spawn(self._vote(decision_id, data))
        elif (frame := self._votes[decision_id]) is not None:
            self._post(frame)

    async def _vote(self, decision_id: str, data: dict[str, Any]) -> None:
        """An agent that has no voter, or whose voter fails, abstains: the others need not wait for it."""
        try:
            vote = await self._call(self._voter, question_of(data)) if self._voter else Vote(abstain=True)
            if not isinstance(vote, Vote):
                vote = Vote(vote)
            frame = vote_frame(decision_id, self._agent_id, vote)
        except (Exception, SystemExit) as error:
            logger.warning("abstained, because the voter failed: %s", _sentence(error))
            frame = vote_frame(decision_id, self._agent_id, Vote(abstain=True))
        self._votes[decision_id] = frame
        if self._outbox is None:
            self._unsent_votes.append(frame)
        else:
            self._outbox.put(frame)

    def _forget_old_votes(self) -> None:
        while len(self._votes) > VOTES_KEPT:
            del self._votes[next(iter(self._votes))]


def _accepted(message_id: str) -> bytes:
    return orjson.dumps({"type": "task_accepted", "messageId": message_id})


def _error_frame(message_id: str, task_id: str, error: BaseException) -> dict[str, Any]:
    failed = error if isinstance(error, WorkFailed) else WorkFailed(_sentence(error), code="exception")
    return {"type": "task_result", "messageId": message_id, "taskId": task_id, "error": failed.to_wire()}


def _sentence(error: BaseException) -> str:
    """The exception as one bounded line; an exception whose __str__ raises has a name at least."""
    if isinstance(error, WorkFailed):
        return plain(error.message)
    try:
        text = str(error)
    except Exception:
        text = ""
    name = type(error).__name__
    return plain(f"{name}: {text}" if text else name)
