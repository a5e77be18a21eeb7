"""The statements, by name. Each file groups what belongs together; each statement has a heading.

What several statements of a file say in the same words is a part of it, headed `-- part: NAME`; where they
say it stands `-- use NAME`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

FILES = (
    "hot.sql",
    "panel.sql",
    "consensus.sql",
    "fleet.sql",
    "aside.sql",
    "limits.sql",
    "balance.sql",
    "waiting.sql",
    "budgets.sql",
    "schedules.sql",
    "deadlocks.sql",
    "why.sql",
    "ledger.sql",
    "show.sql",
    "graph.sql",
    "tokens.sql",
    "ids.sql",
    "names.sql",
    "retention.sql",
)

_HEADING = re.compile(r"^-- (name|part): (\w+)\n", re.MULTILINE)
_USE = re.compile(r"^ *-- use (\w+)$", re.MULTILINE)


@cache
def statements() -> dict[str, str]:
    """Every statement of this folder by its name; read once."""
    found: dict[str, str] = {}
    for file in FILES:
        for name, body in read(resources.files(__package__).joinpath(file).read_text("utf-8")).items():
            if name in found:
                raise ValueError(f"the statement {name} is defined twice")
            found[name] = body
    return found


def read(text: str) -> dict[str, str]:
    """The statements of a file by name, with their parts in their places.

    Raises ValueError for a part that is not there, that nothing uses, or a name that stands twice.
    """
    found: dict[str, dict[str, str]] = {"name": {}, "part": {}}
    pieces = _HEADING.split(text)[1:]
    for kind, name, body in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        if name in found[kind]:
            raise ValueError(f"the {kind} {name} is defined twice")
        found[kind][name] = body.strip("\n").rstrip().rstrip(";")
    parts, unused = found["part"], set(found["part"])

    def put(use: re.Match[str]) -> str:
        if use[1] not in parts:
            raise ValueError(f"there is no part {use[1]}")
        unused.discard(use[1])
        return parts[use[1]]

    whole = {name: _USE.sub(put, body).strip() for name, body in found["name"].items()}
    if unused:
        raise ValueError(f"no statement uses the part {min(unused)}")
    return whole
