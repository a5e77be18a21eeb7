"""A line of text that is being typed: keys in, text and cursor out. It knows no terminal.

The kernel's own line editing has no cursor keys, and cannot give way to a message that arrives
while somebody types. The line is shown in one row, as the part of it around the cursor, so
that any length fits into any width; a newline in it (pasted, or Alt-Enter) is shown as a sign.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from enum import StrEnum

from rich.cells import cell_len

from agentorch_cli.text import visible

MOST_TYPED = 1_000_000
"""Characters of one answer."""

PASTE_BEGINS, PASTE_ENDS = "\x1b[200~", "\x1b[201~"

_SEQUENCES = {
    "\x1b[D": "left",
    "\x1b[C": "right",
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[H": "home",
    "\x1b[F": "end",
    "\x1b[1~": "home",
    "\x1b[4~": "end",
    "\x1b[3~": "delete",
    "\x1b[1;5D": "word_left",
    "\x1b[1;5C": "word_right",
    "\x1bOD": "left",
    "\x1bOC": "right",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOH": "home",
    "\x1bOF": "end",
    "\x1bb": "word_left",
    "\x1bf": "word_right",
    "\x1b\r": "newline",
    "\x1b\n": "newline",
}
_CONTROLS = {
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x01": "home",
    "\x02": "left",
    "\x05": "end",
    "\x06": "right",
    "\x0b": "kill_right",
    "\x0c": "redraw",
    "\x0e": "down",
    "\x10": "up",
    "\x15": "kill_left",
    "\x17": "kill_word",
    "\x03": "interrupt",
    "\x04": "end_of_input",
    "\x1a": "suspend",
}


class Event(StrEnum):
    """What a key asks of whoever owns the line."""

    ENTER = "enter"
    INTERRUPT = "interrupt"
    END_OF_INPUT = "end_of_input"
    SUSPEND = "suspend"
    REDRAW = "redraw"


_EVENTS = frozenset(str(event) for event in Event)


class Keys:
    """Bytes of a terminal as keys: names of `_SEQUENCES` and `_CONTROLS`, or `"text:…"`."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._pasted: list[str] | None = None

    def read(self, typed: bytes) -> Iterator[str]:
        """The keys of these bytes; an unfinished sequence waits for the next."""
        self._rest += self._decoder.decode(typed)
        while self._rest:
            key = self._paste() if self._pasted is not None else self._next()
            if key is None:
                return
            if key:
                yield key

    def _next(self) -> str | None:
        """The next key; empty for what means nothing here, None where more is needed."""
        rest = self._rest
        if rest[0] == "\x1b":
            return self._sequence()
        if rest[0] in _CONTROLS:
            self._rest = rest[1:]
            return _CONTROLS[rest[0]]
        if ord(rest[0]) < 0x20 and rest[0] != "\t":
            self._rest = rest[1:]
            return ""
        end = next((at for at, one in enumerate(rest) if one in "\x1b\x7f" or ord(one) < 0x20), len(rest))
        end = max(end, 1)
        self._rest = rest[end:]
        return "text:" + rest[:end].replace("\t", " ")

    def _sequence(self) -> str | None:
        rest = self._rest
        if rest.startswith(PASTE_BEGINS):
            self._rest = rest[len(PASTE_BEGINS) :]
            self._pasted = []
            return ""
        if len(rest) == 1:
            return None
        if rest[1] not in "[O":
            self._rest = rest[2:]
            return _SEQUENCES.get(rest[:2], "")
        end = next((at for at, one in enumerate(rest[2:], 2) if "@" <= one <= "~"), None)
        if end is None:
            if len(rest) > 32:  # no terminal sends such a thing
                self._rest = ""
            return None
        self._rest = rest[end + 1 :]
        return _SEQUENCES.get(rest[: end + 1], "")

    def _paste(self) -> str | None:
        assert self._pasted is not None
        text, found, after = self._rest.partition(PASTE_ENDS)
        if not found:
            keep = len(PASTE_ENDS) - 1  # the mark of its end may have come in part
            self._pasted.append(self._rest[:-keep])
            self._rest = self._rest[-keep:]
            return None
        whole = "".join([*self._pasted, text]).replace("\r\n", "\n").replace("\r", "\n")
        self._rest, self._pasted = after, None
        return f"text:{whole}" if whole else ""


class LineEditor:
    """The text, and where the cursor stands in it."""

    def __init__(self, text: str = "", history: list[str] | None = None) -> None:
        self.text = text
        self.at = len(text)
        self._history = [*(history or []), text]
        self._place = len(self._history) - 1

    def press(self, key: str) -> Event | None:
        """Do what a key says; the event where it is somebody else's."""
        if key.startswith("text:"):
            self._insert(key[5:])
        elif key == "newline":
            self._insert("\n")
        elif key == "end_of_input" and self.text:
            self._cut(self.at, self.at + 1)
        elif key in _EVENTS:
            return Event(key)
        else:
            self._edit(key)
        return None

    def _edit(self, key: str) -> None:
        match key:
            case "left":
                self.at = max(0, self.at - 1)
            case "right":
                self.at = min(len(self.text), self.at + 1)
            case "home":
                self.at = 0
            case "end":
                self.at = len(self.text)
            case "word_left":
                self.at = self._word_start()
            case "word_right":
                rest = self.text[self.at :]
                words = rest.lstrip()
                self.at += len(rest) - len(words) + len(words.partition(" ")[0])
            case "backspace":
                self._cut(self.at - 1, self.at)
            case "delete":
                self._cut(self.at, self.at + 1)
            case "kill_left":
                self._cut(0, self.at)
            case "kill_right":
                self._cut(self.at, len(self.text))
            case "kill_word":
                self._cut(self._word_start(), self.at)
            case "up":
                self._recall(-1)
            case "down":
                self._recall(1)

    def _insert(self, text: str) -> None:
        text = text[: MOST_TYPED - len(self.text)]
        self.text = self.text[: self.at] + text + self.text[self.at :]
        self.at += len(text)

    def _cut(self, start: int, end: int) -> None:
        start = max(0, start)
        self.text = self.text[:start] + self.text[end:]
        self.at = min(start, len(self.text))

    def _word_start(self) -> int:
        before = self.text[: self.at].rstrip()
        return before.rfind(" ") + 1 if before else 0

    def _recall(self, step: int) -> None:
        place = self._place + step
        if 0 <= place < len(self._history):
            self._history[self._place] = self.text
            self._place = place
            self.text = self._history[place]
            self.at = len(self.text)

    def view(self, room: int, is_ascii: bool = False) -> tuple[str, int]:
        """What is shown in so many columns, and in which of them the cursor stands."""
        newline = "|" if is_ascii else "⏎"
        start = max(0, self.at - room)  # no character is narrower than nothing, few are narrower than one
        cells = [visible(one).replace("\n", newline) for one in self.text[start : self.at + room]]
        before = cells[: self.at - start]
        width = sum(map(cell_len, before))
        first = 0
        while width > room - 1:
            width -= cell_len(before[first])
            first += 1
        shown, used = "", 0
        for cell in cells[first:]:
            used += cell_len(cell)
            if used > room:
                break
            shown += cell
        return shown, width
