"""The statements, by name. Each file groups what belongs together; each statement has a heading."""

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

_HEADING = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def statements() -> dict[str, str]:
    """Every statement of this folder by its name; read once."""
    found: dict[str, str] = {}
    for file in FILES:
        text = resources.files(__package__).joinpath(file).read_text("utf-8")
        pieces = _HEADING.split(text)[1:]
        for name, body in zip(pieces[::2], pieces[1::2], strict=True):
            if name in found:
                raise ValueError(f"the statement {name} is defined twice")
            found[name] = body.strip().rstrip(";")
    return found
