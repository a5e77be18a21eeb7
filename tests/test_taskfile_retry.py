"""`[task.retry.CODE]`: names of the author's own, and what may stand under them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from agentorch_cli.core.model import TaskSpec
from agentorch_cli.documents import Format, load_document
from agentorch_cli.errors import InvalidTask
from agentorch_cli.taskfile import read_tasks


def read(text: str) -> TaskSpec:
    numbers = itertools.count()
    document = load_document(text.encode(), Format.TOML, name="task.toml")
    return read_tasks(document, new_id=lambda: f"new-{next(numbers)}").tasks[0]


def test_codes_stay_as_they_are_and_keys_may_be_in_camel_case() -> None:
    task = read(
        '[task.retry.rateLimited]\nretries = 3\nmaxBackoff = "1m"\n[task.retry."max_backoff"]\nbackoff = 2'
    )

    assert task.retry == {
        "rateLimited": {"retries": 3, "max_backoff_seconds": 60.0},
        "max_backoff": {"backoff_seconds": 2.0},
    }


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        (
            "[task.retry.busy]\nbackof = 1",
            "2:1: task.retry.busy.backof",
            'unknown key (did you mean "backoff"?)',
        ),
        ("[task.retry.busy]\nmaxBackoff = 0", "2:1: task.retry.busy.maxBackoff", "longer than 0 seconds"),
        (
            "[task.retry.busy]\nmaxBackoff = 1\nmax_backoff = 1",
            "task.retry.busy.maxBackoff",
            "is another spelling of",
        ),
        ("[task.retry.busy]\nretries = 1001", "2:1: task.retry.busy.retries", "must be at most 1000"),
        ("[task]\nretry.busy = 3", "2:7: task.retry.busy", "must be a table"),
        ("[task]\nretry = 3", "2:1: task.retry", "must be a table"),
        ('[task.retry." "]\nretries = 1', "task.retry", "must not be blank"),
        ("[task]\nqueue_timeout = 0", "2:1: task.queue_timeout", "longer than 0 seconds"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, where: str, said: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        read(text)

    (error,) = caught.value.details["errors"]
    assert where in error["where"]
    assert said in error["message"]


def test_so_many_codes_have_rules_at_most() -> None:
    rules: Any = "\n".join(f"[task.retry.c{number}]" for number in range(65))

    with pytest.raises(InvalidTask, match="has more than 64"):
        read(rules)
