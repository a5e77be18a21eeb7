"""The port before any frame: plain HTTP, other sites' pages, strangers who speak no HTTP at all."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest
from fleet import Fleet
from plain_client import call
from websockets.exceptions import InvalidStatus


async def exchange(url: str, raw: bytes, seconds: float = 3.0) -> bytes:
    """Send bytes to the port; all that comes back until the other side closes."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(raw)
        async with asyncio.timeout(seconds):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def get(url: str, path: str) -> tuple[int, str]:
    """The status and the body of a plain HTTP page."""
    answer = await exchange(url, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


async def test_health_readiness_and_metrics_answer_plain_http(fleet: Fleet, submit: Any) -> None:
    url = fleet.orchestrator.url
    agent = await fleet.join()
    await submit(required_capabilities=["work"])
    await agent.finish(await agent.expect("execute_task"))
    await agent.expect("ack")

    assert await get(url, "/healthz") == (200, "alive\n")
    assert await get(url, "/readyz?verbose=1") == (200, "ready\n")
    status, page = await get(url, "/metrics")

    assert status == 200
    lines = [line for line in page.splitlines() if line and not line.startswith("#")]
    metrics = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    assert metrics["agentorch_agents_online"] == 1
    assert metrics["agentorch_sessions"] == 1
    assert metrics["agentorch_assigned_total"] == 1
    assert metrics["agentorch_task_completed_total"] == 1
    assert metrics["agentorch_attempts_live"] == 0


@pytest.mark.parametrize("path", ["/", "/agent", "/agents/", "//agents", "//[", "/healthz/../x", "/%00", "*"])
async def test_other_paths_are_not_found(orchestrator: Any, path: str) -> None:
    status, body = await get(orchestrator.url, path)

    assert status == 404
    assert "/agents" in body


async def test_pages_of_other_sites_may_not_connect(orchestrator: Any) -> None:
    host = urlsplit(orchestrator.url).netloc
    port = host.rpartition(":")[2]
    for origin in (
        "http://evil.example",
        f"http://evil.example:{port}",
        f"http://127.0.0.1:{int(port) - 1}",
        f"http://{host}.evil.example",
        f"file://{host}",
        "http://[",
        "null",
        "",
    ):
        with pytest.raises(InvalidStatus) as refused:
            await call(orchestrator.url, additional_headers={"Origin": origin})
        assert refused.value.response.status_code == 403, origin

    agent = await call(orchestrator.url, additional_headers={"Origin": f"http://{host}"})
    await agent.register()
    await agent.vanish()


async def test_a_name_that_was_made_to_point_here_is_another_site(orchestrator: Any) -> None:
    """DNS rebinding: origin and host agree, and both are the attacker's."""
    raw = (
        b"GET /agents HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )

    assert b" 403 " in (await exchange(orchestrator.url, raw)).splitlines()[0]


STRANGERS = {
    "a body": b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "a chunked body": b"GET / HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "post": b"POST /agents HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    "head": b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "another version": b"GET /healthz HTTP/3.0\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing that ends": b"A" * 100_000,
    "a long header": b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "many headers": b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    "two hosts": b"GET /agents HTTP/1.1\r\nHost: a\r\nHost: b\r\nOrigin: http://a\r\n\r\n",
    "no upgrade": b"GET /agents HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bad key": b"GET /agents HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: !\r\n\r\n",
    "an old version": b"GET /agents HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    "bad utf-8 in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(1000),
}


async def test_strangers_get_an_answer_or_the_end(fleet: Fleet) -> None:
    agent = await fleet.join()

    answers = await asyncio.gather(*(exchange(fleet.orchestrator.url, raw) for raw in STRANGERS.values()))

    for name, answer in zip(STRANGERS, answers, strict=True):
        assert not answer.startswith(b"HTTP/1.1 101"), name
        assert b"Traceback" not in answer
        if answer and name not in ("a body", "head"):
            assert answer.split()[1][:1] in b"45", f"{name}: {answer[:100]!r}"

    await agent.alive()


async def test_half_open_requests_hold_nobody_up(fleet: Fleet) -> None:
    """200 connections that never finish their request, and 50 that never register."""
    parts = urlsplit(fleet.orchestrator.url)
    halves = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(200)]
    for _, writer in halves:
        writer.write(b"GET /agents HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    for _ in range(50):
        await fleet.connect()

    agent = await fleet.join("anna")
    await agent.alive()
    assert (await get(fleet.orchestrator.url, "/readyz"))[0] == 200

    for _, writer in halves:
        writer.close()


async def test_a_stranger_in_the_middle_of_a_frame_is_cut_off(start_engine: Any) -> None:
    """A frame that begins and never ends counts as silence."""
    engine = await start_engine()
    agent = await call(engine.url, ping_interval=None)
    await agent.register()
    agent.connection.transport.write(b"\x81\xfe\x04\x00\x00\x00\x00\x00{")

    assert (await agent.closed(4.0))[0] == 1011
    await agent.vanish()


async def test_nobody_comes_in_while_the_engine_stops(start_engine: Any) -> None:
    engine = await start_engine()
    agent = await call(engine.url)
    await agent.register("work")

    await engine.stop()

    assert (await agent.closed())[0] == 1001
    with pytest.raises(OSError):
        await call(engine.url)
    await agent.vanish()
