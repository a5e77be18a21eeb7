"""Checks a claim against a document. Three schools of checkers, who agree on most and not on all.

`nearest` trusts the sentence that resembles the claim most. `numbers` looks for the claim's
quantities anywhere the subject is spoken of. `weigher` lets all sentences with a quantity of
that kind vote, by how much they resemble the claim.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from common import key_words, read_json, read_text, sentences, serve
from extractor import dates, quantities
from summariser import cosine, tf_idf

from agentorch_cli import Agent, Work, WorkFailed

SUPPORTED, CONTRADICTED, NOT_FOUND = "supported", "contradicted", "not found"

Verdict = tuple[str, str]
"""What is found, and the sentence that decides."""


def build(school: str) -> Agent:
    """A checker of one of the schools."""
    agent = Agent(
        f"checker-{school}", type="script", capabilities=("check_facts",), metadata={"school": school}
    )

    @agent.handler("check_claim")
    def check_claim(work: Work) -> dict[str, Any]:
        claim = find_claim(work.data["table"], work.data["claim"])
        verdict, because = SCHOOLS[school](claim["claim"], sentences(read_text(claim["document"])))
        return {"claim": claim["claim"], "verdict": verdict, "because": because, "school": school}

    return agent


def find_claim(table: str, claim_id: str) -> dict[str, str]:
    """A row of the table of claims. Raises WorkFailed."""
    for claim in read_json(table):
        if claim["id"] == claim_id:
            return dict(claim)
    raise WorkFailed(f"{table} has no claim {claim_id!r}", code="no_claim", retryable=False)


def nearest(claim: str, text: list[str]) -> Verdict:
    """Believe the one sentence that resembles the claim most."""
    alike = resemblances(claim, text)
    best = max(range(len(text)), key=lambda index: (alike[index], -index))
    if alike[best] < 0.15:
        return NOT_FOUND, ""
    return _compare(facts(claim), facts(text[best])), text[best]


def numbers(claim: str, text: list[str]) -> Verdict:
    """Believe any sentence on the subject that has the same figures."""
    subject = set(key_words(claim))
    related = [
        sentence for sentence in text if len(subject & set(key_words(sentence))) >= min(2, len(subject))
    ]
    verdicts = [(_compare(facts(claim), facts(sentence)), sentence) for sentence in related]
    for wanted in (SUPPORTED, CONTRADICTED):
        for verdict, sentence in verdicts:
            if verdict == wanted:
                return verdict, sentence
    return NOT_FOUND, ""


def weigher(claim: str, text: list[str]) -> Verdict:
    """Let all sentences that have figures of the kind vote, by the square of their resemblance."""
    alike = resemblances(claim, text)
    weights = {SUPPORTED: 0.0, CONTRADICTED: 0.0}
    because = {SUPPORTED: (0.0, ""), CONTRADICTED: (0.0, "")}
    for weight, sentence in zip(alike, text, strict=True):
        verdict = _compare(facts(claim), facts(sentence))
        if verdict != NOT_FOUND:
            weights[verdict] += weight**2
            because[verdict] = max(because[verdict], (weight, sentence))
    if max(weights.values()) < 0.02:
        return NOT_FOUND, ""
    verdict = SUPPORTED if weights[SUPPORTED] >= weights[CONTRADICTED] else CONTRADICTED
    return verdict, because[verdict][1]


def resemblances(claim: str, text: list[str]) -> list[float]:
    """How much each sentence resembles the claim, 0..1."""
    *vectors, wanted = tf_idf([*text, claim])
    return [cosine(wanted, vector) for vector in vectors]


def facts(text: str) -> dict[str, set[float | str]]:
    """The figures of a text by their kind: the values of each unit, and the dates."""
    found: dict[str, set[float | str]] = {}
    for quantity in quantities(text):
        found.setdefault(quantity["unit"], set()).add(quantity["value"])
    for date in dates(text):
        found.setdefault("date", set()).add(date["iso"])
    return found


def _compare(claimed: dict[str, set[float | str]], stated: dict[str, set[float | str]]) -> str:
    """Whether what is stated has every figure of the claim, or other figures of the same kinds, or none."""
    shared = [kind for kind in claimed if kind in stated]
    if len(shared) < len(claimed) or not claimed:
        return NOT_FOUND
    return SUPPORTED if all(claimed[kind] <= stated[kind] for kind in shared) else CONTRADICTED


SCHOOLS: dict[str, Callable[[str, list[str]], Verdict]] = {
    "nearest": nearest,
    "numbers": numbers,
    "weigher": weigher,
}


if __name__ == "__main__":
    serve(build(sys.argv.pop(1)))
