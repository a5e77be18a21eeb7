"""What the agents of this folder share: the documents, their sentences, and how a script becomes an agent."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
from pathlib import Path
from typing import Any

from agentorch_cli import Agent, WorkFailed

DOCUMENTS = Path(__file__).parent.parent / "documents"

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
NUMBER = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-ZÀ-Þ(])")

_COMMON = """
a about all also an and any are as at be because been before but by can could did do during each for
from had has have he her his in into is it its more most no not of off on one only or other out over
same she so some such than that the their them then there these they this through to two under until
up was were what when where which who will with would
"""

COMMON_WORDS = frozenset(_COMMON.split())
"""Words that say nothing about what a sentence is about."""


def document_path(name: str) -> Path:
    """The file of a document. Raises WorkFailed: another attempt would not find it either."""
    path = DOCUMENTS / name
    if Path(name).name != name or not path.is_file():
        raise WorkFailed(f"there is no document {name!r}", code="no_document", retryable=False)
    return path


def read_text(name: str, encoding: str = "utf-8") -> str:
    """The text of a document. Raises UnicodeDecodeError."""
    return document_path(name).read_bytes().decode(encoding)


def read_json(name: str) -> Any:
    """A document that is a table."""
    return json.loads(read_text(name))


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, each on one line, without its headings."""
    blocks = re.split(r"\n\s*\n", re.sub(r"^#.*$", "", text, flags=re.MULTILINE))
    return [" ".join(block.split()) for block in blocks if block.strip()]


def sentences(text: str) -> list[str]:
    """The sentences of a text in order. A point inside a number ends nothing."""
    return [sentence for block in paragraphs(text) for sentence in SENTENCE_END.split(block)]


def key_words(text: str) -> list[str]:
    """The words that say what a text is about, in lower case and without the commonest endings."""
    words = (word.lower() for word in WORD.findall(text))
    return [stem(word) for word in words if word not in COMMON_WORDS and len(word) > 1]


def stem(word: str) -> str:
    """Plurals and past forms fall together: `widths` and `width`, `moved` and `move`."""
    for ending in ("ings", "ing", "ies", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def serve(agent: Agent) -> None:
    """Run the agent until it is told to stop, under the address that the command line gives."""
    parser = argparse.ArgumentParser(description=f"Run the agent {agent.agent_id}.")
    parser.add_argument("--url", default="ws://127.0.0.1:3001/agents", help="where `agentorch serve` listens")
    options = parser.parse_args()

    async def until_stopped() -> None:
        stop = asyncio.Event()
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
        await agent.run(options.url, stop=stop, drain_timeout=5.0)

    asyncio.run(until_stopped())
