"""Asking before something is done that cannot be taken back: the more of it, the less by the way.

Where nobody can answer, nothing is asked and nothing is done: the command says that --yes says yes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.errors import UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.session import Session

MANY = 100
"""From more things than this on, the number itself is to be typed."""

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def confirm(session: Session, question: str, *, number: int = 1, is_sure: bool = False) -> None:
    """Returns where the answer is yes. Raises UsageError where nobody can answer, Abort where it is no.

    `question` is a sentence without its question mark, such as "Cancel 12 tasks".
    """
    from agentorch_cli.text import one_line

    if is_sure:
        return
    question = one_line(question)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{question}? Nobody is here to say so, and nothing was done", hint="--yes says yes beforehand"
        )
    wanted = str(number) if number > MANY else "y"
    asked = f"Type {number} to do it: " if number > MANY else "[y/N] "
    sys.stderr.write(f"{question}? {asked}")
    sys.stderr.flush()
    answer = sys.stdin.readline().strip().lower().replace(",", "")
    if answer != wanted and (wanted, answer) != ("y", "yes"):
        sys.stderr.write("Nothing was done.\n")
        raise typer.Abort
