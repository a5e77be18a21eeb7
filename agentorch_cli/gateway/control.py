"""The control endpoint: every operation of the program, as JSON-RPC 2.0 over a WebSocket.

One conversation per connection. Requests are worked on side by side, a bounded number at a time;
what comes beyond that waits in the network, so nobody's haste fills our memory. Events of a
subscription are read from the log when the last ones have been taken, never ahead: a consumer
that is slow falls behind in the log and not in here, and one that takes nothing at all is cut
off. Either goes on from the cursor of the last event that it saw.

Whoever comes with an `Origin` is a browser, and may only read, whatever its token allows: the page of
`/ui` has nothing to change, so a script that got into it should have nothing either. Pages are told
that something has happened, not what, and then ask for what they show; those that ask the same at the
same time get one answer. So an open page costs the same in a storm of events as on a busy day.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import asyncpg
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from agentorch_cli import __version__, views
from agentorch_cli.errors import (
    InvalidMessage,
    NotAllowed,
    NotFound,
    OrchestratorError,
    Unauthorized,
    UsageError,
)
from agentorch_cli.frames import PROTOCOL_VERSION
from agentorch_cli.gateway.drawing import MOST_DRAWN, drawn
from agentorch_cli.gateway.keys import Caller, Keys, Rate
from agentorch_cli.gateway.reading import Reader
from agentorch_cli.gateway.session import close
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.access import ACCESS, SUBSCRIBE, WAITS, Access
from agentorch_cli.handlers.events import event_view
from agentorch_cli.handlers.wire import Operation, operation, read_parameters, write_answer
from agentorch_cli.payloads import decode
from agentorch_cli.redaction import redact, redact_value
from agentorch_cli.sentences import explain
from agentorch_cli.store.following import Filter, Pulse, follow, now_cursor, read_cursor

log = logging.getLogger("agentorch.gateway")

STRANGER_BYTES = 65_536
"""Largest frame of somebody who has not said who it is."""

LOOKER_BYTES = 4_194_304
"""Largest request of who may not submit: only submissions bring files of any size, and a frame costs
memory and time before it is known what it asks for."""

PAGE_BYTES = 1_048_576
"""Of a list that is sent in pieces."""

PING_EVERY = 20.0
PONG_LIMIT = 20.0

PARSE_ERROR, INVALID_REQUEST, NO_METHOD, INVALID_PARAMS, INTERNAL, OURS = (
    -32700,
    -32600,
    -32601,
    -32602,
    -32603,
    -32000,
)


@dataclass(frozen=True, slots=True)
class ControlLimits:
    """What one control connection may do; durations in seconds."""

    max_bytes: int = 134_217_728
    most_requests: int = 64
    most_subscriptions: int = 16
    frames_per_second: int = 5_000
    hello_timeout: float = 10.0
    send_timeout: float = 10.0
    allow_exec: bool = False
    """Whether agents that run a command here may be registered."""
    task_defaults: Mapping[str, Any] = field(default_factory=dict)


class _Params(BaseModel):
    """Parameters of what belongs to the connection; camelCase is taken too."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


P = TypeVar("P", bound=_Params)

Reading = Callable[[], Coroutine[Any, Any, Any]]


class Hello(_Params):
    """Who calls."""

    version: str | None = Field(default=None, max_length=200)
    token: str | None = Field(default=None, max_length=1_000)
    pages: bool = False
    """Lists may come in pieces: `page` notifications, then the rest as the result."""


class Subscribe(_Params):
    """Which events are wanted, and from where on."""

    kinds: list[str] | None = Field(default=None, max_length=100)
    task_id: str | None = Field(default=None, max_length=200)
    agent_id: str | None = Field(default=None, max_length=200)
    cursor: str | None = Field(default=None, max_length=100)
    hints: bool = False
    """Only say that the log has moved, a few times a second at most."""


class Unsubscribe(_Params):
    """The end of a subscription."""

    subscription: int


class Picture(_Params):
    """What is to be drawn: for pages, which draw nothing themselves."""

    of: Literal["task.graph", "task.timeline"]
    task_id: str = Field(max_length=200)


