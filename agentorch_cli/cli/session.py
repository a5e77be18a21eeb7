"""One invocation of the program: its flags, its settings, its client, and how it answers."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, TypeVar, cast

from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.errors import UsageError
from agentorch_cli.text import one_line

if TYPE_CHECKING:
    import asyncio
    from contextlib import AbstractAsyncContextManager

    import typer
    from pydantic import BaseModel

    from agentorch_cli.cli.tables import Page
    from agentorch_cli.client import Client
    from agentorch_cli.config import Settings

T = TypeVar("T")

FORMATS = ("table", "json", "jsonl", "csv", "none")
PICTURES = ("svg", "html", "mermaid", "dot")
"""Forms that only commands which draw can give."""
NARROWEST = 20
"""Columns below which a terminal breaks the lines itself."""
FIRST_START = "Making the embedded PostgreSQL, once"
"""Said while a first command is busy with that."""

ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end the program, besides Ctrl-C: from a supervisor, and from a terminal that goes away."""


class Session:
    """What the common options said, and everything that follows from it."""

    def __init__(self) -> None:
        self.as_json = False
        self.output: str | None = None
        self.is_quiet = False
        self.data_dir: str | None = None
        self.config: str | None = None
        self.database_url: str | None = None
        self.server: str | None = None
        self.ca: str | None = None
        self.pairs: dict[str, str] = {}
        """What `--set KEY=VALUE` says."""
        self.command = ""
        """What was asked for, such as `task list`."""
        self.more_flags: dict[str, Any] = {}
        """Configuration keys that a command's own options set, such as `gateway.port`."""

    @staticmethod
    def of(ctx: typer.Context) -> Session:
        """The session of the invocation that the command runs in."""
        session = cast("Session", ctx.obj)
        session.command = ctx.command_path.partition(" ")[2]
        return session

    def take(self, option: str, value: Any) -> None:
        """Remember a common option. Raises UsageError for a form of output that there is not."""
        if option == "pairs":
            for pair in [value] if isinstance(value, str) else value:
                key, sign, text = pair.partition("=")
                if not key or not sign:
                    raise UsageError(f'--set "{pair}" is not KEY=VALUE', hint="--set gateway.port=3002")
                self.pairs[key.strip()] = text
            return
        if option == "output":
            check_form(value, (*FORMATS, *PICTURES))
        setattr(self, option, value)

    @property
    def format(self) -> str:
        """One of FORMATS; of a command that draws also one of PICTURES."""
        return self.output or ("json" if self.as_json else "table")

    @cached_property
    def settings(self) -> Settings:
        """The configuration with this invocation's flags on top."""
        from agentorch_cli.config import load_settings

        path = Path(self.config) if self.config is not None else None
        return load_settings(self.flags, os.environ, path, Path.cwd(), self.pairs)

    @property
    def flags(self) -> dict[str, Any]:
        """Configuration keys that the command line sets."""
        if self.server and self.database_url:
            raise UsageError("--server and --database-url are two places to work against: give one of them")
        is_here = not self.server and (self.database_url or self.data_dir)
        flags = {
            "data_dir": self.data_dir,
            "database.url": self.database_url,
            "server": "local" if is_here else self.server,
            "ca": self.ca,
            **self.more_flags,
        }
        return {key: value for key, value in flags.items() if value is not None}

    @property
    def server_shown(self) -> str | None:
        """The server that the command works against, for people; None where it is a database."""
        from agentorch_cli.cli.target import shown_server

        return shown_server(self.settings)

    @property
    def place(self) -> str:
        """What the command works on, for people."""
        from agentorch_cli.settings import redact_url

        url = self.settings.database.url
        return self.server_shown or (redact_url(url) if url else str(self.settings.data_dir))

    def only_here(self, command: str, reason: str) -> None:
        """Raises UsageError where a server is chosen: this command works on this machine."""
        from agentorch_cli.cli.target import refuse_remote

        refuse_remote(self.settings, command, reason)

    @cached_property
    def data_dir_here(self) -> Path:
        """The data directory; a project in a folder above, which is easily taken for it, is told once."""
        from agentorch_cli.cli.target import project_above

        note = project_above(self.settings, Path.cwd()) if self.config is None else None
        if note is not None and self.format == "table":
            self.say(f"note: {note}")
        return Path(self.settings.data_dir)

    def connect(
        self, *, prepare: bool = True, is_patient: bool = False, say: Callable[[str], None] | None = None
    ) -> AbstractAsyncContextManager[Client]:
        """A client: of the server that is chosen, or of the database; the embedded PostgreSQL is started
        where it has to be.

        Without `prepare` the schema is left as it is found, even if there is none. With `is_patient`
        a server that goes away meanwhile is waited for. `say` is told of that, in place of stderr.
        """
        if self.settings.is_remote:
            from agentorch_cli.cli.target import target_of
            from agentorch_cli.client.remote import RemoteClient

            return RemoteClient(target_of(self.settings), say=say or self.say, is_patient=is_patient)
        from agentorch_cli.wiring import open_client

        _ = self.data_dir_here
        client: AbstractAsyncContextManager[Client] = open_client(self.settings, prepare=prepare)
        if not self.makes_database:
            return client
        from agentorch_cli.cli.progress import shown_while_opening

        return shown_while_opening(self, FIRST_START, client)

    @property
    def makes_database(self) -> bool:
        """The embedded PostgreSQL has no files yet: to make them takes seconds.

        False where that cannot be seen: whoever opens it says why.
        """
        if self.settings.is_remote or self.settings.database.url:
            return False
        with suppress(OSError):
            return not (self.settings.data_dir / "postgres" / "PG_VERSION").exists()
        return False

    def ask(self, method: str, *, prepare: bool = True, **parameters: Any) -> Any:
        """Call one operation and give its answer; a `Part` among the parameters is made whole first."""

        async def call() -> Any:
            async with self.connect(prepare=prepare) as client:
                return await client.call(method, **await whole(client, parameters))

        return self.run(call())

    def run(self, work: Coroutine[Any, Any, T], *, is_long: bool = False, until_unread: bool = False) -> T:
        """Run to the end; Ctrl-C, SIGTERM and SIGHUP cancel it, so that it can clean up.

        `is_long` is for work that moves many messages, and gets the faster loop. `until_unread` is for
        work that follows: it ends when nobody reads the pipe any more, without waiting for the next line.
        Raises KeyboardInterrupt, or SystemExit(143) after SIGTERM, 129 after SIGHUP; BrokenPipeError. The
        same where the work, as it was cut off, failed in another way: that is no failure of its own.
        """
        import asyncio

        from agentorch_cli.logs import hush

        hush()
        ended_by: int | None = None
        numbers = heard((signal.SIGINT, *ENDINGS))
        before = {number: signal.getsignal(number) for number in numbers}

        async def guarded() -> T:
            task = asyncio.current_task()

            def end(number: int) -> None:
                nonlocal ended_by
                if number == ended_by == signal.SIGINT:  # the clean-up takes too long for the person
                    asyncio.get_running_loop().remove_signal_handler(number)
                    signal.raise_signal(number)
                ended_by = number
                if task is not None:
                    task.cancel()

            for number in numbers:
                asyncio.get_running_loop().add_signal_handler(number, end, number)
            with _watching_the_pipe(lambda: end(signal.SIGPIPE)) if until_unread else nullcontext():
                return await work

        try:
            with asyncio.Runner(loop_factory=_fast_loop() if is_long else None) as runner:
                return runner.run(guarded())
        except BaseException:
            if ended_by is None:
                raise
            if ended_by == signal.SIGINT:
                raise KeyboardInterrupt from None
            if ended_by == signal.SIGPIPE:
                raise BrokenPipeError from None
            raise SystemExit(128 + ended_by) from None
        finally:
            for number, handler in before.items():  # a loop that is closed would hear them, and do nothing
                signal.signal(number, handler)

    def show(
        self,
        document: Any,
        draw: Callable[[Page], None],
        ids: Iterable[object] = (),
        empty: str | None = None,
    ) -> None:
        """Answer on stdout in the form that was asked for.

        An empty list says its kind sentence on stderr instead of an empty table.
        """
        if self.format == "none":
            return
        if self.is_quiet:
            for one in ids:
                write(one_line(one))
        elif self.format == "table":
            if empty and isinstance(document, list) and not document:
                self.say(empty)
                return
            from agentorch_cli.cli.tables import Page

            draw(Page(sys.stdout))
        else:
            self.print_document(document)

    def print_document(self, document: Any) -> None:
        """Print views in the form for programs: JSON, with `jsonl` one line each, or CSV."""
        match self.format:
            case "none":
                return
            case "csv":
                from agentorch_cli.cli.forms import csv_lines
                from agentorch_cli.cli.outputs import row_kind

                for line in csv_lines(document, row_kind(self.command), is_terminal=sys.stdout.isatty()):
                    sys.stdout.write(line)
                sys.stdout.flush()
            case "jsonl" if isinstance(document, list):
                for item in document:
                    write(json_text(item))
            case _:
                write(json_text(document, indent=None if self.format == "jsonl" else 2))

    def stream(self, kind: type[BaseModel]) -> Callable[[Any], None]:
        """Prints such documents one by one as they come: JSON a line each, or CSV with its header once."""
        if self.format == "none":
            return lambda document: None
        if self.format != "csv":
            return lambda document: write(json_text(document))
        from agentorch_cli.cli.forms import cells_of, csv_line

        columns = list(kind.model_fields)

        def put(cells: Iterable[Any]) -> None:
            sys.stdout.write(csv_line(cells, is_terminal=sys.stdout.isatty()))
            sys.stdout.flush()

        put(columns)
        return lambda document: put(cells_of(document, columns))

    def say(self, sentence: str) -> None:
        """Talk to the person: on stderr, so that stdout holds data only. Silent with `-q` and `-o none`."""
        if not self.is_quiet and self.format != "none":
            for line in _lines(one_line(sentence), sys.stderr):
                write(line, sys.stderr)


