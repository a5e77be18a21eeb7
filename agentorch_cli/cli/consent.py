"""Asking a person before something is gone for good, the more of it the less by the way; a program says
--yes beforehand. Where nobody can answer, nothing is asked and nothing is done."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agentorch_cli.cli.session import Session, write
from agentorch_cli.errors import NotAllowed, UsageError
from agentorch_cli.text import one_line

MANY = 100
"""From more things than this on, their number itself is to be typed."""

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def word_for(number: int) -> str:
    """What is typed to agree to something that is done to so many."""
    return str(number) if number > MANY else "y"


def ask_first(session: Session, question: str, *, yes: bool, word: str = "y") -> None:
    """Returns once the person agreed: with `word`, or with --yes beforehand.

    Raises UsageError where nobody can be asked, NotAllowed where the person does not agree.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{question} There is no terminal to ask at.", hint="say --yes if that is what is wanted"
        )
    write(one_line(question), sys.stderr)
    sys.stderr.write("Type y to go on: " if word == "y" else f"Type {word} to go on: ")
    sys.stderr.flush()
    answer = sys.stdin.readline().strip()
    if answer.lower() != word and not (word == "y" and answer.lower() == "yes"):
        raise NotAllowed(
            "nothing was changed: that was not agreed to", hint=f"type {word} where it is asked, or say --yes"
        )
