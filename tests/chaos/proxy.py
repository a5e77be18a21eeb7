"""A TCP proxy between two who trust the network, and should not.

TCP gives every byte or none, so a lossy network shows as stalls (a segment is sent again after a while), as
connections that break in the middle of a message, and as halves of connections that nobody has told.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

CHUNK = 4096


class Proxy:
    """Listens on a free port of the loopback, or of another address; each way of being broken is a switch."""

    def __init__(self, target: tuple[str, int] | Path, seed: int, host: str = "127.0.0.1") -> None:
        self._target = target
        self._host = host
        self._chance = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows: set[asyncio.Task[None]] = set()
        self.delay = 0.0
        """Seconds that every piece takes."""
        self.stalls = 0.0
        """The share of pieces that are lost and sent again half a second later."""
        self.cuts = 0.0
        """The share of pieces in whose middle the connection breaks."""
        self.is_deaf = False
        """Nothing gets to the target, in connections old and new, and nobody is told."""
        self.is_mute = False
        """Nothing comes back from it, likewise."""
        self.bytes = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, 0)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for flow in list(self._flows):
            flow.cancel()
        await asyncio.gather(*self._flows, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def heal(self) -> None:
        """From now on everything works; what was swallowed stays so, and its connections end."""
        if self.is_deaf or self.is_mute:
            self.cut()
        self.delay = self.stalls = self.cuts = 0.0
        self.is_deaf = self.is_mute = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if isinstance(self._target, Path):
                far_reader, far_writer = await asyncio.open_unix_connection(str(self._target))
            else:
                far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        flows = {
            asyncio.create_task(self._flow(reader, far_writer, inward=True)),
            asyncio.create_task(self._flow(far_reader, writer, inward=False)),
        }
        self._flows |= flows
        try:
            await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.transport.abort()
            for flow in flows:
                flow.cancel()
            self._writers -= both
            self._flows -= flows

    async def _flow(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, inward: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(CHUNK):
                if self.is_deaf if inward else self.is_mute:
                    continue
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self._chance.random() < self.stalls:
                    await asyncio.sleep(0.5)
                is_cut = self._chance.random() < self.cuts
                writer.write(piece[: len(piece) // 2] if is_cut else piece)
                self.bytes += len(piece)
                await writer.drain()
                if is_cut:
                    return
