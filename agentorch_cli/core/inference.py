"""Truth from many votes at once: Dawid-Skene with a prior, for closed sets of answers.

The vote of `core/weighted.py` knows one number per agent. When the answers are classes, agents
have habits: one never says "unsure", another sees "spam" everywhere. Dawid and Skene (Applied
Statistics 28, 1979) give each agent a confusion matrix, pi[j][k] = the chance that it says k
when j is true, and find truth and matrices together by expectation maximisation:

    E: q_i(j)   ~ prior(j) * product over ballots (agent, k) of task i of pi_agent[j][k]
    M: pi[j][k] ~ 1 + 3 [j = k] + sum over the agent's ballots k of q_i(j)

The pseudo-counts ("learning from crowds" with a prior, Raykar et al., JMLR 11, 2010) hold an
agent with few ballots near "mostly right"; without them one ballot makes a matrix of 0 and 1.

It is a background job over stored ballots, linear in ballots x classes x rounds, and it needs
a history: at most 12 classes and at least 200 tasks. It replaces the simple weights only where
it is right more often on verified outcomes, which take no part in the fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MAX_CLASSES = 12
MIN_TASKS = 200
MIN_VERIFIED = 30
DIAGONAL = 3.0
"""Extra pseudo-counts for being right."""
MAX_ROUNDS = 60
TOLERANCE = 1e-4
"""Largest change of a posterior after which the fit has converged."""

Given = Mapping[str, Sequence[tuple[str, str]]]
"""Task to (agent, answer), one per agent."""


@dataclass(frozen=True, slots=True)
class Inference:
    """What the ballots say together about truths and agents."""

    classes: tuple[str, ...]
    prior: tuple[float, ...]
    confusion: Mapping[str, tuple[tuple[float, ...], ...]]
    """Per agent, row j: what it says when classes[j] is true."""
    posteriors: Mapping[str, tuple[float, ...]]
    rounds: int

    def answers(self) -> dict[str, str]:
        """The most probable class per task; equal ones by the order of the classes."""
        return {task: self.classes[row.index(max(row))] for task, row in self.posteriors.items()}

    def reliability(self, agent: str) -> float:
        """The agent's confusion matrix as one number: how often it is right on tasks as they come."""
        rows = self.confusion[agent]
        return math.fsum(chance * rows[at][at] for at, chance in enumerate(self.prior))

    def posterior(self, ballots: Iterable[tuple[str, str]]) -> dict[str, float]:
        """The classes' chances for a new task; agents and answers never seen before say nothing."""
        place = {name: at for at, name in enumerate(self.classes)}
        logs = [math.log(chance) for chance in self.prior]
        for agent, answer in ballots:
            rows = self.confusion.get(agent)
            if rows is not None and answer in place:
                logs = [log + math.log(row[place[answer]]) for log, row in zip(logs, rows, strict=True)]
        return dict(zip(self.classes, _normal(logs), strict=True))


def suits(given: Given) -> bool:
    """Whether there is enough history, of few enough classes."""
    return len(given) >= MIN_TASKS and 2 <= len(_classes(given)) <= MAX_CLASSES


def infer(given: Given) -> Inference:
    """Fit truths and confusion matrices. Starts from vote shares; the same ballots give the same fit.

    Raises ValueError if nobody voted at all.
    """
    classes = _classes(given)
    if not classes:
        raise ValueError("there are no ballots to infer from")
    place = {name: at for at, name in enumerate(classes)}
    agents = sorted({agent for ballots in given.values() for agent, _ in ballots})
    number = {agent: at for at, agent in enumerate(agents)}
    votes = [
        [(number[agent], place[answer]) for agent, answer in sorted(set(ballots))]
        for ballots in given.values()
    ]
    beliefs = [_shares(ballots, len(classes)) for ballots in votes]
    prior, logs = _maximise(votes, beliefs, len(agents), len(classes))
    rounds, change = 0, math.inf
    while rounds < MAX_ROUNDS and change >= TOLERANCE:
        updated = _expect(votes, prior, logs)
        change = max(map(_distance, updated, beliefs), default=0.0)
        beliefs = updated
        prior, logs = _maximise(votes, beliefs, len(agents), len(classes))
        rounds += 1
    return Inference(
        classes,
        tuple(prior),
        {agent: _rows(logs[number[agent]]) for agent in agents},
        {task: tuple(row) for task, row in zip(given, beliefs, strict=True)},
        rounds,
    )


def wins(inferred: Mapping[str, str], decided: Mapping[str, str], truth: Mapping[str, str]) -> bool:
    """Whether inference was right more often than the votes' own decisions, on at least 30 verified tasks."""
    known = [task for task in truth if task in inferred and task in decided]
    gained = sum((inferred[task] == truth[task]) - (decided[task] == truth[task]) for task in known)
    return len(known) >= MIN_VERIFIED and gained > 0


def _classes(given: Given) -> tuple[str, ...]:
    return tuple(sorted({answer for ballots in given.values() for _, answer in ballots}))


def _shares(ballots: Sequence[tuple[int, int]], classes: int) -> list[float]:
    if not ballots:
        return [1 / classes] * classes
    shares = [0.0] * classes
    for _, said in ballots:
        shares[said] += 1 / len(ballots)
    return shares


def _maximise(
    votes: Sequence[Sequence[tuple[int, int]]], beliefs: Sequence[Sequence[float]], agents: int, classes: int
) -> tuple[list[float], list[list[list[float]]]]:
    """The class prior, and per agent and said class the log chances of saying it for each true class."""
    totals = [1.0] * classes
    counts = [
        [[1.0 + (DIAGONAL if true == said else 0.0) for true in range(classes)] for said in range(classes)]
        for _ in range(agents)
    ]
    for ballots, belief in zip(votes, beliefs, strict=True):
        for true, chance in enumerate(belief):
            totals[true] += chance
        for agent, said in ballots:
            column = counts[agent][said]
            for true, chance in enumerate(belief):
                column[true] += chance
    for columns in counts:
        for true in range(classes):
            row = math.fsum(column[true] for column in columns)
            for column in columns:
                column[true] = math.log(column[true] / row)
    whole = math.fsum(totals)
    return [total / whole for total in totals], counts


def _expect(
    votes: Sequence[Sequence[tuple[int, int]]],
    prior: Sequence[float],
    logs: Sequence[Sequence[Sequence[float]]],
) -> list[list[float]]:
    """The chances of each class for each task."""
    start = [math.log(chance) for chance in prior]
    beliefs = []
    for ballots in votes:
        columns = [start, *(logs[agent][said] for agent, said in ballots)]
        beliefs.append(_normal([math.fsum(values) for values in zip(*columns, strict=True)]))
    return beliefs


def _distance(row: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(one - two) for one, two in zip(row, other, strict=True))


def _normal(logs: Sequence[float]) -> list[float]:
    top = max(logs)
    weights = [math.exp(log - top) for log in logs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _rows(columns: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(math.exp(value) for value in row) for row in zip(*columns, strict=True))
