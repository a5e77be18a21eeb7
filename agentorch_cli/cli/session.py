"""One invocation of the program: its flags, its settings, its client, and how it answers."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.errors import UsageError
from agentorch_cli.text import escape_json, one_line

if TYPE_CHECKING:
    import asyncio
    from contextlib import AbstractAsyncContextManager

    import typer

    from agentorch_cli.cli.tables import Page
    from agentorch_cli.client import Client
    from agentorch_cli.config import Settings

T = TypeVar("T")

FORMATS = ("table", "json", "jsonl")
PICTURES = ("svg", "html", "mermaid", "dot")
"""Forms that only commands which draw can give."""
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
        self.more_flags: dict[str, Any] = {}
        """Configuration keys that a command's own options set, such as `gateway.port`."""

    @staticmethod
    def of(ctx: typer.Context) -> Session:
        """The session of the invocation that the command runs in."""
        return cast("Session", ctx.obj)

    def take(self, option: str, value: Any) -> None:
        """Remember a common option. Raises UsageError for a form of output that there is not."""
        if option == "output":
            check_form(value, (*FORMATS, *PICTURES))
        setattr(self, option, value)

    @property
    def format(self) -> str:
        """`table`, `json` or `jsonl`; of a command that draws also one of PICTURES."""
        return self.output or ("json" if self.as_json else "table")

    @cached_property
    def settings(self) -> Settings:
        """The configuration with this invocation's flags on top."""
        from agentorch_cli.config import load_settings

        path = Path(self.config) if self.config is not None else None
        return load_settings(self.flags, os.environ, path, Path.cwd())

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

    def only_here(self, command: str, reason: str) -> None:
        """Raises UsageError where a server is chosen: this command works on this machine."""
        from agentorch_cli.cli.target import refuse_remote

        refuse_remote(self.settings, command, reason)

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

        client: AbstractAsyncContextManager[Client] = open_client(self.settings, prepare=prepare)
        return client

    def ask(self, method: str, *, prepare: bool = True, **parameters: Any) -> Any:
        """Call one operation and give its answer."""

        async def call() -> Any:
            async with self.connect(prepare=prepare) as client:
                return await client.call(method, **parameters)

        return self.run(call())

    def run(self, work: Coroutine[Any, Any, T], *, is_long: bool = False, until_unread: bool = False) -> T:
        """Run to the end; Ctrl-C, SIGTERM and SIGHUP cancel it, so that it can clean up.

        `is_long` is for work that moves many messages, and gets the faster loop. `until_unread` is for
        work that follows: it ends when nobody reads the pipe any more, without waiting for the next line.
        Raises KeyboardInterrupt, or SystemExit(143) after SIGTERM, 129 after SIGHUP; BrokenPipeError.
        """
        import asyncio

        from agentorch_cli.logs import hush

        hush()
        ended_by: int | None = None

        async def guarded() -> T:
            task = asyncio.current_task()

            def end(number: int) -> None:
                nonlocal ended_by
                ended_by = number
                if task is not None:
                    task.cancel()

            for number in heard(ENDINGS):
                asyncio.get_running_loop().add_signal_handler(number, end, number)
            with _watching_the_pipe(lambda: end(signal.SIGPIPE)) if until_unread else nullcontext():
                return await work

        try:
            with asyncio.Runner(loop_factory=_fast_loop() if is_long else None) as runner:
                return runner.run(guarded())
        except asyncio.CancelledError:
            if ended_by == signal.SIGPIPE:
                raise BrokenPipeError from None
            if ended_by is not None:
                raise SystemExit(128 + ended_by) from None
            raise

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
            self.print_json(document)

    def print_json(self, document: Any) -> None:
        """Print views as JSON: one document, or with `jsonl` one line each."""
        if self.format == "jsonl" and isinstance(document, list):
            for item in document:
                write(json_text(item))
        else:
            write(json_text(document, indent=None if self.format == "jsonl" else 2))

    def say(self, sentence: str) -> None:
        """Talk to the person: on stderr, so that stdout holds data only. Silent with `-q`."""
        if not self.is_quiet:
            write(one_line(sentence), sys.stderr)


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
    """Views, lists and plain values as JSON in which nothing hidden is left."""
    import json

    return escape_json(json.dumps(to_plain(document), ensure_ascii=False, indent=indent, default=str))


def to_plain(document: Any) -> Any:
    """Views as dictionaries; each says the version of its schema."""
    from pydantic import BaseModel

    from agentorch_cli.views import SCHEMA_VERSION

    if isinstance(document, BaseModel):
        return {"schema_version": SCHEMA_VERSION, **document.model_dump(mode="json")}
    if isinstance(document, Sequence) and not isinstance(document, str):
        return [to_plain(item) for item in document]
    return document


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not made for every platform; the standard loop does as well
        return None
    return uvloop.new_event_loop
