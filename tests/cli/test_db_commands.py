"""`agentorch db`, `agentorch prune`: from the command line, on real databases."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from agentorch_cli import Agent
from agentorch_cli.__main__ import run
from agentorch_cli.store.backup import LEFT_OUT, tables_of
from agentorch_cli.store.database import Database
from agentorch_cli.store.migrations import newest_version
from agentorch_cli.wiring import Orchestrator
from tests.conftest import quick_settings
from tests.databases import NOTHING, new_database

SAY = "cat > /dev/null; echo 3"


class Said:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def agentorch(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Runs a command line in this process, from an empty home."""
    monkeypatch.setenv("AGENTORCH_DATA_DIR", str(home / "data"))

    def call(*words: str) -> Said:
        capsys.readouterr()
        code = run(list(words))
        printed = capsys.readouterr()
        return Said(code, printed.out, printed.err)

    return call


@pytest.fixture
def two_databases(postgres: str) -> list[str]:
    """One with the schema, and one with nothing at all."""
    return [
        asyncio.run(new_database(postgres, "db_full")),
        asyncio.run(new_database(postgres, "db_bare", NOTHING)),
    ]


async def _work(url: str) -> None:
    """A vote, a budget, a dependency, an open task and a token are in the database; serve is gone."""

    async def does(work: Any) -> Any:
        work.usage = {"cost_usd": 0.5, "input_tokens": 3}
        return {"text": "tab\tline\nback\\slash ä 漢 \\N", "n": 3}

    async with Orchestrator(quick_settings(url)) as orchestrator:
        agents = [Agent(name, capabilities=["work"], slots=2) for name in "abc"]
        running = []
        for agent in agents:
            agent.add_handler(does)
            running.append(asyncio.create_task(agent.run(orchestrator.url, drain_timeout=0.0)))
        await orchestrator.call("budget.set", key="team=x", cost_usd=100)
        handles = await orchestrator.submit_all(
            [
                {"id": "first", "name": "first", "required_capabilities": ["work"], "labels": {"team": "x"}},
                {"id": "second", "depends_on": ["first"], "required_capabilities": ["work"]},
                {
                    "id": "voted",
                    "required_capabilities": ["work"],
                    "min_agents": 3,
                    "consensus": {"rule": "majority", "vote_on": "/n"},
                },
            ]
        )
        for handle in handles:
            await handle.wait(20)
        await orchestrator.submit({"id": "waiting", "required_capabilities": ["nobody"]})
        await orchestrator.call("task.cancel", task_ids=["missing", "waiting"])
        await orchestrator.submit({"id": "open", "required_capabilities": ["nobody"], "idempotency_key": "k"})
        await orchestrator.call("token.create", name="ci", scopes=["read"])
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _contents(url: str) -> dict[str, Any]:
    """Every row of every table, but for what a restore leaves out, and the sequences."""
    connection = await asyncpg.connect(url)
    try:
        found: dict[str, Any] = {}
        for table in tables_of(newest_version()):
            if table in LEFT_OUT:
                continue
            order = "order by tx, event_id" if table == "events" else ""
            rows = await connection.fetch(f"select to_jsonb(t) from {table} t {order}")
            found[table] = [json.loads(row[0]) for row in rows]
            if table == "events":
                for row in found[table]:
                    del row["tx"], row["event_id"]
            else:
                found[table].sort(key=lambda row: json.dumps(row, sort_keys=True))
        found["numbers"] = await connection.fetchval("select last_value from task_distributions_seq_seq")
        return found
    finally:
        await connection.close()


