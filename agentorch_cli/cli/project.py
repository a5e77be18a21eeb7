"""`agentorch init`: a small project that runs as it is, and says in comments what may be changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import Conflict, NotAllowed

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page

DATA_DIR: Final = ".agentorch"

AGENTS: Final = """\
# The fleet of this project. `agentorch up agents.toml` runs it, and starts again what ends;
# after a change, the same command applies the difference. Every key: agentorch explain agent

[[agents]]
id = "greeter"                # its processes are greeter-1, greeter-2 and so on
capabilities = ["greet"]      # tasks ask for these
python = "greeter:greet"      # the function greet of agents/greeter.py
cwd = "agents"                # a folder, seen from this file
replicas = 1                  # so many processes; agentorch up --scale greeter=5 is quicker to say
slots = 1                     # tasks at once, of each process
# env = ["MY_API_KEY"]        # variables that it may see besides PATH, HOME and the like
# restart = "on-failure"      # or "never"; "always" if not said

# Any command can be an agent: it gets a task as JSON on stdin and prints the result as JSON.
#
# [[agents]]
# id = "counter"
# capabilities = ["count"]
# exec = "python3 count.py"
"""

AGENT: Final = '''\
"""An agent of this project. agents.toml names the function, `agentorch up` calls it for each task."""

from agentorch_cli import Work


def greet(work: Work) -> dict[str, str]:
    name = work.data["name"]
    print(f"greeting {name}")  # agentorch logs greeter shows what is printed
    return {"greeting": f"Hello, {name}!"}  # any JSON; an exception is a failed attempt
'''

TASK: Final = """\
# A task: what is to be done, who may do it, and on what.
#   agentorch task submit tasks/hello.toml --wait

[task]
name = "hello"
type = "greet"
required_capabilities = ["greet"]
timeout = "1m"                 # one attempt may take this long
retries = 2                    # further attempts, by another agent where there is one
# priority = 9                 # 0 to 10; higher ones go first
# depends_on = ["another"]     # its result arrives as work.inputs["another"]

[task.data]
name = "world"
"""

IGNORED: Final = f"""\
# the database and the logs of agentorch
{DATA_DIR}/
__pycache__/
"""


def init(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where; here if not said.", show_default=False)
    ] = Path(),
    is_forced: Annotated[
        bool, typer.Option("--force", help="Write files anew that are there already.")
    ] = False,
) -> None:
    """Write a small project: settings, a fleet, an agent and a task. It runs as it is.

    $ agentorch init
    $ agentorch init my-fleet

    Then agentorch up -d runs the fleet, and agentorch task submit tasks/hello.toml --wait gives
    it something to do. Files that are there already are left alone, all of them (exit code 8).
    A database by itself is what agentorch init-db makes.
    """
    session = Session.of(ctx)
    files = {folder / name: text for name, text in _files().items()}
    there = [path for path in files if path.exists() or path.is_symlink()]
    if there and not is_forced:
        raise Conflict(
            f"{there[0]} is there already" + (f", and {len(there) - 1} more" if len(there) > 1 else ""),
            hint=f"agentorch init DIR writes elsewhere; --force writes over {', '.join(map(str, there))}",
        )
    written = [path for path, text in files.items() if _write(path, text)]
    ignore = folder / ".gitignore"
    if not ignore.exists():
        _write(ignore, IGNORED)
        written.append(ignore)
    cd = "" if folder == Path() else f"cd {folder}"

    def draw(page: Page) -> None:
        for path in written:
            page.line(page.look.sign("completed"), " ", page.look.text(path))

    session.show([{"path": str(path)} for path in written], draw, written)
    if session.format == "table":
        for line in ("Next:", cd, "agentorch up -d", "agentorch task submit tasks/hello.toml --wait"):
            if line:
                session.say(line if line.endswith(":") else f"  {line}")


app = single(init)


def _files() -> dict[str, str]:
    return {
        "agentorch.toml": _settings(),
        "agents.toml": AGENTS,
        "agents/greeter.py": AGENT,
        "tasks/hello.toml": TASK,
    }


def _settings() -> str:
    """Every setting as a comment, but for the database: a project has one of its own."""
    from agentorch_cli.cli import tomledit
    from agentorch_cli.config import example

    return tomledit.put(example(), ("data_dir",), DATA_DIR, "agentorch.toml")


def _write(path: Path, text: str) -> bool:
    from agentorch_cli.cli import settingsfile

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        settingsfile.change(path, lambda _: text)
    except OSError as error:
        raise NotAllowed(f"{path} cannot be written: {error.strerror}") from error
    return True
