"""Rates: how many attempts may start in a while."""

from __future__ import annotations

from collections.abc import Sequence

from agentorch_cli import views
from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.core.limits import Rate, Scope, default_burst
from agentorch_cli.errors import NotFound
from agentorch_cli.handlers.context import Context
from agentorch_cli.store import limits


async def set_limit(
    context: Context, scope: Scope, name: str, number: int, per_seconds: float, burst: int | None = None
) -> views.LimitView:
    """Let at most `number` attempts start in `per_seconds`, `burst` of them at once."""
    rate = Rate(number, per_seconds)
    await limits.set_limit(context.db, scope, name, rate, burst or default_burst(rate))
    return next(one for one in await list_limits(context) if (one.scope, one.name) == (scope, name))


async def list_limits(context: Context) -> list[views.LimitView]:
    """All rates, and what is left of each at this moment."""
    return [
        views.LimitView(**dict(row), rate=str(Rate(row["number"], row["per_seconds"])))
        for row in await context.db.fetch("limits")
    ]


async def remove_limits(context: Context, limits_named: Sequence[tuple[Scope, str]]) -> views.ChangeReply:
    """Take rates away. Raises NotFound where none of them is there."""
    if not limits_named:
        return views.ChangeReply()
    wanted = [f"{scope}:{name}" for scope, name in limits_named]
    known = [f"{one.scope}:{one.name}" for one in await list_limits(context)]
    gone = {f"{scope}:{name}" for scope, name in await limits.remove_limits(context.db, limits_named)}
    if not gone:
        raise NotFound(
            f"there is no limit {wanted[0]!r}{did_you_mean(wanted[0], known)}",
            fix="agentorch limit list",
        )
    return views.ChangeReply(
        changed=sorted(gone), unchanged={one: "there is no such limit" for one in wanted if one not in gone}
    )
