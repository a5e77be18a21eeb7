"""The life cycle of the embedded PostgreSQL, with real servers, real processes and real kills.

The directories are made here and not by `tmp_path`: root's server runs as another user, and pytest closes its
own folder to others each time that it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from agentorch_cli.errors import Conflict, EmbeddedFailed
from agentorch_cli.store import postmaster
from agentorch_cli.store.embedded import EmbeddedServer, inspect, stop_server

ROOT = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0
NOBODY = 65534

USER_OF_THE_SERVER = """
import asyncio, sys
from pathlib import Path
from agentorch_cli.store.embedded import EmbeddedServer

async def main():
    server = EmbeddedServer(Path(sys.argv[1]))
    print(await server.start(), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await server.release()
    print("released", flush=True)

asyncio.run(main())
"""

A_PLAIN_USER = """
import asyncio, concurrent.futures.thread, encodings.ascii, encodings.idna, os, sys
import asyncpg
from pathlib import Path
from agentorch_cli.store.embedded import EmbeddedServer, inspect

async def main():
    server = EmbeddedServer(Path(sys.argv[1]))
    connection = await asyncpg.connect(await server.start())
    await connection.close()
    print((await inspect(server.data_dir)).runs_as)
    await server.release()

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place for data directories; no server of it may outlive the test."""
    place = Path(tempfile.mkdtemp(prefix="agentorch-test-"))
    yield place
    left = servers_in(place, patience=3.0)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(place, ignore_errors=True)
    assert left == []


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    """Database files for the tests that need no first start: each leaves them at rest and whole."""
    place = Path(tempfile.mkdtemp(prefix="agentorch-test-"))

    async def make() -> None:
        server = EmbeddedServer(place / "data")
        await server.start()
        await server.release()

    asyncio.run(make())
    yield place / "data"
    shutil.rmtree(place)


@pytest.fixture
def data_dir(made_once: Path) -> Iterator[Path]:
    yield made_once
    left = servers_in(made_once, patience=3.0)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


@pytest.fixture
def long_data_dir(folder: Path, made_once: Path) -> Iterator[Path]:
    """The same files at the end of a path that no socket can have."""
    long = folder / ("a" * 60) / ("b, c" * 15)
    long.mkdir(parents=True)
    made_once.rename(long / "data")
    yield long / "data"
    (long / "data").rename(made_once)


@pytest.fixture
async def server(data_dir: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(data_dir)
    await server.start()
    yield server
    await server.release()


def servers_in(place: Path, *, patience: float = 0.0) -> list[int]:
    """The living PostgreSQL processes (`initdb` too) that work in a folder, in the end."""
    deadline = time.monotonic() + patience
    while True:
        left = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    arguments = (process / "cmdline").read_bytes().split(b"\0")
                    if b"-D" in arguments and any(a.startswith(os.fsencode(place)) for a in arguments):
                        left.append(int(process.name))
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


def begun(data_dir: Path) -> list[Path]:
    """The directories in which `initdb` has begun to write, finished or not."""
    found = [data_dir / "postgres", *data_dir.glob("postgres.new-*")]
    return [path for path in found if (path / "PG_VERSION").exists() and "removed" not in path.name]


def another_process(data_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER_OF_THE_SERVER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate("\n", timeout=20)
    return said.strip()


async def ask(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def pid_of(data_dir: Path) -> int:
    pid = postmaster.living_pid(data_dir / "postgres")
    assert pid is not None
    return pid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_first_start_makes_a_durable_private_utf8_database(folder: Path) -> None:
    data_dir = folder / "new" / "data"
    server = EmbeddedServer(data_dir)

    dsn = await server.start()
    shown = {
        name: await ask(dsn, f"show {name}")
        for name in ("server_encoding", "data_checksums", "fsync", "synchronous_commit", "listen_addresses")
    }
    modes = mode(data_dir), mode(data_dir / "postgres"), mode(data_dir / "run")
    socket_mode = mode(data_dir / "run" / ".s.PGSQL.5432")
    upper = await ask(dsn, "select upper('straße é')")
    await server.release()

    assert shown == {
        "server_encoding": "UTF8",
        "data_checksums": "on",
        "fsync": "on",
        "synchronous_commit": "on",
        "listen_addresses": "",
    }
    assert modes == (0o711 if IS_ROOT else 0o700, 0o700, 0o700)
    assert socket_mode == 0o700
    assert upper == "STRASSE É" or upper == "STRAßE É"
    assert servers_in(folder) == []


async def test_a_second_start_joins_and_the_last_release_stops(data_dir: Path) -> None:
    first, second = EmbeddedServer(data_dir), EmbeddedServer(data_dir)

    same = await first.start() == await second.start()
    pid = pid_of(data_dir)
    await first.release()
    still = await ask(second.dsn, "select 1")
    await second.release()

    assert same
    assert still == 1
    assert not postmaster.is_postmaster(pid, data_dir / "postgres")


async def test_a_released_server_is_released_once(data_dir: Path) -> None:
    first, second = EmbeddedServer(data_dir), EmbeddedServer(data_dir)
    await first.start()
    await second.start()

    await first.release()
    await first.release()
    had_to = await first.ensure_running()

    assert not had_to
    assert await ask(second.dsn, "select 1") == 1
    await second.release()


async def test_two_processes_that_start_at_once_make_one_server(folder: Path) -> None:
    data_dir = folder / "data"
    processes = [another_process(data_dir), another_process(data_dir)]

    addresses = {first_line(process) for process in processes}
    holders = (await inspect(data_dir)).holders
    starts = (data_dir / "postgres.log").read_text().count("starting PostgreSQL")
    endings = [finish(process) for process in processes]

    assert addresses == {EmbeddedServer(data_dir).dsn}
    assert holders == tuple(sorted(process.pid for process in processes))
    assert starts == 1
    assert endings == ["released", "released"]
    assert servers_in(folder) == []


async def test_a_kill_at_any_moment_of_the_first_start_leaves_nothing_in_the_way(folder: Path) -> None:
    data_dir = folder / "data"
    for moment in (0.0, 0.15, 0.35):
        seen = set(data_dir.glob("postgres.new-*"))
        process = another_process(data_dir)
        while not (files := [p for p in begun(data_dir) if p not in seen]):
            assert process.poll() is None
            await asyncio.sleep(0.002)
        await asyncio.sleep(moment)
        process.kill()
        process.communicate()
        for pid in servers_in(data_dir):  # its initdb, which would finish in peace
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if files == [data_dir / "postgres"]:
            break

    server = EmbeddedServer(data_dir)
    dsn = await server.start()

    assert await ask(dsn, "select current_database()") == "agentorch"
    assert list(data_dir.glob("postgres.new-*")) == []
    await server.release()


async def test_a_cancelled_first_start_leaves_no_process_and_no_files(folder: Path) -> None:
    server = EmbeddedServer(folder / "data")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.15):
            await server.start()

    assert servers_in(folder, patience=1.0) == []
    assert not [name for name in os.listdir(folder / "data") if name.startswith("postgres.new")]


@pytest.mark.parametrize("seconds", [0.005, 0.015, 0.025])
async def test_a_cancelled_later_start_leaves_no_server(data_dir: Path, seconds: float) -> None:
    server = EmbeddedServer(data_dir)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await server.start()
    await server.release()

    assert servers_in(data_dir, patience=2.0) == []


async def test_a_killed_server_comes_back_with_the_committed_row(server: EmbeddedServer) -> None:
    connection = await asyncpg.connect(server.dsn)
    await connection.execute("create table kept (n int); insert into kept values (42)")
    before = await server.ensure_running()
    os.kill(pid_of(server.data_dir), signal.SIGKILL)

    had_to = await server.ensure_running()

    assert not before
    assert had_to
    assert await ask(server.dsn, "select n from kept") == 42
    connection.terminate()


async def test_a_dead_server_that_nobody_reaped_is_not_taken_for_a_living_one(data_dir: Path) -> None:
    starter = another_process(data_dir)
    first_line(starter)
    pid = pid_of(data_dir)
    server = EmbeddedServer(data_dir)
    await server.start()
    os.kill(pid, signal.SIGKILL)

    had_to = await server.ensure_running()

    assert had_to
    assert Path(f"/proc/{pid}").exists(), "the starter reaped it: this test tests nothing"
    assert await ask(server.dsn, "select 1") == 1
    finish(starter)
    await server.release()


async def test_a_reused_pid_is_not_taken_for_the_server(data_dir: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    (data_dir / "postgres" / "postmaster.pid").write_text(
        f"{stranger.pid}\n{data_dir / 'postgres'}\n1\n5432\n{data_dir / 'run'}\n\n  1 1\nready\n"
    )
    server = EmbeddedServer(data_dir, start_seconds=10)

    try:
        dsn = await server.start()
        answer = await ask(dsn, "select 1")
        await server.release()
        untouched = stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()

    assert answer == 1
    assert untouched


async def test_orphaned_backends_of_a_killed_server_are_waited_for(server: EmbeddedServer) -> None:
    connection = await asyncpg.connect(server.dsn)
    orphan = connection.get_server_pid()
    os.kill(orphan, signal.SIGSTOP)  # it keeps the shared memory, as a backend in a long query would
    os.kill(pid_of(server.data_dir), signal.SIGKILL)
    task = asyncio.create_task(server.ensure_running())
    log = server.data_dir / "postgres.log"
    while "pre-existing shared memory block" not in log.read_text() and not task.done():
        await asyncio.sleep(0.01)
    waited = not task.done()

    os.kill(orphan, signal.SIGCONT)

    assert waited
    assert await task
    assert await ask(server.dsn, "select 1") == 1
    connection.terminate()


async def test_a_killed_user_does_not_keep_the_server_alive(data_dir: Path) -> None:
    victim = another_process(data_dir)
    first_line(victim)
    victim.kill()
    victim.communicate()
    alive = len(servers_in(data_dir))

    server = EmbeddedServer(data_dir)
    await server.start()
    holders = (await server.inspect()).holders
    await server.release()

    assert alive == 1
    assert holders == (os.getpid(),)
    assert servers_in(data_dir) == []


async def test_who_arrives_while_the_last_one_leaves_gets_a_running_server(data_dir: Path) -> None:
    leaving = EmbeddedServer(data_dir)
    await leaving.start()
    for _ in range(6):
        arriving = EmbeddedServer(data_dir)

        await asyncio.gather(leaving.release(), arriving.start())

        assert await ask(arriving.dsn, "select 1") == 1
        leaving = arriving
    await leaving.release()


async def test_the_server_is_out_of_reach_of_ctrl_c_and_of_our_files(server: EmbeddedServer) -> None:
    pid = pid_of(server.data_dir)
    try:
        files = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    except PermissionError:
        pytest.skip("this system does not show the files of that process")

    assert os.getsid(pid) == pid
    assert not {name for name in files if name.endswith(("postgres.lock", "postgres.users"))}


async def test_stop_refuses_while_others_use_it_and_a_supervisor_repairs_a_forced_stop(
    server: EmbeddedServer,
) -> None:
    with pytest.raises(Conflict, match=str(os.getpid())):
        await stop_server(server.data_dir)
    forced = await stop_server(server.data_dir, even_if_used=True)
    had_to = await server.ensure_running()

    assert forced
    assert had_to
    assert await ask(server.dsn, "select 1") == 1


async def test_stop_ends_a_server_that_nobody_uses(data_dir: Path) -> None:
    victim = another_process(data_dir)
    first_line(victim)
    victim.kill()
    victim.communicate()

    stopped, again = await stop_server(data_dir), await stop_server(data_dir)

    assert (stopped, again) == (True, False)
    assert servers_in(data_dir) == []


async def test_a_long_path_gets_a_short_private_socket(long_data_dir: Path) -> None:
    server = EmbeddedServer(long_data_dir)

    dsn = await server.start()
    socket_dir = (await server.inspect()).socket_dir

    assert await ask(dsn, "select 1") == 1
    assert socket_dir is not None
    assert socket_dir.parent == Path("/tmp")
    assert mode(socket_dir) == 0o700
    await server.release()
    assert not socket_dir.exists()


async def test_a_socket_directory_that_is_open_or_a_link_is_refused(
    folder: Path, long_data_dir: Path
) -> None:
    server = EmbeddedServer(long_data_dir)
    place = server._socket_dir
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)

    place.symlink_to(elsewhere)
    with pytest.raises(EmbeddedFailed, match="not private"):
        await server.start()
    place.unlink()
    place.mkdir()
    place.chmod(0o755)
    with pytest.raises(EmbeddedFailed, match="0755"):
        await server.start()
    async with await asyncio.start_unix_server(lambda _, writer: writer.close(), place / ".s.PGSQL.5432"):
        with pytest.raises(EmbeddedFailed, match="0755"):
            await server.start()
    (place / ".s.PGSQL.5432").unlink(missing_ok=True)
    if IS_ROOT:
        place.chmod(0o700)
        os.chown(place, NOBODY, NOBODY)
        with pytest.raises(EmbeddedFailed, match="nobody"):
            await server.start()
    place.rmdir()

    assert servers_in(folder) == []


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a directory away")
async def test_a_data_directory_of_another_owner_is_refused(folder: Path) -> None:
    (folder / "data").mkdir()
    os.chown(folder / "data", NOBODY, NOBODY)

    with pytest.raises(EmbeddedFailed, match="belongs to nobody") as refused:
        await EmbeddedServer(folder / "data").start()

    assert "Run it as nobody" in (refused.value.hint or "")
    assert os.listdir(folder / "data") == []


@pytest.mark.skipif(IS_ROOT, reason="root may write everywhere")
async def test_a_data_directory_that_is_not_writable_is_refused(folder: Path) -> None:
    folder.chmod(0o500)

    with pytest.raises(EmbeddedFailed, match="Permission denied"):
        await EmbeddedServer(folder / "data").start()
    folder.chmod(0o700)


async def test_a_file_or_a_shared_folder_in_place_of_the_data_directory_is_refused(folder: Path) -> None:
    (folder / "file").write_text("mine")
    (folder / "shared").mkdir()
    (folder / "shared" / "note").write_text("ours")
    (folder / "shared").chmod(0o777)

    with pytest.raises(EmbeddedFailed, match="File exists") as refused:
        await EmbeddedServer(folder / "file").start()
    with pytest.raises(EmbeddedFailed, match="Not a directory"):
        await EmbeddedServer(folder / "file" / "data").start()
    with pytest.raises(EmbeddedFailed, match="Everybody may write"):
        await EmbeddedServer(folder / "shared").start()

    assert "--data-dir" in (refused.value.hint or "")
    assert mode(folder / "shared") == 0o777


async def test_a_folder_with_other_things_keeps_its_mode(folder: Path, made_once: Path) -> None:
    project = folder / "project"
    project.mkdir()
    project.chmod(0o755)
    (made_once / "postgres").rename(project / "postgres")
    server = EmbeddedServer(project)

    await server.start()
    await server.release()

    assert mode(project) == 0o755
    (project / "postgres").rename(made_once / "postgres")


async def test_files_of_another_version_or_of_nobody_knows_what_are_refused(folder: Path) -> None:
    (folder / "data" / "postgres").mkdir(parents=True)
    (folder / "data" / "postgres" / "something").write_text("else")
    with pytest.raises(EmbeddedFailed, match="not a database"):
        await EmbeddedServer(folder / "data").start()

    (folder / "data" / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedFailed, match="made by PostgreSQL 16"):
        await EmbeddedServer(folder / "data").start()


async def test_a_server_that_stops_while_it_starts_says_why(data_dir: Path) -> None:
    settings = data_dir / "postgres" / "postgresql.conf"
    whole = settings.read_bytes()
    settings.write_bytes(whole + b"\nno_such_setting = 1\n")

    with pytest.raises(EmbeddedFailed, match=r"postgresql.conf.* contains errors") as failed:
        await EmbeddedServer(data_dir).start()

    assert str(data_dir / "postgres.log") in (failed.value.hint or "")
    assert servers_in(data_dir) == []
    settings.write_bytes(whole)


async def test_a_start_that_takes_too_long_is_given_up_and_leaves_nothing(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir, start_seconds=0.001)

    with pytest.raises(EmbeddedFailed, match=r"does not answer|still recovers"):
        await server.start()

    assert await EmbeddedServer(data_dir).ensure_running() is False
    await stop_server(data_dir)
    assert servers_in(data_dir, patience=2.0) == []


async def test_a_long_recovery_is_told_and_goes_on_after_we_gave_up(data_dir: Path) -> None:
    settings, gate = data_dir / "postgres" / "postgresql.auto.conf", data_dir / "gate"
    whole = settings.read_bytes()
    (data_dir / "postgres" / "recovery.signal").touch()
    gate.touch()
    settings.write_text(f"restore_command = 'while test -e {gate}; do sleep 0.02; done; false'\n")
    told: list[str] = []

    with pytest.raises(EmbeddedFailed, match="still recovers") as failed:
        await EmbeddedServer(data_dir, start_seconds=1.2, tell=told.append).start()
    pid = pid_of(data_dir)
    gate.unlink()
    server = EmbeddedServer(data_dir)
    await server.start()

    assert told == ["PostgreSQL is recovering after a crash; this can take a while."]
    assert failed.value.details == {"still_starting": True}
    assert pid_of(data_dir) == pid
    await server.release()
    settings.write_bytes(whole)


async def test_a_data_directory_that_was_removed_takes_its_server_along(
    folder: Path, made_once: Path
) -> None:
    made_once.rename(folder / "data")
    server = EmbeddedServer(folder / "data")
    await server.start()
    (folder / "data").rename(folder / "gone")

    await server.release()

    assert servers_in(folder) == []
    (folder / "gone").rename(made_once)


@pytest.mark.skipif(not IS_ROOT, reason="only root can mount a small disk")
async def test_a_full_disk_is_told_as_such(folder: Path) -> None:
    disk = folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(disk)], check=False).returncode:
        pytest.skip("this system does not let root mount a disk")

    try:
        with pytest.raises(EmbeddedFailed, match="No space left") as failed:
            await EmbeddedServer(disk / "data").start()
    finally:
        subprocess.run(["umount", str(disk)], check=True)

    assert "Free some space" in (failed.value.hint or "")


@pytest.mark.skipif(not IS_ROOT, reason="the other tests are this one already")
async def test_a_plain_user_runs_the_server_as_itself(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)

    said = subprocess.run(
        [sys.executable, "-c", A_PLAIN_USER, str(folder / "data")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath, "PGPORT": "1", "PGHOST": "nowhere", "PGOPTIONS": "-c fsync=maybe"},
    )

    assert (said.stdout.strip(), said.stderr) == ("nobody", "")
    assert mode(folder / "data") == 0o700
    assert servers_in(folder) == []


@pytest.mark.skipif(not IS_ROOT, reason="only root lends another account")
async def test_files_that_another_account_left_are_taken_over(data_dir: Path) -> None:
    subprocess.run(["chown", "-R", "nobody", str(data_dir / "postgres"), str(data_dir / "run")], check=True)
    server = EmbeddedServer(data_dir)

    dsn = await server.start()
    found = await server.inspect()

    assert await ask(dsn, "select 1") == 1
    assert found.runs_as == "agentorch"
    assert "refuses to run as root" in (found.note or "")
    await server.release()


async def test_looking_changes_nothing(folder: Path, server: EmbeddedServer) -> None:
    absent = await inspect(folder / "absent")
    running = await server.inspect()

    assert not (folder / "absent").exists()
    assert (absent.initialised, absent.running, absent.pid, absent.version) == (False, False, None, None)
    assert (running.initialised, running.running, running.pid) == (True, True, pid_of(server.data_dir))
    assert running.version is not None
    assert running.version.startswith("18.")
    assert running.size_bytes > 10_000_000
    assert running.free_bytes > 0
