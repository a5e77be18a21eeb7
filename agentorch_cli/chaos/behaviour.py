"""What an agent of a trial does with a task: everything stands in the task's data.

    {"ms": 5}                                    takes five milliseconds
    {"ms": 5, "spread": 400, "salt": 7}          some agents take up to 400 more
    {"ms": 5, "fails": 2}                        the first two attempts bring an error
    {"ms": 5, "fatal": true}                     every attempt says that another one would be of no use
    {"ms": 5, "choices": ["a", "b"], "salt": 7}  a ballot: the same agent always says the same
    {"ms": 5, "most": 1000, "salt": 7}           a number, likewise
    {"ms": 5, "children": 3}                     submits three sub-tasks and waits for them
    {"ms": 5, "usd": 0.01}                       says that it used a cent, however it ends

A result names the attempt that made it, and no two runs of one attempt give equal results: so it can be
told which one was taken.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from typing import Any

CAPABILITY = "chaos"

_runs = itertools.count(1)


class Refused(Exception):
    """The attempt fails, as its data says."""

    def __init__(self, is_fatal: bool) -> None:
        self.is_fatal = is_fatal
        super().__init__("it was told to fail")

    def to_wire(self) -> dict[str, Any]:
        return {"message": str(self), "code": "told_to_fail", "retryable": not self.is_fatal}


def seconds_of(agent_id: str, data: dict[str, Any]) -> float:
    """How long the work takes."""
    more = chosen(agent_id, data["salt"], int(data["spread"])) if "spread" in data else 0
    return (float(data.get("ms", 0)) + more) / 1000


def usage_of(data: dict[str, Any]) -> dict[str, Any] | None:
    """What the attempt says that it used."""
    return {"costUsd": data["usd"]} if "usd" in data else None


def children_of(task_id: str, data: dict[str, Any]) -> list[dict[str, Any]]:
    """The sub-tasks to submit, as in a task file; asking twice makes none twice."""
    return [
        {
            "type": "plain",
            "required_capabilities": [CAPABILITY],
            "idempotency_key": f"{task_id}/{number}",
            "backoff": 0.05,
            "data": {"ms": data.get("ms", 0), "of": task_id, "number": number},
        }
        for number in range(int(data.get("children", 0)))
    ]


def result_of(agent_id: str, message_id: str, attempt: int, data: dict[str, Any]) -> Any:
    """What the attempt brings. Raises Refused."""
    if data.get("fatal"):
        raise Refused(is_fatal=True)
    if attempt <= int(data.get("fails", 0)):
        raise Refused(is_fatal=False)
    if "most" in data:
        return chosen(agent_id, data["salt"], int(data["most"]))
    result = {"by": agent_id, "message": message_id, "run": f"{os.getpid()}-{next(_runs)}"}
    if "choices" in data:
        result["answer"] = data["choices"][chosen(agent_id, data["salt"], len(data["choices"]))]
    return result


def chosen(agent_id: str, salt: int, most: int) -> int:
    """0 up to `most`, small ones more often: agents should agree now and then."""
    number = int.from_bytes(hashlib.sha256(f"{agent_id} {salt}".encode()).digest()[:6]) / 2**48
    return int(number**2 * most)
