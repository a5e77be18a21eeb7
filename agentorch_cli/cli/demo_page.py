"""What `agentorch demo` shows: the fleet while it works, tables at the end, and how to go on."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from agentorch_cli.cli import board, columns
from agentorch_cli.cli.fleet import examples_folder
from agentorch_cli.cli.look import Look
from agentorch_cli.cli.tables import Column, Page, table
from agentorch_cli.text import shorten

if TYPE_CHECKING:
    from agentorch_cli.cli.session import Session
    from agentorch_cli.views import AgentView, DecisionView, StatusView, TaskView

SAID_BY_NAME = ("kind", "document", "claim", "bill")
"""What the results of the examples repeat for the tasks that read them."""

ENDED = ("completed", "failed", "cancelled", "skipped")


@contextlib.contextmanager
def display(session: Session) -> Iterator[Callable[[StatusView, list[TaskView]], None]]:
    """What shows how far the fleet is: a picture on a terminal, else a line for each task that ends."""
    if session.is_quiet or not sys.stderr.isatty():
        yield _Lines(session).update
        return
    page = Page(sys.stderr)
    with Live(console=page.console, auto_refresh=False, transient=True, redirect_stdout=False) as live:
        yield lambda status, tasks: live.update(_picture(status, tasks, page.stream), refresh=True)


def _picture(status: StatusView, tasks: Sequence[TaskView], terminal: TextIO) -> RenderableType:
    """How much is done, and who does what; no higher than the terminal."""
    look = Look.of(terminal)
    done = sum(task.status in ENDED for task in tasks)
    counts = board.counts(Counter(task.status for task in tasks), board.TASK_ORDER, look)
    bar = look.progress(done / max(len(tasks), 1), 30)
    lines: list[RenderableType] = [Text("   ").join([bar, *counts])]
    if look.height > 6:
        lines += [Text(""), table(columns.AGENTS, status.agents[: look.height - 5], look)]
    return Group(*lines)


class _Lines:
    """One plain line for each task that has ended."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._told: set[str] = set()

    def update(self, _: StatusView, tasks: Sequence[TaskView]) -> None:
        """Tell what has ended since the last time, in the order in which it ended."""
        ended = [task for task in tasks if task.status in ENDED and task.task_id not in self._told]
        for task in sorted(
            ended, key=lambda task: (task.completed_at is None, task.completed_at, task.task_id)
        ):
            self._told.add(task.task_id)
            who = ", ".join(task.assigned_agents) or "nobody"
            self._session.say(f"{task.status}  {columns.label(task)}  by {who}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demonstration came to."""

    agents: list[AgentView]
    tasks: list[TaskView]
    voted: list[TaskView]
    """Those of the tasks that were decided by a vote, with their decisions."""


def draw(page: Page, session: Session, outcome: Outcome, is_kept: bool) -> None:
    """The tables at the end, and what a person may want to do next."""
    parts: list[tuple[str, Sequence[Column], Sequence[Any]]] = [
        ("AGENTS", columns.AGENTS, outcome.agents),
        ("TASKS AND RESULTS", _result_columns(), outcome.tasks),
        ("VOTES", _vote_columns(), outcome.voted),
    ]
    for title, column, rows in parts:
        if rows:
            page.heading(f"{title} ({len(rows)})" if page.look.is_terminal else title)
            page.table(column, rows)
    page.gap()
    first, *commands = _way_on(session, outcome.tasks, is_kept)
    page.line(first)
    for command in commands:
        page.command(f"  {command}")


def _result_columns() -> tuple[Column, ...]:
    """What was done by whom, with room for what came of it: ids are for a fleet that is kept."""

    def result(task: TaskView, look: Look) -> Text:
        if task.error or not look.is_terminal or not isinstance(task.result, dict):
            return columns.outcome(task, look)
        return look.text(in_brief(task.result))

    return (
        Column("TASK", lambda task, look: look.text(columns.label(task), "bold"), is_id=True),
        columns.OUTCOMES[1],
        Column("TRIES", lambda task, look: Text(str(task.attempts_made)), 1, is_right=True),
        Column("AGENTS", lambda task, look: look.crowd(task.assigned_agents), 3, least=18),
        Column("TOOK", columns.took, 2, is_right=True),
        Column("RESULT", result),
    )


def _vote_columns() -> tuple[Column, ...]:
    """What the checkers found, how many were asked, and who saw it otherwise."""

    def told(task: TaskView) -> DecisionView:
        assert task.decision is not None  # only such tasks are listed
        return task.decision

    def against(task: TaskView, look: Look) -> Text:
        voters = {str(vote["agent_id"]): vote["answer"] for vote in told(task).votes}
        verdict = _verdict(told(task).final_decision)
        return look.names([voter for voter, answer in voters.items() if _verdict(answer) != verdict])

    return (
        Column("CLAIM", lambda task, look: look.text(columns.label(task), "bold"), is_id=True),
        Column("VOTE", lambda task, look: look.state(told(task).status)),
        Column("ANSWER", lambda task, look: look.text(_verdict(told(task).final_decision))),
        Column("VOTES", lambda task, look: Text(columns.votes(told(task))), 5, is_right=True),
        Column("AGAINST", against, 6),
    )


def _verdict(answer: Any) -> str:
    return str(answer.get("verdict", "")) if isinstance(answer, dict) else ""


def in_brief(result: dict[str, Any]) -> str:
    """The result as a person would say it: `9 dates, 31 quantities`, `verdict supported`."""
    told = []
    for key, value in result.items():
        if key not in SAID_BY_NAME:
            told.append(f"{len(value)} {key}" if isinstance(value, list | dict) else f"{key} {value}")
    return shorten(", ".join(told), 200)


def _way_on(session: Session, tasks: Sequence[TaskView], is_kept: bool) -> list[str]:
    """A sentence, and the commands for the next step."""
    program = _program()
    if is_kept:
        hardest = max(tasks, key=lambda task: (task.failures, task.attempts_made))
        return [
            "Everything is kept. The story of the task that needed most attempts:",
            f"{program} task show {hardest.task_id} --data-dir {shlex.quote(str(session.data_dir))}",
        ]
    examples = examples_folder()
    return [
        "Next, the same by hand, in three terminals:",
        f"{program} serve",
        f"{_short(Path(sys.executable))} {_short(examples / 'agents' / 'counter.py')}",
        f"{program} task submit {_short(examples / 'tasks' / 'single.toml')} --wait",
    ]


def _program() -> str:
    """What one would type here to run agentorch."""
    if shutil.which("agentorch"):
        return "agentorch"
    beside = Path(sys.executable).parent / "agentorch"
    return _short(beside) if beside.exists() else f"{_short(Path(sys.executable))} -m agentorch_cli"


def _short(path: Path) -> str:
    """The path as one would type it here."""
    try:
        return shlex.quote(str(path.absolute().relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(path))
