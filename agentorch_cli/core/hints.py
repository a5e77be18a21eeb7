"""The word that was probably meant. Used wherever a name is refused."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Final

LONGEST_WORD: Final = 200
"""Characters of a word that is looked up at all: the comparison takes their product."""

LONGEST_SHOWN: Final = 60
"""Characters of a wrong word that are told."""

MOST_COMPARED: Final = 10_000
"""Names compared at most: difflib costs about 10 us each, and a hint must not be slower than the work."""


def closest(word: str, known: Collection[str]) -> str | None:
    """The known word most like this one, or None where nothing is near."""
    from difflib import get_close_matches  # only the unhappy path pays for the import

    if len(word) > LONGEST_WORD:
        return None
    folded = _fold(word)
    candidates = list(islice(known, MOST_COMPARED))
    for candidate in candidates:
        if _fold(candidate) == folded:
            return candidate
    matches = get_close_matches(word, candidates, n=1, cutoff=0.6)
    if matches:
        return matches[0]
    holding = [candidate for candidate in candidates if len(folded) > 2 and folded in _fold(candidate)]
    return min(holding, key=len, default=None)


def did_you_mean(word: str, known: Collection[str]) -> str:
    """` (did you mean "x"?)`, ready to be put after a sentence; empty where nothing is near."""
    match = closest(word, known)
    return f' (did you mean "{match}"?)' if match is not None else ""


def nearest_id(word: str, known: Collection[str]) -> str | None:
    """The id that was probably meant. Ids that were made look alike although they are strangers:
    of those, only one with the same length and at most two other characters is near, or the only one
    that begins like this."""
    if len(word) > LONGEST_WORD:
        return None
    if not _is_made(word):
        chosen = [one for one in islice(known, MOST_COMPARED) if not _is_made(one)]
        return closest(word, chosen) or _only_beginning(word, known)
    near = [one for one in known if len(one) == len(word) and _differs(one, word) <= MOST_MISTYPED]
    return min(near, key=lambda one: _differs(one, word), default=None) or _only_beginning(word, known)


MOST_MISTYPED: Final = 2
"""Wrong characters up to which a made id is taken for another."""


def _is_made(word: str) -> bool:
    """Whether this looks like a UUID, or like a part of one."""
    return (
        len(word) >= 8
        and word.count("-") in (1, 2, 3, 4)
        and not set(word.lower()) - set("0123456789abcdef-")
    )


def _differs(one: str, other: str) -> int:
    return sum(a != b for a, b in zip(one.lower(), other.lower(), strict=True))


def _only_beginning(word: str, known: Collection[str]) -> str | None:
    found = [one for one in known if len(word) > 2 and one.lower().startswith(word.lower())]
    return found[0] if len(found) == 1 else None


def shortened(word: str) -> str:
    """What somebody typed, short enough to be told."""
    return word if len(word) <= LONGEST_SHOWN else f"{word[:LONGEST_SHOWN]}…"


def _fold(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")
