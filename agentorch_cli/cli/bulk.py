"""Calling off or retrying many tasks at once, in parts, after a look at which those are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from agentorch_cli.cli.consent import ask_first, word_for
from agentorch_cli.cli.session import Part, whole_ids
from agentorch_cli.errors import UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.session import Session
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.client import Client
    from agentorch_cli.views import ChangeReply, TaskRef

AT_ONCE = 500
"""Tasks that one operation changes: their rows are locked until it is done."""

PAGE = 10_000
"""Tasks that are looked up at once."""


class Act(NamedTuple):
    """Something that is done to tasks."""

    method: str
    status: list[str]
    """Tasks in these states are meant by an expression; to others it cannot be done."""
    would: str
    done: str


CANCEL = Act("task.cancel", ["blocked", "pending", "running"], "cancelled", "cancelled")
RETRY = Act("task.retry", ["failed", "cancelled", "skipped"], "tried again", "to be tried again")


def change(
    session: Session,
    act: Act,
    task_ids: list[str] | None,
    where: str | None,
    is_dry_run: bool,
    is_sure: bool,
    **options: Any,
) -> None:
    """Do it to the tasks of these ids, or to those that the expression means, which is asked about first."""
    from agentorch_cli.cli.task import show_change

    if bool(task_ids) == (where is not None):
        raise UsageError(
            "give ids of tasks, or --where, one of them", hint=f"agentorch {session.command} --help"
        )
    if where is not None:
        found = session.run(_matching(session, act, where))
        if is_dry_run:
            _show_meant(session, act, found)
            return
        if found:
            ask_first(
                session, f"{_tasks(len(found))} would be {act.would}.", yes=is_sure, word=word_for(len(found))
            )
        elif session.format == "table":
            session.say("There are no such tasks.")
        ids = [one.task_id for one in found]
        show_change(session, session.run(_change(session, act, ids, **options)), act.done)
        return
    if is_dry_run:
        _show_meant(session, act, session.run(_named(session, task_ids or [])))
        return
    show_change(session, session.run(_change(session, act, task_ids or [], **options)), act.done)


async def _matching(session: Session, act: Act, where: str) -> list[TaskRef]:
    """The tasks, oldest first, by the page."""
    found: list[TaskRef] = []
    async with session.connect() as client:
        cursor: dict[str, Any] = {}
        while True:
            page = await client.call("task.match", where=where, status=act.status, limit=PAGE, **cursor)
            found += page
            if len(page) < PAGE:
                return found
            cursor = {"cursor": page[-1].cursor}


async def _named(session: Session, task_ids: list[str]) -> list[TaskRef]:
    """The tasks of these ids. Raises NotFound."""
    from agentorch_cli.views import TaskRef

    async with session.connect() as client:
        tasks = [
            await client.call("task.get", task_id=task_id)
            for task_id in await whole_ids(client, Part("task", task_ids))
        ]
    return [TaskRef(task_id=one.task_id, name=one.name, type=one.type, status=one.status) for one in tasks]


async def _change(session: Session, act: Act, task_ids: list[str], **options: Any) -> ChangeReply:
    from agentorch_cli.views import ChangeReply

    reply = ChangeReply()
    async with session.connect() as client:
        ids = await whole_ids(client, Part("task", task_ids)) if len(task_ids) <= AT_ONCE else task_ids
        for begin in range(0, len(ids), AT_ONCE):
            part = await _once(client, act, ids[begin : begin + AT_ONCE], **options)
            reply.changed += part.changed
            reply.unchanged |= part.unchanged
            if len(ids) > AT_ONCE:
                session.say(f"{min(begin + AT_ONCE, len(ids)):,} of {len(ids):,}")
    # what was opened again, or called off, because of a task of an earlier part was done by then
    changed = set(reply.changed)
    reply.unchanged = {one: why for one, why in reply.unchanged.items() if one not in changed}
    return reply


async def _once(client: Client, act: Act, task_ids: list[str], **options: Any) -> ChangeReply:
    reply: ChangeReply = await client.call(act.method, task_ids=task_ids, **options)
    return reply


def _show_meant(session: Session, act: Act, found: list[TaskRef]) -> None:
    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.MEANT, found)

    session.show(found, draw, [one.task_id for one in found], "There are no such tasks.")
    if found and session.format == "table":
        able = sum(one.status in act.status for one in found)
        session.say(f"{_tasks(able)} would be {act.would}; nothing was done.")


def _tasks(number: int) -> str:
    return f"{number:,} task{'' if number == 1 else 's'}"
