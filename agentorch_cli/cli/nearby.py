"""Names for a completion that files of this machine hold: of the fleet that `up` runs, and of its logs.

Nothing is checked here: what is wrong with a file is for the command to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ID_KEYS = ("id", "agentId", "agent_id")


def processes(file: Path) -> dict[str, str]:
    """What `--restart` takes: the agents that a fleet's file runs, and the single processes of each."""
    found: dict[str, str] = {}
    for name, number in _run_by(file):
        found[name] = "its process" if number == 1 else f"its {number} processes"
        found |= {f"{name}-{one}": "" for one in range(1, number + 1) if number > 1}
    return found


def agents(file: Path) -> dict[str, str]:
    """What `--scale` takes: the agents that a fleet's file runs, and how many it says."""
    return {name: f"{number} in {file}" for name, number in _run_by(file)}


def logs(data_dir: Path) -> dict[str, str]:
    """What `logs` takes: agents that have written something, and their single processes."""
    from agentorch_cli.supervision.record import names_in

    found: dict[str, str] = {}
    for process in names_in(data_dir):
        agent, _, number = process.rpartition("-")
        if agent and number.isdecimal():
            found.setdefault(agent, "all its processes")
        found[process] = ""
    return found


def _run_by(file: Path) -> Iterator[tuple[str, int]]:
    for table in _tables(_read(file)):
        name = next((table[key] for key in ID_KEYS if isinstance(table.get(key), str)), None)
        number = table.get("replicas", 1)
        if name and ("exec" in table or "python" in table):
            yield name, number if isinstance(number, int) else 1


def _read(file: Path) -> Any:
    text = file.read_text("utf-8")
    if file.suffix == ".json":
        import json

        return json.loads(text)
    import tomllib

    return tomllib.loads(text)


def _tables(document: Any) -> Iterator[Mapping[str, Any]]:
    """Each agent, in any of the forms that a file has."""
    if isinstance(document, dict) and "agents" not in document and "agent" not in document:
        document = [document]
    if isinstance(document, dict):
        one, many = document.get("agent"), document.get("agents")
        document = [*([one] if one else []), *(many if isinstance(many, list) else [])]
    yield from (table for table in document if isinstance(table, dict))
