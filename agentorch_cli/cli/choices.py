"""Words that a command takes from a fixed list, checked where they can still be explained."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.errors import UsageError


def known_policy(word: str, known: Collection[str], option: str) -> str:
    """What an option of a schedule takes. Raises UsageError."""
    return _known(word, known, f"policy for {option}")


def _known(word: str, known: Collection[str], what: str) -> str:
    if word not in known:
        names = [str(one) for one in known]
        hint = f"One of {', '.join(names)}." if len(names) < 10 else None
        raise UsageError(f'"{word}" is no {what}{did_you_mean(word, names)}', hint=hint)
    return word


def known_settings(words: Iterable[str] | None) -> set[str]:
    """Names of settings; the name of a section is all of its settings. Raises UsageError."""
    from agentorch_cli.config import setting_names

    names = setting_names()
    if not words:
        return set(names)
    sections = {name.partition(".")[0] for name in names}
    wanted: set[str] = set()
    for word in words:
        _known(word, [*names, *sorted(sections)], "setting")
        wanted |= {name for name in names if name == word or name.startswith(f"{word}.")}
    return wanted
