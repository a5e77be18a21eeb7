"""Operations on tokens."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from agentorch_cli import tokens, views
from agentorch_cli.errors import Conflict, UsageError, command
from agentorch_cli.handlers.context import Context
from agentorch_cli.store.names import SHORTEST, none_such

MOST_SCOPES = 100
LONGEST_LIFE = 100 * 366 * 86_400.0
"""Seconds."""


async def create_token(
    context: Context, name: str, scopes: Sequence[str], expires_seconds: float | None = None
) -> views.NewTokenView:
    """Make a token; this answer is the only place where it is seen. Raises UsageError, Conflict."""
    if not 1 <= len(name) <= 200 or not name.isprintable() or not name.strip():
        raise UsageError("a token's name has 1 to 200 characters that can be seen")
    wanted = list(dict.fromkeys(scopes))
    if not 1 <= len(wanted) <= MOST_SCOPES:
        raise UsageError(
            "a token needs a scope: --scope read, submit, vote, admin, agent:NAME or agent:PREFIX*"
            if not wanted
            else f"a token has at most {MOST_SCOPES} scopes"
        )
    for scope in wanted:
        if fault := tokens.scope_fault(scope):
            raise UsageError(fault)
    if expires_seconds is not None and not 1 <= expires_seconds <= LONGEST_LIFE:
        raise UsageError(
            "a token lives for 1 second to 100 years; leave --expires out for one without an end"
        )
    token_id, token = tokens.make()
    try:
        row = await context.db.fetch_one(
            "create_token",
            token_id,
            name,
            tokens.digest(token),
            wanted,
            expires_seconds,
            context.store.node_id,
        )
    except asyncpg.UniqueViolationError as error:
        raise Conflict(
            f"there is a token {name!r} already",
            hint="or choose another name",
            fix=command("token", "revoke", name),
        ) from error
    assert row is not None
    return views.NewTokenView(**_facts(row), token=token)


async def list_tokens(context: Context, every: bool = False) -> list[views.TokenView]:
    """The tokens that work; with `every`, those that have ended too."""
    return [views.TokenView(**_facts(row)) for row in await context.db.fetch("show_tokens", every)]


async def revoke_tokens(context: Context, names: Sequence[str]) -> views.ChangeReply:
    """End tokens, by name, id or the beginning of an id; connections that they opened are closed at once.

    Raises Conflict where several ids begin so.
    """
    asked = await _whole(context, list(dict.fromkeys(names)))
    rows = await context.db.fetch("revoke_tokens", asked, context.store.node_id)
    gone = {row["token_id"]: row["name"] for row in rows}
    missing = [one for one in asked if one not in gone and one not in gone.values()]
    return views.ChangeReply(
        changed=sorted(gone.values()), unchanged=await none_such(context.db, "token", missing)
    )


async def _whole(context: Context, names: Sequence[str]) -> list[str]:
    """Ids in the place of their beginnings, of at least four letters; anything else as it is."""
    known = [(row["token_id"], row["name"]) for row in await context.db.fetch("show_tokens", False)]
    words = {word for pair in known for word in pair}
    found = []
    for name in names:
        meant = [one for one, _ in known if one.startswith(name)]
        if name in words or len(name) < SHORTEST or not meant:
            found.append(name)
        elif len(meant) == 1:
            found.append(meant[0])
        else:
            raise Conflict(
                f"{name!r} begins {len(meant)} ids of tokens: {', '.join(meant[:10])}", candidates=meant[:10]
            )
    return found


def _facts(row: asyncpg.Record) -> dict[str, object]:
    facts = dict(row)
    is_expired = facts.pop("is_expired")
    facts["status"] = "revoked" if facts["revoked_at"] else "expired" if is_expired else "active"
    return facts
