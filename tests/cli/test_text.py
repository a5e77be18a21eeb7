"""What others wrote is shown, and does nothing."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from agentorch_cli.text import MAX_SHOWN, escape_json, one_line, visible

DANGEROUS = [
    "\x1b",
    "\x07",
    "\x00",
    "\x7f",
    "\x9b",
    "\r",
    "\t",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
    "\u2028",
]
DANGEROUS += [
    "\U000e0041",
    "\U000e0100",
    "\ufe0f",
    "\u3164",
    "\u00ad",
    "\ud800",
    "\ue000",
    "\u115f",
    "\u180e",
]

anything = st.text(st.characters(codec=None, exclude_categories=())) | st.lists(
    st.sampled_from([*DANGEROUS, "a", "é", "漢", "🙂", "\n", " "])
).map("".join)


def is_harmless(character: str) -> bool:
    """A second, slower opinion: by Unicode's own categories."""
    return character == "\n" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


@given(anything)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = visible(text)

    assert all(map(is_harmless, shown))
    assert not set(shown) & set(DANGEROUS)
    shown.encode()


@given(anything)
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


@given(
    st.text(
        st.characters(categories=["L", "N", "P", "S"], exclude_characters="\u3164\u115f\u1160\uffa0\u2800")
    )
)
def test_ordinary_text_of_any_language_stays_as_it_is(text: str) -> None:
    known = "".join(character for character in text if unicodedata.category(character) != "Cn")

    assert visible(known) == known


def test_codes_say_what_was_there() -> None:
    assert visible("a\x1b[2Jb") == "a\\x1b[2Jb"
    assert visible("x\u202ey") == "x\\u{202e}y"
    assert visible("t\U000e0041") == "t\\u{e0041}"
    assert visible("two\r\nlines\n") == "two\nlines\n"
    assert one_line("two\nlines\n") == "two\\nlines"


def test_long_text_is_cut_and_counted() -> None:
    shown = visible("x" * (MAX_SHOWN + 12_345))

    assert shown == "x" * MAX_SHOWN + "… (12,345 more characters)"


@given(
    st.recursive(
        anything | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(anything, inner)
    )
)
def test_json_keeps_its_meaning_and_hides_nothing(document: object) -> None:
    text = json.dumps(document, ensure_ascii=False, indent=2)

    escaped = escape_json(text)

    assert json.loads(escaped) == json.loads(json.dumps(document))
    assert all(map(is_harmless, escaped))
