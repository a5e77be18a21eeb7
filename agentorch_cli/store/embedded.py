"""The embedded PostgreSQL of a data directory: made once, shared by all who use it, stopped by the last.

    <data_dir>/postgres        the database files (PGDATA)
    <data_dir>/postgres.new-*  one that is being made; what a kill left behind is removed by the next start
    <data_dir>/postgres.lock   held while one process starts or stops the server
    <data_dir>/postgres.users  held, shared, by each process for as long as it uses the server
    <data_dir>/postgres.log    what the server says
    <data_dir>/run             the socket; in /tmp where this path is too long for one

Both locks are `flock`s: the kernel gives them back when a process dies in whatever way, so there is no list
of users that could be wrong. A process that leaves asks for the users' lock alone (exclusive); whoever gets
it is the last and stops the server. Joining and leaving both happen under `postgres.lock`, so a process that
arrives while the last one stops the server waits, finds it stopped, and starts it. Lock order: lock, users.

Database files appear by one rename of a finished directory: they are there and whole, or not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from agentorch_cli.errors import Conflict, EmbeddedFailed
from agentorch_cli.store import postmaster
from agentorch_cli.store.postmaster import Account, Answer, Launch, Pulse

START_SECONDS = 120.0
_LOCK_SECONDS = 180.0  # longer than the start of another process that we may wait for
_SOCKET_PATH_LIMIT = 100  # bytes; the kernel's own limit is 107 on Linux, 103 elsewhere

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `doctor` shows; looking changes nothing. Sizes are in bytes."""

    data_dir: Path
    initialised: bool
    running: bool
    pid: int | None
    version: str | None
    """`18.4` of a server that answers, `18` of files at rest."""
    socket_dir: Path | None
    dsn: str
    """Where it answers; as long as it does not run, where it would."""
    runs_as: str | None
    holders: tuple[int, ...] | None
    """The processes that use the server, or None where the system does not tell."""
    size_bytes: int
    free_bytes: int
    note: str | None
    """A sentence that is worth saying once, for instance about a system account."""


