"""What a process was told, and what it told others: one JSON object a line, on the disk before the next step.

A line that a kill cut off in the middle was never relied upon: it is passed over when the journal is read,
and the next start begins a new line.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUFFIX = ".jsonl"

Entry = dict[str, Any]


class Journal:
    """Appends entries to a file; each is durable when `write` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def write(self, *entries: Entry) -> None:
        """All of them with one wait for the disk; `at` is this process's clock, for people to read."""
        now = time.time()
        lines = [json.dumps({"at": now, **entry}, separators=(",", ":")) + "\n" for entry in entries]
        if lines:
            os.write(self._file, "".join(lines).encode())
            os.fdatasync(self._file)

    def close(self) -> None:
        os.close(self._file)


def read(path: Path) -> Iterator[Entry]:
    """The whole entries of one journal, in order."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry


def read_folder(folder: Path) -> dict[str, list[Entry]]:
    """All journals of a folder by the name of their writer."""
    return {path.stem: list(read(path)) for path in sorted(folder.glob(f"*{SUFFIX}"))}
