"""The vote of a task: from its options and attempts to what the task does next.

`core/consensus.py` counts; this room knows where the ballots come from and what follows when
they do not agree:

* the electorate is frozen when the vote opens; whoever of it fails, times out, leaves, or is
  gone when it should be asked, is lost;
* answers are made canonical first, and a comparer may have said which of them mean the same;
* without agreement the task fails, takes the most popular answer (marked as not reached), or
  escalates: more voters up to the cap as long as they could still decide it, then a judge.

Everything that is decided here follows from what is stored: `recount` does it again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from agentorch_cli.core import consensus
from agentorch_cli.core.ballots import GroupedTally
from agentorch_cli.core.calibration import Calibration
from agentorch_cli.core.consensus import Ballot, BallotStatus, Policy, Rule, Verdict, Voter, VoteStatus
from agentorch_cli.core.equivalence import (
    Equivalence,
    canonical_answer,
    canonical_options,
    merged,
    point,
)
from agentorch_cli.core.model import AttemptStatus, TaskStatus
from agentorch_cli.core.numbers import parse_number
from agentorch_cli.core.reliability import Record, credit_votes
from agentorch_cli.core.settle import Case, Move, Tried
from agentorch_cli.core.vote import NUMERIC_RULES, OPTION_RULES, SEQUENTIAL_RULES
from agentorch_cli.core.weighted import WeightedTally

HUMAN = "human"
"""The capability of people: asked where a vote escalates and no judge is named."""

MOST_JUDGES = 3
"""Judges that are tried one after the other."""

DEFAULT_PANEL, DEFAULT_CAP = 5, 7


class Stage(StrEnum):
    """Who is asked."""

    VOTE = "vote"
    """The electorate."""
    JUDGE = "judge"
    """Somebody who decides, because the electorate did not."""


@dataclass(frozen=True, slots=True)
class Election:
    """An open vote as it is stored, with what the fleet offers for it now."""

    options: Mapping[str, Any]
    voters: tuple[Voter, ...]
    stage: Stage = Stage.VOTE
    lost: frozenset[str] = frozenset()
    """Voters that were gone when they should have been asked."""
    compared: tuple[tuple[str, str, bool], ...] = ()
    """What a comparer said: these two answers mean the same, or do not."""
    spare: tuple[Voter, ...] = ()
    """Agents that could be added to the electorate, best first."""
    judges: int = 0
    """Agents that could be asked to judge and were not yet."""
    can_compare: bool = False
    """An agent with the comparer's capability is registered."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a vote says about its task, and what is to be written about the vote."""

    move: Move
    verdict: Verdict
    decided_by: str | None = None
    """Why it is over; None while it is not."""
    added: tuple[Voter, ...] = ()
    """New members of the electorate."""
    calls_judge: bool = False
    """From here on a judge is asked."""
    asks_same: tuple[tuple[str, str], ...] = ()
    """Pairs of canonical answers to ask the comparer about."""

    @property
    def is_over(self) -> bool:
        return self.decided_by is not None


def skill(required: Iterable[str]) -> str:
    """The name under which reliabilities of these required capabilities are kept."""
    return "+".join(sorted(set(required))) or "any"


def judge_of(options: Mapping[str, Any]) -> str:
    """The capability of whoever decides where the vote did not."""
    return str(options.get("judge") or HUMAN)


# --- the options ----------------------------------------------------------------------------


def policy_of(options: Mapping[str, Any], panel: int) -> Policy:
    """The counting rules of a task's `consensus` options; `panel` voters sit."""
    known = {
        key: options[key]
        for key in (
            "threshold",
            "quorum",
            "min_votes",
            "confidence",
            "trim",
            "frugal",
            "tolerance",
            "relative_tolerance",
        )
        if options.get(key) is not None
    }
    return Policy(
        rule=Rule(options.get("rule", "supermajority")),
        panel=panel,
        cap=options.get("cap", DEFAULT_CAP),
        options=canonical_options(options.get("options") or (), sameness_of(options)),
        **{"min_votes": min(2, panel), **known},
    )


