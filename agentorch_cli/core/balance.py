"""What to move: from agents with much more than the others to agents with much less.

The load of an agent is what it holds over what it can do at once; more than 1 where it holds work
beyond its slots. Work that an agent has not accepted may be moved, from those above `high` times
the mean to those below `low` times the mean, one attempt at a time:

* to the least loaded of those who may take it, by `matching.lasting_obstacle` and with a free slot;
* only if the taker's load is then not above the giver's: so the larger of two loads goes down with
  every move, the spread never grows, and moves come to an end;
* the mean is reckoned anew after each move, so that a second look at what came of a plan that was
  carried out finds nothing to do.

The most loaded gives first, and what comes first in the order of service is given first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agentorch_cli.core.backlog import Order
from agentorch_cli.core.matching import Member, Want, lasting_obstacle
from agentorch_cli.core.model import AgentStatus

_EQUAL = 1e-9
"""Loads are sums of fractions: they differ by rounding."""


@dataclass(frozen=True, slots=True)
class Movable:
    """An attempt that its agent has not accepted."""

    message_id: str
    agent_id: str
    want: Want
    order: Order


@dataclass(frozen=True, slots=True)
class Transfer:
    """One attempt, to another agent; with the loads of both before and after."""

    message_id: str
    giver: str
    taker: str
    before: tuple[float, float]
    after: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Multiples of the mean load."""

    high: float = 1.5
    low: float = 0.5


def load_of(member: Member) -> float:
    """What it holds, over what it can do at once."""
    return len(member.used) / member.slots


def out_of_balance(members: Iterable[Member], bounds: Bounds) -> tuple[list[str], list[str]]:
    """Who has too much, most loaded first, and who has too little; of those who could do any work."""
    loads = {member.agent_id: load_of(member) for member in members if _counts(member)}
    mean = _mean(loads)
    givers = sorted(
        (one for one, load in loads.items() if load > bounds.high * mean), key=lambda one: (-loads[one], one)
    )
    takers = sorted(one for one, load in loads.items() if load < bounds.low * mean)
    return givers, takers


def plan_transfers(
    members: Iterable[Member], movable: Sequence[Movable], bounds: Bounds, most: int = 100
) -> list[Transfer]:
    """The moves that bring the fleet nearer to its mean, at most so many, each attempt once at most."""
    plan = _Plan([member for member in members if _counts(member)], movable, bounds)
    transfers: list[Transfer] = []
    while len(transfers) < most and (transfer := plan.next()) is not None:
        transfers.append(transfer)
    return transfers


class _Plan:
    """Loads as they will be."""

    def __init__(self, members: Sequence[Member], movable: Sequence[Movable], bounds: Bounds) -> None:
        self.bounds = bounds
        self.members = {member.agent_id: member for member in members}
        self.held = {member.agent_id: len(member.used) for member in members}
        self.loads = {member.agent_id: load_of(member) for member in members}
        self.mean = _mean(self.loads)
        self.by_load = sorted((load, agent_id) for agent_id, load in self.loads.items())
        self.left: dict[str, list[Movable]] = {}
        for attempt in sorted(movable, key=lambda one: (one.order, one.message_id)):
            if attempt.agent_id in self.members:
                self.left.setdefault(attempt.agent_id, []).append(attempt)
        self.hopeless: set[Want] = set()
        """Nobody with too little may take these, whoever gives them."""

    def next(self) -> Transfer | None:
        """Carry out one move; None where there is none left to make."""
        givers = [one for one in self.left if self.loads[one] > self.bounds.high * self.mean]
        for giver in sorted(givers, key=lambda one: (-self.loads[one], one)):
            for attempt in self.left[giver]:
                taker = self._taker(attempt) if attempt.want not in self.hopeless else None
                if taker is not None:
                    self.left[giver].remove(attempt)
                    return self._move(attempt, taker)
        return None

    def _taker(self, attempt: Movable) -> str | None:
        """The least loaded of those who may take it, if it leaves the giver with no less."""
        giver = self.members[attempt.agent_id]
        left = self.loads[attempt.agent_id] - 1 / giver.slots
        is_hopeless = True
        for load, agent_id in self.by_load:
            if load >= self.bounds.low * self.mean:
                break
            taker = self.members[agent_id]
            then = load + 1 / taker.slots
            if (
                then > 1 + _EQUAL
                or agent_id in attempt.want.rather_not
                or taker.is_probing
                or lasting_obstacle(taker, attempt.want) is not None
            ):
                continue
            is_hopeless = False
            if then <= left + _EQUAL and taker is not giver:
                return agent_id
        if is_hopeless:
            self.hopeless.add(attempt.want)
        return None

    def _move(self, attempt: Movable, taker: str) -> Transfer:
        giver, mean = attempt.agent_id, self.mean
        before = (self.loads[giver], self.loads[taker])
        self._change(giver, -1)
        self._change(taker, 1)
        self.mean = _mean(self.loads)
        if self.mean > mean:
            self.hopeless.clear()  # some who had enough have too little now
        return Transfer(attempt.message_id, giver, taker, before, (self.loads[giver], self.loads[taker]))

    def _change(self, agent_id: str, number: int) -> None:
        del self.by_load[bisect_left(self.by_load, (self.loads[agent_id], agent_id))]
        self.held[agent_id] += number
        self.loads[agent_id] = self.held[agent_id] / self.members[agent_id].slots
        insort(self.by_load, (self.loads[agent_id], agent_id))


def _mean(loads: Mapping[str, float]) -> float:
    return sum(loads.values()) / max(1, len(loads))


def _counts(member: Member) -> bool:
    """Whether its load says anything: it is online, and nothing keeps it from work."""
    return member.status is AgentStatus.ONLINE and not member.exclusions
