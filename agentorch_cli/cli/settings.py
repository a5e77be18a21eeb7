"""`agentorch config`: see which values are in force and why, and change the files that say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import Conflict, InvalidConfig, NotAllowed, UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

app = noun("""$ agentorch config show

Write a configuration, change it, show where values come from.""")

Key = Annotated[str, typer.Argument(metavar="KEY", help="A setting: gateway.port", show_default=False)]
InUser = Annotated[bool, typer.Option("--user", help="In your own file, for all you do.")]
InProject = Annotated[bool, typer.Option("--project", help="In ./agentorch.toml, or what --config names.")]

USER_ONLY = ("server", "ca")
"""What may not stand in a file that is merely found: it says where tokens go."""


@verb(app, "init")
def init(
    ctx: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="File to write; ./agentorch.toml if not said.", show_default=False
        ),
    ] = None,
    is_user: Annotated[bool, typer.Option("--user", help="Write the user's own file instead.")] = False,
) -> None:
    """Write a configuration with every setting, its default and its meaning as comments.

    $ agentorch config init

    A file that is there already is left alone (exit code 8). A whole project, with agents and a
    task, is what agentorch init writes.
    """
    from agentorch_cli.config import PROJECT_FILE, example, user_config_path

    session = Session.of(ctx)
    target = path or (user_config_path() if is_user else Path(PROJECT_FILE))
    try:
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True)
    except OSError as error:
        raise NotAllowed(f"{target.parent} is no folder, and cannot be made one: {error.strerror}") from error
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(example())
    except FileExistsError as error:
        raise Conflict(
            f"{target} is there already",
            hint="Name another file, or move it away first.",
            fix="agentorch config show",
        ) from error
    except OSError as error:
        raise NotAllowed(f"{target} cannot be written: {error.strerror}") from error
    session.show({"path": str(target)}, lambda page: page.line(page.look.text(target)), [target])
    session.say("Everything in it is commented out: remove the # in front of what you change.")


@verb(app, "show")
def show(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]…", help='Settings, or sections: "gateway".', show_default=False),
    ] = None,
    is_changed: Annotated[bool, typer.Option("--changed", help="Only what is not the default.")] = False,
    has_layers: Annotated[
        bool, typer.Option("--origin", help="Also what each value goes before: every layer that says it.")
    ] = False,
) -> None:
    """Show each setting, its value, and where the value came from. Passwords are hidden.

    $ agentorch config show
    $ agentorch config show gateway --json
    $ agentorch config show --origin gateway.port

    A value comes from a flag, a variable, a line of a file, or is the default; flags go before
    variables, those before the project's file, that before your own.
    """
    from agentorch_cli.cli.choices import known_settings

    session = Session.of(ctx)
    wanted = known_settings(names)
    settings = session.settings
    rows = []
    for name, value, origin in settings.shown():
        if name not in wanted or (is_changed and origin == "default"):
            continue
        layers = [{"origin": by, "value": said} for by, said in settings.origins(name)]
        rows.append(
            {"name": name, "value": value, "origin": origin} | ({"layers": layers} if has_layers else {})
        )

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.SETTINGS, _with_layers(rows) if has_layers else rows)

    session.show(rows, draw, [row["name"] for row in rows], "Every setting has its default.")
    if (server := session.server_shown) is not None:
        session.say(f"Commands work against {server}, by {session.settings.origin('server')}.")


@verb(app, "get")
def get(ctx: typer.Context, key: Key) -> None:
    """Print the value of one setting. A password in it is hidden.

    $ agentorch config get gateway.port
    $ agentorch config get engine.task_timeout --json
    """
    session = Session.of(ctx)
    _known(key)
    value, origin = next((value, origin) for name, value, origin in session.settings.shown() if name == key)

    def draw(page: Page) -> None:
        page.line(page.look.text(_plain(value)))

    session.show({"name": key, "value": value, "origin": origin}, draw, [_plain(value)])


@verb(app, "set")
def set_value(
    ctx: typer.Context,
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="What it shall be.", show_default=False)],
    is_user: InUser = False,
    is_project: InProject = False,
) -> None:
    """Write a setting into a configuration file; the rest of the file stays as it is.

    $ agentorch config set gateway.port 3002
    $ agentorch config set engine.task_timeout 10m --user

    Without --user or --project it goes into ./agentorch.toml where there is one, else into your
    own file. The value is checked first; a relative path counts from here.
    """
    from agentorch_cli.cli import tomledit
    from agentorch_cli.config import value_for_file

    session = Session.of(ctx)
    _known(key)
    path = _file(session, key, is_user, is_project)
    written = _anchored(key, value_for_file(key, value), path)
    is_new = _edit(path, lambda text: tomledit.put(text, tuple(key.split(".")), written, str(path)), is_user)
    _show_change(session, key, path, written, is_new)


@verb(app, "unset")
def unset(ctx: typer.Context, key: Key, is_user: InUser = False, is_project: InProject = False) -> None:
    """Take a setting out of a configuration file; what the other layers say holds again.

    $ agentorch config unset gateway.port
    """
    from agentorch_cli.cli import tomledit

    session = Session.of(ctx)
    _known(key)
    path = _file(session, key, is_user, is_project)
    is_new = path.exists() and _edit(
        path, lambda text: tomledit.drop(text, tuple(key.split(".")), str(path)), is_user
    )
    _show_change(session, key, path, None, is_new)


def _known(key: str) -> None:
    from agentorch_cli.config import setting_names
    from agentorch_cli.settings import find_setting

    if key in {name.partition(".")[0] for name in setting_names() if "." in name}:
        raise UsageError(f'"{key}" is a section, not a setting', hint=f"agentorch config show {key}")
    if key.partition(".")[0] == "profiles":
        raise UsageError("profiles have commands of their own", hint="agentorch profile --help")
    try:
        find_setting(key)
    except InvalidConfig as error:
        raise UsageError(error.message, hint="agentorch config show lists them all") from error


def _file(session: Session, key: str, is_user: bool, is_project: bool) -> Path:
    """The file that is meant. Raises UsageError where the setting may not stand in it."""
    import os

    from agentorch_cli.config import PROJECT_FILE, named_file, user_config_path

    if is_user and is_project:
        raise UsageError("--user and --project are two files: give one of them")
    named = named_file(Path(session.config) if session.config is not None else None, os.environ)
    if is_user and session.config is not None:
        raise UsageError("--user and --config are two files: give one of them")
    project = Path.cwd() / (named or PROJECT_FILE)
    if is_user or (named is None and not is_project and (key in USER_ONLY or not project.is_file())):
        return user_config_path()
    if key in USER_ONLY and named is None:
        raise UsageError(f"{key} may stand only in your own file", hint="give --user in place of --project")
    return project


def _anchored(key: str, value: object, path: Path) -> object:
    """A relative path as the file has to say it: there it counts from the file's folder."""
    from agentorch_cli.settings import PATHS

    if key not in PATHS or not value or str(value).startswith("~") or path.parent == Path.cwd():
        return value
    return str(Path.cwd() / str(value))


