"""What a process writes, kept in files: a line with its time each, nothing in it that a terminal would obey.

A file that has grown to its limit becomes `NAME.log.1`, the one before it `NAME.log.2`, and so on;
the oldest goes away. Reading puts them together again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from agentorch_cli.redaction import redact
from agentorch_cli.text import natural, one_line

LONGEST_LINE = 8_000
"""Bytes; a longer line is cut into several."""

LONGEST_NAME = 200

_LOG = re.compile(r"(.+)\.log(?:\.\d+)?")
"""Names of log files, also of those that were put aside."""


def folder_of(data_dir: Path) -> Path:
    """Where the logs of the agents are."""
    return data_dir / "logs" / "agents"


def file_of(data_dir: Path, name: str) -> Path:
    """The log of one process; agents may be called anything, their files may not."""
    safe = quote(name, safe=" @+").replace("%20", " ")
    safe = "%2E" + safe[1:] if safe.startswith(".") else safe
    if len(safe) > LONGEST_NAME:
        safe = f"{safe[: LONGEST_NAME - 17]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return folder_of(data_dir) / f"{safe}.log"


class Record:
    """The log of one process through all of its lives."""

    def __init__(self, path: Path, most_bytes: int, files: int) -> None:
        self.path = path
        self._last: deque[str] = deque(maxlen=5)
        """The last lines that said something."""
        self._most = most_bytes
        self._files = files
        self._rest = b""
        self._file: BinaryIO | None = None

    @property
    def said(self) -> str:
        """What the process said at last: its error where it named one, else its last line."""
        errors = [error for line in self._last if (error := _error_in(line))]
        return (errors or list(self._last) or [""])[-1]

    def take(self, chunk: bytes) -> None:
        """What was read from the process; lines may come in pieces."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        while len(self._rest) > LONGEST_LINE:
            lines.append(self._rest[:LONGEST_LINE])
            self._rest = self._rest[LONGEST_LINE:]
        self._keep(lines)

    def end(self) -> None:
        """The process is gone: what it wrote without a line's end is a line."""
        rest, self._rest = self._rest, b""
        if rest:
            self._keep([rest])

    def begin(self) -> None:
        """A new life begins: what the last one said is over."""
        self._last.clear()

    def note(self, sentence: str) -> None:
        """A word of the supervisor's own, between what the process wrote."""
        self._write([f"-- {one_line(sentence)}"])

    def close(self) -> None:
        """Let go of the file."""
        self.end()
        self._shut()

    def _shut(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _keep(self, lines: list[bytes]) -> None:
        shown = []
        for line in lines:
            for start in range(0, max(len(line), 1), LONGEST_LINE):
                piece = line[start : start + LONGEST_LINE].decode("utf-8", "replace").rstrip("\r")
                shown.append(one_line(redact(piece)))
        self._last.extend(line for line in shown[-100:] if line.strip())
        if shown:
            self._write(shown)

    def _write(self, lines: list[str]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        data = "".join(f"{now} {line}\n" for line in lines).encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):  # a full disk stops the writing of logs, not the agents
            self._open().write(data)
            if self._open().tell() >= self._most:
                self._put_aside()

    def _open(self) -> BinaryIO:
        if self._file is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(
                self.path,
                os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            )
            self._file = os.fdopen(descriptor, "ab", buffering=0)
        return self._file

    def _put_aside(self) -> None:
        self._shut()
        if not self._files:
            self.path.unlink()
            return
        for number in range(self._files, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path.with_name(f"{self.path.name}.{number - 1}") if number > 1 else self.path
            if newer.exists():
                newer.replace(older)


def _error_in(line: str) -> str:
    """What a line says of an error, in words or as our own programs say it in JSON."""
    if line.startswith("{") and '"error"' in line:
        try:
            return str(json.loads(line)["error"]["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
    return line.removeprefix("error: ") if line.startswith("error: ") else ""


# --- reading ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """One line of a log."""

    at: str
    """ISO 8601, UTC."""
    name: str
    line: str


def names_in(data_dir: Path) -> dict[str, Path]:
    """The processes that have a log, with their files; names as they were cut for the files."""
    folder = folder_of(data_dir)
    # a file that was put aside just now has no successor before the next line
    stems = {found[1] for path in folder.glob("*.log*") if (found := _LOG.fullmatch(path.name))}
    return {unquote(stem): folder / f"{stem}.log" for stem in sorted(stems, key=natural)}


def last_lines(files: Mapping[str, Path], most: int) -> list[Line]:
    """The last lines of these logs together, oldest first."""
    return _last({name: _texts(path) for name, path in files.items()}, most)


def _last(texts: Mapping[str, Iterable[bytes]], most: int) -> list[Line]:
    found: list[Line] = []
    for name, lines in texts.items():
        found += (_line(name, text) for text in deque(lines, maxlen=most))
    return sorted(found, key=lambda line: line.at)[-most:] if most else []


def _texts(path: Path, end: tuple[int, int] | None = None) -> Iterator[bytes]:
    """The lines of one log; those before `end` (a file, and a place in it), if there is one."""
    for part in _parts(path):
        with contextlib.suppress(FileNotFoundError), part.open("rb") as file:
            if end is not None and os.fstat(file.fileno()).st_ino == end[0]:
                yield from file.read(end[1]).splitlines()
                return
            yield from file


def _parts(path: Path) -> list[Path]:
    """The files of one log, the oldest first."""
    aside = [
        other
        for other in path.parent.glob(f"{_escaped(path.name)}.*")
        if other.suffix[1:].isdecimal() and other.stem == path.name
    ]
    return [*sorted(aside, key=lambda other: -int(other.suffix[1:])), path]


def _escaped(name: str) -> str:
    import glob

    return glob.escape(name)


def _line(name: str, text: bytes) -> Line:
    at, _, line = text.decode("utf-8", "replace").rstrip("\n").partition(" ")
    return Line(at, name, line)


def _newer(path: Path, inode: int | None) -> list[BinaryIO]:
    """The files of one log that came after this one, the oldest first; all of them after None.

    They are opened from the newest on: one that is put aside meanwhile is met twice rather than not at all.
    """
    found: dict[int, BinaryIO] = {}
    for part in reversed(_parts(path)):
        with contextlib.suppress(FileNotFoundError):
            file = part.open("rb")
            its = os.fstat(file.fileno()).st_ino
            if its == inode or its in found:
                file.close()
            else:
                found[its] = file
            if its == inode:
                break
    return list(reversed(found.values()))


class _Tail:
    """The file of a log that grows; as long as it is open, no other file gets its inode."""

    def __init__(self, file: BinaryIO, *, at_end: bool = False) -> None:
        self._file = file
        self._rest = b""
        self.inode = os.fstat(file.fileno()).st_ino
        self.place = file.seek(0, os.SEEK_END) if at_end else 0
        """Where reading began."""

    def read(self) -> list[bytes]:
        """The lines that have come."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return lines

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Follower:
    """Gives what is written into these logs from now on, also into those that are made meanwhile."""

    def __init__(self, data_dir: Path, wanted: Callable[[str], bool]) -> None:
        """`wanted(name)` says which of the logs are followed."""
        self._data_dir = data_dir
        self._wanted = wanted
        self._tails: dict[str, _Tail] = {}
        for name, path in self._names():
            files = _newer(path, None)
            for file in files[:-1]:
                file.close()
            if files:
                self._tails[name] = _Tail(files[-1], at_end=True)
        self._begins = {name: (tail.inode, tail.place) for name, tail in self._tails.items()}
        """The file in which the past ends, and where in it."""

    def before(self, most: int) -> list[Line]:
        """The last lines before those that it gives: none is missing between, and none comes twice."""
        files = dict(self._names())
        return _last(
            {name: _texts(files[name], end) for name, end in self._begins.items() if name in files}, most
        )

    def read(self) -> list[Line]:
        """What has come since the last time, in the order of its times."""
        found = [_line(name, text) for name, path in self._names() for text in self._news(name, path)]
        return sorted(found, key=lambda line: line.at)

    def close(self) -> None:
        """Let go of the files."""
        for tail in self._tails.values():
            tail.close()

    def _names(self) -> Iterable[tuple[str, Path]]:
        return ((name, path) for name, path in names_in(self._data_dir).items() if self._wanted(name))

    def _news(self, name: str, path: Path) -> list[bytes]:
        tail = self._tails.get(name)
        lines = tail.read() if tail is not None else []
        if tail is not None and _is(path, tail.inode):
            return lines
        newer = _newer(path, None if tail is None else tail.inode)
        if tail is not None:  # nothing is added any more to what was put aside
            lines += tail.read()
        for file in newer:
            if tail is not None:
                tail.close()
            tail = self._tails[name] = _Tail(file)
            lines += tail.read()
        return lines


def _is(path: Path, inode: int) -> bool:
    try:
        return path.stat().st_ino == inode
    except FileNotFoundError:
        return False
