"""Who covers a task together: the smallest group, the best scores first, and what each is to do.

A team's task asks for capabilities that its members have together. To find the fewest sets that
cover one is the set cover problem, which is NP-hard (Karp, Reducibility among combinatorial problems,
1972). Up to `EXACT` different capabilities it is solved exactly: subsets are bitmasks, and a subset
is covered by whoever has its rarest capability and the best cover of what is left. Above that the
greedy choice (who adds most) is taken; it is at most ln n times too large (Chvatal, A greedy
heuristic for the set-covering problem, 1979), and is thinned out afterwards.

Few agents have to be looked at. Of those who have the same of the asked capabilities only the
best one can be in a smallest group, and nobody can of whom all is had by somebody better. Two capabilities
that the same agents have count as one.

Among groups of the same size the best total score wins, then the ids in order, so that the same
agents give the same team.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agentorch_cli.core.hints import did_you_mean

EXACT = 12
"""Different capabilities up to which the smallest group is found for sure."""

FINE = 10**9
"""Steps of a score: whole numbers add up to the same in any order."""

MOST_NAMED = 6
"""Agents that a sentence shows."""

SEPARATOR = "+"
"""Between the names in a role."""

_NAME = re.compile(r"[^+]+(?:\+*(?=\+[^+])|\+*$)")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody who could take part."""

    agent_id: str
    capabilities: frozenset[str]
    score: float = 0.0

    @property
    def rank(self) -> tuple[int, str]:
        """The best comes first."""
        return (-round(self.score * FINE), self.agent_id)


@dataclass(frozen=True, slots=True)
class Part:
    """One member and what it is told to be."""

    agent_id: str
    role: str


def form(
    required: frozenset[str], candidates: Iterable[Candidate], *, least: int = 1, most: int = 100
) -> list[Part] | None:
    """The team for these capabilities, best first; None where no group of `least` to `most` covers them.

    Each capability is one member's to contribute. Where the smallest group has fewer than `least`
    members, the best of the others share a role.
    """
    able = [one for one in candidates if not required.isdisjoint(one.capabilities)]
    group = smallest(required, able, most)
    if group is None:
        return None
    shares = _shared_out(required, group)
    parts = [Part(one.agent_id, role_of(shares[one.agent_id])) for one in sorted(group, key=_rank)]
    if len(group) < least:
        chosen = {one.agent_id for one in group}
        others = sorted((one for one in able if one.agent_id not in chosen), key=_rank)
        parts += _doubled(required, list(shares.values()), others[: least - len(group)])
    return parts if len(parts) >= least else None


def smallest(
    required: frozenset[str], candidates: Iterable[Candidate], most: int = 100
) -> list[Candidate] | None:
    """The smallest group that covers all of these, of the best total score, then by id; None if none does."""
    if not required:
        return []
    best: dict[frozenset[str], Candidate] = {}
    for one in candidates:
        part = required & one.capabilities
        if part and (part not in best or one.rank < best[part].rank):
            best[part] = one
    kinds = sorted(best.items(), key=lambda item: item[1].rank)
    masks, full = _masks(required, [part for part, _ in kinds])
    people = [one for _, one in kinds]
    if not full:
        return None
    chosen = _Exact(masks, people, full).group(most) if full.bit_length() <= EXACT else _greedy(masks, full)
    return None if chosen is None or len(chosen) > most else [people[number] for number in chosen]


def can_cover(required: frozenset[str], sets: Iterable[frozenset[str]], most: int = 100) -> bool:
    """Whether at most so many of those who have these sets have all together."""
    return smallest(required, _nameless(sets), most) is not None


def missing(required: frozenset[str], sets: Iterable[frozenset[str]]) -> list[str]:
    """The capabilities that nobody among these has."""
    return sorted(required.difference(*sets))


def role_of(capabilities: Iterable[str]) -> str:
    """What a member is told to be: the capabilities that it contributes."""
    return SEPARATOR.join(sorted(capabilities))


def share_of(role: str | None) -> frozenset[str]:
    """The capabilities that a role stands for; none where there is no role."""
    return frozenset(_NAME.findall(role or ""))


def unfit(required: Iterable[str]) -> list[str]:
    """Names that a role cannot hold: a plus may only stand at the end of one, as in `c++`."""
    return sorted(one for one in required if _NAME.findall(one) != [one])


def advice(required: frozenset[str], agents: Mapping[str, Collection[str]]) -> str | None:
    """How to ask, where no agent has all of these and some have them together; None where that is not so."""
    if len(required) < 2 or any(required <= set(one) for one in agents.values()):
        return None
    group = smallest(required, [Candidate(name, frozenset(has)) for name, has in agents.items()])
    if group is None:
        return None
    names = sorted(one.agent_id for one in group)
    if len(names) > MOST_NAMED:
        names = [*names[: MOST_NAMED - 1], f"{len(names) - MOST_NAMED + 1} more"]
    return (
        f"no single agent has {listed(required)}; {_row(names)} together do:"
        ' say coverage = "team", and each gets the task with its part of it as its role'
    )


def misnamed(required: Iterable[str], agents: Mapping[str, Collection[str]]) -> str:
    """` (did you mean "count"?)` of a capability that nobody has, and that is nearly one of somebody's."""
    known = sorted({capability for one in agents.values() for capability in one})
    unknown = sorted(one for one in required if one not in known)
    return next((told for one in unknown if (told := did_you_mean(one, known))), "")


