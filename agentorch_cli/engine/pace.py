"""When busy agents will have a free slot, as far as their tasks say how long they take.

Work is handed ahead of a slot only to agents that will have one soon. Without estimates the last attempt
has to tell: one that was quick is taken for quick again. Tasks with an estimate tell it better: an agent is
soon free while the first of its attempts is expected to end within `SOON`, and is not before. So work
never waits behind a task of which it is known that it takes long, and the best of what is ready is
chosen as late as a round trip allows.

An estimate may be wrong. What has run for `SOON` longer than it said may run for long: its agent is
handed nothing until it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

from agentorch_cli.core.matching import UNKNOWN, Member, Roster

QUICK_SECONDS = 0.25
"""An agent whose last attempt took no longer, and went well, may be handed work beyond its slots."""

SOON = 0.015
"""Seconds before its expected end that work is handed over behind an attempt: two or three round trips. With
more of them work is bound to an agent while others come free, or something more urgent becomes ready."""


class Pace:
    """Keeps `Member.is_quick` and `Member.free_at`."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.on_soon: Callable[[], None] | None = None
        """Is told when an agent may be handed work that may not be handed to it before."""
        self.ends: dict[str, dict[str, float]] = {}
        """By agent and message id, when attempts that say it are expected to end, on the loop's clock; of an
        agent the one that began last comes last."""
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def chosen(self, member: Member, seconds: float) -> None:
        """An agent was chosen for work that takes so long by its estimate, and is told once that is stored.

        Until then it must not be taken for free soon because what it did before was quick.
        """
        if member.prefetch and seconds > SOON:
            self._set(self.roster.members.get(member.agent_id, member), None)

    def began(self, agent_id: str, message_id: str, seconds: float) -> None:
        """An agent works at this, for so long from now on by its estimate."""
        member = self.roster.members.get(agent_id)
        if member is None or not member.prefetch:
            return
        ends = self.ends.setdefault(agent_id, {})
        ends.pop(message_id, None)
        ends[message_id] = asyncio.get_running_loop().time() + seconds
        self._look(agent_id)

    def ended(self, agent_id: str, message_id: str) -> None:
        """An attempt is over, or waits without a slot, whether or not its end was expected."""
        ends = self.ends.get(agent_id)
        if ends is None:
            return
        ends.pop(message_id, None)
        if not ends:
            del self.ends[agent_id]
        self._look(agent_id)

    def last(self, member: Member, seconds: float, *, went_well: bool) -> None:
        """How long its last attempt took. Called before that has ended, and its slot is free."""
        member.has_failed, member.was_quick = not went_well, went_well and seconds <= QUICK_SECONDS
        member.is_quick, member.free_at = member.was_quick, UNKNOWN

    def was_slow(self, agent_id: str) -> None:
        """The agent is handed nothing beyond its slots until it has done something well."""
        member = self.roster.members.get(agent_id)
        if member is not None:
            member.has_failed, member.was_quick = True, False
            self._set(member, None)

    def _look(self, agent_id: str) -> None:
        """Whether it will have a free slot soon; and look again when that changes."""
        timer = self._timers.pop(agent_id, None)
        if timer is not None:
            timer.cancel()
        member, ends = self.roster.members.get(agent_id), self.ends.get(agent_id)
        if member is None:
            return
        if not ends or len(ends) < min(member.busy, member.slots):
            # How long the others take is not known: the last one tells.
            self._set(member, UNKNOWN if member.was_quick else None)
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        # What began before the last of these has ended already: its result is on its way.
        running = islice(reversed(ends.values()), member.slots)
        soonest = min((end for end in running if end + SOON > now), default=None)
        is_soon = soonest is not None and soonest - SOON <= now
        if soonest is not None:
            at = soonest + SOON if is_soon else soonest - SOON
            self._timers[agent_id] = loop.call_at(at, self._look, agent_id)
        self._set(member, soonest if is_soon and not member.has_failed else None)

    def _set(self, member: Member, free_at: float | None) -> None:
        before = member.is_quick, member.free_at
        after = free_at is not None, UNKNOWN if free_at is None else free_at
        if before != after:
            member.is_quick, member.free_at = after
            self.roster.touch(member)
            if member.is_quick and self.on_soon is not None:
                self.on_soon()
