"""How commands talk to the supervisor of a data directory: a lock that says it lives, a socket to ask it.

Both are in a folder of their own that nobody else may enter. The lock is the kernel's: it is given
back whatever happens to its holder. A path of a socket may have some 100 bytes, and a data
directory may be anywhere: so the socket is named from within its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from agentorch_cli.errors import NotAllowed, OrchestratorError, Unreachable

SOCKET: Final = "control"
LOCK: Final = "lock"
LONGEST_REQUEST: Final = 16 << 20

Answer = Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]


def folder_of(data_dir: Path) -> Path:
    """Where the lock and the socket are."""
    return data_dir / "up"


class Lock:
    """Held by the one supervisor of a data directory for as long as it lives."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = folder_of(data_dir)
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Whether it is ours now. Raises NotAllowed where the folder cannot be made."""
        make_private(self._folder.parent)
        make_private(self._folder)
        _check_private(self._folder)
        try:
            descriptor = os.open(
                self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise NotAllowed(f"{self._folder} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Somebody else may have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def supervisor_pid(data_dir: Path) -> int | None:
    """The supervisor of this data directory; None where there is none."""
    path = folder_of(data_dir) / LOCK
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.read(descriptor, 32).strip()
        return int(said) if said.isdigit() else 0
    else:
        return None
    finally:
        os.close(descriptor)


def make_private(folder: Path) -> None:
    """A folder for us alone, unless it is there already. Raises NotAllowed."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise NotAllowed(f"{folder} cannot be made: {error.strerror}") from error


def _check_private(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise NotAllowed(
            f"{folder} is not yours alone", hint="Remove it, or choose another folder with --data-dir."
        )


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """For a moment in which nothing else runs, so that nobody sees it."""
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(here)
        os.close(here)


@contextlib.asynccontextmanager
async def answering(data_dir: Path, answer: Answer) -> Any:
    """Answer whoever asks, one JSON line for one JSON line, for the time of the block."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if not line:
                return
            try:
                reply = {"ok": await answer(orjson.loads(line))}
            except OrchestratorError as error:
                reply = {"error": error.to_json()}
            writer.write(orjson.dumps(reply) + b"\n")
            await writer.drain()
        except (OSError, ValueError):  # who asked is gone, or asked for nothing
            pass
        finally:
            writer.close()

    folder = folder_of(data_dir)
    conversations: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(converse(reader, writer))
        conversations.add(task)
        task.add_done_callback(conversations.discard)

    server = await asyncio.start_unix_server(begin, sock=_listen(folder), limit=LONGEST_REQUEST)
    try:
        yield
    finally:
        server.close()
        if conversations:  # they are told how it ended
            await asyncio.wait(conversations, timeout=2)
        with contextlib.suppress(OSError):
            (folder / SOCKET).unlink()


def _listen(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _inside(folder):
        Path(SOCKET).unlink(missing_ok=True)
        listener.bind(SOCKET)
        Path(SOCKET).chmod(0o600)
    listener.setblocking(False)
    return listener


def ask(data_dir: Path, request: Mapping[str, Any], timeout: float) -> Any:
    """One question to the supervisor. Raises Unreachable, or what it raised."""
    folder = folder_of(data_dir)
    line = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            with _inside(folder):
                connection.connect(SOCKET)
            connection.sendall(orjson.dumps(request) + b"\n")
            with connection.makefile("rb") as file:
                line = file.readline()
    except OSError as error:
        reason = "it does not answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise Unreachable(
            f"the supervisor in {data_dir} cannot be asked: {reason}", hint="agentorch down --force ends it"
        ) from error
    try:
        reply = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Unreachable(f"the supervisor in {data_dir} went away meanwhile") from error
    if "error" in reply:
        raise error_of(reply["error"])
    return reply["ok"]


def error_of(document: dict[str, Any]) -> OrchestratorError:
    """An error that came as JSON, with all that it said."""
    from agentorch_cli.handlers.wire import error_from  # the whole wire, which nothing else here wants

    return error_from(document)
