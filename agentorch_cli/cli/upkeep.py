"""What `agentorch up` does: read the fleet, find or start the engine, supervise until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

import agentorch_cli
from agentorch_cli.cli.nodes import running_engine
from agentorch_cli.cli.session import ENDINGS, Session, heard
from agentorch_cli.documents import load_document
from agentorch_cli.errors import (
    Conflict,
    InvalidFile,
    OrchestratorError,
    Unreachable,
    UsageError,
    fixed_by,
)
from agentorch_cli.fleetfile import Declared, processes_of, read_fleet, read_scale, replicas_of
from agentorch_cli.supervision import control
from agentorch_cli.supervision.child import Child, Pace, State, in_words
from agentorch_cli.supervision.supervisor import SERVE, Ground, Supervisor

START_SECONDS = 150.0
"""For the engine to come up: a recovery of the embedded PostgreSQL takes a while."""

SETTLE_SECONDS = 30.0
"""For the agents to connect, before `up -d` returns all the same."""

PROBE_SECONDS = 1.0

LONGEST_ERROR = 60_000
"""Bytes; no more than a pipe takes at once."""


@dataclass(frozen=True, slots=True)
class Order:
    """A file and how many of each: what shall run."""

    file: Path
    scale: Mapping[str, int]
    wanted: Mapping[str, tuple[int, Declared]]
    others: Sequence[str]
    """Agents of the file that connect by themselves."""
    anew: Sequence[str] = ()
    """Processes that are started anew where they run already."""

    @property
    def has_python(self) -> bool:
        """Whether code is loaded that may have changed since: a command is read anew for each task."""
        return any(declared.python is not None for _, declared in self.wanted.values())

    def request(self) -> dict[str, Any]:
        """The same for a supervisor that runs already."""
        return {"file": str(self.file), "scale": dict(self.scale), "anew": list(self.anew)}


def order_of(file: Path, scale: Sequence[str], restart: Sequence[str] = ()) -> Order:
    """What the file declares. Raises InvalidFile, InvalidTask, UsageError."""
    return _order(file.absolute(), read_scale(list(scale)), restart, str(file))


def _order(file: Path, scale: Mapping[str, int], restart: Sequence[str], shown: str) -> Order:
    from agentorch_cli.cli.files import sourced

    try:
        with fixed_by("explain", "agent"):
            document = load_document(file, name=shown)
    except InvalidFile as error:
        if not file.exists():
            error.hint = "agentorch init writes an example."
        raise
    with sourced(document, "agent"):
        fleet = read_fleet(document, file.parent)
    with fixed_by("explain", "agent"):
        wanted = replicas_of(fleet, scale, shown)
    others = [one.spec.agent_id for one in fleet if not one.is_run]
    if len(others) == len(fleet):
        raise UsageError(
            f"{shown} has no agent with exec or python: there is nothing to run",
            hint="Agents that connect by themselves are started by you.",
        )
    return Order(file, scale, wanted, others, processes_of(wanted, restart, shown))


# --- in the foreground --------------------------------------------------------------------------


async def run(session: Session, order: Order) -> int | None:
    """Supervise until a signal or `down`; the number of the second signal, if there was one."""
    settings = session.settings
    data_dir = settings.data_dir
    lock = control.Lock(data_dir)
    if not lock.take():
        raise Conflict("another agentorch up has just begun here", hint="agentorch up --status")
    try:
        ground = await _ground(session, data_dir)
        return await _Upkeep(session, order, data_dir, ground).run()
    finally:
        lock.release()


class _Upkeep:
    """One supervisor and whoever talks to it."""

    def __init__(self, session: Session, order: Order, data_dir: Path, ground: Ground) -> None:
        self._session = session
        self._order = order
        self._data_dir = data_dir
        self._ground = ground
        self._supervisor = Supervisor(ground, self._tell)
        self._stop = asyncio.Event()
        self._timeout: float | None = None
        self._ended: asyncio.Future[list[dict[str, str]]] = asyncio.get_running_loop().create_future()
        self._is_open = False
        self._second: int | None = None
        self._print = _event_printer(session)

    async def run(self) -> int | None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, *heard(ENDINGS)):
            loop.add_signal_handler(number, self._on_signal, number)
        async with control.answering(self._data_dir, self._answer):
            try:
                await self._open()
                await self._stop.wait()
            finally:
                ended = await self._supervisor.close(self._timeout)
                self._ended.set_result(ended)
        return self._second

    async def _open(self) -> None:
        """Raises what keeps the engine from starting; returns early when it is told to stop.

        The agents' interpreters start meanwhile, and wait for the address.
        """
        opening = asyncio.create_task(self._supervisor.open())
        await asyncio.sleep(0)  # the engine first
        await self._supervisor.apply(self._order.wanted)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                return
            url = await opening
        finally:
            opening.cancel()
            stopping.cancel()
            await asyncio.gather(opening, stopping, return_exceptions=True)
        self._is_open = True
        count = len(self._order.wanted)
        self._say(f"{count} agent{' runs' if count == 1 else 's run'} of {self._order.file.name}, for {url}")
        self._say("Stop with Ctrl-C, or with: agentorch down")
        if self._order.others:
            self._say(f"Not run, as they connect by themselves: {', '.join(self._order.others)}.")

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set():
            self._second = number
            self._supervisor.at_once.set()
            return
        self._stop.set()
        self._say("Stopping: agents finish what they do. Once more stops at once.")

    async def _answer(self, request: dict[str, Any]) -> Mapping[str, Any]:
        """What another command asks."""
        match request.get("do"):
            case "status":
                return {
                    "processes": self._supervisor.status(),
                    "file": str(self._order.file),
                    "pid": os.getpid(),
                    "is_open": self._is_open,
                }
            case "apply":
                return await self._apply(Path(request["file"]), request["scale"], request.get("anew", ()))
            case "stop":
                self._timeout = request.get("timeout")
                self._stop.set()
                return {"ended": await self._ended}
        raise UsageError("the supervisor is of another version", hint="agentorch down, then agentorch up")

    async def _apply(self, file: Path, scale: Mapping[str, int], anew: Sequence[str]) -> Mapping[str, Any]:
        if file != self._order.file:
            raise Conflict(
                f"the fleet of {self._order.file} runs here, and not that of {file}",
                hint="agentorch down stops it; --data-dir gives a second fleet a place of its own",
            )
        order = _order(file, scale, anew, str(file))
        if self._stop.is_set() or not self._is_open:
            raise Conflict("the fleet is just being started or stopped", hint="agentorch up --status")
        reply = await self._supervisor.apply(order.wanted, order.anew)
        self._order = order
        return reply

    # --- words to the person ------------------------------------------------------------------

    def _tell(self, child: Child) -> None:
        """A process has come into another state."""
        if self._session.format != "table":
            with contextlib.suppress(OSError, ValueError):
                self._print({"event": "process", "name": child.name, "state": child.state, "pid": child.pid})
        match child.state:
            case State.RUNNING:
                self._say(f"{child.name} {'is ready' if child.name == SERVE else 'is connected'}")
            case State.LOST:
                self._say(f"{child.name} has no connection to the engine, and tries again")
            case State.WAITING | State.CRASHING | State.ENDED | State.FAILED:
                said = f" ({child.record.said})" if child.record.said else ""
                then = ""
                if child.next_start is not None:
                    then = f"; it is started again in {max(0.0, child.next_start - time.time()):.1f} s"
                loop = f", {child.short_lives} times in a row" if child.state is State.CRASHING else ""
                self._say(f"{child.name} ended with {in_words(child.exit_status)}{loop}{said}{then}")
            case State.STOPPED:
                self._say(f"{child.name} has stopped")

    def _say(self, sentence: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
            self._session.say(sentence)


def _event_printer(session: Session) -> Callable[[Mapping[str, Any]], None]:
    """Tells programs what becomes of the processes, as it comes."""
    if session.format == "table":
        return lambda event: None
    from agentorch_cli.cli.outputs import ProcessEventView

    return session.stream(ProcessEventView)


async def _ground(session: Session, data_dir: Path) -> Ground:
    """What the fleet stands on. Raises what is wrong with the configuration."""
    settings = session.settings
    target = partial(_target, session)
    if settings.is_remote:
        url: str | None = target("")["url"]
    else:
        url = await running_engine(session)
        if url is not None:
            session.say(f"An engine runs already: {url}")
    return Ground(
        data_dir=data_dir,
        pace=Pace(settings.up.backoff, settings.up.max_backoff, settings.up.steady),
        stop_timeout=settings.up.stop_timeout,
        log_bytes=settings.up.log_bytes,
        log_files=settings.up.log_files,
        output_limit=settings.exec.max_output_bytes,
        target=target,
        url=url,
        serve=partial(_serve_command, session),
        serve_env=_program_environment(session),
    )


def _target(session: Session, url: str) -> dict[str, Any]:
    """How agents come in: at the chosen server, or at the engine here."""
    from agentorch_cli.cli.target import engine_of

    settings = session.settings
    target = engine_of(settings, url, is_named=False)
    target.refuse_to_tell_everybody()
    own = settings.gateway.tls_cert if not settings.is_remote else None
    return {
        "url": target.url,
        "token": target.token,
        "ca": None if target.ca is None else str(target.ca),
        "own": None if own is None else str(own),
    }


# --- our own program as a process -----------------------------------------------------------


def _program(session: Session) -> list[str]:
    """This program with the options that every command takes."""
    words = [sys.executable, "-P", "-m", "agentorch_cli"]
    words += ["--data-dir", str(Path(session.settings.data_dir).absolute())]
    if session.config is not None:
        words += ["--config", str(Path(session.config).absolute())]
    if session.ca is not None:
        words += ["--ca", str(Path(session.ca).absolute())]
    for key, value in session.pairs.items():
        words += ["--set", f"{key}={value}"]
    return words


def _program_environment(session: Session) -> dict[str, str]:
    """An address of a database may hold a password, which is nothing for the list of processes."""
    environment = dict(os.environ)
    if session.database_url is not None:
        environment["AGENTORCH_DATABASE_URL"] = session.database_url
    folder = str(Path(agentorch_cli.__file__).parent.parent)
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    if folder not in (*paths, *(path for path in sys.path if path.endswith("-packages"))):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, *paths)))
    return environment


def _serve_command(session: Session, url: str | None) -> list[str]:
    """`serve`, on the port that it had before: agents know it."""
    from urllib.parse import urlsplit

    port = urlsplit(url).port if url else session.settings.gateway.port
    return [*_program(session), "--server", "local", "-o", "jsonl", "serve", "--port", str(port)]


# --- in the background --------------------------------------------------------------------------


def detach(session: Session) -> list[dict[str, Any]] | int:
    """Go on in the background. There it gives a descriptor to tell errors to (see `telling`); here, once all
    has come up, how the processes stand.

    Raises what kept the engine from starting.
    """
    data_dir = session.settings.data_dir
    log = data_dir / "logs" / "up.log"
    control.make_private(data_dir)
    control.make_private(log.parent)
    reader, writer = os.pipe()
    with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()  # nothing runs yet but this thread
        if not pid:
            os.setsid()
            os.close(reader)
            for descriptor, stream in ((0, nothing), (1, output), (2, output)):
                os.dup2(stream.fileno(), descriptor)
            return writer
    os.close(writer)
    try:
        return _await_fleet(pid, data_dir, log, reader)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)  # what was begun is taken back
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(reader)


@contextlib.contextmanager
def telling(descriptor: int | None) -> Iterator[None]:
    """What goes wrong in the background is told to whoever sent us there."""
    try:
        yield
    except OrchestratorError as error:
        if descriptor is not None:
            with contextlib.suppress(OSError):  # it has gone meanwhile
                os.write(descriptor, orjson.dumps(error.to_json(), default=str))
        raise


def _await_fleet(pid: int, data_dir: Path, log: Path, reader: int) -> list[dict[str, Any]]:
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    while time.monotonic() - began < START_SECONDS:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            if said := os.read(reader, LONGEST_ERROR):
                raise control.error_of(orjson.loads(said))
            how = in_words(os.waitstatus_to_exitcode(status))
            raise OrchestratorError(f"the supervisor ended with {how}", hint=f"Its log is {log}.")
        with contextlib.suppress(Unreachable):
            reply = control.ask(data_dir, {"do": "status"}, PROBE_SECONDS)
            if reply["is_open"] and reply["pid"] == pid:
                rows = reply["processes"]
                is_late = time.monotonic() - began > SETTLE_SECONDS
                if is_late or all(State(row["state"]).is_settled for row in rows):
                    return rows
        time.sleep(0.05)
    return rows
