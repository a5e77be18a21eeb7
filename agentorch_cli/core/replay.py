"""What would another rule have done? Recorded votes, run through the very same decision code.

Every task of the record becomes a vote: its recorded voters are the electorate (as many as
the policy's cap or panel admits, if it is told to), they are asked wave by wave as
`core/consensus.py` says, and the recorded ballots are the answers. Of a stored vote the whole
electorate is known, and counts as it did then, also those of it who were never asked: what they
would have said nobody knows, so a vote that hangs on them stays open. The weighted rule learns
as it goes, as it would have done live: agreement credit after each vote, and, for the share
`verified` of the tasks, the true outcome instead.

Which of equal agents is asked first and which tasks are verified come from the random generator
that is passed in. So does the order of the tasks, unless the record is a history (`in_order`):
a file of labels is mostly sorted by what was easy to collect, not by time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentorch_cli.core.calibration import Outcome, calibration_error, fit
from agentorch_cli.core.consensus import open_vote
from agentorch_cli.core.equivalence import Equivalence, canonical_answer
from agentorch_cli.core.reliability import Record, agreement_credit, outcome_credit, reliability
from agentorch_cli.core.vote import Ballot, BallotStatus, Policy, Rule, Verdict, Voter, VoteStatus
from agentorch_cli.core.weighted import WeightedTally
from agentorch_cli.errors import InvalidFile

MAX_CLOSED_OPTIONS = 12
"""Most different answers of a record that are taken for a closed set of options."""

NEWCOMER = Record().estimate

Votes = Mapping[str, Sequence[Ballot]]
"""Task to recorded ballots."""

OPEN = "open"
"""How a vote was closed that was not: it hangs on voters of whom there is no ballot."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What the rule did with the record."""

    tasks: int
    votes_per_task: float
    """Ballots that were used; abstentions are not votes."""
    decided: int
    """Tasks whose vote was reached; the others failed, or are open."""
    accuracy: float | None
    """Share of all tasks with a known truth whose leading answer was right, reached or not."""
    accuracy_decided: float | None
    """The same among the tasks whose vote was reached."""
    calibration_error: float | None
    """Expected calibration error of the stated confidences over 10 bins. With 50 verified outcomes
    or more: of the confidences that they calibrate, on the tasks that were not verified."""
    calibrated_on: int
    """Verified outcomes behind the calibration; 0 if the confidences are raw."""
    ballots: int
    """Ballots that were used, in all."""
    decided_by: Mapping[str, int]
    """How the votes were closed; `open` are those that hang on voters of whom there is no ballot."""


def read_labels(rows: Iterable[Mapping[str, str]], how: Equivalence | None = None) -> dict[str, list[Ballot]]:
    """Rows with task, worker and label as ballots. With `how`, the answer as written (`raw`, if there is
    such a column) is made canonical first. An empty label is an abstention; of two ballots by one worker
    the first counts. Raises InvalidFile if a column is missing.
    """
    votes: dict[str, dict[str, Ballot]] = {}
    for line, row in enumerate(rows, 2):
        try:
            task, worker, label = row["task"], row["worker"], row["label"]
        except KeyError as error:
            raise InvalidFile(f"the column {error} is missing", where=f"line {line}") from error
        answer: str | None = label
        if how is not None:
            answer = canonical_answer(row.get("raw") or label, how)
        status = BallotStatus.ANSWERED if answer else BallotStatus.ABSTAINED
        votes.setdefault(task, {}).setdefault(worker, Ballot(worker, answer or None, status))
    return {task: list(ballots.values()) for task, ballots in votes.items()}


def read_truth(rows: Iterable[Mapping[str, str]], how: Equivalence | None = None) -> dict[str, str]:
    """Rows with task and truth. Raises InvalidFile if a column is missing."""
    truth: dict[str, str] = {}
    for line, row in enumerate(rows, 2):
        try:
            task, answer = row["task"], row["truth"]
        except KeyError as error:
            raise InvalidFile(f"the column {error} is missing", where=f"line {line}") from error
        right = canonical_answer(answer, how) if how is not None else answer
        if right:
            truth[task] = right
    return truth


def closed_options(votes: Votes) -> tuple[str, ...]:
    """The options of a record that only ever uses a few, else () for open answers.

    At most 12 different answers, each given in five tasks on average, are options.
    """
    answers = {ballot.answer for ballots in votes.values() for ballot in ballots if ballot.answer is not None}
    closed = 2 <= len(answers) <= MAX_CLOSED_OPTIONS and len(votes) >= 5 * len(answers)
    return tuple(sorted(answers)) if closed else ()


