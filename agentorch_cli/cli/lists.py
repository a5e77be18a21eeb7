"""What the commands that list have in common: the same options, and how a list goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.errors import UsageError

if TYPE_CHECKING:
    from agentorch_cli.cli.session import Session

Status = Annotated[
    list[str] | None,
    typer.Option("--status", metavar="STATE", help="Only these states; may be repeated, or have commas."),
]
Capabilities = Annotated[
    list[str] | None,
    typer.Option("-c", "--capability", metavar="CAP", help="Only with this capability; repeated, with all."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help='Only with this label; "NAME=*": any value.'),
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help='From then on: "1h" ago, or "2030-01-31T12:00Z".'),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then, written likewise.")]
Sort = Annotated[
    str | None,
    typer.Option("--sort", metavar="FIELD", help='Order; with a minus in front ("-created") from the end.'),
]
Cursor = Annotated[
    str | None,
    typer.Option("--cursor", metavar="CURSOR", help="Go on after the thing that had this cursor."),
]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="How many at most.")]


def states(words: Iterable[str] | None, known: Sequence[str], what: str = "state") -> list[str] | None:
    """States of a fixed list; several may stand in one word, with commas. Raises UsageError."""
    from agentorch_cli.core.hints import did_you_mean

    if not words:
        return None
    found = [one for word in words for one in word.split(",")]
    for one in found:
        if one not in known:
            hint = f"One of {', '.join(known)}."
            raise UsageError(f'"{one}" is no {what}{did_you_mean(one, known)}', hint=hint)
    return found


def labels(words: Iterable[str] | None) -> dict[str, str] | None:
    """`NAME=VALUE` as pairs. Raises UsageError."""
    if not words:
        return None
    found: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise UsageError(
                f'--label "{word}" is not NAME=VALUE', hint='--label team=ml, or --label "team=*"'
            )
        found[name] = value
    return found


def times(since: str | None, until: str | None) -> Mapping[str, str]:
    """The two times, checked before anything is asked. Raises UsageError."""
    from agentorch_cli.core.hints import shortened
    from agentorch_cli.core.moments import parse_moment

    given = {name: text for name, text in (("since", since), ("until", until)) if text is not None}
    for name, text in given.items():
        try:
            parse_moment(text)
        except ValueError as error:
            raise UsageError(f'--{name} "{shortened(text)}" {error}') from error
    return given


def page_of(limit: int | None, sort: str | None, cursor: str | None) -> dict[str, Any]:
    """Which part of the list; only what was said."""
    return {
        key: one for key, one in (("limit", limit), ("sort", sort), ("cursor", cursor)) if one is not None
    }


def nothing(given: Mapping[str, Any], what: str, way: str = "") -> str:
    """What an empty list says: that there are none yet and how to get some, or that none fit."""
    if any(value for key, value in given.items() if key not in ("limit", "sort")):
        return f"There are no such {what}."
    return f"There are no {what} yet{'; ' if way else ''}{way}."


def tell_more(session: Session, rows: Sequence[Any], limit: int) -> None:
    """Say how the list goes on, where this was perhaps not all of it."""
    if len(rows) < limit or session.format != "table":
        return
    if not hasattr(rows[-1], "cursor"):
        session.say("There may be more: a larger --limit shows them.")
    elif rows[-1].cursor is not None:
        session.say(f"There may be more: --cursor {rows[-1].cursor}, or a larger --limit.")
