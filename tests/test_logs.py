"""What serve writes to stderr."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentorch_cli import Agent, WorkFailed, logs
from agentorch_cli.config import load_settings


@pytest.fixture(autouse=True)
def restored() -> object:
    logger = logging.getLogger("agentorch")
    before = (logger.handlers, logger.propagate, logger.level)
    yield
    logger.handlers, logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


def test_a_line_of_json_holds_the_facts_and_no_terminal_codes(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")

    logging.getLogger("agentorch.desk").warning("agent %s is \x1b[31mred", "a1")

    line = json.loads(capsys.readouterr().err)
    assert line["level"] == "warning"
    assert line["logger"] == "agentorch.desk"
    assert line["message"] == "agent a1 is \\x1b[31mred"
    assert line["at"].endswith("+00:00")


def test_a_line_says_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    about = logs.facts(task="t\x1b1", agent="a1", attempt="m1")

    logging.getLogger("agentorch.settler").info("stored", extra=about)
    logging.getLogger("agentorch.settler").info("nothing special", extra=logs.facts())

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (lines[0]["task"], lines[0]["agent"], lines[0]["attempt"]) == ("t\\x1b1", "a1", "m1")
    assert lines[1].keys() & set(logs.FIELDS) <= {"node"}


def test_text_tells_what_the_message_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")

    logging.getLogger("agentorch.settler").info("task t1 failed", extra=logs.facts(task="t1", attempt="m1"))

    assert capsys.readouterr().err.endswith("task t1 failed [attempt=m1]\n")


def test_what_a_handler_logs_is_about_its_work(capsys: pytest.CaptureFixture[str]) -> None:
    import contextvars

    logs.configure("info", "json")

    def handler() -> None:
        logs.about_work.set(("a1", "t1", "m1"))
        logging.getLogger("agentorch.agent").info("half way")

    contextvars.copy_context().run(handler)
    logging.getLogger("agentorch.agent").info("outside")

    inside, outside = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (inside["agent"], inside["task"], inside["attempt"]) == ("a1", "t1", "m1")
    assert "task" not in outside


async def test_lines_of_an_engine_name_its_node_and_its_agents(
    start_engine: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    orchestrator = await start_engine()
    logs.configure("info", "json")
    agent = Agent("writer", capabilities=["work"])

    async def fails(work: Any) -> None:
        logging.getLogger("agentorch.agent").warning("no ink")
        raise WorkFailed("no ink", retryable=False)

    agent.add_handler(fails)
    running = asyncio.create_task(agent.run(orchestrator.url, drain_timeout=0.0))
    handle = await orchestrator.submit({"id": "letter", "required_capabilities": ["work"]})
    await handle.wait(10)
    again = asyncio.create_task(Agent("writer", capabilities=["work"]).run(orchestrator.url))
    written = ""
    async with asyncio.timeout(10):
        while "agentorch.gateway" not in written:
            await asyncio.sleep(0.01)
            written += capsys.readouterr().err
    logging.getLogger("agentorch").setLevel(logging.CRITICAL)
    for one in (running, again):
        one.cancel()
    await asyncio.gather(running, again, return_exceptions=True)

    lines = [json.loads(line) for line in written.splitlines()]
    said = next(line for line in lines if line["message"] == "no ink")
    assert (said["agent"], said["task"], said["node"]) == ("writer", "letter", orchestrator.store.node_id)
    assert len(said["attempt"]) == 36
    anew = next(line for line in lines if line["logger"] == "agentorch.gateway")
    assert (anew["agent"], anew["node"]) == ("writer", orchestrator.store.node_id)


def test_a_variable_chooses_the_form(tmp_path: Path) -> None:
    environ = {
        "AGENTORCH_LOG_FORMAT": "json",
        "AGENTORCH_LOG_LEVEL": "debug",
        "XDG_CONFIG_HOME": str(tmp_path),
    }

    settings = load_settings({}, environ, None, tmp_path)

    assert (settings.logging.format, settings.logging.level) == ("json", "debug")
    assert settings.origin("logging.format") == "environment AGENTORCH_LOG_FORMAT"


def test_a_line_of_text_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")

    logging.getLogger("agentorch.desk").info("first\nsecond")
    logging.getLogger("agentorch.desk").debug("not urgent enough")

    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert "INFO agentorch.desk: first\\nsecond" in written


def test_a_command_keeps_to_itself_what_a_library_says_of_a_lost_connection() -> None:
    program = """
import logging
from agentorch_cli.cli.session import Session

async def work():
    logging.getLogger("asyncpg.pool").error("Failed to restore the pool connection floor", exc_info=OSError())

Session().run(work())
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
