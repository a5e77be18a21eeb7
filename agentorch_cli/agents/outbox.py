"""What waits to be sent on one connection: many producers, one writer.

Everything that gathered in one moment, or while the last frame was being written, goes out as one array,
so the frames grow with the load and an idle agent pays no delay for it. While the engine reads, it is written
by the loop's next callback; the writer's task steps in where somebody has to be waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from agentorch_cli.bursts import MOST_BYTES, bursts, send_each, write_now

PACK_BYTES = 512 * 1024
"""The most that one array frame holds, half of the engine's default limit. One message may be longer."""

FULL_BYTES = 4 * 1024 * 1024
"""Above this, whoever can wait (progress, the reader) waits until the engine reads again."""

SEND_SECONDS = 60.0
"""An engine that has not read for so long is given up; keepalive pings wait in the same buffer."""


class Socket(Protocol):
    """The one thing that a writer needs of a connection."""

    async def send(self, message: bytes, *, text: bool | None = None) -> None: ...


class Outbox:
    """Frames in order, encoded already."""

    __slots__ = (
        "_batch",
        "_bytes",
        "_frames",
        "_free",
        "_idle",
        "_is_closed",
        "_is_writing",
        "_pack_bytes",
        "_socket",
        "_wake",
    )

    def __init__(self, *, batch: bool, pack_bytes: int = PACK_BYTES) -> None:
        self._batch = batch
        self._pack_bytes = pack_bytes
        self._frames: list[bytes] = []
        self._bytes = 0
        self._is_closed = False
        self._socket: Socket | None = None
        self._is_writing = True
        """It is being written, or is about to be, or there is nothing yet to write it to."""
        self._wake = asyncio.Event()
        self._free = asyncio.Event()
        self._idle = asyncio.Event()
        self._free.set()
        self._idle.set()

    @property
    def is_full(self) -> bool:
        return not self._free.is_set()

    def put(self, frame: bytes) -> None:
        """Only from the loop's own thread. After the connection's end it does nothing."""
        if self._is_closed:
            return
        frames = self._frames
        if not frames:
            self._idle.clear()
            if not self._is_writing:
                self._is_writing = True
                asyncio.get_running_loop().call_soon(self._write_now)
        frames.append(frame)
        self._bytes += len(frame)
        if self._bytes > FULL_BYTES:
            self._free.clear()

    async def room(self) -> None:
        """Returns when there is room, or when there is no connection left to wait for."""
        await self._free.wait()

    async def flushed(self) -> None:
        """Returns when everything put so far was handed to the socket, or never will be."""
        await self._idle.wait()

    async def write_to(self, socket: Socket) -> None:
        """Run as the only writer of `socket`; raises what `send` raises, or TimeoutError."""
        self._socket = socket
        try:
            while True:
                await self._write(socket)
                self._is_writing = False
                self._wake.clear()
                await self._wake.wait()
        finally:
            self._is_closed = self._is_writing = True
            self._free.set()
            self._idle.set()

    def _write_now(self) -> None:
        """What has gathered in one moment, if the engine reads; else the writer is to wait for it."""
        frames, size = self._frames, self._bytes
        is_little = not self._is_closed and size <= min(MOST_BYTES, self._pack_bytes - len(frames) - 1)
        if is_little and write_now(
            self._socket, [*pack(frames, size, self._pack_bytes)] if self._batch else frames
        ):
            self._frames, self._bytes, self._is_writing = [], 0, False
            self._idle.set()
        else:
            self._wake.set()

    async def _write(self, socket: Socket) -> None:
        while self._frames:
            frames, self._frames = self._frames, []
            size, self._bytes = self._bytes, 0
            packs = ([one] for one in pack(frames, size, self._pack_bytes))
            for burst in packs if self._batch else bursts(frames):
                async with asyncio.timeout(SEND_SECONDS):
                    await send_each(socket, burst)
            if self._bytes <= FULL_BYTES:
                self._free.set()
        self._idle.set()


def pack(frames: list[bytes], size: int, limit: int) -> Iterator[bytes]:
    """The frames as few JSON arrays of at most `limit` bytes; a lone frame stays as it is.

    `size` is the sum of their lengths, which the outbox knows already.
    """
    if len(frames) == 1:
        yield frames[0]
    elif size + len(frames) + 1 <= limit:
        yield b"[" + b",".join(frames) + b"]"
    else:
        yield from _pack_in_parts(frames, limit)


def _pack_in_parts(frames: list[bytes], limit: int) -> Iterator[bytes]:
    part: list[bytes] = []
    size = 0
    for frame in frames:
        if part and size + len(frame) + len(part) + 2 > limit:
            yield from pack(part, size, limit)
            part, size = [], 0
        part.append(frame)
        size += len(frame)
    yield from pack(part, size, limit)
