"""Reads documents into plain text. The modern reader knows UTF-8, the old one what came before too."""

from __future__ import annotations

import sys
from typing import Any

from common import document_path, serve

from agentorch_cli import Agent, Work, WorkFailed

ENCODINGS = {"modern": ("utf-8",), "old": ("utf-8", "iso-8859-1")}


def build(school: str) -> Agent:
    """A reader of one of the two schools."""
    agent = Agent(
        f"reader-{school}", type="script", capabilities=("transcribe",), metadata={"school": school}
    )

    @agent.handler("transcribe")
    def transcribe(work: Work) -> dict[str, Any]:
        encoding, text = decode(work.data["document"], ENCODINGS[school])
        return {"kind": "transcript", "document": work.data["document"], "encoding": encoding, "text": text}

    return agent


def decode(name: str, encodings: tuple[str, ...]) -> tuple[str, str]:
    """The first encoding that fits, and the text. Raises WorkFailed: another reader may do better."""
    content = document_path(name).read_bytes()
    obstacle = ""
    for encoding in encodings:
        try:
            return encoding, content.decode(encoding)
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            obstacle = f"{name}, line {line}: byte 0x{content[error.start]:02x} is not {encoding}"
    raise WorkFailed(obstacle, code="unreadable")


if __name__ == "__main__":
    serve(build(sys.argv.pop(1)))
