"""What a careless or hostile other side may write; and how hard it is tried.

`make test` takes seconds, `make fuzz` sets AGENTORCH_FUZZ to some thousands of examples for each test.
"""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("AGENTORCH_FUZZ", "0"))

PIECES = [
    "\x00", "\x07", "\x08", "\t", "\r", "\n", "\x1b", "\x1b[2J", "\x1b]52;c;aGk=\x07", "\x1b]8;;http://x\x1b\\",
    "\x7f", "\x85", "\x9b", "\x9d", "\u200b", "\u2028", "\u202e", "\u2066", "\ufeff", "\U000e0041", "\ud800",
    "\u3164", "[bold]", "[/bold]", "[/]", "[link=x]", "{x}", "%s", "\\", "'", '"', "`", "漢字",
    "🙂", "👩‍👩‍👧", "e\u0301",
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


def values_of(letters: st.SearchStrategy[str], most: int = 12) -> st.SearchStrategy[Any]:
    """Any JSON with such texts, and some that is none."""
    return st.recursive(
        st.none() | st.booleans() | numbers | letters,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(letters, inner, max_size=4),
        max_leaves=most,
    )


values = values_of(texts)

stored_texts = texts.map(lambda text: text.encode("utf-8", "replace").decode())
"""What gets past the border and can be stored: all of it, but for lone surrogates."""

stored_values = values_of(stored_texts, 4)


def tried(few: int, *, slow: bool = False) -> Any:
    """So many examples in `make test`; those of `make fuzz` there, fewer where each is slow."""
    many = max(few, EXAMPLES // 20 if slow else EXAMPLES)
    return settings(
        max_examples=many,
        deadline=None if slow else 4_000,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        # a page of a hundred fields takes minutes to shrink: the blob leads back to it
        phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
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
        piece = draw(
            texts | st.sampled_from([text[start:end] * 2, "[" * 200, "{" * 200, '"', "=", "\n", "#"])
        )
        text = text[:start] + piece + text[end:]
    return text


COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def is_harmless(text: str) -> bool:
    """Nothing in it that a terminal obeys or hides, by Unicode's own categories; our own colours are."""
    return all(
        letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        for letter in COLOURS.sub("", text)
    )
