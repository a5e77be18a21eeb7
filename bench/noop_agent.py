"""An agent process that answers every task at once: what is left is the engine's own cost."""

from __future__ import annotations

import argparse
import contextlib

import uvloop

from agentorch_cli import Agent, Work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("agent_id")
    parser.add_argument("--slots", type=int, default=500)
    parser.add_argument("--single", action="store_true", help="one message a frame")
    args = parser.parse_args()
    agent = Agent(args.agent_id, capabilities=("noop",), slots=args.slots, batch=not args.single)

    @agent.handler(inline=True)
    def answer(work: Work) -> dict[str, int]:
        return {"ok": 1}

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(agent.run(args.url))


if __name__ == "__main__":
    main()
