"""`agentorch outcome`: say what is true, so that votes and confidence can learn from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.options import json_or_text
from agentorch_cli.cli.session import Part, Session
from agentorch_cli.core.hints import shortened
from agentorch_cli.errors import InvalidFile, Partial, UsageError, fixed_by

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

BOM = b"\xef\xbb\xbf"

WORDS = {
    "right": True, "true": True, "yes": True, "1": True,
    "wrong": False, "false": False, "no": False, "0": False,
}  # fmt: skip


def outcome(
    ctx: typer.Context,
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="Id of a task that has ended.", show_default=False)
    ] = None,
    is_right: Annotated[bool, typer.Option("--right", help="Its result was right.")] = False,
    is_wrong: Annotated[bool, typer.Option("--wrong", help="Its result was wrong.")] = False,
    answer: Annotated[
        str | None, typer.Option("--answer", metavar="JSON", help="The right answer, as JSON or plain text.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help='Many: CSV or JSONL ("-": stdin) with task and right, or task and answer.',
        ),
    ] = None,
    said_by: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who says so.")] = None,
) -> None:
    """Say whether the result of a task was right, or what the right answer is.

    $ agentorch outcome 019a8f2e-7b1c-7d10-a3f4-52c8e09b1d6f --right
    $ agentorch outcome nightly-report --answer '{"verdict": "false"}'
    $ agentorch outcome --from outcomes.csv

    Each agent that voted is credited with being right or wrong, three times as heavily as by agreement.
    After 30 outcomes of a capability weights are no longer clamped, from 50 on confidence is calibrated.
    """
    session = Session.of(ctx)
    if file is not None:
        if task is not None or is_right or is_wrong or answer is not None:
            raise UsageError("--from brings its own tasks and outcomes: leave the others out")
        _say_many(session, file, said_by)
        return
    if task is None or [is_right, is_wrong, answer is not None].count(True) != 1:
        raise UsageError(
            "say which task, and one of --right, --wrong and --answer",
            fix="agentorch outcome TASK --right",
        )
    said: dict[str, Any] = (
        {"right": is_right} if answer is None else {"answer": json_or_text(answer), "has_answer": True}
    )
    learned = session.ask("outcome.say", task_id=Part("task", task), said_by=said_by, **said)

    def draw(page: Page) -> None:
        from agentorch_cli.cli import story

        story.draw_outcome(page, learned)

    session.show(learned, draw, [learned.task_id])


def _say_many(session: Session, file: str, said_by: str | None) -> None:
    with fixed_by("outcome", "--help"):
        outcomes = read_outcomes(file)
    reply = session.ask("outcome.say_many", outcomes=outcomes, said_by=said_by)
    known = f"{len(reply.changed):,} outcome{' is' if len(reply.changed) == 1 else 's are'} known."
    session.show(reply, lambda page: page.line(known), reply.changed)
    if reply.unchanged:
        reasons = [f"{task_id}: {reason}" for task_id, reason in reply.unchanged.items()]
        raise Partial(
            f"{len(reply.unchanged)} of {len(outcomes)} outcomes were not taken: " + "; ".join(reasons[:10]),
            unchanged=reply.unchanged,
        )


def read_outcomes(name: str) -> list[dict[str, Any]]:
    """The outcomes of a CSV or JSONL file, as `outcome.say` takes them. Raises InvalidFile."""
    import sys
    from pathlib import Path

    from agentorch_cli.documents import Format, load_document

    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except FileNotFoundError as error:
        raise InvalidFile("does not exist", where=name) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InvalidFile(f"cannot be read: {getattr(error, 'strerror', error)}", where=name) from error
    if data.removeprefix(BOM).lstrip()[:1] == b"{":
        document = load_document(data, Format.JSONL, name=name)
        found = [_outcome_of(row, document.where((number,))) for number, row in enumerate(document.value)]
    else:
        found = [_outcome_of(row, where) for row, where in _csv_rows(data, name)]
    if not found:
        raise InvalidFile("holds no outcomes", where=name, hint="columns: task and right, or task and answer")
    return found


def _csv_rows(data: bytes, name: str) -> Iterator[tuple[Any, str]]:
    import csv
    import io

    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        for row in rows:
            yield row, f"{name}:{rows.line_num}"
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidFile(f"is no CSV in UTF-8: {error}", where=name) from error


def _outcome_of(row: Any, where: str) -> dict[str, Any]:
    task = row.get("task") if isinstance(row, dict) else None
    if not task or not isinstance(task, str):
        raise InvalidFile("names no task", where=where, hint="columns: task and right, or task and answer")
    right, answer = row.get("right"), row.get("answer", row.get("truth"))
    if right not in (None, ""):
        word = str(right).strip().lower()
        if word not in WORDS:
            raise InvalidFile(f'right is "{shortened(word)}"; say true or false', where=where)
        return {"task_id": task, "right": WORDS[word]}
    if answer is None or answer == "":
        raise InvalidFile(
            "says neither right nor answer", where=where, hint="columns: task and right, or task and answer"
        )
    try:
        answer = json_or_text(answer) if isinstance(answer, str) else answer
    except UsageError as error:
        raise InvalidFile(error.message, where=where, hint=error.hint) from error
    return {"task_id": task, "answer": answer, "has_answer": True}


app = single(outcome)
