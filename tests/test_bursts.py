"""Several messages at once: in order, bounded, each a frame of its own; read as the library reads them."""

from __future__ import annotations

import asyncio
import random
import secrets
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from agentorch_cli import bursts as room
from agentorch_cli.agents.outbox import Outbox
from agentorch_cli.bursts import (
    MOST_AWAITED,
    MOST_BYTES,
    InBursts,
    bursts,
    receive,
    send_each,
    write_now,
    write_texts,
)
from agentorch_cli.core.model import AgentSpec
from agentorch_cli.gateway.session import Session


class Kept:
    """The transport of a connection that has no network."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.written += b"(closed)"

    abort = close

    def pause_reading(self) -> None: ...

    resume_reading = pause_reading

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


async def read_all(
    kind: type[Connection], side: Side, pieces: list[bytes], most: int
) -> tuple[list[Any], bytes, Any]:
    """What becomes of these pieces: messages, answers, and how the connection ended."""
    connection, kept = kind(Protocol(side, max_size=most), max_queue=None), Kept()
    connection.connection_made(kept)  # type: ignore[arg-type]
    heard: list[Any] = []

    async def read() -> None:
        while True:
            heard.extend(await receive(connection))

    reading = asyncio.create_task(read())
    for piece in pieces:
        connection.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    with pytest.raises(ConnectionClosed) as closed:
        await reading
    return heard, kept.written, (closed.value.rcvd, closed.value.sent)


def test_a_burst_ends_before_it_is_too_large_and_a_larger_message_goes_alone() -> None:
    third, huge = b"x" * (MOST_BYTES // 3), b"y" * (2 * MOST_BYTES)

    assert [len(burst) for burst in bursts([third] * 7)] == [3, 3, 1]
    assert list(bursts([b"a", huge, b"b"])) == [[b"a"], [huge], [b"b"]]
    assert list(bursts([])) == []


@pytest.mark.parametrize("end", ["client", "server"])
async def test_each_message_of_a_burst_comes_in_a_frame_of_its_own(end: str) -> None:
    said = [b'{"number":%d}' % number for number in range(20)]
    said += [b"", b"x" * 125, b"x" * 126, b"x" * 65_535, b"x" * 65_536]

    async def say(connection: Connection) -> None:
        await send_each(connection, said)
        await send_each(connection, [b"alone"])

    async def listen(connection: Connection) -> list[Any]:
        return [await connection.recv(decode=False) for _ in range(len(said) + 1)]

    at_server: list[list[Any]] = []

    async def answer(connection: ServerConnection) -> None:
        if end == "server":
            await say(connection)
        else:
            at_server.append(await listen(connection))

    async with serve(answer, "127.0.0.1", 0) as server:
        [listener] = server.sockets
        async with connect(f"ws://127.0.0.1:{listener.getsockname()[1]}", proxy=None) as client:
            if end == "server":
                heard = await listen(client)
            else:
                await say(client)
                await client.wait_closed()
                [heard] = at_server

    assert heard == [*said, b"alone"]


def test_each_masked_frame_has_a_key_of_its_own() -> None:
    frames = write_texts([b"same"] * 50, is_masked=True)

    size = len(frames) // 50
    assert len({frames[at : at + size] for at in range(0, len(frames), size)}) == 50


async def test_who_is_no_socket_is_sent_one_message_after_the_other() -> None:
    class Behind:
        def __init__(self) -> None:
            self.sent: list[bytes] = []

        async def send(self, message: bytes, *, text: bool | None = None) -> None:
            assert text
            self.sent.append(message)

    behind = Behind()
    await send_each(behind, [b"one", b"two"])

    assert behind.sent == [b"one", b"two"]


# --- out of a session, and out of an agent ---------------------------------------------------------


def texts_of(kept: Kept, side: Side) -> list[bytes]:
    """What this end has written, frame by frame, as the library reads it at the other."""
    other = Protocol(Side.CLIENT if side is Side.SERVER else Side.SERVER)
    other.receive_data(kept.written)
    return [bytes(frame.data) for frame in other.events_received() if isinstance(frame, Frame)]


async def turns() -> None:
    """Let everything be done that waits for nothing else."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_cannot_be_written_without_waiting_is_not_written_now() -> None:
    connection, kept = InBursts(Protocol(Side.SERVER)), Kept()
    connection.connection_made(kept)

    assert write_now(connection, [b"one", b"two"])
    connection.pause_writing()
    assert not write_now(connection, [b"paused"])
    connection.resume_writing()
    kept.is_closing = lambda: True  # type: ignore[method-assign]
    assert not write_now(connection, [b"closing"])
    kept.is_closing = lambda: False  # type: ignore[method-assign]
    connection.connection_lost(None)
    assert not write_now(connection, [b"closed"])
    assert not write_now(object(), [b"behind a hub"])

    assert texts_of(kept, Side.SERVER) == [b"one", b"two"]


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("end", ["session", "agent"])
async def test_messages_keep_their_order_whether_the_other_end_reads_or_not(end: str, batch: bool) -> None:
    side = Side.SERVER if end == "session" else Side.CLIENT
    connection, kept = InBursts(Protocol(side)), Kept()
    connection.connection_made(kept)
    if end == "session":
        session = Session(connection, AgentSpec("anna"), uuid4(), batch=batch)  # type: ignore[arg-type]
        send, stop = session.send, session.stop_writing
        send(b"1")
        session.open(b"0")
    else:
        outbox = Outbox(batch=batch)
        writer = asyncio.create_task(outbox.write_to(connection))
        send = outbox.put
        send(b"0")
        send(b"1")

        async def stop() -> None:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    await turns()
    send(b"2")
    send(b"3")
    await turns()
    at_once = len(texts_of(kept, side))
    connection.pause_writing()
    send(b"4")
    await turns()
    send(b"5")
    await turns()
    connection.resume_writing()
    send(b"6")
    await turns()
    send(b"7" * MOST_BYTES)
    send(b"8")
    await turns()
    await stop()
    send(b"9")
    await turns()

    said = b",".join(text.strip(b"[]") for text in texts_of(kept, side))
    assert at_once == (2 if batch else 4)
    assert said == b"0,1,2,3,4,5,6," + b"7" * MOST_BYTES + b",8"


