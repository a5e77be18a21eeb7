"""Who may, and why each other may not.

A `Roster` mirrors the fleet: which agents are online, with which capabilities, and which of
their slots are taken. Agents are grouped into one `Guild` per `Lane`: a set of capabilities that
tasks ask for, and their type where agents are known to differ in it. Each guild keeps its members
in a heap by score, so that a choice costs a few heap steps and not a walk over the fleet.

How well an agent does is known per lane (`core.ledger`). A bounded share of the choices goes to
whoever is measured least instead of best, so that new and recovered agents are measured at all;
the draw is seeded, so the same history gives the same choices.

Heap entries carry the stamp that their agent had when they were pushed. Whenever an agent's
load or standing changes its stamp goes up and one new entry goes to all its guilds; an entry
with an old stamp is thrown away when it comes to the top. So the heap is right without ever
being sorted.

A guild that hears of more changes than it would cost to build it anew, and was not asked in
between, is forgotten, and built again when it is asked. So the price of a change does not
grow with the number of different sets that were ever asked for, and neither does the memory:
the argument is that of renting skis until one could have bought them.

A team (`core.team`) is chosen from the best of each guild of agents that have the same part of
what it asks for.

A roster chooses for one pool. Agents of other pools are members too, so that every explanation can
name them, but they are in no guild and no crew: to a choice they cost nothing.

`obstacle` is the one rule of eligibility. `Roster.choose` and every explanation use it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from agentorch_cli.core.model import DEFAULT_POOL, AgentStatus
from agentorch_cli.core.scoring import Weights, score
from agentorch_cli.core.team import Candidate, can_cover, form, listed, share_of

MOST_SEATS = 500_000
"""Memberships that all guilds together may hold; about 60 bytes each."""

_OVERHEAD = 16
"""What an empty guild counts for in `MOST_SEATS`."""

MOST_TYPES = 16
"""Types of task per set of capabilities that get a guild of their own: each costs a heap step per change."""

SAMPLE = 16
"""Free agents among which an exploring choice looks for the one of which least is known."""

MOST_PARTS = 256
"""Parts of a team's capabilities that get a guild each; with more of them all agents are looked at."""

_SLACK = 64
"""So many void entries of a heap, or changes that nobody asked about, are not worth a thought."""


UNKNOWN = 1e9
"""A moment that comes after all that are known."""


