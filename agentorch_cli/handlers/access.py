"""Who may ask for which operation from afar: one line each.

`scope` is what a token must hold (`admin` holds all but the agents'). `caller` names the parameter
that says who asks: for whoever came with a token it is the token's name, whatever was sent. `voter`
names the parameter that says for whom a vote is cast: that name must be the caller's own. What is
not listed here is not offered at all.

Of the operations that change something, those with `repeats` may be asked for again when the
connection broke before the answer came: the second time changes nothing. Reading always may.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Access(NamedTuple):
    """What one operation asks of who calls it."""

    scope: str | None
    """None: not from afar, it belongs to the machine with the database."""
    caller: str | None = None
    voter: str | None = None
    repeats: bool = False


ACCESS: Final[dict[str, Access]] = {
    "schema.apply": Access(None),
    "agent.register": Access("admin", repeats=True),
    "agent.list": Access("read"),
    "agent.get": Access("read"),
    "agent.remove": Access("admin"),
    "agent.pause": Access("admin", repeats=True),
    "agent.drain": Access("admin", repeats=True),
    "agent.resume": Access("admin", repeats=True),
    "task.submit": Access("submit", repeats=True),
    "task.list": Access("read"),
    "task.match": Access("read"),
    "task.get": Access("read"),
    "task.wait": Access("read"),
    "task.tally": Access("read"),
    "task.cancel": Access("submit"),
    "task.retry": Access("submit"),
    "task.depend": Access("submit"),
    "task.why": Access("read"),
    "task.plan": Access("read"),
    "task.graph": Access("read"),
    "task.timeline": Access("read"),
    "deadlock.list": Access("read"),
    "deadlock.get": Access("read"),
    "deadlock.check": Access("read"),
    "deadlock.resolve": Access("admin", caller="by"),
    "event.list": Access("read"),
    "consensus.list": Access("read"),
    "consensus.get": Access("read"),
    "consensus.open": Access("submit", caller="opened_by"),
    "consensus.vote": Access("vote", voter="agent_id"),
    "consensus.close": Access("submit", caller="closed_by"),
    "consensus.history": Access("read"),
    "reliability.list": Access("read"),
    "outcome.say": Access("vote", caller="said_by"),
    "outcome.say_many": Access("vote", caller="said_by"),
    "budget.set": Access("admin", repeats=True),
    "budget.get": Access("read"),
    "budget.list": Access("read"),
    "budget.remove": Access("admin"),
    "limit.set": Access("admin", repeats=True),
    "limit.list": Access("read"),
    "limit.remove": Access("admin"),
    "schedule.add": Access("submit"),
    "schedule.list": Access("read"),
    "schedule.get": Access("read"),
    "schedule.pause": Access("submit", repeats=True),
    "schedule.resume": Access("submit", repeats=True),
    "schedule.remove": Access("submit"),
    "schedule.run": Access("submit"),
    "db.status": Access(None),
    "db.backup": Access(None),
    "db.restore": Access(None),
    "history.prune": Access("admin", repeats=True),
    "node.list": Access("read"),
    "status.get": Access("read"),
    "id.resolve": Access("read"),
    "token.create": Access("admin"),
    "token.list": Access("admin"),
    "token.revoke": Access("admin"),
}

SUBSCRIBE: Final = Access("read")
"""`subscribe`, which belongs to the connection."""

WAITS: Final = frozenset({"task.wait"})
"""Operations that may take as long as work takes."""


def may_repeat(method: str) -> bool:
    """Whether asking twice does what asking once does."""
    access = ACCESS.get(method)
    return access is not None and (access.scope == "read" or access.repeats)
