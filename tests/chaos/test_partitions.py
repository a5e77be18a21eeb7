"""Two nodes in network namespaces of their own, and the network between them and the database breaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from inside import some_of_each
from long import SEED, long_only
from proxy import Proxy
from test_broken_networks import over_tcp, socket_of

from agentorch_cli.chaos.checker import check
from agentorch_cli.chaos.crew import QUICK
from agentorch_cli.chaos.evidence import gather
from agentorch_cli.chaos.processes import PROGRAM, Child, Serve
from tests.conftest import quick_settings

OPEN = "select count(*) from task_distributions where completed_at is null"
LEADER = "select node_id from leases where name = 'scheduler'"


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)


def why_not() -> str | None:
    """Why there can be no network namespaces here."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need ip (iproute2)"
    try:
        run("ip", "netns", "add", "agentorch-try")
        run("ip", "netns", "del", "agentorch-try")
    except (OSError, subprocess.SubprocessError):
        return "this kernel or container makes no network namespaces"
    return None


class Namespace:
    """A network of one node, with a wire to this one."""

    def __init__(self, number: int) -> None:
        self.name = f"agentorch-{os.getpid()}-{number}"
        self._near, self._far = f"ao{os.getpid() % 10**6}n{number}", f"ao{os.getpid() % 10**6}f{number}"
        self.here, self.there = f"10.213.{number}.1", f"10.213.{number}.2"

    def make(self) -> None:
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.name)
        run("ip", "addr", "add", f"{self.here}/30", "dev", self._near)
        run("ip", "link", "set", self._near, "up")
        for command in (
            f"addr add {self.there}/30 dev {self._far}",
            f"link set {self._far} up",
            "link set lo up",
        ):
            run("ip", "-n", self.name, *command.split())

    def cut(self) -> None:
        run("ip", "link", "set", self._near, "down")

    def mend(self) -> None:
        run("ip", "link", "set", self._near, "up")

    def remove(self) -> None:
        for command in (("ip", "link", "del", self._near), ("ip", "netns", "del", self.name)):
            with contextlib.suppress(subprocess.SubprocessError):
                run(*command)

    def within(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]


@pytest.fixture
def namespaces() -> Iterator[list[Namespace]]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    both = [Namespace(1), Namespace(2)]
    try:
        for one in both:
            one.make()
        yield both
    finally:
        for one in both:
            one.remove()


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="agentorch-chaos-"))
    (found / "journals").mkdir()
    yield found
    shutil.rmtree(found, ignore_errors=True)


class Node:
    """A `serve` and its agents in one namespace, before a proxy to the database."""

    def __init__(self, namespace: Namespace, folder: Path, database_url: str) -> None:
        self.namespace = namespace
        self.proxy = Proxy(socket_of(database_url), SEED, namespace.here)
        self._folder = folder
        self._database_url = database_url
        self._children: list[Child] = []

    async def start(self) -> None:
        await self.proxy.start()
        address = urlsplit(over_tcp(self._database_url, self.proxy.port))
        url = f"postgresql://postgres@{self.namespace.here}:{self.proxy.port}{address.path}"
        serve = Serve(
            self._folder / "data",
            name=self.namespace.name,
            environment=QUICK
            | {
                "DATABASE_URL": url,
                "AGENTORCH_DATABASE_COMMAND_TIMEOUT": "1",
                "AGENTORCH_DATABASE_CONNECT_TIMEOUT": "1",
            },
            program=self.namespace.within(*PROGRAM),
        )
        self._children.append(serve)
        await asyncio.to_thread(serve.start)
        for number in range(2):
            name = f"{self.namespace.name}-{number}"
            command = self.namespace.within(
                sys.executable, "-m", "agentorch_cli.chaos.agent", serve.url, name
            )
            command += ["--slots", "3", "--journal", str(self._folder / "journals" / f"{name}.jsonl")]
            agent = Child(name, command, log=self._folder / "agents.log")
            agent.start()
            self._children.append(agent)

    async def stop(self) -> None:
        for child in reversed(self._children):
            await asyncio.to_thread(child.stop)
        await self.proxy.stop()


@long_only
async def test_another_node_takes_over_from_one_that_is_cut_off(
    namespaces: list[Namespace], folder: Path, database_url: str
) -> None:
    print(f"seed {SEED}")
    nodes = [Node(namespace, folder, database_url) for namespace in namespaces]
    connection = await asyncpg.connect(database_url)
    try:
        for node in nodes:
            await node.start()
        await until(connection, "select count(*) = 4 from agent_registry where status = 'online'")
        first = await connection.fetchval(LEADER)

        await submit(database_url, 0)
        await until(connection, f"select ({OPEN}) = 0", 60)
        await submit(database_url, 3)
        namespaces[0].cut()
        await until(connection, f"select ({LEADER}) <> '{first}'")
        await submit(database_url, 1)
        await until(connection, f"select ({OPEN}) = 0", 60)
        namespaces[0].mend()
        await until(connection, "select count(*) = 4 from agent_registry where status = 'online'", 60)
        await submit(database_url, 2)
        await until(connection, f"select ({OPEN}) = 0", 60)
        await until(connection, "select count(*) = 0 from task_attempts where status in ('sent', 'accepted')")
        await asyncio.sleep(0.5)  # the last acks
    finally:
        for node in nodes:
            await node.stop()
    found = await gather(connection, folder / "journals")
    await connection.close()

    found.journals["client"] = []
    assert {name: faults[:5] for name, faults in check(found).items() if faults} == {}
    assert len({row["node"] for row in await nodes_of(database_url)}) == 2, "each node has led"


async def nodes_of(url: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(
            await connection.fetch("select distinct node_id as node from events where kind = 'task_assigned'")
        )
    finally:
        await connection.close()


async def submit(url: str, part: int) -> None:
    """From here, where the database is within reach."""
    from agentorch_cli.core.plan import plan
    from agentorch_cli.documents import Document
    from agentorch_cli.identity import new_id_text
    from agentorch_cli.taskfile import read_tasks
    from agentorch_cli.wiring import open_client

    batch = [
        task
        for one in range(3)
        for task in some_of_each(
            SEED + 7 * part + one, "flat", "chain", "diamond", "retried", name=f"p{part}-{one}"
        )
    ]
    file = read_tasks(Document({"tasks": batch}, "test"), new_id=new_id_text, defaults={})
    async with open_client(quick_settings(url)) as client:
        await client.call("task.submit", tasks=plan(file.tasks, where=file.where).tasks)


async def until(connection: asyncpg.Connection, question: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not await connection.fetchval(question):
        if time.monotonic() > end:
            raise AssertionError(f"not in {seconds:g} s: {question}")
        await asyncio.sleep(0.02)