class EmbeddedServer:
    """This process's use of the embedded server of one data directory.

    `tell` gets a sentence when a start takes long (a recovery, another process that is starting or stopping).
    All failures are `EmbeddedFailed`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        start_seconds: float = START_SECONDS,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.data_dir = _absolute(data_dir)
        self._files = self.data_dir / "postgres"
        self._start_seconds = start_seconds
        self._tell = tell or _log.info
        self._hold: int | None = None
        self._pid: int | None = None
        self._launched: Launch | None = None
        self._socket_dir = _socket_dir_of(self.data_dir)

    @property
    def dsn(self) -> str:
        """The address of the database, for asyncpg; it says all that PG* variables could change."""
        return _dsn(self._socket_dir)

    async def start(self) -> str:
        """Joins the server, or starts it (and makes it the first time); returns the DSN.

        Takes about 1 s the first time, then 0.1 to 0.2 s; a recovery may take as long as `start_seconds`.
        """
        if self._hold is not None:
            await self.ensure_running()
            return self.dsn
        with in_words(self.data_dir):
            programs, account = postmaster.find_programs(), postmaster.server_account()
            _prepare(self.data_dir, account)
            async with _start_lock(self.data_dir, self._tell):
                hold = _open_lock(self.data_dir / "postgres.users")
                try:
                    await _lock(hold, fcntl.LOCK_SH, _LOCK_SECONDS)
                    await _ensure_files(self._files, programs, account)
                    await self._bring_up(programs, account)
                except BaseException as error:
                    self._leave_after(error, hold)
                    raise
                self._hold = hold
        return self.dsn

    async def ensure_running(self) -> bool:
        """For a supervisor: starts the server again if it is dead; True if that was needed.

        A server that is alive and recovers by itself (a backend crashed) is waited for. False, too, when this
        process does not hold the server, for instance because it is leaving.
        """
        if self._hold is None:
            return False
        with in_words(self.data_dir):
            programs, account = postmaster.find_programs(), postmaster.server_account()
            if (await self._ask(account)).pulse in (Pulse.READY, Pulse.FULL):
                return False
            async with _start_lock(self.data_dir, self._tell):
                return self._hold is not None and await self._bring_up(programs, account)

    def seems_alive(self) -> bool:
        """Whether there is a process that could be the server: no question asked, so it may be done often."""
        return postmaster.living_pid(self._files) is not None

    async def release(self) -> None:
        """Gives up this process's hold; the last one stops the server and returns when it is gone."""
        hold, self._hold = self._hold, None
        if hold is None:
            return
        try:
            if not self.data_dir.exists():
                await self._end_orphan()
                return
            with in_words(self.data_dir):
                async with _start_lock(self.data_dir, self._tell):
                    if _is_only_user(hold):
                        await _end_server(self._files, self._socket_dir)
                    os.close(hold)
                    hold = -1
        finally:
            if hold >= 0:
                os.close(hold)

    async def inspect(self) -> Inspection:
        """See `inspect`."""
        return await inspect(self.data_dir)

    async def _bring_up(self, programs: Path, account: Account) -> bool:
        """Asks, launches when nobody answers and nobody is alive, asks again; True if it launched.

        The caller holds the start lock.
        """
        began = time.monotonic()
        self._launched = launched = None
        told = False
        while True:
            pid = postmaster.living_pid(self._files)
            self._socket_dir = _socket_dir_in_use(self._files, account) if pid else self._socket_dir
            answer = await self._ask(account)
            if answer.pulse in (Pulse.READY, Pulse.FULL):
                await self._accept(answer)
                self._pid = postmaster.living_pid(self._files)  # its file may have come after `pid` was read
                return launched is not None
            alive = pid is not None or (launched and postmaster.is_postmaster(launched.pid, self._files))
            waited = time.monotonic() - began
            if waited > self._start_seconds:
                raise _not_ready(answer, self._files, waited, launched)
            if answer.pulse is Pulse.SILENT and not alive:
                if launched:
                    _check_why_it_stopped(launched, self.data_dir)
                    await asyncio.sleep(0.05)
                self._socket_dir = _private_socket_dir(self.data_dir, account)
                self._launched = launched = postmaster.launch(
                    programs, self._files, self._socket_dir, self.data_dir / "postgres.log", account
                )
            elif waited > 1 and not told:
                told = True
                self._tell(
                    "PostgreSQL is recovering after a crash; this can take a while."
                    if answer.pulse is Pulse.NOT_YET
                    else "PostgreSQL is starting."
                )
            await asyncio.sleep(0.01 if waited < 1 else 0.1)

    async def _ask(self, account: Account) -> Answer:
        """Probes, but never a socket in a shared place that somebody else could have put there."""
        place = self._socket_dir
        if place.parent != self.data_dir and os.path.lexists(place):  # noqa: ASYNC240  one look, no wait
            _check_private(place, account)
        return await postmaster.probe(place)

    async def _accept(self, answer: Answer) -> None:
        """Makes sure that the server which answers serves these files, and has the database."""
        if answer.pulse is Pulse.READY and _absolute(Path(answer.data_directory)) != self._files:
            raise EmbeddedFailed(
                f"The server behind the socket in {self._socket_dir} serves {answer.data_directory}, "
                f"not {self._files}.",
                hint="Stop that server, or choose another data directory.",
            )
        if not answer.has_database:
            await postmaster.create_database(self._socket_dir)

    def _leave_after(self, error: BaseException, hold: int) -> None:
        """A start that failed leaves no server behind, but one that still recovers may finish its work."""
        recovers = isinstance(error, EmbeddedFailed) and error.details.get("still_starting")
        launched = self._launched
        if launched and not recovers and postmaster.is_postmaster(launched.pid, self._files):
            os.kill(launched.pid, signal.SIGINT)
        os.close(hold)

    async def _end_orphan(self) -> None:
        """Somebody removed the data directory: the server has nothing left to save, only to go."""
        pid = self._pid
        if pid and postmaster.is_postmaster(pid, self._files):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
            await postmaster.end(pid, self._files)


async def stop_server(
    data_dir: Path, *, even_if_used: bool = False, tell: Callable[[str], None] | None = None
) -> bool:
    """For `db stop`: stops the server of this directory; False if none was running.

    Raises `Conflict` while other processes use it, unless `even_if_used`; a supervisor that runs elsewhere
    then starts it again.
    """
    data_dir = _absolute(data_dir)
    files = data_dir / "postgres"
    with in_words(data_dir):
        if not _has_something(files):
            return False
        _check_owner(data_dir)
        async with _start_lock(data_dir, tell or _log.info):
            users = _open_lock(data_dir / "postgres.users")
            try:
                if not even_if_used and not _is_only_user(users):
                    pids = ", ".join(map(str, _holders(data_dir) or ())) or "unknown"
                    raise Conflict(
                        f"The embedded PostgreSQL in {data_dir} is in use (pids: {pids}).",
                        hint="Stop those processes first (agentorch down, where agentorch up started them):"
                        " the last one stops the server by itself.",
                    )
                return await _end_server(files, _socket_dir_of(data_dir))
            finally:
                os.close(users)


