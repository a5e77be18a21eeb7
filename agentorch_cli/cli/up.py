"""`agentorch up` and `down`: a declared fleet, kept running here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import Partial, Unreachable, UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

ASK_SECONDS = 10.0
"""A supervisor answers at once, or there is something wrong with it."""

STOP_SECONDS = 60.0
"""Beyond the time that agents have to finish: to give back, and for the engine to stop."""


def up(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="[FILE]", help="The fleet; ./agents.toml if not said.", show_default=False),
    ] = Path("agents.toml"),
    is_detached: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background, and return once all is up.")
    ] = False,
    scale: Annotated[
        list[str] | None,
        typer.Option("--scale", metavar="NAME=N", help="So many of this agent; may be repeated."),
    ] = None,
    restart: Annotated[
        list[str] | None,
        typer.Option(
            "--restart", metavar="NAME", help="Start this agent anew, with its code of now; may be repeated."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", "-p", metavar="PORT", min=0, max=65535, help="Port of the engine that it starts."
        ),
    ] = None,
    is_status: Annotated[
        bool, typer.Option("--status", help="Only show what runs, and how it goes.")
    ] = False,
) -> None:
    """Run the agents of a file, and an engine if none runs; start again what ends.

    $ agentorch up agents.toml
    $ agentorch up -d
    $ agentorch up --scale greeter=3
    $ agentorch up --restart greeter
    $ agentorch up --status

    Doing it again applies the difference: what was changed in the file is started anew, what is
    gone from it is stopped, the rest goes on. Code is not looked at: --restart gives a function that
    was changed, once its agents have finished what they do. With --server the agents run here, for the engine
    there. Ctrl-C, or agentorch down, lets agents finish what they do.
    """
    from agentorch_cli.supervision.control import supervisor_pid

    session = Session.of(ctx)
    session.more_flags |= {"gateway.port": port}
    data_dir = session.data_dir_here
    if is_status:
        _show_status(session, data_dir)
        return
    from agentorch_cli.cli import upkeep

    order = upkeep.order_of(file, scale or [], restart or [])
    if supervisor_pid(data_dir) is not None:
        if port is not None:
            raise UsageError("--port is for an engine that is started, and this fleet runs already")
        reply = _ask(data_dir, {"do": "apply", **order.request()}, STOP_SECONDS + 3600)
        _show_difference(session, reply, has_python=order.has_python)
        return
    descriptor = None
    if is_detached:
        told = upkeep.detach(session)
        if isinstance(told, list):
            _show_rows(session, told)
            _refuse_broken(told)
            return
        descriptor = told
    with upkeep.telling(descriptor):
        number = session.run(upkeep.run(session, order), is_long=True)
    if number:
        raise typer.Exit(128 + number)


def down(
    ctx: typer.Context,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout", metavar="TIME", help="How long agents may finish; up.stop_timeout if not said."
        ),
    ] = None,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Let nothing finish; for a supervisor that does not answer.")
    ] = False,
) -> None:
    """Stop what agentorch up runs: agents finish what they do, then they end, then the engine.

    $ agentorch down
    $ agentorch down --timeout 5s

    Agents that are not done in time give back what they hold, and others do it. An engine that
    agentorch up has not started stays.
    """
    from agentorch_cli.core.durations import parse_duration
    from agentorch_cli.supervision.control import supervisor_pid

    session = Session.of(ctx)
    data_dir = session.data_dir_here
    try:
        seconds = None if timeout is None else parse_duration(timeout)
    except ValueError as error:
        raise UsageError(f'--timeout "{timeout}" {error}') from error
    pid = supervisor_pid(data_dir)
    if pid is None:
        session.show([], lambda page: None, [], f"Nothing runs in {data_dir}.")
        return
    if is_forced:
        ended = _kill(data_dir, pid)
    else:
        patience = session.settings.up.stop_timeout if seconds is None else seconds
        ended = _ask(data_dir, {"do": "stop", "timeout": seconds}, 2 * patience + STOP_SECONDS)["ended"]
        _await_end(data_dir, pid)

    def draw(page: Page) -> None:
        for one in ended:
            sign = page.look.sign("completed" if one["how"] == "stopped" else "cancelled")
            page.line(sign, " ", page.look.text(one["name"], "bold"), "  ", page.look.text(one["how"]))

    session.show(ended, draw, [one["name"] for one in ended])


up_app = single(up)
down_app = single(down)


def _ask(data_dir: Path, request: dict[str, Any], seconds: float = ASK_SECONDS) -> Any:
    from agentorch_cli.supervision.control import ask

    return ask(data_dir, request, seconds)


def _kill(data_dir: Path, pid: int) -> list[dict[str, str]]:
    """End the supervisor; the guardian ends what it ran."""
    import os
    import signal

    if pid:
        os.kill(pid, signal.SIGKILL)
    _await_end(data_dir, pid)
    return [{"name": "supervisor", "how": "killed, with all that it ran"}]


def _await_end(data_dir: Path, pid: int) -> None:
    """Until the supervisor itself is gone. Raises Unreachable."""
    import time

    from agentorch_cli.supervision.control import supervisor_pid

    deadline = time.monotonic() + ASK_SECONDS
    while supervisor_pid(data_dir) == pid:
        if time.monotonic() > deadline:
            raise Unreachable(f"the supervisor (pid {pid}) does not end", hint="agentorch down --force")
        time.sleep(0.02)


def _show_status(session: Session, data_dir: Path) -> None:
    from agentorch_cli.supervision.control import supervisor_pid

    if supervisor_pid(data_dir) is None:
        session.show([], lambda page: None, [], "No fleet runs here; agentorch up starts one.")
        return
    reply = _ask(data_dir, {"do": "status"})
    _show_rows(session, reply["processes"])
    session.say(f"From {reply['file']}, by the supervisor with pid {reply['pid']}.")


def _show_rows(session: Session, rows: list[dict[str, Any]]) -> None:
    def draw(page: Page) -> None:
        from datetime import datetime

        from agentorch_cli.cli import columns

        shown = [{**row, "since": datetime.fromisoformat(row["since"]), "note": note(row)} for row in rows]
        page.table(columns.PROCESSES, shown)

    session.show(rows, draw, [row["name"] for row in rows])


def note(row: dict[str, Any]) -> str:
    """Why it does not simply run."""
    if row["state"] not in ("waiting", "crashing", "failed", "ended"):
        return ""
    return f"{row['exit']}: {row['said']}" if row["said"] else str(row["exit"])


def _refuse_broken(rows: list[dict[str, Any]]) -> None:
    broken = [row["name"] for row in rows if row["state"] in ("waiting", "crashing", "failed")]
    if broken:
        names = ", ".join(broken[:5]) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
        raise Partial(
            f"{len(broken)} of {len(rows)} processes do not run: {names}",
            hint=f"agentorch logs {broken[0]}",
        )


def _show_difference(session: Session, reply: dict[str, Any], *, has_python: bool) -> None:
    changes = [
        *(("started", name) for name in reply["started"]),
        *(("started anew", name) for name in reply["changed"]),
        *((one["how"], one["name"]) for one in reply["stopped"]),
    ]

    def draw(page: Page) -> None:
        for what, name in changes:
            sign = page.look.sign("completed" if what.startswith("started") else "stopped")
            page.line(sign, " ", page.look.text(name, "bold"), "  ", page.look.text(what))

    session.show(reply, draw, [name for _, name in changes])
    rest = reply["unchanged"]
    if changes:
        who = f"{rest or 'Nothing'} {'stays as it is' if rest < 2 else 'stay as they are'}."
    else:
        who = f"Nothing has changed: {rest} {'process runs' if rest == 1 else 'processes run'}."
        if has_python:
            who += " Where code has: agentorch up --restart NAME"
    session.say(who)
