"""Chooses the sentences that say most: TextRank over words weighted by TF-IDF.

Sentences that share rare words vouch for each other, and a sentence weighs as much as those
that vouch for it (Mihalcea and Tarau 2004, "TextRank: Bringing Order into Texts"; the rank is
that of Brin and Page 1998, found by iteration).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from common import key_words, read_text, sentences, serve

from agentorch_cli import Agent, Work

agent = Agent("summariser", type="script", capabilities=("summarise",), slots=2)

DAMPING = 0.85
PRECISION = 1e-10

Vector = dict[str, float]


@agent.handler("summarise")
def summarise(work: Work) -> dict[str, Any]:
    """One sentence in eight, of those with facts in them rather than others.

    How many there are and where the facts stand is known from the tasks that this one depends on.
    """
    inputs = {value["kind"]: value for value in work.inputs.values()}
    length = max(2, round(inputs["count"]["sentences"] / 8))
    facts = Counter(fact["sentence"] for fact in inputs["facts"]["quantities"] + inputs["facts"]["dates"])
    found = sentences(read_text(work.data["document"]))
    chosen = choose(rank(found), facts, length)
    return {
        "kind": "summary",
        "document": work.data["document"],
        "sentences": [found[index] for index in chosen],
        "kept": round(len(chosen) / len(found), 3),
    }


def choose(ranks: list[float], facts: Counter[int], length: int) -> list[int]:
    """The best sentences in the order of the text; each fact is worth a tenth more."""
    scores = [weight * (1 + 0.1 * facts[index]) for index, weight in enumerate(ranks)]
    best = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    return sorted(best[:length])


def rank(texts: list[str]) -> list[float]:
    """The weight of each text among the others; all together they weigh 1."""
    shares = _shares(similarities(texts))
    count = len(texts)
    weights = [1 / count] * count
    while True:
        received = [
            sum(weights[giver] * shares[giver][taker] for giver in range(count)) for taker in range(count)
        ]
        following = [(1 - DAMPING) / count + DAMPING * weight for weight in received]
        change = sum(abs(new - old) for new, old in zip(following, weights, strict=True))
        weights = following
        if change < PRECISION:
            return weights


def _shares(similarity: list[list[float]]) -> list[list[float]]:
    """What part of its weight each sentence gives to each other; one like no other gives to all alike."""
    count = len(similarity)
    totals = [sum(row) for row in similarity]
    return [
        [value / total if total else 1 / count for value in row]
        for row, total in zip(similarity, totals, strict=True)
    ]


def similarities(texts: list[str]) -> list[list[float]]:
    """The cosine between every two texts, 0 between a text and itself."""
    vectors = tf_idf(texts)
    return [
        [0.0 if row == column else cosine(vectors[row], vectors[column]) for column in range(len(texts))]
        for row in range(len(texts))
    ]


def tf_idf(texts: list[str]) -> list[Vector]:
    """Each text as words with weights: often here and in few others weighs most."""
    counts = [Counter(key_words(text)) for text in texts]
    spread = Counter(word for count in counts for word in count)
    return [
        {word: times * math.log(1 + len(texts) / spread[word]) for word, times in count.items()}
        for count in counts
    ]


def cosine(left: Vector, right: Vector) -> float:
    """1 for the same direction, 0 for no word in common."""
    product = sum(weight * right[word] for word, weight in left.items() if word in right)
    lengths = math.hypot(*left.values()) * math.hypot(*right.values())
    return product / lengths if lengths else 0.0


if __name__ == "__main__":
    serve(agent)
