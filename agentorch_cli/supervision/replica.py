"""The process of one agent: told on stdin who it is, and gone when whoever told it is gone.

The first line of stdin is a JSON object; the rest of stdin never comes. Its end means that the
supervisor has died: then nobody would ever stop this process, so it stops itself at once. How the
connection stands is told, a JSON object a line, to the descriptor that the first line names. The
token comes with the first line too, so neither the agent's code nor `ps` finds it in the
environment or among the arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from agentorch_cli.agents.agent import Agent
from agentorch_cli.agents.runners import exec_handler, python_handler
from agentorch_cli.agents.worker import run_worker
from agentorch_cli.errors import OrchestratorError
from agentorch_cli.text import one_line
from agentorch_cli.tls import context_for, own_context


def main() -> NoReturn:
    """Read who it is, and be it."""
    line = sys.stdin.buffer.readline()
    if not line:  # the supervisor died before it said anything
        sys.exit(1)
    told = json.loads(line)
    lifeline = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # the agent's own code finds an empty stdin
    os.close(null)
    os.set_inheritable(told["tell"], False)
    for name in ("stdout", "stderr"):
        getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        sys.exit(asyncio.run(_work(told, lifeline)))
    except OrchestratorError as error:
        print(f"error: {one_line(error)}", file=sys.stderr, flush=True)  # noqa: T201  read by the supervisor
        sys.exit(error.exit_code)
    except asyncio.CancelledError:
        sys.exit(1)


async def _work(told: dict[str, Any], lifeline: int) -> int:
    """Serve until a signal, or until the lifeline ends; 0 after the first signal."""
    agent = Agent(**told["agent"])
    handler = (
        exec_handler(told["exec"], env_allow=told["env"], output_limit=told["output_limit"])
        if told["exec"] is not None
        else python_handler(told["python"])
    )
    task = asyncio.current_task()
    assert task is not None

    def tell(state: str, reason: str) -> None:
        with contextlib.suppress(OSError):
            os.write(told["tell"], json.dumps({"state": state, "reason": reason}).encode() + b"\n")

    asyncio.get_running_loop().add_reader(lifeline, task.cancel)
    tls = own_context(Path(told["own"])) if told["own"] else context_for(told["url"], _path(told["ca"]))
    await run_worker(
        agent,
        handler,
        url=told["url"],
        token=told["token"],
        on_connection=tell,
        drain_timeout=told["drain_timeout"],
        tls=tls,
    )
    return 0


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)
