"""Who may, and why each other may not.

A `Roster` mirrors the fleet: which agents are online, with which capabilities, and which of
their slots are taken. Agents are grouped into one `Guild` per set of required capabilities
that was ever asked for; each guild keeps its members in a heap by score, so that a choice
costs a few heap steps and not a walk over the fleet.

Heap entries carry the stamp that their agent had when they were pushed. Whenever an agent's
load or standing changes its stamp goes up and a new entry is pushed; an entry with an old
stamp is thrown away when it comes to the top. So the heap is right without ever being sorted.

`obstacle` is the one rule of eligibility. `Roster.choose` and every explanation use it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from agentorch_cli.core.model import AgentStatus
from agentorch_cli.core.scoring import Weights, score


@dataclass(slots=True, eq=False)
class Member:
    """One agent as the scheduler sees it."""

    agent_id: str
    type: str
    capabilities: frozenset[str]
    slots: int
    status: AgentStatus
    node_id: str | None = None
    performance: float = 1.0
    completed: int = 0
    failed: int = 0
    used: set[int] = field(default_factory=set)
    """Numbers of the slots that live attempts own."""
    stamp: int = 0
    guilds: list[Guild] = field(default_factory=list)

    @property
    def busy(self) -> int:
        return len(self.used)

    @property
    def is_free(self) -> bool:
        return self.status is AgentStatus.ONLINE and len(self.used) < self.slots

    def free_slot(self) -> int:
        """The lowest number that no live attempt owns. Only for a free member."""
        number = len(self.used)
        if number not in self.used:
            return number
        return next(n for n in range(self.slots) if n not in self.used)


@dataclass(frozen=True, slots=True)
class Want:
    """What a task asks of its agents at this moment."""

    required: frozenset[str]
    number: int = 1
    most: int = 1
    """Takes up to this many if they are free; never fewer than `number`."""
    closed_to: frozenset[str] = frozenset()
    """Agents that must not get it (again)."""
    rather_not: frozenset[str] = frozenset()
    """Agents that failed it: only if there is nobody else who could, busy or not."""
    only: tuple[str, ...] | None = None
    """A frozen electorate, best first: nobody else."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One agent's slot, chosen for a task."""

    member: Member
    slot: int


@dataclass(slots=True, eq=False)
class Guild:
    """The agents that have one set of capabilities."""

    required: frozenset[str]
    members: dict[str, Member] = field(default_factory=dict)
    heap: list[tuple[float, str, int, Member]] = field(default_factory=list)


def obstacle(member: Member, want: Want) -> str | None:
    """Why this agent may not take this work now, in words; None where nothing stands in the way."""
    lacking = want.required - member.capabilities
    if lacking:
        return "lacks " + ", ".join(sorted(lacking))
    if member.agent_id in want.closed_to:
        return "has it already"
    if want.only is not None and member.agent_id not in want.only:
        return "is not in the electorate"
    if member.status is not AgentStatus.ONLINE:
        return f"is {member.status}"
    if len(member.used) >= member.slots:
        return f"all {member.slots} slots are busy"
    return None


