"""A connection that takes in no more than is handled, and no flood of what nobody asks for.

The library reads all frames of what the network brought at once, up to 256 KiB, and holds its hand only
then. Frames may be six bytes long: forty thousand of them take the loop for a second, and an answer to
each ping waits in memory for who never reads it. None of it needs a token, so it is limited here: what
came is read in slices, and the rest of it once the frames before it have been taken; pings, and messages
in very small pieces, are taken up to a limit, beyond which the connection is cut.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from agentorch_cli.bursts import InBursts
from agentorch_cli.gateway.keys import Rate

log = logging.getLogger("agentorch.gateway")

STRANGER_BYTES: Final = 131_072
"""Largest message of who has not shown a token where one is wanted."""

SLICE: Final = 8_192
"""Bytes that are read at once."""

PINGS_PER_SECOND: Final = 50
"""Pings and pongs of one connection, which needs one in ten seconds."""

MOST_ANSWERS: Final = 1_048_576
"""Bytes that may wait to be sent to who pings without reading."""

MOST_SMALL_PIECES: Final = 1_024
SMALL_PIECE: Final = 1_024
"""A message may come in many pieces, or in small ones (bytes on average), and not in both."""


class Wire(InBursts, ServerConnection):
    """One connection of the server, whoever is at its other end."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._rest = b""
        self._is_held = False
        self._is_cut = False
        self._pings = Rate(PINGS_PER_SECOND)
        self._pieces = self._bytes = 0
        self._most: int | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.recv_messages.pause = self._hold
        self.recv_messages.resume = self._go_on
        if self.protocol.max_message_size is not None:
            self._most = self.protocol.max_message_size
            self.protocol.max_message_size = min(STRANGER_BYTES, self._most)

    def let_in(self) -> None:
        """It may bring messages of any size that the server takes."""
        self.protocol.max_message_size = self._most

    # --- reading in slices ------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE):
            if self._is_cut:
                return
            if self._is_held:
                self._rest = data[start:]
                return
            super().data_received(data[start : start + SLICE])

    def eof_received(self) -> None:
        rest, self._rest = self._rest, b""
        if rest and not self._is_cut:
            super().data_received(rest)
        self._is_cut = True  # nothing more may be read
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_cut, self._rest = True, b""
        super().connection_lost(exc)

    def _hold(self) -> None:
        """Enough frames wait to be taken."""
        self._is_held = True
        self.transport.pause_reading()

    def _go_on(self) -> None:
        self._is_held = False
        if self._rest:
            self.loop.call_soon(self._read_rest)
        else:
            self.transport.resume_reading()

    def _read_rest(self) -> None:
        if self._is_held:
            return
        rest, self._rest = self._rest, b""
        self._read(rest)
        if not self._is_held:
            self.transport.resume_reading()

    # --- what is too much -------------------------------------------------------------------

    def process_event(self, event: Any) -> None:
        if isinstance(event, Frame):
            self._count(event)
        super().process_event(event)

    def _count(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.PING, Opcode.PONG):
            if self._pings.take(self.loop.time()):
                self._cut("it sends too many pings")
            elif self.transport.get_write_buffer_size() > MOST_ANSWERS:
                self._cut("it pings and does not read")
        elif frame.opcode is not Opcode.CLOSE:
            if frame.opcode is not Opcode.CONT:
                self._pieces = self._bytes = 0
            self._pieces += 1
            self._bytes += len(frame.data)
            if self._pieces > MOST_SMALL_PIECES and self._bytes < self._pieces * SMALL_PIECE:
                self._cut("its message comes in too many small pieces")

    def _cut(self, reason: str) -> None:
        if not self._is_cut:
            self._is_cut = True
            log.info("a connection is cut off: %s", reason)
            self.transport.abort()
