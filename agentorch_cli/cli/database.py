"""`agentorch db`: the database itself: how it stands, its backups, its address, its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli.consent import Yes, ask_first
from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session
from agentorch_cli.cli.setup import has_database, init_db
from agentorch_cli.errors import NotFound, SchemaMismatch, UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.views import BackupView, DatabaseView, RestoreView

app = noun("""$ agentorch db status
$ agentorch db backup fleet.backup

The database: how it stands, backup and restore, its address, and its end.""")

HERE = "works on the database itself, where its files or its address are"


def _session(ctx: typer.Context, name: str) -> Session:
    session = Session.of(ctx)
    session.only_here(f"db {name}", HERE)
    return session


@verb(app, "status")
def status(ctx: typer.Context) -> None:
    """Show how the database stands: size, tables, dead rows, connections, log, last backup.

    $ agentorch db status
    """
    session = _session(ctx, "status")
    if not has_database(session.settings):
        raise SchemaMismatch("there is no database yet", hint="agentorch init-db")
    view = session.ask("db.status", prepare=False)

    def draw(page: Page) -> None:
        _draw_status(page, view, _place(session))

    session.show(view, draw, [view.name])


def _place(session: Session) -> str:
    if session.settings.database.url:
        from agentorch_cli.settings import redact_url

        return redact_url(session.settings.database.url)
    return f"embedded, in {Path(session.settings.data_dir).absolute()}"


def _draw_status(page: Page, view: DatabaseView, place: str) -> None:
    from rich.text import Text

    from agentorch_cli.cli.look import span
    from agentorch_cli.cli.tables import Column

    look = page.look
    schema = f"version {view.database_version}" if view.database_version is not None else "none"
    if view.database_version != view.wanted_version:
        schema += f", this program wants {view.wanted_version}"
    done = {one.what: one for one in view.maintenance}

    def last(what: str) -> Text:
        one = done.get(what)
        if one is None:
            return look.text("never", "yellow" if what == "backup" else "")
        file = one.data.get("file")
        return Text.assemble(look.age(one.at), *((" to ", look.text(file)) if file else ()))

    oldest = view.oldest_transaction_seconds
    page.pairs(
        [
            ("database", look.text(f"{view.name}, {place}")),
            (
                "server",
                Text.assemble(f"PostgreSQL {view.server_version}, started ", look.age(view.started_at)),
            ),
            ("schema", look.text(schema)),
            ("size", look.text(amount(view.size_bytes))),
            (
                "log (WAL)",
                look.text(amount(view.wal_bytes)) if view.wal_bytes is not None else look.nothing(),
            ),
            ("dead rows", look.text(f"{view.dead_share:.1%}")),
            (
                "connections",
                look.text(
                    f"{view.connections} of {view.max_connections}: "
                    + ", ".join(f"{name} {number}" for name, number in view.applications.items())
                ),
            ),
            ("oldest transaction", look.text(span(oldest)) if oldest is not None else look.nothing()),
            ("backup", last("backup")),
            ("prune", last("prune")),
        ],
        indent=0,
    )
    page.gap()
    page.table(
        [
            Column("TABLE", lambda one, look: look.text(one.name)),
            Column("ROWS", lambda one, look: look.text(f"{one.rows:,}"), weight=5, is_right=True),
            Column("SIZE", lambda one, look: look.text(amount(one.size_bytes)), is_right=True),
            Column("INDEXES", lambda one, look: look.text(amount(one.index_bytes)), weight=2, is_right=True),
            Column("DEAD", lambda one, look: look.text(f"{one.dead_rows:,}"), weight=4, is_right=True),
            Column("VACUUMED", lambda one, look: look.age(one.vacuumed_at), weight=3),
        ],
        [one for one in view.tables if one.rows or one.dead_rows] if look.is_terminal else view.tables,
    )
    for warning in view.warnings:
        page.line(look.text("! ", "yellow"), look.text(warning))


def amount(size: float) -> str:
    """Bytes for people: `48 MB`, in steps of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


@verb(app, "upgrade")
def upgrade(
    ctx: typer.Context,
    is_check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 5 if the schema is not up to date.")
    ] = False,
) -> None:
    """Create the database's schema, or upgrade it; the same as init-db.

    $ agentorch db upgrade
    $ agentorch db upgrade --check
    """
    init_db(ctx, is_check)


@verb(app, "backup")
def backup(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write it.", show_default=False)],
    is_forced: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
) -> None:
    """Write everything into one compressed file, as it stands at one moment, while serve runs.

    $ agentorch db backup fleet.backup

    The file is readable for you only. It holds the rows of every table, with a checksum each, and can
    be restored into the embedded PostgreSQL or any other of version 14 or newer.
    """
    session = _session(ctx, "backup")
    if not has_database(session.settings):
        raise SchemaMismatch("there is no database yet", hint="agentorch init-db")
    if Path(file).is_dir():
        raise UsageError(f"{file} is a folder", hint=f"agentorch db backup {Path(file) / 'fleet.backup'}")
    view = session.ask("db.backup", prepare=False, file=file, force=is_forced)
    session.show(view, lambda page: _draw_backup(page, view, "Wrote"), [view.file])


