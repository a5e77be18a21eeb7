"""Moments as people write them: how long ago ("90s", "1h30m"), or when ("2030-01-31T12:00Z")."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from agentorch_cli.core.durations import parse_duration

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2999, 12, 31, tzinfo=UTC)
"""What lies outside is a typing error, and the driver of the database cannot tell all of it."""

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def parse_moment(text: str) -> datetime | float:
    """A moment in UTC, or seconds before now, which the caller's clock says. Without a zone it is UTC.

    Raises ValueError with a sentence that says what would be right.
    """
    wanted = 'must be how long ago ("30s", "1h", "2d") or when ("2030-01-31", "2030-01-31T12:00:00Z")'
    if not _DATE.match(text):
        try:
            return parse_duration(text)
        except ValueError:
            raise ValueError(wanted) from None
    if len(text) > 40:
        raise ValueError(wanted)
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(wanted) from None
    if not EARLIEST <= moment <= LATEST:
        raise ValueError("must be between 1970 and 2999")
    return moment