@dataclass(slots=True)
class _Fleet:
    """What the replay has learned of the voters so far."""

    records: dict[str, Record] = field(default_factory=dict)
    voters: dict[str, Voter] = field(default_factory=dict)
    estimates: dict[str, float] = field(default_factory=dict)
    verified: int = 0

    def electorate(self, ballots: Sequence[Ballot]) -> list[Voter]:
        """The voters as they are now; rebuilt only where something was learned."""
        found = []
        for ballot in ballots:
            voter = self.voters.get(ballot.agent)
            if voter is None:
                record = self.records.setdefault(ballot.agent, Record())
                voter = Voter(ballot.agent, reliability(record, self.verified))
                self.voters[ballot.agent] = voter
            found.append(voter)
        return found

    def estimate(self, ballot: Ballot) -> float:
        return self.estimates.get(ballot.agent, NEWCOMER)

    def credit(self, given: Mapping[str, Record]) -> None:
        for agent, record in given.items():
            known = self.records[agent] = self.records[agent].plus(record)
            self.estimates[agent] = known.estimate
            self.voters.pop(agent, None)

    def verify(self) -> None:
        """One more outcome is known; that may lift the clamp for everybody."""
        self.verified += 1
        self.voters.clear()


def replay(
    votes: Votes,
    truth: Mapping[str, str],
    policy: Policy,
    rng: random.Random,
    verified: float = 0.0,
    seats: int | None = None,
    in_order: bool = False,
    on_task: Callable[[int], None] | None = None,
    electorates: Mapping[str, Sequence[str]] | None = None,
) -> ReplayResult:
    """Run every recorded vote under the policy. `on_task` is told how many votes are done, after each.

    `electorates` names by task who had a vote, where there were more than those of whom there is a ballot;
    whoever was lost is none of them. `seats` bounds the electorate of each task; None admits everybody who
    is recorded. `verified` is the share of tasks whose truth becomes known after the vote.
    """
    if not policy.options:
        policy = replace(policy, options=closed_options(votes))
    fleet = _Fleet()
    verdicts: dict[str, Verdict] = {}
    checked: set[str] = set()
    tasks = list(votes)
    if not in_order:
        rng.shuffle(tasks)
    for number, task in enumerate(tasks, 1):
        right = truth.get(task)
        known = right if right is not None and verified and rng.random() < verified else None
        voters = (electorates or {}).get(task, ())
        verdicts[task] = _vote(policy, votes[task], fleet, rng, seats, known, voters)
        if known is not None:
            checked.add(task)
        if on_task is not None:
            on_task(number)
    return _result(verdicts, truth, checked)


def _vote(
    policy: Policy,
    ballots: Sequence[Ballot],
    fleet: _Fleet,
    rng: random.Random,
    seats: int | None,
    known: str | None,
    voters: Sequence[str] = (),
) -> Verdict:
    order = list(ballots)
    rng.shuffle(order)
    if policy.rule is Rule.WEIGHTED:
        # Asked by what their record says; the clamp bounds what a ballot weighs, not whom to ask.
        order.sort(key=fleet.estimate, reverse=True)
    heard = {ballot.agent for ballot in order}
    silent = [Ballot(agent, status=BallotStatus.LOST) for agent in voters if agent not in heard]
    seated = [*order, *silent][:seats]
    order = order[:seats]
    tally = open_vote(policy, fleet.electorate(seated))
    asked = 0
    while True:
        status, _, lacks = tally.outlook()
        if status is not VoteStatus.PENDING or asked >= len(order):
            break
        for ballot in order[asked : asked + lacks]:
            tally.add(ballot)
        asked += lacks
    if known is not None:
        fleet.verify()
    if isinstance(tally, WeightedTally):
        fleet.credit(agreement_credit(tally) if known is None else outcome_credit(tally.answers, known))
    return tally.verdict()


def _result(verdicts: Mapping[str, Verdict], truth: Mapping[str, str], checked: set[str]) -> ReplayResult:
    used = sum(verdict.votes_used for verdict in verdicts.values())
    judged = {task: verdict.leader == truth[task] for task, verdict in verdicts.items() if task in truth}
    reached = [task for task, verdict in verdicts.items() if verdict.status is VoteStatus.REACHED]
    outcomes = {
        task: Outcome(verdicts[task].confidence, verdicts[task].votes_used, right)
        for task, right in judged.items()
        if verdicts[task].votes_used
    }
    calibration = fit([outcome for task, outcome in outcomes.items() if task in checked])
    if calibration is None:
        stated = [(outcome.confidence, outcome.right) for outcome in outcomes.values()]
    else:
        stated = [
            (calibration.probability(outcome.confidence, outcome.votes), outcome.right)
            for task, outcome in outcomes.items()
            if task not in checked
        ]
    return ReplayResult(
        tasks=len(verdicts),
        votes_per_task=used / len(verdicts) if verdicts else 0.0,
        decided=len(reached),
        accuracy=_share(judged.values()),
        accuracy_decided=_share(judged[task] for task in reached if task in judged),
        calibration_error=calibration_error(stated) if stated else None,
        calibrated_on=calibration.outcomes if calibration is not None else 0,
        ballots=used,
        decided_by=dict(Counter(str(verdict.decided_by or OPEN) for verdict in verdicts.values())),
    )


def _share(rights: Iterable[bool]) -> float | None:
    found = list(rights)
    return sum(found) / len(found) if found else None
