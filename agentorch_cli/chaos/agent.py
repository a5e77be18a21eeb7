"""An agent that was written from docs/protocol.md, with nothing but a WebSocket library.

    python -m agentorch_cli.chaos.agent ws://127.0.0.1:3001/agents agent-1 --slots 4 --journal agent-1.jsonl

Its journal has, each before the next step is taken:

    registered   the engine welcomed it: slots, and what it resumed and dropped
    received     work came in: message, task, attempt
    result       what is about to be sent: message, task, and `result` or `error`
    acked        the engine said that the result is durable
    cancelled    the engine said that the work is not wanted
    refused      the engine said that something was wrong
    submitted    a sub-task is stored: task, and the message of the work that asked
    finished     a sub-task has ended: task, status
    voted        what is about to be said to a question: decision, vote

With `--forget` it knows nothing of its past when it starts; otherwise it reads its journal, and sends again
what was never acknowledged, as the protocol asks of an agent that keeps its results.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from agentorch_cli.chaos.behaviour import (
    CAPABILITY,
    Refused,
    children_of,
    chosen,
    result_of,
    seconds_of,
    usage_of,
)
from agentorch_cli.chaos.journal import Entry, Journal, read

LONGEST_PAUSE = 1.0
"""Seconds between two attempts to connect."""

CONNECT_SECONDS = 5.0
"""For a connection and its welcome: through a broken network neither comes by itself."""

SILENCE_SECONDS = 4.0
"""Without an answer to a ping for so long the connection is taken for dead."""

Frame = dict[str, Any]


class Writes(Protocol):
    """What an agent needs of its journal."""

    def write(self, *entries: Entry) -> None: ...


class ChaosAgent:
    """One agent, over any number of connections."""

    def __init__(self, agent_id: str, journal: Writes, *, slots: int = 1, batch: bool = True) -> None:
        self.agent_id = agent_id
        self.slots = slots
        self.batch = batch
        self.journal = journal
        self.is_registered = asyncio.Event()
        self._outcomes: dict[str, Frame] = {}
        """Results without an ack, by message."""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._over: set[str] = set()
        """Work that was acknowledged or called off."""
        self._requests: dict[str, tuple[Frame, asyncio.Future[Frame]]] = {}
        """Sub-tasks that were asked for, by request id, until they have ended."""
        self._outbox: asyncio.Queue[Frame] = asyncio.Queue()

    def remember(self, past: Path) -> None:
        """Take up what an earlier process of this agent sent without hearing of it again."""
        if not past.exists():
            return
        for entry in read(past):
            message = entry.get("message", "")
            if entry["what"] == "result":
                frame = {"type": "task_result", "messageId": message, "taskId": entry["task"]}
                kind = "error" if "error" in entry else "result"
                self._outcomes[message] = {**frame, kind: entry[kind]}
            elif entry["what"] in ("acked", "cancelled", "refused"):
                self._outcomes.pop(message, None)
                self._over.add(message)

    # --- the connection ---------------------------------------------------------------------

    async def run(self, url: str) -> None:
        """For ever; a connection that breaks is replaced."""
        pause = 0.05
        while True:
            try:
                async with self._connected(url) as connection:
                    pause = 0.05
                    await self._converse(connection)
            except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake):
                pass
            self.is_registered.clear()
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause = min(LONGEST_PAUSE, pause * 2)

    @contextlib.asynccontextmanager
    async def _connected(self, url: str) -> AsyncIterator[ClientConnection]:
        async with (
            asyncio.timeout(None) as limit,
            connect(
                url,
                compression=None,
                max_size=None,
                open_timeout=CONNECT_SECONDS,
                close_timeout=0.5,
                ping_interval=SILENCE_SECONDS / 2,
                ping_timeout=SILENCE_SECONDS / 2,
            ) as connection,
        ):
            limit.reschedule(asyncio.get_running_loop().time() + CONNECT_SECONDS)
            await connection.send(json.dumps(self._register()))
            welcome, *rest = _frames(await connection.recv())
            while welcome["type"] != "registered":
                self.journal.write({"what": "refused", "code": welcome.get("code")})
                welcome, *rest = _frames(await connection.recv())
            limit.reschedule(None)
            self._welcomed(welcome)
            self._take(rest)
            yield connection

    def _register(self) -> Frame:
        return {
            "type": "register",
            "agentId": self.agent_id,
            "agentType": "chaos",
            "capabilities": [CAPABILITY],
            "slots": self.slots,
            "batch": self.batch,
            "protocol": 1,
            "resume": sorted({*self._outcomes, *self._running}),
        }

    def _welcomed(self, frame: Frame) -> None:
        resumed, dropped = frame["resumed"], frame["dropped"]
        self.journal.write(
            {"what": "registered", "slots": self.slots, "resumed": resumed, "dropped": dropped}
        )
        for message in dropped:
            self._stop(message)
        while not self._outbox.empty():  # of the connection before; what must not be lost is kept besides
            self._outbox.get_nowait()
        for outcome in self._outcomes.values():
            self._outbox.put_nowait(outcome)
        for request, _ in self._requests.values():
            self._outbox.put_nowait(request)
        self.is_registered.set()

    async def _converse(self, connection: ClientConnection) -> None:
        writing = asyncio.create_task(self._write(connection))
        try:
            async for raw in connection:
                self._take(_frames(raw))
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _write(self, connection: ClientConnection) -> None:
        while True:
            frames = [await self._outbox.get()]
            while not self._outbox.empty():
                frames.append(self._outbox.get_nowait())
            if self.batch:
                await connection.send(json.dumps(frames))
            else:
                for frame in frames:
                    await connection.send(json.dumps(frame))

    # --- what comes in ----------------------------------------------------------------------

    def _take(self, frames: list[Frame]) -> None:
        """Handle what came in one message: written down first, with one wait for the disk."""
        entries: list[Entry] = []
        begun: list[Frame] = []
        for frame in frames:
            match frame["type"]:
                case "ack":
                    entries.append({"what": "acked", "message": frame["messageId"]})
                    self._outcomes.pop(frame["messageId"], None)
                    self._over.add(frame["messageId"])
                case "error":
                    entries.append(self._refused(frame))
                case "agent_message" if frame["messageType"] == "execute_task":
                    data, message = frame["data"], frame["messageId"]
                    what = {"what": "received", "message": message, "task": data["taskId"]}
                    entries.append({**what, "attempt": data["attempt"], "inputs": sorted(data["inputs"])})
                    begun.append(frame)
                case "agent_message" if frame["messageType"] == "cancel_task":
                    entries.append({"what": "cancelled", "message": frame["data"]["messageId"]})
                    self._stop(frame["data"]["messageId"])
                case "agent_message" if frame["messageType"] == "consensus_request":
                    entries.append(self._vote(frame["data"]))
                case "agent_message" if frame["messageType"].startswith("subtask_"):
                    entries.append(self._heard_of(frame["messageType"], frame["data"]))
        self.journal.write(*entries)
        for frame in begun:
            self._begin(frame)

    def _refused(self, frame: Frame) -> Entry:
        message, request = frame.get("messageId"), frame.get("requestId")
        if message is not None:
            self._outcomes.pop(message, None)
            self._over.add(message)
        if request in self._requests and frame["code"] != "database_unreachable":
            answered = self._requests.pop(request)[1]
            if not answered.done():
                answered.set_exception(Refused(is_fatal=False))
        return {"what": "refused", "message": message, "code": frame["code"], "text": frame["message"]}

    def _heard_of(self, kind: str, data: Frame) -> Entry:
        """News of a sub-task."""
        request, ended = self._requests.get(data["requestId"], ({}, None))
        parent = request.get("parentMessageId")
        if kind == "subtask_submitted":
            return {"what": "submitted", "task": data["taskId"], "message": parent}
        self._requests.pop(data["requestId"], None)
        if ended is not None and not ended.done():
            ended.set_result(data)
        return {"what": "finished", "task": data["taskId"], "status": data["status"], "message": parent}

    def _vote(self, question: Frame) -> Entry:
        """Asked again, it says the same again."""
        decision, options = question["decisionId"], question["options"]
        vote = options[chosen(self.agent_id, 0, len(options))]
        self._outbox.put_nowait({"type": "consensus_vote", "decisionId": decision, "vote": vote})
        return {"what": "voted", "decision": decision, "vote": vote}

    def _begin(self, frame: Frame) -> None:
        """Do work once, however often it comes; a result that is known already is sent again."""
        message = frame["messageId"]
        if message in self._outcomes:
            self._outbox.put_nowait(self._outcomes[message])
        elif message not in self._running and message not in self._over:
            self._outbox.put_nowait({"type": "task_accepted", "messageId": message})
            running = asyncio.create_task(self._do(message, frame["data"]))
            self._running[message] = running
            running.add_done_callback(lambda _: self._running.pop(message, None))

    def _stop(self, message: str) -> None:
        self._over.add(message)
        self._outcomes.pop(message, None)
        running = self._running.pop(message, None)
        if running is not None:
            running.cancel()

    # --- the work ---------------------------------------------------------------------------

    async def _do(self, message: str, work: Frame) -> None:
        data = work["task"].get("data") or {}
        outcome: Frame = {"type": "task_result", "messageId": message, "taskId": work["taskId"]}
        try:
            await asyncio.sleep(seconds_of(self.agent_id, data))
            await self._have_children_done(message, work["taskId"], data)
            outcome["result"] = result_of(self.agent_id, message, work["attempt"], data)
        except Refused as error:
            outcome["error"] = error.to_wire()
        usage = usage_of(data)
        if usage is not None:
            outcome["usage"] = usage
        kind = "error" if "error" in outcome else "result"
        self.journal.write(
            {"what": "result", "message": message, "task": work["taskId"], kind: outcome[kind]}
        )
        self._outcomes[message] = outcome
        self._outbox.put_nowait(outcome)

    async def _have_children_done(self, message: str, task_id: str, data: Frame) -> None:
        asked = [self._ask(message, task) for task in children_of(task_id, data)]
        try:
            for ended in asked:
                await ended
        finally:
            for request, (frame, _) in list(self._requests.items()):
                if frame["parentMessageId"] == message:
                    del self._requests[request]

    def _ask(self, message: str, task: Frame) -> asyncio.Future[Frame]:
        request: Frame = {
            "type": "submit_task",
            "requestId": f"{message}/{task['idempotency_key']}"[-200:],
            "parentMessageId": message,
            "task": task,
            "waitFor": True,
        }
        ended: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._requests[request["requestId"]] = (request, ended)
        self._outbox.put_nowait(request)
        return ended


def _frames(raw: str | bytes) -> list[Frame]:
    """What came in one message: a frame, or an array of them where that was asked for."""
    found = json.loads(raw)
    return found if isinstance(found, list) else [found]


async def _main(arguments: argparse.Namespace) -> None:
    agent = ChaosAgent(
        arguments.agent_id, Journal(arguments.journal), slots=arguments.slots, batch=not arguments.one_by_one
    )
    if not arguments.forget:
        agent.remember(arguments.journal)
    running = asyncio.create_task(agent.run(arguments.url))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main() -> None:
    parser = argparse.ArgumentParser(prog="agentorch_cli.chaos.agent")
    parser.add_argument("url")
    parser.add_argument("agent_id")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--forget", action="store_true")
    parser.add_argument("--one-by-one", action="store_true")
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
