"""What serve writes to stderr."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from agentorch_cli import logs


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
