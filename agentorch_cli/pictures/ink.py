"""What both SVG pictures are made of: colours for light and dark, signs of states, and safe text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agentorch_cli.pictures.words import cells, plain, state_words

LETTER: Final = 7.3
"""Width of a letter at 12 px in the fonts below, in px; all are of one width."""

_FONTS: Final = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"

_LIGHT: Final = {
    "paper": "#ffffff", "text": "#1f2328", "faint": "#656d76", "line": "#afb8c1", "grid": "#d8dee4",
    "green": "#1a7f37", "blue": "#0969da", "red": "#cf222e", "amber": "#9a6700", "grey": "#6e7781",
    "violet": "#8250df",
}  # fmt: skip
_DARK: Final = {
    "paper": "#0d1117", "text": "#e6edf3", "faint": "#8b949e", "line": "#484f58", "grid": "#21262d",
    "green": "#3fb950", "blue": "#58a6ff", "red": "#f85149", "amber": "#d29922", "grey": "#8b949e",
    "violet": "#bc8cff",
}  # fmt: skip

COLORS: Final = {
    "completed": "green", "running": "blue", "accepted": "blue", "failed": "red", "timed_out": "red",
    "pending": "amber", "sent": "amber", "blocked": "grey", "skipped": "grey", "planned": "grey",
    "cancelled": "violet", "lost": "violet", "unknown": "violet",
}  # fmt: skip
"""Of each state."""

_SIGNS: Final = {
    "completed": '<circle r="6" class="full"/><path class="on" d="M-2.7 .2L-.8 2.2L2.9-2"/>',
    "failed": '<circle r="6" class="full"/><path class="on" d="M-2.2-2.2L2.2 2.2M-2.2 2.2L2.2-2.2"/>',
    "timed_out": '<circle r="6" class="full"/><path class="on" d="M0-3.2V0L2.3 1.6"/>',
    "running": '<circle r="5.3" class="ring"/><path class="full" d="M0-5.3A5.3 5.3 0 0 1 0 5.3Z"/>',
    "pending": '<circle r="5.3" class="ring"/>',
    "blocked": '<circle r="5.3" class="ring dots"/>',
    "cancelled": '<circle r="5.3" class="ring"/><path class="ring" d="M-3.6 3.6L3.6-3.6"/>',
    "skipped": '<circle r="5.3" class="ring"/>'
    '<path class="ring" d="M-2.4-2.4L0 0L-2.4 2.4M.8-2.4L3.2 0L.8 2.4"/>',
    "planned": '<circle r="5.3" class="ring"/><circle r="1.6" class="full"/>',
    "unknown": '<circle r="5.3" class="ring"/>'
    '<path class="ring" d="M-1.7-1.5A1.8 1.8 0 1 1 .3 .4Q0 .6 0 1.3M0 3V3.1"/>',
}
_SIGNS["lost"] = _SIGNS["unknown"]
_SIGNS["accepted"] = _SIGNS["running"]
_SIGNS["sent"] = _SIGNS["pending"]


def _palette(colors: dict[str, str]) -> str:
    rules = [
        f".ao-picture .paper{{fill:{colors['paper']}}}",
        f".ao-picture text{{fill:{colors['text']}}}",
        f".ao-picture .faint{{fill:{colors['faint']}}}",
        f".ao-picture .edge{{stroke:{colors['line']}}}.ao-picture .tip{{fill:{colors['line']}}}",
        f".ao-picture .grid{{stroke:{colors['grid']}}}",
        f".ao-picture .on{{stroke:{colors['paper']}}}.ao-picture .inside{{fill:{colors['paper']}}}",
        f".ao-picture .circle{{stroke:{colors['red']}}}",
    ]
    rules += [f".ao-picture .{state}{{color:{colors[name]}}}" for state, name in COLORS.items()]
    return "".join(rules)


STYLE: Final = (
    f".ao-picture{{font:12px {_FONTS}}}.ao-picture .small{{font-size:10.5px}}"
    ".ao-picture .strong{font-weight:700}"
    ".ao-picture .full{fill:currentColor}.ao-picture .ring{fill:none;stroke:currentColor;stroke-width:1.4}"
    ".ao-picture .dots{stroke-dasharray:2 1.8}"
    ".ao-picture .on{fill:none;stroke-width:1.6;stroke-linecap:round;stroke-linejoin:round}"
    ".ao-picture .box{fill:currentColor;fill-opacity:.09;stroke:currentColor;stroke-opacity:.75"
    ";stroke-width:1.2}"
    ".ao-picture .blocked .box,.ao-picture .planned .box,.ao-picture .skipped .box"
    "{fill-opacity:.05;stroke-opacity:.5}"
    ".ao-picture .unknown .box,.ao-picture .blocked .box{stroke-dasharray:4 3}"
    ".ao-picture g.node:hover .box{stroke-width:2.4}"
    ".ao-picture .edge{fill:none;stroke-width:1.3}.ao-picture .made{stroke-dasharray:2 3}"
    ".ao-picture .circle{stroke-dasharray:5 3;stroke-width:1.8}"
    ".ao-picture .bar{fill:currentColor}.ao-picture .bar:hover{fill-opacity:.75}"
    ".ao-picture .wait{fill:currentColor;fill-opacity:.22}.ao-picture .idle{fill-opacity:.1}"
    ".ao-picture .grid{stroke-width:1}"
    ".ao-picture .now{stroke:currentColor;stroke-width:1.4;stroke-dasharray:4 3}"
    ".ao-picture .path{fill:currentColor}"
    + _palette(_LIGHT)
    + "@media(prefers-color-scheme:dark){"
    + _palette(_DARK)
    + "}"
)
"""The style sheet of the pictures: for a page that shows several, drawn with `with_style=False`."""

_MARKUP: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;", "`": "&#96;"}
)


def escaped(text: str) -> str:
    """Text of others for XML and HTML, as content or in quotes: in one line, nothing hidden, no markup."""
    return plain(text).translate(_MARKUP)


def num(value: float) -> str:
    """A coordinate, without digits that nobody sees."""
    return f"{value:.1f}".removesuffix(".0")


def sign(state: str, x: float, y: float) -> str:
    """The sign of a state around a point, in its colour."""
    return f'<g class="{state}" transform="translate({num(x)} {num(y)})">{_SIGNS[state]}</g>'


def label(x: float, y: float, text: str, classes: str = "", anchor: str = "") -> str:
    """A line of text, which is escaped here."""
    more = (f' class="{classes}"' if classes else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{num(x)}" y="{num(y)}"{more}>{escaped(text)}</text>'


def tooltip(lines: Iterable[str]) -> str:
    """What is shown when the pointer rests on the element that this stands in."""
    return f"<title>{'&#10;'.join(escaped(line) for line in lines if line)}</title>"


def legend(counts: Iterable[tuple[str, int]], x: float, y: float) -> tuple[str, float]:
    """Signs with their states and how many there are; and how wide that is."""
    drawn, start = [], x
    for state, count in counts:
        words = f"{count:,} {state_words(state)}"
        drawn.append(sign(state, x + 6, y) + label(x + 18, y + 4, words, "faint"))
        x += 18 + cells(words) * LETTER + 20
    return "".join(drawn), x - start


def document(width: float, height: float, title: str, content: Iterable[str], *, with_style: bool) -> str:
    """The whole picture on its paper."""
    style = f"<style>{STYLE}</style>" if with_style else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ao-picture" role="img" width="{num(width)}"'
        f' height="{num(height)}" viewBox="0 0 {num(width)} {num(height)}">'
        f"<title>{escaped(title)}</title>{style}"
        f'<rect class="paper" width="100%" height="100%" rx="8"/>{"".join(content)}</svg>\n'
    )
