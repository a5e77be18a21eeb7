"""Floods of frames that hold nothing: who sends them needs no token, and gets nowhere with it."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from fleet import Fleet
from plain_client import result_frame

from agentorch_cli.gateway.wire import (
    MOST_SMALL_PIECES,
    PINGS_PER_SECOND,
    SLICE,
    SMALL_PIECE,
    STRANGER_BYTES,
)

UPGRADE = (
    b"GET /agents HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PING, PONG, EMPTY = b"\x89\x80\0\0\0\0", b"\x8a\x80\0\0\0\0", b"\x81\x80\0\0\0\0"
BEGIN, PIECE = b"\x01\x80\0\0\0\0", b"\x00\x80\0\0\0\0"


async def stranger(orchestrator: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has not said who it is."""
    parts = urlsplit(orchestrator.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def is_cut(reader: asyncio.StreamReader) -> bool:
    """Whether the end comes without a close frame; who does not register in time gets one."""
    came = b""
    try:
        async with asyncio.timeout(20):
            while data := await reader.read(65_536):
                came += data
    except ConnectionError:
        pass
    return b"register within" not in came


@pytest.mark.parametrize(
    ("flood", "is_too_much"),
    [
        (PING * (PINGS_PER_SECOND + 1) * 3, True),
        (PONG * (PINGS_PER_SECOND + 1) * 3, True),
        (BEGIN + PIECE * MOST_SMALL_PIECES, True),
        (PING * 20, False),
        (BEGIN + PIECE * 20, False),
        (BEGIN[:1] + b"\xfe" + (8 * SMALL_PIECE).to_bytes(2, "big") + b"\0" * (4 + 8 * SMALL_PIECE), False),
    ],
    ids=["pings", "pongs", "pieces", "some pings", "some pieces", "a large piece"],
)
async def test_who_floods_with_what_holds_nothing_is_cut_off(
    orchestrator: Any, flood: bytes, is_too_much: bool
) -> None:
    reader, writer = await stranger(orchestrator)
    writer.write(flood)

    assert await is_cut(reader) == is_too_much
    writer.close()


async def test_empty_frames_wait_outside_until_those_before_them_are_taken(orchestrator: Any) -> None:
    _, writer = await stranger(orchestrator)
    writer.write(EMPTY * 30_000)
    await writer.drain()

    (connection,) = orchestrator._gateway._server.connections
    async with asyncio.timeout(10):
        while not len(connection.recv_messages.frames):
            await asyncio.sleep(0.01)
    assert len(connection.recv_messages.frames) <= 2 * SLICE / len(EMPTY)
    writer.close()


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_burst_of_small_frames_is_taken_to_its_end_and_in_order(
    fleet: Fleet, submit: Any, outcome: Any, leaves: bool
) -> None:
    agent = await fleet.join("fast", "work")
    task_id = await submit(required_capabilities=["work"], retries=0)
    work = await agent.expect("execute_task")

    notes = [
        {"type": "task_progress", "messageId": work["messageId"], "note": f"note {number}"}
        for number in range(1_000)
    ]
    frames = [json.dumps(frame) for frame in (*notes, result_frame(work, "done"))]
    await asyncio.gather(*(agent.connection.send(frame) for frame in frames))
    if leaves:
        agent.connection.transport.close()
    else:
        await agent.expect("ack")

    assert (await outcome(task_id)).result == "done"


@pytest.mark.parametrize("shown", ["nowhere", "wrongly", "in the request", "in the frame"])
async def test_who_has_shown_no_token_may_not_bring_much(
    start_engine: Any, fleet_of: Any, shown: str
) -> None:
    engine = await start_engine(gateway={"require_tokens": True})
    token = (await engine.call("token.create", name="ada", scopes=["agent:anna"])).token
    header = {"in the request": token, "wrongly": token[:-1] + "-"}.get(shown)
    headers = {"Authorization": f"Bearer {header}"} if header else None
    agent = await fleet_of(engine).connect("anna", additional_headers=headers)
    much = "x" * STRANGER_BYTES

    if shown == "in the frame":
        await agent.register(token=token)
    await agent.send({"type": much})

    if shown in ("nowhere", "wrongly"):
        assert (await agent.closed())[0] == 1009
    else:
        assert "there is no frame" in await agent.refusal()