class Roster:
    """The fleet, indexed for choosing."""

    def __init__(self, weights: Weights | None = None) -> None:
        self.weights = weights or Weights()
        self.members: dict[str, Member] = {}
        self.guilds: dict[frozenset[str], Guild] = {}
        self._stamps = itertools.count(1)
        """Never the same twice: an agent that came anew must not be mistaken for what it was before."""

    # --- changes ----------------------------------------------------------------------------

    def put(self, member: Member) -> None:
        """Add an agent, or replace what was known of it."""
        self.drop(member.agent_id)
        self.members[member.agent_id] = member
        member.stamp = next(self._stamps)
        for guild in self.guilds.values():
            self._join(guild, member)

    def drop(self, agent_id: str) -> None:
        """Forget an agent."""
        member = self.members.pop(agent_id, None)
        if member is not None:
            member.stamp = next(self._stamps)
            for guild in member.guilds:
                guild.members.pop(agent_id, None)
            member.guilds = []

    def take(self, member: Member, slot: int) -> None:
        """A live attempt owns this slot from now on."""
        member.used.add(slot)
        self.touch(member)

    def give_back(self, agent_id: str, slot: int) -> None:
        """The attempt that owned this slot has ended."""
        member = self.members.get(agent_id)
        if member is not None and slot in member.used:
            member.used.remove(slot)
            self.touch(member)

    def touch(self, member: Member) -> None:
        """The member's load, status or performance changed: offer it anew."""
        member.stamp = next(self._stamps)
        if member.is_free:
            for guild in member.guilds:
                self._offer(guild, member)

    # --- choices ----------------------------------------------------------------------------

    def guild(self, required: frozenset[str]) -> Guild:
        """The agents that have these capabilities."""
        guild = self.guilds.get(required)
        if guild is None:
            guild = self.guilds[required] = Guild(required)
            for member in self.members.values():
                self._join(guild, member)
        return guild

    def has_free(self, required: frozenset[str]) -> bool:
        """Whether anybody with these capabilities has a free slot."""
        return next(self._best(self.guild(required)), None) is not None

    def choose(self, want: Want) -> list[Seat] | None:
        """The best free agents for this work, all or nothing; None where too few are free.

        The seats are not taken yet: the caller does that, or leaves them.
        """
        if want.only is not None:
            return self._elect(want, want.only)
        guild = self.guild(want.required)
        avoided = self._avoided(guild, want)
        chosen: list[Member] = []
        passed: list[tuple[float, str, int, Member]] = []
        for entry in self._pops(guild):
            passed.append(entry)
            member = entry[3]
            if member.agent_id in avoided or obstacle(member, want) is not None:
                continue
            chosen.append(member)
            if len(chosen) == want.most:
                break
        for entry in passed:
            heapq.heappush(guild.heap, entry)
        if len(chosen) < want.number:
            return None
        return [Seat(member, member.free_slot()) for member in chosen]

    def _elect(self, want: Want, voters: Sequence[str]) -> list[Seat] | None:
        """The first of these agents that may take it, in their order and not by score."""
        found = (self.members[agent_id] for agent_id in voters if agent_id in self.members)
        chosen = [member for member in found if obstacle(member, want) is None][: want.most]
        if len(chosen) < want.number:
            return None
        return [Seat(member, member.free_slot()) for member in chosen]

    def eligible(self, want: Want) -> list[Member]:
        """Online agents that could take this work, free or busy, best first."""
        found = [
            member
            for member in self.guild(want.required).members.values()
            if member.status is AgentStatus.ONLINE and member.agent_id not in want.closed_to
        ]
        return sorted(found, key=lambda m: (-m.performance, m.agent_id))

    def explain(self, want: Want) -> dict[str, str | None]:
        """Agent by agent, what stands in the way; None for those who could take it at once."""
        avoided = self._avoided(self.guild(want.required), want)
        return {
            agent_id: obstacle(member, want) or ("failed it before" if agent_id in avoided else None)
            for agent_id, member in sorted(self.members.items())
        }

    # --- inside -----------------------------------------------------------------------------

    def _join(self, guild: Guild, member: Member) -> None:
        if guild.required <= member.capabilities:
            guild.members[member.agent_id] = member
            member.guilds.append(guild)
            if member.is_free:
                self._offer(guild, member)

    def _offer(self, guild: Guild, member: Member) -> None:
        value = score(self.weights, member.performance, len(member.used), member.slots)
        heapq.heappush(guild.heap, (-value, member.agent_id, member.stamp, member))
        if len(guild.heap) > 64 + 4 * len(guild.members):
            guild.heap = [entry for entry in guild.heap if entry[2] == entry[3].stamp]
            heapq.heapify(guild.heap)

    def _best(self, guild: Guild) -> Iterator[tuple[float, str, int, Member]]:
        """The best valid entry, left in place."""
        heap = guild.heap
        while heap:
            entry = heap[0]
            if entry[2] == entry[3].stamp and entry[3].is_free:
                yield entry
                return
            heapq.heappop(heap)

    def _pops(self, guild: Guild) -> Iterator[tuple[float, str, int, Member]]:
        """Valid entries, best first, taken out of the heap."""
        while next(self._best(guild), None) is not None:
            yield heapq.heappop(guild.heap)

    def _avoided(self, guild: Guild, want: Want) -> Collection[str]:
        """Those who failed it before, if anybody else could ever take it."""
        if not want.rather_not:
            return ()
        others: Iterable[Member] = guild.members.values()
        if want.only is not None:
            others = (m for m in others if m.agent_id in want.only)
        if any(
            m.status is AgentStatus.ONLINE
            and m.agent_id not in want.rather_not
            and m.agent_id not in want.closed_to
            for m in others
        ):
            return want.rather_not
        return ()