def _lines(sentence: str, stream: TextIO) -> list[str]:
    """The sentence as it fits into a terminal: words, paths and ids stay whole. Elsewhere it is one line."""
    if not stream.isatty():
        return [sentence]
    import shutil
    import textwrap

    width = max(NARROWEST, shutil.get_terminal_size().columns)
    indent = " " * (len(sentence) - len(sentence.lstrip()) + 2)
    return textwrap.wrap(
        sentence, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [sentence]


@contextmanager
def _watching_the_pipe(gone: Callable[[], None]) -> Iterator[None]:
    """Calls when whoever read our output is gone; does nothing where the system cannot tell."""
    import asyncio
    import select

    try:
        is_pipe = stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
        watched = select.epoll() if is_pipe else None
    except (AttributeError, OSError, ValueError):
        watched = None
    if watched is None:
        yield
        return
    with watched:
        watched.register(sys.stdout.fileno(), 0)  # asked for nothing, it tells of hang-ups all the same
        loop = asyncio.get_running_loop()
        loop.add_reader(watched.fileno(), gone)
        try:
            yield
        finally:
            loop.remove_reader(watched.fileno())


def check_form(form: str, known: Sequence[str]) -> None:
    """Raises UsageError for a form of output that a command cannot give."""
    if form in known:
        return
    if form in PICTURES:
        raise UsageError(f"-o {form} is for what is drawn: task graph and task timeline")
    raise UsageError(
        f'-o "{form}" is not known{did_you_mean(form, known)}',
        hint=f"One of {', '.join(FORMATS)}; task graph and task timeline also take {', '.join(PICTURES)}.",
    )


def heard(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Those of the signals that are not ignored: `nohup agentorch serve` outlives its terminal."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def write(line: str, stream: TextIO | None = None) -> None:
    """One line to stdout, or where it is said, at once: a reader of a pipe should not wait."""
    stream = stream or sys.stdout
    stream.write(line + "\n")
    stream.flush()


def json_text(document: Any, indent: int | None = None) -> str:
    """Views, lists and plain values as JSON; see `forms`, which is imported when something is printed."""
    from agentorch_cli.cli import forms

    return forms.json_text(document, indent)


class Part(NamedTuple):
    """Words that a person typed for ids of this kind: perhaps only the beginning or the end of each, or the
    name of a task."""

    noun: str
    """`task`, `vote`, `deadlock`, `submission`, or `family`: a task or a submission."""
    words: str | list[str] | None


WHOLE = 36
"""Letters of an id that the engine made."""


async def whole(client: Client, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters with whole ids. Raises Conflict where a part is that of several."""
    return {
        name: await whole_ids(client, value) if isinstance(value, Part) else value
        for name, value in parameters.items()
    }


async def whole_ids(client: Client, part: Part) -> Any:
    """The whole ids, a word or a list as it was typed; a word that nothing is called stays."""
    if part.words is None:
        return None
    words = [part.words] if isinstance(part.words, str) else part.words
    asked = [word for word in words if 0 < len(word) < WHOLE]
    ids: dict[str, str] = {}
    if asked:
        ids = (await client.call("id.resolve", noun=part.noun, ids=asked)).ids
    found = list(dict.fromkeys(ids.get(word, word) for word in words))
    return found[0] if isinstance(part.words, str) else found


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not made for every platform; the standard loop does as well
        return None
    return uvloop.new_event_loop
