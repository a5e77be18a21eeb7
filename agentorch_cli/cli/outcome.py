"""`agentorch outcome`: say what is true, so that votes and confidence can learn from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Part, Session
from agentorch_cli.errors import InvalidFile, Partial, UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

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
        {"right": is_right} if answer is None else {"answer": as_json(answer), "has_answer": True}
    )
    learned = session.ask("outcome.say", task_id=Part("task", task), said_by=said_by, **said)

    def draw(page: Page) -> None:
        from agentorch_cli.cli import story

        story.draw_outcome(page, learned)

    session.show(learned, draw, [learned.task_id])


def as_json(text: str) -> Any:
    """A value from the command line: JSON, or the text itself where it is none."""
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def _say_many(session: Session, file: str, said_by: str | None) -> None:
    outcomes = read_outcomes(file)
    reply = session.ask("outcome.say_many", outcomes=outcomes, said_by=said_by)
    session.show(reply, lambda page: page.line(f"{len(reply.changed):,} outcomes are known."), reply.changed)
    if reply.unchanged:
        reasons = [f"{task_id}: {reason}" for task_id, reason in reply.unchanged.items()]
        raise Partial(
            f"{len(reply.changed)} outcomes were taken, {len(reply.unchanged)} were not: "
            + "; ".join(reasons[:10]),
            unchanged=reply.unchanged,
        )


def read_outcomes(name: str) -> list[dict[str, Any]]:
    """The outcomes of a CSV or JSONL file, as `outcome.say` takes them. Raises InvalidFile."""
    import csv
    import json
    import sys
    from pathlib import Path

    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        text = data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InvalidFile("does not exist", where=name) from error
    except OSError as error:
        raise InvalidFile(f"cannot be read: {error.strerror}", where=name) from error
    except UnicodeDecodeError as error:
        raise InvalidFile("is not in UTF-8", where=name) from error
    rows: list[tuple[int, Any]]
    if text.lstrip().startswith("{"):
        rows = []
        for line, one in enumerate(text.splitlines(), 1):
            if one.strip():
                try:
                    rows.append((line, json.loads(one)))
                except ValueError as error:
                    raise InvalidFile(f"is no JSON: {error}", where=f"{name}:{line}") from error
    else:
        rows = list(enumerate(csv.DictReader(text.splitlines()), 2))
    if not rows:
        raise InvalidFile("holds no outcomes", where=name, hint="columns: task and right, or task and answer")
    return [_outcome_of(row, f"{name}:{line}") for line, row in rows]


def _outcome_of(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict) or not row.get("task"):
        raise InvalidFile("names no task", where=where, hint="columns: task and right, or task and answer")
    right, answer = row.get("right"), row.get("answer", row.get("truth"))
    if right not in (None, ""):
        word = str(right).strip().lower()
        if word not in WORDS:
            raise InvalidFile(f'right is "{right}"; say true or false', where=where)
        return {"task_id": row["task"], "right": WORDS[word]}
    if answer is None or answer == "":
        raise InvalidFile(
            "says neither right nor answer", where=where, hint="columns: task and right, or task and answer"
        )
    return {
        "task_id": row["task"],
        "answer": as_json(answer) if isinstance(answer, str) else answer,
        "has_answer": True,
    }


app = single(outcome)