def sameness_of(options: Mapping[str, Any]) -> Equivalence:
    """What makes two answers the same, from a task's `consensus` options."""
    is_tolerant = bool(options.get("tolerance") or options.get("relative_tolerance"))
    return Equivalence(
        vote_on=options.get("vote_on", ""),
        normalize=options.get("normalize", False),
        number=options.get("number", False) or is_tolerant or options.get("rule") in NUMERIC_RULES,
    )


def seats_of(options: Mapping[str, Any]) -> int:
    """How many voters a vote with these options is frozen with, if there are as many."""
    if Rule(options.get("rule", "supermajority")) in SEQUENTIAL_RULES:
        return int(options.get("cap", DEFAULT_CAP))
    return int(options.get("panel", DEFAULT_PANEL))


def first_wave(options: Mapping[str, Any] | None, min_agents: int, max_agents: int) -> int:
    """How many agents a task wants when it becomes ready."""
    if options is None:
        return min_agents
    return opening_wave(policy_of(options, max_agents), max_agents)


def opening_wave(policy: Policy, seats: int) -> int:
    """How many of so many voters are asked first."""
    voters = [Voter(f"voter-{number}") for number in range(seats)]
    return max(1, min(seats, consensus.decide(policy, voters, ()).needed))


# --- ballots --------------------------------------------------------------------------------


def ballot_of(agent: str, value: Any, options: Mapping[str, Any], policy: Policy) -> Ballot:
    """What an agent said, as it is counted; an abstention where nothing in it can be."""
    sameness = sameness_of(options)
    if policy.rule in OPTION_RULES:
        return _choice_ballot(agent, value, sameness, policy)
    answer = canonical_answer(value, sameness)
    if answer is None or (policy.options and answer not in policy.options):
        return Ballot(agent, answer, BallotStatus.ABSTAINED)
    return Ballot(agent, answer)


def _choice_ballot(agent: str, value: Any, sameness: Equivalence, policy: Policy) -> Ballot:
    if sameness.vote_on:
        value = point(value, sameness.vote_on)
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    plain = replace(sameness, vote_on="")
    named = value if isinstance(value, list) else [value]
    choices = tuple(canonical_answer(one, plain) for one in named)
    known = tuple(choice for choice in choices if choice is not None)
    is_sound = (
        len(known) == len(choices) and len(set(known)) == len(known) and set(known) <= set(policy.options)
    )
    if not known or not is_sound:
        return Ballot(agent, None, BallotStatus.ABSTAINED)
    return Ballot(agent, known[0], choices=known)


def ballots_of(tried: Iterable[Tried], election: Election, policy: Policy) -> list[Ballot]:
    """The ballots of the electorate so far: of attempts that ended, and of voters that are gone."""
    voters = {voter.agent for voter in election.voters}
    found: dict[str, Ballot] = {}
    for one in tried:
        if one.agent_id not in voters or one.status.is_live:
            continue
        heard = found.get(one.agent_id)
        if one.status is AttemptStatus.COMPLETED and (heard is None or heard.status is BallotStatus.LOST):
            found[one.agent_id] = ballot_of(one.agent_id, one.result, election.options, policy)
        else:
            found.setdefault(one.agent_id, Ballot(one.agent_id, status=BallotStatus.LOST))
    for agent in election.lost & voters:
        found.setdefault(agent, Ballot(agent, status=BallotStatus.LOST))
    return list(found.values())


def same_named(ballots: Sequence[Ballot], compared: Sequence[tuple[str, str, bool]]) -> list[Ballot]:
    """The ballots with the answers that a comparer found equal under one name."""
    same = [(one, other) for one, other, is_same in compared if is_same]
    if not same:
        return list(ballots)
    names = merged({b.answer for b in ballots if b.answer is not None}, same)
    return [replace(b, answer=names[b.answer]) if b.answer is not None else b for b in ballots]


# --- the decision ---------------------------------------------------------------------------


