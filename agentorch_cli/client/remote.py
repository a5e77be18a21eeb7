"""The same operations on a server: JSON-RPC 2.0 over a WebSocket.

A connection that breaks is made again, and what was asked is asked again where asking twice does
what asking once does: everything that reads, waiting, and a submission, which carries its id.
Of other changes nobody can know whether they were made; that is said, and nothing is repeated.
Events go on from the last one that was seen, so none is missed and none is told twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import orjson
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)

from agentorch_cli import __version__
from agentorch_cli.errors import NotAllowed, OrchestratorError, ServerUnreachable, Unauthorized, UsageError
from agentorch_cli.handlers.access import WAITS, may_repeat
from agentorch_cli.handlers.wire import error_from, operation, read_answer, write_parameters
from agentorch_cli.identity import new_id
from agentorch_cli.payloads import check_parameters
from agentorch_cli.text import one_line, shorten
from agentorch_cli.tls import context_for
from agentorch_cli.views import EventView, HelloView

log = logging.getLogger("agentorch.client")

_wire_log = logging.getLogger("agentorch.client.wire")
_wire_log.setLevel(
    logging.WARNING
)  # at DEBUG the library logs the handshake's headers, and the token with them

UNREACHABLE_SECONDS: Final = 4.0
"""After this a server that does not answer is said to be unreachable."""

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
PING_SECONDS = 5.0
PING_TIMEOUT_SECONDS = 10.0
CLOSE_SECONDS = 1.0
LARGEST_FRAME_BYTES = 1 << 30
MOST_EVENTS_WAITING = 5_000
"""Events of one subscription that were received and not taken; beyond it they are asked for again later."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and how to come in there."""

    url: str
    name: str | None = None
    """Of the profile."""
    ca: Path | None = None
    token: str | None = field(default=None, repr=False)
    allows_plain_token: bool = False
    """The token may go over a connection that is not encrypted."""

    @property
    def shown(self) -> str:
        """For people: the address, and the profile's name."""
        return f"{self.url} (profile {self.name})" if self.name else self.url

    @property
    def control_url(self) -> str:
        return endpoint(self.url, "control")

    def refuse_to_tell_everybody(self) -> None:
        """Raises NotAllowed where the token would be sent in the clear."""
        is_plain = self.url.startswith("ws:") and not is_loopback_url(self.url)
        if self.token and is_plain and not self.allows_plain_token:
            raise NotAllowed(
                f"the token would go to {self.url} without encryption, where others can read it",
                hint="use wss://; or, if the network is yours alone, a profile with insecure = true",
            )


