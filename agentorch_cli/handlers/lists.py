"""What the lists have in common: labels, and times on the database's clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from agentorch_cli.core.hints import shortened
from agentorch_cli.core.moments import parse_moment
from agentorch_cli.core.where import Op, Term
from agentorch_cli.errors import UsageError
from agentorch_cli.handlers.context import Context


def labelled(label: Mapping[str, str] | None) -> Iterator[Term]:
    """Each of these labels has this value; `*` is any."""
    for key, value in (label or {}).items():
        op, wanted = (Op.LIKE, "*") if value == "*" else (Op.IN, value)
        yield Term("label", op, (wanted,), key)


def within_time(since: str | None, until: str | None) -> Iterator[Term]:
    """It was made in this time: from `since` on, and before `until`. Raises UsageError."""
    for option, text, op in (("since", since, Op.AT_LEAST), ("until", until, Op.BELOW)):
        if text is not None:
            yield Term("created", op, (read_moment(option, text),))


async def find_moments(context: Context, since: str | None, until: str | None) -> list[datetime | None]:
    """Since when, and until when, on the database's clock. Raises UsageError."""
    read = [
        read_moment(option, text) if text is not None else None
        for option, text in (("since", since), ("until", until))
    ]
    if not any(isinstance(one, float) for one in read):
        return [one if isinstance(one, datetime) else None for one in read]
    clock = await context.db.fetch_one("clock")
    assert clock is not None
    return [clock["now"] - timedelta(seconds=one) if isinstance(one, float) else one for one in read]


def read_moment(option: str, text: str) -> datetime | float:
    """A moment, or how many seconds ago. Raises UsageError."""
    try:
        return parse_moment(text)
    except ValueError as error:
        raise UsageError(f'--{option} "{shortened(text)}" {error}') from error
