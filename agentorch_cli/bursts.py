"""Several messages of a WebSocket read or written at once, each in a frame of its own.

For who takes one message a frame, a hundred of them are a hundred calls, each with its own context, look
at the buffers and time limit: more than the frames themselves cost. The same on the way in: what the
network brings at once is taken apart here as far as it is whole texts, which is nearly all that there is.
Everything else is the library's: handshakes, pings, closes, messages in pieces or in binary, frames that
are too large or wrong, and what begins while it is still in the middle of one of those. So is everything
where the library is not made as it is taken for (`_fits`): then reading is slower, and that is all.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

from websockets.asyncio.connection import Connection
from websockets.frames import Opcode, apply_mask  # type: ignore[attr-defined]
from websockets.protocol import Protocol, Side, State
from websockets.streams import StreamReader

MOST_BYTES: Final = 256 * 1024
"""Bytes that are written under one time limit, or as one array; a single larger message goes alone."""

MOST_AWAITED: Final = 4_096
"""Bytes of a text whose end is awaited here; the library gathers the larger ones."""

TEXT: Final = 0x81
"""First byte (RFC 6455, section 5.2) of a text that is whole and has no extension."""

MASKED: Final = 0x80
KEY_BYTES: Final = 4
TWO_BYTES: Final = 126
"""In the place of a length: it follows, in so many bytes; 127 means eight."""

_BETWEEN_FRAMES: Final = StreamReader.at_eof.__code__
"""Where the library's parser rests when the last frame is over and the next one has not begun."""


class Text:
    """A frame with a whole message, as the library's queue holds it."""

    __slots__ = ("data",)
    opcode = Opcode.TEXT
    fin = True

    def __init__(self, data: bytes) -> None:
        self.data = data


# --- in -----------------------------------------------------------------------------------------


class InBursts(Connection):
    """A connection that reads whole texts as many at a time as there are."""

    _beginning = b""
    """Of a short text whose rest has not come."""
    _is_fit = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        frames = getattr(self.recv_messages, "frames", None)
        self._is_fit = FITS and isinstance(getattr(frames, "queue", None), deque)

    def data_received(self, data: bytes) -> None:
        if not self._is_fit:
            super().data_received(data)
            return
        if self._beginning:
            data, self._beginning = self._beginning + data, b""
        protocol = self.protocol
        if protocol.state is State.OPEN and protocol.current_size is None and _rests(protocol.parser):
            is_masked = protocol.side is Side.SERVER
            texts, taken = read_texts(data, is_masked, protocol.max_message_size)
            if texts:
                queue = self.recv_messages
                queue.frames.queue.extend(texts[:-1])  # type: ignore[arg-type]
                queue.put(texts[-1])  # type: ignore[arg-type]
                data = data[taken:]
            if _is_beginning(data, is_masked, protocol.max_message_size):
                self._beginning = data
                return
        super().data_received(data)


async def receive(connection: Any, *, decode: bool | None = None) -> list[str | bytes]:
    """The next message, and the texts that came with it. Raises ConnectionClosed.

    Those count as unread until the next call, so that the sender waits for the whole burst.
    """
    if not isinstance(connection, InBursts):
        return [await connection.recv()]
    connection.recv_messages.maybe_resume()
    messages = [await connection.recv(decode=decode)]
    queue: Any = connection.recv_messages.frames.queue
    while queue and type(queue[0]) is Text:
        try:
            messages.append(queue[0].data if decode is False else queue[0].data.decode())
        except UnicodeDecodeError:
            break  # the library finds it too, and closes the connection
        queue.popleft()
    return messages


def read_texts(data: bytes, is_masked: bool, most: int | None) -> tuple[list[Text], int]:
    """The whole texts at the beginning, each of at most so many bytes, and how far they go."""
    texts: list[Text] = []
    at, end = 0, len(data)
    while end - at > 1 and data[at] == TEXT:
        size = data[at + 1]
        if is_masked:
            size -= MASKED  # below zero where it is not masked, which is for the library to refuse
        start = at + 2
        if size == TWO_BYTES and end - start > 1:
            size = data[start] << 8 | data[start + 1]
            start += 2
        elif not 0 <= size < TWO_BYTES:
            break
        stop = start + size + (KEY_BYTES if is_masked else 0)
        if stop > end or (most is not None and size > most):
            break
        if is_masked:
            key = data[start : start + KEY_BYTES]
            texts.append(Text(apply_mask(data[start + KEY_BYTES : stop], key)))
        else:
            texts.append(Text(data[start:stop]))
        at = stop
    return texts, at


