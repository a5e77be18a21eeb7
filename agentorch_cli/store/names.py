"""What things are called, for whoever has mistyped it or is still typing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from agentorch_cli.core.hints import nearest_id
from agentorch_cli.errors import NotFound, command
from agentorch_cli.store.database import Database, Transaction

SEEN: Final = {
    "task": ("task", "list"),
    "agent": ("agent", "list"),
    "vote": ("consensus", "list"),
    "deadlock": ("deadlock", "list"),
    "schedule": ("schedule", "list"),
    "token": ("token", "list"),
    "budget": ("budget", "list"),
    "limit": ("limit", "list"),
}
"""The kinds of things that have names, and the command that shows each."""

NAMED_BY_PARTS: Final = ("task", "vote", "deadlock")
"""Kinds whose ids the engine makes: a part that only one of them has stands for it."""

SHORTEST: Final = 4
"""Characters of such a part."""

MOST_COMPARED: Final = 2_000
"""Names that are looked at for one that is near: of tasks, the newest."""


MOST_CALLED: Final = 200
"""Tasks that one document tells the names of."""


async def names_of(db: Database | Transaction, kind: str, limit: int = MOST_COMPARED) -> dict[str, str]:
    """Each id of a kind, with what else tells it apart (of a task its name, of an agent its type)."""
    rows = await db.fetch("known_names", kind, limit)
    return {row["id"]: str(row["also"] or "") for row in rows}


async def called(db: Database | Transaction, task_ids: Collection[str]) -> dict[str, str]:
    """What tasks are called, by id: of the first few, those that have a name."""
    ids = list(dict.fromkeys(task_ids))[:MOST_CALLED]
    return {row["task_id"]: row["name"] for row in await db.fetch("names_of_tasks", ids)} if ids else {}


async def no_such(db: Database | Transaction, kind: str, name: str) -> NotFound:
    """The error that says so, with the id that was probably meant."""
    known = await names_of(db, kind)
    return NotFound(
        f"there is no {kind} {name!r}{_too_short(kind, name, known)}{meant(name, known)}",
        fix=command(*SEEN[kind]),
    )


async def none_such(db: Database | Transaction, kind: str, names: Collection[str]) -> dict[str, str]:
    """The same of several that are to be told one by one."""
    known = await names_of(db, kind) if names else {}
    return {
        name: f"there is no such {kind}{_too_short(kind, name, known)}{meant(name, known)}" for name in names
    }


def _too_short(kind: str, name: str, known: Collection[str]) -> str:
    """A sentence for what would be a part of an id, if it were longer."""
    if kind not in NAMED_BY_PARTS or len(name) >= SHORTEST:
        return ""
    is_part = name and any(one.startswith(name) or one.endswith(name) for one in known)
    return f": a part of an id takes at least {SHORTEST} characters" if is_part else ""


def meant(name: str, known: dict[str, str]) -> str:
    """` (did you mean "x"?)`: a near id, or the newest thing that goes by this name."""
    near = next((one for one, also in known.items() if also == name), None) or nearest_id(name, known)
    return f' (did you mean "{near}"?)' if near is not None else ""
