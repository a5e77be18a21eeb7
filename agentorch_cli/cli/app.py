"""The program: its table of commands, and the options of its own."""

from __future__ import annotations

from typing import Any

import typer
from typer.main import get_command

from agentorch_cli import __version__
from agentorch_cli.cli.help import Entry, Group

START, WORK, LOOK, SETUP, READ = "Start here", "Agents and tasks", "Look", "Set up", "Read"


class Root(Group):
    """`agentorch`, whose commands are imported when they are used."""

    entries = {  # noqa: RUF012 - the table of commands
        "demo": Entry(START, "demo", "app", "Run a small fleet on real work, from nothing to results"),
        "init": Entry(START, "project", "app", "Write a small project that runs as it is"),
        "up": Entry(START, "up", "up_app", "Run a declared fleet, and keep it running"),
        "down": Entry(START, "up", "down_app", "Stop what up runs"),
        "init-db": Entry(START, "setup", "init_db_app", "Create or upgrade the database"),
        "serve": Entry(START, "serve", "app", "Run the engine; agents connect to it"),
        "agent": Entry(WORK, "agent", "app", "Register agents, list them, run one"),
        "task": Entry(WORK, "task", "app", "Submit tasks, follow them, cancel, retry"),
        "budget": Entry(
            WORK, "budget", "app", "What tasks may use, in dollars and tokens, and what was spent"
        ),
        "schedule": Entry(WORK, "schedule", "app", "Submit tasks again and again, when their time comes"),
        "limit": Entry(WORK, "limit", "app", "How many attempts may start in a second, a minute, an hour"),
        "outcome": Entry(WORK, "outcome", "app", "Say whether a result was right: what makes votes honest"),
        "status": Entry(LOOK, "status", "app", "The fleet on one page, or live with --watch"),
        "ui": Entry(LOOK, "ui", "app", "Where the web page is: the fleet, live, in a browser"),
        "top": Entry(LOOK, "top", "app", "Move about in the live fleet: filter, sort, open (extra tui)"),
        "node": Entry(LOOK, "node", "app", "The serve processes: which leads, who is connected where"),
        "consensus": Entry(
            LOOK, "consensus", "app", "Votes: open, vote, look, and try rules on recorded ones"
        ),
        "deadlock": Entry(LOOK, "deadlock", "app", "What can never move, why, and what is done about it"),
        "logs": Entry(LOOK, "logbook", "app", "What the agents that up runs have written"),
        "event": Entry(LOOK, "records", "event_app", "Everything that happened, in order"),
        "db": Entry(SETUP, "database", "app", "The database: how it stands, backup, restore, its address"),
        "prune": Entry(SETUP, "prune", "app", "Delete history that is old"),
        "config": Entry(SETUP, "settings", "app", "Change settings, show where values come from"),
        "doctor": Entry(
            SETUP, "setup", "doctor_app", "Check this installation, with a fix for what is wrong"
        ),
        "profile": Entry(SETUP, "profile", "app", "Servers that you work against, by name"),
        "token": Entry(SETUP, "token", "app", "Who may come in from afar, and what for"),
        "chaos": Entry(
            SETUP, "chaos", "app", "Prove that nothing is lost: run a fleet and kill it at random"
        ),
        "help": Entry(READ, "topics", "app", "A topic in a page: task files, votes, deadlocks, exit codes"),
        "explain": Entry(READ, "explain", "app", "What a field of a file means, its type, range and default"),
        "schema": Entry(READ, "schema", "app", "JSON Schemas: of files for editors, of output for programs"),
        "completion": Entry(READ, "completion", "app", "The script that completes words in your shell"),
        "protocol": Entry(READ, "protocol", "app", "What agents and the engine say to each other"),
    }

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The version is told here: an option of Typer's would import pydantic to look at it."""
        if args[:1] == ["--version"]:
            typer.echo(f"agentorch {__version__}")
            ctx.exit()
        return super().parse_args(ctx, args)

    def own_options(self, ctx: Any) -> list[tuple[str, str]]:
        """What the page lists besides the common options."""
        return [("--version", "Print the version.")]


def _root() -> None:
    """$ agentorch demo
    $ agentorch serve
    $ agentorch task submit task.toml --wait

    Run a fleet of agents: tasks, votes and every step, kept in PostgreSQL.
    """


def build() -> Group:
    """The command tree, with nothing imported below its first level."""
    app = typer.Typer(cls=Root, add_completion=False, rich_markup_mode=None)
    app.callback()(_root)
    command = get_command(app)
    assert isinstance(command, Group)
    command.name = "agentorch"
    return command
