"""Help pages, and the options that every command takes.

A page begins with an example that runs, because that is what most people come for. The
pages are written without Rich: importing it takes longer than all the rest of `--help`.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Annotated, Any, NamedTuple, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


HELP_OPTIONS = ("-h", "--help")


class Entry(NamedTuple):
    """A command that is imported when it is asked for."""

    section: str
    module: str
    attribute: str
    summary: str


class Command(TyperCommand):
    """A command with a page that opens with its example, and with the common options."""

    def __init__(self, name: str | None, *, params: list[Any] | None = None, **rest: Any) -> None:
        rest["context_settings"] = {"help_option_names": [*HELP_OPTIONS]}
        super().__init__(name, params=[*(params or []), *common_options()], **rest)

    pictures: tuple[str, ...] = ()
    """Forms of output that only this command gives."""

    def invoke(self, ctx: Any) -> Any:
        """Run it, unless it was asked for a picture that it cannot draw; of what is not understood,
        its own page is what to read."""
        from agentorch_cli.cli.session import FORMATS, check_form

        try:
            if ctx.obj is not None and ctx.obj.output is not None:
                check_form(ctx.obj.output, (*FORMATS, *self.pictures))
            return super().invoke(ctx)
        except UsageError as error:
            if type(error) is UsageError and not error.knows_fix:
                error.fix = f"{ctx.command_path} --help"
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line: arguments as their own metavars say them."""
        return ["[OPTIONS]", *(str(param.metavar) for param in _arguments(self))]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page of one command."""
        _write_opening(self, ctx, formatter)
        arguments = [(str(param.metavar), param.help or "") for param in _arguments(self)]
        _write_list(formatter, "Arguments", arguments)
        drawn = [(f"-o {'|'.join(self.pictures)}", "Print a picture.")] if self.pictures else []
        _write_list(formatter, "Options", [*_option_lines(self, ctx), *drawn])
        _write_common(ctx, formatter)


class Drawing(Command):
    """A command whose answer can be a picture."""

    pictures = ("svg", "html", "mermaid", "dot")


class Group(TyperGroup):
    """A noun with its verbs, or the program with its nouns."""

    entries: dict[str, Entry] = {}  # noqa: RUF012 - a class attribute that subclasses set whole

    def __init__(self, **rest: Any) -> None:
        super().__init__(**{**rest, "add_help_option": False})

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the page; without those that are only still taken."""
        return [
            *self.entries,
            *(name for name in super().list_commands(ctx) if not self.commands[name].hidden),
        ]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; its module is imported now."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"agentorch_cli.cli.{entry.module}")
        command = get_command(getattr(module, entry.attribute))
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As Typer does, but names of commands that are not imported yet are suggested too."""
        name = args[0]
        is_asked = not name.startswith("-") and not ctx.resilient_parsing
        if is_asked and self.get_command(ctx, name) is None:
            hint = did_you_mean(name, self.list_commands(ctx))
            raise UsageError(
                f'there is no command "{ctx.command_path} {name}"{hint}', fix=f"{ctx.command_path} --help"
            )
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without a verb the page is shown: as an answer at the top, as an error below.

        --help and the common options in front of the verb are taken here and not by Typer,
        which would import pydantic to look at them, even where only a page is wanted.
        """
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        while args and (taken := _take_common(ctx, args)):
            args = args[taken:]
        if not args or args[0] in HELP_OPTIONS:
            is_asked_for = bool(args) or ctx.parent is None
            typer.echo(ctx.get_help(), err=not is_asked_for)
            ctx.exit(0 if is_asked_for else 2)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page of the group: its commands by section."""
        _write_opening(self, ctx, formatter)
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            entry = self.entries.get(name)
            section, summary = (
                (entry.section, entry.summary)
                if entry
                else ("Commands", summary_of(self.get_command(ctx, name)))
            )
            sections.setdefault(section, []).append((name, summary))
        width = max(len(name) for rows in sections.values() for name, _ in rows)
        for title, rows in sections.items():
            _write_list(formatter, title, [(name.ljust(width), text) for name, text in rows])
        _write_list(formatter, "Options", self.own_options(ctx))
        _write_common(ctx, formatter)

    def own_options(self, ctx: Any) -> list[tuple[str, str]]:
        """What the page lists besides the common options."""
        return _option_lines(self, ctx)


def noun(summary: str) -> typer.Typer:
    """A Typer application for a noun with verbs."""
    app = typer.Typer(cls=Group, help=summary, add_completion=False, rich_markup_mode=None)
    app.callback()(_nothing)
    return app


def _nothing() -> None: ...


def verb(
    app: typer.Typer, name: str, kind: type[Command] = Command, *, is_former: bool = False
) -> Callable[[F], F]:
    """Register a function as the verb of a noun; a former name is taken, and listed nowhere."""
    return app.command(name, cls=kind, hidden=is_former)


def single(function: Callable[..., Any]) -> typer.Typer:
    """A Typer application of one command, for a command without verbs."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(cls=Command)(function)
    return app


