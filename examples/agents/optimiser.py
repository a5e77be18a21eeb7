"""Minimises a QUBO, the form in which quantum annealers take problems.

(A quadratic unconstrained binary optimisation: which of some variables to set to 1 so that the
sum of their terms is least.) No such machine is needed here: simulated annealing (Kirkpatrick,
Gelatt and Vecchi 1983) finds the least energy of a small one in a moment. The seed makes the
search repeatable.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

from common import read_json, serve

from agentorch_cli import Agent, Work, WorkFailed

agent = Agent("optimiser", type="quantum", capabilities=("optimization",))

Qubo = dict[tuple[str, str], float]


@agent.handler("optimise_sites")
def optimise_sites(work: Work) -> dict[str, Any]:
    """Choose sites of much value that do not watch the same ground twice."""
    energy, chosen, runs = search(work, site_qubo(work.data["value"], work.data["overlap"]))
    return {"kind": "sites", "chosen": sorted(chosen), "value": round(-energy, 6), "runs": runs}


@agent.handler("plan_footbridge")
def split_loads(work: Work) -> dict[str, Any]:
    """Split what a bill of materials lists into two loads that are worth the same, as nearly as can be."""
    materials = read_json(work.data["bill"])["materials"]
    worth = {item["item"]: item["quantity"] * item["unit_price"] for item in materials}
    _, chosen, runs = search(work, load_qubo(worth))
    loads = sorted((sorted(chosen), sorted(worth.keys() - chosen)))
    totals = [round(sum(worth[item] for item in load), 2) for load in loads]
    difference = round(abs(totals[0] - totals[1]), 2)
    return {"kind": "loads", "loads": loads, "worth": totals, "difference": difference, "runs": runs}


def search(work: Work, qubo: Qubo) -> tuple[float, frozenset[str], int]:
    """The least energy of several runs, which variables are 1 there, and how many runs it took."""
    runs, best = work.data.get("runs", 20), (math.inf, frozenset[str]())
    for run in range(runs):
        if work.cancelled.is_set():
            raise WorkFailed("cancelled")
        best = min(best, anneal(qubo, random.Random(work.data["seed"] + run)), key=lambda found: found[0])
        work.progress((run + 1) / runs, note=f"energy {best[0]:g}")
    return *best, runs


def site_qubo(value: dict[str, float], overlap: list[list[Any]]) -> Qubo:
    """Energy falls by a site's value and rises by what two chosen sites have in common."""
    qubo: Qubo = {(site, site): -worth for site, worth in value.items()}
    for one, other, shared in overlap:
        qubo[one, other] = qubo.get((one, other), 0.0) + shared
    return qubo


def load_qubo(worth: dict[str, float]) -> Qubo:
    """The square of what is chosen beyond the half (Lucas, Ising formulations, 2014, section 2.1)."""
    total = sum(worth.values())
    qubo: Qubo = {(item, item): value * (value - total) for item, value in worth.items()}
    for (one, of_one), (other, of_other) in itertools.combinations(worth.items(), 2):
        qubo[one, other] = 2 * of_one * of_other
    return qubo


def energy_of(qubo: Qubo, chosen: frozenset[str]) -> float:
    """The sum of all terms of which both variables are 1."""
    return sum(term for (one, other), term in qubo.items() if one in chosen and other in chosen)


def anneal(qubo: Qubo, rng: random.Random, sweeps: int = 400) -> tuple[float, frozenset[str]]:
    """The least energy that one slow cooling meets, and which variables are 1 there."""
    variables = sorted({name for pair in qubo for name in pair})
    couplings = _couplings(qubo, variables)
    hottest = max(abs(term) for term in qubo.values()) * 2
    chosen = {name for name in variables if rng.random() < 0.5}
    energy = energy_of(qubo, frozenset(chosen))
    best = (energy, frozenset(chosen))
    for sweep in range(sweeps):
        temperature = hottest * (0.001 ** (sweep / (sweeps - 1)))
        for name in variables:
            field = qubo.get((name, name), 0.0) + sum(
                term for other, term in couplings[name].items() if other in chosen
            )
            change = -field if name in chosen else field
            if change <= 0 or rng.random() < math.exp(-change / temperature):
                chosen ^= {name}
                energy += change
                if energy < best[0] - 1e-12:
                    best = (energy, frozenset(chosen))
    return best


def _couplings(qubo: Qubo, variables: list[str]) -> dict[str, dict[str, float]]:
    """Each variable's terms with the others, seen from both ends."""
    couplings: dict[str, dict[str, float]] = {name: {} for name in variables}
    for (one, other), term in qubo.items():
        if one != other:
            couplings[one][other] = couplings[one].get(other, 0.0) + term
            couplings[other][one] = couplings[other].get(one, 0.0) + term
    return couplings


if __name__ == "__main__":
    serve(agent)
