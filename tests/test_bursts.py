"""Several messages at once: in order, bounded, and each a frame of its own."""

from __future__ import annotations

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from agentorch_cli.bursts import MOST_BYTES, bursts, send_each


def test_a_burst_ends_before_it_is_too_large_and_a_larger_message_goes_alone() -> None:
    third, huge = b"x" * (MOST_BYTES // 3), b"y" * (2 * MOST_BYTES)

    assert [len(burst) for burst in bursts([third] * 7)] == [3, 3, 1]
    assert list(bursts([b"a", huge, b"b"])) == [[b"a"], [huge], [b"b"]]
    assert list(bursts([])) == []


async def test_each_message_of_a_burst_comes_in_a_frame_of_its_own() -> None:
    said = [b'{"number":%d}' % number for number in range(20)]

    async def answer(connection: ServerConnection) -> None:
        await send_each(connection, said)
        await send_each(connection, [b"alone"])

    async with serve(answer, "127.0.0.1", 0) as server:
        [listener] = server.sockets
        async with connect(f"ws://127.0.0.1:{listener.getsockname()[1]}", proxy=None) as client:
            heard = [await client.recv(decode=False) for _ in range(21)]

    assert heard == [*said, b"alone"]


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
