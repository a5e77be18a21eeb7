"""Votes, counted once more from the ballots: plurality, majority, supermajority and unanimous.

Written from docs/consensus.md. N is the electorate without those who abstained or were lost, but not below
the floor; a vote ends as soon as no ballot that is out can change it. Which of several answers with equally
many votes won is not looked at here: that depends on what was known of the voters.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from agentorch_cli.chaos.evidence import Row, options_of

COMMON = ("plurality", "majority", "supermajority", "unanimous")
COUNTED = ("threshold", "certain", "exhausted", "impossible", "too_few", "plurality")
"""What `decided_by` says where ballots alone decided."""

DEFAULT_THRESHOLD = 0.66


def differences(decision: Row, ballots: Sequence[Row]) -> Iterator[str]:
    """What a closed decision says and its ballots do not, in words."""
    voters = set(decision["participating_agents"])
    answered = [one for one in ballots if one["status"] == "answered"]
    absent = {one["agent_id"] for one in ballots if one["status"] in ("abstained", "lost")}
    absent |= {agent for agent in decision["lost_agents"] if agent not in {b["agent_id"] for b in answered}}
    counts = Counter(one["answer"] for one in answered)
    first, second = [*sorted(counts.values(), reverse=True), 0, 0][:2]
    left = len(voters) - len(answered) - len(absent & voters)
    usual = min(2, len(voters)) if decision["task_id"] is not None else 1
    floor = int(options_of(decision).get("min_votes") or usual)
    electorate = max(floor, len(voters) - len(absent & voters))
    goal = needed(decision["rule"], decision["threshold"], electorate)

    if decision["votes_used"] != len(answered):
        yield f"it used {decision['votes_used']} votes, {len(answered)} were given"
    if decision["electorate"] != electorate:
        yield f"its electorate is {decision['electorate']}, by the ballots {electorate}"
    if goal is not None and decision["needed"] != goal:
        yield f"it needed {decision['needed']} votes, by the rule {goal}"
    if decision["votes_not_asked"] > left:
        yield f"{decision['votes_not_asked']} were not asked, but only {left} were not heard"

    stands = verdict(first, second, left, goal, is_enough=len(answered) >= floor)
    if len(answered) + left < floor:
        stands = {"failed"}
    if decision["status"] not in stands:
        yield (
            f"it is {decision['status']}, by the ballots {' or '.join(sorted(stands))}:"
            f" {dict(counts)}, {left} not heard, {goal or 'no'} needed"
        )
    elif decision["status"] == "reached":
        won = _answers_of(decision["final_decision"], answered)
        if not won:
            yield f"its answer is on no ballot: {decision['final_decision']}"
        elif counts[won[0]] != first:
            yield f"its answer has {counts[won[0]]} votes, another one {first}"


def needed(rule: str, threshold: float | None, electorate: int) -> int | None:
    """How many equal votes decide; None where the most popular answer wins however few it has."""
    match rule:
        case "majority":
            return electorate // 2 + 1
        case "unanimous":
            return electorate
        case "supermajority":
            share = Fraction(str(DEFAULT_THRESHOLD if threshold is None else threshold))
            return math.ceil(share * electorate)
        case _:
            return None


def verdict(first: int, second: int, left: int, goal: int | None, *, is_enough: bool) -> set[str]:
    """How a vote may stand: `first` votes for the leader, `second` for the next, `left` not heard.

    Two where a tie decides: whether the last ballots could still turn it depends on who casts them.
    """
    if goal is not None and first + left < goal:
        return {"failed"}
    if not is_enough or first < (goal or 1):
        return {"pending"} if left else {"failed"}
    if left == 0 or first - second > left:
        return {"reached"}
    return {"reached", "pending"} if first - second == left else {"pending"}


def _answers_of(final: str | None, answered: Sequence[Row]) -> list[Any]:
    """The canonical answers of those who voted exactly so."""
    if final is None:
        return []
    wanted = json.loads(final)
    return [one["answer"] for one in answered if json.loads(one["vote"]) == wanted]