@cache
def common_options() -> tuple[Any, ...]:
    """The options that every command takes, before and after its name."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(_common)
    return tuple(get_command(app).params)


def _keep(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """A common option is remembered by the session; what stands further right wins."""
    if value not in (None, False, [], ()) and ctx.obj is not None:
        ctx.obj.take(str(param.name), value)
    return value


def _take_common(ctx: Any, args: list[str]) -> int:
    """Give the common option that the line begins with to the session; how many words it took."""
    name, sign, value = args[0].partition("=")
    param = next((param for param in common_options() if name in param.opts), None)
    if param is None or ctx.obj is None:
        return 0
    if param.is_flag:
        ctx.obj.take(str(param.name), True)
        return 1
    if not sign and len(args) < 2:
        raise UsageError(f"{name} wants a value: {name} {param.metavar}", fix=f"{ctx.command_path} --help")
    ctx.obj.take(str(param.name), value if sign else args[1])
    return 1 if sign else 2


def _option(*names: str, **rest: Any) -> Any:
    return typer.Option(*names, callback=_keep, expose_value=False, show_default=False, **rest)


def _common(
    as_json: Annotated[bool, _option("--json", help="Print JSON.")] = False,
    output: Annotated[
        str | None, _option("-o", "--output", metavar="FORM", help="table, json, jsonl, csv or none.")
    ] = None,
    is_quiet: Annotated[bool, _option("-q", "--quiet", help="Print ids only.")] = False,
    data_dir: Annotated[
        str | None, _option("--data-dir", metavar="DIR", help="Where everything is kept.")
    ] = None,
    config: Annotated[str | None, _option("--config", metavar="FILE", help="Configuration to read.")] = None,
    database_url: Annotated[
        str | None,
        _option(
            "--database-url", metavar="URL", help="A PostgreSQL of your own, in place of the embedded one."
        ),
    ] = None,
    server: Annotated[
        str | None,
        _option("--server", metavar="URL", help='A server (wss://HOST:PORT), a profile, or "local".'),
    ] = None,
    pairs: Annotated[
        list[str] | None,
        _option("--set", metavar="KEY=VALUE", help="Any setting, for this once; may be repeated."),
    ] = None,
    ca: Annotated[
        str | None, _option("--ca", metavar="FILE", help="Who signed the server's certificate (PEM).")
    ] = None,
) -> None: ...


def _split(help_text: str | None) -> tuple[list[str], str]:
    """A docstring to its examples (the lines that begin with `$`) and the rest."""
    lines = inspect.cleandoc(help_text or "").splitlines()
    examples = [line.strip() for line in lines if line.lstrip().startswith("$ ")]
    rest = "\n".join(line for line in lines if not line.lstrip().startswith("$ "))
    return examples, rest.strip()


def summary_of(command: Any) -> str:
    """The first line of the docstring, without its full stop."""
    return _split(command.help)[1].partition("\n")[0].rstrip(".")


def _write_opening(command: Any, ctx: Any, formatter: Any) -> None:
    examples, text = _split(command.help)
    for example in examples:
        first, *more = _broken(example[2:])
        formatter.write(f"  {style('$', '2')} {style(first, '1')}\n")
        for line in more:
            formatter.write(f"      {style(line, '1')}\n")
    if examples:
        formatter.write("\n")
    formatter.write_text(text)
    formatter.write("\n")
    pieces = " ".join(command.collect_usage_pieces(ctx))
    formatter.write_usage(ctx.command_path, pieces, prefix=style("Usage", "1") + ": ")


def _broken(example: str) -> list[str]:
    """The command in lines that fit into the terminal, and that can be copied all the same: broken between
    words, outside of quotes, with the backslash that the shell reads as nothing. One line elsewhere."""
    if not sys.stdout.isatty():
        return [example]
    import shutil

    room = max(MIN_ROOM, shutil.get_terminal_size().columns - len("      ") - len(" \\"))
    lines = [""]
    for word in re.findall(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""", example):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines[-1] += " \\"
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


MIN_ROOM = 30
"""Columns of an example at least, however narrow the terminal says that it is."""


def _arguments(command: Any) -> list[Any]:
    return [param for param in command.params if param.param_type_name == "argument"]


def _option_lines(command: Any, ctx: Any) -> list[tuple[str, str]]:
    """The command's own options; those that every command takes have a list of their own."""
    common = set(map(id, common_options()))
    own = [param for param in command.params if id(param) not in common and param not in _arguments(command)]
    records = [record for param in own if (record := param.get_help_record(ctx)) is not None]
    return [(name, range_in_words(text)) for name, text in records]


def range_in_words(text: str) -> str:
    """`[1<=x<=100000]` as `[1 to 100,000]`, `[x>=1]` as `[from 1]`."""

    def number(digits: str) -> str:
        return f"{int(float(digits)):,}" if float(digits).is_integer() else digits

    text = re.sub(
        r"([-\d.e+]+)<=x<=([-\d.e+]+)(?=\])", lambda it: f"{number(it[1])} to {number(it[2])}", text
    )
    return re.sub(r"\bx>=([-\d.e+]+)(?=\])", lambda it: f"from {number(it[1])}", text)


def _write_common(ctx: Any, formatter: Any) -> None:
    lines = [param.get_help_record(ctx) for param in common_options()]
    _write_list(formatter, "Everywhere", [*lines, (", ".join(HELP_OPTIONS), "Show this page.")])


def _write_list(formatter: Any, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(style(title, "1")):
            formatter.write_dl([(style(name, "36"), text) for name, text in rows])


def style(text: str, code: str) -> str:
    """The text in a colour, where stdout shows colours."""
    has_color = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{code}m{text}\x1b[0m" if has_color else text