def _is_beginning(data: bytes, is_masked: bool, most: int | None) -> bool:
    """Whether this may be the first part, or nothing yet, of a text that is not long."""
    if len(data) < 2:
        return not data or data[0] == TEXT
    size = data[1] - (MASKED if is_masked else 0)
    if data[0] != TEXT or not 0 <= size <= TWO_BYTES:
        return False
    if size == TWO_BYTES and len(data) > 3:
        size = int.from_bytes(data[2:4], "big")
    return size <= (MOST_AWAITED if most is None else min(MOST_AWAITED, most))


def _rests(parser: Any) -> bool:
    while (inner := parser.gi_yieldfrom) is not None:
        parser = inner
    return parser.gi_code is _BETWEEN_FRAMES


def _fits() -> bool:
    """Whether the library's parser rests where it is looked for."""
    protocol = Protocol(Side.CLIENT, state=State.OPEN)
    try:
        before = _rests(protocol.parser)
        protocol.receive_data(bytes((TEXT, 2)) + b"{")
        within = _rests(protocol.parser)
        protocol.receive_data(b"}")
        return (before, within, _rests(protocol.parser), protocol.current_size) == (True, False, True, None)
    except (AttributeError, TypeError):
        return False


FITS: Final = _fits()


# --- out ----------------------------------------------------------------------------------------


def bursts(messages: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The same messages in their order, by as many as may be written at once."""
    if messages and sum(map(len, messages)) <= MOST_BYTES:
        yield messages
        return
    burst: list[bytes] = []
    size = 0
    for message in messages:
        if burst and size + len(message) > MOST_BYTES:
            yield burst
            burst, size = [], 0
        burst.append(message)
        size += len(message)
    if burst:
        yield burst


def write_now(connection: Any, messages: Sequence[bytes]) -> bool:
    """Send texts that are encoded already, one a frame, if that can be done without waiting."""
    if not isinstance(connection, Connection) or connection.protocol.state is not State.OPEN:
        return False
    is_busy = connection.paused or connection.send_in_progress is not None
    if is_busy or connection.transport.is_closing():
        return False
    protocol = connection.protocol
    protocol.writes.append(write_texts(messages, protocol.side is Side.CLIENT))
    connection.send_data()
    return True


async def send_each(connection: Any, messages: Sequence[bytes]) -> None:
    """Send texts that are encoded already, one a frame. Raises ConnectionClosed."""
    if isinstance(connection, Connection) and len(messages) > 1:
        async with connection.send_context():
            protocol = connection.protocol
            protocol.writes.append(write_texts(messages, protocol.side is Side.CLIENT))
        return
    for message in messages:
        await connection.send(message, text=True)


def write_texts(messages: Sequence[bytes], is_masked: bool) -> bytes:
    """The frames of these texts, one after the other. Each has a key of its own where it is masked."""
    parts: list[bytes] = []
    keys = os.urandom(KEY_BYTES * len(messages)) if is_masked else b""
    mark, at = MASKED if is_masked else 0, 0
    for message in messages:
        size = len(message)
        if size < TWO_BYTES:
            parts.append(bytes((TEXT, mark | size)))
        elif size < 1 << 16:
            parts.append(bytes((TEXT, mark | TWO_BYTES, size >> 8, size & 0xFF)))
        else:
            parts.append(bytes((TEXT, mark | TWO_BYTES + 1)) + size.to_bytes(8, "big"))
        if is_masked:
            key = keys[at : at + KEY_BYTES]
            at += KEY_BYTES
            parts += (key, apply_mask(message, key))
        else:
            parts.append(message)
    return b"".join(parts)
