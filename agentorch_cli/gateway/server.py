"""The WebSocket server: agents come in on `/agents`; health and metrics answer plain HTTP.

A frame is decoded once. The frames of the hot path (`task_result` above all) are checked by
hand; whatever does not look right goes through the models of `frames`, which say what is
wrong with it. An agent's identity is its session's: no frame can speak for another.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import UUID
from weakref import WeakSet, WeakValueDictionary

import orjson
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from agentorch_cli.bursts import receive
from agentorch_cli.core.model import AgentSpec, AttemptStatus
from agentorch_cli.errors import (
    DatabaseUnreachable,
    InvalidMessage,
    NotAllowed,
    OrchestratorError,
    PortTaken,
    Unauthorized,
)
from agentorch_cli.frames import ErrorBody, Register, read_frame
from agentorch_cli.gateway.keys import INSIDE, Caller, Keys, Rate, refuse_agent
from agentorch_cli.gateway.page import page_of
from agentorch_cli.gateway.reading import SMALL_BYTES, Reader
from agentorch_cli.gateway.session import Session, close, error_frame
from agentorch_cli.gateway.wire import Wire
from agentorch_cli.identity import new_id, new_id_text
from agentorch_cli.logs import facts
from agentorch_cli.payloads import decode
from agentorch_cli.store.records import Delivery

log = logging.getLogger("agentorch.gateway")

library_log = logging.getLogger("agentorch.websockets")
library_log.setLevel(logging.CRITICAL)  # it logs every broken handshake of a stranger with a traceback

TURN = 64
"""Frames of one agent that are handled before others get their turn."""

MOST_REFUSED = 100
"""Wrong items of one array after which the rest is not looked at."""

UUID_LENGTH = 36

DECLINED = "declined"
"""The code of an error that is none: the agent does not want the work, and somebody else may."""

MOST_READ_AHEAD = 8
"""Frames of a connection that are read before they are handled; each may have max_message_bytes."""

PLAIN = "text/plain; charset=utf-8"

_PATHS = "there is /agents, /control, /ui, /healthz, /readyz, /metrics, /names/KIND\n"

_UNKNOWN_NAME = (
    "this server does not go by that name; where it is one of its names, add it to gateway.allowed_hosts\n"
)

REFUSAL_PAUSE = 0.005
"""Seconds that an agent waits after each frame that was refused: a flood of them slows itself only."""


class Desk(Protocol):
    """What the gateway asks of the engine; see `engine.desk`."""

    async def welcome(self, agent: AgentSpec, session_id: UUID, resume: Sequence[str]) -> Any: ...

    def leaves(self, agent_id: str, session_id: UUID, *, for_good: bool) -> None: ...

    def heard_from(self, agent_id: str) -> None: ...

    def accepted(self, agent_id: str, message_id: str) -> bool: ...

    def progressed(
        self,
        agent_id: str,
        message_id: str,
        progress: float | None,
        note: str | None,
        usage: str | None = None,
    ) -> bool: ...

    def ended(self, report: Any) -> None: ...

    async def room(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Door:
    """The gateway's settings; durations in seconds."""

    host: str = "127.0.0.1"
    port: int = 3001
    max_message_bytes: int = 1024 * 1024
    heartbeat_interval: float = 10.0
    register_timeout: float = 10.0
    most_connections: int = 10_000
    frames_per_second: int = 5_000
    """Of one connection, besides what work is good for; one that sends more is read more slowly."""
    allowed_hosts: frozenset[str] = frozenset()
    """Names by which this server may be called, besides addresses, localhost and the machine's name."""
    tls: ssl.SSLContext | None = None


PROTECTED_PAGES = ("/metrics", "/names/")
"""Pages (and what is below them) that want a token with the scope `read`, where tokens are wanted."""


Reports = Callable[..., Any]
Answer = Callable[[], Awaitable[tuple[int, str, str]]]
"""Gives (status, content type, body) of a plain HTTP page."""
Submit = Callable[[Session, Any], None]
Vote = Callable[[Session, Any], Awaitable[None]]
Converse = Callable[[ServerConnection, str | None], Awaitable[None]]
"""Serves a control connection; the text is the token that its upgrade request showed."""


