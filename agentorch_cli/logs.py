"""What is written to stderr while the engine runs: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from agentorch_cli.redaction import redact
from agentorch_cli.text import one_line, visible

MAX_TRACEBACK = 100_000
"""Characters of a line with its traceback."""

NOISY = ("agentorch.websockets", "asyncpg", "asyncio", "opentelemetry")
"""Loggers of libraries that write tracebacks for what is handled here."""


FIELDS: Final = ("task", "agent", "attempt", "node")
"""What a line may be about; `attempt` is its message id."""

about_work: ContextVar[tuple[str, str, str] | None] = ContextVar("about_work", default=None)
"""Agent, task and attempt whose handler runs in this context: lines that it causes are about them."""

_node: str | None = None


def facts(*, task: str | None = None, agent: str | None = None, attempt: str | None = None) -> dict[str, Any]:
    """`extra=` of a line: what it is about, as far as its author knows that."""
    found = {"task": task, "agent": agent, "attempt": attempt}
    return {"facts": {name: value for name, value in found.items() if value is not None}}


def name_node(node_id: str) -> None:
    """Lines are of this node from now on."""
    global _node
    _node = node_id


def facts_of(record: logging.LogRecord) -> dict[str, str]:
    """What a line is about."""
    work = about_work.get()
    found = dict(zip(("agent", "task", "attempt"), work, strict=True)) if work is not None else {}
    found |= getattr(record, "facts", {})
    if _node is not None:
        found["node"] = _node
    return {name: one_line(found[name]) for name in FIELDS if name in found}


class Plain(logging.Formatter):
    """One line for each message; a traceback keeps its lines. What the message does not say follows it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name that logging calls
        text = super().formatMessage(record)
        about = facts_of(record)
        about.pop("node", None)
        untold = [f"{name}={value}" for name, value in about.items() if value not in text]
        return f"{text} [{' '.join(untold)}]" if untold else text

    def format(self, record: logging.LogRecord) -> str:
        text = redact(super().format(record))
        return one_line(text) if record.exc_info is None else visible(text, MAX_TRACEBACK)


class Json(logging.Formatter):
    """The same as one JSON object with the fields that are known; times are ISO 8601 in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": one_line(redact(record.getMessage())),
            **facts_of(record),
        }
        if record.exc_info:
            line["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(line)


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