def _dsn(socket_dir: Path) -> str:
    host = quote(os.fsencode(socket_dir), safe="/")
    return f"postgresql://{postmaster.SUPERUSER}@/{postmaster.DATABASE}?host={host}&port={postmaster.PORT}"


async def inspect(data_dir: Path) -> Inspection:
    """Looks at the server without a lock, a start or a change."""
    data_dir = _absolute(data_dir)
    files = data_dir / "postgres"
    with in_words(data_dir):
        pid, file = postmaster.living_pid(files), postmaster.read_pid_file(files)
        socket_dir = (file.socket_dir if pid and file else None) or _socket_dir_of(data_dir)
        trusted = pid is not None or socket_dir.parent == data_dir
        answer = await postmaster.probe(socket_dir) if trusted else Answer(Pulse.SILENT)
        running = pid is not None or answer.pulse is not Pulse.SILENT
        owner = files.stat().st_uid if files.exists() else None
        runs_as = None if owner is None else postmaster.account_name(owner)
        return Inspection(
            data_dir=data_dir,
            initialised=(files / "PG_VERSION").exists(),
            running=running,
            pid=pid,
            version=answer.version or _files_version(files),
            socket_dir=socket_dir if running else None,
            dsn=_dsn(socket_dir),
            runs_as=runs_as,
            holders=_holders(data_dir),
            size_bytes=await asyncio.to_thread(_size, files),
            free_bytes=shutil.disk_usage(_nearest(data_dir)).free,
            note=_account_note(owner, runs_as),
        )


def _account_note(owner: int | None, runs_as: str | None) -> str | None:
    if owner is None or owner == os.geteuid() or os.geteuid() != 0:
        return None
    note = (
        f"PostgreSQL refuses to run as root: it runs as {runs_as}, which may pass through the folders above."
    )
    if runs_as == "nobody":
        note += (
            f" Other programs run as nobody, too: make a system user {postmaster.ACCOUNT} to shut them out."
        )
    return note


@contextlib.contextmanager
def in_words(data_dir: Path) -> Iterator[None]:
    """Turns what the operating system refuses into a sentence with a way out."""
    try:
        yield
    except OSError as error:
        path = f" ({error.filename})" if error.filename else ""
        raise EmbeddedFailed(
            f"The data directory {data_dir} cannot be used: {error.strerror or error}{path}.",
            hint=_way_out(error.errno),
        ) from error


def _way_out(number: int | None) -> str:
    match number:
        case errno.ENOSPC | errno.EDQUOT:
            return "Free some space on that disk, then start again: no acknowledged row is lost."
        case errno.EEXIST | errno.ENOTDIR:
            return "A file is in its place: choose a folder with --data-dir or AGENTORCH_DATA_DIR."
        case _:
            return "Choose a folder that you may write to, with --data-dir or AGENTORCH_DATA_DIR."


def _prepare(data_dir: Path, account: Account) -> None:
    """Makes the data directory, for us alone (0711 where a lent account must pass), or checks what is there.

    A directory that has other things in it keeps its mode: it may be a home or a project. The database files
    and the socket have closed directories of their own.
    """
    try:
        os.fsencode(data_dir).decode()
    except UnicodeDecodeError:
        readable = False
    else:
        readable = str(data_dir).isprintable()
    if not readable:
        raise EmbeddedFailed(
            "The path of the data directory has characters that PostgreSQL cannot report.",
            hint="Choose a path in plain UTF-8 text, without line breaks.",
        )
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(data_dir)
    if not any(data_dir.iterdir()):
        data_dir.chmod(0o711 if account.lent else 0o700)
    elif data_dir.stat().st_mode & stat.S_IWOTH:
        raise EmbeddedFailed(
            f"Everybody may write to the data directory {data_dir}.",
            hint="Choose a folder of its own, or close this one with `chmod o-w`.",
        )
    postmaster.let_pass(data_dir / "postgres", account)


def _check_owner(data_dir: Path) -> None:
    owner = data_dir.stat().st_uid
    if owner != os.geteuid():
        name = postmaster.account_name(owner)
        raise EmbeddedFailed(
            f"The data directory {data_dir} belongs to {name}, "
            f"and this program runs as {postmaster.account_name(os.geteuid())}.",
            hint=f"Run it as {name}, or choose another folder with --data-dir or AGENTORCH_DATA_DIR.",
        )