@verb(app, "restore")
def restore(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A backup.", show_default=False)],
    is_forced: Annotated[
        bool, typer.Option("--force", help="Also where something is there; it is gone then.")
    ] = False,
    is_agreed: Yes = False,
) -> None:
    """Restore a backup into an empty data directory or database: all of it, or nothing.

    $ agentorch db restore fleet.backup --data-dir ./restored
    $ agentorch db restore fleet.backup --database-url postgresql://me@localhost/fleet

    A backup of an older schema is upgraded. Nobody may serve the database meanwhile.
    """
    session = _session(ctx, "restore")
    if not Path(file).is_file():
        raise NotFound(f"there is no file {file}")
    if is_forced and has_database(session.settings):
        ask_first(
            session, f"Everything in {_place(session)} will be replaced.", yes=is_agreed, word="replace"
        )
    view = session.ask("db.restore", prepare=False, file=file, force=is_forced)
    session.show(view, lambda page: _draw_backup(page, view, "Restored"), [view.file])


def _draw_backup(page: Page, view: BackupView | RestoreView, done: str) -> None:
    look = page.look
    tasks = view.tables.get("task_distributions", 0)
    page.line(
        look.sign("completed"),
        look.text(
            f" {done} {view.file}: {view.rows:,} rows, {tasks:,} tasks, {amount(view.size_bytes)},"
            f" schema {view.database_version}, taken "
        ),
        look.age(view.taken_at),
    )
    for name in getattr(view, "applied", ()):
        page.line(look.sign("completed"), " applied ", look.text(name))


@verb(app, "url")
def url(
    ctx: typer.Context,
    is_shown: Annotated[bool, typer.Option("--show", help="With the password.")] = False,
) -> None:
    """Print the database's address, for psql; a password only with --show.

    $ agentorch db url

    To look with psql: psql "$(agentorch db url --show)". The embedded PostgreSQL answers while something
    uses it, for instance serve; where nothing does, its address is printed all the same, and stderr says so.
    """
    from agentorch_cli.cli.session import write
    from agentorch_cli.settings import redact_url

    session = _session(ctx, "url")
    address = session.settings.database.url
    if address:
        shown, is_running = address if is_shown else redact_url(address), None
        if shown != address:
            session.say("The password is hidden; --show prints it.")
    else:
        shown, is_running = _embedded_url(session)
        if not is_running:
            session.say("The embedded PostgreSQL does not run now: agentorch serve, for instance, starts it.")
    if session.format == "table":
        write(shown)
    else:
        document = {"url": shown, "is_embedded": not address, "is_running": is_running}
        session.print_document(document)


def _embedded_url(session: Session) -> tuple[str, bool]:
    """The address, and whether it answers."""
    import asyncio

    from agentorch_cli.store.embedded import inspect

    seen = asyncio.run(inspect(session.settings.data_dir))
    if not seen.initialised:
        raise SchemaMismatch("there is no database yet", hint="agentorch init-db")
    return seen.dsn, seen.running


@verb(app, "stop")
def stop(ctx: typer.Context) -> None:
    """Stop the embedded PostgreSQL if nobody uses it; else say who does.

    $ agentorch db stop

    The last process that leaves stops it by itself: this is for one that stayed, after a kill -9.
    """
    session = _session(ctx, "stop")
    if session.settings.database.url:
        raise UsageError(
            "db stop stops the embedded PostgreSQL, and database.url names another server",
            hint="stop that one the way it was started",
        )
    was_running = session.run(_stop(session))
    sentence = (
        "The embedded PostgreSQL is stopped." if was_running else "The embedded PostgreSQL does not run."
    )
    session.show({"was_running": was_running}, lambda page: page.line(sentence))


async def _stop(session: Session) -> bool:
    from agentorch_cli.errors import Conflict
    from agentorch_cli.store.embedded import inspect, stop_server

    try:
        return await stop_server(session.settings.data_dir, tell=session.say)
    except Conflict as error:
        seen = await inspect(session.settings.data_dir)
        users: list[dict[str, Any]] = [
            {"pid": pid, "command": _command_of(pid)} for pid in seen.holders or ()
        ]
        if not users:
            raise
        told = "; ".join(f"{one['command']} (pid {one['pid']})" for one in users)
        raise Conflict(f"the embedded PostgreSQL is in use: {told}", hint=error.hint, users=users) from error


def _command_of(pid: int) -> str:
    """What a process was started as, in short; its number tells the rest."""
    from agentorch_cli.cli.app import Root

    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "a process"
    for place, word in enumerate(words):
        name = Path(word).name
        if name in ("agentorch", "agentorch_cli", "__main__.py"):
            command = next((one for one in words[place + 1 :] if one in Root.entries), None)
            return f"agentorch {command}" if command is not None else "agentorch"
    return " ".join(Path(word).name for word in words[:2] if word) or "a process"
