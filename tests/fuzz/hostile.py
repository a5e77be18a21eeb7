"""What a careless or hostile other side may write; and how hard it is tried.

`make test` takes seconds, `make fuzz` sets AGENTORCH_FUZZ to some thousands of examples for each test.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("AGENTORCH_FUZZ", "0"))

PIECES = [
    "\x00", "\x07", "\x08", "\t", "\r", "\n", "\x1b", "\x1b[2J", "\x1b]52;c;aGk=\x07", "\x1b]8;;http://x\x1b\\",
    "\x7f", "\x85", "\x9b", "\x9d", "\u200b", "\u2028", "\u202e", "\u2066", "\ufeff", "\U000e0041", "\ud800",
    "\u3164", "[bold]", "[/bold]", "[/]", "[link=x]", "{x}", "%s", "\\", "'", '"', "`", "漢字", "🙂", "👩‍👩‍👧", "e\u0301",
    "x" * 300, " ", "a", "0", "-", "null", "../", "'; drop table x; --",
]  # fmt: skip

texts = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(
    st.characters(codec=None, exclude_categories=()), max_size=40
)
"""Text with everything in it that a terminal, a markup, a quote or a query could obey."""

numbers = (
    st.integers()
    | st.floats()
    | st.sampled_from([0, -1, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, -0.0, float("inf"), float("nan")])
)

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
"""Any JSON, and some that is none."""


def tried(few: int, *, slow: bool = False) -> Any:
    """So many examples in `make test`; those of `make fuzz` there, fewer where each is slow."""
    many = max(few, EXAMPLES // 20 if slow else EXAMPLES)
    return settings(
        max_examples=many,
        deadline=None if slow else 4_000,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@st.composite
def changed(draw: Any, document: Any) -> Any:
    """The document, with one of its parts, at any depth, left out, doubled or replaced."""
    if isinstance(document, dict) and document and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(document, key=str)))
        match draw(st.integers(0, 4)):
            case 0:
                return {name: value for name, value in document.items() if name != key}
            case 1:
                return {**document, draw(texts): draw(values)}
            case 2:
                return {(draw(texts) if name == key else name): value for name, value in document.items()}
            case _:
                return {**document, key: draw(changed(document[key]))}
    if isinstance(document, list) and document and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(document) - 1))
        return [*document[:place], draw(changed(document[place])), *document[place:]]
    return draw(values)


@st.composite
def spoiled(draw: Any, text: str) -> str:
    """The text with some of it cut out, doubled, or written over."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 30)))
        piece = draw(texts | st.sampled_from([text[start:end] * 2, "[" * 200, "{" * 200, '"', "=", "\n", "[[", "#"]))
        text = text[:start] + piece + text[end:]
    return text
