"""Tasks and agents as requests write them: what is read at the far side is what was meant at the near one."""

from __future__ import annotations

import json
import re
from itertools import count
from pathlib import Path

import pytest

from agentorch_cli.core.model import AgentSpec, TaskSpec
from agentorch_cli.core.plan import plan
from agentorch_cli.documents import load_document
from agentorch_cli.errors import OrchestratorError
from agentorch_cli.handlers import HANDLERS
from agentorch_cli.handlers.wire import operation, read_parameters, write_parameters
from agentorch_cli.messages import TASKS
from agentorch_cli.settings import Settings
from agentorch_cli.taskfile import read_agents, read_tasks, task_defaults

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(toml|json|jsonl)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sent(method: str, **parameters: object) -> dict[str, object]:
    """What arrives of parameters that went over the wire."""
    known = operation(method)
    assert known is not None
    raw = json.loads(json.dumps(write_parameters(method, parameters)))
    return read_parameters(
        method, known, raw, {"timeout_seconds": 1.0, "retries": 99, "backoff_seconds": 9.0}
    )


def tasks_of(path: Path) -> list[TaskSpec]:
    numbers = count()
    defaults = task_defaults(Settings())
    file = read_tasks(load_document(path), new_id=lambda: f"t{next(numbers)}", defaults=defaults)
    return list(plan(file.tasks, where=file.where).tasks)


def test_every_task_that_the_pages_show_arrives_as_it_was_meant(tmp_path: Path) -> None:
    files = sorted((ROOT / "examples" / "tasks").iterdir())
    blocks = [(page, *block) for page in PAGES for block in BLOCK.findall(page.read_text())]
    for number, (page, kind, text) in enumerate(blocks):
        files.append(tmp_path / f"{page.stem}-{number}.{kind}")
        files[-1].write_text(text)
    for path in files:
        try:
            tasks = tasks_of(path)
        except OrchestratorError:
            continue  # no tasks, but a configuration, or a mistake that is shown as one
        assert sent("task.submit", tasks=tasks)["tasks"] == tasks, path.name


def test_a_task_with_everything_arrives_as_it_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text("""
[[tasks]]
id = "a"
name = "first"
deadline = "2030-01-31T12:00:00+02:00"
run_at = 2029-01-31T12:00:00Z
coverage = "team"
required_capabilities = ["x", "y"]
max_agents = 2
aggregate = "merge"
idempotency_key = "k"
budget = {cost_usd = 1.5, tokens = 100}
type = "t"
priority = 9
timeout = "9m"
queue_timeout = "2h"
estimate = "90s"
retries = 7
concurrency_key = "c"
pool = "gpu"
concurrency_limit = 3
labels = {a = "b"}
traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
retry.rate_limited = {retries = 3, backoff = "5s"}
result_schema = {type = "object", required = ["b", "a"]}
[[tasks]]
id = "b"
depends_on = ["first"]
on_dependency_failure = "run"
on_deadlock = "report"
delay = "5s"
deadline = "2h"
backoff = 0
max_backoff = "1m"
verifies = "first"
data = {moment = 1979-05-27T07:32:00Z, big = 9223372036854775807, text = "\\u00e4"}
[[tasks]]
consensus = {adaptive = 0.9, cap = 9, tolerance = {abs = 1, rel = 0.1}, options = [1, "x"], vote_on = "/a"}
""")
    tasks = tasks_of(path)

    assert sent("task.submit", tasks=tasks, allow_forward=True) == {"tasks": tasks, "allow_forward": True}
    written = write_parameters("task.submit", {"tasks": tasks})["tasks"]
    assert TASKS.keys - {key for one in written for key in one} == {"requires_consensus"}, "show it above"


def test_agents_arrive_as_they_were_meant() -> None:
    agents = read_agents(load_document(ROOT / "examples" / "agents.toml"))
    agents.append(AgentSpec("x", "t", ("a", "b"), 7, {"n": [1, {"m": None}]}, "echo 1"))

    assert sent("agent.register", agents=agents) == {"agents": agents}


@pytest.mark.parametrize("method", HANDLERS)
def test_every_operation_can_be_written_as_json(method: str) -> None:
    known = operation(method)

    assert known is not None
    assert known.answer is not None
    assert all(isinstance(name, str) for name in known.parameters)
