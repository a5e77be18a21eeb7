"""A town: a real `serve`, and people who attach to it in terminals of their own."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pexpect

from agentorch_cli.config import load_settings
from agentorch_cli.documents import Document
from agentorch_cli.identity import new_id_text
from agentorch_cli.taskfile import read_tasks
from agentorch_cli.wiring import open_client
from bench.fleet.processes import PROGRAM, Serve

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Town:
    """What a test needs of it."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        settings = load_settings({"data_dir": str(serve.data_dir)}, {}, None, serve.data_dir.parent)
        self._client = self._runner.run(self._stack.enter_async_context(open_client(settings)))
        self._people: list[pexpect.spawn[str]] = []
        self.environment = {
            **{key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ},
            "HOME": str(serve.data_dir.parent),
            "AGENTORCH_DATA_DIR": str(serve.data_dir),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm-256color",
        }

    def ask(self, method: str, **parameters: Any) -> Any:
        return self._runner.run(self._client.call(method, **parameters))

    def submit(self, **task: Any) -> str:
        """One task, as in a task file; gives its id."""
        file = read_tasks(Document([{"timeout": "1h", **task}], "test"), new_id=new_id_text)
        reply = self.ask("task.submit", tasks=file.tasks)
        return str(reply.tasks[0].task_id)

    def outcome(self, task_id: str) -> Any:
        self.ask("task.wait", task_ids=[task_id], timeout_seconds=10)
        return self.ask("task.get", task_id=task_id)

    def until(self, what: str, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + 10
        while not (found := condition()):
            assert time.monotonic() < end, f"not in time: {what}"
            time.sleep(0.02)
        return found

    def command(self, name: str, *options: str) -> list[str]:
        return [*PROGRAM, "agent", "attach", name, *options, "--url", self.serve.url]

    def attach(self, name: str, *options: str, **environment: str) -> pexpect.spawn[str]:
        """A person in a terminal of 80 columns, connected."""
        command = self.command(name, *options)
        child = pexpect.spawn(
            command[0],
            command[1:],
            env=self.environment | environment,
            encoding="utf-8",
            timeout=10,
            dimensions=(30, 80),
        )
        self._people.append(child)
        child.expect("connected to")
        child.expect(r"\(waiting\) ")
        return child

    def pipe(self, name: str, *options: str) -> subprocess.Popen[str]:
        """A program in place of a person."""
        return subprocess.Popen(
            self.command(name, *options),
            env=self.environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def everybody_leaves(self) -> None:
        for child in self._people:
            child.close(force=True)
        self._people.clear()
        open_tasks = self.ask("task.list", status=["pending", "running"])
        if open_tasks:
            self.ask("task.cancel", task_ids=[one.task_id for one in open_tasks])
        for one in self.ask("consensus.list"):
            if one.decided_at is None:
                self.ask("consensus.close", decision_id=one.decision_id)

    def close(self) -> None:
        self.everybody_leaves()
        self._runner.run(self._stack.aclose())
        self._runner.close()


def plain(shown: str) -> str:
    """What a terminal showed, without colours and cursor moves."""
    return CODES.sub("", shown)
