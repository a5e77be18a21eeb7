"""Frames that nobody should send: the engine answers each with a sentence, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hostile import changed, spoiled, texts, tried, values
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from agentorch_cli import Orchestrator
from agentorch_cli.errors import OrchestratorError
from agentorch_cli.frames import read_frame
from agentorch_cli.payloads import decode
from tests.conftest import quick_settings
from tests.databases import execute, new_database

ID = "01a2054b-21d6-79fb-a217-9b6419d37952"
FRAMES: list[dict[str, Any]] = [
    {
        "type": "register", "agentId": "a", "agentType": "w", "capabilities": ["work"], "slots": 2,
        "metadata": {"k": [1]}, "protocol": 1, "batch": True, "resume": [ID],
    },
    {"type": "agent_heartbeat", "agentId": "a", "load": 0.5},
    {"type": "task_accepted", "messageId": ID},
    {"type": "task_progress", "messageId": ID, "progress": 0.5, "note": "n", "usage": {"inputTokens": 1}},
    {"type": "task_result", "messageId": ID, "taskId": "t", "result": {"a": [1]}, "confidence": 0.9},
    {"type": "task_result", "messageId": ID, "taskId": "t", "error": {"message": "m", "code": "c"}},
    {"type": "consensus_vote", "decisionId": ID, "vote": "yes", "confidence": 0.5},
    {"type": "submit_task", "requestId": "r", "task": {"type": "t", "depends_on": ["x"]}, "waitFor": False},
    {"type": "unregister", "agentId": "a"},
]  # fmt: skip

frames = st.sampled_from(FRAMES).flatmap(changed) | st.sampled_from(FRAMES) | values


def written(frame: Any) -> str:
    """As JSON, or as near as it comes."""
    return json.dumps(frame, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()


raw = frames.map(written) | frames.map(written).flatmap(spoiled) | texts | st.binary(max_size=200)


@tried(300)
@given(raw)
def test_a_frame_is_read_or_refused_with_a_sentence(frame: str | bytes) -> None:
    text = frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else frame
    try:
        read_frame(decode(text, max_bytes=1 << 20))
    except OrchestratorError as error:
        assert 0 < len(error.message) < 2_000


# --- against an engine ------------------------------------------------------------------------


class Engine:
    """An engine on a loop of its own, so that each example can be plain."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._orchestrator = Orchestrator(quick_settings(url))
        self.run(self._orchestrator.__aenter__())
        self.url = self._orchestrator.url

    def run(self, work: Any, seconds: float = 20.0) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def call(self, method: str, **parameters: Any) -> Any:
        return self.run(self._orchestrator.call(method, **parameters))

    def stop(self) -> None:
        self.run(self._orchestrator.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


class Complaints(logging.Handler):
    """Whatever the engine logs as an error, or with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.records.append(self.format(record))


@pytest.fixture(scope="module")
def complaints() -> Iterator[Complaints]:
    handler = Complaints()
    logging.getLogger("agentorch").addHandler(handler)
    yield handler
    logging.getLogger("agentorch").removeHandler(handler)


@pytest.fixture(scope="module")
def engine(postgres: str, complaints: Complaints) -> Iterator[Engine]:
    engine = Engine(asyncio.run(new_database(postgres, "fuzzed")))
    yield engine
    engine.stop()
    asyncio.run(execute(postgres, "drop database fuzzed with (force)"))


def memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def converse(url: str, frames: list[str | bytes]) -> None:
    """Say all this on one connection, and listen meanwhile."""
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(15), connect(url, compression=None, close_timeout=1) as connection:
            await connection.send(written(FRAMES[0]))
            for frame in frames:
                await connection.send(frame)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    async for answer in connection:
                        json.loads(answer)


@tried(40, slow=True)
@given(st.lists(raw, min_size=1, max_size=12))
def test_an_engine_goes_on_whatever_it_is_told(
    engine: Engine, complaints: Complaints, frames: list[str | bytes]
) -> None:
    before = memory()

    asyncio.run(converse(engine.url, frames))

    engine.call("status.get", limit=5)
    assert complaints.records == []
    assert memory() - before < 100 * 1024 * 1024