def settle_vote(case: Case, election: Election) -> Ruling:
    """What the task does now."""
    policy = policy_of(election.options, len(election.voters))
    voters = {voter.agent for voter in election.voters}
    live = [one for one in case.tried if one.status.is_live and one.agent_id in voters]
    ballots = same_named(ballots_of(case.tried, election, policy), election.compared)
    verdict = consensus.decide(policy, election.voters, ballots, out=len(live))
    everybody_out = tuple(one.message_id for one in case.tried if one.status.is_live)
    if verdict.status is VoteStatus.REACHED:
        return _over(case, election, policy, verdict, verdict.answer, everybody_out, str(verdict.decided_by))
    if pairs := _uncompared(ballots, election, live):
        return Ruling(Move(TaskStatus.RUNNING, verdict=verdict), verdict, asks_same=pairs)
    if election.stage is Stage.JUDGE:
        return _judged(case, election, verdict)
    if verdict.status is VoteStatus.PENDING:
        status = TaskStatus.RUNNING if case.tried else TaskStatus.PENDING
        return Ruling(Move(status, wanted=verdict.needed, verdict=verdict), verdict)
    match election.options.get("on_no_consensus", "fail"):
        case "plurality" if verdict.leader is not None:
            return _over(case, election, policy, verdict, verdict.leader, everybody_out, "plurality")
        case "escalate":
            return _escalated(case, election, policy, verdict, ballots, everybody_out)
        case _:
            return _failed(verdict, everybody_out, str(verdict.decided_by))


def _over(
    case: Case,
    election: Election,
    policy: Policy,
    verdict: Verdict,
    answer: str | None,
    call_off: tuple[str, ...],
    decided_by: str,
) -> Ruling:
    result = told(case.tried, answer, election, policy)
    move = Move(TaskStatus.COMPLETED, result=result, call_off=call_off, verdict=verdict)
    return Ruling(move, verdict, decided_by)


def _failed(verdict: Verdict, call_off: tuple[str, ...], decided_by: str, why: str | None = None) -> Ruling:
    error = _disagreement(verdict)
    if why is not None:
        error["message"] += f"; {why}"
    return Ruling(
        Move(TaskStatus.FAILED, error=error, call_off=call_off, verdict=verdict), verdict, decided_by
    )


def _escalated(
    case: Case,
    election: Election,
    policy: Policy,
    verdict: Verdict,
    ballots: Sequence[Ballot],
    call_off: tuple[str, ...],
) -> Ruling:
    """More voters, as few as could decide it; then whoever judges."""
    room = max(0, int(election.options.get("cap", DEFAULT_CAP)) - len(election.voters))
    for number in range(1, min(room, len(election.spare)) + 1):
        added = election.spare[:number]
        wider = policy_of(election.options, len(election.voters) + number)
        hope = consensus.decide(wider, [*election.voters, *added], ballots)
        if hope.status is VoteStatus.PENDING:
            move = Move(TaskStatus.RUNNING, wanted=hope.needed, call_off=call_off, verdict=hope)
            return Ruling(move, hope, added=added)
    if election.judges:
        move = Move(TaskStatus.RUNNING, wanted=1, call_off=call_off, verdict=verdict)
        return Ruling(move, verdict, calls_judge=True)
    return _failed(
        verdict,
        call_off,
        str(verdict.decided_by),
        f"nobody more can be asked, and no agent with {judge_of(election.options)!r} is registered",
    )


def _judged(case: Case, election: Election, verdict: Verdict) -> Ruling:
    voters = {voter.agent for voter in election.voters}
    asked = [one for one in case.tried if one.agent_id not in voters]
    for one in asked:
        if one.status is AttemptStatus.COMPLETED:
            live = tuple(other.message_id for other in asked if other.status.is_live)
            move = Move(TaskStatus.COMPLETED, result=one.result, call_off=live, verdict=verdict)
            return Ruling(move, verdict, "judge")
    if any(one.status.is_live for one in asked):
        return Ruling(Move(TaskStatus.RUNNING, verdict=verdict), verdict)
    if len(asked) < MOST_JUDGES and election.judges:
        return Ruling(Move(TaskStatus.RUNNING, wanted=1, verdict=verdict), verdict)
    return _failed(verdict, (), str(verdict.decided_by), "and no judge gave an answer")


