"""Who comes in: tokens, what they allow, and their end.

A token is looked up once and remembered for a while, so that a thousand agents with one token cost
one question to the database. What is remembered is forgotten when the token is revoked (every node
hears of it at once) and when it expires; the connections that it opened are closed then.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from agentorch_cli.errors import DatabaseUnreachable, NotAllowed, Unauthorized
from agentorch_cli.store.database import Database
from agentorch_cli.tokens import allows, allows_agent, digest, is_wellformed

log = logging.getLogger("agentorch.gateway")

REMEMBERED_SECONDS = 60.0
"""After this a token is looked up again, should a word of its end have been lost."""

MOST_REMEMBERED = 10_000

TOUCH_EVERY = 60.0
"""Seconds between two notes of the last use of one token."""

LOOK_EVERY = 0.5
"""Seconds between two looks at what has expired, while any token with an end is in use."""

OWN_SECRET_BYTES = 32

HOW_TO_SHOW_ONE = (
    "agentorch token create makes one; a profile, AGENTORCH_TOKEN or AGENTORCH_TOKEN_FILE shows it"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of a connection."""

    name: str | None = None
    """Of the token; None: nobody had to show one."""
    token_id: str | None = None
    scopes: tuple[str, ...] = ("admin",)
    ends_at: float | None = None
    """On the loop's clock."""

    @property
    def is_known(self) -> bool:
        """Whether a token says who it is."""
        return self.token_id is not None

    def may(self, scope: str) -> bool:
        return allows(self.scopes, scope)

    def only_reading(self) -> Caller:
        """The same caller, who may look and no more."""
        return replace(self, scopes=("read",) if self.may("read") else ())

    def may_be(self, agent_id: str) -> bool:
        """Whether it may speak as this agent."""
        return not self.is_known or allows_agent(self.scopes, agent_id)


ANYBODY = Caller()
"""On loopback, or where serve was told that the network is its own."""

INSIDE = Caller(name="serve", token_id="serve", scopes=("agent:*",))  # noqa: S106  no secret: it names the inside
"""The agents that serve runs itself."""


@dataclass(slots=True)
class _Known:
    caller: Caller
    until: float


Hangup = Callable[[str], None]
"""Ends a connection, with the reason."""


