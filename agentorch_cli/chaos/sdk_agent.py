"""An agent of a trial that is made with the SDK, as users make theirs, and keeps the same journal.

python -m agentorch_cli.chaos.sdk_agent ws://127.0.0.1:3001/agents agent-2 --slots 4 --journal agent-2.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path
from typing import Any

from agentorch_cli.agents import agent as agent_room
from agentorch_cli.agents.agent import Agent
from agentorch_cli.agents.desk import Desk
from agentorch_cli.agents.outbox import Outbox
from agentorch_cli.agents.work import Work, WorkFailed
from agentorch_cli.chaos.behaviour import CAPABILITY, Refused, children_of, result_of, seconds_of, usage_of
from agentorch_cli.chaos.journal import Journal


def make_agent(agent_id: str, slots: int, journal: Journal) -> Agent:
    """The agent, with a journal of what it is told and says."""
    agent = Agent(agent_id, type="chaos", capabilities=(CAPABILITY,), slots=slots)

    @agent.handler()
    async def work(work: Work) -> Any:
        data = work.data or {}
        place = {"message": work.message_id, "task": work.task_id}
        try:
            work.usage = usage_of(data)
            await asyncio.sleep(seconds_of(agent_id, data))
            asked = [work.submit(task) for task in children_of(work.task_id, data)]
            for one in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(one, BaseException) and not isinstance(one, WorkFailed):
                    raise one
            result = result_of(agent_id, work.message_id, work.attempt, data)
        except Refused as error:
            journal.write({"what": "result", **place, "error": error.to_wire()})
            raise WorkFailed(str(error), "told_to_fail", not error.is_fatal) from None
        journal.write({"what": "result", **place, "result": result})
        return result

    return agent


def listening(slots: int, journal: Journal) -> type[Desk]:
    """A desk that writes down what the SDK keeps to itself."""

    class ListeningDesk(Desk):
        def online(self, outbox: Outbox, dropped: list[str]) -> None:
            journal.write({"what": "registered", "slots": slots, "dropped": list(dropped)})
            super().online(outbox, dropped)

        def receive(self, message: Any) -> None:
            data = message.get("data") or {}
            match message.get("type"), message.get("messageType"):
                case "ack", _:
                    journal.write({"what": "acked", "message": message["messageId"]})
                case "agent_message", "execute_task":
                    what = {"what": "received", "message": message["messageId"], "task": data["taskId"]}
                    journal.write({**what, "attempt": data["attempt"], "inputs": sorted(data["inputs"])})
                case "agent_message", "cancel_task":
                    journal.write({"what": "cancelled", "message": data["messageId"]})
                case "agent_message", "subtask_submitted":
                    journal.write({"what": "submitted", "task": data["taskId"]})
                case "agent_message", "subtask_finished":
                    journal.write({"what": "finished", "task": data["taskId"], "status": data["status"]})
            super().receive(message)

    return ListeningDesk


async def _main(arguments: argparse.Namespace) -> None:
    journal = Journal(arguments.journal)
    agent_room.Desk = listening(arguments.slots, journal)  # type: ignore[attr-defined]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    agent = make_agent(arguments.agent_id, arguments.slots, journal)
    await agent.run(arguments.url, stop=stop, drain_timeout=0.2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="agentorch_cli.chaos.sdk_agent")
    parser.add_argument("url")
    parser.add_argument("agent_id")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--journal", type=Path, required=True)
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