def _uncompared(
    ballots: Sequence[Ballot], election: Election, live: Sequence[Tried]
) -> tuple[tuple[str, str], ...]:
    """Pairs of answers that nobody has compared; asked once nobody is out who may still agree."""
    if not election.can_compare or live or election.stage is Stage.JUDGE:
        return ()
    known = {frozenset((one, other)) for one, other, _ in election.compared}
    answers = sorted(
        {b.answer for b in ballots if b.answer is not None and b.status is BallotStatus.ANSWERED}
    )
    return tuple(
        (one, other)
        for at, one in enumerate(answers)
        for other in answers[at + 1 :]
        if frozenset((one, other)) not in known
    )


def told(tried: Iterable[Tried], answer: str | None, election: Election, policy: Policy) -> Any:
    """The result in the words of a voter: the first by agent id among those who gave the answer."""
    voters = {voter.agent for voter in election.voters}
    if policy.rule not in OPTION_RULES:
        for one in sorted(tried, key=lambda t: t.agent_id):
            if one.status is AttemptStatus.COMPLETED and one.agent_id in voters:
                mine = ballot_of(one.agent_id, one.result, election.options, policy).answer
                if mine == answer and mine is not None:
                    return one.result
    return plain_answer(answer, election.options, policy)


def plain_answer(answer: str | None, options: Mapping[str, Any], policy: Policy) -> Any:
    """A canonical answer as a JSON value: the option as it was written, a number, or what it says."""
    if answer is None:
        return None
    for option, written in zip(policy.options, options.get("options") or (), strict=False):
        if option == answer:
            return written
    number = parse_number(answer)
    if number is not None:
        return number.numerator if number.denominator == 1 else float(number)
    try:
        return json.loads(answer)
    except ValueError:
        return answer


def _disagreement(verdict: Verdict) -> dict[str, Any]:
    if verdict.votes_used == 0:
        message = "no voter gave an answer"
    elif verdict.threshold_count is not None:
        message = f"no answer can reach {verdict.threshold_count} of {verdict.electorate} votes"
    else:
        message = f"{verdict.votes_used} votes made no decision"
    return {"code": "consensus_not_reached", "message": message, "counts": dict(verdict.counts)}


# --- what is kept ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """What a closed vote leaves behind."""

    weights: Mapping[str, float] = field(default_factory=dict)
    """What each counted ballot weighed: nats in a weighted vote, else 1."""
    credits: Mapping[str, Record] = field(default_factory=dict)
    """What each voter earned by agreement, without its own ballot."""


def account(policy: Policy, voters: Sequence[Voter], ballots: Sequence[Ballot]) -> Account:
    """Weights and leave-one-out credit of a closed vote."""
    tally = consensus.open_vote(policy, voters)
    for ballot in ballots:
        tally.add(ballot)
    inner = tally.labels() if isinstance(tally, GroupedTally) else tally
    if isinstance(inner, WeightedTally):
        weights = {agent: inner.weight(inner.voters[agent]) for agent in inner.answers}
    else:
        weights = dict.fromkeys(tally.answers, 1.0)
    return Account(weights, credit_votes(policy, voters, ballots))


def recount(
    options: Mapping[str, Any],
    voters: Sequence[Voter],
    ballots: Sequence[Ballot],
    compared: Sequence[tuple[str, str, bool]] = (),
) -> Verdict:
    """The verdict again, from what is stored of a vote."""
    return consensus.decide(policy_of(options, len(voters)), voters, same_named(ballots, compared))


def honest(verdict: Verdict, calibration: Calibration | None) -> tuple[float, str]:
    """The confidence that is stated, and what it is made of."""
    if calibration is None or verdict.votes_used == 0:
        return verdict.confidence, str(verdict.confidence_basis)
    stated = calibration.probability(verdict.confidence, verdict.votes_used)
    return stated, f"calibrated({calibration.outcomes})"


def voter_json(voter: Voter, estimate: float) -> dict[str, Any]:
    """A voter as it is stored."""
    return {
        "agent_id": voter.agent,
        "reliability": voter.reliability,
        "estimate": estimate,
        "performance": voter.performance,
    }


def voter_from(stored: Mapping[str, Any]) -> Voter:
    """The way back."""
    return Voter(stored["agent_id"], stored["reliability"], stored["performance"])
