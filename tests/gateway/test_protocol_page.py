"""docs/protocol.md says what the code does: its examples fit the schema, and its programs run."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from frame_schema import SCHEMA, faults

from agentorch_cli import frames
from agentorch_cli.errors import OrchestratorError
from agentorch_cli.gateway.server import MOST_REFUSED
from agentorch_cli.gateway.session import MOST_IN_OUTBOX, WRITE_LIMIT
from agentorch_cli.payloads import MAX_DEPTH

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
FROM_AGENT, FROM_ENGINE = PAGE.split("## Agent to engine")[1].split("## Engine to agent")
FROM_ENGINE = FROM_ENGINE.split("## Promises")[0]
WORK = {"required_capabilities": ["count"], "data": {"text": "one two three"}}

START_SECONDS = 60.0
"""For an interpreter to start and do the first task, on a machine that has other things to do."""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def examples(text: str) -> list[dict[str, Any]]:
    return [json.loads(block) for block in blocks(text, "json")]


@pytest.mark.parametrize("frame", examples(FROM_AGENT), ids=lambda frame: frame["type"])
def test_examples_from_agents_fit_the_schema_and_the_models(frame: dict[str, Any]) -> None:
    assert not faults({"$ref": "#/$defs/fromAgent"}, frame, SCHEMA)
    read = frames.read_frame(frame)
    assert set(frame) <= {field.alias for field in type(read).model_fields.values()}


@pytest.mark.parametrize(
    "frame", examples(FROM_ENGINE), ids=lambda frame: frame.get("messageType", frame["type"])
)
def test_examples_from_the_engine_fit_the_schema(frame: dict[str, Any]) -> None:
    assert not faults({"$ref": "#/$defs/fromEngine"}, frame, SCHEMA)
    assert faults({"$ref": "#/$defs/fromEngine"}, frame | {"type": "other"}, SCHEMA)


def test_every_frame_has_an_example_and_every_field_of_an_agents_frame_is_shown() -> None:
    shown = examples(FROM_AGENT)
    assert {frame["type"] for frame in shown} == set(frames.KINDS)
    for kind in frames.KINDS:
        model = type(frames.read_frame(next(frame for frame in shown if frame["type"] == kind)))
        text = FROM_AGENT.split(f"### `{kind}`")[1].split("\n### ")[0]
        for field in model.model_fields.values():
            assert field.alias is not None
            assert field.alias in text, f"{kind}.{field.alias} is not on the page"
    messages = {frame.get("messageType") for frame in examples(FROM_ENGINE)} - {None}
    said = json.dumps(SCHEMA)
    assert all(f'"{message}"' in said for message in messages)
    assert len(messages) == 6


def test_the_conversation_is_one_that_could_be_had() -> None:
    [talk] = [block for block in blocks(PAGE, "text") if block.startswith("> ")]
    for line in talk.splitlines():
        side = "fromAgent" if line.startswith("> ") else "fromEngine"
        assert not faults({"$ref": f"#/$defs/{side}"}, json.loads(line[2:]), SCHEMA), line


def test_the_numbers_on_the_page_are_those_of_the_code() -> None:
    register = frames.Register.model_fields
    said = " ".join(PAGE.split())

    assert f"{MAX_DEPTH} levels" in said
    assert f"after {MOST_REFUSED} the rest" in said
    assert f"({MOST_IN_OUTBOX >> 20} MiB)" in said
    assert f"one write takes longer than {WRITE_LIMIT:.0f} s" in said
    assert f"at most {frames.MAX_METADATA >> 10} KiB" in said
    assert "1 to 10,000 = 1" in said
    assert any(getattr(bound, "le", None) == 10_000 for bound in register["slots"].metadata)
    assert any(getattr(bound, "max_length", None) == 1000 for bound in register["capabilities"].metadata)


def test_every_error_code_on_the_page_is_one_of_the_code() -> None:
    def codes(kind: type[OrchestratorError]) -> set[str]:
        return {kind.code}.union(*(codes(one) for one in kind.__subclasses__()))

    table = PAGE.split("| `code` | when |")[1].split("| close |")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) <= codes(OrchestratorError) | {"not_stored"}


@pytest.mark.parametrize("language", ["python", "javascript"])
async def test_the_programs_on_the_page_are_agents(
    orchestrator: Any, outcome: Any, language: str, tmp_path: Path
) -> None:
    [program] = blocks(PAGE, language)
    assert "ws://127.0.0.1:3001/agents" in program
    file = tmp_path / "agent.mjs"
    file.write_text(program.replace("ws://127.0.0.1:3001/agents", orchestrator.url))
    command = [sys.executable, str(file)] if language == "python" else [*node(), str(file)]

    process = await asyncio.create_subprocess_exec(*command)
    try:
        good = (await orchestrator.submit(WORK)).task_id
        bad = (await orchestrator.submit(WORK | {"data": {}, "retries": 0})).task_id
        assert (await outcome(good, START_SECONDS)).result == {"words": 3}
        assert (await outcome(bad)).status == "failed"
    finally:
        process.kill()
        await process.wait()


async def test_the_command_on_the_page_is_an_agent(orchestrator: Any, outcome: Any) -> None:
    [command] = blocks(PAGE, "sh")
    assert command.startswith("agentorch agent run shell-1 -c count --exec ")
    command = command.replace("agentorch ", f"exec '{sys.executable}' -m agentorch_cli ", 1)

    process = await asyncio.create_subprocess_shell(
        f"{command.rstrip()} --url {orchestrator.url}", stderr=asyncio.subprocess.DEVNULL
    )
    try:
        task_id = (await orchestrator.submit(WORK)).task_id
        assert (await outcome(task_id, START_SECONDS)).result == {"words": 3}
    finally:
        process.terminate()
        await process.wait()


def node() -> list[str]:
    """A Node that has WebSocket; skips where there is none."""
    program = shutil.which("node")
    for options in ([], ["--experimental-websocket"]) if program else ():
        command = [str(program), *options]
        try:
            found = subprocess.run(
                [*command, "-e", "new WebSocket('ws://127.0.0.1:9').onerror = () => {}"],
                capture_output=True,
                timeout=10,
            )
        except subprocess.TimeoutExpired:
            continue
        if found.returncode == 0:
            return command
    pytest.skip("there is no Node with WebSocket here")
