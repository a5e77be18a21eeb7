"""The team of the examples runs as shipped: the commands of examples/README.md, with a port that is free."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.fleet.processes import PROGRAM, Serve, new_data_dir, remove

ROOT = Path(__file__).parents[2]
TASK = "examples/tasks/footbridge.toml"


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    data_dir = new_data_dir()
    node = Serve(data_dir)
    node.start()
    try:
        told(node, "agent", "register", "--from", "examples/agents.toml")
        yield node
    finally:
        node.stop()
        remove(data_dir)


def agentorch(serve: Serve, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, "--data-dir", str(serve.data_dir), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def told(serve: Serve, *arguments: str) -> Any:
    done = agentorch(serve, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_construction_agent_and_a_quantum_agent_plan_the_footbridge(serve: Serve) -> None:
    readme = (ROOT / "examples" / "README.md").read_text()
    (submit,) = re.findall(r"#   agentorch (task submit .*)", (ROOT / TASK).read_text())
    assert "agentorch agent register --from examples/agents.toml" in readme
    assert {"estimator", "optimiser"} <= set(re.findall(r"for agent in (.*); do", readme)[0].split())
    agents = [
        subprocess.Popen([sys.executable, f"examples/agents/{name}.py", "--url", serve.url], cwd=ROOT)
        for name in ("estimator", "optimiser")
    ]
    try:
        (task,) = told(serve, *submit.split())
    finally:
        for agent in agents:
            agent.terminate()
        for agent in agents:
            agent.wait(10)

    assert task["status"] == "completed"
    assert sorted(task["assigned_agents"]) == ["estimator", "optimiser"]
    cost, plan = task["result"]["cost_estimation"], task["result"]["optimization"]
    assert set(task["result"]) == {"cost_estimation", "optimization"}
    assert (cost["kind"], plan["kind"]) == ("estimate", "loads")
    assert cost["total"] > cost["net"] > sum(plan["worth"])
    shown = told(serve, "task", "show", task["task_id"])
    roles = {one["agent_id"]: one["role"] for one in shown["attempts"] if one["status"] == "completed"}
    assert roles == {"estimator": "cost_estimation", "optimiser": "optimization"}


def test_the_same_task_without_the_word_team_says_how_to_ask(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "alone.toml"
    file.write_text((ROOT / TASK).read_text().replace('coverage = "team"', 'id = "alone"'))

    dry = agentorch(serve, "task", "submit", "--dry-run", str(file))
    sent = agentorch(serve, "task", "submit", str(file))

    advice = (
        "no single agent has cost_estimation and optimization; estimator and optimiser together do:"
        ' say coverage = "team", and each gets the task with its part of it as its role'
    )
    assert advice in dry.stderr
    assert advice in sent.stderr
    assert advice in agentorch(serve, "task", "why", "alone").stdout


def test_a_team_cannot_vote(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "vote.toml"
    file.write_text('[task]\nrequired_capabilities = ["a"]\ncoverage = "team"\nrequires_consensus = true\n')

    done = agentorch(serve, "task", "submit", str(file))

    assert done.returncode == 2
    assert "task.coverage: team does not go with a vote" in done.stderr
    assert "vote.toml:3:1" in done.stderr
