"""`agentorch deadlock`: what can never move, why, and what is done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli import lists
from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Part, Session
from agentorch_cli.errors import fixed_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.text import Text

    from agentorch_cli.cli.look import Look
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.core.deadlock import Report
    from agentorch_cli.views import DeadlockFinding, DeadlockStep, DeadlockView

app = noun("""$ agentorch deadlock list

What can never move, why, and what is done about it.""")


@verb(app, "list")
def list_deadlocks(
    ctx: typer.Context,
    status: lists.Status = None,
    is_open: Annotated[
        bool, typer.Option("--open", help="Only those that are not resolved: --status open.")
    ] = False,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help="Only these, such as hold_and_wait; may be repeated."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="ID", help="Only those in which this task is.")
    ] = None,
    since: lists.Since = None,
    until: lists.Until = None,
    sort: lists.Sort = None,
    limit: lists.Limit = 50,
    cursor: lists.Cursor = None,
) -> None:
    """List deadlocks that were found, newest first, with what was done about each.

    $ agentorch deadlock list
    $ agentorch deadlock list --status open --sort -waited

    They are open or resolved. --since and --until are about when one was found. It sorts by created,
    resolved, waited or kind.
    """
    session = Session.of(ctx)
    given = {
        "status": lists.states(status, ("open", "resolved")),
        "kind": kinds,
        "task_id": Part("task", task) if task is not None else None,
        **lists.times(since, until),
        **lists.page_of(limit, sort, cursor),
    }
    asked = {key: one for key, one in given.items() if one is not None}
    found = session.ask("deadlock.list", only_open=is_open, **asked)

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.DEADLOCKS, found)

    session.show(found, draw, [one.deadlock_id for one in found], "There are no deadlocks.")
    lists.tell_more(session, found, limit)


@verb(app, "show")
def show(
    ctx: typer.Context,
    deadlock_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="Id of the deadlock, or of a task in it.", show_default=False),
    ],
) -> None:
    """Show a deadlock: who waits for whom and why, what it cost, what was done.

    $ agentorch deadlock show nightly-report
    """
    session = Session.of(ctx)
    found = session.ask("deadlock.get", deadlock_id=Part("deadlock", deadlock_id))

    session.show(found, lambda page: draw(page, found), [found.deadlock_id])


@verb(app, "check")
def check(
    ctx: typer.Context,
    file: Annotated[
        str | None,
        typer.Option(
            "--file", metavar="SYSTEM.json", help='A described system, "-" for stdin; no database is asked.'
        ),
    ] = None,
) -> None:
    """Look for deadlocks now, and change nothing.

    $ agentorch deadlock check
    $ echo '{"tasks": {"a": {"deps": ["b"]}, "b": {"deps": ["a"]}}}' | agentorch deadlock check --file -

    A described system is {"agents": {ID: {"caps": [..], "slots": n}}, "tasks": {ID: {"state":
    "pending|running|awaiting|done|failed|cancelled", "deps": [..], "mode": "all|any|K", "on_fail":
    "block|ignore", "need": {"caps": [..], "count": n, "team": true|false, "most": n},
    "holds": [agent ids]}}}.
    """
    session = Session.of(ctx)
    if file is not None:
        with fixed_by("deadlock", "check", "--help"):
            _check_file(session, file)
        return
    found = session.ask("deadlock.check")

    def draw(page: Page) -> None:
        for number, one in enumerate(found.found):
            if number:
                page.gap()
            page.line(page.look.text(one.kind, "bold"))
            _draw_finding(page, one)

    session.show(found if session.format != "table" else found.found, draw, found.stuck, "Nothing is stuck.")


@verb(app, "resolve")
def resolve(
    ctx: typer.Context,
    deadlock_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="Only this deadlock, or the one of this task.", show_default=False
        ),
    ] = None,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, change nothing.")
    ] = False,
) -> None:
    """Take the next step for every deadlock that is there now: park, lend, try again later, or fail.

    $ agentorch deadlock resolve --dry-run

    The engine does this by itself, unless deadlocks.resolve is off or a task says on_deadlock = "report".
    """
    from getpass import getuser

    session = Session.of(ctx)
    steps = session.ask(
        "deadlock.resolve", deadlock_id=Part("deadlock", deadlock_id), dry_run=is_dry_run, by=_name(getuser)
    )

    def draw(page: Page) -> None:
        for one in steps:
            _draw_step(page, one, is_dry_run)

    ids = [member for one in steps for member in one.members]
    session.show(steps, draw, ids, "There is nothing to resolve.")
    if is_dry_run and steps and session.format == "table":
        session.say("Nothing was changed.")


def _name(getuser: Any) -> str:
    """Who does it: a container may have no name for its user."""
    try:
        return str(getuser())
    except (KeyError, OSError):
        return "person"


def draw(page: Page, found: DeadlockView) -> None:
    """The page of a deadlock."""
    page.title("resolved" if found.resolved_at else "open", found.kind, found.deadlock_id)
    rows = _told(page.look, found)
    if found.resolution:
        by = f", by {found.resolved_by}" if found.resolved_by else ""
        rows.append(("resolution", page.look.text(found.resolution + by)))
    rows.append(("found", page.look.age(found.detected_at)))
    if found.resolved_at:
        rows.append(("resolved", page.look.age(found.resolved_at)))
    page.pairs(rows)


def _draw_finding(page: Page, one: DeadlockFinding) -> None:
    page.pairs(_told(page.look, one))


def _told(look: Look, one: DeadlockFinding) -> list[tuple[Text | str, Text]]:
    from agentorch_cli.cli.look import span
    from agentorch_cli.cli.names import Teller, listed

    told: Callable[[str], str] = Teller(one.names) if look.is_terminal else str
    rows: list[tuple[Text | str, Text]] = [("why", look.text(told(one.reason)))]
    rows += [("", look.text(told(edge["reason"]))) for edge in one.edges[:50]]
    if len(one.edges) > 50:
        rows.append(("", look.text(f"… and {len(one.edges) - 50:,} more")))
    rows.append(("waited", look.text(span(one.waited_s))))
    if one.victims:
        rows.append(
            ("victims", look.names(listed(one.victims, one.names) if look.is_terminal else one.victims))
        )
    return rows


def _draw_step(page: Page, one: DeadlockStep, is_dry_run: bool) -> None:
    look = page.look
    word = "would be" if is_dry_run else "done" if one.is_done else "has moved on"
    page.line(look.text(one.kind, "bold"), "  ", look.text(f"{word}: {one.step}"))
    page.pairs([("why", look.text(one.reason))])


def _check_file(session: Session, name: str) -> None:
    from pathlib import Path

    from agentorch_cli.core.deadlock import detect
    from agentorch_cli.core.system import parse_system
    from agentorch_cli.documents import Format, load_document
    from agentorch_cli.errors import InvalidFile

    document = load_document("-" if name == "-" else Path(name), Format.JSON)
    try:
        system = parse_system(document.value)
    except InvalidFile as error:
        error.where = f"{document.name}: {error.where}"
        raise
    report = detect(system)
    session.show(
        report.to_json() if session.format != "table" else list(report.stuck),
        lambda page: _draw_report(page, report),
        report.stuck,
        "Nothing is stuck: everything can still end.",
    )


def _draw_report(page: Page, report: Report) -> None:
    look = page.look
    for part in report.components:
        page.line(look.text(part.kind, "bold"))
        page.pairs([("", look.text(edge.reason)) for edge in part.edges])
        if part.victims:
            page.pairs([("victims", look.names(list(part.victims)))])
    if report.components:
        page.gap()
    page.pairs([(kind, look.text(report.explain(task))) for task, kind in report.kind.items()], indent=0)