# --- in -----------------------------------------------------------------------------------------


def frames_of_all_kinds(chance: random.Random, is_masked: bool, most: int) -> list[bytes]:
    """What an agent sends, and seldom what none would."""
    frames: list[bytes] = []

    def add(opcode: Opcode, data: bytes, fin: bool = True, *, mask: bool = is_masked) -> None:
        frames.append(Frame(opcode, data, fin).serialize(mask=mask))

    for _ in range(chance.randrange(1, 60)):
        text = ("ä" * chance.choice([0, 1, 20])).encode() + b"x" * chance.choice([0, 3, 100, 200, 900])
        match chance.choices(range(12), [60, 5, 5, 5, 4, 2, 0.3, 0.3, 0.3, 0.3, 0.6, 0.3])[0]:
            case 0:
                add(Opcode.TEXT, text)
            case 1:
                add(Opcode.BINARY, text)
            case 2:
                add(Opcode.PING, text[:100])
                add(Opcode.PONG, b"")
            case 3:
                add(Opcode.TEXT, text[:300], fin=False)
                add(Opcode.PING, b"between")
                add(Opcode.CONT, text[:300], fin=False)
                add(Opcode.CONT, text[:300])
            case 4:
                frames.append(write_texts([text] * 5, is_masked))
            case 5:
                add(Opcode.TEXT, b"x" * chance.randrange(most // 2, most + 1))
            case 6:
                add(Opcode.TEXT, b"x" * (most + 1))
            case 7:
                add(Opcode.TEXT, b"no text: \xff")
            case 8:
                add(Opcode.TEXT, text, mask=not is_masked)
            case 9:
                frames.append(b"\xc1\x80\0\0\0\0")
            case 10:
                add(Opcode.TEXT, text, fin=False)
                add(Opcode.TEXT, text)
            case _:
                add(Opcode.CLOSE, b"\x03\xe8bye")
    return frames


def cut(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    """The same in pieces, as a network brings them."""
    longest = chance.choice([0, 7, 60, 150, 8_192, 1 << 20])
    if not longest:
        return frames
    stream = b"".join(frames)
    pieces = []
    while stream:
        size = chance.randrange(longest) + 1
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


@pytest.mark.parametrize("side", list(Side))
async def test_streams_are_read_as_the_library_reads_them(side: Side) -> None:
    for _ in range(150):
        seed = secrets.randbits(32)
        chance = random.Random(seed)
        most = chance.choice([2_000, 3 * MOST_AWAITED])
        pieces = cut(chance, frames_of_all_kinds(chance, side is Side.SERVER, most))

        ours, theirs = [await read_all(kind, side, pieces, most) for kind in (InBursts, Connection)]

        assert ours[0] == theirs[0], f"{seed=}"
        if side is Side.SERVER:
            assert ours[1:] == theirs[1:], f"{seed=}"
        else:  # masks differ
            assert (len(ours[1]), ours[2]) == (len(theirs[1]), theirs[2]), f"{seed=}"


def test_the_library_is_made_as_it_is_taken_for() -> None:
    """Else all that is read goes through it, as slowly as it does."""
    assert room.FITS


async def test_a_library_that_is_made_otherwise_reads_everything_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "_BETWEEN_FRAMES", None)
    assert not room._fits()

    monkeypatch.setattr(room, "FITS", False)
    monkeypatch.setattr(room, "read_texts", None)
    await test_the_ends_of_a_real_connection_understand_each_other()


async def test_a_burst_counts_as_unread_until_the_next_one_is_asked_for() -> None:
    events: list[str] = []
    connection = InBursts(Protocol(Side.CLIENT), max_queue=8)
    connection.connection_made(Kept())
    connection.recv_messages.pause = lambda: events.append("pause")
    connection.recv_messages.resume = lambda: events.append("resume")

    connection.data_received(write_texts([b"x"] * 50, is_masked=False))
    burst = await receive(connection)
    events.append("taken")
    connection.data_received(write_texts([b"y"], is_masked=False))
    await receive(connection)

    assert burst == ["x"] * 50
    assert events == ["pause", "taken", "resume"]


async def test_the_ends_of_a_real_connection_understand_each_other() -> None:
    class Ours(InBursts, ServerConnection): ...

    class OurClient(InBursts, ClientConnection): ...

    async def echo(connection: ServerConnection) -> None:
        while True:
            messages: list[Any] = await receive(connection, decode=False)
            await send_each(connection, messages)

    said = [b"x" * size for size in (0, 1, 125, 126, 127, 4_095, 4_096, 4_097, 70_000, 2, 200_000, 3)] * 3
    async with serve(echo, "127.0.0.1", 0, create_connection=Ours, compression=None) as server:
        [listener] = server.sockets
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        async with connect(url, proxy=None, create_connection=OurClient, compression=None) as client:
            sending = asyncio.create_task(send_each(client, said))
            heard: list[Any] = []
            while len(heard) < len(said):
                heard += await receive(client, decode=False)
            await sending

    assert heard == said