async def _ensure_files(files: Path, programs: Path, account: Account) -> None:
    """Makes the database files if there are none. The caller holds the start lock."""
    for leftover in files.parent.glob("postgres.new-*"):
        await _discard(leftover)
    postmaster.let_read_programs(programs, account)
    if (files / "PG_VERSION").exists():
        _check_files(files, account)
        return
    if _has_something(files):
        raise EmbeddedFailed(
            f"{files} is there, but it is not a database of PostgreSQL.",
            hint="Move it away, or choose another data directory.",
        )
    new = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=files.parent))
    try:
        if account.lent:
            os.chown(new, account.uid, account.gid)
        await _initialise(new, programs, account)
        _put_in_place(new, files)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _check_files(files: Path, account: Account) -> None:
    """Right version; right owner. In a directory of root's, only root can have put another owner's files."""
    version = _files_version(files)
    if version != postmaster.MAJOR_VERSION:
        raise EmbeddedFailed(
            f"The database in {files} was made by PostgreSQL {version}; "
            f"this program brings PostgreSQL {postmaster.MAJOR_VERSION}.",
            hint="Use the program that made it to dump it, then restore it into a new data directory.",
        )
    if files.stat().st_uid == account.uid or postmaster.living_pid(files):
        return
    if not account.lent:
        raise PermissionError(
            errno.EACCES, f"belongs to {postmaster.account_name(files.stat().st_uid)}", files
        )
    for _, folders, names, descriptor in os.fwalk(files, topdown=False):
        for name in (*folders, *names):
            os.chown(name, account.uid, account.gid, dir_fd=descriptor, follow_symlinks=False)
    os.chown(files, account.uid, account.gid)  # last: a start that is killed before this does it all again


async def _initialise(new: Path, programs: Path, account: Account) -> None:
    process = postmaster.run_initdb(programs, new, account)
    talk = asyncio.ensure_future(asyncio.to_thread(process.communicate))
    try:
        output, _ = await asyncio.shield(talk)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await talk
        raise
    if process.returncode != 0:
        said = postmaster.in_short(output.decode("utf-8", errors="replace"))
        raise EmbeddedFailed(
            f"The embedded PostgreSQL cannot be made in {new.parent}: {said}", hint=_hint(said)
        )


def _put_in_place(new: Path, files: Path) -> None:
    new.rename(files)
    _sync(files.parent)
    _sync(files.parent.parent)


def _sync(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _discard(leftover: Path) -> None:
    """Removes what a killed start left, while its orphaned `initdb` may still write there.

    A new name makes that `initdb` fail; what its last child adds meanwhile goes with the next start.
    """
    doomed = leftover.with_name(f"postgres.new-removed-{os.getpid()}-{time.monotonic_ns()}")
    await asyncio.to_thread(leftover.rename, doomed)
    for _ in range(5):
        await asyncio.to_thread(shutil.rmtree, doomed, ignore_errors=True)
        if not await asyncio.to_thread(doomed.exists):
            return
        await asyncio.sleep(0.02)


def _socket_dir_of(data_dir: Path) -> Path:
    """`run` in the data directory, unless that is too long for a socket or has a comma (it would be a list).

    The other place is the same for each process of this user: it does not depend on TMPDIR.
    """
    near = data_dir / "run"
    socket = os.fsencode(near / f".s.PGSQL.{postmaster.PORT}")
    if len(socket) <= _SOCKET_PATH_LIMIT and b"," not in socket:
        return near
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return _TEMPORARY / f"agentorch-{os.geteuid()}-{name}"


_TEMPORARY = Path("/tmp")  # noqa: S108  its subfolder is checked: owner, mode, not a link


def _private_socket_dir(data_dir: Path, account: Account) -> Path:
    """The socket's directory, 0700 and the server account's own; refused if somebody else made it first."""
    path = _socket_dir_of(data_dir)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    near = path.parent == data_dir  # there, only this user can have put it
    if stat.S_ISDIR(status.st_mode) and (near or status.st_uid == os.geteuid()):
        if status.st_uid != account.uid:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
        if near:
            path.chmod(0o700)
    _check_private(path, account)
    return path


def _check_private(path: Path, account: Account) -> None:
    status = path.lstat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid not in (account.uid, os.geteuid())
        or stat.S_IMODE(status.st_mode) & 0o077 != 0
    ):
        raise EmbeddedFailed(
            f"The directory of the socket, {path}, is not private to {account.name}: it belongs to "
            f"{postmaster.account_name(status.st_uid)}, mode {stat.S_IMODE(status.st_mode):04o}.",
            hint="Remove it, or choose a data directory with a shorter path.",
        )


