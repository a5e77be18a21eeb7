"""The schema, step by step: files named `NNNN_what.sql`, applied once each, in order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

_NAME = re.compile(r"^(\d{4})_(\w+)\.sql$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    sql: str


@cache
def migrations() -> tuple[Migration, ...]:
    """All steps, oldest first."""
    found = []
    for file in resources.files(__package__).iterdir():
        if match := _NAME.match(file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
    return tuple(sorted(found, key=lambda step: step.version))


def newest_version() -> int:
    """The version that this program needs."""
    return migrations()[-1].version
