"""Text of frames becomes values: small ones at once, large ones one after the other.

A loop that decodes a large frame serves nobody meanwhile, and a few connections that send nothing
else would have it decode all the time. So large frames of all connections go through one door, in
the order in which they came; the largest are decoded beside the loop, and what took long is followed
by a pause of the same length, which is for everybody else.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from agentorch_cli.errors import InvalidMessage
from agentorch_cli.payloads import decode

SMALL_BYTES: Final = 4_096
"""Up to this size a frame takes a fraction of a millisecond."""

LARGE_BYTES: Final = 262_144
"""From this size on it is decoded beside the loop."""

BRIEF: Final = 0.005
"""Seconds; what takes no longer needs no pause afterwards."""

LONGEST_PAUSE: Final = 1.0


class Reader:
    """The door of one node."""

    def __init__(self) -> None:
        self._door = asyncio.Lock()

    async def read(self, raw: str | bytes, *, max_bytes: int) -> Any:
        """The value of a frame. Raises InvalidMessage."""
        if isinstance(raw, bytes):
            raise InvalidMessage("frames are text, not binary")
        if len(raw) <= SMALL_BYTES:
            return decode(raw, max_bytes=max_bytes)
        async with self._door:
            began = time.monotonic()
            try:
                if len(raw) > LARGE_BYTES:
                    return await asyncio.to_thread(decode, raw, max_bytes=max_bytes)
                return decode(raw, max_bytes=max_bytes)
            finally:
                spent = time.monotonic() - began
                await asyncio.sleep(min(spent, LONGEST_PAUSE) if spent > BRIEF else 0)