def _socket_dir_in_use(files: Path, account: Account) -> Path:
    """Where the living server says that its socket is; our own place until it has said so."""
    file = postmaster.read_pid_file(files)
    if file is None or file.socket_dir is None:
        return _socket_dir_of(files.parent)
    if file.socket_dir.exists():
        _check_private(file.socket_dir, account)
    return file.socket_dir


def _check_why_it_stopped(launched: Launch, data_dir: Path) -> None:
    """Returns if another try is worth it: orphaned backends of a killed server go away within moments."""
    said = postmaster.last_words(launched)
    if "pre-existing shared memory block" in said:
        return
    raise EmbeddedFailed(
        f"PostgreSQL stopped while it started: {said or 'it said nothing.'}",
        hint=_hint(said) or f"The whole story is in {launched.log}.",
    )


def _not_ready(answer: Answer, files: Path, waited: float, launched: Launch | None) -> EmbeddedFailed:
    log = files.parent / "postgres.log"
    if answer.pulse is Pulse.NOT_YET:
        return EmbeddedFailed(
            f"PostgreSQL still recovers after {waited:.0f} s; it goes on with that in the background.",
            hint=f"Start again in a while; {log} says how far it is.",
            still_starting=True,
        )
    said = postmaster.last_words(launched) if launched else ""
    return EmbeddedFailed(
        f"PostgreSQL does not answer after {waited:.0f} s. {said}".rstrip(), hint=f"See {log}."
    )


def _hint(said: str) -> str | None:
    if "No space left" in said or "quota" in said.lower():
        return _way_out(errno.ENOSPC)
    if "Cannot allocate memory" in said:
        return "Give it more memory: it needs about 200 MB."
    return None


async def _end_server(files: Path, socket_dir: Path) -> bool:
    """Stops the living server of these files, if there is one. The caller holds the start lock."""
    file, pid = postmaster.read_pid_file(files), postmaster.living_pid(files)
    if pid is None:
        return False
    await postmaster.end(pid, files)
    used = (file.socket_dir if file else None) or socket_dir
    if used.parent == _TEMPORARY and used == socket_dir:
        with contextlib.suppress(OSError):
            used.rmdir()
    return True


@contextlib.asynccontextmanager
async def _start_lock(data_dir: Path, tell: Callable[[str], None]) -> AsyncIterator[None]:
    lock = _open_lock(data_dir / "postgres.lock")
    try:
        await _lock(lock, fcntl.LOCK_EX, _LOCK_SECONDS, tell)
        yield
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


async def _lock(
    descriptor: int, kind: int, seconds: float, tell: Callable[[str], None] | None = None
) -> None:
    """Waits without a thread, so that a cancellation passes through at once."""
    began = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - began
        else:
            return
        if tell and waited > 1:
            tell("Waiting for another process that starts or stops the embedded PostgreSQL.")
            tell = None
        if waited > seconds:
            raise EmbeddedFailed(
                f"Another process has been starting or stopping the embedded PostgreSQL for {seconds:.0f} s.",
                fix="agentorch doctor",
            )
        await asyncio.sleep(0.01 if waited < 1 else 0.05)


def _is_only_user(users: int) -> bool:
    """Takes the users' lock alone if nobody else has it. Whoever asks is about to leave."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holders(data_dir: Path) -> tuple[int, ...] | None:
    """The pids that hold the users' lock, as the kernel lists them (Linux); None where it does not."""
    try:
        status = (data_dir / "postgres.users").stat()
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return () if Path("/proc/locks").exists() else None
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    fields = [line.split() for line in lines if "->" not in line]
    return tuple(sorted({int(f[4]) for f in fields if f[1] == "FLOCK" and f[5] == place}))


def _files_version(files: Path) -> str | None:
    try:
        return (files / "PG_VERSION").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def _size(folder: Path) -> int:
    """What the files use on the disk. They come and go while a server runs, so what vanished is left out."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(root) / name).lstat().st_blocks * 512
    return total


def _absolute(path: Path) -> Path:
    return Path(os.path.realpath(path.expanduser()))


def _has_something(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir())


def _nearest(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
