"""What is written to stderr while the engine runs: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from agentorch_cli.redaction import redact
from agentorch_cli.text import one_line, visible

MAX_TRACEBACK = 100_000
"""Characters of a line with its traceback."""

NOISY = ("agentorch.websockets", "asyncpg", "asyncio")
"""Loggers of libraries that write tracebacks for what is handled here."""


class Plain(logging.Formatter):
    """One line for each message; a traceback keeps its lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        text = redact(super().format(record))
        return one_line(text) if record.exc_info is None else visible(text, MAX_TRACEBACK)


class Json(logging.Formatter):
    """The same facts as one JSON object; times are ISO 8601 in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": one_line(redact(record.getMessage())),
        }
        if record.exc_info:
            facts["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(facts)


def configure(level: str, form: str) -> None:
    """Send agentorch's logs to stderr. `form` is `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if form == "json" else Plain())
    root = logging.getLogger("agentorch")
    root.handlers = [handler]
    root.propagate = False
    root.setLevel(level.upper())
    hush()


def hush() -> None:
    """Let libraries say nothing of what is handled here. A program that configures no logs needs it, too:
    without it Python writes their warnings, with tracebacks, to stderr."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
