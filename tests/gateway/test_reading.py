"""Large frames: one after the other, beside the loop, and never all the time."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any

import pytest
from fleet import Fleet

from agentorch_cli.errors import InvalidMessage
from agentorch_cli.gateway import reading
from agentorch_cli.gateway.reading import BRIEF, LARGE_BYTES, LONGEST_PAUSE, SMALL_BYTES, Reader

LISTS = '{"type":"agent_heartbeat","x":[0' + ",[]" * 300_000 + "]}"
LONG = LISTS.replace("0", "1" * 19, 1)


class Watched:
    """In place of `decode`: notes where it runs, and how many run at once."""

    def __init__(self) -> None:
        self.at_once = self.most = 0
        self.threads: list[bool] = []

    def __call__(self, raw: str, *, max_bytes: int) -> int:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.threads.append(threading.current_thread() is threading.main_thread())
        threading.Event().wait(0.01)  # so that another could begin
        self.at_once -= 1
        return len(raw)


@pytest.mark.parametrize(
    ("size", "is_on_the_loop"), [(SMALL_BYTES, True), (LARGE_BYTES, True), (LARGE_BYTES + 1, False)]
)
async def test_a_large_frame_is_decoded_beside_the_loop_and_alone(
    size: int, is_on_the_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, reader = Watched(), Reader()
    monkeypatch.setattr(reading, "decode", watched)

    found = await asyncio.gather(*(reader.read("x" * size, max_bytes=size) for _ in range(4)))

    assert (found, watched.most) == ([size] * 4, 1)
    assert watched.threads == [is_on_the_loop] * 4


@pytest.mark.parametrize("spent", [BRIEF / 2, 0.25, 60.0])
@pytest.mark.parametrize("is_wrong", [False, True])
async def test_what_took_long_is_followed_by_a_pause_of_that_length(
    spent: float, is_wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, pauses = itertools.count(0.0, spent), []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    def decode(raw: str, **_: Any) -> None:
        if is_wrong:
            raise InvalidMessage("wrong")

    monkeypatch.setattr("agentorch_cli.gateway.reading.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("agentorch_cli.gateway.reading.asyncio.sleep", sleep)
    monkeypatch.setattr(reading, "decode", decode)

    try:
        await Reader().read("x" * (SMALL_BYTES + 1), max_bytes=1)
    except InvalidMessage:
        assert is_wrong

    assert pauses == [0 if spent <= BRIEF else min(spent, LONGEST_PAUSE)]


@pytest.mark.parametrize("frame", [LISTS, LONG], ids=["lists", "lists and a long number"])
async def test_frames_that_are_dear_to_read_hold_nobody_up(fleet: Fleet, frame: str) -> None:
    calm = await fleet.join("calm", "other")
    loud = [await fleet.join(f"loud-{number}", "nothing") for number in range(3)]

    async def send(agent: Any) -> None:
        while True:
            await agent.connection.send(frame)

    floods = [asyncio.create_task(send(one)) for one in loud]
    for _ in range(5):
        await fleet.orchestrator.submit({"required_capabilities": ["other"], "retries": 0})
        await calm.finish(await calm.expect("execute_task"), 1)
        await calm.expect("ack")

    for flood in floods:
        flood.cancel()
    ends = await asyncio.gather(*floods, return_exceptions=True)
    assert [type(one) for one in ends] == [asyncio.CancelledError] * 3, ends