class Keys:
    """The tokens of one node's gateway."""

    def __init__(self, db: Database, *, is_required: bool) -> None:
        self._db = db
        self.is_required = is_required
        self.own = secrets.token_urlsafe(OWN_SECRET_BYTES)
        """What the agents that serve runs itself show; it never leaves this process."""
        self._known: dict[str, _Known] = {}
        self._open: dict[str, dict[object, Hangup]] = {}
        """By token: the connections that it opened."""
        self._ends: dict[str, float] = {}
        self._touched: dict[str, float] = {}
        self._used: set[str] = set()
        self._asking: dict[str, asyncio.Future[Caller]] = {}
        self._gone: dict[str, float] = {}
        """Tokens of whose end was heard lately: an answer that was on its way does not bring them back."""

    # --- coming in --------------------------------------------------------------------------

    async def admit(self, token: str | None) -> Caller:
        """Who shows this token. Raises Unauthorized, DatabaseUnreachable."""
        if token is None or token == "":
            if self.is_required:
                raise Unauthorized("this server wants a token", hint=HOW_TO_SHOW_ONE)
            return ANYBODY
        if secrets.compare_digest(token.encode(errors="replace"), self.own.encode()):
            return INSIDE
        if not is_wellformed(token):
            raise Unauthorized("this is no token, or a part of it is missing", hint=HOW_TO_SHOW_ONE)
        key = digest(token)
        now = asyncio.get_running_loop().time()
        known = self._known.get(key)
        if known is None or known.until <= now:
            caller = await self._ask(key)
        else:
            caller = known.caller
        self._note_use(caller, now)
        return caller

    async def _ask(self, key: str) -> Caller:
        """One question for all who ask at the same time."""
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.ensure_future(self._look_up(key))
            self._asking[key] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(asking)

    async def _look_up(self, key: str) -> Caller:
        row = await self._db.fetch_one("find_token", key)
        if row is None or row["token_id"] in self._gone:
            self._known.pop(key, None)
            raise Unauthorized("this token is not known, was revoked, or has expired", hint=HOW_TO_SHOW_ONE)
        now = asyncio.get_running_loop().time()
        left: float | None = row["seconds_left"]
        caller = Caller(
            row["name"], row["token_id"], tuple(row["scopes"]), None if left is None else now + left
        )
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        until = now + REMEMBERED_SECONDS
        self._known[key] = _Known(caller, until if caller.ends_at is None else min(until, caller.ends_at))
        return caller

    def _note_use(self, caller: Caller, now: float) -> None:
        assert caller.token_id is not None
        if now - self._touched.get(caller.token_id, -TOUCH_EVERY) >= TOUCH_EVERY:
            if len(self._touched) >= MOST_REMEMBERED:
                self._touched.clear()
            self._touched[caller.token_id] = now
            self._used.add(caller.token_id)

    # --- while it is open -------------------------------------------------------------------

    def opened(self, caller: Caller, connection: object, hangup: Hangup) -> None:
        """This connection ends with its token."""
        if caller.token_id is None or caller is INSIDE:
            return
        self._open.setdefault(caller.token_id, {})[connection] = hangup
        if caller.token_id in self._gone:
            hangup("this token was revoked")
        if caller.ends_at is not None:
            self._ends[caller.token_id] = caller.ends_at

    def closed(self, caller: Caller, connection: object) -> None:
        """This connection has ended."""
        if caller.token_id is None:
            return
        there = self._open.get(caller.token_id, {})
        there.pop(connection, None)
        if not there:
            self._open.pop(caller.token_id, None)
            self._ends.pop(caller.token_id, None)

    def in_use(self, caller: Caller) -> None:
        """A connection that stays open uses its token too."""
        if caller.token_id is not None and caller is not INSIDE:
            self._note_use(caller, asyncio.get_running_loop().time())

    def revoked(self, payload: str) -> None:
        """These tokens have ended, or (`*`) some have: `check` finds out which."""
        if payload != "*":
            gone = payload.split("\n")
            at = asyncio.get_running_loop().time()
            self._gone |= dict.fromkeys(gone, at)
            self._end(gone, "this token was revoked")

    async def check(self) -> None:
        """Ask about every token that is in use: a word of its end may have been lost."""
        self._known.clear()
        held = list(self._open)
        if held:
            living = {row["token_id"] for row in await self._db.fetch("living_tokens", held)}
            self._end([one for one in held if one not in living], "this token was revoked")

    def _end(self, token_ids: Iterable[str], reason: str) -> None:
        gone = set(token_ids)
        self._known = {key: one for key, one in self._known.items() if one.caller.token_id not in gone}
        for token_id in gone:
            self._ends.pop(token_id, None)
            for hangup in list(self._open.get(token_id, {}).values()):
                hangup(reason)

    async def watch(self) -> None:
        """For ever: end what has expired, and write down what was used."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = asyncio.get_running_loop().time()
            self._end([one for one, at in self._ends.items() if at <= now], "this token has expired")
            self._gone = {one: at for one, at in self._gone.items() if now - at < REMEMBERED_SECONDS}
            used, self._used = self._used, set()
            if used:
                try:
                    await self._db.fetch("touch_tokens", list(used))
                except DatabaseUnreachable as error:
                    log.info("the last use of tokens is not written down: %s", error)


@dataclass(slots=True)
class Rate:
    """How much of one second's frames a connection has left."""

    per_second: int
    _second: int = field(default=0)
    _used: int = field(default=0)

    def take(self, now: float) -> float:
        """Count a frame; the seconds to wait before the next is read."""
        second = int(now)
        if second != self._second:
            self._second, self._used = second, 0
        self._used += 1
        return 0.0 if self._used <= self.per_second else second + 1 - now


def refuse_agent(caller: Caller, agent_id: str) -> None:
    """Raises NotAllowed unless the caller may be this agent."""
    if not caller.may_be(agent_id):
        raise NotAllowed(
            f"this token may not be the agent {agent_id[:200]!r}",
            fix=f"agentorch token create NAME --scope agent:{agent_id[:200]}",
        )
