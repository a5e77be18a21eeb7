"""Ids and the marks by which a process is known."""

from __future__ import annotations

import os
import platform
import time
import uuid
from pathlib import Path

NOISE = 10
"""Random bytes for one id."""


def new_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562): sortable by time, so that new keys go to the right edge of an index."""
    return uuid.UUID(new_id_text())


def new_id_text() -> str:
    """The same as text, which is a third of the price."""
    return new_id_texts(1)[0]


def new_id_texts(number: int) -> list[str]:
    """So many at once, of one moment: they look at the clock once."""
    time_part = f"{time.time_ns() // 1_000_000:012x}"
    start = f"{time_part[:8]}-{time_part[8:]}-7"
    return [
        f"{start}{noise[:3]}-{_VARIANTS[noise[18]]}{noise[3:6]}-{noise[6:18]}"
        for noise in (_noise().hex() for _ in range(number))
    ]


_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


_pool: list[bytes] = []
"""Random bytes that no id has used: one call of the kernel serves many ids."""


def _noise() -> bytes:
    """80 random bits."""
    try:
        return _pool.pop()
    except IndexError:
        many = os.urandom(NOISE * 256)
        _pool.extend(many[start : start + NOISE] for start in range(NOISE, len(many), NOISE))
        return many[:NOISE]


os.register_at_fork(after_in_child=_pool.clear)  # or two processes would make the same ids


def host_key() -> str:
    """One value per running kernel and pid namespace: where it is equal, pids can be compared."""
    boot = _read("/proc/sys/kernel/random/boot_id") or platform.node()
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return f"{platform.node()}|{boot}|{namespace}"


def process_mark(pid: int) -> str | None:
    """When the process of this id started, as the kernel says it; None where there is none.

    Together with the pid it names a process for ever: ids are used again, start times are not.
    """
    text = _read(f"/proc/{pid}/stat")
    if text:
        state, started = text.rpartition(")")[2].split()[0], text.rpartition(")")[2].split()[19]
        return None if state in "ZX" else started
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "alive"
    return "alive"


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError:
        return ""
