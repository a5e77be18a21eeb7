"""The small parts of an agent, each by itself."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest
from fake_engine import FakeEngine, Start, execute

from agentorch_cli.agents import Agent, Work
from agentorch_cli.agents import line as line_module
from agentorch_cli.agents import outbox as outbox_module
from agentorch_cli.agents.ledger import Ledger
from agentorch_cli.agents.text import plain
from agentorch_cli.agents.threads import Threads


def test_the_ledger_agrees_with_a_dumb_twin() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    ledger: Ledger[str] = Ledger(remembered=20)
    running: set[str] = set()
    unacked: set[str] = set()
    over: list[str] = []

    for step in range(2_000):
        known = [*running, *unacked]
        message_id = dice.choice(known) if known and dice.random() < 0.7 else f"m{step}"
        match dice.choice(("start", "finish", "forget")):
            case "start" if message_id not in known:
                ledger.running[message_id] = "work"
                running.add(message_id)
            case "finish" if message_id in running:
                ledger.finish(message_id, b"frame")
                running.remove(message_id)
                unacked.add(message_id)
            case "forget":
                assert ledger.forget(message_id) == ("work" if message_id in running else None)
                running.discard(message_id)
                unacked.discard(message_id)
                over.append(message_id)
        assert set(ledger.held()) == running | unacked
        assert all(ledger.is_over(old) for old in over[-10:])
        assert ledger.is_empty == (not running and not unacked)

    assert sum(ledger.is_over(old) for old in set(over)) <= 20


HOSTILE = {
    "plain": "plain",
    "two\nlines\tand a tab": "two\nlines\tand a tab",
    "a\r\nb": "a\nb",
    "\x1b]8;;http://x\x07": "\\x1b]8;;http://x\\x07",
    "nul\x00 del\x7f c1\x9b": "nul\\x00 del\\x7f c1\\x9b",
    "bidi\u202e zero\u200b tag\U000e0041": "bidi\\u{202e} zero\\u{200b} tag\\u{e0041}",
    "half \ud800": "half \\u{d800}",
    "größer 日本 🙂": "größer 日本 🙂",
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_text_is_made_plain(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_bytes_that_are_no_text_are_shown() -> None:
    assert plain(b"ok \xff\xc3\xa4") == "ok \\xffä"


async def test_threads_are_used_again_and_bounded_by_the_jobs_at_once() -> None:
    threads = Threads("test")
    names = {await threads.run(lambda: threading.current_thread().name) for _ in range(20)}
    barrier = threading.Barrier(3)
    await asyncio.gather(*(threads.run(barrier.wait, 2) for _ in range(3)))
    alive = [thread for thread in threading.enumerate() if thread.name.startswith("test-")]

    assert names == {"test-1"}
    assert len(alive) == 3
    assert all(thread.daemon for thread in alive)
    threads.close()
    for thread in alive:
        await asyncio.to_thread(thread.join, 2)
        assert not thread.is_alive()


async def test_an_engine_that_does_not_read_slows_the_handler_and_not_its_end(
    engine: FakeEngine, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "FULL_BYTES", 100_000)
    monkeypatch.setattr(line_module, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr("agentorch_cli.agents.agent.LEAVE_SECONDS", 0.1)
    agent = Agent("a1")
    reports = 0

    @agent.handler()
    async def handle(work: Work) -> None:
        nonlocal reports
        while True:
            await work.progress(note="x" * 1_000)
            reports += 1

    stop = asyncio.Event()
    running = start(agent, stop=stop, drain_timeout=0.05)
    connection = await engine.registered()
    connection.socket.transport.pause_reading()
    await connection.send(execute("m1"))
    before = -1
    async with asyncio.timeout(5):
        while reports != before or reports == 0:
            before = reports
            await asyncio.sleep(0.1)
    stop.set()
    async with asyncio.timeout(60):
        await running

    assert reports < 30_000, "bounded by the outbox and the buffers of two sockets"


async def test_an_engine_that_never_reads_is_given_up(
    engine: FakeEngine, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "SEND_SECONDS", 0.1)
    agent = Agent("a1")
    agent.add_handler(lambda work: "x" * 20_000_000, inline=True)
    start(agent)
    connection = await engine.registered()
    connection.socket.transport.pause_reading()
    await connection.send(execute("m1"))

    second = await engine.connection()
    assert (await second.expect("register"))["resume"] == ["m1"]
