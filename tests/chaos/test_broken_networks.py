"""Networks that are slow, lossy, half-open or cut: between agents and gateway, and before the database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from inside import inside
from long import IS_LONG, SEED
from proxy import Proxy

from agentorch_cli import Orchestrator
from tests.conftest import quick_settings

SECONDS = 8.0 if IS_LONG else 1.5
"""How long the network stays broken."""

IMPATIENT = {"command_timeout": 1.0, "connect_timeout": 1.0, "lock_timeout": 1.0}
"""The engine's limits on the database, so that a connection that is half open is given up soon."""


@contextlib.asynccontextmanager
async def proxied(target: tuple[str, int] | Path) -> AsyncIterator[Proxy]:
    proxy = Proxy(target, SEED)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


def socket_of(url: str) -> Path:
    """The socket of a database that is reached by one."""
    query = parse_qs(urlsplit(url).query)
    return Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"


def over_tcp(url: str, port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}{urlsplit(url).path}"


async def break_for_a_while(proxy: Proxy, kind: str) -> None:
    match kind:
        case "slow":
            proxy.delay = 0.05
        case "lossy":
            proxy.stalls = 0.1
        case "cutting":
            proxy.cuts = 0.05
        case "deaf":
            proxy.is_deaf = True
        case "mute":
            proxy.is_mute = True
        case "resets":
            for _ in range(int(SECONDS / 0.3)):
                proxy.cut()
                await asyncio.sleep(0.3)
            return
    await asyncio.sleep(SECONDS)
    proxy.heal()


KINDS = ("slow", "lossy", "cutting", "deaf", "mute", "resets")


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_lost_between_agents_and_the_gateway(kind: str, database_url: str) -> None:
    print(f"seed {SEED}")
    async with Orchestrator(quick_settings(database_url)) as orchestrator:
        gateway = urlsplit(orchestrator.url)
        assert gateway.hostname is not None and gateway.port is not None
        async with (
            proxied((gateway.hostname, gateway.port)) as proxy,
            inside(database_url, f"ws://127.0.0.1:{proxy.port}/agents") as crew,
        ):
            breaking = asyncio.create_task(break_for_a_while(proxy, kind))
            await crew.submit_while(orchestrator, breaking, SEED)
            await crew.until_over(60)
            await asyncio.sleep(0.1)  # the last acks

    assert proxy.bytes > 10_000
    assert await crew.faults() == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_lost_between_serve_and_a_database_over_tcp(kind: str, database_url: str) -> None:
    print(f"seed {SEED}")
    async with proxied(socket_of(database_url)) as proxy:
        settings = quick_settings(over_tcp(database_url, proxy.port), database=IMPATIENT)
        async with (
            Orchestrator(settings) as orchestrator,
            inside(database_url, orchestrator.url) as crew,
        ):
            breaking = asyncio.create_task(break_for_a_while(proxy, kind))
            await crew.submit_while(orchestrator, breaking, SEED)
            await crew.until_over(60)
            await asyncio.sleep(0.1)

    assert proxy.bytes > 10_000
    assert await crew.faults() == {}