@dataclass(slots=True, eq=False)
class Member:
    """One agent as the scheduler sees it. Whoever changes it in place calls `Roster.touch`."""

    agent_id: str
    type: str
    capabilities: frozenset[str]
    slots: int
    status: AgentStatus
    node_id: str | None = None
    pool: str = DEFAULT_POOL
    performance: float = 1.0
    """Its overall estimate, in 0..1."""
    estimates: dict[tuple[str, str], float] = field(default_factory=dict)
    """Estimates in 0..1 by (skill, task type); (skill, "") is that of all types."""
    trials: dict[tuple[str, str], float] = field(default_factory=dict)
    """How much each of these rests upon, in outcomes; ("", "") counts them all."""
    exclusions: dict[str, str] = field(default_factory=dict)
    """Why it gets nothing at the moment although it is online, by who says so."""
    completed: int = 0
    failed: int = 0
    used: set[int] = field(default_factory=set)
    """Numbers of the slots that live attempts own; there are more than `slots` of them where it holds work
    that it has not begun."""
    next_slot: int = 0
    """Where a free slot is looked for first: those that were given last are the last to come free."""
    prefetch: int = 0
    """Attempts beyond its slots that it may hold at most."""
    is_quick: bool = False
    """It has a free slot soon: what it holds ahead is begun then."""
    free_at: float = UNKNOWN
    """When that is expected, in seconds of any clock: of those who are quick whoever comes first is asked."""
    was_quick: bool = False
    """The last attempt that it ended was short and went well."""
    has_failed: bool = False
    """That did not go well, or it let work wait for too long."""
    is_parent: bool = False
    """Its work waits for sub-tasks: what goes on after that must find a slot."""
    is_probing: bool = False
    """It was excluded, and gets one task at a time until one of them goes well."""
    probe_slot: int | None = None
    """The slot of the task that it is probed with now."""
    stamp: int = 0
    freed_at: int = 0
    """The stamp at which it last became able to take more, or different, work."""
    is_counted: bool = False
    """Its crew counts it as one that has room."""
    guilds: dict[Lane, Guild] = field(default_factory=dict)

    def estimate(self, skill: str, type: str) -> float:
        """How well it does work of this skill and type, by what is known closest to it."""
        if not self.estimates:
            return self.performance
        found = self.estimates.get((skill, type))
        return self.estimates.get((skill, ""), self.performance) if found is None else found

    @property
    def excluded(self) -> str | None:
        """Why it gets nothing at the moment; None where nothing is in the way."""
        return next(iter(self.exclusions.values()), None)

    @property
    def busy(self) -> int:
        return len(self.used)

    @property
    def is_free(self) -> bool:
        return (
            self.status is AgentStatus.ONLINE
            and len(self.used) < self.slots
            and not self.exclusions
            and not self.is_probed
        )

    @property
    def is_probed(self) -> bool:
        """It has the one task that shows how it is."""
        return self.is_probing and self.probe_slot in self.used

    @property
    def has_room(self) -> bool:
        """Could be handed work now, to begin at once or (see `Want.may_wait`) soon."""
        if len(self.used) < self.slots:
            return self.is_free
        return (
            self.is_quick
            and not self.is_parent
            and not self.is_probing
            and len(self.used) < self.slots + self.prefetch
            and self.status is AgentStatus.ONLINE
            and not self.exclusions
        )

    def free_slot(self) -> int:
        """A number that no live attempt owns. Only for a member that has room."""
        used = self.used
        end = self.slots if len(used) < self.slots else self.slots + self.prefetch
        number = self.next_slot
        for _ in range(end):
            if number >= end:
                number = 0
            if number not in used:
                break
            number += 1
        self.next_slot = number + 1
        return number


Demand = tuple[frozenset[str], int]


