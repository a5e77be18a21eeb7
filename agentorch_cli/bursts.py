"""Several messages written to a WebSocket at once, each in a frame of its own.

For who takes one message a frame, a hundred of them are a hundred calls, each with its own context, look
at the buffers and time limit: more than the frames themselves cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from websockets.asyncio.connection import Connection

MOST_BYTES: Final = 256 * 1024
"""Bytes that are written under one time limit, or as one array; a single larger message goes alone."""


def bursts(messages: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The same messages in their order, by as many as may be written at once."""
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


async def send_each(connection: Any, messages: Sequence[bytes]) -> None:
    """Send texts that are encoded already, one a frame. Raises ConnectionClosed."""
    if isinstance(connection, Connection) and len(messages) > 1:
        async with connection.send_context():
            for message in messages:
                connection.protocol.send_text(message)
        return
    for message in messages:
        await connection.send(message, text=True)