def _edit(path: Path, edit: Callable[[str], str], is_user: bool) -> bool:
    from agentorch_cli.cli import settingsfile
    from agentorch_cli.config import user_config_path

    return settingsfile.change(path, edit, is_private=is_user or path == user_config_path())


def _show_change(session: Session, key: str, path: Path, written: object, is_new: bool) -> None:
    """What the file says now, and what holds: a layer above may say otherwise."""
    from agentorch_cli.settings import is_secret, redact_url

    shown = redact_url(str(written)) if is_secret(key) and written else written
    document = {"name": key, "value": shown, "path": str(path), "changed": is_new}

    def draw(page: Page) -> None:
        said = _plain(shown) if written is not None else "not set"
        page.line(page.look.text(key, "bold"), "  ", page.look.text(said), "  ", page.look.text(path, "dim"))

    session.show(document, draw, [key])
    if not is_new:
        session.say(f"{path} {'did not say anything of it' if written is None else 'said so already'}.")
    try:
        origin, value = session.settings.origins(key)[0]
    except InvalidConfig as error:
        session.say(f"The configuration has a mistake elsewhere: {error}")
        return
    if not origin.startswith(f"file {path}:") and (written is not None or origin != "default"):
        session.say(f"In force is {_plain(value)}, from {origin}.")


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


def _with_layers(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Below each setting, the layers that it goes before."""
    found = []
    for row in rows:
        layers = row["layers"]
        assert isinstance(layers, list)
        found.append(row)
        found += [{"name": row["name"], **layer, "is_beaten": True} for layer in layers[1:]]
    return found
