"""What the lists have in common: labels, and times on the database's clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agentorch_cli.core.moments import parse_moment
from agentorch_cli.core.where import Op, Term
from agentorch_cli.errors import UsageError


def labelled(label: Mapping[str, str] | None) -> Iterator[Term]:
    """Each of these labels has this value; `*` is any."""
    for key, value in (label or {}).items():
        op, wanted = (Op.LIKE, "*") if value == "*" else (Op.IN, value)
        yield Term("label", op, (wanted,), key)


def within_time(since: str | None, until: str | None, field: str = "created") -> Iterator[Term]:
    """It was made in this time: from `since` on, and before `until`. Raises UsageError."""
    for option, text, op in (("since", since, Op.AT_LEAST), ("until", until, Op.BELOW)):
        if text is not None:
            try:
                yield Term(field, op, (parse_moment(text),))
            except ValueError as error:
                raise UsageError(f'{option} "{text[:60]}" {error}') from error
