"""`agentorch init-db` and `agentorch doctor`: is everything there that is needed?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import SchemaMismatch, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentorch_cli.cli.tables import Page
    from agentorch_cli.config import Settings
    from agentorch_cli.doctor import Finding


def init_db(
    ctx: typer.Context,
    is_check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 5 if the schema is not up to date.")
    ] = False,
    is_verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line for each step that was applied.")
    ] = False,
) -> None:
    """Create the database's schema, or upgrade it. Doing it again changes nothing.

    $ agentorch init-db
    $ agentorch init-db --check --database-url postgresql://me@localhost/fleet

    Without --database-url the embedded PostgreSQL in the data directory is used.
    """
    session = Session.of(ctx)
    session.only_here("init-db", "works on a database")
    if is_check and not has_database(session.settings):
        raise SchemaMismatch("there is no database yet", fix="agentorch init-db")
    schema = session.ask("schema.apply", prepare=False, check=is_check)

    def draw(page: Page) -> None:
        for name in schema.applied if is_verbose else ():
            page.line(page.look.sign("completed"), " applied ", page.look.text(name))
        state = "is up to date" if schema.is_up_to_date else f"is not version {schema.wanted}"
        version = schema.current if schema.current is not None else "none"
        steps = f", after {len(schema.applied)} steps" if schema.applied else ""
        page.line(f"The schema {state}: version {version}{steps}.")

    session.show(schema, draw, schema.applied)
    if not schema.is_up_to_date:
        raise SchemaMismatch(
            f"the schema has version {schema.current or 'none'}, this program needs {schema.wanted}",
            fix="agentorch init-db",
        )


def has_database(settings: Settings) -> bool:
    """Whether there is anything to check: a check must not make the embedded database."""
    import asyncio

    from agentorch_cli.store.embedded import inspect

    return bool(settings.database.url) or asyncio.run(inspect(settings.data_dir)).initialised


def doctor(
    ctx: typer.Context,
    bundle: Annotated[
        str | None,
        typer.Option(
            "--bundle", metavar="FILE", help="Write what was found, settings and logs into a .tar.gz."
        ),
    ] = None,
) -> None:
    """Check this installation: every line that is wrong comes with its fix.

    $ agentorch doctor
    $ agentorch doctor --bundle report.tar.gz

    The bundle is for whoever helps: passwords, tokens and keys are taken out of it. It holds no
    task, no result and no name of an agent, but what logs say of them.
    """
    from agentorch_cli.doctor import examine

    session = Session.of(ctx)
    session.only_here("doctor", "looks at this machine")
    findings = session.run(examine(session.settings))

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        if page.look.is_terminal:
            _draw_findings(page, findings)
            return
        page.table(columns.CHECKS, findings)
        for finding in findings:
            if finding.fix and finding.ok is not True:
                page.line(f"{finding.name}: ", page.look.text(finding.fix))

    rows: list[dict[str, Any]] = [
        {"name": finding.name, "ok": finding.ok, "text": finding.text, "fix": finding.fix}
        for finding in findings
    ]
    if bundle is not None:
        from agentorch_cli.cli.bundle import write_bundle

        names = write_bundle(Path(bundle), rows, session.settings)
        session.say(f"Wrote {bundle}: {', '.join(names)}. Look into it before you send it.")
    wrong = [finding.name for finding in findings if finding.ok is False]
    session.show(rows, draw, wrong)
    if wrong:
        raise Unreachable(f"{len(wrong)} of {len(findings)} checks found something wrong: {', '.join(wrong)}")


def _draw_findings(page: Page, findings: Sequence[Finding]) -> None:
    """What was found, each with its sign in front and its fix below."""
    from rich.text import Text

    look = page.look
    states = {True: "completed", False: "failed", None: "planned"}
    width = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        name = Text(f"  {finding.name:<{width}}  ", "bold" if finding.ok is False else "")
        page.hanging(look.sign(states[finding.ok]) + name, look.text(finding.text))
        if finding.fix and finding.ok is not True:
            page.hanging(Text(" " * (width + 5)), Text("fix: ", "bold"), look.text(finding.fix))


init_db_app = single(init_db)
doctor_app = single(doctor)
