"""`agentorch schedule`: tasks that are submitted again and again."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli import lists
from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.views import ScheduleView

app = noun("""$ agentorch schedule add nightly --cron "0 3 * * *" --time-zone Europe/Berlin task.toml

Submit tasks again and again, when their time comes.""")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.", show_default=False)]
Names = Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of schedules.", show_default=False)]


@verb(app, "add")
def add(
    ctx: typer.Context,
    name: Name,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE…", help='Task files, directories of them, or "-" for stdin.', show_default=False
        ),
    ],
    cron: Annotated[
        str,
        typer.Option(
            "--cron", metavar="TIMES", help='"*/5 * * * *", @hourly, "every 30s".', show_default=False
        ),
    ],
    time_zone: Annotated[
        str, typer.Option("--time-zone", metavar="ZONE", help='IANA name, such as "Europe/Berlin".')
    ] = "UTC",
    missed: Annotated[
        str,
        typer.Option(
            "--missed", metavar="skip|once|all", help="What becomes of runs while no serve was there."
        ),
    ] = "once",
    overlap: Annotated[
        str,
        typer.Option(
            "--overlap", metavar="allow|skip", help="skip: no run while tasks of the last one are open."
        ),
    ] = "allow",
    should_replace: Annotated[
        bool, typer.Option("--replace", help="Change the schedule of that name, if there is one.")
    ] = False,
) -> None:
    """Submit the tasks of files whenever their time comes, for as long as a serve runs.

    $ agentorch schedule add nightly --cron "0 3 * * *" --time-zone Europe/Berlin task.toml
    $ agentorch schedule add pulse --cron "every 30s" --overlap skip task.toml

    Five fields: minute, hour, day of the month, month, day of the week; six: with the seconds in
    front. A run is one submission of all the tasks. Tasks of a schedule have names in place of ids,
    delay in place of run_at, and a deadline counts from the run.
    """
    from agentorch_cli.cli.choices import known_policy
    from agentorch_cli.cli.files import read_schedule

    session = Session.of(ctx)
    schedule = session.ask(
        "schedule.add",
        name=name,
        cron=cron,
        tasks=read_schedule(files, session.settings),
        time_zone=time_zone,
        missed=known_policy(missed, ("skip", "once", "all"), "--missed"),
        overlap=known_policy(overlap, ("allow", "skip"), "--overlap"),
        replace=should_replace,
    )
    _show(session, schedule)


@verb(app, "list")
def list_schedules(
    ctx: typer.Context,
    status: lists.Status = None,
    since: lists.Since = None,
    until: lists.Until = None,
    sort: lists.Sort = None,
    limit: lists.Limit = 100_000,
    cursor: lists.Cursor = None,
) -> None:
    """List the schedules: when each runs next, when it ran last, and why one cannot.

    $ agentorch schedule list
    $ agentorch schedule list --status failing,paused --sort next

    They are active, paused, failing or ended. --since and --until are about when one was added. It sorts
    by name, created, next, last or status.
    """
    session = Session.of(ctx)
    given = {
        "status": lists.states(status, ("active", "paused", "failing", "ended")),
        **lists.times(since, until),
        **lists.page_of(limit, sort, cursor),
    }
    schedules = session.ask("schedule.list", **{key: one for key, one in given.items() if one is not None})

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.SCHEDULES, schedules)

    empty = lists.nothing(given, "schedules", "agentorch schedule add makes one")
    session.show(schedules, draw, [one.name for one in schedules], empty)
    lists.tell_more(session, schedules, limit)


@verb(app, "show")
def show(ctx: typer.Context, name: Name) -> None:
    """Show a schedule: its tasks, its last run, and its next five times.

    $ agentorch schedule show nightly
    """
    session = Session.of(ctx)
    _show(session, session.ask("schedule.get", name=name))


@verb(app, "pause")
def pause(ctx: typer.Context, names: Names) -> None:
    """Let schedules run no more until they are resumed.

    $ agentorch schedule pause nightly
    """
    _change(ctx, "schedule.pause", names, "paused")


@verb(app, "resume")
def resume(ctx: typer.Context, names: Names) -> None:
    """Let paused schedules run again, from their next time on.

    $ agentorch schedule resume nightly

    Times that passed during a pause were not missed: they are not made up for.
    """
    _change(ctx, "schedule.resume", names, "resumed")


@verb(app, "remove")
def remove(ctx: typer.Context, names: Names) -> None:
    """Remove schedules; the tasks that they submitted stay.

    $ agentorch schedule remove nightly
    """
    _change(ctx, "schedule.remove", names, "removed")


@verb(app, "run")
def run(ctx: typer.Context, name: Name) -> None:
    """Run a schedule once, now, besides its times; also one that is paused.

    $ agentorch schedule run nightly
    """
    from agentorch_cli.cli.task import show_submitted

    session = Session.of(ctx)
    show_submitted(session, session.ask("schedule.run", name=name))


def _change(ctx: typer.Context, method: str, names: list[str], done: str) -> None:
    from agentorch_cli.cli.task import show_change

    session = Session.of(ctx)
    show_change(session, session.ask(method, names=list(dict.fromkeys(names))), done)


def _show(session: Session, schedule: ScheduleView) -> None:
    session.show(schedule, lambda page: _draw(page, schedule), [schedule.name])


def _draw(page: Page, schedule: ScheduleView) -> None:
    look = page.look
    page.title(schedule.state, schedule.cron, schedule.name)
    if schedule.last_at is not None:
        last = look.age(schedule.last_at)
        last.append(f", as submission {schedule.last_submission_id}" if schedule.last_submission_id else "")
    else:
        last = look.nothing()
    counted = f"{schedule.runs:,}" + (f", and {schedule.skipped:,} left out" if schedule.skipped else "")
    page.pairs(
        [
            ("time zone", look.text(schedule.time_zone)),
            ("missed", look.text(schedule.missed)),
            ("overlap", look.text(schedule.overlap)),
            ("last run", last),
            ("runs", look.text(counted)),
            ("tasks", look.names([_called(task) for task in schedule.tasks])),
        ]
    )
    if schedule.error:
        page.heading("WHY IT CANNOT RUN")
        page.line(look.text(schedule.error, "red"))
        page.pairs([("tried again", look.age(schedule.retry_at))])
    if schedule.upcoming:
        page.heading("NEXT TIMES" if schedule.state != "paused" else "NEXT TIMES, IF IT WERE NOT PAUSED")
        zone = _zone(schedule.time_zone)
        page.pairs([(_local(at, zone), look.age(at)) for at in schedule.upcoming])


def _called(task: object) -> str:
    facts = task if isinstance(task, dict) else {}
    return str(facts.get("name") or facts.get("type") or "task")


def _local(at: datetime, zone: tzinfo) -> str:
    return f"{at.astimezone(zone):%a %Y-%m-%d %H:%M:%S %Z}"


def _zone(name: str) -> tzinfo:
    """The schedule's zone; UTC where this machine does not know it."""
    from agentorch_cli.store.schedules import zone_of

    try:
        return zone_of(name)
    except ValueError:
        return UTC
