"""How often is an agent right? What its past votes say, and how far to trust that.

For each agent and capability there are two sums, successes s and trials n, and

    p = (s + 4) / (n + 6)

so a new agent starts at 2/3. Truth is rarely known, so a vote that nobody verified gives
**leave-one-out credit**: the posterior of the agent's own answer computed without its own
ballot, and only if somebody else voted. Without leaving it out, one agent that is asked first
confirms itself for ever. A verified outcome replaces that credit with weight 3.

**The clamp.** Agents that are wrong in step confirm each other, and an estimate that learns
from agreement alone can end far below plain counting. So p stays inside [0.55, 0.90] until 30
outcomes of the capability are verified: no unverified agent outvotes two others by history
alone, and no weight is negative before there is proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agentorch_cli.core.ballots import GroupedTally
from agentorch_cli.core.consensus import open_vote
from agentorch_cli.core.vote import OPTION_RULES, Ballot, Policy, Rule, Voter
from agentorch_cli.core.weighted import WeightedTally, posterior_of

PRIOR_SUCCESSES, PRIOR_TRIALS = 4.0, 6.0
CLAMP_LOW, CLAMP_HIGH = 0.55, 0.90
CLAMP_UNTIL = 30
"""Verified outcomes of a capability from which on its reliabilities are taken as they are."""
VERIFIED_WEIGHT = 3.0
"""Trials that one verified outcome counts for."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one agent in one capability."""

    successes: float = 0.0
    trials: float = 0.0

    def plus(self, other: Record) -> Record:
        return Record(self.successes + other.successes, self.trials + other.trials)

    def minus(self, other: Record) -> Record:
        """Take back what was credited; rounding never leaves less than nothing."""
        return Record(max(0.0, self.successes - other.successes), max(0.0, self.trials - other.trials))

    @property
    def estimate(self) -> float:
        """The chance that the next answer is right, before the clamp."""
        return (self.successes + PRIOR_SUCCESSES) / (self.trials + PRIOR_TRIALS)


def reliability(record: Record, verified: int) -> float:
    """p_w for a vote, clamped while fewer than 30 outcomes of the capability are verified."""
    return clamped(record.estimate, verified)


def clamped(estimate: float, verified: int) -> float:
    return estimate if verified >= CLAMP_UNTIL else min(max(estimate, CLAMP_LOW), CLAMP_HIGH)


def best_first(estimates: Mapping[str, float]) -> list[str]:
    """The order in which to ask agents: highest estimate first, equal ones by id.

    Ask by the estimate itself. The clamp bounds what a ballot weighs; clamped values are equal for
    most of a good fleet and would not tell the best from the rest.
    """
    return sorted(estimates, key=lambda agent: (-estimates[agent], agent))


def agreement_credit(tally: WeightedTally) -> dict[str, Record]:
    """Leave-one-out credit of everybody who answered in a closed vote; empty if only one did.

    The credit of a ballot is the posterior of its answer with that ballot's weight taken out.
    Voters of the same answer with the same reliability get the same credit.
    """
    if len(tally.answers) < 2:
        return {}
    options = tally.options
    credits: dict[tuple[str, float], Record] = {}
    given: dict[str, Record] = {}
    for agent, answer in tally.answers.items():
        voter = tally.voters[agent]
        key = (answer, voter.reliability)
        if key not in credits:
            own = tally.weight(voter)
            without = tally.scores[answer] - own
            others = [score for other, score in tally.scores.items() if other != answer]
            credits[key] = Record(posterior_of([*others, without], without, options), 1.0)
        given[agent] = credits[key]
    return given


def credit_votes(policy: Policy, electorate: Sequence[Voter], ballots: Iterable[Ballot]) -> dict[str, Record]:
    """Leave-one-out credit of a closed vote under any rule that counts equal answers.

    Whatever the rule was, the weighted posterior is what tells how much an agreement means. Ranked and
    approval ballots are preferences, which are neither right nor wrong: they earn nothing.
    """
    if policy.rule in OPTION_RULES:
        return {}
    tally = open_vote(replace(policy, rule=Rule.WEIGHTED), electorate)
    for ballot in ballots:
        tally.add(ballot)
    labels = tally.labels() if isinstance(tally, GroupedTally) else tally
    assert isinstance(labels, WeightedTally)
    return agreement_credit(labels)


def outcome_credit(
    answers: Mapping[str, str],
    truth: str | None = None,
    *,
    decided: str | None = None,
    right: bool | None = None,
) -> dict[str, Record]:
    """What a verified outcome says about each voter; it replaces the agreement credit of the vote.

    With the true answer (`truth`) each ballot is right or wrong. With only a word on the decision
    (`decided` was `right` or not), a right decision settles every ballot, a wrong one settles those
    that agreed with it: the others may be wrong as well, in another way.
    """
    if truth is None and right:
        truth = decided
    if truth is not None:
        return {agent: verified(answer == truth) for agent, answer in answers.items()}
    return {agent: verified(False) for agent, answer in answers.items() if answer == decided}


def verified(right: bool) -> Record:
    return Record(VERIFIED_WEIGHT if right else 0.0, VERIFIED_WEIGHT)
