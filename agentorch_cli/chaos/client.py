"""A process that submits a workload with `agentorch task submit`, and writes down what it was told.

    python -m agentorch_cli.chaos.client client-1 --seed 7 --tasks 1000 --journal client-1.jsonl -- OPTIONS…

One batch goes for each line on stdin, so that whoever started it sets the pace. OPTIONS are put before every
command (`--data-dir DIR`). Its journal has:

    submitting  before a command: the names of the batch
    submitted   its answer: name, id and whether it is new, for each task
    unanswered  it failed, and may have stored everything or nothing: the same batch goes again
    cancelling, cancelled, kept
                before a task is called off; and whether it was

A killed client that is started again reads its journal and goes on with the first batch without an answer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agentorch_cli.chaos.journal import Journal, read
from agentorch_cli.chaos.workload import Batch, Workload

COMMAND_SECONDS = 60.0
PAUSE_SECONDS = 0.3
USELESS_CODES = (2, 4)
"""Exit codes that would be the same next time: the trial itself is wrong."""


class Client:
    """Submits batches one after the other, each until it has an answer."""

    def __init__(self, workload: Workload, journal: Journal, options: list[str]) -> None:
        self._workload = workload
        self._journal = journal
        self._options = options
        self._answered: set[int] = set()
        self._to_cancel: dict[str, str] = {}
        """Ids by name of tasks that are to be called off."""
        self._remember()

    def _remember(self) -> None:
        ids: dict[str, str] = {}
        for entry in read(self._journal.path):
            if entry["what"] == "submitted":
                self._answered.add(entry["batch"])
                ids |= {name: task_id for name, task_id, _ in entry["tasks"]}
            elif entry["what"] == "cancelling":
                self._to_cancel[entry["task"]] = entry["task"]
            elif entry["what"] in ("cancelled", "kept"):
                self._to_cancel.pop(entry["task"], None)

    def run(self) -> None:
        for task_id in list(self._to_cancel):
            self._cancel(task_id)
        for number, batch in enumerate(self._workload.batches()):
            if number in self._answered:
                continue
            if not sys.stdin.readline():
                return
            for task_id in self._submit(number, batch):
                self._cancel(task_id)

    def _submit(self, number: int, batch: Batch) -> list[str]:
        """Returns once it is stored; the ids of those that are to be called off."""
        self._journal.write({"what": "submitting", "batch": number, "names": [t["name"] for t in batch]})
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"tasks": batch}, file)
            file.flush()
            while (reply := self._command("task", "submit", file.name)) is None:
                self._journal.write({"what": "unanswered", "batch": number})
        told = [(one["name"], one["task_id"], one["is_new"]) for one in reply["tasks"]]
        self._journal.write({"what": "submitted", "batch": number, "tasks": told})
        ids = {name: task_id for name, task_id, _ in told}
        return [ids[task["name"]] for task in batch if task.get("labels")]

    def _cancel(self, task_id: str) -> None:
        self._journal.write({"what": "cancelling", "task": task_id})
        while (reply := self._command("task", "cancel", task_id)) is None:
            pass
        was_changed = task_id in reply.get("changed", ())
        self._journal.write({"what": "cancelled" if was_changed else "kept", "task": task_id})

    def _command(self, *arguments: str) -> Any:
        """What the program answers as JSON; None where it could not, after a pause."""
        try:
            done = subprocess.run(
                [sys.executable, "-m", "agentorch_cli", "--json", *self._options, *arguments],
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self._journal.write({"what": "hung", "command": list(arguments)})
            return None
        if done.returncode == 0 or (done.stdout and done.returncode in (8, 9)):
            return json.loads(done.stdout)
        if "Traceback" in done.stderr or done.returncode in USELESS_CODES:
            self._journal.write({"what": "failed", "code": done.returncode, "said": done.stderr[-4000:]})
        if done.returncode in USELESS_CODES:
            raise SystemExit(done.stderr)
        time.sleep(PAUSE_SECONDS)
        return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="agentorch_cli.chaos.client")
    parser.add_argument("name")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--voters", type=int, default=5)
    parser.add_argument("--journal", type=Path, required=True)
    mine, _, options = "\0".join(sys.argv[1:]).partition("\0--\0")
    arguments = parser.parse_args(mine.split("\0"))
    workload = Workload(
        arguments.name, arguments.seed, arguments.tasks, batch=arguments.batch, voters=arguments.voters
    )
    Client(workload, Journal(arguments.journal), options.split("\0") if options else []).run()


if __name__ == "__main__":
    main()
