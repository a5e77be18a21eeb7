"""Waiting for tasks, with something to look at: live on a terminal, a line now and then on a pipe.

All of it goes to stderr, so that stdout holds nothing but the results.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from agentorch_cli.cli.changes import Changes
from agentorch_cli.core.goal import Goal
from agentorch_cli.errors import ConsensusNotReached, TaskFailed, command

if TYPE_CHECKING:
    from agentorch_cli.cli.session import Session
    from agentorch_cli.client import Client
    from agentorch_cli.views import TallyView, TaskView

FRAME_SECONDS = 0.25
DUTY = 9
"""Looking may take a tenth of the time at most, so that watching thousands of tasks does not slow them."""

LINE_SECONDS = 10.0
"""Between two lines on a pipe."""

NOTICE_SECONDS = 1.5
"""When a wait has lasted this long, alarms of the fleet are told: perhaps nobody works at all."""

MOST_RUNNING = 8
"""Running tasks that are shown."""


class Display(Protocol):
    """Shows how far a set of tasks is."""

    def update(self, tally: TallyView) -> None:
        """Show this state of the tasks."""


async def follow(
    client: Client,
    task_ids: Sequence[str],
    submission_id: str | None,
    timeout: float | None,
    session: Session,
    goal: Goal = Goal.COMPLETED,
    *,
    is_any: bool = False,
) -> list[TaskView]:
    """Wait until each task has reached the goal or no longer can, or one has. Raises WaitTimedOut."""
    wanted: dict[str, Any] = {} if goal is Goal.COMPLETED else {"until": goal}
    if is_any:
        wanted["any"] = True
    waiting = asyncio.ensure_future(
        client.call("task.wait", task_ids=list(task_ids), timeout_seconds=timeout, **wanted)
    )
    watching = asyncio.ensure_future(_watch(client, list(task_ids), submission_id, session))
    try:
        await asyncio.wait({waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
        return list(await waiting)
    except asyncio.CancelledError:
        session.say(f"The work goes on; agentorch task wait {task_ids[0]} waits again.")
        raise
    finally:
        for task in (waiting, watching):
            task.cancel()
        await asyncio.gather(waiting, watching, return_exceptions=True)


def check_outcomes(tasks: Sequence[TaskView], goal: Goal | None = None, *, is_any: bool = False) -> None:
    """Raises TaskFailed or ConsensusNotReached unless every task has reached the goal, or one has."""
    goal = goal or Goal.COMPLETED
    missed = [task for task in tasks if not goal.decided(task.status)]
    if not missed or (is_any and len(missed) < len(tasks)):
        return
    votes = [task for task in missed if (task.error or {}).get("code") == "consensus_not_reached"]
    kind = ConsensusNotReached if len(votes) == len(missed) else TaskFailed
    first = missed[0]
    name = first.name or first.task_id
    if len(tasks) == 1:
        message = f'the task "{name}" is {first.status}'
    elif goal is Goal.COMPLETED:
        message = f"{len(missed)} of {len(tasks)} tasks did not complete"
    else:
        message = f"{len(missed)} of {len(tasks)} tasks are not {goal}"
    raise kind(
        message,
        why=_cause(first),
        fix=command("task", "show", first.task_id),
        task_ids=[task.task_id for task in missed],
    )


def _cause(task: TaskView) -> str | None:
    """What the task says of itself."""
    error = task.error or {}
    said = error.get("message") or error.get("code")
    return f"{error.get('code', 'failed')}: {said}" if said else None


async def _watch(client: Client, task_ids: list[str], submission_id: str | None, session: Session) -> None:
    """Show the state of the tasks again and again; ended by being cancelled."""
    clock = asyncio.get_running_loop().time
    begin = clock()
    is_noticed = False
    display: Any
    task_id = task_ids[0] if len(task_ids) == 1 else None
    known = task_ids if submission_id is None else task_ids[:1]
    with _display(session) as display:
        async with Changes(client, task_id=task_id) as changes:
            while True:
                start = clock()
                tally = await client.call("task.tally", task_ids=known, submission_id=submission_id)
                display.update(tally)
                if not is_noticed and clock() - begin > NOTICE_SECONDS:
                    is_noticed = True
                    for alarm in (await client.call("status.get", limit=1)).alarms:
                        session.say(f"note: {alarm}")
                await changes.rest(max(FRAME_SECONDS, (clock() - start) * DUTY))


def _display(session: Session) -> AbstractContextManager[Display]:
    if session.is_quiet:
        return nullcontext(_Silent())
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return nullcontext(_Lines(session))
    return _Live()


class _Silent:
    def update(self, tally: TallyView) -> None:
        """Nothing to say."""


class _Lines:
    """One plain line every ten seconds."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._next = asyncio.get_running_loop().time() + LINE_SECONDS

    def update(self, tally: TallyView) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._next:
            return
        self._next = now + LINE_SECONDS
        found = sorted(tally.counts.items(), key=lambda one: -one[1])
        self._session.say(", ".join(f"{count:,} {state}" for state, count in found))


class _Live:
    """Counts, and the tasks that run, redrawn in place; it vanishes at the end."""

    def __enter__(self) -> _Live:
        from rich.live import Live

        from agentorch_cli.cli.tables import Page

        self._page = Page(sys.stderr)
        self._live = Live(
            console=self._page.console, auto_refresh=False, transient=True, redirect_stdout=False
        )
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def update(self, tally: TallyView) -> None:
        from rich.console import Group

        from agentorch_cli.cli import board, columns
        from agentorch_cli.cli.look import Look
        from agentorch_cli.cli.tables import table

        look = Look.of(self._page.stream)
        done = sum(tally.counts.get(state, 0) for state in board.ENDED)
        bar = look.progress(done / (sum(tally.counts.values()) or 1), 20)
        counts = board.counts(tally.counts, board.TASK_ORDER, look)
        lines: list[Any] = board.wrapped("Tasks", [bar, *counts], look)
        room = min(MOST_RUNNING, look.height - 4)
        if tally.running and room > 0:
            lines.append(table(columns.RUNNING, tally.running[:room], look))
        self._live.update(Group(*lines), refresh=True)
