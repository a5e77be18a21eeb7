"""A line that is typed: keys, cursor, and what of it is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from agentorch_cli.cli.lineedit import Event, Keys, LineEditor
from agentorch_cli.text import is_visible


def typed(*pieces: bytes, text: str = "", history: list[str] | None = None) -> LineEditor:
    keys, editor = Keys(), LineEditor(text, history)
    for piece in pieces:
        for key in keys.read(piece):
            editor.press(key)
    return editor


@pytest.mark.parametrize(
    ("keys", "text", "at"),
    [
        (b"hello", "hello", 5),
        (b"hello\x1b[D\x1b[D-", "hel-lo", 4),
        (b"hello\x01>\x05<", ">hello<", 7),
        (b"helo\x1b[Dl", "hello", 4),
        (b"hellooo\x7f\x08", "hello", 5),
        (b"hello\x1b[H\x1b[3~", "ello", 0),
        (b"two words\x17", "two ", 4),
        (b"two words\x15", "", 0),
        (b"two words\x1b[1;5D\x0b", "two ", 4),
        (b"two words\x1bb\x1bb\x1bfX", "twoX words", 4),
        (b"one\x1b\rtwo", "one\ntwo", 7),
        (b"\x1b[200~one\r\ntwo\x1b[D\x1b[201~!", "one\ntwo\x1b[D!", 11),
        (b"a\x1b[99;99Xb\x00\x1e", "ab", 2),
        ("zwölf €".encode(), "zwölf €", 7),
        (b"\x1b[D\x7f\x1b[C\x1b[3~", "", 0),
    ],
)
def test_keys_edit_the_line(keys: bytes, text: str, at: int) -> None:
    whole = typed(keys)
    piecemeal = typed(*(keys[n : n + 1] for n in range(len(keys))))

    assert (whole.text, whole.at) == (text, at)
    assert (piecemeal.text, piecemeal.at) == (text, at)


def test_earlier_lines_come_back_and_the_new_one_is_not_lost() -> None:
    editor = typed(b"new\x1b[A\x1b[A\x1b[A", history=["first", "second"])
    assert editor.text == "first"

    editor.press("down")
    assert editor.text == "second"
    editor.press("down")
    assert editor.text == "new"


def test_some_keys_are_for_whoever_owns_the_line() -> None:
    editor = LineEditor()
    asked = [editor.press(key) for key in Keys().read(b"\r\x03\x04\x1a\x0c")]
    assert asked == [Event.ENTER, Event.INTERRUPT, Event.END_OF_INPUT, Event.SUSPEND, Event.REDRAW]

    editor = LineEditor("text")
    assert editor.press("end_of_input") is None, "Ctrl-D leaves only where the line is empty"


@given(st.text(max_size=60), st.integers(0, 60), st.integers(4, 40))
def test_what_is_shown_fits_and_holds_the_cursor(text: str, at: int, room: int) -> None:
    editor = LineEditor(text)
    editor.at = min(at, len(text))

    shown, column = editor.view(room)

    assert cell_len(shown) <= room
    assert 0 <= column < room or column <= cell_len(shown)
    assert all(is_visible(ord(one)) for one in shown)


@given(st.lists(st.binary(max_size=8), max_size=20))
def test_any_bytes_are_survived(pieces: list[bytes]) -> None:
    editor = typed(*pieces)

    assert 0 <= editor.at <= len(editor.text)
