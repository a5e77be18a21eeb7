"""A terminal with a live view in it: what each frame shows, and what the terminal was told besides."""

from __future__ import annotations

import re
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect

from agentorch_cli.cli.screen import BEGIN_FRAME, END_FRAME

STUB = str(Path(__file__).with_name("stub_program.py"))
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
FRAME = re.compile(re.escape(BEGIN_FRAME) + "(.*?)" + re.escape(END_FRAME), re.DOTALL)
PATIENCE = 30.0


class Watched:
    """A program that draws frames."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], size: tuple[int, int] = (24, 80)
    ) -> None:
        self.child = pexpect.spawn(
            sys.executable,
            arguments,
            env={"TERM": "xterm-256color", **environment},
            encoding="utf-8",
            timeout=PATIENCE,
            dimensions=size,
        )
        self.before = termios.tcgetattr(self.child.child_fd)
        self.raw = ""

    def until(self, is_it: str | Callable[[list[str]], bool]) -> list[str]:
        """The lines of the first frame from now on of which this is true, or that holds this text."""
        fits = is_it if callable(is_it) else lambda lines: is_it in "\n".join(lines)
        ends_at = time.monotonic() + PATIENCE
        lines: list[str] = []
        while time.monotonic() < ends_at:
            self.child.expect_exact(END_FRAME)
            self.raw += self.child.before + END_FRAME
            lines = ESCAPES.sub("", FRAME.findall(self.raw)[-1]).split("\r\n")
            if fits(lines):
                return lines
        raise AssertionError("never came; the last frame:\n" + "\n".join(lines))

    def send(self, keys: str) -> None:
        self.child.send(keys)

    def resize(self, rows: int, columns: int) -> None:
        self.child.setwinsize(rows, columns)

    def end(self) -> int:
        """Read the rest, and give the exit code, or minus the signal."""
        self.child.expect(pexpect.EOF)
        self.raw += self.child.before
        self.child.close()
        return int(self.child.exitstatus if self.child.exitstatus is not None else -self.child.signalstatus)

    @property
    def modes(self) -> Any:
        return termios.tcgetattr(self.child.child_fd)

    @property
    def is_given_back(self) -> bool:
        """The first screen, its cursor and its long lines are there again."""
        return all(
            self.raw.rfind(give) > self.raw.rfind(take)
            for take, give in (
                ("\x1b[?1049h", "\x1b[?1049l"),
                ("\x1b[?25l", "\x1b[?25h"),
                ("\x1b[?7l", "\x1b[?7h"),
            )
        )