class Control:
    """What all conversations of this node share."""

    def __init__(
        self, context: Context, keys: Keys, limits: ControlLimits, engine_id: str, reader: Reader
    ) -> None:
        self.context = context
        self.keys = keys
        self.limits = limits
        self.engine_id = engine_id
        self.reader = reader
        self.pulse = Pulse(context.db)
        self.conversations: set[Conversation] = set()
        self._reads: dict[tuple[str, str], asyncio.Task[Any]] = {}

    async def read_once(self, method: str, given: Mapping[str, Any], read: Reading) -> Any:
        """The answer to a question that several may ask at the same time: all get the same one."""
        key = (method, json.dumps(given, sort_keys=True))
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(read(), name=f"read {method}")

            def done(read: asyncio.Task[Any]) -> None:
                del self._reads[key]
                if not read.cancelled():
                    read.exception()  # all who asked may have gone

            task.add_done_callback(done)
        return await asyncio.shield(task)

    async def converse(self, connection: ServerConnection, token: str | None) -> None:
        """Serve one connection to its end. `token`: as its upgrade request showed it."""
        conversation = Conversation(self, connection)
        self.conversations.add(conversation)
        try:
            await conversation.run(token)
        finally:
            self.conversations.discard(conversation)


class Conversation:
    """One connection of the control endpoint."""

    def __init__(self, control: Control, connection: ServerConnection) -> None:
        self.control = control
        self.connection = connection
        self.caller: Caller | None = None
        self._takes_pages = False
        self._room = asyncio.Semaphore(control.limits.most_requests)
        self._work: set[asyncio.Task[None]] = set()
        self._subscriptions: dict[int, asyncio.Task[None]] = {}
        self._next_subscription = 1
        self._is_over = False
        request = connection.request
        self.is_browser = request is not None and "Origin" in request.headers

    async def run(self, token: str | None) -> None:
        """Until the connection ends."""
        keys = self.control.keys
        pinging = asyncio.create_task(self._ping(), name="control ping")
        try:
            try:
                first = await self._authenticate(token)
            except OrchestratorError as error:
                await self._send(_error(None, OURS, error))
                await close(self.connection, 1008, error.message)
                return
            assert self.caller is not None
            self.connection.protocol.max_message_size = self._max_bytes
            keys.opened(self.caller, self, self._hang_up)
            await self._listen(first)
        except ConnectionClosed:
            pass
        finally:
            self._is_over = True
            if self.caller is not None:
                keys.closed(self.caller, self)
            left = [pinging, *self._work, *self._subscriptions.values()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _authenticate(self, token: str | None) -> Any:
        """Know the caller, by the upgrade request or by a first `hello`; gives that frame, if it was read."""
        if token is not None or not self.control.keys.is_required:
            self.caller = self._limited(await self.control.keys.admit(token))
            return None
        self.connection.protocol.max_message_size = STRANGER_BYTES
        try:
            async with asyncio.timeout(self.control.limits.hello_timeout):
                raw = await self.connection.recv()
        except TimeoutError:
            raise Unauthorized("say hello with a token within the time limit") from None
        frame = decode(raw, max_bytes=STRANGER_BYTES) if isinstance(raw, str) else None
        params = frame.get("params") if isinstance(frame, dict) and frame.get("method") == "hello" else None
        shown = params.get("token") if isinstance(params, dict) else None
        self.caller = self._limited(await self.control.keys.admit(shown if isinstance(shown, str) else None))
        return raw

    @property
    def _max_bytes(self) -> int:
        """Of one request of this caller."""
        most = self.control.limits.max_bytes
        return most if self.caller is not None and self.caller.may("submit") else min(most, LOOKER_BYTES)

    def _limited(self, caller: Caller) -> Caller:
        return caller.only_reading() if self.is_browser else caller

    def _hang_up(self, reason: str) -> None:
        """The token has ended: nothing more is read, and the connection is closed."""
        self._is_over = True
        task = asyncio.create_task(close(self.connection, 1008, reason, seconds=1.0))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    # --- requests ---------------------------------------------------------------------------

    async def _listen(self, first: Any) -> None:
        rate, clock = Rate(self.control.limits.frames_per_second), asyncio.get_running_loop().time
        if first is not None:
            await self._take(first)
        async for raw in self.connection:
            if self._is_over:
                return
            if pause := rate.take(clock()):
                await asyncio.sleep(pause)
            await self._take(raw)

    async def _take(self, raw: str | bytes) -> None:
        """Work on a request beside the others, once there is room."""
        await self._room.acquire()
        assert self.caller is not None
        self.control.keys.in_use(self.caller)
        task = asyncio.create_task(self._answer(raw), name="control request")
        self._work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._room.release()

    async def _answer(self, raw: str | bytes) -> None:
        request_id: Any = None
        is_asked = True
        try:
            request = await self._decoded(raw)
            request_id, method, params, is_asked = _request(request)
            result = await self._call(method, params)
            if is_asked:
                await self._reply(request_id, result)
            if isinstance(result, _Begun):
                result.begin()
        except ConnectionClosed:
            pass
        except _Refused as refused:
            await self._send_if(is_asked, _error(request_id, refused.code, refused.error))
        except OrchestratorError as error:
            await self._send_if(is_asked, _error(request_id, OURS, error))
        except (asyncpg.DataError, asyncpg.CheckViolationError, OverflowError) as error:
            log.info("a request has a value that the database refuses: %s", error)
            told = UsageError("a value is out of its range, or of another kind than it should be")
            await self._send_if(is_asked, _error(request_id, INVALID_PARAMS, told))
        except Exception:
            log.exception("a request failed")
            bug = OrchestratorError("something went wrong in the server; its log has the details")
            await self._send_if(is_asked, _error(request_id, INTERNAL, bug))

    async def _decoded(self, raw: str | bytes) -> Any:
        if isinstance(raw, bytes):
            raise _Refused(INVALID_REQUEST, InvalidMessage("frames are text, not binary"))
        try:
            return await self.control.reader.read(raw, max_bytes=self._max_bytes)
        except InvalidMessage as error:
            raise _Refused(PARSE_ERROR, error) from error

    async def _call(self, method: str, params: Mapping[str, Any]) -> Any:
        match method:
            case "hello":
                return self._hello(_read(Hello, params))
            case "subscribe":
                self._require(method, SUBSCRIBE)
                return await self._subscribe(_read(Subscribe, params))
            case "unsubscribe":
                return self._unsubscribe(_read(Unsubscribe, params))
            case "picture":
                return await self._draw(_read(Picture, params))
        access, known = ACCESS.get(method), operation(method)
        if access is None or known is None:
            error = NotFound(f"there is no operation {method[:100]!r} (this is agentorch {__version__})")
            raise _Refused(NO_METHOD, error)
        self._require(method, access)
        given = self._identified(method, access, params)
        defaults = self.control.limits.task_defaults
        try:
            tasks = given.get("tasks")
            if isinstance(tasks, list) and len(tasks) > 100:
                read = await asyncio.to_thread(read_parameters, method, known, given, defaults)
            else:
                read = read_parameters(method, known, given, defaults)
        except UsageError as error:
            raise _Refused(INVALID_PARAMS, error) from error
        self._refuse_commands(read)
        if self.is_browser and method not in WAITS:
            return await self.control.read_once(method, given, lambda: self._ask(known, read))
        return await self._ask(known, read)

    async def _draw(self, wanted: Picture) -> Any:
        """A graph or a timeline as a tree of shapes; see `gateway.drawing`."""
        self._require(wanted.of, ACCESS[wanted.of])
        given = {"task_id": wanted.task_id, "limit": MOST_DRAWN}

        async def draw() -> Any:
            known = operation(wanted.of)
            assert known is not None
            answer = await self._ask(known, given)
            return await asyncio.to_thread(drawn, wanted.of, write_answer(known, answer.value))

        return await self.control.read_once(f"picture {wanted.of}", given, draw)

    async def _ask(self, known: Operation, read: Mapping[str, Any]) -> _Answer:
        return _Answer(known, await known.handler(self.control.context, **read))

    def _require(self, method: str, access: Access) -> None:
        assert self.caller is not None
        if access.scope is None:
            raise NotAllowed(f"{method} works on the machine that has the database, not over the network")
        if not self.caller.may(access.scope):
            raise NotAllowed(
                f"this token may not {method}: it has no scope {access.scope!r}",
                hint=f"its scopes: {', '.join(self.caller.scopes)}",
            )

    def _identified(self, method: str, access: Access, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parameters, with who asks as the connection knows it: a frame cannot say otherwise."""
        assert self.caller is not None
        if not self.caller.is_known:
            return params
        if access.voter is not None:
            name = params.get(access.voter)
            if name != self.caller.name and not (isinstance(name, str) and self.caller.may_be(name)):
                raise NotAllowed(
                    f"this token votes as {self.caller.name!r}, not as {str(name)[:200]!r}",
                    hint="a token with the scope agent:NAME votes as NAME too",
                )
        return {**params, access.caller: self.caller.name} if access.caller is not None else params

    def _refuse_commands(self, read: Mapping[str, Any]) -> None:
        if self.control.limits.allow_exec:
            return
        for agent in read.get("agents") or ():
            if agent.exec is not None:
                raise NotAllowed(
                    f"the agent {agent.agent_id!r} would run a command on the server",
                    hint="register it on the server itself, or set gateway.allow_remote_exec there",
                )

    # --- what belongs to the connection -----------------------------------------------------

    def _hello(self, hello: Hello) -> views.HelloView:
        assert self.caller is not None
        self._takes_pages = hello.pages
        return views.HelloView(
            engine_id=self.control.engine_id,
            version=__version__,
            protocol=PROTOCOL_VERSION,
            name=self.caller.name,
            scopes=list(self.caller.scopes),
            max_bytes=self._max_bytes,
        )

    async def _subscribe(self, wanted: Subscribe) -> _Begun:
        if len(self._subscriptions) >= self.control.limits.most_subscriptions:
            raise NotAllowed(
                f"this connection has {len(self._subscriptions)} subscriptions, which is the most",
                hint="unsubscribe, or set gateway.max_subscriptions",
            )
        read_cursor(wanted.cursor)
        if wanted.hints and (wanted.kinds or wanted.task_id or wanted.agent_id or wanted.cursor):
            raise UsageError("hints tell of the whole log from now on: they take no filter and no cursor")
        number = self._next_subscription
        self._next_subscription += 1
        self._subscriptions[number] = placeholder = asyncio.create_task(asyncio.sleep(0))
        try:
            cursor = wanted.cursor or await now_cursor(self.control.context.db)
        except BaseException:
            self._subscriptions.pop(number, None)
            raise

        def begin() -> None:
            if self._subscriptions.get(number) is placeholder:
                chosen = Filter(wanted.task_id, wanted.kinds, wanted.agent_id)
                telling = self._hint(number) if wanted.hints else self._tell(number, cursor, chosen)
                self._subscriptions[number] = asyncio.create_task(telling, name="subscription")

        return _Begun(views.SubscriptionView(subscription=number, cursor=cursor), begin)

    def _unsubscribe(self, wanted: Unsubscribe) -> dict[str, Any]:
        task = self._subscriptions.pop(wanted.subscription, None)
        if task is None:
            raise NotFound(f"there is no subscription {wanted.subscription} on this connection")
        task.cancel()
        return {"subscription": wanted.subscription}

    async def _tell(self, number: int, cursor: str, wanted: Filter) -> None:
        """Send events for ever."""
        try:
            async for rows in follow(self.control.context.db, self.control.pulse, cursor, wanted):
                for row in rows:
                    event = event_view(row)
                    await self._notify(
                        "event", {"subscription": number, "event": event.model_dump(mode="json")}
                    )
                    cursor = event.cursor
        except ConnectionClosed:
            pass
        except Exception:
            log.exception("a subscription failed")
            with contextlib.suppress(ConnectionClosed):
                await self._notify("subscription_ended", {"subscription": number, "cursor": cursor})

    async def _hint(self, number: int) -> None:
        """Say whenever the log has moved, for ever; however much it was, that is one word."""
        pulse = self.control.pulse
        async with pulse.following():
            moved = asyncio.ensure_future(pulse.next())
            try:
                while True:
                    await moved
                    moved = asyncio.ensure_future(pulse.next())  # what happens meanwhile is not missed
                    await self._notify("moved", {"subscription": number})
            except ConnectionClosed:
                pass
            finally:
                moved.cancel()

    # --- sending ----------------------------------------------------------------------------

    async def _reply(self, request_id: Any, result: Any) -> None:
        if isinstance(result, _Answer) and isinstance(result.value, list) and self._takes_pages:
            await self._reply_in_pages(request_id, result)
            return
        if isinstance(result, _Answer):
            document = write_answer(result.operation, result.value)
        elif isinstance(result, _Begun):
            document = result.view.model_dump(mode="json")
        else:
            document = result.model_dump(mode="json") if isinstance(result, BaseModel) else result
        await self._send({"jsonrpc": "2.0", "id": request_id, "result": document})

    async def _reply_in_pages(self, request_id: Any, answer: _Answer) -> None:
        before: list[orjson.Fragment] | None = None
        for page in _pages(answer):
            if before is not None:
                await self._notify("page", {"id": request_id, "items": before})
            before = page
            await asyncio.sleep(0)
        await self._send({"jsonrpc": "2.0", "id": request_id, "result": before or []})

    async def _notify(self, method: str, params: dict[str, Any]) -> None:
        await self._send({"jsonrpc": "2.0", "method": method, "params": params})

    async def _send_if(self, is_asked: bool, document: dict[str, Any]) -> None:
        if is_asked:
            with contextlib.suppress(ConnectionClosed):
                await self._send(document)

    async def _send(self, document: dict[str, Any]) -> None:
        """One frame. Who does not take it in time is cut off: closing in good order would wait as well."""
        try:
            async with asyncio.timeout(self.control.limits.send_timeout):
                await self.connection.send(orjson.dumps(document, default=str), text=True)
        except TimeoutError:
            log.warning("a control connection does not read; cutting it off")
            self._is_over = True
            self.connection.transport.abort()

    async def _ping(self) -> None:
        """For ever: a peer that vanished without a word is noticed."""
        while True:
            await asyncio.sleep(PING_EVERY)
            try:
                async with asyncio.timeout(PONG_LIMIT):
                    await (await self.connection.ping())
            except TimeoutError:
                self.connection.transport.abort()
                return
            except ConnectionClosed:
                return


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a handler answered."""

    operation: Operation
    value: Any


@dataclass(frozen=True, slots=True)
class _Begun:
    """A subscription whose answer goes out before its first event."""

    view: views.SubscriptionView
    begin: Any


class _Refused(Exception):
    """A request that is wrong in a way that JSON-RPC has a number for."""

    def __init__(self, code: int, error: OrchestratorError) -> None:
        self.code = code
        self.error = error
        super().__init__(error.message)


def _request(document: Any) -> tuple[Any, str, Mapping[str, Any], bool]:
    """Id, method, parameters, and whether an answer is wanted. Raises _Refused."""
    if isinstance(document, list):
        raise _Refused(INVALID_REQUEST, InvalidMessage("one request a frame: batches are not taken"))
    if not isinstance(document, dict) or document.get("jsonrpc") != "2.0":
        raise _Refused(INVALID_REQUEST, InvalidMessage('a request is an object with "jsonrpc": "2.0"'))
    request_id, method, params = document.get("id"), document.get("method"), document.get("params", {})
    if not (request_id is None or type(request_id) in (int, str)):
        raise _Refused(INVALID_REQUEST, InvalidMessage("id must be a number or a text"))
    if not isinstance(method, str):
        raise _Refused(INVALID_REQUEST, InvalidMessage("method must be a text"))
    if not isinstance(params, dict):
        raise _Refused(INVALID_PARAMS, InvalidMessage("params must be an object"))
    return request_id, method, params, "id" in document


def _read(kind: type[P], params: Mapping[str, Any]) -> P:
    try:
        return kind.model_validate(params)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise _Refused(INVALID_PARAMS, UsageError(f"{place} {explain(fault)}")) from error


def _error(request_id: Any, code: int, error: OrchestratorError) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": request_id,
        "error": {"code": code, "message": redact(str(error)), "data": redact_value(error.to_json())},
    }


def _pages(answer: _Answer) -> Iterator[list[orjson.Fragment]]:
    """The items of a list as JSON, in pages of a bounded size."""
    page: list[orjson.Fragment] = []
    size = 0
    for item in _items(answer.value):
        text = orjson.dumps(item)
        if page and size + len(text) > PAGE_BYTES:
            yield page
            page, size = [], 0
        page.append(orjson.Fragment(text))
        size += len(text)
    yield page


def _items(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        yield value.model_dump(mode="json") if isinstance(value, BaseModel) else value