class Gateway:
    """The server, and the sessions by agent."""

    def __init__(self, door: Door, engine_id: str, *, report: Reports) -> None:
        self.door = door
        self.engine_id = engine_id
        self.desk: Desk | None = None
        self.keys: Keys | None = None
        self.sessions: dict[str, Session] = {}
        self.pages: dict[str, Answer] = {}
        self.on_submit: Submit | None = None
        self.on_vote: Vote | None = None
        self.on_control: Converse | None = None
        self.reader = Reader()
        self._report = report
        self._server: Server | None = None
        self._watch: asyncio.Task[None] | None = None
        self._open = 0
        self._behind: WeakSet[ServerConnection] = WeakSet()
        """Connections of agents behind the hub, which answers for them."""
        self._entrances: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """One agent id registers at a time: who comes last must also be last in the registry."""
        self._errands: set[asyncio.Task[None]] = set()
        self.is_closing = False
        own = (socket.gethostname(), door.host, "localhost")
        self._names = {name.lower().rstrip(".") for name in (*own, *door.allowed_hosts)}

    # --- the server -------------------------------------------------------------------------

    async def bind(self) -> int:
        """Take the port; connections wait until `desk` is set. Raises PortTaken."""
        try:
            self._server = await serve(
                self._handle,
                self.door.host,
                self.door.port,
                process_request=self._process_request,
                create_connection=Wire,
                compression=None,
                max_size=self.door.max_message_bytes,
                max_queue=MOST_READ_AHEAD,
                ping_interval=None,
                close_timeout=2,
                open_timeout=self.door.register_timeout,
                server_header=None,
                ssl=self.door.tls,
                logger=library_log,
            )
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                raise PortTaken(
                    f"cannot listen on {self.door.host}:{self.door.port}: {os.strerror(error.errno).lower()}",
                    hint="is another serve running there? else choose a free port",
                    fix="agentorch serve --port 3002",
                ) from error
            raise
        self._watch = asyncio.create_task(self._watch_silence(), name="silence")
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Say goodbye to everybody and stop listening."""
        self.is_closing = True
        if self._watch is not None:
            self._watch.cancel()
        if self._server is not None:
            self._server.close(close_connections=False)
            await asyncio.gather(*(s.close(1001, "the engine stops") for s in list(self.sessions.values())))
            self._server.close()
            try:
                async with asyncio.timeout(3):
                    await self._server.wait_closed()
            except TimeoutError:
                for connection in list(self._server.connections):
                    connection.transport.abort()

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        hosts = request.headers.get_all("Host")
        if not _is_named(hosts, self._names):
            return _page(403, PLAIN, _UNKNOWN_NAME)
        if path in self.pages:
            if path.startswith(PROTECTED_PAGES) and (refusal := await self._refuse_page(request)):
                return refusal
            try:
                status, kind, body = await self.pages[path]()
            except Exception:
                log.exception("the page %s failed", path)
                status, kind, body = (
                    500,
                    PLAIN,
                    "this page failed; see the server's log\n",
                )
            return _page(status, kind, body)
        if path not in ("/agents", "/control"):
            if (part := page_of(path, request)) is not None:
                return part
            return _page(404, PLAIN, _PATHS)
        if _is_foreign(request.headers.get_all("Origin"), hosts):
            return _page(403, PLAIN, "pages of other sites may not connect here\n")
        if self.is_closing or self.desk is None or self._open >= self.door.most_connections:
            return _page(503, PLAIN, "not now; try again in a moment\n")
        if isinstance(connection, Wire) and await self._may_bring_much(request):
            connection.let_in()
        return None

    async def _may_bring_much(self, request: Request) -> bool:
        """Whether this is no stranger; who shows its token later is let in then."""
        if not self._keys.is_required:
            return True
        try:
            return bool(shown := shown_token(request.headers)) and bool(await self._keys.admit(shown))
        except Unauthorized:
            return False
        except OrchestratorError:
            return True  # nobody knows at the moment, and it will be asked again

    async def _refuse_page(self, request: Request) -> Response | None:
        """The answer to somebody who may not see this page."""
        if self.keys is None:
            return _page(503, PLAIN, "not now; try again in a moment\n")
        try:
            caller = await self.keys.admit(shown_token(request.headers))
        except Unauthorized as error:
            return _page(401, PLAIN, f"{error}\n")
        except OrchestratorError as error:
            return _page(503, PLAIN, f"{error}\n")
        return None if caller.may("read") else _page(403, PLAIN, "this token has no scope read\n")

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self._open += 1
        try:
            if connection.request.path.partition("?")[0] == "/control":
                if self.on_control is None:
                    await connection.close(1008, "this engine has no control endpoint")
                else:
                    await self.on_control(connection, shown_token(connection.request.headers))
            else:
                await self._receive_agent(connection)
        except ConnectionClosed:
            pass
        except Exception:
            log.exception("a connection failed")
            await close(connection, 1011, "something went wrong here")
        finally:
            self._open -= 1

    # --- one agent --------------------------------------------------------------------------

    async def receive_behind_hub(self, connection: Any) -> None:
        """Serve an agent whose connection is a part of the hub's; see `gateway.hub`."""
        self._behind.add(connection)
        try:
            await self._receive_agent(connection)
        except ConnectionClosed:
            pass
        except Exception:
            log.exception("a connection behind the hub failed")

    async def _receive_agent(self, connection: ServerConnection) -> None:
        session = await self._register(connection)
        if session is None:
            return
        rate = Rate(self.door.frames_per_second)
        try:
            while not session.is_leaving and not session.is_barred:
                burst = await receive(connection)
                self._hear(session)
                await self._take_burst(session, burst, rate)
                await self._room(session)
        finally:
            self._keys.closed(session.caller, session)
            await session.stop_writing()
            self._forget(session)
        if session.is_leaving:
            await session.close(1000, "goodbye")

    def _forget(self, session: Session) -> None:
        """The session has ended; where it was not replaced, its agent is gone."""
        if self.sessions.get(session.agent_id) is session:
            del self.sessions[session.agent_id]
            self._desk.leaves(session.agent_id, session.session_id, for_good=session.is_leaving)

    async def _register(self, connection: ServerConnection) -> Session | None:
        """The first frame must be a valid `register`, in time."""
        try:
            async with asyncio.timeout(self.door.register_timeout):
                while True:
                    raw = await connection.recv()
                    try:
                        frame = await self._read(raw)
                        first = frame[0] if isinstance(frame, list) and len(frame) == 1 else frame
                        register = read_frame(first)
                        if isinstance(register, Register):
                            break
                        raise InvalidMessage("the first frame must be register")
                    except InvalidMessage as error:
                        await connection.send(error_frame(error.code, str(error)), text=True)
                        await asyncio.sleep(REFUSAL_PAUSE)
        except TimeoutError:
            await close(connection, 1008, "register within the time limit")
            return None
        try:
            caller = await self._authenticate(connection, register)
        except OrchestratorError as error:
            log.warning(
                "agent %r is refused: %s", register.agent_id, error, extra=facts(agent=register.agent_id)
            )
            await connection.send(error_frame(error.code, error.message), text=True)
            code = 1013 if isinstance(error, DatabaseUnreachable) else 1008
            await close(connection, code, "try again in a moment" if code == 1013 else error.message)
            return None
        entrance = self._entrances.setdefault(register.agent_id, asyncio.Lock())
        async with entrance:
            return await self._admit(connection, register, caller)

    async def _authenticate(self, connection: ServerConnection, register: Register) -> Caller:
        """Who this is. Raises Unauthorized, and NotAllowed where the token is for another agent."""
        if connection in self._behind:
            return INSIDE
        assert connection.request is not None
        shown = shown_token(connection.request.headers)
        caller = await self._keys.admit(shown if shown is not None else register.token)
        refuse_agent(caller, register.agent_id)
        if isinstance(connection, Wire):
            connection.let_in()
        return caller

    async def _admit(
        self, connection: ServerConnection, register: Register, caller: Caller
    ) -> Session | None:
        agent = AgentSpec(
            agent_id=register.agent_id,
            type=register.agent_type,
            capabilities=tuple(dict.fromkeys(register.capabilities)),
            slots=register.slots,
            pool=register.pool,
            metadata=register.metadata,
            prefetch=register.prefetch,
        )
        session = Session(connection, agent, new_id(), batch=register.batch, caller=caller)
        old = self.sessions.get(agent.agent_id)
        self.sessions[agent.agent_id] = session
        if old is not None:
            log.info(
                "agent %r connected anew; its old session ends",
                agent.agent_id,
                extra=facts(agent=agent.agent_id),
            )
            self._run(old.close(1008, "this agent connected anew"))
        try:
            welcome = await self._desk.welcome(agent, session.session_id, register.resume)
        except BaseException as error:
            if old is not None:
                self._desk.leaves(agent.agent_id, old.session_id, for_good=False)
            self._forget(session)
            if not isinstance(error, OrchestratorError):
                raise
            log.warning(
                "agent %r cannot register: %s", agent.agent_id, error, extra=facts(agent=agent.agent_id)
            )
            await connection.send(error_frame(error.code, error.message), text=True)
            code = 1013 if isinstance(error, DatabaseUnreachable) else 1008
            await close(connection, code, "try again in a moment" if code == 1013 else error.message)
            return None
        self._keys.opened(caller, session, lambda reason: self._bar(session, reason))
        for delivery in welcome.send:
            session.execute(delivery)
        if welcome.is_draining:
            self.drain_agent(agent.agent_id)
        session.open(
            orjson.dumps(
                {
                    "type": "registered",
                    "engineId": self.engine_id,
                    "agentId": agent.agent_id,
                    "heartbeatInterval": self.door.heartbeat_interval,
                    "resumed": welcome.resumed,
                    "dropped": welcome.dropped,
                }
            )
        )
        return session

    def _bar(self, session: Session, reason: str) -> None:
        """The session's token has ended: nothing more of it is taken."""
        log.info("agent %r: %s", session.agent_id, reason, extra=facts(agent=session.agent_id))
        session.is_barred = True
        self._run(close(session.connection, 1008, reason, seconds=1.0))

    def _run(self, errand: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for."""
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    @property
    def _desk(self) -> Desk:
        assert self.desk is not None
        return self.desk

    @property
    def _keys(self) -> Keys:
        assert self.keys is not None
        return self.keys

    def _hear(self, session: Session) -> None:
        """Something came from this agent."""
        session.last_heard = asyncio.get_running_loop().time()
        self._desk.heard_from(session.agent_id)
        self._keys.in_use(session.caller)

    async def _room(self, session: Session) -> None:
        """Returns once there is room for more of what this agent brings."""
        session.is_held = True
        await session.room()
        await self._desk.room()
        session.is_held = False
        session.last_heard = asyncio.get_running_loop().time()

    async def _take_burst(self, session: Session, burst: Sequence[str | bytes], rate: Rate) -> None:
        """Handle frames that came together, by as few steps as their kind allows."""
        for raw in burst:
            if session.is_barred or session.is_leaving:
                return
            if not session.was_due():
                await self._slow_down(session, rate)
            try:
                is_short = type(raw) is str and len(raw) <= SMALL_BYTES
                frame = decode(raw) if is_short else await self._read_long(session, raw)
                if isinstance(frame, list) and not session.batch:
                    raise InvalidMessage('arrays are for agents that register with "batch": true')
            except InvalidMessage as error:
                session.refuse(error.code, str(error))
                await session.pause(REFUSAL_PAUSE)
                continue
            if not self._take_result(session, frame):
                await self._take(session, frame)
                continue
            session.frames_taken += 1
            if session.frames_taken % TURN == 0:
                await asyncio.sleep(0)

    async def _slow_down(self, session: Session, rate: Rate) -> None:
        """A frame came that no work stands for: of those only so many are taken in a second."""
        session.last_heard = asyncio.get_running_loop().time()
        if pause := rate.take(session.last_heard):
            session.is_held = True
            await asyncio.sleep(pause)
            session.is_held = False

    async def _read_long(self, session: Session, raw: str | bytes) -> Any:
        session.is_held = True
        try:
            return await self._read(raw)
        finally:
            session.is_held = False

    async def _take(self, session: Session, frame: Any) -> None:
        """Handle what came in one frame. Nothing in it ends the session."""
        self._hear(session)
        refused = 0
        for one in frame if isinstance(frame, list) else (frame,):
            if not self._take_result(session, one):
                refused += not await self._take_one(session, one)
            session.frames_taken += 1
            if session.frames_taken % TURN == 0:
                await asyncio.sleep(0)
            if session.is_leaving or session.is_barred:
                return
            if refused == MOST_REFUSED:
                session.refuse(
                    "invalid_message", f"{refused} items of this array are wrong; its rest is passed over"
                )
                break
        await self._room(session)

    async def _read(self, raw: str | bytes) -> Any:
        return await self.reader.read(raw, max_bytes=len(raw) * 4)  # the library has checked the size

    async def _take_one(self, session: Session, frame: Any) -> bool:
        """Handle one frame; False where it was refused."""
        try:
            await self._take_checked(session, read_frame(frame))
            return True
        except OrchestratorError as error:
            message_id = frame.get("messageId") if isinstance(frame, dict) else None
            request_id = frame.get("requestId") if isinstance(frame, dict) else None
            session.refuse(
                error.code,
                error.message,
                message_id if isinstance(message_id, str) else None,
                request_id if isinstance(request_id, str) else None,
            )
            await session.pause(REFUSAL_PAUSE)
            return False

    def _take_result(self, session: Session, frame: Any) -> bool:
        """The common result, checked by hand; False where a closer look is needed."""
        if not isinstance(frame, dict) or frame.get("type") != "task_result":
            return False
        message_id, confidence, usage = frame.get("messageId"), frame.get("confidence"), frame.get("usage")
        if type(message_id) is not str or len(message_id) != UUID_LENGTH or "result" not in frame:
            return False
        if type(frame.get("taskId")) is not str or usage is not None or "error" in frame:
            return False
        if confidence is not None and not (type(confidence) in (int, float) and 0 <= confidence <= 1):
            return False
        self._bring(
            session,
            self._report(
                message_id,
                session.agent_id,
                AttemptStatus.COMPLETED,
                orjson.dumps(frame["result"]).decode(),
                None,
                confidence,
                task_id=frame["taskId"],
            ),
        )
        return True

    async def _take_checked(self, session: Session, frame: Any) -> None:
        if frame.type == "register":
            raise InvalidMessage("this connection is registered already")
        if getattr(frame, "agent_id", None) not in (None, session.agent_id):
            raise NotAllowed(f"{frame.type}: agentId: this connection is another agent's")
        match frame.type:
            case "agent_heartbeat":
                pass
            case "task_accepted":
                self._desk.accepted(session.agent_id, frame.message_id)
            case "task_progress":
                self._desk.progressed(
                    session.agent_id, frame.message_id, frame.progress, frame.note, _usage_of(frame)
                )
            case "task_result":
                self._bring(session, _report_of(self._report, session.agent_id, frame))
            case "unregister":
                session.is_leaving = True
            case "consensus_vote" if self.on_vote is not None:
                await self.on_vote(session, frame)
            case "submit_task" if self.on_submit is not None:
                self.on_submit(session, frame)
            case _:
                raise InvalidMessage(f"this engine takes no {frame.type}")

    def _bring(self, session: Session, report: Any) -> None:
        session.brought_result()
        self._desk.ended(report)

    # --- the engine's courier ---------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> bool:
        """Send work to its agent."""
        session = self.sessions.get(delivery.agent_id)
        if session is None:
            return False
        session.execute(delivery)
        return True

    def call_off(self, agent_id: str, message_id: str, task_id: str, reason: str) -> None:
        """Tell an agent to stop."""
        session = self.sessions.get(agent_id)
        if session is not None:
            session.message(
                new_id_text(), "cancel_task", {"taskId": task_id, "messageId": message_id, "reason": reason}
            )

    def acknowledge(self, agent_id: str, message_ids: Iterable[str]) -> None:
        """Results are durable."""
        session = self.sessions.get(agent_id)
        if session is not None:
            session.acknowledge(message_ids)

    def refuse(self, agent_id: str, code: str, message: str, message_id: str | None = None) -> None:
        """Tell an agent what was wrong with a result."""
        session = self.sessions.get(agent_id)
        if session is not None:
            session.refuse_result(code, message, message_id)

    def drain(self) -> None:
        """Tell all agents that no more will come: they finish what they hold."""
        for agent_id in self.sessions:
            self.drain_agent(agent_id)

    def drain_agent(self, agent_id: str) -> None:
        """Tell one agent the same."""
        session = self.sessions.get(agent_id)
        if session is not None:
            session.message(new_id_text(), "drain", {})

    def dismiss(self, agent_id: str, reason: str) -> None:
        """End an agent's session."""
        session = self.sessions.get(agent_id)
        if session is not None:
            session.refuse("not_found", reason)
            self._run(session.close(1008, reason))

    def supersede(self, agent_id: str) -> None:
        """End an agent's session without a word to the engine: it has a newer one, on another node."""
        session = self.sessions.pop(agent_id, None)
        if session is not None:
            log.info(
                "agent %r connected to another node; its session here ends",
                agent_id,
                extra=facts(agent=agent_id),
            )
            self._run(session.close(1008, "this agent connected anew"))

    def session_of(self, agent_id: str) -> Session | None:
        """The session of an agent that is connected here."""
        return self.sessions.get(agent_id)

    def connected(self) -> list[str]:
        """The agents that are connected here."""
        return list(self.sessions)

    # --- silence ----------------------------------------------------------------------------

    async def _watch_silence(self) -> None:
        """For ever: ping who has said nothing for one interval, close who has been silent for three."""
        interval, loop = self.door.heartbeat_interval, asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(interval)
            now = loop.time()
            lag = now - before - interval  # while this process was stopped or busy it could not hear
            for session in self.sessions.values():
                session.last_heard += lag
                silent = now - session.last_heard
                if session.is_held:
                    continue
                if silent > 3 * interval:
                    log.warning(
                        "agent %r has been silent for %.0f s",
                        session.agent_id,
                        silent,
                        extra=facts(agent=session.agent_id),
                    )
                    self._run(session.close(1011, "silent for too long"))
                elif silent > 0.9 * interval:
                    self._run(self._ping(session))

    async def _ping(self, session: Session) -> None:
        try:
            async with asyncio.timeout(1):
                pong = await session.connection.ping()
        except (ConnectionClosed, TimeoutError, OSError):
            return

        def heard(_: Any) -> None:
            if not pong.cancelled() and pong.exception() is None:  # type: ignore[attr-defined]
                session.last_heard = asyncio.get_running_loop().time()
                self._desk.heard_from(session.agent_id)

        pong.add_done_callback(heard)  # type: ignore[attr-defined]


def _report_of(report: Reports, agent_id: str, frame: Any) -> Any:
    error: ErrorBody | None = frame.error
    usage = _usage_of(frame)
    if error is None:
        if "result" not in frame.model_fields_set:
            raise InvalidMessage('task_result: it has neither "result" nor "error"', field="result")
        return report(
            frame.message_id,
            agent_id,
            AttemptStatus.COMPLETED,
            orjson.dumps(frame.result).decode(),
            None,
            frame.confidence,
            usage,
            task_id=frame.task_id,
        )
    is_declined = error.code == DECLINED
    told = {"code": error.code or "failed", "message": error.message, "retryable": error.retryable}
    if is_declined:
        told |= {"message": f"agent {agent_id} declined it: {error.message}", "retryable": True}
    return report(
        frame.message_id,
        agent_id,
        AttemptStatus.CANCELLED if is_declined else AttemptStatus.FAILED,
        None,
        told,
        frame.confidence,
        usage,
        task_id=frame.task_id,
    )


def _usage_of(frame: Any) -> str | None:
    """What a frame says was used, as JSON text."""
    if frame.usage is None:
        return None
    return orjson.dumps(frame.usage.model_dump(exclude_none=True)).decode()


def shown_token(headers: Headers) -> str | None:
    """The token of an `Authorization: Bearer TOKEN` header; empty where the header is of another kind."""
    shown = headers.get_all("Authorization")
    if not shown:
        return None
    kind, _, token = shown[0].strip().partition(" ")
    return token.strip() if kind.lower() == "bearer" and len(shown) == 1 else ""


def _is_named(hosts: Sequence[str], names: Collection[str]) -> bool:
    """Whether the request is for this server: by an address, or by a name that is its own.

    Any name can be made to point here by whoever owns it (DNS rebinding); a page under such a name
    would be taken by a browser for one of this server's.
    """
    if len(hosts) != 1:
        return False
    try:
        name = (urlsplit(f"//{hosts[0]}").hostname or "").lower().rstrip(".")
        if name in names:
            return True
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_foreign(origins: Sequence[str], hosts: Sequence[str]) -> bool:
    """Whether a browser asks on behalf of another site's page; programs need not send an Origin.

    A page may connect only to where it came from. That this is no name which somebody else has made
    to point here (DNS rebinding: origin and host agree then) was seen before, by the host.
    """
    if not origins:
        return False
    if len(origins) != 1 or len(hosts) != 1:
        return True
    try:
        page = urlsplit(origins[0])
    except ValueError:
        return True
    return page.netloc != hosts[0] or page.scheme not in ("http", "https")


def _page(status: int, kind: str, body: str) -> Response:
    content = body.encode()
    headers = Headers(
        [
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Connection", "close"),
            ("X-Content-Type-Options", "nosniff"),
        ]
    )
    return Response(status, HTTPStatus(status).phrase, headers, content)
