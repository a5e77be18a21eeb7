"""Work on its way to the node of its agent, with all that is needed to send it.

Whoever assigns tells the agent's node (`engine/relay.py`). Of plain work it knows what that node would
read of it, and says it on a channel that only that node hears, in the same commit as the ids on
`agentorch_work`: what was said here need not be read. Nothing depends on it: what is too long, has
anything special about it, or was not heard (a node of an older version listens to no such channel) is
read by its id.

A payload is a list of records. One that begins with `{` is JSON and says what those behind it have in common;
the others are an attempt each, its parts in the order of `Order`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from agentorch_cli.core.backlog import Ready
from agentorch_cli.core.settle import MOST_BACKOFF
from agentorch_cli.store.literals import SEPARATOR
from agentorch_cli.store.records import Assignment, Claimed, Delivery
from agentorch_cli.store.store import MOST_HINTED, earliest

RECORD = "\x1e"
"""Between records. No id and no name holds it, and no JSON text holds it unescaped."""

PAUSES = {"backoff_seconds", "max_backoff_seconds"}
"""Options that plain work may have."""

KEPT = PAUSES | {"estimate_seconds"}
"""The same with those that are of no concern to the agent's node."""

LONGEST_CHANNEL = 63
"""Bytes of a channel's name."""


class Order(NamedTuple):
    """One attempt; what it has in common with others as JSON text, and its own parts."""

    common: str
    own: str
    size: int
    """Bytes of its own parts, and of what stands between."""


def channel_of(node_id: str) -> str | None:
    """Where a node hears of work for its agents; None where its name is too long for one."""
    channel = f"agentorch_orders_{node_id}"
    return channel if len(channel.encode()) <= LONGEST_CHANNEL else None


def order_of(task: Ready, assignment: Assignment, row: Claimed) -> Order | None:
    """What the agent's node is told of plain work; None where that is not said in a few words."""
    options = task.options
    if options.keys() - KEPT or task.brief is not None or assignment.role is not None or assignment.is_funded:
        return None
    parts = (
        assignment.message_id,
        assignment.agent_id,
        str(assignment.slot),
        task.task_id,
        row.name or "",
        row.data or "",
        row.inputs or "",
    )
    own = SEPARATOR.join(parts)
    if row.name == "" or own.count(SEPARATOR) != len(parts) - 1 or RECORD in own:
        return None
    common = _common(
        assignment.attempt,
        task.type,
        task.priority,
        tuple(task.required_capabilities),
        task.timeout_seconds,
        task.retries,
        task.failures,
        task.losses,
        options.get("backoff_seconds", 1.0),
        options.get("max_backoff_seconds", MOST_BACKOFF),
        task.max_agents == 1,
        task.has_dependents,
        task.want.pool,
        row.now,
        row.deadline,
    )
    size = (len(own) if own.isascii() else len(own.encode())) + 1
    return Order(common, own, size) if size + _bytes(common) < MOST_HINTED else None


def written(orders: Iterable[Order]) -> Iterator[str]:
    """Payloads that say them, in their order."""
    records: list[str] = []
    size, common = 0, ""
    for order in orders:
        length = order.size
        before = _bytes(order.common) if order.common != common else 0
        if records and size + before + length > MOST_HINTED:
            yield RECORD.join(records)
            records, size, before = [], 0, _bytes(order.common)
        if before:
            records.append(order.common)
            common = order.common
        records.append(order.own)
        size += before + length
    if records:
        yield RECORD.join(records)


def read(payload: str, node_id: str) -> Iterator[Delivery]:
    """The attempts in a payload, for agents of this node. Raises ValueError, KeyError and TypeError."""
    common: dict[str, Any] = {}
    deadline: datetime | None = None
    for record in payload.split(RECORD):
        if record.startswith("{"):
            common = orjson.loads(record)
            ends = common["task_deadline"]
            deadline = earliest(
                datetime.fromisoformat(common["sent_at"]),
                common["timeout_seconds"],
                datetime.fromisoformat(ends) if ends is not None else None,
            )
            continue
        message_id, agent_id, slot, task_id, name, data, inputs = record.split(SEPARATOR)
        yield Delivery(
            message_id,
            task_id,
            agent_id,
            common["attempt"],
            int(slot),
            None,
            node_id,
            common["type"],
            common["priority"],
            common["required_capabilities"],
            common["timeout_seconds"],
            common["retries"],
            common["failures"],
            common["losses"],
            common["backoff_seconds"],
            common["max_backoff_seconds"],
            False,
            common["is_simple"],
            common["has_dependents"],
            common["pool"],
            data or None,
            inputs or None,
            name or None,
            deadline=deadline,
        )


@lru_cache(maxsize=256)
def _common(
    attempt: int,
    type: str,
    priority: int,
    required_capabilities: Sequence[str],
    timeout_seconds: float,
    retries: int,
    failures: int,
    losses: int,
    backoff_seconds: float,
    max_backoff_seconds: float,
    is_simple: bool,
    has_dependents: bool,
    pool: str,
    sent_at: datetime,
    task_deadline: datetime | None,
) -> str:
    """What many attempts of one moment have in common."""
    return orjson.dumps(
        {
            "attempt": attempt,
            "type": type,
            "priority": priority,
            "required_capabilities": required_capabilities,
            "timeout_seconds": timeout_seconds,
            "retries": retries,
            "failures": failures,
            "losses": losses,
            "backoff_seconds": backoff_seconds,
            "max_backoff_seconds": max_backoff_seconds,
            "is_simple": is_simple,
            "has_dependents": has_dependents,
            "pool": pool,
            "sent_at": sent_at,
            "task_deadline": task_deadline,
        }
    ).decode()


@lru_cache(maxsize=256)
def _bytes(common: str) -> int:
    """With what stands behind it."""
    return len(common.encode()) + 1