@dataclass(frozen=True, slots=True)
class Want:
    """What a task asks of its agents at this moment. Tasks with equal wants are stuck and freed together."""

    required: frozenset[str]
    number: int = 1
    most: int = 1
    """Takes up to this many if they are free; never fewer than `number`."""
    closed_to: frozenset[str] = frozenset()
    """Agents that must not get it (again)."""
    rather_not: frozenset[str] = frozenset()
    """Agents that failed it: left out as long as `number` others are online, busy or not."""
    only: tuple[str, ...] | None = None
    """A frozen electorate, best first: nobody else."""
    type: str = ""
    """The task's type: agents may do better in one than in another."""
    gates: tuple[str, ...] = ()
    """Limits that it shares with others (`core.gates`)."""
    is_team: bool = False
    """They have `required` together; each has a part of it."""
    pool: str = DEFAULT_POOL
    may_wait: bool = False
    """Where all who could take it are busy, a quick one may be handed it beyond its slots."""
    declined_by: frozenset[str] = frozenset()
    """Agents that gave it back because they do not want to do it: it does not come to them again."""
    _hash: int = field(init=False, repr=False, compare=False, default=0)
    """Reckoned once: a want is looked up for each task."""

    def __post_init__(self) -> None:
        agents = (self.closed_to, self.rather_not, self.only, self.declined_by)
        kind = (self.type, self.gates, self.is_team, self.pool, self.may_wait)
        object.__setattr__(self, "_hash", hash((self.required, self.number, self.most, agents, kind)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def demand(self) -> Demand:
        """What it asks of the agents that there are: capabilities, and of a team how many may have them."""
        return (self.required, self.most if self.is_team else 0)

    @property
    def is_gang(self) -> bool:
        """Has to be given several agents at once, or may have to be."""
        return self.number > 1 or self.is_team

    def is_served_by(self, capabilities: frozenset[str]) -> bool:
        """Whether somebody with these could take part."""
        if self.is_team:
            return not self.required.isdisjoint(capabilities)
        return self.required <= capabilities


@dataclass(slots=True)
class Seat:
    """One agent's slot, chosen for a task."""

    member: Member
    slot: int
    role: str | None = None
    """The member's part in a team."""
    is_ahead: bool = False
    """Beyond its slots: it has to wait for one of them."""


Lane = tuple[frozenset[str], str]
"""Required capabilities, and the type of task where it makes a difference; else ""."""

Entry = tuple[float, str, int, Member]
"""Negated score, id, stamp: the best comes first, equal scores by id; those without a free slot come last."""

_LAST = 2.0
"""More than any two scores differ by."""

_AHEAD = 1e10
"""More than any two moments differ by: whoever holds less ahead comes first."""


@dataclass(slots=True, eq=False)
class Guild:
    """The agents that have one set of capabilities, in the order of what they do in one lane."""

    required: frozenset[str]
    type: str = ""
    skill: str = ""
    size: int = 0
    heap: list[Entry] = field(default_factory=list)
    unread: int = 0
    """Changes since it was last asked."""
    freed_at: int = 0
    """The stamp at which a member last became able to take more, or different, work."""


@dataclass(slots=True, eq=False)
class Crew:
    """The agents whose capabilities are the same."""

    capabilities: frozenset[str]
    size: int = 0
    free: int = 0
    """Members that have room."""


@lru_cache(maxsize=4096)
def skill_of(required: frozenset[str]) -> str:
    """The name under which what is known of agents with these capabilities is kept."""
    return "+".join(sorted(required)) or "any"


def skill_shown(required: Iterable[str], role: str | None) -> str:
    """The skill for which an attempt is evidence: of a member of a team its part of what is required."""
    asked = frozenset(required)
    if role is None:
        return skill_of(asked)
    return skill_of(asked & share_of(role) or asked)


def lasting_obstacle(member: Member, want: Want) -> str | None:
    """Why this agent could not take this work even if it were idle; None where it could."""
    if member.pool != want.pool:
        return f"is in pool {member.pool}"
    if not want.is_served_by(member.capabilities):
        if want.is_team:
            return f"has nothing of {listed(want.required)}"
        return "lacks " + ", ".join(sorted(want.required - member.capabilities))
    if member.agent_id in want.closed_to:
        return "has it already"
    if member.agent_id in want.declined_by:
        return "declined it"
    if want.only is not None and member.agent_id not in want.only:
        return "is not in the electorate"
    if member.status is not AgentStatus.ONLINE:
        return f"is {member.status}"
    return member.excluded


def obstacle(member: Member, want: Want) -> str | None:
    """Why this agent may not take this work now, in words; None where nothing stands in the way."""
    lasting = lasting_obstacle(member, want)
    if lasting is None and len(member.used) >= member.slots:
        return f"all {member.slots} slots are busy" if member.slots != 1 else "is busy"
    if lasting is None and member.is_probed:
        return "is being probed, with one task at a time"
    return lasting


class Roster:
    """The fleet, indexed for choosing."""

    def __init__(
        self,
        weights: Weights | None = None,
        *,
        exploration: float = 0.0,
        seed: int = 0,
        pool: str = DEFAULT_POOL,
    ) -> None:
        self.weights = weights or Weights()
        self.pool = pool
        """The pool that choices are made in."""
        self.exploration = exploration
        """Share of the choices that go to whoever is measured least."""
        self.members: dict[str, Member] = {}
        self.guilds: dict[Lane, Guild] = {}
        """Those that are asked; the one that was not asked for longest comes first."""
        self.stamp = 0
        """Goes up with each change; never the same twice, so that an agent that came anew is not
        mistaken for what it was before."""
        self.lost_at = 0
        """The stamp at which an agent last went offline or left."""
        self.free = 0
        """Agents of the pool that have room."""
        self.idled: dict[str, None] = {}
        """Agents with a free slot that they did not have, or that changed otherwise; whoever has seen to
        them takes them out."""
        self._crews: dict[frozenset[str], Crew] = {}
        """The one that changed last comes last."""
        self._having: dict[str, dict[str, Member]] = {}
        """Members by capability."""
        self._draw = random.Random(seed)
        self._types: dict[str, set[str]] = {}
        """By skill, the types that have guilds of their own."""
        self._asked: dict[str, dict[Lane, Guild]] = {}
        """Guilds by the first of their capabilities."""
        self._seats = 0
        self._parts: dict[frozenset[str], list[frozenset[str]]] = {}
        """By capabilities of a team, what agents have of them; forgotten when a crew comes or goes."""
        self._freed: dict[str, Member] = {}
        """Members that could take work when they last changed; the one that changed last comes last."""
        self._freed_at: dict[str, int] = {}
        """By capability, the stamp at which somebody with it last became able to take more."""

    # --- changes ----------------------------------------------------------------------------

    def put(self, member: Member) -> None:
        """Add an agent, or replace it; what it did so far, and why it gets nothing, stays known."""
        before = self.members.get(member.agent_id)
        if before is not None and not member.estimates:
            member.estimates, member.trials = before.estimates, before.trials
            if before.estimates:
                member.performance = before.performance
        if before is not None and before is not member:
            member.exclusions = before.exclusions | member.exclusions
            member.is_quick, member.is_parent = before.is_quick, before.is_parent
            member.free_at = before.free_at
            member.was_quick, member.has_failed = before.was_quick, before.has_failed
            member.is_probing = before.is_probing
            member.probe_slot = before.probe_slot
        self.drop(member.agent_id)
        self.members[member.agent_id] = member
        member.is_counted = False
        if member.pool != self.pool:
            return
        crew = self._crews.get(member.capabilities)
        if crew is None:
            crew = self._crews[member.capabilities] = Crew(member.capabilities)
            self._parts.clear()
        crew.size += 1
        for capability in member.capabilities:
            self._having.setdefault(capability, {})[member.agent_id] = member
        for first in {"", *member.capabilities}:
            for guild in self._asked.get(first, {}).values():
                if guild.required <= member.capabilities:
                    self._join(guild, member)
        self.touch(member)

    def drop(self, agent_id: str) -> None:
        """Forget an agent."""
        member = self.members.pop(agent_id, None)
        if member is None or member.pool != self.pool:
            return
        self._freed.pop(agent_id, None)
        self.stamp += 1
        self.lost_at = member.stamp = self.stamp
        crew = self._crews[member.capabilities]
        crew.size -= 1
        crew.free -= member.is_counted
        self.free -= member.is_counted
        if not crew.size:
            del self._crews[member.capabilities]
            self._parts.clear()
        for capability in member.capabilities:
            del self._having[capability][agent_id]
            if not self._having[capability]:
                del self._having[capability]
        for guild in member.guilds.values():
            guild.size -= 1
            self._seats -= 1
            _trim(guild)
        member.guilds = {}

    def take(self, member: Member, slot: int) -> None:
        """Work that was chosen for it now owns this slot from now on."""
        member = self.members.get(member.agent_id, member)  # it may have come anew since it was chosen
        if member.is_probing and not member.is_probed:
            member.probe_slot = slot
        self.hold(member, slot)

    def hold(self, member: Member, slot: int) -> None:
        """Work that it has already owns this slot from now on."""
        member = self.members.get(member.agent_id, member)
        member.used.add(slot)
        self._offer(member)

    def give_back(self, agent_id: str, slot: int) -> None:
        """The attempt that owned this slot has ended."""
        self.give_back_all(agent_id, (slot,))

    def give_back_all(self, agent_id: str, slots: Collection[int]) -> None:
        """The same of several: what changed is offered once."""
        member = self.members.get(agent_id)
        if member is None or member.used.isdisjoint(slots):
            return
        member.used.difference_update(slots)
        if member.probe_slot in slots:
            member.probe_slot = None
        self.touch(member)

    def touch(self, member: Member) -> None:
        """The member's load, status or performance changed: offer it anew."""
        self._offer(member)
        if member.pool != self.pool or self.members.get(member.agent_id) is not member:
            return
        if member.has_room:
            if len(member.used) < member.slots:
                self.idled[member.agent_id] = None
            stamp = member.freed_at = self.stamp
            self._freed.pop(member.agent_id, None)
            self._freed[member.agent_id] = member
            for capability in member.capabilities:
                self._freed_at[capability] = stamp
            for guild in member.guilds.values():
                guild.freed_at = stamp
        elif member.status is not AgentStatus.ONLINE or member.exclusions:
            self.lost_at = self.stamp

    def exclude(self, agent_id: str, by: str, reason: str | None) -> None:
        """Give it nothing from now on, for this reason; None: `by` has nothing against it any more."""
        member = self.members.get(agent_id)
        if member is None or member.exclusions.get(by) == reason:
            return
        if reason is None:
            del member.exclusions[by]
        else:
            member.exclusions[by] = reason
        self.touch(member)

    def set_probing(self, member: Member, *, is_probing: bool, slot: int | None = None) -> None:
        """It gets one task at a time from now on, and has one in this slot; or as many as it has slots."""
        if member.is_probing != is_probing or (slot is not None and not member.is_probed):
            member.is_probing = is_probing
            member.probe_slot = slot if is_probing else None
            self.touch(member)

    def know(
        self,
        agent_id: str,
        performance: float,
        estimates: dict[tuple[str, str], float],
        trials: dict[tuple[str, str], float],
    ) -> None:
        """How well an agent does, overall and by (skill, type), and how much that rests upon."""
        member = self.members.get(agent_id)
        if member is None:
            return
        member.performance = performance
        member.estimates = estimates
        member.trials = trials
        for skill, type in estimates:
            self.distinguish(skill, type)
        self._offer(member)

    def distinguish(self, skill: str, type: str) -> None:
        """Agents are known to differ in this type of task: it has a guild of its own from now on."""
        types = self._types.get(skill)
        if types is None:
            types = self._types[skill] = set()
        if type and len(types) < MOST_TYPES:
            types.add(type)

    def freed_since(self, stamp: int) -> set[str]:
        """Agents that became able to take more work after `stamp`, and still are."""
        found = set()
        for member in reversed(self._freed.values()):
            if member.freed_at <= stamp:
                break
            if member.has_room:
                found.add(member.agent_id)
        return found

    def free_kinds(self) -> set[frozenset[str]]:
        """The sets of capabilities of agents of the pool that could take work now."""
        return {crew.capabilities for crew in self._crews.values() if crew.free}

    def may_serve_since(self, want: Want, stamp: int) -> bool:
        """Whether somebody who became able to take more work after `stamp` may be of use for this.

        False is certain; True is worth a look.
        """
        if want.is_team:
            return any(self._freed_at.get(one, 0) > stamp for one in want.required)
        guild = self.guilds.get(self._lane(want.required, want.type))
        if guild is not None:
            return guild.freed_at > stamp and self._best(guild) is not None
        return all(self._freed_at.get(one, 0) > stamp for one in want.required)

    # --- choices ----------------------------------------------------------------------------

    def choose(self, want: Want, kept: Sequence[Want] = ()) -> list[Seat] | None:
        """The best free agents for this work, all or nothing; None where too few are free.

        Agents that could serve one of `kept` (see `reservation`) are left to those. The seats
        are not taken yet: the caller does that, or leaves them.
        """
        if self.free < want.number:
            return None
        if want.only is not None:
            return self._elect(want, want.only, kept)
        avoided = self._avoided(want)
        if want.is_team:
            return self._team(want, avoided, kept)
        guild = self.guild(want.required, want.type)
        if self.exploration > 0 and guild.size > 1 == want.most and self._draw.random() < self.exploration:
            member = self._least_measured(guild, want, avoided, kept)
            if member is not None:
                return [Seat(member, member.free_slot())]
        chosen = self._best_of(guild, want.most, want, avoided, kept)
        if len(chosen) < want.number:
            return None
        return [Seat(one, one.free_slot(), is_ahead=len(one.used) >= one.slots) for one in chosen]

    def _best_of(
        self, guild: Guild, most: int, want: Want, avoided: frozenset[str], kept: Sequence[Want]
    ) -> list[Member]:
        """The best free members of a guild that may take it, at most so many.

        Where there is none, and it may wait, the best of those who are quick: but not beside one that is
        kept for others, to which it goes as soon as it is not.
        """
        chosen: list[Member] = []
        passed: list[Entry] = []
        # Who has an entry with a free slot has no obstacle but one that this want names.
        is_open = want.pool == self.pool and not (want.closed_to or want.declined_by or avoided or kept)
        while (entry := self._best(guild)) is not None:
            member = entry[3]
            if len(member.used) >= member.slots:  # and so it is with all that follow
                if not want.may_wait or want.gates or chosen or kept:
                    break
                if lasting_obstacle(member, want) is None and member.agent_id not in avoided:
                    chosen.append(member)
                    break
            elif is_open or _may(member, want, avoided, kept):
                chosen.append(member)
                if len(chosen) == most:
                    break
            passed.append(heapq.heappop(guild.heap))
        for entry in passed:
            heapq.heappush(guild.heap, entry)
        return chosen

    def _team(self, want: Want, avoided: frozenset[str], kept: Sequence[Want]) -> list[Seat] | None:
        """The smallest group of free agents that covers it, with their roles; None where none does.

        Only the best of those who have the same part can be in it, and whoever it is filled up with.
        """
        parts = self.parts(want.required)
        if len(parts) <= MOST_PARTS:
            guilds = [self.guild(part, want.type) for part in parts]
            best = [self._best_of(guild, want.number, want, avoided, kept) for guild in guilds]
            free = {member.agent_id: member for members in best for member in members}
        else:
            could = (member for member in self._could(want) if _may(member, want, avoided, kept))
            free = {member.agent_id: member for member in could}
        candidates = [self._candidate(member, want) for member in free.values()]
        team = form(want.required, candidates, least=want.number, most=want.most)
        if team is None:
            return None
        return [Seat(free[one.agent_id], free[one.agent_id].free_slot(), one.role) for one in team]

    def _candidate(self, member: Member, want: Want) -> Candidate:
        skill = skill_of(want.required & member.capabilities)
        value = score(self.weights, member.estimate(skill, want.type), len(member.used), member.slots)
        return Candidate(member.agent_id, member.capabilities, value)

    def parts(self, required: frozenset[str]) -> list[frozenset[str]]:
        """What agents have of the capabilities of a team: each different part once."""
        parts = self._parts.get(required)
        if parts is None:
            found = {required & capabilities for capabilities in self._crews}
            parts = self._parts[required] = sorted((part for part in found if part), key=sorted)
        return parts

    def knows(self, want: Want) -> bool:
        """Whether there are agents for this work at all, online or not."""
        if want.is_team:
            return can_cover(want.required, self.parts(want.required), want.most)
        return self.guild(want.required).size > 0

    def _elect(self, want: Want, voters: Sequence[str], kept: Sequence[Want]) -> list[Seat] | None:
        """The first of these agents that may take it, in their order and not by score."""
        found = (self.members[agent_id] for agent_id in voters if agent_id in self.members)
        chosen = [member for member in found if _may(member, want, frozenset(), kept)][: want.most]
        if len(chosen) < want.number:
            return None
        return [Seat(member, member.free_slot()) for member in chosen]

    def has_idle(self, required: frozenset[str]) -> bool:
        """Whether somebody with these capabilities has nothing to do at all."""
        return any(not member.used and member.is_free for member in self._having_all(required))

    def eligible(self, want: Want) -> list[Member]:
        """Online agents that could take this work, free or busy, best first."""
        skill = skill_of(want.required)
        return sorted(self._could(want), key=lambda m: (-m.estimate(skill, want.type), m.agent_id))

    def reservation(self, want: Want) -> Want | None:
        """What to keep for a task that wants several agents: who could serve it, by `lasting_obstacle`.

        None where fewer agents are online than it wants: they would be kept for nothing. For a team one
        that could be made is kept, always the same while the same agents are online.
        """
        kept = self.spared(want)
        if want.is_team:
            could = [Candidate(member.agent_id, member.capabilities) for member in self._could(kept)]
            team = form(want.required, could, least=want.number, most=want.most)
            return None if team is None else replace(kept, only=tuple(one.agent_id for one in team))
        return kept if self._has(kept, want.number) else None

    def spared(self, want: Want) -> Want:
        """The want of who could do without those who failed it: they are as good as in it already."""
        avoided = self._avoided(want)
        return replace(want, closed_to=want.closed_to | avoided, rather_not=frozenset()) if avoided else want

    def explain(self, want: Want) -> dict[str, str | None]:
        """Agent by agent, what stands in the way; None for those who could take it at once."""
        avoided = self._avoided(want)
        return {
            agent_id: obstacle(member, want) or ("failed it before" if agent_id in avoided else None)
            for agent_id, member in sorted(self.members.items())
        }

    def _least_measured(
        self, guild: Guild, want: Want, avoided: frozenset[str], kept: Sequence[Want]
    ) -> Member | None:
        """Of a few free members taken by chance, the one of which least is known in this lane."""
        heap = guild.heap
        lane = (guild.skill, guild.type)
        best: tuple[float, str, Member] | None = None
        for entry in self._draw.sample(heap, min(SAMPLE, len(heap))):
            member = entry[3]
            if entry[2] != member.stamp or not _may(member, want, avoided, kept):
                continue
            found = (member.trials.get(lane, 0.0), member.agent_id, member)
            if best is None or found[:2] < best[:2]:
                best = found
        return best[2] if best is not None else None

    def guild(self, required: frozenset[str], type: str = "") -> Guild:
        """The agents that have these capabilities, as they do in this type of task."""
        lane = self._lane(required, type)
        guild = self.guilds.pop(lane, None)
        if guild is None:
            guild = self._found(lane)
        self.guilds[lane] = guild  # asked last, forgotten last
        guild.unread = 0
        return guild

    def _lane(self, required: frozenset[str], type: str) -> Lane:
        if type and (not self._types or type not in self._types.get(skill_of(required), ())):
            return required, ""
        return required, type

    # --- inside: who could ------------------------------------------------------------------

    def _having_all(self, required: frozenset[str]) -> Iterator[Member]:
        """Members with these capabilities, by way of the rarest of them."""
        rarest: Iterable[Member] = self.members.values()
        if required:
            nobody: dict[str, Member] = {}
            rarest = min((self._having.get(one, nobody) for one in required), key=len).values()
        return (member for member in rarest if required <= member.capabilities)

    def _having_any(self, required: frozenset[str]) -> Iterable[Member]:
        """Members with at least one of these capabilities."""
        nobody: dict[str, Member] = {}
        found: dict[str, Member] = {}
        for capability in sorted(required):
            found |= self._having.get(capability, nobody)
        return found.values()

    def _could(self, want: Want) -> Iterator[Member]:
        """Those who could take it, or a part of it, free or busy."""
        members: Iterable[Member]
        if want.only is not None:
            members = [self.members[one] for one in want.only if one in self.members]
        elif want.pool != self.pool:  # a vote that is counted by a node of another pool
            members = self.members.values()
        elif want.is_team:
            members = self._having_any(want.required)
        else:
            members = self._having_all(want.required)
        return (member for member in members if lasting_obstacle(member, want) is None)

    def _has(self, want: Want, number: int) -> bool:
        """Whether at least so many could take it; for a team, whether they could make one."""
        if want.is_team:
            could = [member.capabilities for member in self._could(want)]
            return len(could) >= number and can_cover(want.required, could, want.most)
        return any(found >= number for found, _ in enumerate(self._could(want), start=1))

    def _avoided(self, want: Want) -> frozenset[str]:
        """Those who failed it before, if enough others could take it, now or later."""
        if not want.rather_not:
            return want.rather_not
        others = replace(want, closed_to=want.closed_to | want.rather_not)
        return want.rather_not if self._has(others, want.number) else frozenset()

    # --- inside: guilds and their heaps -----------------------------------------------------

    def _found(self, lane: Lane) -> Guild:
        required, type = lane
        guild = Guild(required, type, skill_of(required), freed_at=self.stamp)
        self._asked.setdefault(min(required, default=""), {})[lane] = guild
        self._seats += _OVERHEAD
        for member in self._having_all(required):
            self._join(guild, member)
            if member.has_room:
                guild.heap.append(self._entry(member, guild))
        heapq.heapify(guild.heap)
        while self._seats > MOST_SEATS and self.guilds:
            self._forget(next(iter(self.guilds.values())))
        return guild

    def _join(self, guild: Guild, member: Member) -> None:
        guild.size += 1
        self._seats += 1
        member.guilds[guild.required, guild.type] = guild

    def _forget(self, guild: Guild) -> None:
        lane = (guild.required, guild.type)
        del self.guilds[lane]
        first = min(guild.required, default="")
        del self._asked[first][lane]
        if not self._asked[first]:
            del self._asked[first]
        for member in self._having_all(guild.required):
            del member.guilds[lane]
        self._seats -= guild.size + _OVERHEAD

    def _entry(self, member: Member, guild: Guild) -> Entry:
        performance = member.estimate(guild.skill, guild.type)
        value = score(self.weights, performance, len(member.used), member.slots)
        if (ahead := len(member.used) - member.slots) >= 0:
            value -= _LAST + member.free_at + ahead * _AHEAD
        return (-value, member.agent_id, member.stamp, member)

    def _offer(self, member: Member) -> None:
        """Make its old entries invalid; if it has room, give its guilds a new one."""
        if member.pool != self.pool:
            return
        self.stamp += 1
        member.stamp = self.stamp
        has_room = member.has_room
        if has_room != member.is_counted and self.members.get(member.agent_id) is member:
            change = has_room - member.is_counted
            member.is_counted = has_room
            self._crews[member.capabilities].free += change
            self.free += change
        if not has_room or not member.guilds:
            return
        unasked: list[Guild] = []
        alike = None if member.estimates else self._entry(member, next(iter(member.guilds.values())))
        for guild in member.guilds.values():
            heapq.heappush(guild.heap, alike or self._entry(member, guild))
            _trim(guild)
            guild.unread += 1
            if guild.unread > _SLACK + guild.size:
                unasked.append(guild)
        for guild in unasked:
            self._forget(guild)

    def _best(self, guild: Guild) -> Entry | None:
        """The best valid entry, left in place."""
        heap = guild.heap
        while heap:
            entry = heap[0]
            if entry[2] == entry[3].stamp:
                return entry
            heapq.heappop(heap)
        return None


def _may(member: Member, want: Want, avoided: frozenset[str], kept: Sequence[Want]) -> bool:
    """Whether it can be given this work now, and is not left out or left to others."""
    return (
        obstacle(member, want) is None
        and member.agent_id not in avoided
        and not (kept and any(lasting_obstacle(member, other) is None for other in kept))
    )


def _trim(guild: Guild) -> None:
    """Throw void entries away once they are most of the heap."""
    if len(guild.heap) > _SLACK + 4 * guild.size:
        guild.heap = [entry for entry in guild.heap if entry[2] == entry[3].stamp]
        heapq.heapify(guild.heap)