def endpoint(url: str, name: str) -> str:
    """The address of one of the server's endpoints, whatever path was given."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    for known in ("/agents", "/control"):
        path = path.removesuffix(known)
    return f"{parts.scheme}://{parts.netloc}{path}/{name}"


class _Lost(Exception):
    """The connection ended before the answer came."""


class RemoteClient:
    """Runs operations on a server."""

    is_remote = True

    def __init__(self, target: Target, *, say: Say | None = None, is_patient: bool = False) -> None:
        """`say` is told of what a person should know. `is_patient`: once the server has answered, it
        may be gone for as long as it likes: who waits for work, or watches, waits for the server too.
        """
        self.target = target
        self._say = say or log.info
        self._is_patient = is_patient
        self._wire: _Wire | None = None
        self._dialling = asyncio.Lock()
        self._had_answer = False
        self._is_cut_off = False
        self.hello: HelloView | None = None

    # --- operations -------------------------------------------------------------------------

    async def call(self, method: str, **parameters: Any) -> Any:
        """Raises the OrchestratorError that the operation raised there; ServerUnreachable."""
        known = operation(method)
        if known is None:
            raise UsageError(f"there is no operation {method!r}")
        if method == "task.submit":
            parameters.setdefault("submission_id", new_id())
        check_parameters(parameters)
        params = write_parameters(method, parameters)
        clock = asyncio.get_running_loop().time
        ends_at = (
            clock() + params["timeout_seconds"] if "timeout_seconds" in params and method in WAITS else None
        )
        while True:
            wire = await self._connected()
            if ends_at is not None:
                params["timeout_seconds"] = max(0.0, ends_at - clock())
            try:
                answer = await wire.ask(method, params, most=self._most_bytes())
            except _Lost as lost:
                self._lost(wire, str(lost))
                if not may_repeat(method):
                    raise ServerUnreachable(
                        f"the connection to {self.target.shown} broke before the answer to {method} came:"
                        " it may have been done, or not",
                        hint="look before you try again",
                    ) from lost
                if method == "task.submit":
                    params["again"] = True
                continue
            try:
                return read_answer(known, answer)
            except ValidationError as error:
                raise ServerUnreachable(
                    f"{self.target.shown} answered {method} in a way that this version does not understand"
                    f"{self._versions()}"
                ) from error

    async def events(
        self,
        *,
        cursor: str | None = None,
        kinds: Sequence[str] | None = None,
        task_id: str | None = None,
        agent_id: str | None = None,
    ) -> AsyncIterator[EventView]:
        """What happens on the server after a cursor (from now on, where there is none): each event once."""
        wanted = {"kinds": list(kinds) if kinds else None, "task_id": task_id, "agent_id": agent_id}
        params = {key: value for key, value in wanted.items() if value is not None}
        check_parameters(params)
        while True:
            wire = await self._connected()
            inbox: _Inbox | None = None
            try:
                begun = await wire.ask("subscribe", {**params, **({"cursor": cursor} if cursor else {})})
                inbox = wire.inbox(begun["subscription"])
                cursor = cursor or begun["cursor"]
                async for event in inbox.events():
                    cursor = event.cursor
                    yield event
            except _Lost as lost:
                self._lost(wire, str(lost))
            finally:
                if inbox is not None:
                    wire.forget(inbox)

    # --- the connection ---------------------------------------------------------------------

    async def _connected(self) -> _Wire:
        """The open connection, or a new one. Raises ServerUnreachable, Unauthorized, NotAllowed."""
        async with self._dialling:
            if self._wire is not None and not self._wire.is_over:
                return self._wire
            begin = asyncio.get_running_loop().time()
            failures = 0
            while True:
                try:
                    self._wire = await self._dial()
                except ServerUnreachable:
                    gone = asyncio.get_running_loop().time() - begin
                    if not self._had_answer or (not self._is_patient and gone >= UNREACHABLE_SECONDS):
                        raise
                else:
                    break
                longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(failures, 10))
                failures += 1
                await asyncio.sleep(longest * random.uniform(0.5, 1.0))
            if self._is_cut_off:
                self._is_cut_off = False
                self._say(f"Connected to {self.target.shown} again.")
            return self._wire

    def _lost(self, wire: _Wire, reason: str) -> None:
        if wire.refusal is not None:
            raise wire.refusal
        if self._is_patient and not self._is_cut_off and self._wire is wire:
            self._is_cut_off = True
            self._say(f"The connection to {self.target.shown} was lost ({reason}); trying again.")

    async def _dial(self) -> _Wire:
        """One try, in bounded time."""
        try:
            async with asyncio.timeout(UNREACHABLE_SECONDS):
                connection = await self._open()
                wire = _Wire(connection)
                try:
                    await self._greet(wire)
                except BaseException as error:
                    await wire.close()
                    if isinstance(error, _Lost) and wire.refusal is not None:
                        raise wire.refusal from error
                    raise
        except TimeoutError:
            raise self._unreachable(f"no answer within {UNREACHABLE_SECONDS:.0f} s") from None
        except _Lost as lost:
            raise self._unreachable(str(lost)) from lost
        return wire

    async def _open(self) -> ClientConnection:
        url = self.target.control_url
        self.target.refuse_to_tell_everybody()
        headers = {"Authorization": f"Bearer {self.target.token}"} if self.target.token else None
        try:
            return await connect(
                url,
                additional_headers=headers,
                compression=None,
                proxy=None if is_loopback_url(url) else True,
                max_size=LARGEST_FRAME_BYTES,
                ping_interval=PING_SECONDS,
                ping_timeout=PING_TIMEOUT_SECONDS,
                open_timeout=UNREACHABLE_SECONDS,
                close_timeout=CLOSE_SECONDS,
                logger=_wire_log,
                ssl=context_for(url, self.target.ca),
            )
        except InvalidURI as error:
            raise UsageError(f"{url} is not the address of a server", hint="wss://HOST:PORT") from error
        except InvalidStatus as error:
            raise self._refused(error) from error
        except ssl.SSLCertVerificationError as error:
            raise self._unreachable(
                f"its certificate is not trusted ({error.verify_message})",
                hint="--ca FILE names the authority that signed it (a PEM file)",
            ) from error
        except ssl.SSLError as error:
            raise self._unreachable(
                f"no TLS connection ({(error.reason or str(error)).lower()})", hint=_plain_instead(url)
            ) from error
        except InvalidMessage as error:
            raise self._unreachable(
                "what answers there is not an agentorch server",
                hint="is it wss:// in place of ws://, or the other way round?",
            ) from error
        except (ConnectionResetError, BrokenPipeError, EOFError) as error:  # it answers, in its own way
            reason = "it closed the connection at once"
            raise self._unreachable(reason, hint=_plain_instead(url)) from error
        except (OSError, InvalidHandshake, ValueError) as error:
            raise self._unreachable(_reason(error)) from error

    async def _greet(self, wire: _Wire) -> None:
        hello = await wire.ask("hello", {"version": __version__, "pages": True})
        self.hello = HelloView.model_validate(hello)
        if not self._had_answer and self.hello.version != __version__:
            self._say(f"note: {self.target.shown} runs agentorch {self.hello.version}, this is {__version__}")
        self._had_answer = True

    def _refused(self, error: InvalidStatus) -> OrchestratorError:
        status = error.response.status_code
        said = one_line(shorten((error.response.body or b"").decode(errors="replace").strip(), 300))
        if status == 401:
            return Unauthorized(
                f"{self.target.shown} wants a valid token", hint="AGENTORCH_TOKEN, or a profile with one"
            )
        if status == 403:
            return NotAllowed(f"{self.target.shown} refuses this connection: {said}")
        if status == 404:
            return self._unreachable("there is no control endpoint at this address")
        return self._unreachable(f"it answered with HTTP status {status}{f': {said}' if said else ''}")

    def _unreachable(self, reason: str, hint: str | None = None) -> ServerUnreachable:
        return ServerUnreachable(
            f"the server {self.target.shown} cannot be reached: {reason}",
            hint=hint or "is serve running there, and is the address right?",
        )

    def _most_bytes(self) -> int | None:
        return self.hello.max_bytes if self.hello is not None else None

    def _versions(self) -> str:
        there = self.hello.version if self.hello is not None else "an unknown version"
        return f" (it is agentorch {there}, this is {__version__})"

    async def __aenter__(self) -> Self:
        await self._connected()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wire is not None:
            await self._wire.close()


class _Wire:
    """One connection: requests by number, events by subscription."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._pages: dict[int, list[Any]] = {}
        self._inboxes: dict[int, _Inbox] = {}
        self._next = 1
        self.refusal: OrchestratorError | None = None
        """Why the server ended the connection, where coming again would not help."""
        self._reading = asyncio.create_task(self._read(), name="control reader")

    @property
    def is_over(self) -> bool:
        return self._reading.done()

    async def ask(self, method: str, params: dict[str, Any], *, most: int | None = None) -> Any:
        """The result. Raises what the server told, or _Lost.

        More than `most` bytes are a UsageError and not sent: the server would only close the connection.
        """
        number = self._next
        self._next += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        try:
            if self.is_over:
                raise _Lost("it is closed")
            raw = orjson.dumps(request)
            if most is not None and len(raw) > most:
                raise UsageError(
                    f"{method} has {len(raw):,} bytes, and the server takes {most:,} of this caller",
                    hint="ask in parts; a token with the scope submit may bring more at once",
                )
            try:
                await self._connection.send(raw, text=True)
            except ConnectionClosed as closed:
                raise self._end_of(closed) from closed
            return await future
        finally:
            self._asked.pop(number, None)
            self._pages.pop(number, None)

    def inbox(self, subscription: int) -> _Inbox:
        """What comes for a subscription; what came before it was asked for is in it."""
        return self._inboxes.setdefault(subscription, _Inbox(subscription))

    def forget(self, inbox: _Inbox) -> None:
        """Nobody takes these any more."""
        self._inboxes.pop(inbox.number, None)
        if not self.is_over:
            inbox.ending = asyncio.ensure_future(self._unsubscribe(inbox.number))

    async def _unsubscribe(self, number: int) -> None:
        with contextlib.suppress(_Lost, OrchestratorError):
            await self.ask("unsubscribe", {"subscription": number})
        self._inboxes.pop(number, None)  # what came meanwhile had opened it again

    async def close(self) -> None:
        """Leave, in bounded time."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._connection.close()
        except TimeoutError:
            self._connection.transport.abort()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        ended: _Lost = _Lost("it was closed")
        try:
            while True:
                self._take(orjson.loads(await self._connection.recv(decode=False)))
        except ConnectionClosed as closed:
            ended = self._end_of(closed)
        except orjson.JSONDecodeError:
            ended = _Lost("the server sent something that is not JSON")
            self._connection.transport.abort()
        finally:
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(ended)
                    future.exception()  # seen: whoever asked may have gone
            for inbox in self._inboxes.values():
                inbox.end(ended)

    def _take(self, message: Any) -> None:
        if not isinstance(message, dict):
            return
        params = message.get("params")
        if "method" not in message:
            self._take_answer(message)
        elif not isinstance(params, dict):
            return
        elif message["method"] == "event":
            self.inbox(params["subscription"]).put(params["event"])
        elif message["method"] == "page":
            self._pages.setdefault(params["id"], []).extend(params["items"])
        elif message["method"] == "subscription_ended":
            self.inbox(params["subscription"]).end(None)

    def _take_answer(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        if number is None and "error" in message:
            self.refusal = error_from(message["error"].get("data"))
            return
        future = self._asked.get(number) if isinstance(number, int) else None
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(error_from(message["error"].get("data")))
            return
        result = message.get("result")
        pages = self._pages.pop(number, None) if isinstance(number, int) else None
        future.set_result([*pages, *result] if pages is not None and isinstance(result, list) else result)

    def _end_of(self, closed: ConnectionClosed) -> _Lost:
        """Why the connection ended; a refusal is remembered, so that nobody comes back in vain."""
        if closed.rcvd is not None and closed.rcvd.code == 1008 and self.refusal is None:
            self.refusal = Unauthorized(f"the server closed the connection: {one_line(closed.rcvd.reason)}")
        if closed.rcvd is None:
            return _Lost("it was cut")
        return _Lost(one_line(closed.rcvd.reason) or f"closed with code {closed.rcvd.code}")


class _Inbox:
    """Events of one subscription that wait to be taken."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ending: asyncio.Future[None] | None = None
        self._waiting: list[Any] = []
        self._wake = asyncio.Event()
        self._is_over = False
        self._why: _Lost | None = None

    def put(self, event: Any) -> None:
        """An event came. Where too many wait, this subscription is over: a new one goes on from there."""
        if self._is_over:
            return
        if len(self._waiting) >= MOST_EVENTS_WAITING:
            self._is_over = True
        else:
            self._waiting.append(event)
        self._wake.set()

    def end(self, why: _Lost | None) -> None:
        if not self._is_over:
            self._is_over, self._why = True, why
        self._wake.set()

    async def events(self) -> AsyncIterator[EventView]:
        """Until the subscription is over. Raises _Lost where the connection was."""
        while True:
            taken, self._waiting = self._waiting, []
            for event in taken:
                yield EventView.model_validate(event)
            if self._waiting:
                continue
            if self._is_over:
                if self._why is not None:
                    raise self._why
                return
            self._wake.clear()
            await self._wake.wait()


def is_loopback_url(url: str) -> bool:
    """Whether the address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _plain_instead(url: str) -> str | None:
    """A hint where TLS was tried and nothing came of it."""
    return "does it speak TLS? try ws:// in place of wss://" if url.startswith("wss:") else None


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ExceptionGroup):
        return error.strerror.lower()
    return one_line(shorten(str(error) or type(error).__name__, 200))
