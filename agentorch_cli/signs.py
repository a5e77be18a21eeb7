"""The sign and the colour of each state, the same on the terminal, in pictures and on pages.

A state never shows by its colour alone: each has a sign, in a second form for terminals that know
ASCII only.
"""

from __future__ import annotations

from typing import Final

STYLES: Final[dict[str, tuple[str, str, str]]] = {
    # state: sign, the same in ASCII, colour
    "blocked": ("◌", "-", "dim"),
    "pending": ("○", ".", "yellow"),
    "running": ("◐", ">", "cyan"),
    "completed": ("●", "*", "green"),
    "failed": ("✗", "x", "red"),
    "cancelled": ("⊘", "/", "magenta"),
    "skipped": ("↷", "~", "dim"),
    "online": ("●", "*", "green"),
    "offline": ("○", ".", "dim"),
    "draining": ("◐", ">", "yellow"),
    "paused": ("◌", "-", "yellow"),
    "sent": ("○", ".", "yellow"),
    "accepted": ("◐", ">", "cyan"),
    "lost": ("?", "?", "magenta"),
    "timed_out": ("✗", "x", "magenta"),
    "reached": ("●", "*", "green"),
    "open": ("✗", "x", "red"),
    "resolved": ("●", "*", "green"),
    "active": ("●", "*", "green"),
    "failing": ("✗", "x", "red"),
    "ended": ("○", ".", "dim"),
    "starting": ("◌", ".", "yellow"),
    "waiting": ("◌", "-", "yellow"),
    "crashing": ("✗", "x", "red"),
    "stopping": ("◐", ">", "yellow"),
    "stopped": ("○", ".", "dim"),
    "planned": ("○", ".", ""),
    "unknown": ("?", "?", "magenta"),
}
