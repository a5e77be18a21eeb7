"""Counts what a document consists of, and says how easy it is to read."""

from __future__ import annotations

import re
from typing import Any

from common import NUMBER, WORD, paragraphs, read_text, sentences, serve

from agentorch_cli import Agent, Work

agent = Agent("counter", type="script", capabilities=("count",), slots=2)

WORDS_PER_MINUTE = 238
"""Silent reading of English, mean over 190 studies: Brysbaert 2019, Journal of Memory and Language 109."""


@agent.handler("count_words")
def count_words(work: Work) -> dict[str, Any]:
    return {"kind": "count", "document": work.data["document"], **count(read_text(work.data["document"]))}


def count(text: str) -> dict[str, Any]:
    """Words, numbers, sentences and paragraphs of a text without its headings."""
    body = " ".join(paragraphs(text))
    words = WORD.findall(body)
    found = sentences(text)
    return {
        "words": len(words),
        "numbers": len(NUMBER.findall(body)),
        "sentences": len(found),
        "paragraphs": len(paragraphs(text)),
        "longest_sentence_words": max((len(WORD.findall(sentence)) for sentence in found), default=0),
        "reading_ease": round(reading_ease(words, len(found)), 1),
        "reading_minutes": round(len(words) / WORDS_PER_MINUTE, 1),
    }


def reading_ease(words: list[str], sentence_count: int) -> float:
    """Flesch's reading ease (1948): about 60 to 70 is plain English, lower is harder."""
    if not words or not sentence_count:
        return 0.0
    syllable_count = sum(syllables(word) for word in words)
    return 206.835 - 1.015 * len(words) / sentence_count - 84.6 * syllable_count / len(words)


def syllables(word: str) -> int:
    """Groups of vowels, without a silent e at the end."""
    groups = re.findall(r"[aeiouyà-öø-ÿ]+", word.lower())
    is_silent = re.search(r"[^aeiouyl]e$", word.lower()) is not None
    return max(1, len(groups) - is_silent)


if __name__ == "__main__":
    serve(agent)