def shortfall(required: frozenset[str], agents: Iterable[Collection[str]], most: int) -> str | None:
    """Why no team of agents with these covers it; None where one does."""
    sets = [frozenset(one) for one in agents]
    lacking = missing(required, sets)
    if lacking:
        return f"nobody has {listed(lacking)}"
    if can_cover(required, sets, most):
        return None
    who = "no single agent has" if most == 1 else f"no {most} agents together have"
    return f"{who} {listed(required)}, and max_agents allows no more"


def listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`, in the order of the alphabet."""
    return _row(sorted(names))


def _row(names: Sequence[str]) -> str:
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def _rank(one: Candidate) -> tuple[int, str]:
    return one.rank


def _nameless(sets: Iterable[frozenset[str]]) -> list[Candidate]:
    return [Candidate(str(number), one) for number, one in enumerate(sets)]


def _masks(required: frozenset[str], parts: Sequence[frozenset[str]]) -> tuple[list[int], int]:
    """Each part as a bitmask, the rarest capability lowest, and all of them; 0 where one is nobody's."""
    holders: dict[tuple[int, ...], str] = {}
    for capability in sorted(required):
        having = tuple(number for number, part in enumerate(parts) if capability in part)
        if not having:
            return [], 0
        holders.setdefault(having, capability)  # those whom the same agents have are one
    rarest = sorted(holders, key=lambda having: (len(having), having))
    masks = [0] * len(parts)
    for bit, having in enumerate(rarest):
        for number in having:
            masks[number] |= 1 << bit
    return masks, (1 << len(rarest)) - 1


class _Exact:
    """All subsets of at most `EXACT` capabilities, each with its best cover of a given size."""

    def __init__(self, masks: Sequence[int], people: Sequence[Candidate], full: int) -> None:
        """`people` come best first; `masks` are what each of them has."""
        self.masks, self.people, self.full = masks, people, full
        nobody = len(people)
        self.best = [nobody] * (full + 1)
        """By subset: the best of those who have all of it."""
        for number in reversed(range(nobody)):
            self.best[masks[number]] = number
        bit = 1
        while bit <= full:
            for subset in range(full + 1):
                if not subset & bit and self.best[subset | bit] < self.best[subset]:
                    self.best[subset] = self.best[subset | bit]
            bit <<= 1
        useful = [number for number in range(nobody) if self.best[masks[number]] == number]
        self.widest = max(masks[number].bit_count() for number in useful)
        self.having = [
            [number for number in useful if masks[number] >> place & 1] for place in range(full.bit_length())
        ]
        self.known: dict[tuple[int, int], tuple[int, list[str], list[int]] | None] = {}

    def group(self, most: int) -> list[int] | None:
        for size in range(1, min(most, self.full.bit_length()) + 1):
            found = self.cover(self.full, size)
            if found is not None:
                return found[2]
        return None

    def cover(self, subset: int, size: int) -> tuple[int, list[str], list[int]] | None:
        """The best cover by `size` of them, as points lost, ids in order, and numbers."""
        if subset.bit_count() > size * self.widest:
            return None
        if size == 1:
            number = self.best[subset]
            if number == len(self.people):
                return None
            lost, agent_id = self.people[number].rank
            return lost, [agent_id], [number]
        key = (subset, size)
        if key not in self.known:
            self.known[key] = self._cover(subset, size)
        return self.known[key]

    def _cover(self, subset: int, size: int) -> tuple[int, list[str], list[int]] | None:
        found: tuple[int, list[str], list[int]] | None = None
        for number in self.having[(subset & -subset).bit_length() - 1]:
            rest = subset & ~self.masks[number]
            others = self.cover(rest, size - 1) if rest else None
            if others is None:
                continue
            lost, agent_id = self.people[number].rank
            lost += others[0]
            if found is None or lost <= found[0]:
                ids = sorted([agent_id, *others[1]])
                if found is None or (lost, ids) < found[:2]:
                    found = (lost, ids, [number, *others[2]])
        return found


def _greedy(masks: Sequence[int], full: int) -> list[int]:
    """Whoever adds most, the best of them first; then without those whom the others make superfluous."""
    chosen: list[int] = []
    left = full
    while left:
        number = max(range(len(masks)), key=lambda one: ((masks[one] & left).bit_count(), -one))
        chosen.append(number)
        left &= ~masks[number]
    for number in sorted(chosen, reverse=True):
        others = 0
        for other in chosen:
            others |= masks[other] if other != number else 0
        if others == full:
            chosen.remove(number)
    return chosen


def _shared_out(required: frozenset[str], group: Sequence[Candidate]) -> dict[str, set[str]]:
    """Each capability to one member: to the only one who has it, else to who has least to do."""
    shares: dict[str, set[str]] = {one.agent_id: set() for one in group}
    having = {one: [member for member in group if one in member.capabilities] for one in required}
    for capability in sorted(required, key=lambda one: (len(having[one]) > 1, one)):
        member = min(having[capability], key=lambda one: (len(shares[one.agent_id]), one.rank))
        shares[member.agent_id].add(capability)
    return shares


def _doubled(required: frozenset[str], shares: Sequence[set[str]], others: Sequence[Candidate]) -> list[Part]:
    """Further members: each shares the role that it can have and that was given least often."""
    given = Counter(role_of(share) for share in shares)
    parts = []
    for one in others:
        able = [role_of(share) for share in shares if share <= one.capabilities]
        role = (
            min(able, key=lambda role: (given[role], role)) if able else role_of(required & one.capabilities)
        )
        given[role] += 1
        parts.append(Part(one.agent_id, role))
    return parts
