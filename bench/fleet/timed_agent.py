"""An agent process whose work takes as long as the task says, and which writes down what it is told.

    python -m bench.fleet.timed_agent ws://127.0.0.1:3001/agents agent-1 --slots 2 --journal file

Each line of the journal is on the disk before the next step is taken:

    begun MESSAGE_ID TASK_ID ATTEMPT      before the work starts
    ended MESSAGE_ID TASK_ID RESULT       before the result is sent
    acked MESSAGE_ID                      the engine said that the result is durable
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from agentorch_cli.agents import agent as agent_room
from agentorch_cli.agents.agent import Agent
from agentorch_cli.agents.desk import Desk
from agentorch_cli.agents.work import Work

CAPABILITY = "timed"


class Journal:
    """Appends lines, each durable before `write` returns; without a path it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if path else None
        self._lock = threading.Lock()

    def write(self, *words: object) -> None:
        if self._file is not None:
            line = " ".join(str(word) for word in words) + "\n"
            with self._lock:
                os.write(self._file, line.encode())
                os.fdatasync(self._file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("agent_id")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--prefetch", type=int, default=0)
    parser.add_argument("--journal", type=Path)
    args = parser.parse_args()
    journal = Journal(args.journal)

    class ListeningDesk(Desk):
        """Hears the acknowledgements that the SDK keeps to itself."""

        def receive(self, message: Any) -> None:
            if message.get("type") == "ack":
                journal.write("acked", message["messageId"])
            super().receive(message)

    agent_room.Desk = ListeningDesk  # type: ignore[attr-defined]
    agent = Agent(args.agent_id, capabilities=(CAPABILITY,), slots=args.slots, prefetch=args.prefetch)

    @agent.handler()
    def spend(work: Work) -> dict[str, Any]:
        journal.write("begun", work.message_id, work.task_id, work.attempt)
        begun_at = time.time()
        time.sleep(work.data["seconds"])
        result = {
            "message": work.message_id,
            "agent": args.agent_id,
            "inputs": sorted(work.inputs),
            "begun_at": begun_at,
            "ended_at": time.time(),
        }
        journal.write("ended", work.message_id, work.task_id, json.dumps(result, separators=(",", ":")))
        return result

    asyncio.run(_run(agent, args.url))


async def _run(agent: Agent, url: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await agent.run(url, stop=stop, drain_timeout=0.5)


if __name__ == "__main__":
    main()
