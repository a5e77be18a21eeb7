"""Winners of ranked ballots: Schulze, Borda and instant run-off, as pure functions of a profile.

Schulze: "A new monotonic, clone-independent, reversal symmetric, and Condorcet-consistent
single-winner election method", Social Choice and Welfare 36 (2011). Options that a ballot
leaves out are below all that it ranks, and equal to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce


@dataclass(frozen=True, slots=True)
class Profile:
    """Rankings (best first) with how many voters gave each, and how ties are settled."""

    options: tuple[str, ...]
    rankings: tuple[tuple[tuple[str, ...], int], ...]
    before: Callable[[str, str], bool]
    """Whether the first of two equal options goes first; a total order."""

    def best(self, tied: list[str]) -> str:
        return reduce(lambda best, option: option if self.before(option, best) else best, tied)


def pairwise_wins(profile: Profile) -> dict[str, dict[str, int]]:
    """wins[a][b]: the voters who prefer a to b."""
    wins = {option: dict.fromkeys(profile.options, 0) for option in profile.options}
    for ranking, voters in profile.rankings:
        below = set(profile.options)
        for option in ranking:
            below.discard(option)
            row = wins[option]
            for other in below:
                row[other] += voters
    return wins


def schulze(profile: Profile) -> tuple[str, int]:
    """The winner by strongest paths (winning votes), and its smallest margin over any rival in ballots."""
    wins = pairwise_wins(profile)
    options = profile.options
    for option in options:
        lead = min(wins[option][other] - wins[other][option] for other in options if other != option)
        if lead > 0:
            return option, lead  # a Condorcet winner: no path is stronger, and most elections have one
    path = {a: {b: wins[a][b] if wins[a][b] > wins[b][a] else 0 for b in options} for a in options}
    for via in options:
        onward = path[via]
        for start in options:
            reach = path[start][via]
            if reach and start != via:
                row = path[start]
                for end in options:
                    row[end] = max(row[end], min(reach, onward[end]))
    unbeaten = [a for a in options if all(path[a][b] >= path[b][a] for b in options if b != a)]
    winner = profile.best(unbeaten)
    return winner, min(wins[winner][other] - wins[other][winner] for other in options if other != winner)


def borda(profile: Profile) -> tuple[str, int]:
    """The winner by places and its lead, in half points: m-1 points for the first of m, m-2 for the next.

    Options left out share the points of the places that are left, hence the halves.
    """
    m = len(profile.options)
    points = dict.fromkeys(profile.options, 0)
    for ranking, voters in profile.rankings:
        rest = m - len(ranking)
        for place, option in enumerate(ranking):
            points[option] += 2 * (m - 1 - place) * voters
        for option in set(profile.options).difference(ranking):
            points[option] += (rest - 1) * voters
    top = max(points.values())
    winner = profile.best([option for option in profile.options if points[option] == top])
    return winner, top - max(points[option] for option in profile.options if option != winner)


def instant_runoff(profile: Profile) -> tuple[str, int]:
    """The winner by eliminating the option with the fewest first places, and its lead in first places."""
    standing = set(profile.options)
    while len(standing) > 1:
        firsts = dict.fromkeys(sorted(standing), 0)
        for ranking, voters in profile.rankings:
            choice = next((option for option in ranking if option in standing), None)
            if choice is not None:
                firsts[choice] += voters
        fewest = min(firsts.values())
        tied = [option for option in firsts if firsts[option] == fewest]
        standing.discard(
            reduce(lambda worst, option: option if profile.before(worst, option) else worst, tied)
        )
    winner = standing.pop()
    places = dict.fromkeys(profile.options, 0)
    for ranking, voters in profile.rankings:
        places[ranking[0]] += voters
    return winner, places[winner] - max(places[option] for option in profile.options if option != winner)