def test_a_backup_comes_back_whole_and_the_fleet_goes_on(
    two_databases: list[str], agentorch: Callable[..., Said], tmp_path: Path
) -> None:
    full, bare = two_databases
    asyncio.run(_work(full))
    before = asyncio.run(_contents(full))
    file = tmp_path / "fleet.backup"

    backed_up = agentorch("--database-url", full, "--json", "db", "backup", str(file))
    restored = agentorch("--database-url", bare, "--json", "db", "restore", str(file))

    assert (backed_up.code, restored.code) == (0, 0), restored.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert backed_up.document["tables"] == restored.document["tables"]
    assert backed_up.document["tables"]["task_attempts"] >= 4
    assert backed_up.document["tables"]["consensus_ballots"] >= 2
    assert asyncio.run(_contents(bare)) == before
    listed = agentorch("--database-url", bare, "--json", "task", "show", "voted").document
    assert listed["status"] == "completed"
    assert asyncio.run(_goes_on(bare)) == ("completed", True)
    status = agentorch("--database-url", full, "--json", "db", "status").document
    assert status["maintenance"][0]["what"] == "backup"
    assert status["maintenance"][0]["data"]["file"] == str(file)


async def _goes_on(url: str) -> tuple[str, bool]:
    """A new task ends, and its events come after all that were restored, to those who follow."""
    async with Orchestrator(quick_settings(url)) as orchestrator:
        old = await orchestrator.call("event.list", limit=1000)
        agent = Agent("late", capabilities=["work"])
        agent.add_handler(lambda work: 1)
        running = asyncio.create_task(agent.run(orchestrator.url, drain_timeout=0.0))
        handle = await orchestrator.submit({"id": "new", "required_capabilities": ["work"]})
        task = await handle.wait(20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        news = await orchestrator.call("event.list", cursor=old[-1].cursor, limit=1000)
        return task.status, next(e.kind for e in news if e.task_id == "new") == "task_submitted"


def test_a_backup_is_of_one_moment_while_others_write(
    two_databases: list[str], agentorch: Callable[..., Said], tmp_path: Path
) -> None:
    """Each task is stored with its event in one transaction: a backup has both or none."""
    full, bare = two_databases
    file = tmp_path / "fleet.backup"

    async def write_and_back_up() -> None:
        from agentorch_cli.core.model import TaskSpec
        from agentorch_cli.identity import new_id
        from agentorch_cli.store.backup import back_up
        from agentorch_cli.store.store import Store
        from agentorch_cli.store.submission import insert

        db = Database(full, node_id="tests", pool_size=4)
        await db.open()
        store, is_over = Store(db), asyncio.Event()

        async def write() -> None:
            number = 0
            while not is_over.is_set():
                specs = [TaskSpec(f"t{number}-{n}", required_capabilities=("x",)) for n in range(20)]
                await insert(store, new_id(), specs)
                number += 1

        writing = asyncio.create_task(write())
        async with asyncio.timeout(10):
            while not await db.pool.fetchval("select count(*) > 200 from task_distributions"):
                await asyncio.sleep(0)
        await back_up(db, file)
        is_over.set()
        await writing
        await db.close()

    asyncio.run(write_and_back_up())
    restored = agentorch("--database-url", bare, "--json", "db", "restore", str(file))

    tables = restored.document["tables"]
    assert tables["task_distributions"] == tables["events"] >= 200


def test_a_database_that_holds_something_is_not_replaced_by_chance(
    two_databases: list[str], agentorch: Callable[..., Said], tmp_path: Path
) -> None:
    full, bare = two_databases
    file = tmp_path / "fleet.backup"
    assert agentorch("--database-url", bare, "init-db").code == 0
    assert agentorch("--database-url", bare, "db", "backup", str(file)).code == 0
    task = tmp_path / "one.toml"
    task.write_text('[task]\nid = "one"\nrequired_capabilities = ["x"]\n')
    assert agentorch("--database-url", full, "task", "submit", str(task)).code == 0
    restore = ("--database-url", full, "db", "restore", str(file))

    refused = agentorch(*restore)
    unasked = agentorch(*restore, "--force")
    still = agentorch("--database-url", full, "-q", "task", "list").out
    done = agentorch(*restore, "--force", "--yes")

    assert (refused.code, unasked.code, still, done.code) == (8, 2, "one\n", 0)
    assert "is not empty: 1 in task_distributions" in refused.err
    assert "--yes" in unasked.err
    assert agentorch("--database-url", full, "-q", "task", "list").out == ""


def test_a_database_that_is_served_is_not_replaced(
    two_databases: list[str], agentorch: Callable[..., Said], tmp_path: Path
) -> None:
    full, _ = two_databases
    file = tmp_path / "fleet.backup"
    assert agentorch("--database-url", full, "db", "backup", str(file)).code == 0

    async def served() -> str:
        from agentorch_cli.errors import Conflict
        from agentorch_cli.store.backup import read_manifest, restore

        async with Orchestrator(quick_settings(full)) as orchestrator:
            with pytest.raises(Conflict) as refused:
                await restore(orchestrator.store.db, read_manifest(file), force=True)
            return str(refused.value)

    assert "serve is running on this database" in asyncio.run(served())


@pytest.mark.parametrize("damage", ["cut", "byte", "text", "table", "newer"])
def test_a_damaged_backup_is_refused_before_anything_is_touched(
    damage: str, two_databases: list[str], agentorch: Callable[..., Said], tmp_path: Path
) -> None:
    full, bare = two_databases
    file = tmp_path / "fleet.backup"
    assert agentorch("--database-url", full, "agent", "register", "anna", "-c", "count").code == 0
    assert agentorch("--database-url", full, "db", "backup", str(file)).code == 0
    _spoil(file, damage)

    done = agentorch("--database-url", bare, "db", "restore", str(file))

    assert done.code == (5 if damage == "newer" else 2), done.err
    assert "Traceback" not in done.err and str(file) in done.err
    assert agentorch("--database-url", bare, "init-db", "--check").code == 5


def _spoil(file: Path, damage: str) -> None:
    data = file.read_bytes()
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "byte":
        with zipfile.ZipFile(file) as archive:
            info = archive.getinfo("agent_registry.copy")
        place = info.header_offset + 30 + len(info.filename) + 20  # inside of what is packed
        file.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
    elif damage == "text":
        file.write_text("not a backup")
    else:
        with zipfile.ZipFile(file) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        manifest = json.loads(parts["manifest.json"])
        if damage == "newer":
            manifest["schema_version"] = newest_version() + 1
        else:
            parts["events.copy"] = b"something else\n"
        parts["manifest.json"] = json.dumps(manifest).encode()
        with zipfile.ZipFile(file, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, part)


def test_a_file_that_is_there_is_not_overwritten_and_a_failed_backup_leaves_nothing(
    two_databases: list[str], agentorch: Callable[..., Said], tmp_path: Path
) -> None:
    full, bare = two_databases
    file = tmp_path / "fleet.backup"
    file.write_text("mine")

    refused = agentorch("--database-url", full, "db", "backup", str(file))
    nowhere = agentorch("--database-url", full, "db", "backup", str(tmp_path / "none" / "x"))
    nothing = agentorch("--database-url", bare, "db", "backup", str(tmp_path / "y"))
    forced = agentorch("--database-url", full, "db", "backup", str(file), "--force")

    assert (refused.code, nowhere.code, nothing.code, forced.code) == (8, 5, 5, 0)
    assert "no such file or directory" in " ".join(nowhere.err.split())
    assert sorted(one.name for one in tmp_path.iterdir()) == ["fleet.backup"]


async def test_the_tables_of_a_backup_are_those_of_the_schema(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(
        "select relname from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace"
    )
    await connection.close()

    assert {row[0] for row in rows} - {"schema_migrations"} == set(tables_of(newest_version()))


async def test_an_older_backup_is_upgraded(two_databases: list[str], tmp_path: Path) -> None:
    from agentorch_cli.store.backup import back_up, restore

    older = newest_version() - 1
    old, new = (Database(url, node_id="tests", pool_size=2) for url in reversed(two_databases))
    await old.open()
    await new.open()
    async with old.connected() as connection, connection.transaction():
        await old.apply(connection, older)
    version = await old.schema_version()

    archive = await back_up(old, tmp_path / "old")
    applied = await restore(new, archive)

    assert version is not None and version < newest_version()
    assert archive.schema_version == version
    assert applied and applied[-1].startswith(f"{newest_version():04}_")
    assert await new.schema_version() == newest_version()
    await old.close()
    await new.close()


def test_the_address_hides_its_password(agentorch: Callable[..., Said]) -> None:
    url = "postgresql://me:secret@db.example:5433/fleet"

    hidden = agentorch("--database-url", url, "db", "url")
    shown = agentorch("--database-url", url, "db", "url", "--show")
    as_json = agentorch("--database-url", url, "db", "url", "--json")

    assert "secret" not in hidden.out + hidden.err + as_json.out
    assert hidden.out == "postgresql://me:***@db.example:5433/fleet\n"
    assert shown.out == f"{url}\n"
    assert as_json.document["is_embedded"] is False and as_json.document["is_running"] is None


def test_the_embedded_server_is_shown_and_stopped(agentorch: Callable[..., Said]) -> None:
    import tempfile

    from agentorch_cli.store.embedded import EmbeddedServer

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        here = ("--data-dir", str(Path(folder) / "data"))
        assert agentorch(*here, "db", "status").code == 5
        assert agentorch(*here, "db", "url").code == 5
        assert agentorch(*here, "db", "upgrade", "--json").document["is_up_to_date"]
        status = agentorch(*here, "db", "status")
        assert status.code == 0 and "embedded, in " in status.out and "never" in status.out
        asked = agentorch(*here, "db", "url")
        resting = agentorch(*here, "db", "url", "--json")

        server = EmbeddedServer(Path(folder) / "data")
        asyncio.run(server.start())
        running = agentorch(*here, "db", "url", "--json")
        link = Path(folder) / ("long " * 30)
        link.symlink_to(Path(folder) / "data")
        by_link = agentorch("--data-dir", str(link), "db", "url")
        used = agentorch(*here, "db", "stop")
        asyncio.run(server.release())
        stopped = agentorch(*here, "--json", "db", "stop")

        assert (
            asked.out == f"{resting.document['url']}\n"
            and "The embedded PostgreSQL does not run" in asked.err
        )
        assert (resting.document["is_running"], running.document["is_running"]) == (False, True)
        assert (running.document["url"], running.err) == (server.dsn, "")
        assert by_link.out == f"{server.dsn}\n"
        assert used.code == 8 and f"(pid {os.getpid()})" in used.err
        assert stopped.document == {"schema_version": 1, "was_running": False}


def test_commands_of_the_database_are_refused_where_a_server_is_chosen(
    agentorch: Callable[..., Said],
) -> None:
    for words in (["status"], ["url"], ["stop"], ["upgrade"], ["backup", "x"], ["restore", "x"]):
        done = agentorch("--server", "wss://far.example:3001", "db", *words)
        assert done.code == 2 and "the chosen server is wss://far.example:3001" in " ".join(
            done.err.split()
        ), done.err


def test_pruning_asks_first_and_tells_what_went(
    two_databases: list[str], agentorch: Callable[..., Said], tmp_path: Path
) -> None:
    full, _ = two_databases
    here = ("--database-url", full)
    task = tmp_path / "two.toml"
    task.write_text('[[tasks]]\nid = "a"\n[[tasks]]\nid = "b"\n')
    assert agentorch(*here, "task", "submit", str(task)).code == 0
    assert agentorch(*here, "task", "cancel", "a", "b").code == 0

    unasked = agentorch(*here, "prune", "--older-than", "0s")
    dry = agentorch(*here, "prune", "--older-than", "0s", "--dry-run", "--keep-last", "1")
    wrong = agentorch(*here, "prune", "--older-than", "yesterday")
    done = agentorch(*here, "--json", "prune", "--older-than", "0s", "--yes")

    assert (unasked.code, dry.code, wrong.code, done.code) == (2, 0, 2, 0)
    assert dry.out == "Would delete 1 tasks, 0 attempts, 2 events, 0 votes, 0 deadlocks.\n"
    assert done.document["tasks"] == 2
    assert agentorch(*here, "-q", "task", "list").out == ""
